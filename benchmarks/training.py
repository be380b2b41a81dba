"""How fast bridges train, against what matrix products alone would take on this machine.

    python benchmarks/training.py
    python benchmarks/training.py --threads 2 --json

Run by hand; needs no Ray. The floor is the list of `torch.mm` that a step does: forward and both
backward products of every linear layer, and InfoNCE's. A round runs every way once, one after
another, and shares of the floor are taken within a round, for the machine may be busy; medians of
the rounds are printed. On a GPU: bf16, packs of up to 128 trials, and the largest that fits.

    plain     a PyTorch loop of one trial: AdamW, clipping, EMA, no DeepSpeed
    alone     one trial as `diffgap train` trains it
    in turn   K trials, a step of each in its own engine
    batched   K trials in one engine
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from diffgap.bridge.denoiser import FOURIER_FEATURES
from diffgap.bridge.methods import make_bridge
from diffgap.bridge.stacked import StackedBridges
from diffgap.compat.deepspeed import close_engine
from diffgap.ledger.ledger import TrialRecord
from diffgap.spec import Trial
from diffgap.store.store import Pairs
from diffgap.training.checkpoint import Progress, State
from diffgap.training.context import TrialContext, local_device
from diffgap.training.data import PairTable
from diffgap.training.engine import Average, clip_gradients, joint_engine, process_group
from diffgap.training.loop import Training, TrainingRecipe, run_step
from diffgap.training.trial import bridge_config

Step = Callable[[int], None]
"""Does the step of a number, of every trial."""


class Size(NamedTuple):
    """What is trained: dimension D, width W, blocks L, batch B."""

    dimension: int
    width: int
    blocks: int
    batch: int

    @property
    def products(self) -> list[tuple[int, int, int]]:
        """(M, L, N) of every matrix product of one trial's step."""
        D, W, L, B = self
        conditioned = FOURIER_FEATURES + 2 + D
        layers = [(conditioned, W), (W, W), (W, 2 * L * W), (3 * D, W), (W, D)] + [(W, W)] * 2 * L
        backward = [[(B, o, i), (i, B, o)] for i, o in layers]  # into inputs and into weights
        contrast = [(B, D, B), (B, B, D)]  # its targets have no gradient
        return [(B, i, o) for i, o in layers] + [p for both in backward for p in both] + contrast


def main() -> None:
    """Measures, and prints."""
    options = _options()
    torch.set_num_threads(options.threads)
    device = local_device()
    sizes = [Size(*size) for size in options.size or SIZES[device.type]]
    packs = options.packs or PACKS[device.type]
    found = []
    with process_group(device):
        for size in sizes:
            found += measure(size, packs, device, options)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found, device, options)


SIZES = {
    "cpu": [Size(512, 1024, 4, 512), Size(128, 256, 2, 256), Size(128, 64, 2, 64)],
    "cuda": [Size(512, 1024, 4, 1024), Size(128, 256, 2, 256)],
}
PACKS = {"cpu": [2, 4, 8], "cuda": [1, 8, 32, 128, 256, 512]}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    four = ("D", "W", "L", "B")
    parser.add_argument("--size", type=int, nargs=4, metavar=four, action="append")
    parser.add_argument("--packs", type=int, nargs="+", help="trials of in turn and batched")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="a way and round (default 3)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def measure(
    size: Size, packs: list[int], device: torch.device, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Milliseconds a trial and step of every way, and its share of the floor's rate."""
    ways: dict[tuple[str, int], Callable[[list[Training]], Any]] = {
        ("floor", 1): lambda _: _products(size, device),
        ("plain", 1): _plain,
        ("alone", 1): _in_turn,
        **{("in turn", count): _in_turn for count in packs if device.type == "cpu"},
        **{("batched", count): _batched for count in packs},
    }
    rounds: list[dict[tuple[str, int], float]] = []
    for _ in range(options.rounds):
        rounds.append({})
        for (way, count), make in ways.items():
            try:
                with _trainings(size, count, device) as trainings:
                    step = make(trainings)
                    rounds[-1][way, count] = _seconds(step, options.steps, device) / count
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                break  # larger packs come later
    operations = sum(2 * m * length * n for m, length, n in size.products)
    rows = []
    for way in rounds[0]:
        seconds = statistics.median(r[way] for r in rounds)
        share = statistics.median(r["floor", 1] / r[way] for r in rounds)
        rows.append(
            {"size": size._asdict(), "way": way[0], "trials": way[1], "ms": 1000 * seconds,
             "steps_per_second": 1 / seconds, "gflops": operations / seconds / 1e9,
             "share_of_floor": share}
        )  # fmt: skip
    return rows


def _seconds(step: Step, count: int, device: torch.device) -> float:
    """The mean time of some steps, after one to warm up."""
    for number in range(1 + count):
        if number == 1:
            _wait(device)
            began = time.perf_counter()
        step(number)
    _wait(device)
    return (time.perf_counter() - began) / count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _trainings(size: Size, count: int, device: torch.device) -> Iterator[list[Training]]:
    """Trials that differ in seed and learning rate, on made-up pairs, before their first step."""
    D, W, L, B = size
    rng = np.random.default_rng(0)
    x, a = rng.normal(size=(2, 4 * B, D)).astype(np.float32)
    pairs = Pairs(("",) * len(a), _unit(x), _unit(a), np.arange(len(x)))
    table = PairTable(pairs, B, 0, device)
    trainings = []
    for seed in range(count):
        train = {"batch_size": B, "lr": 1e-3 / (1 + seed)}
        denoiser = {"width": W, "blocks": L}
        trial = Trial(task="text-audio", seed=seed, denoiser=denoiser, train=train)
        torch.manual_seed(seed)
        bridge = make_bridge(bridge_config(trial, D)).to(device)
        average = Average(copy.deepcopy(bridge), trial.train.ema)
        context = TrialContext(TrialRecord(Path("nowhere")), device)
        recipe = TrainingRecipe(trial.train, lambda _: {}, {})
        state = State(None, bridge, average, Progress())
        trainings.append(Training(table.of_seed(seed), recipe, context, state))
    yield trainings
    for training in trainings:
        if training.state.engine is not None and vars(training.state.engine):
            close_engine(training.state.engine)


def _unit(vectors: np.ndarray) -> np.ndarray:
    normal: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normal


# The ways ---------------------------------------------------------------------------------------


def _products(size: Size, device: torch.device) -> Step:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    shapes = size.products
    pairs = {
        (m, length, n): (
            torch.randn(m, length, device=device, dtype=dtype),
            torch.randn(length, n, device=device, dtype=dtype),
        )
        for m, length, n in set(shapes)
    }

    def step(number: int) -> None:
        for shape in shapes:
            torch.mm(*pairs[shape])

    return step


def _plain(trainings: list[Training]) -> Step:
    (training,) = trainings
    bridge, settings = training.state.bridge, training.recipe.settings
    optimizer = torch.optim.AdamW(bridge.parameters(), settings.lr, fused=True)
    device = training.context.device
    bf16 = device.type == "cuda"

    def step(number: int) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            losses = bridge(training.batch(number))
        losses.total.backward()
        clip_gradients(bridge.parameters(), settings)
        optimizer.step()
        optimizer.zero_grad()
        training.state.average.update(bridge, number, settings.zero_stage)

    return step


def _in_turn(trainings: list[Training]) -> Step:
    for t in trainings:
        bridge = t.state.bridge
        t.state.engine = joint_engine(bridge, [bridge], [t.recipe.settings], 1, t.context.device)

    def step(number: int) -> None:
        for training in trainings:
            run_step(training.state.engine, [training], number)

    return step


def _batched(trainings: list[Training]) -> Step:
    bridges = [t.state.bridge for t in trainings]
    settings = [t.recipe.settings for t in trainings]
    engine = joint_engine(
        StackedBridges(bridges), bridges, settings, 1, trainings[0].context.device
    )
    trainings[0].state.engine = engine
    return lambda number: run_step(engine, trainings, number)


def _print(found: list[dict[str, Any]], device: torch.device, options: argparse.Namespace) -> None:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    title = (
        f"{name}, {options.threads} threads: a step of one trial, and its share of the floor's rate"
    )
    table = Table(title=title)
    for heading in ("D, W, L, batch", "way", "trials", "ms a step", "steps/s", "GFLOP/s", "share"):
        table.add_column(heading, justify="left" if heading == "way" else "right", no_wrap=True)
    last = None
    for row in found:
        if last not in (None, row["size"]):
            table.add_section()
        size = ", ".join(map(str, row["size"].values())) if row["size"] != last else ""
        last = row["size"]
        figures = f"{row['ms']:.2f}", f"{row['steps_per_second']:.1f}", f"{row['gflops']:.0f}"
        share = f"{row['share_of_floor']:.2f}"
        table.add_row(size, row["way"], str(row["trials"]), *figures, share)
    Console().print(table)


if __name__ == "__main__":
    main()
