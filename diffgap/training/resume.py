"""Initial state of a training: fresh, or from a checkpoint of any number of workers.

In ZeRO 0 a checkpoint is whole, and fits any number. ZeRO 1, 2 and 3 partition the optimiser's
state among the workers, and a checkpoint holds each one's partition. For another number of workers
DeepSpeed's own converter merges them; if that fails, only the weights are resumed, and the trial's
log says so.
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
from diffgap.compat.deepspeed import close_engine
from diffgap.spec import Train
from diffgap.training.checkpoint import TAG, Progress, State, read_progress
from diffgap.training.context import TrialContext
from diffgap.training.engine import Average, apply_settings, make_engine

CONVERTER = "deepspeed.checkpoint.ds_to_universal"  # merges the partitions of ZeRO 1, 2 and 3
PLAIN_RUNNER = "diffgap.compat.zero_converter"  # keeps files from running code in it
CONVERSION_TIMEOUT_S = 480  # the other workers' collective operations time out after 600 s

log = logging.getLogger(__name__)


def initial_state(bridge: Bridge, settings: Train, context: TrialContext) -> State:
    """A training's state: that of its latest checkpoint, else the one before the first step."""
    average = Average(copy.deepcopy(bridge).to(context.device), settings.ema)

    def fresh(model: Bridge, universal: bool = False) -> State:
        engine = make_engine(model, settings, context.workers, context.device, universal)
        return State(engine, model, average, Progress(workers=context.workers))

    path = context.checkpoints.latest()
    if path is None:
        return fresh(bridge)
    if settings.zero_stage == 0:
        state = resume(fresh(bridge), path, context)
        apply_settings(state.engine, [settings], state.progress.step)
        return state
    if read_progress(path).workers == context.workers:
        state = fresh(bridge)
        state.load(path)
        return state
    # A failed conversion spoils its model: ZeRO 3 partitions the weights for good.
    spare = copy.deepcopy(bridge)
    converted = _converted(partial(fresh, bridge, universal=True), path, context)
    if converted:
        return converted
    state = fresh(spare)
    state.load(path, weights_only=True)
    apply_settings(state.engine, [settings], state.progress.step)
    return state


def resume(state: State, path: Path, context: TrialContext) -> State:
    """Loads a whole checkpoint, of any number of workers; the learning rate is not set."""
    state.load(path)
    workers = read_progress(path).workers
    if workers != context.workers:
        message = f"The checkpoint is of {workers} workers; its whole state is resumed"
        _log_once(context, logging.INFO, message)
    return state


def _converted(fresh: Callable[[], State], path: Path, context: TrialContext) -> State | None:
    """The state of a checkpoint of other workers; None, on every worker, if conversion fails."""
    with _universal(path, context) as (shards, problem):
        if problem is None:
            state = fresh()
            problem = _first_problem(_problem_of(partial(state.load, path, shards)), context)
            if problem is None:
                message = "The checkpoint is of other workers; its optimiser state is converted"
                _log_once(context, logging.INFO, message)
                return state
            close_engine(state.engine)
    message = (
        "The checkpoint is of other workers: its weights are resumed, but the optimiser state "
        f"restarts, because it could not be converted: {problem}"
    )
    _log_once(context, logging.WARNING, message)
    return None


@contextmanager
def _universal(path: Path, context: TrialContext) -> Iterator[tuple[Path, str | None]]:
    """Converts DeepSpeed's part of a checkpoint for any number of workers.

    Yields its directory, which is removed after the block, and what went wrong, the same on every
    worker.
    """
    scratch = path.with_name(f".{path.name}.universal")
    # On an object store every worker has fetched a copy of its own; else the first serves all.
    converts = context.rank == 0 or context.checkpoints.private
    try:
        problem = _problem_of(partial(_convert, path / TAG, scratch)) if converts else None
        # Also a barrier, after which the directory is whole. Before the block ends, the caller
        # agrees on a problem once more: nobody reads the directory when it is removed.
        yield scratch, _first_problem(problem, context)
    finally:
        if converts:
            shutil.rmtree(scratch, ignore_errors=True)


def _convert(source: Path, scratch: Path) -> None:
    """Runs DeepSpeed's converter in a process of its own; raises RuntimeError if it fails."""
    shutil.rmtree(scratch, ignore_errors=True)  # of an earlier attempt that was killed
    command = [sys.executable, "-m", PLAIN_RUNNER, CONVERTER, "--inject_missing_state"]
    command += ["--num_extract_workers", "1", "--num_merge_workers", "1"]
    command += ["--input_folder", str(source), "--output_folder", str(scratch / TAG)]
    converter = subprocess.run(
        command, text=True, timeout=CONVERSION_TIMEOUT_S,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if converter.returncode:
        status, output = converter.returncode, converter.stdout
        log.warning("DeepSpeed's converter failed with exit status %d:\n%s", status, output)
        raise RuntimeError(output.strip().rpartition("\n")[2] or f"exit {status}")


def _problem_of(action: Callable[[], None]) -> str | None:
    """The error of an action in one line; None if it succeeds."""
    try:
        action()
    except Exception as error:  # whatever it is: the weights alone can still be resumed
        log.warning("A checkpoint of other workers cannot be converted", exc_info=True)
        return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
    return None


def _first_problem(problem: str | None, context: TrialContext) -> str | None:
    """The first problem that any worker has, on every worker, so that all do the same next."""
    if context.workers == 1:
        return problem
    problems: list[str | None] = [None] * context.workers
    torch.distributed.all_gather_object(problems, problem)
    return next(filter(None, problems), None)


def _log_once(context: TrialContext, level: int, message: str) -> None:
    """Logs a message on the first worker alone."""
    if context.rank == 0:
        log.log(level, "%s", message, extra={"trial": context.record.path.name})
