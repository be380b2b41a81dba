"""MLflow's runs, in a real database: truthful ends, and no point twice."""

import math

import pytest
from mlflow import MlflowClient

from diffgap.tracking.writer import RunWriter

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
    return RunWriter(output, sweep, "this ledger", {"diffgap.store": "somewhere"})


def statuses(output, sweep="s"):
    client = MlflowClient(f"sqlite:///{output}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name(sweep).experiment_id])
    return {run.info.run_name: run.info.status for run in runs}


def test_a_resumed_trial_goes_on_in_its_own_run_and_doubles_no_point(output, artifacts):
    first = open_tracker(output)
    run = first.start("a" * 12, "seed 0", {"train.lr": 0.1})
    first.log("a" * 12, POINTS[:6], 1.0)
    first.kill("a" * 12)
    first.close("KILLED")
    assert statuses(output) == {"s": "KILLED", "seed 0": "KILLED"}

    second = open_tracker(output)
    assert second.start("a" * 12, "seed 0", {"train.lr": 0.1}) == run
    assert statuses(output) == {"s": "RUNNING", "seed 0": "RUNNING"}
    second.log("a" * 12, POINTS[3:], 2.0)
    second.log("a" * 12, POINTS, 3.0)
    for now in (4.0, 5.0):  # a message that may not have arrived is sent again
        second.finish("a" * 12, {"test/text_to_audio/R1": 38.4}, artifacts, now)
    second.close("FINISHED")
    assert "diffgap.reason" not in second.client.get_run(run).data.tags
    assert statuses(output) == {"s": "FINISHED", "seed 0": "FINISHED"}
    history = second.client.get_metric_history(run, "train/loss")
    assert [point.step for point in history] == list(range(1, 11))
    found = second.client.get_run(run)
    assert found.data.metrics["test/text_to_audio/R1"] == 38.4
    assert len(second.client.get_metric_history(run, "test/text_to_audio/R1")) == 1
    assert found.data.params == {"train.lr": "0.1"}
    assert [f.path for f in second.client.list_artifacts(run, "bridge")] == ["bridge/config.json"]


def test_a_kill_between_two_metrics_of_one_step_loses_neither(output):
    """Training and validation are points of their own at the same step."""
    first = open_tracker(output)
    run = first.start("a" * 12, "seed 0", {})
    first.log("a" * 12, [{"step": 5, "metrics": {"train/loss": 1.0}}], 1.0)
    second = open_tracker(output)
    second.start("a" * 12, "seed 0", {})
    points = [{"step": 5, "metrics": {"train/loss": 1.0}}, {"step": 5, "metrics": {"val/R5": 2.0}}]
    second.log("a" * 12, points, 2.0)
    assert [m.step for m in second.client.get_metric_history(run, "train/loss")] == [5]
    assert [m.step for m in second.client.get_metric_history(run, "val/R5")] == [5]


def test_more_points_than_one_request_holds_are_all_logged(output):
    points = [{"step": s, "metrics": {"a": s, "b": math.sqrt(s)}} for s in range(1, 1201)]
    tracker = open_tracker(output)
    run = tracker.start("a" * 12, "seed 0", {})
    tracker.log("a" * 12, points, 1.0)
    assert len(tracker.client.get_metric_history(run, "b")) == 1200


def test_runs_that_a_killed_process_left_running_are_ended(output):
    first = open_tracker(output)
    first.start("a" * 12, "seed 0", {})
    first.start("b" * 12, "seed 1", {})
    assert statuses(output) == {"s": "RUNNING", "seed 0": "RUNNING", "seed 1": "RUNNING"}
    second = open_tracker(output)
    second.start("a" * 12, "seed 0", {})
    assert statuses(output) == {"s": "RUNNING", "seed 0": "RUNNING", "seed 1": "KILLED"}
    second.close("FAILED")
    assert statuses(output) == {"s": "FAILED", "seed 0": "KILLED", "seed 1": "KILLED"}


def test_a_failed_trial_says_why_and_a_finished_one_no_longer(output, artifacts):
    tracker = open_tracker(output)
    run = tracker.start("a" * 12, "seed 0", {})
    tracker.fail("a" * 12, "the loss is not finite")
    found = tracker.client.get_run(run)
    assert (found.info.status, found.data.tags["diffgap.reason"]) == (
        "FAILED", "the loss is not finite",
    )  # fmt: skip
    again = open_tracker(output)
    again.start("a" * 12, "seed 0", {})
    again.finish("a" * 12, {}, artifacts, 1.0)
    assert "diffgap.reason" not in again.client.get_run(run).data.tags


def test_a_fresh_start_keeps_the_old_run_and_makes_a_new_one(output):
    old = open_tracker(output).start("a" * 12, "seed 0", {})
    tracker = open_tracker(output)
    tracker.supersede("a" * 12)
    assert tracker.start("a" * 12, "seed 0", {}) != old
    assert tracker.client.get_run(old).data.tags["diffgap.signature"] == "a" * 12


def test_a_pruned_run_is_marked_until_it_is_asked_for_again(output):
    run = open_tracker(output).start("a" * 12, "seed 0", {})
    tracker = open_tracker(output)
    tracker.prune("a" * 12)
    assert tracker.client.get_run(run).data.tags["diffgap.pruned"] == "true"
    assert tracker.start("a" * 12, "seed 0", {}) == run
    assert "diffgap.pruned" not in tracker.client.get_run(run).data.tags


def test_secrets_reach_neither_tags_nor_parameters(output, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    tracker = RunWriter(
        output, "s", "this ledger", {"diffgap.store": "s3://key:hidden@bucket/store"}
    )
    run = tracker.start("a" * 12, "seed 0", {"note": "token=hidden&a=1 hf_abcdefgh"})
    tracker.fail("a" * 12, "http://user:hidden@server refused hf_abcdefgh")
    found = tracker.client.get_run(run).data
    assert found.tags["diffgap.store"] == "s3://***@bucket/store"
    assert found.params["note"] == "token=***&a=1 ***"
    assert found.tags["diffgap.reason"] == "http://***@server refused ***"


def test_the_environment_names_the_tracking_server(output, monkeypatch, tmp_path):
    uri = f"sqlite:///{tmp_path}/elsewhere.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert open_tracker(output).uri == uri
    assert (tmp_path / "elsewhere.db").exists()
    assert not (output / "mlflow.db").exists()


def test_sweeps_of_one_name_in_two_ledgers_have_runs_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared.db")
    first = RunWriter(tmp_path / "a", "s", "ledger a", {})
    running = first.start("a" * 12, "seed 0", {})
    other = RunWriter(tmp_path / "b", "s", "ledger b", {})
    assert other.parent != first.parent
    assert first.client.get_run(running).info.status == "RUNNING"  # not forsaken: another's
    assert other.start("a" * 12, "seed 0", {}) != running
    assert RunWriter(tmp_path / "moved", "s", "ledger a", {}).parent == first.parent


def test_final_metrics_on_val_do_not_mix_with_the_curve_of_the_same_name(output, artifacts):
    tracker = open_tracker(output)
    run = tracker.start("a" * 12, "seed 0", {})
    tracker.log("a" * 12, [{"step": 5, "metrics": {"val/text_to_audio/R5": 50.0}}], 1.0)
    tracker.finish("a" * 12, {"val/text_to_audio/R5": 60.0, "best/step": 5.0}, artifacts, 2.0)
    found = tracker.client.get_run(run).data.metrics
    assert (found["val/text_to_audio/R5"], found["final/val/text_to_audio/R5"]) == (50.0, 60.0)
    assert found["best/step"] == 5.0
