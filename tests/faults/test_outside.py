"""What others see of a sweep: users of this machine, and machines of its network."""

import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from conftest import COMMAND, Sweep

pytestmark = [pytest.mark.fault, pytest.mark.slow]

SPEC = """\
name: {name}
store: {store}
trial:
  denoiser: {{width: 32, blocks: 2}}
  train: {{steps: 48, batch_size: 32, epoch_steps: 2}}
  score: {{top_k: 5}}
"""

LISTENING = "0A"  # in /proc/net/tcp

KNOCK = """\
import socket, sys
for line in sys.stdin:
    with socket.socket() as probe:
        probe.settimeout(5)
        print(probe.connect_ex((sys.argv[1], int(line))), flush=True)
"""
"""Tries ports of a host, one a line; prints 0 for each that answers."""

OPEN = """\
import socket
with socket.create_server(("0.0.0.0", 0)) as server:
    print(server.getsockname()[1], flush=True)
    input()
"""
"""Listens on every interface, as nothing of a sweep may."""


class Outside:
    """A machine beside that of a command, and another user on the command's machine.

    Args:
        spaces: network namespaces of the command and of the other machine, with their addresses.
        secret: what must stand on no command line.
    """

    def __init__(self, spaces, secret=""):
        (self.inside, self.address), (outside, _) = spaces
        self.secret = secret.encode()
        self.ports = {}
        """The ports that the command has listened on: whether they answered from outside."""
        self.exposed = set()
        """Processes with the secret on their command lines."""
        self._knock = subprocess.Popen(
            ["ip", "netns", "exec", outside, sys.executable, "-c", KNOCK, self.address],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        self._thread.join()
        self._knock.stdin.close()
        self._knock.wait()

    @property
    def answered(self):
        return {port for port, is_open in self.ports.items() if is_open}

    def _watch(self):
        while not self._closing.wait(0.1):
            for port in self.listening() - self.ports.keys():
                self._knock.stdin.write(f"{port}\n")
                self._knock.stdin.flush()
                self.ports[port] = self._knock.stdout.readline() == "0\n"
            if self.secret:
                self._read_command_lines()

    def listening(self):
        """Ports on which anything in the command's network listens."""
        command = ["ip", "netns", "exec", self.inside, "cat", "/proc/net/tcp", "/proc/net/tcp6"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows = [line.split() for line in lines.splitlines()]
        return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTENING}

    def _read_command_lines(self):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if self.secret in path.read_bytes():
                    self.exposed.add(int(path.parent.name))


class Inside(Sweep):
    """A sweep in a network of its own."""

    def __init__(self, place, store, spaces):
        super().__init__(place, store, "inside", SPEC)
        self.command = ["ip", "netns", "exec", spaces[0][0], COMMAND]


def files_with(secret, *folders):
    """Files below the folders that hold a secret."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            with suppress(OSError):  # removed meanwhile, or a socket
                if path.is_file() and secret.encode() in path.read_bytes():
                    found.append(path)
    return found


@pytest.fixture
def tidy():
    """Ends whatever a test leaves in it."""
    with ExitStack() as stack:
        yield stack


def started(tidy, command, **more):
    """A process that ends with the test."""
    process = subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more
    )
    tidy.callback(process.wait)
    tidy.callback(process.kill)
    return process


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sweep_is_closed_to_others(workers, tmp_path, small_store, spaces, tidy):
    """No port answers from another machine, and a key of the environment is shown nowhere."""
    secret = uuid.uuid4().hex
    temporary = Path(tidy.enter_context(tempfile.TemporaryDirectory(dir="/tmp", prefix="dg")))
    sweep = Inside(tmp_path, small_store, spaces)
    sweep.environment |= {
        "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": secret, "DB_PASS": secret,
        "TMPDIR": str(temporary),
    }  # fmt: skip
    tidy.callback(lambda: [process.kill() for process in sweep.processes()])
    # Were the probes blind, these two would not be noticed either.
    server = started(tidy, [*sweep.command[:-1], sys.executable, "-c", OPEN])
    shown = started(tidy, [sys.executable, "-c", "input()", secret])
    opened = int(server.stdout.readline())
    with Outside(spaces, secret) as outside:
        sweep.start(f"--set=resources.workers={workers}").wait_for("step 10/48", timeout=180)
        (folder,) = temporary.glob("dg-ray-*")
        assert folder.stat().st_mode & 0o077 == 0
        assert list(folder.rglob("runtime_env_agent.log"))
        assert not files_with(secret, temporary)
        assert sweep.finish() == 0, sweep.said
    assert len(outside.ports) > 5
    assert outside.answered == {opened}
    assert outside.exposed == {shown.pid}
    assert secret not in sweep.said
    assert not files_with(secret, tmp_path, temporary)
    assert not list(temporary.glob("dg-ray-*"))


def test_pages_of_runs_are_closed_to_others_and_end_with_their_command(tmp_path, spaces, tidy):
    port = "5017"
    within = ["ip", "netns", "exec", spaces[0][0]]
    command = started(tidy, [*within, COMMAND, "ui", "--port", port, "--output", tmp_path])
    with Outside(spaces) as outside:
        until = time.monotonic() + 120
        while int(port) not in outside.ports:
            assert command.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        busy = subprocess.run(
            [*within, COMMAND, "ui", "--port", port], capture_output=True, text=True
        )
        assert busy.returncode == 2
        assert f"--port {port}: Address already in use; give another" in busy.stderr
        assert not outside.answered
        command.send_signal(signal.SIGTERM)
        while outside.listening():
            assert time.monotonic() < until
            time.sleep(0.1)
