"""What a trial needs to continue exactly where it was.

A checkpoint is a directory: DeepSpeed's own (weights, optimiser, learning-rate schedule),
`average.safetensors` (the EMA) and `progress.json` (step and history), written last. Batches and
noise follow from the step, so no generator is saved.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from diffgap.errors import UserError
from diffgap.training.engine import Average

TAG, AVERAGE, PROGRESS = "deepspeed", "average.safetensors", "progress.json"


@dataclass(frozen=True)
class Point:
    """Metrics at one step, as a tracker logs them."""

    step: int
    metrics: dict[str, float]


@dataclass
class Progress:
    """How far a trial is: optimiser steps done, and every point logged on the way."""

    step: int = 0
    workers: int = 1
    seconds: float = 0.0
    """Time spent on optimiser steps, over all restarts."""
    history: list[Point] = field(default_factory=list)


def save(path: Path, engine: Any, average: Average[Any], progress: Progress, rank: int) -> None:
    """Writes a checkpoint into a directory of its own; every worker must take part."""
    engine.save_checkpoint(str(path), tag=TAG)
    if rank == 0:
        save_file(dict(average.twin.state_dict()), path / AVERAGE)
        (path / PROGRESS).write_text(json.dumps(asdict(progress)))


def load(path: Path, engine: Any, average: Average[Any], zero_stage: int, workers: int) -> Progress:
    """Restores engine and average; every worker must take part.

    Raises:
        UserError: where a sharded optimiser was saved by another number of workers.
    """
    state = json.loads((path / PROGRESS).read_text())
    progress = Progress(**{**state, "history": [Point(**point) for point in state["history"]]})
    if zero_stage > 0 and progress.workers != workers:
        raise UserError(
            f"resources.workers: {workers} cannot continue a ZeRO {zero_stage} checkpoint of "
            f"{progress.workers} workers; use {progress.workers}, or start over with --fresh"
        )
    loaded, _ = engine.load_checkpoint(str(path), tag=TAG)
    if loaded is None:
        raise UserError(f"checkpoint {path}: DeepSpeed's part is missing; start over with --fresh")
    average.twin.load_state_dict(load_file(path / AVERAGE))
    return progress
