"""The folder of a local Ray: short, private, and gone with it."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from diffgap.cluster.connect import cluster
from diffgap.cluster.guard import (
    BELOW_BYTES,
    PREFIX,
    SOCKET,
    SOCKET_BYTES,
    VARIABLE,
    RayGuard,
)
from diffgap.errors import UserError


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A TMPDIR that is too long for a socket, and the short folder of another."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    long = tmp_path / "slurm_job_directory" / ("x" * 80)
    long.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="dg") as short:
        yield long, Path(short)


def test_a_long_tmpdir_is_left_for_a_short_folder(places, monkeypatch):
    long, short = places
    monkeypatch.setattr("diffgap.cluster.guard.SHORT_PARENTS", (str(long), str(short)))
    with RayGuard() as guard:
        assert Path(guard.mark).parent == short
        assert Path(guard.mark).stat().st_mode & 0o777 == 0o700
        assert os.environ[VARIABLE] == guard.mark
        socket = Path(guard.mark) / SOCKET
        assert len(os.fsencode(socket)) <= SOCKET_BYTES
        socket.parent.mkdir(parents=True)
    assert not list(short.iterdir())


def test_where_no_folder_is_short_enough_the_remedy_is_told(places, monkeypatch):
    long, short = places
    monkeypatch.setattr("diffgap.cluster.guard.SHORT_PARENTS", ())
    with pytest.raises(UserError, match=r"TMPDIR: .*; set RAY_TMPDIR to one, such as /tmp"):
        RayGuard()
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    monkeypatch.setattr("diffgap.cluster.guard.SHORT_PARENTS", (str(short),))
    with pytest.raises(UserError, match="RAY_TMPDIR: "):
        RayGuard()
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    with RayGuard() as guard:
        assert Path(guard.mark).parent == short


def test_the_bytes_that_ray_adds_are_counted():
    assert len("/tmp") <= SOCKET_BYTES - BELOW_BYTES < len("/tmp") + 30


KILLED = """\
import os, signal, subprocess, sys
from diffgap.cluster.guard import RayGuard
with RayGuard() as guard:
    print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_folder_and_processes_end_with_a_command_that_is_killed(places, monkeypatch):
    _, short = places
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    done = subprocess.run([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    until = time.monotonic() + 30
    while Path(f"/proc/{done.stdout.strip()}").exists() or list(short.glob(f"{PREFIX}*")):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_logs_are_kept_where_ray_could_not_start(places, monkeypatch):
    def fail(_temp_dir, **_):
        logs = Path(_temp_dir) / "session_latest/logs"
        logs.mkdir(parents=True, exist_ok=True)  # Ray is started twice
        (logs / "raylet.err").write_text("no room")
        raise RuntimeError("The current node timed out during startup.")

    _, short = places
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", fail)
    with (
        pytest.raises(UserError, match=r"timed out during startup.*; its logs: (\S+)") as error,
        cluster(None),
    ):
        pytest.fail("it seems to have started")
    logs = Path(error.value.problems[0].rpartition(" ")[2])
    assert (logs / "raylet.err").read_text() == "no room"
