"""Stores that a process opens again and again, read once: for the trials of a warm process."""

from __future__ import annotations

from diffgap.store.store import EmbeddingStore, stamp

_last: dict[str, tuple[object, EmbeddingStore]] = {}
"""The store that was opened last, with its files' stamp then: memory is kept for one."""


def open_again(uri: str) -> EmbeddingStore:
    """`EmbeddingStore.open`, without reading it again where its files are as they were.

    Raises:
        UserError: where it is no store, or its content is wrong.
    """
    now = stamp(uri)
    if uri in _last and _last[uri][0] == now:
        return _last[uri][1]
    _last.clear()
    store = EmbeddingStore.open(uri)
    _last[uri] = now, store
    return store
