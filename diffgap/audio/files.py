"""Audio files: 16 bits, written whole or not at all."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

from diffgap.errors import UserError
from diffgap.io.atomic import write_bytes

FORMATS = {".wav": "WAV", ".flac": "FLAC"}
"""By suffix."""


def format_problem(path: Path) -> str | None:
    """Why audio cannot be written to a path; None where its suffix is a known format."""
    if path.suffix.lower() in FORMATS:
        return None
    return f"{path} ends in {path.suffix or 'nothing'}; use {' or '.join(FORMATS)}"


def write_audio(path: Path, samples: np.ndarray, rate: int) -> None:
    """Writes mono audio in 16 bits, in the format of the suffix.

    Args:
        path: of a suffix in `FORMATS`; its directory is created if it is missing.
        samples: (S,) float32 in [-1, 1].
        rate: in Hz.

    Raises:
        UserError: where the disk is full, or the path cannot be written to; then there is no file.
    """
    content = BytesIO()  # soundfile writes in place: a full disk would leave half a file
    kind = FORMATS[path.suffix.lower()]
    soundfile.write(content, samples, rate, format=kind, subtype="PCM_16")
    try:
        write_bytes(path, content.getvalue())
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written: {error.strerror}; make room, or give another path"
        ) from None
