"""Where the errors of every command end: a line each on standard error, and an exit status.

0 all is done, 1 the work failed, 2 the request or a place was refused, 130 interrupted.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import click

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

    def invoke(self, context: click.Context) -> Any:
        try:
            result = super().invoke(context)
            sys.stdout.flush()  # while a full disk behind it can still be told
        except UserError as error:
            show_problems(*error.problems)
            context.exit(REFUSED)
        except BrokenPipeError:
            context.exit(NOBODY_READS)  # such as `| head -1`, which has what it wants
        except OSError as error:
            show_problems(place_problem(error))
            context.exit(REFUSED if is_refused(error) else FAILED)
        except click.ClickException as error:
            # It repeats words of the command line, such as the names of files, and URIs.
            vars(error)["message"] = redact(printable(error.message))
            raise
        except KeyboardInterrupt:
            is_resumable = context.invoked_subcommand in RESUMABLE
            hint = "; run the same command again to resume" if is_resumable else ""
            echo(f"interrupted{hint}", err=True)
            context.exit(INTERRUPTED)
        return result


def show_problems(*problems: str) -> None:
    """Prints errors, a line each."""
    for problem in problems:
        with suppress(OSError):  # the status still says that there was one
            echo(f"error: {redact(problem)}", err=True)


def echo(text: str, err: bool = False, nl: bool = True) -> None:
    """Prints text of whatever origin, without what could control a terminal."""
    click.echo(printable(text), err=err, nl=nl)
