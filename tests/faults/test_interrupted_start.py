"""A sweep in a new output that ends in its first seconds: the same command makes the same table.

``DIFFGAP_INTERRUPTS=20 pytest tests/faults/test_interrupted_start.py`` interrupts it 20 times.
"""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import Sweep

from diffgap.tracking.writer import RunWriter

pytestmark = [pytest.mark.fault, pytest.mark.slow]

SPEC = """\
name: {name}
store: {store}
trial: {{score: {{top_k: 5}}}}
axes: {{method: [none, mean_shift]}}
"""
"""Trials that train nothing, so that most of the time goes into the start."""

SEED = 20
MOMENTS = int(os.environ.get("DIFFGAP_INTERRUPTS", "6"))
FIRST_S = 5.0  # of a sweep
MIGRATION_S = 3.0  # roughly how long MLflow's tables take to be made

MIGRATE = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1])"


def moments():
    """Signals, each with what it waits for and for how long after that."""
    dice = random.Random(SEED)
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    for number in range(MOMENTS):
        from_start = number % 2 == 0
        delay = dice.uniform(0, FIRST_S if from_start else MIGRATION_S)
        yield signals[number % 3], "start" if from_start else "database", round(delay, 2)


@pytest.fixture(scope="module", autouse=True)
def heeded_interrupts():
    """Lets sweeps heed Ctrl-C also where the tests run behind a shell's ``&``, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory, small_store):
    """Makes sweeps in new places; what is left of them is killed at the end."""
    started = []

    def make(name="two"):
        started.append(Sweep(tmp_path_factory.mktemp("start"), small_store, name, SPEC))
        return started[-1]

    yield make
    for sweep in started:
        for process in sweep.processes():
            process.kill()


@pytest.fixture(scope="module")
def undisturbed(sweeps):
    sweep = sweeps()
    assert sweep.run() == 0, sweep.said
    return table(sweep)


def table(sweep):
    """The rows of the table that a sweep has printed."""
    return [line for line in sweep.said.splitlines() if line.count("±") > 1]


def wait_for_database(sweep):
    """Waits until MLflow's database appears, under whatever name."""
    deadline = time.monotonic() + 120
    while not list((sweep.place / "runs").glob("*mlflow*.db")):
        assert time.monotonic() < deadline, sweep.said
        assert sweep.process.poll() is None, sweep.said
        time.sleep(0.01)


def interrupt(sweep, kind):
    """Ends a sweep: Ctrl-C reaches its whole group, as a terminal sends it."""
    if kind == signal.SIGINT:
        os.killpg(sweep.process.pid, kind)
    else:
        sweep.process.send_signal(kind)
    sweep.finish(120)


@pytest.mark.parametrize(("kind", "since", "delay"), moments())
def test_the_same_command_makes_the_same_table(kind, since, delay, sweeps, undisturbed):
    sweep = sweeps().start()
    if since == "database":
        wait_for_database(sweep)
    time.sleep(delay)
    interrupt(sweep, kind)
    assert "Traceback" not in sweep.said
    assert sweep.run() == 0, sweep.said
    assert table(sweep) == undisturbed
    assert {run.info.status for run in sweep.runs()[1]} == {"FINISHED"}
    assert not list((sweep.place / "runs").glob(".mlflow.????????.db*"))


def test_two_sweeps_that_start_together_in_a_new_output_both_finish(sweeps):
    first, second = sweeps("one"), sweeps("two")
    first.ask_for("one", SPEC.replace("none, ", ""))
    second.ask_for("two", SPEC.replace(", mean_shift", ""))
    for sweep in (first, second):
        sweep.start("--output", str(first.place / "runs"))
    assert (first.finish(), second.finish()) == (0, 0), first.said + second.said
    assert ["mean shift" in row for row in table(first)] == [True]
    assert ["frozen embeddings" in row for row in table(second)] == [True]


def test_a_database_that_mlflow_left_half_made_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = tmp_path / "runs" / "mlflow.db"
    path.parent.mkdir()
    process = subprocess.Popen([sys.executable, "-c", MIGRATE, f"sqlite:///{path}"])
    deadline = time.monotonic() + 120
    while not path.is_file() or path.stat().st_size < 40_000:  # of nearly a million
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < deadline
    process.kill()
    process.wait()
    (path.parent / ".mlflow.0123abcd.db").write_bytes(b"half of an earlier attempt")
    writer = RunWriter(tmp_path / "runs", "s", "this ledger", {})
    run = writer.start("a" * 12, "seed 0", {})
    assert writer.client.get_run(run).info.status == "RUNNING"
    assert sorted(file.name for file in path.parent.iterdir()) == ["mlflow.db"]
