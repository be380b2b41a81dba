"""Sweeps really run and logged to a real MLflow, without Ray, which a report never sees."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffgap.ledger.ledger import Ledger
from diffgap.spec import load_sweep
from diffgap.store.store import EmbeddingStore
from diffgap.sweep.plan import make_plan
from diffgap.sweep.study import Study
from diffgap.tracking.reader import Reader
from diffgap.tracking.writer import RunWriter
from diffgap.training.context import TrialContext
from diffgap.training.trial import run_trial

COMMON = """\
store: {store}
trial:
  denoiser: {{width: 16, blocks: 1}}
  train: {{steps: 6, batch_size: 32, epoch_steps: 2}}
  score: {{top_k: 5}}
"""

ABLATION = """\
name: ablation
axes: {{cdm.enabled: [false, true], bst.enabled: [false, true]}}
seeds: 2
"""

METHODS = """\
name: methods
axes: {{method: [none, mean_shift, deterministic, diffgap]}}
seeds: 2
report: {{tables: [methods]}}
"""

SCHEDULES = """\
name: schedules
axes: {{cdm.schedule: [cosine, linear, flow], cdm.prediction: [x0, v]}}
report: {{tables: [axes]}}
"""

SCORES = """\
name: scores
axes: {{score.kind: [bridge, sample], score.sample_steps: [1, 2, 4]}}
report: {{tables: [axes]}}
"""

SEARCH = """\
name: search
search:
  kind: random
  trials: 9
  space:
    train.lr: {{low: 1.0e-4, high: 1.0e-2, log: true}}
    denoiser.blocks: {{low: 1, high: 2}}
    cdm.prediction: {{choices: [x0, v]}}
"""

ALL = (ABLATION, METHODS, SCHEDULES, SCORES, SEARCH)


def plan_of(spec: str, place: Path, store: Path, more: str = ""):
    """The plan of a spec's text, with the common trial and more of it."""
    path = place / "spec.yaml"
    path.write_text((spec + COMMON + more).format(store=store))
    sweep_spec = load_sweep(path, (), known_stores=lambda name: None)
    return make_plan(sweep_spec, str(store), EmbeddingStore.open(store).fingerprint)


def run_here(plan, ledger: Ledger):
    """Runs the trials of a plan in this process; returns the plan with those of a search."""
    trials = list(plan.trials)
    if plan.spec.search:
        study = Study(plan, ledger, {})
        while planned := study.next():
            _run(planned, plan, ledger)
            study.finish(planned.signature)
        trials = study.trials
    for planned in trials:
        _run(planned, plan, ledger)
    return replace(plan, trials=tuple(trials))


def _run(planned, plan, ledger):
    record = ledger.trial(planned.signature)
    if not record.finished:
        host = TrialContext(record, torch.device("cpu"))
        run_trial(planned.trial, planned.signature, plan.store, ledger, host)


def log_sweep(plan, ledger: Ledger, trials=None, status="FINISHED"):
    """Logs a plan's trials to MLflow, as far as the ledger has them; returns the writer."""
    tracker = RunWriter(
        ledger.output, plan.spec.name, ledger.identity(), {"diffgap.store": plan.store}
    )
    tracker.describe(plan.record().public_facts())
    for planned in plan.trials if trials is None else trials:
        record = ledger.trial(planned.signature)
        tracker.start(planned.signature, planned.label, {"train.lr": planned.trial.train.lr})
        if record.finished:
            tracker.log(planned.signature, record.history(), 1e9)
            tracker.finish(planned.signature, record.metrics(), record.bridge, 1e9)
    tracker.close(status)
    return tracker


@pytest.fixture(scope="session")
def demo(tmp_path_factory, small_store) -> Path:
    """The output directory of five finished sweeps: see `ALL`."""
    place = tmp_path_factory.mktemp("demo")
    ledger = Ledger(place / "runs")
    for spec in ALL:
        log_sweep(run_here(plan_of(spec, place, small_store), ledger), ledger)
    return place / "runs"


@pytest.fixture(scope="session")
def read(demo):
    """Reads one of the sweeps."""
    return Reader(demo).sweep


@pytest.fixture(scope="session")
def report(demo):
    """The report of all of them."""
    from diffgap.report.model import make_report
    from diffgap.report.references import read_references

    reader = Reader(demo)
    sweeps = [
        reader.sweep(name) for name in ("ablation", "methods", "schedules", "scores", "search")
    ]
    return make_report(sweeps, read_references(), reader.uri)
