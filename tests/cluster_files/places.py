"""Where the files for clusters are, and which commands they name."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"


def commands(text, indent):
    """The command lines of a text's code, each as words: lines that begin with `indent`.

    Continued lines are one; comments, `&&` and pipes end a command.
    """
    found = []
    for line in text.replace("\\\n" + indent, " ").splitlines():
        code = line.removeprefix(indent).strip()
        if not line.startswith(indent) or not code[:1].islower():  # names of variables, formulas
            continue
        lexer = shlex.shlex(code, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        words = list(lexer)
        while words:
            ends = [at for at, word in enumerate(words) if re.fullmatch(r"[&|;]+", word)]
            end = ends[0] if ends else len(words)
            found.append(words[:end])
            words = words[end + 1 :]
    return [command for command in found if command]


def parse(group, words):
    """Parses a command line with click, without running it.

    Returns the options and arguments of its innermost command; raises a ClickException where they
    do not fit.
    """
    command, context, rest = group, None, words[1:]
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(
            command.make_context(words[0], [], parent=context, resilient_parsing=True), rest
        )
    return command.make_context(name, list(rest)).params
