"""Searches that are killed: they stop, breed and choose as they would have."""

import json
import subprocess
from contextlib import suppress
from dataclasses import asdict

import pytest
import torch
from conftest import COMMAND, Sweep

from diffgap.ledger.ledger import Ledger
from diffgap.spec import load_sweep
from diffgap.store.store import EmbeddingStore
from diffgap.sweep.plan import make_plan
from diffgap.sweep.population import Population
from diffgap.sweep.study import Study
from diffgap.training.context import TrialContext
from diffgap.training.loop import StoppedError
from diffgap.training.trial import run_trial

pytestmark = [pytest.mark.fault, pytest.mark.slow]

ASHA = """\
name: {name}
store: {store}
trial:
  denoiser: {{width: 16, blocks: 1}}
  train: {{steps: 12, batch_size: 32, epoch_steps: 2}}
  score: {{kind: bridge}}
search:
  trials: 4
  space:
    train.lr: {{low: 1.0e-6, high: 1.0e-2, log: true}}
    loss.condition_noise: {{low: 0.1, high: 0.8}}
scheduler: {{min_steps: 2, reduction: 2}}
"""

PBT = """\
name: {name}
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


def ends(output):
    """How each trial ended: its rungs, its stop, its figures."""
    found = {}
    for path in (output / "trials").iterdir():
        notes = [json.loads(note.read_text()) for note in sorted(path.glob("rungs/*.json"))]
        stop = json.loads((path / "stop.json").read_text()) if (path / "stop.json").exists() else {}
        metrics = path / "bridge/metrics.json"
        figures = json.loads(metrics.read_text()) if metrics.exists() else {}
        figures.pop("cost/train_seconds", None)
        found[path.name] = (notes, stop, figures)
    return found


def killed_in_the_middle(sweep, moment, *arguments):
    """Runs a search that is killed at a moment, and gone on with."""
    sweep.start(*arguments).wait_for(moment, 150)
    sweep.process.kill()
    sweep.finish()
    sweep.wait_until_alone()
    assert sweep.run(*arguments) == 0, sweep.said


class Alone(TrialContext):
    """One process that runs a trial and decides at its rungs: nothing waits, nothing is lost."""

    def __init__(self, record, study, planned):
        super().__init__(record, torch.device("cpu"))
        self.study, self.planned = study, planned

    def report(self, progress):
        self.study.report(self.planned.signature, [asdict(point) for point in progress.history])

    def should_stop(self, step):
        return self.record.stop is not None


def without_ray(place, store):
    """The spec of a place as a plan, with an empty ledger: for the same search, undisturbed."""
    torch.set_num_threads(1)  # as the sweep's workers have
    spec = load_sweep(place / "spec.yaml", (), known_stores=lambda name: None)
    fingerprint = EmbeddingStore.open(store).fingerprint
    return make_plan(spec, str(store), fingerprint), Ledger(place / "plain")


def searched(plan, ledger):
    """Runs a search with ASHA, one trial after the other."""
    study = Study(plan, ledger, {})
    while planned := study.next():
        host = Alone(ledger.trial(planned.signature), study, planned)
        with suppress(StoppedError):
            run_trial(planned.trial, planned.signature, plan.store, ledger, host)
        study.finish(planned.signature)


def bred(plan, ledger):
    """Runs a population: the members of each generation in turn. Returns them all."""
    population = Population(plan, ledger, {})
    while True:
        for planned in population.missing():
            record = ledger.trial(planned.signature)
            host = TrialContext(record, torch.device("cpu"), until=population.pause_at)
            with suppress(StoppedError):
                run_trial(planned.trial, planned.signature, plan.store, ledger, host)
        if population.is_last:
            return population.trials
        population.breed()


def test_asha_stops_the_same_trials_after_a_kill(tmp_path, small_store):
    killed = Sweep(tmp_path, small_store, "search", ASHA)
    killed_in_the_middle(killed, r"(?s)(started.*){3}step 2/12", "--max-concurrent", "1")
    plan, ledger = without_ray(tmp_path, small_store)
    searched(plan, ledger)
    undisturbed, found = ends(ledger.output), ends(tmp_path / "runs")
    (final,) = set(found) - set(undisturbed)  # the winner alone has seen test, once
    assert [name for name in found if "test/text_to_audio/R5" in found[name][2]] == [final]
    del found[final]
    assert found == undisturbed
    assert any("ASHA" in stop.get("reason", "") for _, stop, _ in found.values())
    assert "test: R@K" in killed.report()
    assert {run.info.status for run in killed.runs()[1]} == {"FINISHED", "KILLED"}


def test_a_population_breeds_the_same_after_a_kill_and_its_winner_can_be_repeated(
    tmp_path, small_store
):
    killed = Sweep(tmp_path, small_store, "search", PBT)
    killed_in_the_middle(killed, r"continued as a copy")
    plan, plain = without_ray(tmp_path, small_store)
    members = bred(plan, plain)
    found = ends(tmp_path / "runs")
    assert [stop for _, stop, _ in found.values() if "PBT" in stop.get("reason", "")]
    copies = 0
    for planned in members:
        record = plain.trial(planned.signature)
        if record.finished:
            figures = {n: v for n, v in record.metrics().items() if n != "cost/train_seconds"}
            assert found[planned.signature][2] == figures
            copies += bool(planned.trial.changes)
    assert copies
    copy = next(p.signature for p in members if p.trial.changes)
    done = subprocess.run(
        [COMMAND, "rerun", copy], cwd=killed.place, env=killed.environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Same weights, bit for bit" in done.stdout  # trained from its start, without a copy
