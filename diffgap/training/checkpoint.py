"""Checkpoints: what a trial needs to resume exactly where it stopped.

A checkpoint is a directory ``step-00000500``: `weights.safetensors`, `optimizer.safetensors`
(AdamW's moments), `average.safetensors` (the EMA), `best.safetensors` (the EMA that was best on
val), `progress.json` (step and history) and, written last, `files.json`: the digest of each file.
Learning rate, batches and noise follow from the step, so no schedule and no generator is saved.
In ZeRO 1, 2 and 3 DeepSpeed's own form, `deepspeed/`, replaces the first two files. Its files are
pickles, and are read as plain tensors: whatever else they name makes the checkpoint a broken one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from diffgap.bridge.base import Bridge
from diffgap.compat.deepspeed import loading_problem, plain_loading
from diffgap.errors import UserError
from diffgap.io.atomic import delete, replace_directory
from diffgap.io.json_text import json_text
from diffgap.training.engine import Average

TAG, WEIGHTS, OPTIMIZER = "deepspeed", "weights.safetensors", "optimizer.safetensors"
AVERAGE, BEST, PROGRESS = "average.safetensors", "best.safetensors", "progress.json"
FILES = "files.json"

KEPT = 2  # checkpoints of a trial: the second for when the first proves broken

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class HistoryPoint:
    """Metrics at one step, as MLflow gets them."""

    step: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Best:
    """The best validation so far; of equal ones the latest."""

    step: int
    value: float
    """Mean R@5 of both directions on val, in percent."""


@dataclass
class Progress:
    """Progress of a trial: its optimiser steps so far, and every point of its history."""

    step: int = 0
    workers: int = 1
    seconds: float = 0.0
    """Wall-clock time of the optimiser steps, over all restarts."""
    history: list[HistoryPoint] = field(default_factory=list)
    best: Best | None = None


@dataclass
class State:
    """State of a training between two steps: all that a checkpoint holds."""

    engine: Any
    """The DeepSpeed engine that trains it, perhaps with other trials."""
    bridge: Bridge
    average: Average[Bridge]
    progress: Progress
    best: dict[str, Tensor] = field(default_factory=dict)
    """The averaged weights of `progress.best`; on the first worker alone, which validates."""

    def save(self, path: Path, rank: int) -> None:
        """Fills a directory; every worker must take part."""
        if self.sharded:
            self.engine.save_checkpoint(str(path), tag=TAG)
        if rank == 0:
            if not self.sharded:
                save_file(self.bridge.state_dict(), path / WEIGHTS)
                save_file(moments(self.bridge, self.engine.optimizer), path / OPTIMIZER)
            save_file(self.average.twin.state_dict(), path / AVERAGE)
            save_file(self.best, path / BEST)
            (path / PROGRESS).write_text(json_text(asdict(self.progress)))

    def load(self, path: Path, shards: Path | None = None, weights_only: bool = False) -> None:
        """Loads a checkpoint, except for the learning rate; every worker must take part.

        `shards` is DeepSpeed's part of it, if converted for another number of workers. With
        `weights_only` the optimiser's state starts anew. Missing files raise UserError.
        """
        if self.sharded:
            with plain_loading():
                loaded, _ = self.engine.load_checkpoint(
                    str(shards or path), TAG, load_optimizer_states=not weights_only
                )
        else:
            loaded = (path / WEIGHTS).is_file() and (path / OPTIMIZER).is_file()
            if loaded:
                self.bridge.load_state_dict(load_file(path / WEIGHTS))
                step = read_progress(path).step
                restore(load_file(path / OPTIMIZER), step, self.bridge, self.engine.optimizer)
        if not loaded:
            raise UserError(f"checkpoint {path}: weights or moments are missing; use --fresh")
        self.average.twin.load_state_dict(load_file(path / AVERAGE))
        device = str(next(self.average.twin.parameters()).device)
        self.best = load_file(path / BEST, device=device)
        self.progress = replace(read_progress(path), workers=self.progress.workers)

    @property
    def sharded(self) -> bool:
        """Whether DeepSpeed partitions weights or moments, so that only it can save them."""
        return bool(self.engine.zero_optimization_stage())


MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's running means of a weight's gradient and its square, as PyTorch calls them."""


def moments(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """AdamW's moments of a model's weights; a weight without a gradient so far has none."""
    tensors = {}
    for name, parameter in model.named_parameters():
        if parameter in optimizer.state:
            for moment in MOMENTS:
                tensors[f"{name}.{moment}"] = optimizer.state[parameter][moment]
    return tensors


def restore(saved: dict[str, Tensor], step: int, model: nn.Module, optimizer: Optimizer) -> None:
    """Sets AdamW's state to the moments that `moments` returned after some steps."""
    for name, parameter in model.named_parameters():
        if f"{name}.{MOMENTS[0]}" in saved:
            # Fused AdamW counts steps on the parameter's device, in float32.
            state = {"step": torch.tensor(float(step), device=parameter.device)}
            for moment in MOMENTS:
                state[moment] = saved[f"{name}.{moment}"].to(parameter)
            optimizer.state[parameter] = state


def read_progress(path: Path) -> Progress:
    """The progress of a checkpoint."""
    fields = json.loads((path / PROGRESS).read_text())
    fields["history"] = [HistoryPoint(**point) for point in fields["history"]]
    if fields["best"]:
        fields["best"] = Best(**fields["best"])
    return Progress(**fields)


class Checkpoints:
    """The latest checkpoints of one trial, in a directory that all its workers see."""

    private = False
    """Whether `latest` returns a copy of each worker's own."""

    def __init__(self, path: Path, rank: int = 0, workers: int = 1) -> None:
        self.path, self.rank, self.workers = path, rank, workers
        self.trial = path.parent.name

    def write(self, step: int, save: Callable[[Path], None]) -> None:
        """Writes a checkpoint by `save`; every worker must take part."""
        temporary, whole = self.path / f".step-{step:08}.unfinished", self.path / f"step-{step:08}"
        if self.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        self._meet()
        save(temporary)
        self._meet()
        if self.rank == 0:
            (temporary / FILES).write_text(json.dumps(digests(temporary)))
            replace_directory(temporary, whole)
            for old in self._newest_first()[KEPT:]:
                delete(old)

    def latest(self) -> Path | None:
        """The newest whole checkpoint, the same on every worker; broken ones are logged."""
        return self._from_first_worker(self._newest_whole)

    def _from_first_worker(self, find: Callable[[], T | None]) -> T | None:
        """What the first worker finds: others might see a file system that lags behind."""
        results = [find() if self.rank == 0 else None]
        if self.workers > 1:
            torch.distributed.broadcast_object_list(results, src=0)
        return results[0]

    def _newest_whole(self) -> Path | None:
        whole = (path for path in self._newest_first() if self._is_whole(path, path.name))
        return next(whole, None)  # of a generator: older ones need no digesting

    def _is_whole(self, path: Path, name: str) -> bool:
        problem = broken(path)
        if problem:
            log.warning("Skipping checkpoint %s: %s", name, problem, extra={"trial": self.trial})
        return problem is None

    def _newest_first(self) -> list[Path]:
        return sorted(self.path.glob("step-*"), reverse=True)

    def _meet(self) -> None:
        if self.workers > 1:
            torch.distributed.barrier()


def broken(path: Path) -> str | None:
    """The problem with a checkpoint's files; None if all are as they were written, and plain."""
    try:
        recorded = json.loads((path / FILES).read_text())
        current = digests(path)
    except (OSError, ValueError, RecursionError) as error:
        return f"{FILES}: {error}"
    if not isinstance(recorded, dict):
        return f"{FILES}: it lists no digests"
    names = sorted(recorded.keys() | current.keys())
    changed = [name for name in names if recorded.get(name) != current.get(name)]
    if changed:
        return f"{', '.join(changed)} changed since"
    # Digests tell damage from what was written, but whoever changes a file can change them too.
    for file in sorted((path / TAG).rglob("*.pt")):
        if problem := loading_problem(file):
            return f"{file.relative_to(path)}: {problem}"
    return None


def digests(path: Path) -> dict[str, str]:
    """The SHA-256 of every file below a directory, except the list of digests itself."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name != FILES]
    return {str(file.relative_to(path)): _digest(file) for file in files}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
