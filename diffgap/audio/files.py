"""Audio files: 16 bits, written whole or not at all."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

from diffgap.errors import UserError
from diffgap.io.atomic import write_bytes

FORMATS = {".wav": "WAV", ".flac": "FLAC"}


def format_problem(path: Path) -> str | None:
    """Why audio cannot be written to a path; None where its suffix is a known format."""
    if path.suffix.lower() in FORMATS:
        return None
    return f"{path} ends in {path.suffix or 'nothing'}; use {' or '.join(FORMATS)}"


def write_audio(path: Path, samples: np.ndarray, rate: int, final_path: Path | None = None) -> None:
    """Writes mono (S,) float32 samples in [-1, 1] in 16 bits, in the format of the suffix.

    Errors name `final_path`, if the file is to be moved there.

    Raises:
        UserError: where samples are not finite, the disk is full, or the path cannot be written to;
            then there is no file.
    """
    final_path = final_path or path
    if not np.isfinite(samples).all():  # in 16 bits they would be a loud constant
        raise UserError(
            f"{final_path}: cannot be written: its samples are not all finite numbers; use a "
            "smaller guidance, or other weights"
        )
    content = BytesIO()  # soundfile writes in place: a full disk would leave half a file
    soundfile.write(content, samples, rate, "PCM_16", format=FORMATS[path.suffix.lower()])
    try:
        write_bytes(path, content.getvalue())
    except OSError as error:
        raise UserError(
            f"{final_path}: cannot be written: {error.strerror}; make room, or give another path"
        ) from None
