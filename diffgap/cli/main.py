"""The command line: each command parses its arguments, calls one function, and prints.

Nothing heavy is imported before a command needs it, so that help is instant.
"""

from __future__ import annotations

import click

from diffgap import __version__
from diffgap.cli.boundary import CommandGroup
from diffgap.cli.bridge import BRIDGE_COMMANDS
from diffgap.cli.data import DATA_COMMANDS
from diffgap.cli.generate import generate
from diffgap.cli.report import report
from diffgap.cli.status import STATUS_COMMANDS
from diffgap.cli.submit import submit
from diffgap.cli.sweep import sweep, train, ui


@click.group(
    cls=CommandGroup,
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
