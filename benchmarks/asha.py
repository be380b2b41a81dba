"""Successive halving beside the full grid: what it finds, and with how many training steps.

    python benchmarks/asha.py --output /tmp/asha

Runs a tiny form of sweeps/hyperparameters.yaml on the embedded corpus: as a grid whose points are
all trained to the end, and as searches of the same points with ASHA, which meet them in different
orders. Prints the best mean R@5 on val of each, and the optimiser steps that each took. Twenty
minutes on two cores; finished trials in --output are not repeated.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from diffgap.ledger.ledger import Ledger
from diffgap.sweep.objective import final_objective

SPACE = {
    "train.lr": [0.0001, 0.0005, 0.002],
    "loss.condition_noise": [0.1, 0.4, 0.8],
    "loss.infonce_weight": [0.02, 0.5],
}
COMMON = [
    "trial.denoiser.width=128",
    "trial.train={steps: 600, batch_size: 256, epoch_steps: 50}",
    "trial.score={kind: bridge}",
]
POINTS = 18


def sets(seed: int) -> dict[str, list[str]]:
    """The overrides of the grid and of a search."""
    axes = ", ".join(f"{name}: {values}" for name, values in SPACE.items())
    space = ", ".join(f"{name}: {{choices: {values}}}" for name, values in SPACE.items())
    grid = ["name=grid", "search=null", "scheduler=null", "split=val", f"axes={{{axes}}}"]
    asha = [
        "name=asha",
        f"search={{kind: random, seed: {seed}, trials: {POINTS}, space: {{{space}}}}}",
        "scheduler={kind: asha, min_steps: 50, reduction: 3}",
    ]
    return {"grid": [*COMMON, *grid], "asha": [*COMMON, *asha]}


def run(name: str, output: Path, seed: int = 0) -> tuple[float, int]:
    """Best value on val and training steps of one sweep, in an output of its own."""
    words = [word for value in sets(seed)[name] for word in ("--set", value)]
    command = [sys.executable, "-m", "diffgap", "sweep", "sweeps/hyperparameters.yaml", "-q"]
    subprocess.run([*command, *words, "--output", str(output)], check=True)
    ledger = Ledger(output)
    values, steps = [], 0
    for entry in ledger.sweep(name).trials:
        record = ledger.trial(entry["signature"])
        if entry.get("final"):
            continue
        steps += (record.progress or {"step": 0})["step"]
        if record.finished:
            values.append(final_objective(record, "R5"))
    return max(values), steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, help="searches (default %(default)s)")
    arguments = parser.parse_args()
    grid, grid_steps = run("grid", arguments.output / "grid")
    print(f"grid: R@5 {grid:.2f} on val, {grid_steps} steps")
    for seed in range(arguments.seeds):
        asha, steps = run("asha", arguments.output / f"asha-{seed}", seed)
        print(
            f"asha, seed {seed}: R@5 {asha:.2f} on val, {asha - grid:+.2f} points, "
            f"{steps} steps, {steps / grid_steps:.0%}"
        )


if __name__ == "__main__":
    main()
