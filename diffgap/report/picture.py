"""A figure as every format shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """One figure.

    Attributes:
        key: its short name, good for file names: ``recall-ablation``.
        title: what it shows.
        caption: how to read it, in a sentence or two.
        svg: the whole document.
        png: the same at 150 dpi.
        runs: signatures of the trials that it was drawn from.
    """

    key: str
    title: str
    caption: str
    svg: str
    png: bytes
    runs: tuple[str, ...] = ()
