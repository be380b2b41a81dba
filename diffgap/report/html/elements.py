"""Small parts of the page: lists, and texts whose addresses can be opened."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

LINK = re.compile(r"https?://[^\s<>\"')]+|arXiv[: ](\d{4}\.\d{4,5})")
"""What can be opened in a source: an address, or a paper on arXiv."""


def html_list(items: Iterable[str], kind: str) -> str:
    """A list of HTML items, of a class of the style sheet; nothing where there is no item."""
    lines = "".join(f"<li>{item}</li>" for item in items)
    return f'<ul class="{kind}">{lines}</ul>' if lines else ""


def linked(text: str) -> str:
    """Escaped text whose addresses and arXiv numbers can be opened."""
    parts, end = [], 0
    for match in LINK.finditer(text):
        address = f"https://arxiv.org/abs/{match[1]}" if match[1] else match[0]
        link = f'<a href="{escape(address)}" rel="noreferrer">{escape(match[0])}</a>'
        parts += [escape(text[end : match.start()]), link]
        end = match.end()
    return "".join(parts) + escape(text[end:])
