"""MLflow that does not answer for a while: trials go on, and all is told in the end."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest
from conftest import MARK, MIDDLE, assert_healed

pytestmark = [pytest.mark.fault, pytest.mark.slow]


def test_a_database_locked_for_twenty_seconds(single, undisturbed):
    single.start().wait_for(MIDDLE)
    database = sqlite3.connect(single.place / "runs/mlflow.db", timeout=30, isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    time.sleep(20)
    database.execute("ROLLBACK")
    database.close()
    assert single.finish() == 0, single.said
    assert_healed(single, undisturbed)


@contextmanager
def server(place, port, environment):
    """A real tracking server, ready to answer."""
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{place}/server.db", "--workers", "1",
        "--artifacts-destination", str(place / "artifacts"),
    ]  # fmt: skip
    with (place / "server.log").open("a") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True,
            env={**environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )  # fmt: skip
    try:
        until = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                assert time.monotonic() < until, (place / "server.log").read_text()[-2000:]
                time.sleep(0.3)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with its workers
        process.wait()


def test_a_tracking_server_that_goes_away_and_comes_back(single, undisturbed):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    single.environment["MLFLOW_TRACKING_URI"] = uri
    ours = {name: v for name, v in single.environment.items() if name != MARK}
    with server(single.place, port, ours):
        single.start().wait_for(MIDDLE)
    single.wait_for("does not answer")
    with server(single.place, port, ours):
        assert single.finish() == 0, single.said
        assert "answers again" in single.said
        assert_healed(single, undisturbed, uri)
