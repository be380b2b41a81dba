"""What benchmarks share: sweeps run as commands, medians of rounds, tables or JSON.

Machines are shared and noisy: every figure is a ratio within one round, and of several rounds the
median is printed with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
SPEC = ROOT / "sweeps/ablation.yaml"

Row = Mapping[str, object]


def arguments(doc: str | None, rounds: int = 3) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="(default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    return parser


def show(title: str, rows: Iterable[Row], as_json: bool) -> None:
    """Prints rows of equal columns."""
    rows = list(rows)
    if as_json:
        print(json.dumps({"title": title, "rows": rows}, indent=2))
        return
    table = Table(*map(str, rows[0]), title=title, title_justify="left", box=None)
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    Console().print(table)


def spread(values: Iterable[float], digits: int = 2) -> str:
    """A median with the lowest and the highest: ``1.20 (1.10 to 1.35)``."""
    found = sorted(values)
    low, middle, high = (f"{v:.{digits}f}" for v in (found[0], median(found), found[-1]))
    return middle if len(found) == 1 else f"{middle} ({low} to {high})"


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def timed_lines(command: list[str], **environment: str) -> Iterator[tuple[float, str]]:
    """Runs a command to its end; yields its lines with the seconds since its start."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    assert process.stdout
    said = []
    for line in process.stdout:
        said.append(line)
        yield time.perf_counter() - began, line.rstrip()
    if process.wait():
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{''.join(said)}")
    yield time.perf_counter() - began, ""


def sweep_lines(*sets: str, options: Iterable[str] = ()) -> list[tuple[float, str]]:
    """Runs the ablation's spec with overrides, in an output of its own."""
    words = [word for value in sets for word in ("--set", value)]
    with tempfile.TemporaryDirectory(prefix="diffgap-bench-") as output:
        command = [sys.executable, "-m", "diffgap", "sweep", str(SPEC), *words, *options]
        return list(timed_lines([*command, "--output", output]))


def sweep_seconds(*sets: str, options: Iterable[str] = ()) -> float:
    """Wall-clock seconds of such a sweep, from the command to its table."""
    return sweep_lines(*sets, options=options)[-1][0]
