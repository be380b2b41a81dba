"""What is in a store: counts, the gap between its modalities, and a picture of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from diffgap.errors import UserError
from diffgap.evaluation.gap import gap_metrics
from diffgap.store.splits import SPLITS
from diffgap.store.store import EmbeddingStore, Pairs, split_task

POINTS = 400
"""Pairs drawn at most."""
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
    if done := manifest.encoder.preprocessing:
        lines.append("preprocessed " + ", ".join(f"{k} {v}" for k, v in done.items()))
    return lines


def fullest_split(store: EmbeddingStore) -> str:
    """The split to look at: test where it has clips, else the largest."""
    counts = store.manifest.corpus.counts
    if counts.get("test"):
        return "test"
    if not any(counts.values()):
        raise UserError("store: it has no clip")
    return max(SPLITS, key=lambda split: counts.get(split, 0))


def gap_table(pairs: Pairs, task: str, split: str) -> Table:
    """The gap metrics of one task."""
    x, a = split_task(task)
    shown = Table(title=f"Gap, {task}, {split}", title_justify="left", box=SIMPLE_HEAD)
    shown.add_column("")
    shown.add_column("", justify="right")
    found = gap_metrics(torch.from_numpy(pairs.x), torch.from_numpy(pairs.a[pairs.owner]))
    for name, value in found.items():
        shown.add_row(MEANING[name].format(x=x, a=a), f"{value:.3f}")
    return shown


def project(pairs: Pairs) -> tuple[np.ndarray, np.ndarray, float]:
    """Both clouds on their first two principal components, and the share of variance in these.

    Returns:
        x and a of up to `POINTS` pairs, (P, 2) each, and a share between 0 and 1.
    """
    chosen = np.linspace(0, len(pairs.x) - 1, min(POINTS, len(pairs.x))).astype(int)
    x, a = pairs.x[chosen], pairs.a[pairs.owner[chosen]]
    both = np.concatenate([x, a]).astype(np.float64)
    both -= both.mean(axis=0)
    _, spread, axes = np.linalg.svd(both, full_matrices=False)
    flat = both @ axes[:2].T
    share = float((spread[:2] ** 2).sum() / max((spread**2).sum(), 1e-12))
    return flat[: len(x)], flat[len(x) :], share


def picture(pairs: Pairs, task: str) -> str:
    """The projection in characters: a letter where a modality is, # where both are."""
    x_name, a_name = split_task(task)
    letters = x_letter, a_letter = _letters(x_name, a_name)
    x, a, share = project(pairs)
    low, high = np.minimum(x.min(0), a.min(0)), np.maximum(x.max(0), a.max(0))
    grid = np.full((HEIGHT, WIDTH), " ")
    for points, letter in zip((x, a), letters, strict=True):
        places = (points - low) / np.maximum(high - low, 1e-12) * (WIDTH - 1, HEIGHT - 1)
        for column, row in places.round().astype(int):
            taken = grid[HEIGHT - 1 - row, column]
            grid[HEIGHT - 1 - row, column] = letter if taken in (" ", letter) else "#"
    lines = ["|" + "".join(row) + "|" for row in grid]
    lines.append(
        f"{x_letter} {x_name}, {a_letter} {a_name}, # both; first two principal components "
        f"({100 * share:.0f} % of the variance)"
    )
    return "\n".join(lines)


def _letters(x_name: str, a_name: str) -> tuple[str, str]:
    """The first of each name; a capital for x where both begin alike."""
    x, a = x_name[0], a_name[0]
    return (x.upper() if x == a else x), a


def draw(pairs: Pairs, task: str, path: Path) -> None:
    """The projection with a line between the two of a pair, as a picture file.

    Raises:
        UserError: where the file's suffix is of no picture.
    """
    from matplotlib.figure import Figure

    x, a, share = project(pairs)
    drawn = Figure(figsize=(6, 5), layout="constrained")
    axes = drawn.subplots()
    for start, end in zip(x, a, strict=True):
        across, up = zip(start, end, strict=True)
        axes.plot(across, up, color="#BBBBBB", linewidth=0.4, zorder=1)
    for points, name, colour, mark in zip(
        (x, a), split_task(task), ("#0072B2", "#D55E00"), ("o", "^"), strict=True
    ):
        axes.scatter(points[:, 0], points[:, 1], s=10, c=colour, marker=mark, label=name, zorder=2)
    axes.set_xlabel("first principal component")
    axes.set_ylabel("second principal component")
    axes.set_title(f"{task}: {100 * share:.0f} % of the variance", loc="left", fontsize=10)
    axes.legend(frameon=False)
    temporary = path.with_name(f".{path.name}")
    try:
        drawn.savefig(temporary, format=path.suffix[1:] or None, dpi=150)
        temporary.rename(path)
    except ValueError as error:
        raise UserError(f"--picture: {path}: {str(error).splitlines()[0]}") from None
    finally:
        temporary.unlink(missing_ok=True)
