"""How figures look, and how they become pictures: the same bytes for the same data.

Every series has a colour, a marker, a line style and a hatch of its own, so that figures can be
read in grey and by colour-blind people. Sizes are those of print: 7 inches are two columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any

import matplotlib

from diffgap.report.picture import Picture

WIDTH = 7.0
"""Inches of a whole page's text."""

GREY = "#8C8C8C"
"""What stands behind the data."""

DPI = 150

RC = {
    "svg.hashsalt": "diffgap",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "grid.linewidth": 0.5,
    "grid.color": "#DDDDDD",
    "hatch.linewidth": 0.7,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "errorbar.capsize": 2,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Mark:
    """What tells a series from the others, in colour and without."""

    colour: str
    marker: str
    line: Any
    hatch: str
    light: bool

    @property
    def edge(self) -> str:
        """The colour of hatches, which must stand out."""
        return "black" if self.light else "white"


# Okabe & Ito's palette (2008). Neighbours differ in lightness, and so in grey.
_COLOURS = (
    ("#000000", False), ("#56B4E9", True), ("#D55E00", False), ("#0072B2", False),
    ("#E69F00", True), ("#009E73", False), ("#CC79A7", True), ("#F0E442", True),
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_LINES: tuple[Any, ...] = (
    "-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)), (0, (2, 1)), (0, (1, 2)),
)  # fmt: skip
_HATCHES = ("", "", "////", "", "....", "\\\\\\\\", "xxxx", "----")


def mark(place: int) -> Mark:
    """The mark of one series; the first 64 have no other's colour, marker and line together."""
    colour, light = _COLOURS[place % 8]
    other = (place + place // 8) % 8
    return Mark(colour, _MARKERS[other], _LINES[other], _HATCHES[other], light)


def new_figure(height: float, width: float = WIDTH) -> Any:
    """An empty figure, in inches, without pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def bare(axes: Any, grid: str = "y") -> None:
    """Faint lines at one axis' ticks to read values by, or at both."""
    axes.grid(axis=grid)
    axes.tick_params(length=2.5, width=0.7)


def recall_label(cutoff: int, of: str = "") -> str:
    """An axis label: ``R@5 (%)``."""
    return f"{of}R@{cutoff} (%)"


@dataclass(frozen=True)
class Drawing:
    """A figure that is not drawn yet: what is told of it, and what draws it.

    Attributes:
        key, title, caption, runs: see `Picture`.
        draw: makes the matplotlib figure, within `RC`.
    """

    key: str
    title: str
    caption: str
    runs: tuple[str, ...]
    draw: Callable[[], Any]

    def picture(self) -> Picture:
        """The figure in every format."""
        svg, png = StringIO(), BytesIO()
        with matplotlib.rc_context(RC):
            figure = self.draw()
            figure.savefig(svg, format="svg", metadata={"Date": None})
            figure.set_layout_engine("none")  # as it is now: finding it anew takes longest
            figure.savefig(png, format="png", dpi=DPI)
        return Picture(
            self.key, self.title, self.caption, svg.getvalue(), png.getvalue(), self.runs
        )


def seeds_told(is_complete: Iterable[int]) -> str:
    """How many seeds are behind each series: ``3 seeds``, or ``1 to 3 seeds``."""
    found = sorted(set(is_complete))
    many = str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
    return f"{many} seed{'' if found[-1] == 1 else 's'}"
