"""DiffGAP: bridging the modality gap of frozen contrastive embeddings, and sweeping over how.

    from diffgap import EmbeddingStore, load_bridge, rank

Names are imported when they are first used: `import diffgap` itself imports nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffgap.apply import rank
    from diffgap.bridge.methods import load_bridge
    from diffgap.bridge.model import DiffGAP
    from diffgap.store.store import EmbeddingStore

__version__ = "0.1.0"

_PUBLIC = {
    "DiffGAP": "diffgap.bridge.model",
    "EmbeddingStore": "diffgap.store.store",
    "load_bridge": "diffgap.bridge.methods",
    "rank": "diffgap.apply",
}

__all__ = ["DiffGAP", "EmbeddingStore", "__version__", "load_bridge", "rank"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
