"""JSON that every reader takes: no NaN and no infinity, which Python would write as they are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any


def json_text(content: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """The JSON of plain values.

    Raises:
        ValueError: naming the first number that JSON does not have.
    """
    try:
        return json.dumps(content, indent=indent, sort_keys=sort_keys, allow_nan=False)
    except ValueError:
        for key, value in _unwritable(content):
            raise ValueError(f"{key} is {value}, a number that JSON does not have") from None
        raise


def _unwritable(content: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Key and value of each NaN and infinity in plain values."""
    if isinstance(content, float) and not math.isfinite(content):
        yield key or "the value", content
    elif isinstance(content, dict):
        for name, value in content.items():
            yield from _unwritable(value, f"{key}.{name}" if key else str(name))
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from _unwritable(value, f"{key}[{number}]")
