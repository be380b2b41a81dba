"""Standard streams that can be written to, whatever the shell has made of them."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from diffgap.io.places import naming, place_problem

SPELLED = {
    "±": "+-", "–": "-", "—": "--", "−": "-", "×": "x", "·": ".", "…": "...", "→": "->",
    "≤": "<=", "≥": ">=", "≠": "!=", "“": '"', "”": '"', "‘": "'", "’": "'", "✓": "+",
}  # fmt: skip
"""Our own signs for a stream that has ASCII alone; others are written by their numbers."""


class StandardStream(io.TextIOWrapper):
    """A stream that writes any text, and whose errors name it."""

    title = "standard output"
    is_optional = False
    """Whether the work goes on where nobody takes what is printed; see `outlive_output`."""

    def write(self, text: str, /) -> int:
        with self._guarded():
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._guarded():
            super().flush()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with naming(self.title):
                yield
        except OSError as error:
            if not self.is_optional:
                raise
            _connect_to_null(self.fileno())
            with suppress(OSError):
                print(f"{place_problem(error)} (the work goes on without it)", file=sys.stderr)


class StandardError(StandardStream):
    title = "standard error"


def outlive_output() -> None:
    """From now on, what the standard output cannot take is dropped: hours of work go on."""
    if isinstance(sys.stdout, StandardStream):
        sys.stdout.is_optional = True


def prepare_streams() -> None:
    """Opens standard streams that are closed, and lets the others take any character."""
    for number in (0, 1, 2):
        _open_if_closed(number)
    if sys.stdin is None:  # Python's word for a stream that was closed when it started
        sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
    sys.stdout = _prepared(sys.stdout, 1, StandardStream)
    sys.stderr = _prepared(sys.stderr, 2, StandardError)


def _open_if_closed(number: int) -> None:
    """Else the next file that is opened, such as a database, would be the standard output."""
    try:
        os.fstat(number)
    except OSError:
        _connect_to_null(number)


def _connect_to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null == number:
        os.set_inheritable(number, True)  # processes that are started have the same need
        return
    os.dup2(null, number)
    os.close(null)


def _prepared(old: TextIO | None, number: int, kind: type[StandardStream]) -> StandardStream:
    buffer = old.buffer if old else open(number, "wb")  # noqa: SIM115
    encoding = old.encoding if old else "utf-8"
    # Errors are read as they come; so is a terminal.
    by_line = number == 2 or buffer.isatty()
    return kind(buffer, encoding=encoding, errors=SPELLING, line_buffering=by_line)


def _spell(error: UnicodeError) -> tuple[str, int]:
    """A handler of encoding errors."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    spelled = (SPELLED.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text)
    return "".join(spelled), error.end


SPELLING = "diffgap.spelled"
"""Name of the handler, as codecs know it."""
codecs.register_error(SPELLING, _spell)


def spelled(text: str, encoding: str) -> str:
    """The text in an encoding's characters: ± as +-, others that it does not have by number."""
    return text.encode(encoding, SPELLING).decode(encoding)
