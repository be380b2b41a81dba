"""Searches through the installed command; for what is left of them after a kill see
tests/faults."""

import json

import pytest
from command import diffgap, runs_of

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
    names = [json.loads((r / "bridge/metrics.json").read_text()) for r in records(tmp_path)]
    on_test = [one for one in names if any(name.startswith("test/") for name in one)]
    assert len(on_test) == 1  # the winner alone, when the search is over
    assert "DiffGAP" in done.stdout.split("Search found")[1]
    runs = runs_of(tmp_path, "found")
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
    stopped = [run for run in runs if run.info.status == "KILLED"]
    assert all("ASHA" in run.data.tags["diffgap.reason"] for run in stopped)

    again = diffgap("sweep", "found.yaml", cwd=tmp_path)
    assert again.returncode == 0
    assert "Starting Ray" not in again.stdout
    assert again.stdout.split("Search found")[1] == done.stdout.split("Search found")[1]
