"""A sweep to do harm to, and what it comes to when nobody does."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

COMMAND = str(Path(sys.executable).parent / "diffgap")
MARK = "DIFFGAP_TEST"
"""The environment variable by which all processes of a test are found."""

STEPS, EPOCH = 48, 2

SPEC = """\
name: {name}
store: {store}
trial:
  denoiser: {{width: 32, blocks: 2}}
  train: {{steps: 48, batch_size: 32, epoch_steps: 2}}
  score: {{top_k: 5}}
axes:
  cdm.enabled: {cdm}
  bst.enabled: [true]
"""

TWO, ONE = "two", "one"
CELLS = {TWO: "[false, true]", ONE: "[true]"}
"""Sweeps of two trials, and of the second alone where one is enough: most of the time goes into
starting processes."""

MIDDLE = r"cdm on, bst on, seed 0: step 10/48"


class Sweep:
    """A place with a spec, and the command that runs it there."""

    def __init__(self, place: Path, store: Path, name: str, spec: str = SPEC):
        self.place, self.mark, self.store = place, uuid.uuid4().hex, store
        self.command = [COMMAND]
        self.environment = {
            **{
                name: v for name, v in os.environ.items() if not name.startswith(("RAY_", "MLFLOW"))
            },
            "OMP_NUM_THREADS": "1",
            MARK: self.mark,
        }
        self.ask_for(name, spec)

    def ask_for(self, name, spec=SPEC):
        """Writes the spec."""
        self.name = name
        text = spec.format(store=self.store, name=name, cdm=CELLS.get(name))
        (self.place / "spec.yaml").write_text(text)

    def start(self, *arguments):
        """Starts the sweep; what it says comes in by `wait_for` and `finish`."""
        self.process = subprocess.Popen(
            [*self.command, "sweep", "spec.yaml", *arguments], cwd=self.place, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self):
        for line in self.process.stdout:
            self.said += line

    def wait_for(self, pattern, timeout=90):
        """Waits until the sweep has said something."""
        until = time.monotonic() + timeout
        while not re.search(pattern, self.said):
            assert time.monotonic() < until, f"no {pattern!r} in:\n{self.said}"
            assert self._reader.is_alive(), f"it ended before {pattern!r}:\n{self.said}"
            time.sleep(0.05)

    def finish(self, timeout=180):
        """Waits for the end; returns the exit status."""
        status = self.process.wait(timeout)
        self._reader.join(10)
        return status

    def run(self, *arguments, timeout=180):
        """Runs the sweep to its end; returns the exit status."""
        return self.start(*arguments).finish(timeout)

    def report(self):
        """The sweep's tables, but for the seconds that its trials took."""
        done = subprocess.run(
            [COMMAND, "report", self.name, "--format", "md"], cwd=self.place, env=self.environment,
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        tables = done.stdout.partition("**Cost on")[0]  # a search has none
        return tables.replace(str(self.store), "STORE")

    def processes(self, title=""):
        """Processes of this test whose command line holds a word."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self.mark and title in " ".join(
                    process.cmdline()
                ):
                    found.append(process)
        return found

    def kill(self, title, timeout=30):
        """Kills one process whose command line holds a word; returns its id."""
        until = time.monotonic() + timeout
        while not (found := self.processes(title)):
            assert time.monotonic() < until, f"no process {title}"
            time.sleep(0.1)
        found[0].kill()
        return found[0].pid

    def wait_until_alone(self, timeout=20):
        """Waits until no process of the test is left."""
        until = time.monotonic() + timeout
        while left := self.processes():
            assert time.monotonic() < until, [process.cmdline() for process in left]
            time.sleep(0.2)

    def runs(self, uri=None):
        client = MlflowClient(uri or f"sqlite:///{self.place}/runs/mlflow.db")
        experiment = client.get_experiment_by_name(self.name)
        return client, client.search_runs([experiment.experiment_id])

    def log_of(self, label):
        """What the processes of a trial have said."""
        (run,) = [run for run in self.runs()[1] if run.info.run_name == label]
        signature = run.data.tags["diffgap.signature"]
        return (self.place / "runs/trials" / signature / "log.txt").read_text()


def sweep_of(name, place, store):
    """A sweep whose processes are ended with the test."""
    made = Sweep(place, store, name)
    yield made
    for process in made.processes():
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)


@pytest.fixture
def sweep(tmp_path, small_store):
    """A sweep of two trials."""
    yield from sweep_of(TWO, tmp_path, small_store)


@pytest.fixture
def single(tmp_path, small_store):
    """A sweep of one trial."""
    yield from sweep_of(ONE, tmp_path, small_store)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, small_store):
    """The reports of both sweeps when nobody does harm to them, by name."""
    made = Sweep(tmp_path_factory.mktemp("undisturbed"), small_store, TWO)
    assert made.run() == 0, made.said
    assert_whole(made)
    reports = {TWO: made.report()}
    made.ask_for(ONE)
    assert made.run() == 0, made.said  # its trial is finished: nothing is trained
    return {**reports, ONE: made.report()}


def assert_healed(sweep, undisturbed, uri=None):
    """The sweep is finished, as if nothing had happened, and nothing is left of it."""
    assert sweep.report() == undisturbed[sweep.name]
    assert_whole(sweep, uri)
    sweep.wait_until_alone()


def assert_whole(sweep, uri=None):
    """MLflow has every point of every trial, once, and no run is left open."""
    client, runs = sweep.runs(uri)
    assert {run.info.status for run in runs} == {"FINISHED"}, [
        (run.info.run_name, run.info.status) for run in runs
    ]
    trained = [run for run in runs if "train.steps" in run.data.params]
    assert trained
    for run in trained:
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")]
        assert steps == list(range(1, STEPS + 1))
        val = client.get_metric_history(run.info.run_id, "val/text_to_audio/R5")
        assert [m.step for m in val] == list(range(EPOCH, STEPS + 1, EPOCH))
        assert len(client.get_metric_history(run.info.run_id, "test/text_to_audio/R5")) == 1
        files = {f.path for f in client.list_artifacts(run.info.run_id, "bridge")}
        assert "bridge/bridge.safetensors" in files
    assert not list((sweep.place / "runs/trials").glob("*/checkpoints"))
    assert not list((sweep.place / "runs/running").glob("*.json"))
