"""Errors for users: every mistake of a request at once, one line each."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

from diffgap.io.redact import redact


class UserError(ValueError):
    """An invalid request; the command line prints its `problems` and exits with status 2.

    Each is one line, naming the field, the value, what is allowed and the remedy. Secrets in them
    are redacted: values are often URIs.
    """

    def __init__(self, *problems: str) -> None:
        assert problems, "a UserError needs at least one problem"
        self.problems = [redact(problem) for problem in problems]
        super().__init__("\n".join(self.problems))


class ClipError(ValueError):
    """One clip that cannot be used; the message is the reason, without the clip's name."""


class MissingClipError(ClipError):
    """One clip whose file is missing."""


def require(module: str, extra: str, purpose: str) -> Any:
    """Imports a module of an optional extra; UserError with the remedy where it is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != module.split(".")[0]:
            raise  # the module is installed, and something that it imports is not
        raise UserError(
            f"{purpose} needs the package {module}, which is not installed; "
            f"install it with: pip install 'diffgap[{extra}]'"
        ) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the most similar known one, or else all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(names)}"
