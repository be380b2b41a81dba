"""The main job through the installed command: real Ray, real DeepSpeed, real MLflow."""

import json
import signal
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from command import COMMAND, client, diffgap, environment, runs_of

SPEC = """\
name: tiny
store: {store}
trial:
  denoiser: {{width: 32, blocks: 2}}
  train: {{steps: {steps}, batch_size: 32, epoch_steps: 4}}
  score: {{top_k: 5}}
axes:
  cdm.enabled: [false, true]
  bst.enabled: [false, true]
seeds: 1
"""

pytestmark = pytest.mark.slow


def write_spec(path, store, steps=8):
    path.write_text(SPEC.format(store=store, steps=steps))
    return path


@pytest.fixture(scope="module")
def scratch():
    """A place for temporary files, of a short name: Ray's sockets are there."""
    with TemporaryDirectory(prefix="dg-") as path:
        yield Path(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_store, scratch):
    """A finished tiny sweep: where it ran, and what it printed."""
    place = tmp_path_factory.mktemp("sweep")
    write_spec(place / "tiny.yaml", small_store)
    return place, diffgap("sweep", "tiny.yaml", cwd=place, TMPDIR=str(scratch))


def test_a_sweep_and_a_report_leave_nothing_temporary(finished, scratch):
    place, _ = finished
    assert not list(scratch.iterdir())
    shown = diffgap("report", "tiny", cwd=place, TMPDIR=str(scratch))
    assert shown.returncode == 0, shown.stderr
    assert not list(scratch.iterdir())


def test_a_sweep_trains_every_cell_and_prints_its_table(finished):
    place, done = finished
    assert done.returncode == 0, done.stderr
    for text in (
        "frozen embeddings",
        "BST only",
        "CDM only",
        "CDM + BST",
        "mlflow.db",
        "diffgap ui",
    ):
        assert text in done.stdout
    assert done.stdout.count("No GPU in this cluster") <= 1
    assert "4 of 4 trials" in done.stdout
    assert not list((place / "runs" / "trials").glob("*/checkpoints"))


def test_ray_keeps_its_chatter_to_itself(finished):
    _, done = finished
    assert "View detailed results" not in done.stdout
    assert "completed. Last result" not in done.stdout
    assert "Traceback" not in done.stderr


def test_mlflow_holds_a_parent_and_a_child_per_trial(finished):
    place, _ = finished
    runs = runs_of(place)
    (parent,) = [run for run in runs if run.data.tags["diffgap.kind"] == "sweep"]
    children = [run for run in runs if run is not parent]
    assert len(children) == 4
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in children:
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["diffgap.sweep"] == "tiny"
        trained = run.data.params["method"] != "none"
        assert run.data.params.get("train.steps") == ("8" if trained else None)
        assert run.data.params["cdm.enabled"] in ("True", "False")
        assert 0 <= run.data.metrics["test/text_to_audio/R5"] <= 100
        files = client(place).list_artifacts(run.info.run_id, "bridge")
        assert {Path(file.path).name for file in files} >= {"bridge.safetensors", "config.json"}
    (both,) = [run for run in children if run.info.run_name == "cdm on, bst on, seed 0"]
    history = client(place).get_metric_history(both.info.run_id, "train/loss")
    assert [point.step for point in history] == list(range(1, 9))
    history = client(place).get_metric_history(both.info.run_id, "val/text_to_audio/R5")
    assert [point.step for point in history] == [4, 8]


def test_the_same_sweep_again_trains_nothing(finished):
    place, _ = finished
    before = sorted((p, p.stat().st_mtime) for p in (place / "runs" / "trials").rglob("*.json"))
    began = time.monotonic()
    again = diffgap("sweep", "tiny.yaml", cwd=place)
    assert again.returncode == 0
    assert "CDM + BST" in again.stdout
    assert "Starting Ray" not in again.stdout
    assert time.monotonic() - began < 15
    assert before == sorted(
        (p, p.stat().st_mtime) for p in (place / "runs" / "trials").rglob("*.json")
    )


def test_an_edited_sweep_trains_only_what_is_new_and_shows_the_rest(finished):
    place, _ = finished
    changes = ["name=wider", "axes.cdm.enabled=[true]", "axes.bst.enabled=[false]",
               "axes.train.lr=[0.002, 0.01]"]  # fmt: skip
    command = ["sweep", "tiny.yaml", *(word for change in changes for word in ("--set", change))]
    plan = diffgap(*command, "--dry-run", cwd=place)
    assert "1 of 2 trials to run" in plan.stdout
    done = diffgap(*command, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "1 of 2 trials to run" in done.stdout
    assert len([r for r in runs_of(place, "wider") if r.data.tags["diffgap.kind"] == "trial"]) == 2


def test_a_report_needs_no_cluster_and_can_be_markdown(finished):
    place, _ = finished
    shown = diffgap("report", "tiny", "--format", "md", "--out", "table.md", cwd=place)
    assert shown.returncode == 0, shown.stderr
    text = (place / "table.md").read_text()
    assert "| frozen embeddings | 1 |" in text
    assert "Holm-corrected" in text
    unknown = diffgap("report", "tinny", cwd=place)
    assert unknown.returncode == 2
    assert "did you mean tiny?" in unknown.stderr


def test_trials_that_differ_in_their_score_share_one_training(tmp_path, small_store):
    write_spec(tmp_path / "tiny.yaml", small_store)
    sets = ["axes={score.kind: [bridge, rerank], score.top_k: [2, 5]}",
            "report.tables=[axes]"]  # fmt: skip
    words = [word for change in sets for word in ("--set", change)]
    plan = diffgap("sweep", "tiny.yaml", *words, "--dry-run", cwd=tmp_path)
    assert "1 training; the other trials evaluate the same weights" in plan.stdout
    assert "3 of 3 trials to run" in plan.stdout  # top_k is the re-rank's alone
    done = diffgap("sweep", "tiny.yaml", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 8/8") == 1
    assert "score rerank, score.top_k 5" in done.stdout
    weights = {
        path.read_bytes() for path in (tmp_path / "runs").glob("trials/*/bridge/bridge.safetensors")
    }
    assert len(weights) == 1


def test_a_cluster_that_is_not_there_is_told_at_once(tmp_path, small_store):
    write_spec(tmp_path / "tiny.yaml", small_store)
    done = diffgap("sweep", "tiny.yaml", "--address", "127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 2
    assert "error: Ray at 127.0.0.1:1 cannot be used" in done.stderr
    assert "is its head up, and is --address right?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.fault
def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path, small_store):
    """SIGTERM, as batch systems send it, in the middle of a trial; then the same command, and no
    point is logged twice. For Ctrl-C, once and twice, see tests/faults."""
    write_spec(tmp_path / "tiny.yaml", small_store, steps=80)
    command = [COMMAND, "sweep", "tiny.yaml", "--set", "axes={}"]
    first = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = ""
    for line in first.stdout:
        said += line
        if "step 12/" in line:
            first.send_signal(signal.SIGTERM)
            break
    rest = first.communicate(timeout=60)[0]
    assert first.returncode == 130, said + rest
    assert "1 trial: interrupted; the same command continues" in rest
    runs = {run.data.tags["diffgap.kind"]: run for run in runs_of(tmp_path)}
    assert {kind: run.info.status for kind, run in runs.items()} == {
        "sweep": "KILLED", "trial": "KILLED",
    }  # fmt: skip

    second = diffgap("sweep", "tiny.yaml", "--set", "axes={}", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "step 4/80" not in second.stdout
    runs = {run.data.tags["diffgap.kind"]: run for run in runs_of(tmp_path)}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    history = client(tmp_path).get_metric_history(runs["trial"].info.run_id, "train/loss")
    assert [point.step for point in history] == list(range(1, 81))

    (record,) = (tmp_path / "runs" / "trials").iterdir()
    alone = diffgap("train", "tiny.yaml", "--set", "axes={}", "--output", "alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    (other,) = (tmp_path / "alone" / "trials").iterdir()
    metrics = [
        json.loads((path / "bridge" / "metrics.json").read_text()) for path in (record, other)
    ]
    seconds = [figures.pop("cost/train_seconds") for figures in metrics]
    assert metrics[0] == metrics[1]
    assert min(seconds) > 0


@pytest.mark.fault
def test_failed_trials_are_told_and_the_others_still_shown(tmp_path, small_store):
    write_spec(tmp_path / "tiny.yaml", small_store)
    changes = ["axes.cdm.enabled=[true]", "axes.bst.enabled=[true]",
               "axes.loss.condition_noise=[0.5, 1.0e+30]"]  # fmt: skip
    sets = [word for change in changes for word in ("--set", change)]
    done = diffgap("sweep", "tiny.yaml", *sets, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "step 0: the loss is" in done.stderr
    assert "loss.condition_noise 1e+30 drowns the conditions" in done.stderr
    table = diffgap("report", "tiny", "--format", "md", cwd=tmp_path).stdout
    assert "| CDM + BST (cdm on, bst on, loss.condition_noise 0.5) | 1 |" in table
    assert "| CDM + BST (cdm on, bst on, loss.condition_noise 1e+30) | 0 of 1 |" in table
    assert sorted(run.info.status for run in runs_of(tmp_path)) == ["FAILED", "FAILED", "FINISHED"]
    assert done.stdout.count("started") == 2  # a training that diverges is not tried again
