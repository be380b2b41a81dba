"""Encoder of the built-in corpus: three small contrastive towers for audio, text and video.

Built and trained as CLAP and CAVP are, at a thousandth of their size: good, but imperfect.
tools/train_soundscape_encoder.py has trained the weights.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffgap.encoders.vectors import unit_vectors
from diffgap.errors import ClipError
from diffgap.pretrained.weights import load_bundled

DIMENSION = 128
RATE = 16_000
WINDOW = 2 * RATE  # samples that the audio tower takes at once: two seconds, a whole soundscape
FRAMES, FPS, SIZE = 8, 4.0, 32
WORDS, TRIGRAMS = 2048, 1024  # hash buckets, each with its vector
TOKENS = 40  # words of a caption that are read; the rest is cut off
WEIGHTS = Path(__file__).parent / "weights" / "soundscape.safetensors"
N_FFT, HOP, MELS = 512, 256, 64


class AudioTower(nn.Module):
    """(B, 32000) waveforms to (B, 128): log-mel, then a small convolutional network."""

    mel: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mel", mel_filterbank(), persistent=False)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        self.net = nn.Sequential(
            _convolution(1, 24), _convolution(24, 48), _convolution(48, 72), _convolution(72, 96),
            nn.Conv2d(96, 32, 1), nn.SiLU(), nn.Flatten(), nn.Linear(32 * 4 * 8, 128),
        )  # fmt: skip

    def forward(self, waveforms: Tensor) -> Tensor:
        spectra = torch.stft(waveforms, N_FFT, HOP, window=self.window, return_complex=True)
        power = torch.matmul(self.mel, spectra.abs().square())
        decibels = torch.log10(power.clamp_min(1e-7)) / 3 + 0.6  # about -1 .. 1 for sounds
        # A centred transform has one frame more than the 125 hops of two seconds.
        return self.net(decibels[:, None, :, :125])


class TextTower(nn.Module):
    """Captions to (B, 128): hashed words and letter trigrams, then a small transformer.

    Hashing gives every word a vector, whether or not it was seen in training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 96)
        self.trigrams = nn.EmbeddingBag(TRIGRAMS, 96, mode="mean")
        self.positions = nn.Parameter(0.02 * torch.randn(TOKENS, 96))
        layer = nn.TransformerEncoderLayer(96, 4, 192, 0.1, "gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.output = nn.Linear(96, DIMENSION)

    def forward(self, captions: Sequence[str]) -> Tensor:
        words = [_words(caption) for caption in captions]
        lengths = torch.tensor(list(map(len, words)))
        longest = int(lengths.max())
        h = self._embed_words(words, longest) + self.positions[:longest]
        padding = (torch.arange(longest) >= lengths[:, None]).to(h.device)
        h = self.layers(h, src_key_padding_mask=padding).masked_fill(padding[..., None], 0)
        # The mean over the words of each caption alone, so that its batch does not matter.
        return self.output(h.sum(1) / (~padding).sum(1, keepdim=True))

    def _embed_words(self, captions: Sequence[list[str]], longest: int) -> Tensor:
        """(B, longest, 96): the vector of each word, plus the mean over its trigrams."""
        word_ids: list[int] = []
        trigram_ids: list[int] = []
        offsets: list[int] = []  # of each word's first trigram, as EmbeddingBag takes them
        for words in captions:
            for word in words + [""] * (longest - len(words)):
                word_ids.append(_bucket(word, WORDS))
                offsets.append(len(trigram_ids))
                trigram_ids += _trigrams(word)
        device = self.positions.device
        bags = torch.tensor(trigram_ids).to(device), torch.tensor(offsets).to(device)
        h = self.words(torch.tensor(word_ids).to(device)) + self.trigrams(*bags)
        return h.view(len(captions), longest, -1)


class VideoTower(nn.Module):
    """(B, 8, 3, 32, 32) frames in [0, 1] to (B, 128): frame by frame, then all together."""

    def __init__(self) -> None:
        super().__init__()
        self.frame = nn.Sequential(
            _convolution(3, 24), _convolution(24, 48), _convolution(48, 48),
            nn.Flatten(), nn.Linear(48 * 16, 64), nn.SiLU(),
        )  # fmt: skip
        self.clip = nn.Sequential(
            nn.Flatten(), nn.Linear(FRAMES * 64, 192), nn.SiLU(), nn.Linear(192, DIMENSION)
        )

    def forward(self, videos: Tensor) -> Tensor:
        return self.clip(self.frame(videos.flatten(0, 1)).unflatten(0, videos.shape[:2]))


class Towers(nn.Module):
    """The three towers, and the temperature they were trained with."""

    def __init__(self) -> None:
        super().__init__()
        self.audio, self.text, self.video = AudioTower(), TextTower(), VideoTower()
        self.log_scale = nn.Parameter(torch.tensor(math.log(14.0)))


class SoundscapeEncoder:
    """Frozen towers behind the `Encoder` protocol; use `load`."""

    name = "soundscape"
    dimension = DIMENSION
    modalities: tuple[str, ...] = ("audio", "text", "video")
    sample_rate = RATE
    resampler = "scipy"
    window: float | None = None
    frame_rate, frame_size = FPS, SIZE

    def __init__(self, towers: Towers, checkpoint_hash: str) -> None:
        self.towers = towers.eval()
        self.preprocessing: dict[str, str | int | float] = {
            "sample_rate": RATE,
            "resampler": self.resampler,
            "mels": MELS,
            "fps": FPS,
            "frame_size": SIZE,
        }
        self.checkpoint_hash = checkpoint_hash

    @classmethod
    def load(cls, device: str = "cpu") -> SoundscapeEncoder:
        """The encoder with the weights that are part of this package."""
        towers = Towers().to(device)
        return cls(towers, load_bundled(towers, WEIGHTS))

    def encode_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Shorter sounds are repeated to 2 s; of longer ones every 2 s window counts the same."""
        windows = [_windows(waveform) for waveform in waveforms]
        samples = torch.from_numpy(np.concatenate(windows)).to(self._device)
        vectors = _encode(self.towers.audio, samples).split(list(map(len, windows)))
        return unit_vectors(torch.stack([part.mean(0) for part in vectors]))

    def encode_text(self, captions: Sequence[str]) -> np.ndarray:
        """Any words; a caption without a letter or digit is a ClipError."""
        for caption in captions:
            if not _words(caption):
                raise ClipError(f"caption {caption!r} has no word")
        return unit_vectors(_encode(self.towers.text, captions))

    def encode_video(self, videos: Sequence[np.ndarray]) -> np.ndarray:
        """Any length and size: eight frames, evenly spaced, scaled to 32 x 32."""
        frames = torch.stack([_frames(v) for v in videos])
        return unit_vectors(_encode(self.towers.video, frames.to(self._device)))

    @property
    def _device(self) -> torch.device:
        return self.towers.log_scale.device


@cache
def mel_filterbank() -> Tensor:
    """(64, 257) triangular filters, 50 to 8,000 Hz, evenly spaced in mel (O'Shaughnessy 1987)."""

    def mel(hz: float) -> float:
        return 2595 * math.log10(1 + hz / 700)

    edges = 700 * (10 ** (torch.linspace(mel(50), mel(RATE / 2), MELS + 2) / 2595) - 1)
    hz = torch.linspace(0, RATE / 2, N_FFT // 2 + 1)
    up = (hz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - hz) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(up, down).clamp_min(0)


def _convolution(inputs: int, outputs: int) -> nn.Module:
    """Halves both sides."""
    # Normalised within a clip (GroupNorm), because a vector must not depend on its batch.
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()
    )


@cache
def _words(caption: str) -> list[str]:
    return re.findall(r"\w+", caption.lower())[:TOKENS]


@cache
def _trigrams(word: str) -> list[int]:
    if not word:
        return [0]  # padding, which is masked; but EmbeddingBag's mean needs one
    marked = f"<{word}>"  # so that a word's start and end differ from its middle
    return [_bucket(marked[i : i + 3], TRIGRAMS) for i in range(len(word))]


def _bucket(text: str, buckets: int) -> int:
    # CRC-32, because Python's own hash of a string differs from process to process.
    return zlib.crc32(text.encode()) % buckets


def _windows(waveform: np.ndarray) -> np.ndarray:
    """(windows, 32000): repeated up to a whole number of windows."""
    count = max(1, round(len(waveform) / WINDOW))
    repeated = np.resize(waveform, max(len(waveform), count * WINDOW))
    return repeated[: count * WINDOW].reshape(count, WINDOW).astype(np.float32)


def _frames(video: np.ndarray) -> Tensor:
    """(8, 3, 32, 32) in [0, 1]."""
    chosen = np.linspace(0, len(video) - 1, FRAMES).round().astype(int)
    frames = torch.from_numpy(np.ascontiguousarray(video[chosen])).permute(0, 3, 1, 2).float() / 255
    return frames if frames.shape[-2:] == (SIZE, SIZE) else F.adaptive_avg_pool2d(frames, SIZE)


@torch.inference_mode()
def _encode(tower: Callable, inputs: Tensor | Sequence[str]) -> Tensor:
    return F.normalize(tower(inputs), dim=-1)
