"""Audio and video out of files, with a clear reason where a file cannot be read.

Sound files are read by libsndfile, containers of video by FFmpeg (PyAV, the extra `video`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from diffgap.errors import ClipError, MissingClipError, require

SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif", ".au")
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")
MEDIA_SUFFIXES = SOUND_SUFFIXES + VIDEO_SUFFIXES

SILENCE = 1e-4  # peak below which a recording counts as silent (-80 dBFS)
LONGEST = 600.0  # seconds; a longer file is no clip, and would fill a worker's memory
MISSING = 0.1  # seconds that a file may lack, because MP3 headers are not exact
TICKS = 1_000_000  # a second on FFmpeg's own clock (AV_TIME_BASE)
TIME_TOLERANCE = 1e-3  # seconds: files round the times of their frames


def within(root: Path, name: str) -> Path:
    """The file of this name below a directory; ClipError where it is not there."""
    try:
        path = (root / name).resolve()
        is_file = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a circle of links, a null byte
        raise ClipError(f"its name is not that of a file: {_reason(error)}") from None
    if not path.is_relative_to(root):
        raise ClipError("its path climbs out of the corpus's directory")
    if not is_file:
        raise MissingClipError("no such file")
    return path


def _reason(error: Exception) -> str:
    """An error without the path."""
    return getattr(error, "strerror", None) or str(error).partition(" from ")[0].lower()


def is_video(name: str) -> bool:
    """Whether a file is a container of video, by its name."""
    return name.lower().endswith(VIDEO_SUFFIXES)


def read_audio(path: Path) -> tuple[np.ndarray, int]:
    """Mono float32 (samples,), and the rate in Hz; ClipError where it is not usable as audio."""
    with accessible():
        _check_not_empty(path)
        samples, rate = _sound_track(path) if is_video(path.name) else _sound_file(path)
    if not len(samples):
        raise ClipError("it holds no samples, or is cut off")
    if not np.isfinite(samples).all():
        raise ClipError("it holds samples that are not finite")
    if np.abs(samples).max() < SILENCE:
        raise ClipError("it is silent")
    return samples, rate


def read_video(path: Path, fps: float, size: int) -> np.ndarray:
    """uint8 RGB (frames, size, size, 3), at 0, 1/fps, 2/fps ... seconds, scaled without a crop.

    ClipError where it is not video, or cannot be decoded.
    """
    with accessible(), _video_container(path) as container:
        _check_length(_seconds(container))
        frames = list(_sample_frames(container, fps, size))
    if not frames:
        raise ClipError("it holds no frame")
    return np.stack(frames)


def video_seconds(path: Path) -> float:
    """Length of a video by its header; ClipError where it is not video, or cannot be decoded."""
    with _video_container(path) as container:
        return _seconds(container)


@contextmanager
def accessible() -> Iterator[None]:
    """Turns errors about one file, not about a disk that is away, into errors of its clip."""
    try:
        yield
    except FileNotFoundError:  # deleted since it was listed
        raise MissingClipError("no such file") from None
    except PermissionError as error:
        raise ClipError(f"not readable: {error.strerror}") from None


def _check_not_empty(path: Path) -> None:
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
    # Of a truncated WAV file libsndfile reports what is there, so that its own header must say.
    expected = max(expected, _wav_header_frames(path))
    if expected - len(samples) > MISSING * rate:
        raise ClipError(f"truncated: it holds {len(samples) / rate:.1f} of {expected / rate:.1f} s")
    return samples.mean(axis=1), int(rate)


def _wav_header_frames(path: Path) -> int:
    """Frames that the header of a WAV file promises; 0 for other files."""
    if path.suffix.lower() != ".wav":
        return 0
    with path.open("rb") as file:
        header = file.read(4096)
    format_chunk, data_chunk = header.find(b"fmt "), header.find(b"data")
    if format_chunk < 0 or data_chunk < 0 or len(header) < max(format_chunk + 22, data_chunk + 8):
        return 0
    (frame_bytes,) = struct.unpack_from("<H", header, format_chunk + 20)
    (data_bytes,) = struct.unpack_from("<I", header, data_chunk + 4)
    # A program that writes to a pipe does not know the length yet, and puts 0xFFFFFFFF or 0.
    is_streamed = data_bytes >= 0xFFFFFF00 or data_bytes == 0
    return 0 if is_streamed or not frame_bytes else data_bytes // frame_bytes


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
                raise ClipError("it is a video without a sound track")
            stream = container.streams.audio[0]
            _check_length(_seconds(container))
            # Planar floats, (channels, samples), whatever format the codec decodes to.
            resampler = av.AudioResampler(format="fltp")
            for frame in container.decode(stream):
                for converted in resampler.resample(frame):
                    parts.append(converted.to_ndarray().mean(axis=0))
            rate = stream.rate
    except av.FFmpegError as error:
        raise ClipError(f"not readable as audio: {error.strerror}") from None
    return np.concatenate([np.zeros(0, np.float32), *parts]).astype(np.float32), int(rate)


@contextmanager
def _video_container(path: Path) -> Iterator[Any]:
    """A container with a stream of video; ClipError where it has none, or cannot be decoded."""
    _check_not_empty(path)
    if not is_video(path.name):
        raise ClipError("a sound file has no video")
    av = require("av", "video", "reading video")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ClipError("it has no stream of video")
            yield container
    except av.FFmpegError as error:
        raise ClipError(f"not readable as video: {error.strerror}") from None


def _seconds(container: Any) -> float:
    """Its length according to its header; 0 where it gives none."""
    return float(container.duration or 0) / TICKS


def _sample_frames(container: Any, fps: float, size: int) -> Iterator[np.ndarray]:
    count, frame = 0, None
    for frame, end in _frames_until(container):
        while count / fps < end - TIME_TOLERANCE:
            yield _scale(frame, size)
            count += 1
    if count == 0 and frame is not None:
        yield _scale(frame, size)  # a single frame has no duration, but it is a frame


def _frames_until(container: Any) -> Iterator[tuple[Any, float]]:
    """Frames, and the seconds since the first one until which each is visible.

    Frame by frame and not by a frame rate, because recordings of phones have variable ones.
    """
    previous, first_time, start, duration = None, 0.0, 0.0, 0.0
    for frame in container.decode(container.streams.video[0]):
        time = frame.time or 0.0
        if previous is None:
            first_time = time  # streams need not start at 0
        else:
            end = time - first_time
            yield previous, end
            start, duration = end, end - start
        previous = frame
    if previous is not None:
        yield previous, start + duration  # the last, as long as the one before


def _scale(frame: Any, size: int) -> np.ndarray:
    scaled = frame.reformat(size, size, "rgb24", interpolation="BILINEAR")
    return np.asarray(scaled.to_ndarray())
