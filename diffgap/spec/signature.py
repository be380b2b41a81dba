"""What makes an experiment the same experiment."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel

from diffgap.spec.blocks import OPTION_BLOCKS
from diffgap.spec.trial import DEFAULTS, Trial

FIRST_OPTIONS = {"mean_shift", "close", "diffusion_bridge", "diffusion_link"}
"""Methods whose settings every signature holds. Those of methods that came later are held by their
own trials alone, so that a new method leaves other trials' signatures as they are."""

LATER_FIELDS = {
    "score": ("normalise", "normalise_strength", "normalise_neighbours", "normalise_pool"),
    "diffusion_bridge": ("timesteps",),
}
"""Fields that came later, by block: at their defaults no signature holds them. A method's own
trials do: with the field it became another experiment."""


def canonical_json(trial: Trial, store_fingerprint: str) -> str:
    """A trial with its defaults written out, keys sorted, on one store.

    Numbers are written as their models hold them: a float field given as 1 reads 1.0.
    """
    # Retrieval was there before generation, and is signed as it always was.
    excluded = set() if trial.generates else {"generation"}
    return _canonical_json("trial", trial, excluded, store_fingerprint)


def _canonical_json(key: str, trial: Trial, excluded: set[str], store_fingerprint: str) -> str:
    later_options = set(OPTION_BLOCKS) - FIRST_OPTIONS - {trial.method}
    fields = trial.model_dump(mode="json", exclude=excluded | later_options)
    for block, names in LATER_FIELDS.items():
        defaults = getattr(DEFAULTS, block)
        for name in names if block != trial.method else ():
            if block in fields and fields[block][name] == getattr(defaults, name):
                del fields[block][name]
    content = {"store": store_fingerprint, key: fields}
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def signature(trial: Trial, store_fingerprint: str) -> str:
    """The first 12 hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(trial, store_fingerprint).encode()).hexdigest()[:12]


def training_signature(trial: Trial, store_fingerprint: str) -> str:
    """The same of what decides the trained weights alone: trials that share it train once."""
    excluded = {"score", "split", "generation"}
    text = _canonical_json("training", trial, excluded, store_fingerprint)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def flatten(model: BaseModel) -> dict[str, Any]:
    """A model's plain fields by dotted path, such as ``train.lr``."""
    flat: dict[str, Any] = {}

    def walk(tree: dict[str, Any], prefix: str) -> None:
        for name, value in tree.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}.")
            else:
                flat[prefix + name] = value

    walk(model.model_dump(mode="json"), "")
    return flat
