"""MLflow's runs, in a real database: truthful ends, and no point twice."""

import math

import pytest
from mlflow import MlflowClient

from diffgap.tracking import Tracker

POINTS = [{"step": step, "metrics": {"train/loss": 1 / step}} for step in range(1, 11)]


@pytest.fixture
def artifacts(tmp_path):
    path = tmp_path / "bridge"
    path.mkdir()
    (path / "config.json").write_text("{}")
    return path


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "runs"


def open_tracker(output, sweep="s"):
    return Tracker(output, sweep, {"diffgap.store": "somewhere"})


def statuses(output, sweep="s"):
    client = MlflowClient(f"sqlite:///{output}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name(sweep).experiment_id])
    return {run.info.run_name: run.info.status for run in runs}


def test_a_resumed_trial_goes_on_in_its_own_run_and_doubles_no_point(output, artifacts):
    with open_tracker(output) as first:
        run = first.start("a" * 12, "seed 0", {"train.lr": 0.1})
        first.log("a" * 12, POINTS[:6])
        first.kill("a" * 12)
        first.status = "KILLED"
    assert statuses(output) == {"s": "KILLED", "seed 0": "KILLED"}

    with open_tracker(output) as second:
        assert second.start("a" * 12, "seed 0", {"train.lr": 0.1}) == run
        assert statuses(output) == {"s": "RUNNING", "seed 0": "RUNNING"}
        second.log("a" * 12, POINTS[3:])
        second.log("a" * 12, POINTS)
        second.finish("a" * 12, {"test/text_to_audio/R1": 38.4}, artifacts)
    assert statuses(output) == {"s": "FINISHED", "seed 0": "FINISHED"}
    history = second.client.get_metric_history(run, "train/loss")
    assert [point.step for point in history] == list(range(1, 11))
    found = second.client.get_run(run)
    assert found.data.metrics["test/text_to_audio/R1"] == 38.4
    assert found.data.params == {"train.lr": "0.1"}
    assert [f.path for f in second.client.list_artifacts(run, "bridge")] == ["bridge/config.json"]


def test_more_points_than_one_request_holds_are_all_logged(output):
    points = [{"step": s, "metrics": {"a": s, "b": math.sqrt(s)}} for s in range(1, 1201)]
    with open_tracker(output) as tracker:
        run = tracker.start("a" * 12, "seed 0", {})
        tracker.log("a" * 12, points)
        assert len(tracker.client.get_metric_history(run, "b")) == 1200


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (OSError, "FAILED")])
def test_no_run_is_left_running_when_a_sweep_breaks(output, error, status):
    def broken():
        with open_tracker(output) as tracker:
            tracker.start("a" * 12, "seed 0", {})
            raise error

    with pytest.raises(error):
        broken()
    assert statuses(output) == {"s": status, "seed 0": "KILLED"}


def test_a_failed_trial_says_why(output):
    with open_tracker(output) as tracker:
        run = tracker.start("a" * 12, "seed 0", {})
        tracker.fail("a" * 12, "the loss is not finite")
    found = tracker.client.get_run(run)
    assert (found.info.status, found.data.tags["diffgap.reason"]) == (
        "FAILED", "the loss is not finite",
    )  # fmt: skip


def test_a_fresh_start_keeps_the_old_run_and_makes_a_new_one(output):
    with open_tracker(output) as tracker:
        old = tracker.start("a" * 12, "seed 0", {})
    with open_tracker(output) as tracker:
        tracker.set_aside("a" * 12)
        assert tracker.start("a" * 12, "seed 0", {}) != old
    assert tracker.client.get_run(old).data.tags["diffgap.signature"] == "a" * 12


def test_the_environment_names_the_tracking_server(output, monkeypatch, tmp_path):
    uri = f"sqlite:///{tmp_path}/elsewhere.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert open_tracker(output).uri == uri
    assert (tmp_path / "elsewhere.db").exists()
    assert not (output / "mlflow.db").exists()
