"""The `diffgap` command as a process: how it ends."""

import subprocess
import sys

import pytest

COMMAND = """
import atexit, sys, threading, time
import diffgap.__main__ as command, diffgap.cli.main

def late():
    time.sleep(0.3)
    print("a thread has ended")

def main():
    threading.Thread(target=late).start()
    atexit.register(print, "exit handlers have run")
    {end}

diffgap.cli.main.main = main
command.run()
"""


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("pass", 0),
        ("sys.exit()", 0),
        ("sys.exit(130)", 130),
        ("sys.exit('a reason')", 1),
        ("raise RuntimeError('a bug')", 1),
    ],
)
def test_threads_and_exit_handlers_come_to_their_ends(end, status):
    script = COMMAND.format(end=end)
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.returncode == status
    assert done.stdout.splitlines() == ["a thread has ended", "exit handlers have run"]
    assert ("RuntimeError: a bug" in done.stderr) == ("bug" in end)
    assert ("a reason" in done.stderr) == ("reason" in end)
