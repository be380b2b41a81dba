"""The `diffgap` command as a process: how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffgap.store.importing import import_store

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


TABLES = """
import sys

from diffgap.io.streams import prepare_streams

prepare_streams()
from diffgap.cli.main import main

for words in {commands!r}:
    try:
        main(words)
    except SystemExit as end:
        print(words[0], end.code, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Commands that print tables of a store whose name is not ASCII."""
    rng = np.random.default_rng(0)
    place = tmp_path_factory.mktemp("tables")
    audio = rng.normal(size=(40, 16))
    np.savez(place / "a.npz", audio=audio, text=audio, split=["train", "val", "test", "test"] * 10)
    store = str(place / "caf\u00e9")
    import_store(place / "a.npz", Path(store))
    text = f"name: s\nstore: {store}\naxes: {{cdm.enabled: [true, false]}}\n"
    (place / "s.yaml").write_text(text)
    return {
        "sweep": [
            "sweep",
            str(place / "s.yaml"),
            "--dry-run",
            "--output",
            str(place / "caf\u00e9-runs"),
        ],
        "status": ["status", "--output", str(place / "caf\u00e9-runs")],
        "evaluate": ["evaluate", "--baseline", "--store", store],
    }


def run_tables(commands, shell="", **environment):
    """The lines of commands' tables, and on standard error, under a redirection of the shell."""
    script = TABLES.format(commands=list(commands))
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {shell}', sys.executable, script],
        capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_an_output_that_is_ascii_has_every_table_spelled_out(commands):
    printed, said = run_tables(commands.values(), PYTHONIOENCODING="ascii")
    assert said == ["sweep 0", "status 0", "evaluate 0"]
    assert all(map(str.isascii, printed))
    assert any("caf\\xe9" in line for line in printed)
    scores = printed.index(next(line for line in printed if line.startswith("Retrieval on")))
    rows = [line for line in printed[scores:] if line.startswith(("|", "+--"))]
    assert any("100.0 +- " in row for row in rows)
    assert len(set(map(len, rows))) == 1  # columns stand below each other


@pytest.mark.parametrize(
    ("redirection", "lines"),
    [
        (">&-", ["sweep 0", "status 0"]),  # closed
        ("<&- >&- 2>&-", []),
        ("| true", ["sweep 141", "status 141"]),  # like `| head -1`, and sooner
        (
            "> /dev/full",
            [
                "error: standard output: No space left on device; make room there, or give "
                "another place", "sweep 2",
            ] * 2,
        ),
    ],
    ids=["closed", "all closed", "reader gone", "full"],
)  # fmt: skip
def test_an_output_that_takes_nothing_is_no_traceback(commands, redirection, lines):
    words = [commands["sweep"], commands["status"]]
    _, said = run_tables(words, redirection)
    assert [line.replace("status 2", "sweep 2") for line in said] == lines


def test_hours_of_work_outlive_their_output():
    script = """
import sys

from diffgap.io.streams import outlive_output, prepare_streams

prepare_streams()
outlive_output()
for _ in range(3):
    print("a line", flush=True)
print("done", file=sys.stderr)
"""
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" > /dev/full', sys.executable, script],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, last = done.stderr.splitlines()
    assert first.startswith("standard output: No space left on device")
    assert "the work goes on" in first
    assert last == "done"
