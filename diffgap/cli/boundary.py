"""Where the errors of every command end: a line each on standard error, and an exit status.

0 all is done, 1 the work failed, 2 the request or a place was refused, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
from click.exceptions import Exit

from diffgap.errors import UserError
from diffgap.io.places import is_refused, place_problem
from diffgap.io.printable import printable
from diffgap.io.redact import redact

FAILED, REFUSED = 1, 2
INTERRUPTED, NOBODY_READS = 130, 141  # 128 + SIGINT and 128 + SIGPIPE, as shells report them
RESUMABLE = ("sweep", "train", "embed")
"""Commands that go on from where they were interrupted."""


class CommandGroup(click.Group):
    """A group whose commands end without a traceback for whatever a user can cause."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        with errors_shown():  # --help and --version print here
            return super().make_context(*arguments, **options)

    def invoke(self, context: click.Context) -> Any:
        with errors_shown(context):
            result = super().invoke(context)
            sys.stdout.flush()  # while a full disk behind it can still be told
            return result


@contextmanager
def errors_shown(context: click.Context | None = None) -> Iterator[None]:
    """Prints the errors of the block and ends the command with their status.

    Raises:
        click.exceptions.Exit: with the status.
    """
    try:
        yield
    except UserError as error:
        show_problems(*error.problems)
        raise Exit(REFUSED) from error
    except BrokenPipeError as error:
        raise Exit(NOBODY_READS) from error  # such as `| head -1`, which has what it wants
    except OSError as error:
        show_problems(place_problem(error))
        raise Exit(REFUSED if is_refused(error) else FAILED) from error
    except click.ClickException as error:
        # It repeats words of the command line, such as the names of files.
        vars(error)["message"] = printable(error.message)
        raise
    except KeyboardInterrupt as error:
        is_resumable = context is not None and context.invoked_subcommand in RESUMABLE
        hint = "; run the same command again to resume" if is_resumable else ""
        show_problems(f"interrupted{hint}", prefix="")
        raise Exit(INTERRUPTED) from error


def show_problems(*problems: str, prefix: str = "error: ") -> None:
    """Prints errors, a line each."""
    for problem in problems:
        with suppress(OSError):  # nobody reads them: the status still says that there were some
            echo(f"{prefix}{redact(problem)}", err=True)


def echo(text: str, err: bool = False, nl: bool = True) -> None:
    """Prints text of whatever origin, without what could control a terminal."""
    click.echo(printable(text), err=err, nl=nl)
