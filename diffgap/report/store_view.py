"""Contents of a store: counts, the gap between its modalities, and a picture of the gap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from diffgap.errors import UserError
from diffgap.evaluation.gap import gap_metrics
from diffgap.evaluation.gap_sample import principal
from diffgap.io.atomic import new_file
from diffgap.store.schema import split_task
from diffgap.store.splits import SPLITS
from diffgap.store.store import EmbeddingStore, Pairs

POINTS = 400
"""Pairs in a picture at most."""

WIDTH, HEIGHT = 64, 20
"""Characters of the picture on a terminal."""

MEANING = {
    "mean_distance": "distance of the modality means",
    "paired_cosine": "mean cosine of pairs",
    "alignment": "mean squared distance of pairs",
    "uniformity_x": "uniformity, {x}",
    "uniformity_y": "uniformity, {a}",
    "separability": "% told apart by a linear classifier (50: no gap)",
    "frechet": "Frechet distance of the two clouds",
}


def describe(store: EmbeddingStore) -> list[str]:
    """The manifest in words."""
    manifest = store.manifest
    counts = ", ".join(f"{count} {split}" for split, count in manifest.corpus.counts.items())
    lines = [
        f"corpus       {manifest.corpus.name}: {counts} clips, {store.captions} captions",
        f"encoder      {manifest.encoder.name} ({manifest.encoder.checkpoint_hash[:12]}), "
        f"{manifest.dimension} dimensions",
        f"tasks        {', '.join(store.tasks)}",
        f"fingerprint  {store.fingerprint[:12]}",
    ]
    if steps := manifest.encoder.preprocessing:
        lines.append("preprocessed " + ", ".join(f"{k} {v}" for k, v in steps.items()))
    return lines


def fullest_split(store: EmbeddingStore) -> str:
    """The split to show: test where it has clips, else the largest; UserError without clips."""
    counts = store.manifest.corpus.counts
    if not any(counts.values()):
        raise UserError("store: it has no clip")
    return "test" if counts.get("test") else max(SPLITS, key=lambda split: counts.get(split, 0))


def gap_table(pairs: Pairs, task: str, split: str) -> Table:
    """The gap metrics of one task."""
    x, a = split_task(task)
    table = Table(title=f"Gap, {task}, {split}", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    table.add_column("", justify="right")
    metrics = gap_metrics(torch.from_numpy(pairs.x), torch.from_numpy(pairs.a[pairs.owner]))
    for name, value in metrics.items():
        table.add_row(MEANING[name].format(x=x, a=a), f"{value:.3f}")
    return table


def project(pairs: Pairs) -> tuple[np.ndarray, np.ndarray, float]:
    """(P, 2) x and a of up to `POINTS` pairs on the first two principal components of both clouds,
    and the share of variance in these, between 0 and 1."""
    chosen = np.linspace(0, len(pairs.x) - 1, min(POINTS, len(pairs.x))).astype(int)
    clouds = np.concatenate([pairs.x[chosen], pairs.a[pairs.owner[chosen]]])
    points, explained = principal(clouds.astype(np.float64))
    x, a = np.split(points, 2)
    return x, a, sum(explained)


def picture(pairs: Pairs, task: str) -> str:
    """The projection in characters: a letter where a modality is, # where both are."""
    x_name, a_name = split_task(task)
    x_letter, a_letter = x_name[0], a_name[0]
    if x_letter == a_letter:
        x_letter = x_letter.upper()
    x, a, share = project(pairs)
    low, high = np.minimum(x.min(0), a.min(0)), np.maximum(x.max(0), a.max(0))
    grid = np.full((HEIGHT, WIDTH), " ")
    for points, letter in ((x, x_letter), (a, a_letter)):
        positions = (points - low) / np.maximum(high - low, 1e-12) * (WIDTH - 1, HEIGHT - 1)
        for column, height in positions.round().astype(int):
            row = HEIGHT - 1 - height  # a terminal counts downwards
            grid[row, column] = letter if grid[row, column] in (" ", letter) else "#"
    lines = ["|" + "".join(row) + "|" for row in grid]
    lines.append(
        f"{x_letter} {x_name}, {a_letter} {a_name}, # both; first two principal components "
        f"({100 * share:.0f} % of the variance)"
    )
    return "\n".join(lines)


def draw(pairs: Pairs, task: str, path: Path) -> None:
    """The projection with a line between the two of a pair, as a picture file; UserError where its
    suffix names no format of pictures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    _plot(figure.subplots(), pairs, task)
    try:
        with new_file(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:] or None, dpi=150)
    except ValueError as error:
        raise UserError(f"--picture: {path}: {str(error).splitlines()[0]}") from None


def _plot(axes: Any, pairs: Pairs, task: str) -> None:
    x, a, share = project(pairs)
    for ends in np.stack([x, a], axis=1):
        axes.plot(*ends.T, color="#BBBBBB", linewidth=0.4, zorder=1)
    x_name, a_name = split_task(task)
    axes.scatter(*x.T, s=10, c="#0072B2", marker="o", label=x_name, zorder=2)
    axes.scatter(*a.T, s=10, c="#D55E00", marker="^", label=a_name, zorder=2)
    axes.set_xlabel("first principal component")
    axes.set_ylabel("second principal component")
    axes.set_title(f"{task}: {100 * share:.0f} % of the variance", loc="left", fontsize=10)
    axes.legend(frameon=False)
