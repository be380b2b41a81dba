"""Text that leaves the package: it says what it says, and does nothing.

Captions, ids, names of files and corpora come from others. Control characters in them could move a
terminal's cursor, set its title or fake a line; those that turn the direction of writing make a
name look like another. A spreadsheet takes a cell that begins with = for a formula, Markdown takes
<script> for HTML.
"""

from __future__ import annotations

import re

UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tabs and ends of lines, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of writing
    "\u2028\u2029\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # invisible
    "\ud800-\udfff]"  # bytes of a file's name that are no text
)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""What programs colour their logs with."""

FORMULA = re.compile(r"\s*[=+\-@\t\uff1d\uff0b\uff0d\uff20]")
"""How a cell begins that a spreadsheet computes; the last four are wide forms of the others."""

MARKDOWN = re.compile(r"[\\`*\[\]<&|~]|\b_|_\b|(?<!\w)_(?!\w)")


def printable(text: str) -> str:
    """The text with a visible sign in place of each control character; lines stay lines.

    One sign a character, so that positions in the text stay what they are.
    """
    return UNPRINTABLE.sub(_sign, text)


def one_line(text: str) -> str:
    """`printable`, with ends of lines and tabs as spaces: for a cell, a title, a line of a log."""
    return printable(re.sub(r"\r\n|[\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", " ", text))


def log_text(text: str) -> str:
    """`printable`, without the colours of logs."""
    return printable(COLOUR.sub("", text))


def csv_cell(text: str) -> str:
    """A cell that spreadsheets take for text: behind a ' where they would compute it.

    Numbers stay numbers.
    """
    text = printable(text)
    return f"'{text}" if FORMULA.match(text) and not _is_number(text) else text


def markdown(text: str) -> str:
    """Markdown that shows a text as it is, on one line."""
    return MARKDOWN.sub(r"\\\g<0>", one_line(text))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the picture of the control character, such as ␛
    return "\u2421" if code == 0x7F else "\ufffd"
