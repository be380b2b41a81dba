"""Figures of the tables, readable in grey and by colour-blind people."""

from __future__ import annotations

from io import StringIO

from diffgap.report.recalls import RecallTable

# Okabe & Ito's palette, from dark to light, so that it reads in grey too.
COLOURS = (
    "#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442",
)  # fmt: skip
HATCHES = ("", "//", "..", "xx", "", "\\\\", "oo", "")


def recall_svg(table: RecallTable) -> str:
    """Bars of R@K with 95 % intervals, one group a figure of the table, as an SVG document."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = [row for row in table.rows if row.figures]
    drawn = Figure(figsize=(9, 3.6), layout="constrained")
    axes = drawn.subplots()
    width = 0.8 / max(1, len(rows))
    for i, row in enumerate(rows):
        intervals = [row.figures[column].interval for column in table.columns]
        means = [interval.mean for interval in intervals]
        below = [interval.mean - interval.low for interval in intervals]
        above = [interval.high - interval.mean for interval in intervals]
        axes.bar(
            [place + (i - (len(rows) - 1) / 2) * width for place in range(len(means))],
            means,
            width,
            yerr=[below, above],
            label=row.name,
            color=COLOURS[i % len(COLOURS)],
            hatch=HATCHES[i % len(HATCHES)],
            edgecolor="white",
            error_kw={"elinewidth": 1, "capsize": 2},
        )
    names = [f"{column[0].replace('_to_', '->')}\nR@{column[1]}" for column in table.columns]
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("recall (%), mean and 95 % interval")
    axes.set_title(table.title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=4, loc="upper left", fontsize=8)
    axes.margins(y=0.15)
    written = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "diffgap", "svg.fonttype": "none"}):
        drawn.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()
