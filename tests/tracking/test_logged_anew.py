"""What MLflow has lost, or never had, is logged again from the output, without a training."""

import shutil

import pytest
import torch
from mlflow import MlflowClient
from mlflow.tracking._tracking_service import utils
from rich.console import Console

from diffgap.errors import UserError
from diffgap.ledger.ledger import Ledger
from diffgap.report.formats import as_text
from diffgap.report.publish import publish
from diffgap.report.tables.registry import all_tables
from diffgap.spec import load_sweep
from diffgap.store.store import EmbeddingStore
from diffgap.sweep.plan import make_plan
from diffgap.sweep.run import SweepOptions, run_sweep
from diffgap.sweep.tracking import SweepTracker
from diffgap.tracking.client import tracking_uri
from diffgap.tracking.reader import Reader
from diffgap.training.context import TrialContext
from diffgap.training.trial import run_trial

SPEC = """\
name: s
store: {store}
trial:
  denoiser: {{width: 16, blocks: 1}}
  train: {{steps: 6, batch_size: 32, epoch_steps: 2}}
  score: {{top_k: 5}}
axes: {{method: [none, deterministic]}}
"""


@pytest.fixture(scope="module")
def planned(tmp_path_factory, small_store):
    place = tmp_path_factory.mktemp("logged")
    (place / "s.yaml").write_text(SPEC.format(store=small_store))
    spec = load_sweep(place / "s.yaml", (), known_stores=lambda name: None)
    return make_plan(spec, str(small_store), EmbeddingStore.open(small_store).fingerprint)


def run_one(planned_trial, plan, ledger, until=None):
    record = ledger.trial(planned_trial.signature)
    record.begin(planned_trial.entry())
    context = TrialContext(record, torch.device("cpu"), until=until)
    run_trial(planned_trial.trial, planned_trial.signature, plan.store, ledger, context)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, planned):
    """An output whose trials are finished and logged."""
    output = tmp_path_factory.mktemp("finished") / "runs"
    for trial in planned.trials:
        run_one(trial, planned, Ledger(output))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        sweep_again(planned, output)
    return output


@pytest.fixture
def output(finished, tmp_path, monkeypatch):
    """That output moved elsewhere, where its files say that all is logged."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(finished, tmp_path / "moved")
    utils._artifact_repos_cache.clear()  # by run ids, which no two outputs of one process share
    monkeypatch.setattr("diffgap.sweep.run.SweepRun._run_missing", pytest.fail)  # needs none
    return tmp_path / "moved"


def sweep_again(plan, output):
    assert run_sweep(plan, Ledger(output), Console(quiet=True), SweepOptions()) == {}


def table(output):
    return as_text(all_tables([Reader(output).sweep("s")], ()))


def runs_of(output):
    client = MlflowClient(tracking_uri(output))
    experiment = client.get_experiment_by_name("s")
    return client, client.search_runs([experiment.experiment_id])


def assert_whole(output, expected):
    """The table is the same, and everything behind it is in the output itself."""
    assert table(output) == expected
    client, runs = runs_of(output)
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    for run in runs:
        assert run.info.artifact_uri.startswith(output.as_uri())
    (trained,) = [run for run in runs if run.data.params.get("method") == "deterministic"]
    history = client.get_metric_history(trained.info.run_id, "train/loss")
    assert [point.step for point in history] == [1, 2, 3, 4, 5, 6]


def delete_database(output):
    (output / "mlflow.db").unlink()


def delete_artifacts(output):
    shutil.rmtree(output / "mlartifacts")


def delete_one_file(output):
    next(output.glob("mlartifacts/s/*/artifacts/bridge/ranks.parquet")).unlink()


def cut_off_one_file(output):
    file = next(output.glob("mlartifacts/s/*/artifacts/bridge/metrics.json"))
    file.write_text(file.read_text()[:20])


def break_record(output):
    next(output.glob("mlartifacts/s/*/artifacts/sweep.json")).write_text('{"trials": [')


def delete_record(output):
    next(output.glob("mlartifacts/s/*/artifacts/sweep.json")).unlink()


def delete_run(output):
    client, runs = runs_of(output)
    trial = next(run for run in runs if run.data.tags["diffgap.kind"] == "trial")
    client.delete_run(trial.info.run_id)


def delete_nothing(output):
    pass


@pytest.mark.parametrize(
    "lose",
    [
        delete_nothing, delete_database, delete_artifacts, delete_one_file, delete_record,
        delete_run, cut_off_one_file, break_record,
    ],
)  # fmt: skip
def test_what_is_lost_is_back_after_the_same_command(lose, output, finished, planned):
    expected = table(finished)
    lose(output)
    sweep_again(planned, output)
    assert_whole(output, expected)
    assert_whole(finished, expected)  # a copy takes nothing from where it was copied


def test_a_broken_record_or_file_is_told_and_not_a_traceback(output):
    cut_off_one_file(output)
    assert "the metrics.json of its run is damaged" in table(output)
    break_record(output)
    with pytest.raises(UserError, match=r"the record of 's' .* is broken, or of another"):
        table(output)


def test_a_moved_output_is_reported_before_any_sweep(output, finished, monkeypatch):
    expected = table(finished)
    hidden = finished.rename(finished.with_name("away"))
    try:
        assert table(output) == expected
    finally:
        hidden.rename(finished)


def test_another_tracking_store_gets_everything(output, finished, planned, tmp_path, monkeypatch):
    """And so does one that another output's sweep of this name is in already."""
    expected = table(finished)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    sweep_again(planned, output)
    assert_whole(output, expected)
    shutil.copytree(finished, tmp_path / "second", ignore=shutil.ignore_patterns("ledger.json"))
    shutil.rmtree(tmp_path / "second" / "mlartifacts")
    sweep_again(planned, tmp_path / "second")
    shutil.rmtree(output)
    second = table(tmp_path / "second")
    assert "2 sweeps are named 's'" in second
    assert set(expected.splitlines()) < set(second.splitlines())


def test_what_is_there_is_not_logged_again(output, planned, monkeypatch):
    sweep_again(planned, output)  # after the move
    monkeypatch.setattr("diffgap.sweep.tracking.SweepTracker.__init__", pytest.fail)
    sweep_again(planned, output)


def test_trials_that_were_stopped_or_failed_come_back_with_their_curves(
    planned, tmp_path, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ledger = Ledger(tmp_path / "runs")
    frozen, trained = planned.trials
    with pytest.raises(StopIteration):
        stop_at_rung(trained, planned, ledger)
    ledger.trial(frozen.signature).begin(frozen.entry())
    ledger.trial(frozen.signature).fail("the loss is nan")
    with SweepTracker(planned, ledger, Console(quiet=True)) as tracker:
        tracker.catch_up(planned.trials)
    assert tracker.problem is None
    client, runs = runs_of(ledger.output)
    runs = {run.data.params.get("method"): run for run in runs}
    reasons = {m: (run.info.status, run.data.tags.get("diffgap.reason")) for m, run in runs.items()}
    assert reasons["deterministic"] == ("KILLED", "behind the others")
    assert reasons["none"] == ("FAILED", "the loss is nan")
    history = client.get_metric_history(runs["deterministic"].info.run_id, "val/text_to_audio/R5")
    assert [point.step for point in history] == [2, 4]


def stop_at_rung(trial, plan, ledger):
    """Trains a trial up to a rung, where its search stops it."""
    record = ledger.trial(trial.signature)
    save = TrialContext.end_epoch

    def end_epoch(context, progress, steps, write):
        save(context, progress, steps, write)
        if progress.step == 4:
            record.request_stop("behind the others", 4, 1.0)
            raise StopIteration

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrialContext, "end_epoch", end_epoch)
        run_one(trial, plan, ledger)


def test_a_published_report_is_published_again_where_it_was_deleted(output, planned):
    sweep_again(planned, output)
    reader = Reader(output)
    logged = reader.sweep("s")
    assert [publish(reader, logged, ()) for _ in range(2)] == [True, False]
    delete_artifacts(output)
    sweep_again(planned, output)
    assert publish(reader, reader.sweep("s"), ())
    assert list(output.glob("mlartifacts/s/*/artifacts/report/report.html"))
