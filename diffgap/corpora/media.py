"""Reading sound and pictures out of files, with a clear reason where it cannot be done.

Sound files go through libsndfile, containers of video through FFmpeg (PyAV, the extra `video`).
"""

from __future__ import annotations

import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from diffgap.errors import ClipError, MissingClipError, require

if TYPE_CHECKING:
    from collections.abc import Iterator

SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif", ".au")
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")

SILENCE = 1e-4
"""Peak below which a recording counts as silent (-80 dBFS)."""

LONGEST = 600.0
"""Seconds; a longer file is no clip, and would fill a worker's memory."""

LOST = 0.1
"""Seconds of sound that may be missing from a file before it counts as truncated."""

TICKS = 1_000_000
"""FFmpeg's own clock (AV_TIME_BASE), a second."""

EARLY = 1e-3
"""Seconds: times of frames are rounded in their files."""


def within(root: Path, name: str) -> Path:
    """The file of this name below a directory; ClipError where it is not there."""
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise ClipError("its path climbs out of the corpus's directory")
    if not path.is_file():
        raise MissingClipError("no such file")
    return path


def is_video(name: str) -> bool:
    """Whether a file is a container of video, by its name."""
    return name.lower().endswith(VIDEO_SUFFIXES)


def read_audio(path: Path) -> tuple[np.ndarray, int]:
    """One file, mixed down to mono.

    Returns:
        Float32 (samples,) and the rate in Hz.

    Raises:
        ClipError: where it is empty, truncated, silent, too long or no sound.
    """
    _check_size(path)
    samples, rate = _sound_track(path) if is_video(path.name) else _sound_file(path)
    if not len(samples):
        raise ClipError("it holds no samples, or is cut off")
    if not np.isfinite(samples).all():
        raise ClipError("it holds samples that are not finite")
    if np.abs(samples).max() < SILENCE:
        raise ClipError("it is silent")
    return samples, rate


def read_video(path: Path, fps: float, size: int) -> np.ndarray:
    """The frames on display at 0, 1/fps, 2/fps ... seconds, scaled to a square without a crop.

    Returns:
        uint8 (frames, size, size, 3), RGB.

    Raises:
        ClipError: where it is no video, or none that can be decoded.
    """
    with _pictures(path) as container:
        _check_length(_seconds(container))
        frames = list(_on_display(container, fps, size))
    if not frames:
        raise ClipError("it holds no frame")
    return np.stack(frames)


def video_seconds(path: Path) -> float:
    """How long a video lasts, told by its header.

    Raises:
        ClipError: where it is no video, or has no pictures.
    """
    with _pictures(path) as container:
        return _seconds(container)


# Sound ------------------------------------------------------------------------------------------


def _check_size(path: Path) -> None:
    if not path.stat().st_size:
        raise ClipError("the file is empty")


def _sound_file(path: Path) -> tuple[np.ndarray, int]:
    try:
        with soundfile.SoundFile(path) as file:
            _check_length(file.frames / file.samplerate)
            samples = file.read(dtype="float32", always_2d=True)
            expected, rate = file.frames, file.samplerate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ClipError(f"not readable as audio: {error}") from None
    expected = max(expected, _promised_frames(path))
    if expected - len(samples) > LOST * rate:
        raise ClipError(
            f"truncated: {len(samples) / rate:.1f} of {expected / rate:.1f} s are there"
        )
    return samples.mean(axis=1), int(rate)


def _promised_frames(path: Path) -> int:
    """Frames that a WAV file's header promises, which libsndfile cuts to what is there; else 0."""
    if path.suffix.lower() != ".wav":
        return 0
    with path.open("rb") as file:
        head = file.read(4096)
    form, data = head.find(b"fmt "), head.find(b"data")
    if form < 0 or data < 0 or len(head) < max(form + 22, data + 8):
        return 0
    (align,) = struct.unpack_from("<H", head, form + 20)
    (size,) = struct.unpack_from("<I", head, data + 4)
    streamed = size >= 0xFFFFFF00 or size == 0
    return 0 if streamed or not align else size // align


def _check_length(seconds: float) -> None:
    if seconds > LONGEST:
        raise ClipError(
            f"it is {seconds / 60:.0f} minutes long; cut it into clips of at most "
            f"{LONGEST / 60:.0f} minutes"
        )


def _sound_track(path: Path) -> tuple[np.ndarray, int]:
    av = require("av", "video", "reading the sound of a video")
    parts: list[np.ndarray] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise ClipError("a video without sound")
            stream = container.streams.audio[0]
            _check_length(_seconds(container))
            to_float = av.AudioResampler(format="fltp")
            for frame in container.decode(stream):
                parts += [f.to_ndarray().mean(axis=0) for f in to_float.resample(frame)]
            rate = stream.rate
    except av.FFmpegError as error:
        raise ClipError(f"not readable as audio: {error.strerror}") from None
    empty = np.zeros(0, np.float32)
    return np.concatenate([empty, *parts]).astype(np.float32), int(rate)


# Pictures ---------------------------------------------------------------------------------------


@contextmanager
def _pictures(path: Path) -> Iterator[Any]:
    """A container that has a stream of video; ClipError where it has none, or cannot be decoded."""
    _check_size(path)
    if not is_video(path.name):
        raise ClipError("a sound file has no video")
    av = require("av", "video", "reading video")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ClipError("it has no pictures")
            yield container
    except av.FFmpegError as error:
        raise ClipError(f"not readable as video: {error.strerror}") from None


def _seconds(container: Any) -> float:
    """Its length, as its header says; 0 where it does not."""
    return float(container.duration or 0) / TICKS


def _on_display(container: Any, fps: float, size: int) -> Iterator[np.ndarray]:
    """A frame is on display until the next one's time, the last as long as the one before."""
    shown, begun, last, length, count = None, 0.0, 0.0, 0.0, 0
    for frame in container.decode(container.streams.video[0]):
        if shown is None:
            begun = frame.time or 0.0
        else:
            seconds = (frame.time or 0.0) - begun
            while count / fps < seconds - EARLY:
                yield _picture(shown, size)
                count += 1
            last, length = seconds, seconds - last
        shown = frame
    while shown is not None and (count == 0 or count / fps < last + length - EARLY):
        yield _picture(shown, size)
        count += 1


def _picture(frame: Any, size: int) -> np.ndarray:
    scaled = frame.reformat(size, size, "rgb24", interpolation="BILINEAR")
    return np.asarray(scaled.to_ndarray())
