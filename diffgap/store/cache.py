"""Cache of the last store that a process opened, for the trials that share a process."""

from __future__ import annotations

from diffgap.store.store import EmbeddingStore, stamp

_last: dict[str, tuple[object, EmbeddingStore]] = {}
"""The last store by URI, with its files' stamp; only one, as a store may fill much memory."""


def open_again(uri: str) -> EmbeddingStore:
    """`EmbeddingStore.open`, which reads the store again only where its files have changed."""
    current = stamp(uri)
    if uri in _last and _last[uri][0] == current:
        return _last[uri][1]
    _last.clear()  # before reading, so that two stores are never in memory at once
    store = EmbeddingStore.open(uri)
    _last[uri] = current, store
    return store
