"""Options, console and progress bars shared by the commands."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffgap.errors import UserError
from diffgap.io.paths import StoragePath, parse_path

if TYPE_CHECKING:
    from rich.console import Console

    from diffgap.store.store import EmbeddingStore


def in_job() -> bool:
    """Whether this process is a job of a Ray cluster."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def default_output() -> str:
    """DIFFGAP_OUTPUT, else `runs` here, or in a job below the home directory."""
    if output := os.environ.get("DIFFGAP_OUTPUT"):
        return output
    # Ray deletes a job's working directory when the job ends.
    return str(Path.home() / "diffgap" / "runs") if in_job() else "runs"


class OutputType(click.ParamType):
    """A directory, or its URI on a shared file system or an object store."""

    name = "dir|uri"

    def convert(self, value: Any, param: Any, context: Any) -> StoragePath:
        if not isinstance(value, str):
            return value
        try:
            path = parse_path(value)
        except UserError as error:
            self.fail(str(error), param, context)
        if isinstance(path, Path) and in_job() and not path.is_absolute():
            self.fail(
                f"{value} would be in the job's copy of the working directory, which Ray deletes; "
                "give an absolute path, or a URI such as s3://BUCKET/DIR"
            )
        if isinstance(path, Path) and path.is_file():
            self.fail(f"{value} is a file; give a directory", param, context)
        return path


OUTPUT = click.option(
    "--output",
    type=OutputType(),
    default=default_output,
    show_default="DIFFGAP_OUTPUT, else runs; in a job ~/diffgap/runs",
    help="Directory of trials, sweeps and the MLflow database; on a cluster file:///SHARED/DIR or "
    "s3://BUCKET/DIR.",
)
SETS = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a field of SPEC, as in --set trial.train.steps=100. Repeatable.",
)
ADDRESS = click.option(
    "--address", help="Ray cluster to join, such as auto; default RAY_ADDRESS, else a local Ray."
)
ROOT = click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of the corpus: its lists, and its clips in any subdirectory.",
)


class Percentage(click.ParamType):
    """A share such as 1% or 0.01, as a number from 0 to 1."""

    name = "share"

    def convert(self, value: Any, param: Any, context: Any) -> float:
        text = str(value)
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is not a share; give one such as 1% or 0.01", param, context)
        return share


class FiniteRange(click.FloatRange):
    """A number within a range; click's own takes nan for one, and inf where there is no end."""

    def convert(self, value: Any, param: Any, context: Any) -> float:
        number = float(super().convert(value, param, context))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, context)
        return number


def make_console(stderr: bool = False, outlives_output: bool = False) -> Console:
    """A console as wide as the terminal that prints text as it is, [brackets] included.

    With `outlives_output` the work goes on where a pipe is closed, or a disk full, behind it.
    """
    from diffgap.io.console import PlainConsole
    from diffgap.io.streams import outlive_output

    if outlives_output:
        outlive_output()
    # This very stream: progress displays redirect sys.stdout later.
    console = PlainConsole(file=sys.stderr if stderr else sys.stdout)
    if not console.is_terminal:
        console.width = 120  # columns of a file or a pipe
    return console


def progress_bar(
    console: Console, title: str, unit: str = "clips"
) -> AbstractContextManager[Callable[[int, int], None]]:
    """A progress bar, imported when it is needed; see `work_bar`."""
    from diffgap.cli.progress import work_bar

    return work_bar(console, title, unit)


def open_known(name: str, console: Console) -> EmbeddingStore:
    """A store by name, path or URI; a built-in one is built first if need be."""
    from diffgap.encoders.builtin import open_store, store_problem

    if problem := store_problem(name):
        raise UserError(problem)
    with progress_bar(console, f"Building the corpus {name} (once)") as advance:
        return open_store(name, advance)
