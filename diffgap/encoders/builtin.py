"""Built-in stores, known by name: built on first use, then kept in the user's cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from diffgap import corpora
from diffgap.errors import UserError, nearest
from diffgap.store.store import EmbeddingStore

SHOWN = 100  # characters of a name that an error repeats
BUILTIN_ENCODER = "soundscape"  # the frozen encoder of the built-in corpora
VERSION = "8c38514993d0"
"""Cache key of the built-in stores. Change it with whatever changes an embedding: how the corpus is
rendered, its captions, the encoder or its weights. tests/encoders/test_builtin.py fails when one of
them has changed and this has not."""


def cache_directory() -> Path:
    """DIFFGAP_CACHE, else `diffgap` in the user's cache directory."""
    if chosen := os.environ.get("DIFFGAP_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffgap"


def store_uri(name: str) -> str:
    """Path or URI of the store of this name, built or not; a path or URI stands for itself."""
    if name not in corpora.BUILTIN:
        return name if "://" in name else str(Path(name).absolute())
    return str(cache_directory() / "stores" / f"{name}-{VERSION}")


def is_built(name: str) -> bool:
    """False only for a built-in store before its first use."""
    return name not in corpora.BUILTIN or Path(store_uri(name)).exists()


def store_problem(name: str) -> str | None:
    """Why there is no store of this name; None where there is one."""
    if name in corpora.BUILTIN or "://" in name:
        return None
    if not os.path.exists(name):  # Path.exists would raise on a name that is too long for a path
        name = name if len(name) <= SHOWN else f"{name[:SHOWN]}..."
        hint = nearest(name, corpora.BUILTIN)
        return f"unknown store {name!r}; {hint} (or give the path of an embedding store)"
    if not (Path(name) / "manifest.json").is_file():
        return (
            f"{name!r} is not an embedding store (it has no manifest.json); "
            f"make one with: diffgap embed folder --root {name} --encoder soundscape --out STORE"
        )
    return None


def open_store(name: str, progress: Callable[[int, int], None] | None = None) -> EmbeddingStore:
    """Opens a store by name, path or URI; a built-in one is built on its first use.

    While it is built, `progress` is called with clips done and clips in all. One process builds it;
    others wait until it is there, or go on where that one was killed.
    """
    uri = store_uri(name)
    if not is_built(name) and (store := _build(name, Path(uri), progress)):
        return store
    try:
        return EmbeddingStore.open(uri)
    except UserError as error:
        if name not in corpora.BUILTIN:
            raise
        remedy = f"remove {uri}, and the next command builds it again"
        raise UserError(*error.problems, f"store: {name} is damaged; {remedy}") from None


def _build(
    name: str, path: Path, progress: Callable[[int, int], None] | None
) -> EmbeddingStore | None:
    """A built-in store; None where another process has built it, while this one waited."""
    from diffgap.encoders import EncoderChoice
    from diffgap.encoders.embed import StoreExistsError, embed

    corpus, choice = corpora.load(name, None), EncoderChoice(BUILTIN_ENCODER)
    try:
        return embed(corpus, choice, path, progress=progress).store
    except StoreExistsError:
        return None
    except OSError as error:
        place, cache = str(error.filename), str(cache_directory())
        if not (place.startswith(cache) or cache.startswith(place)):
            raise  # of another place, such as Ray's folder
        raise UserError(
            f"{place}: {error.strerror}; set DIFFGAP_CACHE to a directory that can be written to "
            "and has room for embeddings"
        ) from None
