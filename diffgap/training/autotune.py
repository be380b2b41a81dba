"""Whether trials of one shape go faster one after another or as one batch, here and now."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch

from diffgap.store.cache import open_again
from diffgap.training.batched import PackMember, fresh_trainings, gather
from diffgap.training.engine import close, make_engine, process_group
from diffgap.training.loop import Training, run_step

IN_TURN, BATCHED = "in_turn", "batched"

MEASURED = 4
"""Trials of a batch that is measured; what is larger gains as much or more a trial."""

ROUNDS = 3
PATIENCE_S = 10.0
"""After so many rounds, or so long, the verdict falls; several workers do the same rounds."""

GAIN = 0.9
"""A batch must take less than this share of the time: machines are noisy, and it needs memory."""


def implied_way(known: Mapping[int, str], size: int) -> str | None:
    """The faster way for a pack of a size, if those known for packs of other sizes tell it.

    A larger batch gains as much or more a trial, and of one larger than `MEASURED` no more is
    measured: where batches do not pay, smaller ones do not, and where they do, larger ones do.
    """
    for other, way in known.items():
        if min(size, MEASURED) <= other if way == IN_TURN else size >= min(other, MEASURED):
            return way
    return None


def faster_way(members: Sequence[PackMember], store_uri: str, device: torch.device) -> str:
    """``in_turn`` or ``batched``: whichever takes less time a trial and step.

    A few steps of each in alternation, after one of each to warm up, on copies that are thrown
    away: the trials, their checkpoints and the random state are as they were. Where there is
    little between them it is ``in_turn``. Every worker must ask, and gets the first one's answer.

    Args:
        members: trials for which `can_batch` holds; the first few are measured.
        store_uri: their embedding store.
        device: where they will train.
    """
    store = open_again(store_uri)
    workers = members[0].context.workers
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), process_group(device):
        single = fresh_trainings(members[:1], store)
        batch = fresh_trainings(members[:MEASURED], store)
        alone = make_engine(single[0].state.bridge, members[0].trial.train, workers, device)
        together = gather(batch)
        steppers = [_stepper(alone, single, device), _stepper(together, batch, device)]
        turn, at_once = _seconds(steppers, PATIENCE_S if workers == 1 else math.inf)
        close(alone)
        close(together)
        verdict = [BATCHED if at_once / len(batch) < GAIN * turn else IN_TURN]
        if workers > 1:
            torch.distributed.broadcast_object_list(verdict, src=0)
    return verdict[0]


def _stepper(
    engine: object, trainings: Sequence[Training], device: torch.device
) -> Callable[[int], None]:
    """A function that does one step of these trainings, to its very end."""

    def run(step: int) -> None:
        run_step(engine, trainings, step)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def _seconds(steppers: Sequence[Callable[[int], None]], patience: float) -> list[float]:
    """The median time of a step of each, in alternation."""
    began = time.perf_counter()
    took: list[list[float]] = [[] for _ in steppers]
    for step in range(1 + ROUNDS):
        for mine, run in zip(took, steppers, strict=True):
            start = time.perf_counter()
            run(step)
            mine.append(time.perf_counter() - start)
        if step and time.perf_counter() - began > patience:
            break
    return [median(mine[1:]) for mine in took]
