"""What a trial needs to continue exactly where it was.

A checkpoint is a directory ``step-00000500``: DeepSpeed's own part (weights, optimiser,
learning-rate schedule), `average.safetensors` (the EMA), `best.safetensors` (the EMA that was best
on val), `progress.json` (step and history) and, written last, `files.json`: the digest of each
file. One that does not match its digests is passed over for the one before it. Batches and noise
follow from the step, so no generator is saved.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffgap.errors import UserError
from diffgap.files import put_directory
from diffgap.training.engine import Average

TAG, AVERAGE, BEST, PROGRESS = (
    "deepspeed",
    "average.safetensors",
    "best.safetensors",
    "progress.json",
)
FILES = "files.json"

KEPT = 2
"""Checkpoints of a trial that are kept: the second is for when the first proves broken."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """Metrics at one step, as a tracker logs them."""

    step: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Best:
    """The validation that was best so far; of equal ones the latest."""

    step: int
    value: float
    """Mean R@5 of both directions on val, in percent."""


@dataclass
class Progress:
    """How far a trial is: optimiser steps done, and every point logged on the way."""

    step: int = 0
    workers: int = 1
    seconds: float = 0.0
    """Time spent on optimiser steps, over all restarts."""
    history: list[Point] = field(default_factory=list)
    best: Best | None = None


@dataclass
class State:
    """A training between two steps: all that a checkpoint holds."""

    engine: Any
    average: Average[Any]
    progress: Progress
    best: dict[str, Tensor] = field(default_factory=dict)
    """The averaged weights of `progress.best`; of the first worker alone."""

    def save(self, path: Path, rank: int) -> None:
        """Fills a directory; every worker must take part."""
        self.engine.save_checkpoint(str(path), tag=TAG)
        if rank == 0:
            save_file(dict(self.average.twin.state_dict()), path / AVERAGE)
            save_file(self.best, path / BEST)
            (path / PROGRESS).write_text(json.dumps(asdict(self.progress)))

    def load(self, path: Path, shards: Path | None = None, weights_only: bool = False) -> None:
        """Goes on from a checkpoint; every worker must take part.

        Args:
            path: the checkpoint.
            shards: where DeepSpeed's part of it is, if converted for another number of workers.
            weights_only: leave the optimiser's state behind, which then starts anew.

        Raises:
            UserError: where DeepSpeed's part is missing.
        """
        loaded, _ = self.engine.load_checkpoint(
            str(shards or path), tag=TAG, load_optimizer_states=not weights_only
        )
        if loaded is None:
            raise UserError(f"checkpoint {path}: DeepSpeed's part is missing; use --fresh")
        self.average.twin.load_state_dict(load_file(path / AVERAGE))
        device = str(next(self.average.twin.parameters()).device)
        self.best = load_file(path / BEST, device=device)
        self.progress = replace(read_progress(path), workers=self.progress.workers)


def read_progress(path: Path) -> Progress:
    """How far a checkpoint is."""
    fields = json.loads((path / PROGRESS).read_text())
    best = fields["best"] and Best(**fields["best"])
    return Progress(**{**fields, "history": [Point(**p) for p in fields["history"]], "best": best})


class Checkpoints:
    """The latest checkpoints of one trial, shared by its workers.

    Args:
        path: their directory, which every worker must see.
        rank, workers: this worker, and how many there are.
    """

    private = False
    """Whether each worker gets a copy of its own from `latest`."""

    def __init__(self, path: Path, rank: int = 0, workers: int = 1) -> None:
        self.path, self.rank, self.workers = path, rank, workers

    def write(self, step: int, save: Callable[[Path], None]) -> None:
        """Keeps the checkpoint that `save` writes; every worker must take part."""
        temporary, whole = self.path / f".step-{step:08}.unfinished", self.path / f"step-{step:08}"
        if self.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        self._meet()
        save(temporary)
        self._meet()
        if self.rank == 0:
            (temporary / FILES).write_text(json.dumps(digests(temporary)))
            put_directory(temporary, whole)
            for old in self._newest_first()[KEPT:]:
                shutil.rmtree(old)

    def latest(self) -> Path | None:
        """The newest checkpoint that is whole, the same for every worker; broken ones are told."""
        found: list[Path | None] = [self._newest_whole() if self.rank == 0 else None]
        if self.workers > 1:
            torch.distributed.broadcast_object_list(found, src=0)
        return found[0]

    def _newest_whole(self) -> Path | None:
        for path in self._newest_first():
            if self._is_whole(path, path.name):
                return path
        return None

    def _is_whole(self, path: Path, name: str) -> bool:
        problem = broken(path)
        if problem:
            log.warning("Checkpoint %s is passed over: %s", name, problem)
        return problem is None

    def _newest_first(self) -> list[Path]:
        return sorted(self.path.glob("step-*"), reverse=True)

    def _meet(self) -> None:
        if self.workers > 1:
            torch.distributed.barrier()


def broken(path: Path) -> str | None:
    """What is wrong with a checkpoint's files; None where all are as they were written."""
    try:
        wanted = json.loads((path / FILES).read_text())
        found = digests(path)
    except (OSError, ValueError) as error:
        return f"{FILES}: {error}"
    changed = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
    return f"{', '.join(changed)} changed since" if changed else None


def digests(path: Path) -> dict[str, str]:
    """The SHA-256 of every file below a directory, but for the list itself."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file() and file.name != FILES)
    return {str(file.relative_to(path)): _digest(file) for file in files}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
