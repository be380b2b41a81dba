"""Searches through the installed command: Optuna, ASHA, and what is left after a kill."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from command import COMMAND, diffgap, environment, runs_of

pytestmark = pytest.mark.slow

SPEC = """\
name: found
store: {store}
trial:
  denoiser: {{width: 16, blocks: 1}}
  train: {{steps: 12, batch_size: 32, epoch_steps: 2, lr: 0.01}}
  score: {{kind: bridge}}
search:
  trials: 3
  space:
    train.lr: {{low: 1.0e-7, high: 1.0e-2, log: true}}
    denoiser.width: {{choices: [8, 16]}}
    denoiser.blocks: {{low: 1, high: 2}}
scheduler: {{min_steps: 2, reduction: 2}}
"""


def records(place):
    return [
        p for p in (place / "runs" / "trials").iterdir() if (p / "bridge/metrics.json").exists()
    ]


def test_a_search_tries_the_default_first_and_chooses_on_val(tmp_path, small_store):
    (tmp_path / "found.yaml").write_text(SPEC.format(store=small_store))
    done = diffgap("sweep", "found.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "train.lr 0.01, denoiser.width 16, denoiser.blocks 1" in done.stdout
    assert "3 of 3 trials" in done.stdout
    assert "Search found: R@5 on val" in done.stdout
    assert "--set trial.train.lr=" in done.stdout
    assert records(tmp_path)
    for record in records(tmp_path):
        names = json.loads((record / "bridge/metrics.json").read_text())
        assert not [name for name in names if name.startswith("test/")]
    runs = runs_of(tmp_path, "found")
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
    stopped = [run for run in runs if run.info.status == "KILLED"]
    assert all("ASHA" in run.data.tags["diffgap.reason"] for run in stopped)

    again = diffgap("sweep", "found.yaml", cwd=tmp_path)
    assert again.returncode == 0
    assert "Starting Ray" not in again.stdout
    assert again.stdout.split("Search found")[1] == done.stdout.split("Search found")[1]


@pytest.mark.fault
def test_a_killed_search_goes_on_with_the_trials_it_was_in(tmp_path, small_store):
    (tmp_path / "found.yaml").write_text(SPEC.format(store=small_store))
    command = [COMMAND, "sweep", "found.yaml", "--set", "search.trials=3",
               "--set", "trial.train.steps=60"]  # fmt: skip
    first = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    for line in first.stdout:
        if "step 6/" in line:
            break
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()

    second = diffgap(*command[1:], cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "3 of 3 trials to run" in second.stdout
    sweep = json.loads((tmp_path / "runs/sweeps/found.json").read_text())
    assert len(sweep["trials"]) == 3
    assert Path(tmp_path / "runs/search/found.journal").exists()
