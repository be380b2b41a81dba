"""The command line: each command parses its arguments, calls one function, and prints.

Nothing heavy is imported before a command needs it, so that help is instant.
"""

from __future__ import annotations

from typing import Any

import click

from diffgap import __version__
from diffgap.cli.bridge import BRIDGE_COMMANDS
from diffgap.cli.data import DATA_COMMANDS
from diffgap.cli.generate import generate
from diffgap.cli.report import report
from diffgap.cli.status import STATUS_COMMANDS
from diffgap.cli.submit import submit
from diffgap.cli.sweep import sweep, train, ui
from diffgap.errors import UserError


class ErrorReportingGroup(click.Group):
    """Turns a UserError of any command into one line a mistake and exit status 2."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except UserError as error:
            for problem in error.problems:
                click.echo(f"error: {problem}", err=True)
            context.exit(2)
        except KeyboardInterrupt:
            click.echo("interrupted; run the same command again to resume", err=True)
            context.exit(130)  # 128 + SIGINT, as shells report it


@click.group(
    cls=ErrorReportingGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: diffgap sweep sweeps/ablation.yaml",
)
@click.version_option(__version__)
def main() -> None:
    """Train, ablate and compare bridges over the modality gap of frozen embeddings."""


main.add_command(report, "summary")  # the name of an earlier version
COMMANDS = (sweep, train, ui, report, submit, generate)
for command in (*COMMANDS, *DATA_COMMANDS, *BRIDGE_COMMANDS, *STATUS_COMMANDS):
    main.add_command(command)
