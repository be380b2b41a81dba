"""MLflow's database of an output directory: whole or made anew, and never a traceback."""

import sqlite3
import time

import pytest

from diffgap.errors import UserError
from diffgap.tracking.client import client_of, tracking_uri
from diffgap.tracking.database import opened
from diffgap.tracking.reader import Reader
from diffgap.tracking.writer import RunWriter


@pytest.fixture(autouse=True)
def own_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_database_that_holds_runs_is_never_replaced(tmp_path):
    writer = RunWriter(tmp_path, "s", "this ledger", {})
    run = writer.start("a" * 12, "seed 0", {})
    with opened(tmp_path / "mlflow.db") as database:  # as of one that MLflow alone has made
        database.execute("PRAGMA user_version = 0")
    assert client_of(tmp_path).get_run(run).info.run_name == "seed 0"


def problem_of(tmp_path):
    with pytest.raises(UserError) as raised:
        Reader(tmp_path / "runs").sweeps()
    (line,) = raised.value.problems
    return line


def test_a_damaged_database_is_told_and_left_as_it_is(tmp_path):
    path = tmp_path / "runs" / "mlflow.db"
    path.parent.mkdir()
    path.write_bytes(b"no database " * 1000)
    line = problem_of(tmp_path)
    assert f"{path} is damaged (file is not a database); move its file away" in line
    assert path.read_bytes() == b"no database " * 1000


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("postgresql://me:hidden@db.example.org/mlflow", "needs the package psycopg"),
        ("mysql+pymysql://me:hidden@db.example.org/mlflow", "run: pip install 'pymysql'"),
        ("postgresql+none://me:hidden@db.example.org/mlflow", "of a kind that MLflow does not"),
        ("ftp://me:hidden@example.org/mlflow", "of a kind that MLflow does not know; set MLFLOW_"),
        ("file:///tmp/mlruns", "is a directory, which MLflow no longer writes to; set MLFLOW_"),
        ("http://me:hidden@127.0.0.1:9", "does not answer: API request"),
        ("sqlite:///{place}", "Is a directory; it is a directory where a file is meant"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_at_once_with_a_remedy(
    uri, words, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(place=tmp_path))
    start = time.monotonic()
    line = problem_of(tmp_path)
    assert words in line
    assert "hidden" not in line
    assert time.monotonic() - start < 30  # MLflow's own ten attempts take 100 s


def test_a_database_of_another_mlflow_is_told_with_the_command_that_updates_it(tmp_path):
    RunWriter(tmp_path / "made", "s", "this ledger", {})
    (tmp_path / "made").rename(tmp_path / "runs")  # for MLflow remembers those that it has opened
    with opened(tmp_path / "runs" / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    line = problem_of(tmp_path)
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert f"is of another version of MLflow; back it up, then run: mlflow db upgrade {uri}" in line


def test_a_deleted_experiment_is_told_to_be_in_the_trash(tmp_path):
    writer = RunWriter(tmp_path, "s", "this ledger", {})
    writer.client.delete_experiment(writer.experiment)
    remedy = f"mlflow experiments restore -x {writer.experiment}, "
    for attempt in (
        lambda: RunWriter(tmp_path, "s", "this ledger", {}),
        lambda: Reader(tmp_path).sweep("s"),
    ):
        with pytest.raises(UserError, match="the experiment 's' is in the trash of MLflow") as told:
            attempt()
        assert remedy in str(told.value)
    writer.client.restore_experiment(writer.experiment)  # as that command does
    assert RunWriter(tmp_path, "s", "this ledger", {}).parent == writer.parent


@pytest.mark.parametrize("name", ["feature%2Fgap", "what?", "a%3Fb"])
def test_an_output_that_a_database_uri_cannot_name_is_refused(name, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="give an output without them, or set MLFLOW_TRACKING_URI"):
        tracking_uri(tmp_path / name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking_uri(tmp_path / name) == "http://mlflow:5000"


def test_other_odd_names_of_outputs_keep_database_and_artifacts_inside(tmp_path):
    output = tmp_path / "100% my #1 'best' run: é, a+b"
    writer = RunWriter(output, "s", "this ledger", {})
    writer.describe({"name": "s"})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [output.name]
    (file,) = output.glob("mlartifacts/s/*/artifacts/sweep.json")
    assert Reader(output).download_artifact(writer.parent, "sweep.json") == file
    with sqlite3.connect(output / "mlflow.db") as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (1,)
