"""Style of the figures, and their rendering: the same bytes for the same data.

Every series has its own colour, marker, line style and hatch, so that figures can be read in grey
and by colour-blind people. Sizes are those of print: 7 inches are two columns. Matplotlib takes
half a second to import, and is imported only to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any

from diffgap.io.printable import printable

WIDTH = 7.0
"""Inches: the text of a whole page."""

GREY = "#8C8C8C"
"""Of what stands behind the data."""

DPI = 150

RC = {
    "svg.hashsalt": "diffgap",  # else ids are random, and no two files the same
    "text.parse_math": False,  # a name may hold dollars
    "svg.fonttype": "none",  # text stays text, to be searched and copied
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
    """What distinguishes a series, in colour and without."""

    colour: str
    marker: str
    line: Any
    hatch: str
    edge: str  # the colour of hatches, which must stand out


# Okabe & Ito's palette (2008). Neighbours differ in lightness, and so in grey.
_COLOURS = (
    ("#000000", "white"), ("#56B4E9", "black"), ("#D55E00", "white"), ("#0072B2", "white"),
    ("#E69F00", "black"), ("#009E73", "white"), ("#CC79A7", "black"), ("#F0E442", "black"),
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_LINES: tuple[Any, ...] = (
    "-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)), (0, (2, 1)), (0, (1, 2)),
)  # fmt: skip
_HATCHES = ("", "", "////", "", "....", "\\\\\\\\", "xxxx", "----")


def mark(index: int) -> Mark:
    """The mark of one series; the first 64 differ in colour, or in marker and line."""
    colour, edge = _COLOURS[index % 8]
    shape = (index + index // 8) % 8  # one further in each round of the colours
    return Mark(colour, _MARKERS[shape], _LINES[shape], _HATCHES[shape], edge)


def new_figure(height: float, width: float = WIDTH) -> Any:
    """An empty figure, in inches, without pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def faint_grid(axes: Any) -> None:
    """Faint level lines to read values by, and short ticks."""
    axes.grid(axis="y")
    axes.tick_params(length=2.5, width=0.7)


def seed_range(seeds: Iterable[int]) -> str:
    """How many seeds are behind each series: ``3 seeds``, or ``1 to 3 seeds``."""
    counts = sorted(set(seeds))
    text = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{text} seed{'' if counts[-1] == 1 else 's'}"


@dataclass(frozen=True)
class Picture:
    """A figure in every format."""

    key: str  # good for file names: recall-ablation
    title: str
    caption: str
    svg: str
    png: bytes
    runs: tuple[str, ...] = ()  # signatures of the trials that it was drawn from


@dataclass(frozen=True)
class Drawing:
    """A `Picture` that is not drawn yet."""

    key: str
    title: str
    caption: str
    runs: tuple[str, ...]
    draw: Callable[[], Any]  # makes the matplotlib figure, within `RC`

    def picture(self) -> Picture:
        """The figure in every format."""
        import matplotlib

        svg, png = StringIO(), BytesIO()
        with matplotlib.rc_context(RC):
            figure = self.draw()
            figure.savefig(svg, format="svg", metadata={"Date": None})
            figure.set_layout_engine("none")  # the layout is found, and finding it takes longest
            figure.savefig(png, format="png", dpi=DPI)
        content = printable(svg.getvalue()), png.getvalue()  # XML has no control characters
        return Picture(self.key, self.title, self.caption, *content, self.runs)
