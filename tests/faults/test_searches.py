"""Searches that are killed: they stop, breed and choose as they would have."""

import json
import subprocess

import pytest
from conftest import COMMAND, Sweep

pytestmark = [pytest.mark.fault, pytest.mark.slow]

ASHA = """\
name: found
store: {store}
trial:
  denoiser: {{width: 16, blocks: 1}}
  train: {{steps: 12, batch_size: 32, epoch_steps: 2}}
  score: {{kind: bridge}}
search:
  trials: 5
  space:
    train.lr: {{low: 1.0e-6, high: 1.0e-2, log: true}}
    loss.condition_noise: {{low: 0.1, high: 0.8}}
scheduler: {{min_steps: 2, reduction: 2}}
"""

PBT = """\
name: bred
store: {store}
trial:
  denoiser: {{width: 16, blocks: 1}}
  train: {{steps: 12, batch_size: 32, epoch_steps: 2}}
  score: {{kind: bridge}}
search:
  trials: 3
  space:
    train.lr: {{low: 1.0e-4, high: 1.0e-2, log: true}}
    loss.condition_noise: {{low: 0.1, high: 0.8}}
scheduler: {{kind: pbt, interval: 6, quantile: 0.34}}
"""


def ends(sweep):
    """How each trial ended: its rungs, its stop, its figures."""
    found = {}
    for path in (sweep.place / "runs/trials").iterdir():
        notes = [json.loads(note.read_text()) for note in sorted(path.glob("rungs/*.json"))]
        stop = json.loads((path / "stop.json").read_text()) if (path / "stop.json").exists() else {}
        metrics = path / "bridge/metrics.json"
        figures = json.loads(metrics.read_text()) if metrics.exists() else {}
        figures.pop("cost/train_seconds", None)
        found[path.name] = (notes, stop, figures)
    return found


def whole_and_killed(tmp_path, store, spec, moment, *arguments):
    """The same search twice: undisturbed, and killed at a moment and gone on with."""
    places = [tmp_path / name for name in ("whole", "killed")]
    for place in places:
        place.mkdir()
    whole, killed = (Sweep(place, store, spec) for place in places)
    whole.start(*arguments)  # beside the other: both mostly wait for processes to start
    killed.start(*arguments).wait_for(moment)
    killed.process.kill()
    killed.finish()
    killed.wait_until_alone()
    assert killed.run(*arguments) == 0, killed.said
    assert whole.finish() == 0, whole.said
    return whole, killed


def test_asha_stops_the_same_trials_after_a_kill(tmp_path, small_store):
    whole, killed = whole_and_killed(
        tmp_path, small_store, ASHA, r"(?s)(started.*){3}step 2/12", "--max-concurrent", "1"
    )
    found = ends(whole)
    assert found == ends(killed)
    assert any("ASHA" in stop.get("reason", "") for _, stop, _ in found.values())
    final = [figures for *_, figures in found.values() if "test/text_to_audio/R5" in figures]
    assert len(final) == 1  # the winner alone has seen test, once
    assert "on test" in whole.report() or "test:" in whole.report()
    assert {run.info.status for run in killed.runs()[1]} == {"FINISHED", "KILLED"}


@pytest.mark.unproven
def test_a_population_breeds_the_same_after_a_kill_and_its_winner_can_be_repeated(
    tmp_path, small_store
):
    whole, killed = whole_and_killed(tmp_path, small_store, PBT, r"step 8/12")
    found = ends(whole)
    assert found == ends(killed)
    assert [stop for _, stop, _ in found.values() if "PBT" in stop.get("reason", "")]
    copies = [
        path for path in (whole.place / "runs/trials").iterdir()
        if json.loads((path / "trial.json").read_text())["trial"]["changes"]
        and (path / "bridge").exists()
    ]  # fmt: skip
    assert copies
    done = subprocess.run(
        [COMMAND, "rerun", copies[0].name], cwd=whole.place, env=whole.environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Same weights, bit for bit" in done.stdout  # trained from its start, without a copy
