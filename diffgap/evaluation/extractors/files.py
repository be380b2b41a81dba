"""Files of an extractor's weights."""

from __future__ import annotations

from pathlib import Path

from diffgap.errors import UserError


def weights_file(name: str, weights: str | None, published: str) -> Path:
    """The path of an extractor's weights.

    Raises:
        UserError: where none is given or there is no such file.
    """
    if weights is None:
        raise UserError(f"--extractor: {name} needs its weights; give {name}=PATH, of {published}")
    if not Path(weights).is_file():
        raise UserError(f"--extractor: {name} has no file {weights}; give the path of {published}")
    return Path(weights)
