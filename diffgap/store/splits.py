"""Splits of a store, and how a clip without one gets its own from its id."""

from __future__ import annotations

import hashlib

SPLITS = ("train", "val", "test")


def split_of(name: str) -> str:
    """train for 80 % of all names, val and test for 10 % each."""
    fraction = hash_fraction(name)
    if fraction < 0.8:
        return "train"
    return "val" if fraction < 0.9 else "test"


def hash_fraction(name: str) -> float:
    """A number in [0, 1) that follows from a name, uniformly spread over names.

    By SHA-256, so that it is the same on every machine and does not change when clips are added.
    """
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
