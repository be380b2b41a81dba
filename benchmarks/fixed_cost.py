"""What a trial costs that hardly trains, by phase, and beside Ray's defaults.

    python benchmarks/fixed_cost.py

Trials of one optimiser step on the embedded corpus, one after another: with Ray Tune's and Ray
Train's defaults (the simple way: a TorchTrainer a trial, written out below), each in processes of
its own (`resources.pack: off`), and in one warm process (`resources.pack: 1`). The first trial is
from the command to its end; a further one is the difference of runs with 1 and with 1 + N trials.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from statistics import median
from typing import Any

import common

SETS = ["name=fixed", "axes={}", "trial.train.steps=1", "trial.score.kind=bridge"]

PHASES = {
    "imports, store": r"Starting Ray",
    "Ray, MLflow": r"trials to run",
    "first process": r": started",
    "trial": r": done in",
    "MLflow, table": r"MLflow: ",
    "end": r"^$",
}
"""What ends each phase of a sweep, as it says."""


def simple_way(trials: int) -> float:
    """Seconds of so many trials with Ray's defaults, in a process of its own."""
    command = [sys.executable, __file__, "--inside", str(trials)]
    return list(common.timed_lines(command))[-1][0]


def run_simple_way(trials: int) -> None:
    """A Tune trial starts a TorchTrainer of one worker, one after another; nothing is tuned."""
    import ray
    from ray import train, tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    from diffgap.encoders.builtin import store_uri
    from diffgap.spec import load_sweep

    spec = load_sweep(common.SPEC, [*SETS, f"seeds={trials}"], known_stores=lambda name: None)
    store = store_uri(spec.store)

    def drive(config: dict[str, Any]) -> None:
        TorchTrainer(
            simple_worker,
            train_loop_config={**config, "store": store, "output": output},
            scaling_config=train.ScalingConfig(num_workers=1),
            run_config=train.RunConfig(
                name=f"run-{config['seed']}", storage_path=output, callbacks=[TuneReportCallback()]
            ),
        ).fit()

    with tempfile.TemporaryDirectory() as output:
        ray.init(address="local", num_cpus=os.cpu_count())
        found = tune.Tuner(
            tune.with_resources(drive, {"CPU": 0.001}),
            param_space={
                "seed": tune.grid_search(list(range(trials))),
                "trial": spec.trial.model_dump(mode="json"),
                "task": spec.task,
            },
            tune_config=tune.TuneConfig(max_concurrent_trials=1),
            run_config=tune.RunConfig(storage_path=output, verbose=0),
        ).fit()
        assert not found.errors, found.errors


def simple_worker(config: dict[str, Any]) -> None:
    """Ray Train's training function of the simple way."""
    from ray import train

    from diffgap.ledger import Ledger
    from diffgap.spec import Trial
    from diffgap.training.host import Host, local_device
    from diffgap.training.trial import run_trial

    fields = {**config["trial"], "task": config["task"], "seed": config["seed"]}
    ledger, name = Ledger.at(config["output"]), str(config["seed"])
    host = Host(ledger.trial(name), local_device())
    run_trial(Trial.model_validate(fields), name, config["store"], ledger, host)
    train.report({"done": 1})


def phases(lines: list[tuple[float, str]]) -> dict[str, float]:
    """Seconds of each phase, from what a sweep of one trial has said and when."""
    found, before = {}, 0.0
    for name, pattern in PHASES.items():
        at = next(when for when, line in lines if when >= before and re.search(pattern, line))
        found[name], before = at - before, at
    return found


def one_round(more: int) -> dict[str, Any]:
    """First trial's and a further trial's seconds by way, and the warm way's phases."""
    found: dict[str, Any] = {}
    first, all_of_them = simple_way(1), simple_way(1 + more)
    found["Ray's defaults"] = first, (all_of_them - first) / more
    for way, pack in (("processes of its own", "off"), ("one warm process", "1")):
        alone = ("--max-concurrent", "1")
        lines = common.sweep_lines(*SETS, f"resources.pack={pack}", options=alone)
        many = common.sweep_seconds(
            *SETS, f"resources.pack={pack}", f"seeds={1 + more}", options=alone
        )
        found[way] = lines[-1][0], (many - lines[-1][0]) / more
    found["phases"] = phases(lines)
    return found


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--more", type=int, default=4, help="further trials (default %(default)s)")
    parser.add_argument("--inside", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        run_simple_way(options.inside)
        return
    rounds = [one_round(options.more) for _ in range(options.rounds)]
    simple = "Ray's defaults"
    rows = []
    for way in (name for name in rounds[0] if name != "phases"):
        row: dict[str, object] = {"way": way}
        for i, what in enumerate(("first trial", "a further trial")):
            row[f"{what}, s"] = common.spread([found[way][i] for found in rounds], 1)
            row[f"{what}: ratio"] = common.spread(
                [found[way][i] / found[simple][i] for found in rounds]
            )
        rows.append(row)
    common.show("Trials of one step, one after another", rows, options.json)
    names = rounds[0]["phases"]
    common.show(
        "The first trial in a warm process, by phase",
        [{"phase": n, "s": round(median(r["phases"][n] for r in rounds), 2)} for n in names],
        options.json,
    )


if __name__ == "__main__":
    main()
