"""Choice between training trials of one shape as a batch and one after another."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from statistics import median

import torch

from diffgap.compat.deepspeed import close_engine
from diffgap.store.cache import open_again
from diffgap.training.batched import PackMember, fresh_trainings, make_batch_engine
from diffgap.training.engine import make_engine, process_group
from diffgap.training.loop import Training, run_step
from diffgap.training.shape import Shape, shape_of

MEASURED = 4  # trials of the measured batch; a larger one gains as much or more per trial
ROUNDS = 3
PATIENCE_S = 10.0  # fewer rounds are enough once they have taken this long
GAIN = 0.9  # share of the time to stay below: machines are noisy, and a batch needs memory

# Whether a batch is faster, by shape and measured size, for the packs that follow.
_decisions: dict[tuple[Shape | None, int], bool] = {}


def batch_pays(members: Sequence[PackMember], store_uri: str) -> bool:
    """Whether these trials, for which `can_batch` holds, should train as one batch.

    Every worker must call it, and gets the same answer.
    """
    device = members[0].context.device
    if device.type == "cpu":
        # Batches are no faster on a CPU but for the tiniest networks: docs/performance.md.
        return False
    key = shape_of(members[0].trial), min(len(members), MEASURED)
    if key not in _decisions:
        _decisions[key] = batch_is_faster(members, store_uri, device)
    return _decisions[key]


def batch_is_faster(members: Sequence[PackMember], store_uri: str, device: torch.device) -> bool:
    """Measures whether a batch takes clearly less time per trial and step.

    Runs a few steps of each way in alternation on copies that are thrown away: the trials, their
    checkpoints and the random state stay as they are. Every worker must call it, and gets the
    answer of the first.
    """
    store = open_again(store_uri)
    workers = members[0].context.workers
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), process_group(device):
        single = fresh_trainings(members[:1], store)
        batch = fresh_trainings(members[:MEASURED], store)
        single_engine = make_engine(single[0].state.bridge, members[0].trial.train, workers, device)
        batch_engine = make_batch_engine(batch)
        # Several workers must do the same number of rounds, or their collectives would not match.
        patience = PATIENCE_S if workers == 1 else math.inf
        contenders = [(single_engine, single), (batch_engine, batch)]
        single_time, batch_time = _median_times(contenders, device, patience)
        close_engine(single_engine)
        close_engine(batch_engine)
        faster = [batch_time / len(batch) < GAIN * single_time]
        if workers > 1:
            torch.distributed.broadcast_object_list(faster, src=0)
    return faster[0]


def _median_times(
    contenders: Sequence[tuple[object, list[Training]]], device: torch.device, patience: float
) -> list[float]:
    """The median seconds of a step of each engine and its trainings, run in alternation."""
    first_start = time.perf_counter()
    times: list[list[float]] = [[] for _ in contenders]
    for number in range(1 + ROUNDS):
        for seconds, (engine, trainings) in zip(times, contenders, strict=True):
            start = time.perf_counter()
            run_step(engine, trainings, number)
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # kernels are queued: without it, only that is timed
            seconds.append(time.perf_counter() - start)
        if number and time.perf_counter() - first_start > patience:
            break
    return [median(seconds[1:]) for seconds in times]  # the first round warms up
