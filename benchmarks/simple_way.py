"""The simple way to run trials, to compare with: a TorchTrainer a trial under Tune, all defaults.

Nothing is tuned, packed or kept warm: Ray Train's and Ray Tune's defaults, with a worker a trial.
Benchmarks run it as a command of its own: `python benchmarks/simple_way.py AT_ONCE SET...`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

import common


def simple_seconds(*sets: str, at_once: int = 1) -> float:
    """Seconds of the ablation's spec with overrides, trained and scored the simple way."""
    command = [sys.executable, __file__, str(at_once), *sets]
    return list(common.timed_lines(command))[-1][0]


def run(at_once: int, sets: list[str]) -> None:
    """A Tune trial starts a TorchTrainer of one worker."""
    import ray
    from ray import train, tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    from diffgap.encoders.builtin import store_uri
    from diffgap.spec import load_sweep

    spec = load_sweep(common.SPEC, sets, known_stores=lambda name: None)
    store = store_uri(spec.store)

    def drive(config: dict[str, Any]) -> None:
        TorchTrainer(
            worker,
            train_loop_config={**config, "store": store, "output": output},
            scaling_config=train.ScalingConfig(num_workers=1),
            run_config=train.RunConfig(
                name=f"run-{config['trial']['seed']}",
                storage_path=output,
                callbacks=[TuneReportCallback()],
            ),
        ).fit()

    trials = [trial.model_dump(mode="json") for trial in spec.trials()]
    with tempfile.TemporaryDirectory() as output:
        ray.init(address="local", num_cpus=os.cpu_count())
        found = tune.Tuner(
            tune.with_resources(drive, {"CPU": 0.001}),
            param_space={"trial": tune.grid_search(trials)},
            tune_config=tune.TuneConfig(max_concurrent_trials=at_once),
            run_config=tune.RunConfig(storage_path=output, verbose=0),
        ).fit()
        assert not found.errors, found.errors


def worker(config: dict[str, Any]) -> None:
    """Ray Train's training function."""
    from ray import train

    from diffgap.ledger.ledger import Ledger
    from diffgap.spec import Trial
    from diffgap.training.context import TrialContext, local_device
    from diffgap.training.trial import run_trial

    trial, ledger = Trial.model_validate(config["trial"]), Ledger.at(config["output"])
    name = str(trial.seed)
    run_trial(
        trial, name, config["store"], ledger, TrialContext(ledger.trial(name), local_device())
    )
    train.report({"done": 1})


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2:])
