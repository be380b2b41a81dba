"""Where a training begins: at its start, or at a checkpoint of any number of workers.

In ZeRO 0 a checkpoint is whole, and fits any number. ZeRO 1, 2 and 3 share the optimiser's state
out among the workers, and a checkpoint holds each one's share. For another number of workers
DeepSpeed's own converter puts the shares together; should that fail, the weights go on alone, and
the trial's log says so.
"""

from __future__ import annotations

import copy
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from diffgap.bridge.base import Bridge
from diffgap.spec import Train
from diffgap.training.checkpoint import TAG, Progress, State, read_progress
from diffgap.training.context import TrialContext
from diffgap.training.engine import Average, close, make_engine, retune

CONVERTER = "deepspeed.checkpoint.ds_to_universal"
"""DeepSpeed's program that puts shares together; it reads what ZeRO 1, 2 and 3 have written."""

PATIENCE_S = 480
"""After which a conversion is given up: before the other workers' wait for it ends, at 600."""

log = logging.getLogger(__name__)


def begin(bridge: Bridge, settings: Train, context: TrialContext) -> State:
    """A training's state: as its latest checkpoint has it, or else before the first step.

    Args:
        bridge: the model; its weights change.
        settings: how it is trained.
        host: device, place among the workers, checkpoints.
    """
    average = Average(copy.deepcopy(bridge).to(context.device), settings.ema)

    def fresh(model: Bridge, universal: bool = False) -> State:
        engine = make_engine(model, settings, context.workers, context.device, universal)
        return State(engine, model, average, Progress(workers=context.workers))

    path = context.checkpoints.latest()
    if path is None:
        return fresh(bridge)
    if settings.zero_stage == 0:
        state = resume(fresh(bridge), path, context)
        retune(state.engine, [settings], state.progress.step)
        return state
    if read_progress(path).workers == context.workers:
        state = fresh(bridge)
        state.load(path)
        return state
    spare = copy.deepcopy(bridge)  # an engine shares out its model's weights for good
    return _converted(partial(fresh, bridge, universal=True), path, context) or _weights_only(
        fresh(spare), path, settings
    )


def resume(state: State, path: Path, context: TrialContext) -> State:
    """The state of a whole checkpoint, of any number of workers; the learning rate is not set."""
    state.load(path)
    saved_by = read_progress(path).workers
    if saved_by != context.workers:
        _tell(context, logging.INFO, f"The checkpoint is of {saved_by} workers; all is kept")
    return state


def _converted(fresh: Callable[[], State], path: Path, context: TrialContext) -> State | None:
    """The state of a checkpoint of other workers; None, on every worker, where it cannot be had."""
    with _universal(path, context) as (shards, problem):
        if problem is None:
            state = fresh()
            problem = _agreed(_problem_of(partial(state.load, path, shards)), context)
            if problem is None:
                said = "The checkpoint is of other workers; its optimiser state is converted"
                _tell(context, logging.INFO, said)
                return state
            close(state.engine)
    said = (
        "The checkpoint is of other workers: weights go on, but the optimiser state is restarted, "
        f"for it could not be converted: {problem}"
    )
    _tell(context, logging.WARNING, said)
    return None


def _weights_only(state: State, path: Path, settings: Train) -> State:
    """A checkpoint's state but for the optimiser's, at the checkpoint's step of the schedule."""
    state.load(path, weights_only=True)
    retune(state.engine, [settings], state.progress.step)
    return state


@contextmanager
def _universal(path: Path, context: TrialContext) -> Iterator[tuple[Path, str | None]]:
    """DeepSpeed's part of a checkpoint for any number of workers, for as long as the block lasts.

    Gives its directory, beside the checkpoint, and what went wrong, the same to all. The workers
    must agree on something before the block ends, for the directory goes with it.
    """
    scratch = path.with_name(f".{path.name}.universal")
    mine = context.rank == 0 or context.checkpoints.private
    convert = partial(_convert, path / TAG, scratch)
    try:
        yield scratch, _agreed(_problem_of(convert) if mine else None, context)
    finally:
        if mine:
            shutil.rmtree(scratch, ignore_errors=True)


def _convert(source: Path, scratch: Path) -> None:
    """Runs DeepSpeed's converter, in a process of its own; raises RuntimeError where it fails."""
    shutil.rmtree(scratch, ignore_errors=True)
    command = [sys.executable, "-m", CONVERTER, "--inject_missing_state"]
    command += ["--num_extract_workers", "1", "--num_merge_workers", "1"]
    command += ["--input_folder", str(source), "--output_folder", str(scratch / TAG)]
    done = subprocess.run(
        command, text=True, timeout=PATIENCE_S,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        log.warning("DeepSpeed's converter ends with %d:\n%s", done.returncode, done.stdout)
        raise RuntimeError(done.stdout.strip().rpartition("\n")[2] or f"exit {done.returncode}")


def _problem_of(action: Callable[[], None]) -> str | None:
    """What goes wrong in an action, in one line; None where nothing does."""
    try:
        action()
    except Exception as error:  # whatever it is, there is a way to go on
        log.warning("A checkpoint of other workers makes trouble", exc_info=True)
        return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
    return None


def _agreed(problem: str | None, context: TrialContext) -> str | None:
    """The first problem that any worker has, the same for all of them: they go one way."""
    if context.workers == 1:
        return problem
    found: list[str | None] = [None] * context.workers
    torch.distributed.all_gather_object(found, problem)
    return next(filter(None, found), None)


def _tell(context: TrialContext, level: int, message: str) -> None:
    """Logs what concerns all workers, once."""
    if context.rank == 0:
        log.log(level, "%s", message, extra={"trial": context.record.path.name})
