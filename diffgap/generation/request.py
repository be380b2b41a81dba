"""Requests of people: prompts or videos, checked all at once and encoded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffgap.bridge.base import Bridge
from diffgap.corpora.media import read_video, video_seconds
from diffgap.encoders import EncoderChoice
from diffgap.encoders.base import Encoder
from diffgap.encoders.chunks import encode_streams
from diffgap.errors import ClipError, UserError
from diffgap.generation import TRAINED_ON, GeneratorChoice, encoder_mismatch
from diffgap.generation.base import Generator
from diffgap.generation.conditions import GenerationRequest
from diffgap.store.schema import TEXT

LONGEST_PROMPT = 1000
"""Characters; encoders read a few dozen words."""
SHORTEST_VIDEO, LONGEST_VIDEO = 1.0, 60.0
"""Seconds."""
SAME_CLAP = 0.99
"""Least cosine of one text's embeddings by two towers that are taken for the same."""
PROBE = "a dog barks while rain falls on a tin roof"

VIDEO = "video"


def default_generator(encoder: str) -> str:
    """The generator that takes an encoder's embeddings; UserError where there is none."""
    for generator, encoders in TRAINED_ON.items():
        if encoder in encoders:
            return generator
    choices = [f"{generator} for {' and '.join(names)}" for generator, names in TRAINED_ON.items()]
    raise UserError(
        f"BRIDGE: no generator takes embeddings of {encoder!r}; there are {', '.join(choices)}"
    )


def bridge_problems(bridge: Bridge, encoder: str, generator: GeneratorChoice) -> list[str]:
    """Why a generator does not take what a bridge makes of its encoder's embeddings."""
    if problem := encoder_mismatch(generator.name, encoder):
        return [f"--generator: {problem}; use {default_generator(encoder)}"]
    if 0 not in bridge.directions:
        x, a = bridge.config.modalities
        return [f"BRIDGE: it was not trained from {x} to {a}; use one that was, as DiffGAP is"]
    if bridge.moves_space:
        return [
            f"BRIDGE: its method, {bridge.config.method}, compares in a space of its own, in which "
            "no generator was trained; use one of diffgap, deterministic or diffusion_link"
        ]
    return []


def dimension_problem(bridge: Bridge, generator: Generator) -> str | None:
    """Why a generator does not take embeddings of the bridge's dimension; None where it does."""
    if bridge.config.dimension == generator.dimension:
        return None
    return (
        f"BRIDGE: it carries embeddings of {bridge.config.dimension} dimensions, and "
        f"{generator.name} takes {generator.dimension}; use a bridge of the generator's encoder"
    )


def load_encoder(record: Mapping[str, Any], checkpoint: str | None, device: str) -> Encoder:
    """The frozen encoder that a bridge was trained on, by its entry in the bridge's config.json.

    Raises:
        UserError: where it is not one of diffgap's, or the weights differ.
    """
    name = record.get("name")
    if name not in EncoderChoice.models:
        raise UserError(
            f"BRIDGE: it was trained on the encoder {name!r}, which is not one of diffgap's; make "
            "embeddings yourself, carry them over with: diffgap bridge, and give them to "
            "diffgap.generation"
        )
    choice = EncoderChoice(name, checkpoint)
    return choice.load_verified(record["checkpoint_hash"], "the bridge", device)


def clap_problem(generator: Generator, encoder: Encoder) -> str | None:
    """Why a generator was trained on another CLAP than the bridge; None where it was not."""
    encode = getattr(generator, "encode_text", None)
    if encode is None or TEXT not in encoder.modalities:
        return None
    # Hashes cannot tell: the same CLAP comes in several layouts and precisions.
    cosine = float((encode([PROBE]) * encoder.encode_text([PROBE])).sum())
    if cosine >= SAME_CLAP:
        return None
    return (
        f"--checkpoint: {encoder.name} and the text tower of {generator.name} are not the same "
        f"CLAP (cosine {cosine:.2f} on one text); train the bridge on embeddings of the "
        "generator's own CLAP"
    )


def query_problems(bridge: Bridge, prompts: Sequence[str], videos: Sequence[Path]) -> list[str]:
    """What is wrong with prompts or videos, found without encoding or decoding them."""
    x = bridge.config.modalities[0]
    if prompts and x != TEXT:
        return [f"--prompt: this bridge starts from {x}, not from text; use one of text-audio"]
    if videos and x != VIDEO:
        return [f"--video: this bridge starts from {x}, not from video; use one of video-audio"]
    problems = [*map(_prompt_problem, prompts), *map(_video_problem, videos)]
    return [problem for problem in problems if problem]


def _prompt_problem(text: str) -> str | None:
    if not text.strip():
        return "--prompt: is empty; describe the sound, as in 'a dog barks in the rain'"
    if len(text) > LONGEST_PROMPT:
        return (
            f"--prompt: {text[:30]!r}... has {len(text)} characters; encoders read a few dozen "
            f"words, so use at most {LONGEST_PROMPT}"
        )
    if not re.search(r"[^\W_]", text):
        return f"--prompt: {text!r} has no word; describe the sound in words"
    return None


def encode_prompts(encoder: Encoder, prompts: Sequence[str]) -> GenerationRequest:
    """Prompts as queries; UserError where the encoder cannot read one."""
    try:
        vectors = encoder.encode_text(list(prompts))
    except ClipError as error:
        raise UserError(f"--prompt: {error}; use other words") from None
    return GenerationRequest(_file_names(prompts), tuple(prompts), vectors, None)


def _file_names(titles: Sequence[str]) -> tuple[str, ...]:
    """``003-rain-falls``: numbered, so that equal titles do not share a file."""
    names = []
    for number, title in enumerate(titles):
        slug = "-".join(re.findall(r"\w+", title.lower()))[:40].strip("-")
        names.append(f"{number:03d}-{slug or 'sound'}")
    return tuple(names)


def _video_problem(path: Path) -> str | None:
    if not path.is_file():
        return f"--video: {path} is not a file"
    try:
        seconds = video_seconds(path)
    except ClipError as error:
        return f"--video: {path}: {error}; give a video with pictures, such as an .mp4"
    if 0 < seconds < SHORTEST_VIDEO:  # 0 where the header does not say; decoding will tell
        return _too_short(path, seconds)
    if seconds > LONGEST_VIDEO:
        return (
            f"--video: {path} lasts {seconds:.0f} s, of which a generator uses the first few; cut "
            f"it to at most {LONGEST_VIDEO:g} s, as with: ffmpeg -ss 0 -t 8 -i {path.name} cut.mp4"
        )
    return None


def _too_short(path: Path, seconds: float) -> str:
    return f"--video: {path} lasts {seconds:.1f} s; at least {SHORTEST_VIDEO:g} s are needed"


def encode_videos(
    encoder: Encoder, videos: Sequence[Path], generator: Generator, pooled: bool
) -> GenerationRequest:
    """The first seconds of videos as queries, as many as the generator's clips last.

    A generator may take several embeddings of a video in a row; `pooled` gives it one of the whole.

    Raises:
        UserError: where a video cannot be decoded, or is too short.
    """
    tokens = None if pooled else generator.tokens
    length = max(1, round(generator.seconds * encoder.frame_rate))
    vectors = [_video_vectors(encoder, _frames(encoder, path)[:length], tokens) for path in videos]
    ids = _file_names([path.stem for path in videos])
    return GenerationRequest(ids, tuple(path.name for path in videos), np.stack(vectors), None)


def _frames(encoder: Encoder, path: Path) -> np.ndarray:
    """uint8 (frames, height, width, 3) at the encoder's rate and size."""
    try:
        frames = read_video(path, encoder.frame_rate, encoder.frame_size)
    except ClipError as error:
        raise UserError(f"--video: {path}: {error}; give another file") from None
    if len(frames) < SHORTEST_VIDEO * encoder.frame_rate:
        raise UserError(_too_short(path, len(frames) / encoder.frame_rate))
    return frames


def _video_vectors(encoder: Any, frames: np.ndarray, tokens: int | None) -> np.ndarray:
    """(D,) of the whole video, or (T, D): a token a frame, the last frame repeated up to T."""
    if tokens is None:
        pooled: np.ndarray = encode_streams(encoder, "video", [frames])[0]
        return pooled
    padding = np.repeat(frames[-1:], max(0, tokens - len(frames)), axis=0)
    vectors: np.ndarray = encoder.video_tokens(np.concatenate([frames, padding])[:tokens])
    return vectors
