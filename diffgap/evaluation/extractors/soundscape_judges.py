"""Judges of the embedded corpus: a classifier of its sounds, and one of audio-visual alignment.

Two small networks, trained by `tools/train_soundscape_judges.py` on clips of their own, and apart
from the encoder, which must not judge itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from diffgap.corpora.soundscapes.audio import RATE
from diffgap.corpora.soundscapes.scenes import KINDS, SECONDS
from diffgap.corpora.soundscapes.video import FRAMES, SIZE
from diffgap.encoders.soundscape import HOP, N_FFT, mel_filterbank
from diffgap.errors import UserError
from diffgap.evaluation.extractors.base import Features
from diffgap.evaluation.extractors.waveforms import check, pad_frames, run_on_clips
from diffgap.pretrained.weights import load_bundled

WEIGHTS = Path(__file__).parent / "weights" / "soundscape.safetensors"
WIDTH = 64  # of the features; small, for a covariance from a few hundred clips
WINDOW = int(SECONDS * RATE)  # samples that the networks take at once
BATCH = 64
STEPS, PER_FRAME = 8, 2  # steps in time of a window, and of a frame of half a second


class Spectrogram(nn.Module):
    """(B, 32000) waveforms to (B, 1, 64, 125) log-mel spectrograms of about -1 to 1."""

    mel: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mel", mel_filterbank(), persistent=False)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        spectra = torch.stft(waveforms, N_FFT, HOP, window=self.window, return_complex=True)
        power = self.mel @ torch.view_as_real(spectra).square().sum(-1)
        return (power.clamp_min(1e-6).log10() / 3 + 0.5)[:, None, :, :125]


class AudioSteps(nn.Module):
    """(B, 1, 64, 125) spectrograms to (B, 8, 64): features of each quarter of a second."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _convolution(1, 16), _convolution(16, 32), _convolution(32, 48), _convolution(48, 64)
        )
        self.step = nn.Linear(64 * 4, WIDTH)

    def forward(self, spectra: Tensor) -> Tensor:
        h = self.layers(spectra)  # (B, 64, 4 bands, 8 steps)
        return nn.functional.silu(self.step(h.flatten(1, 2).transpose(1, 2)))


class Classifier(nn.Module):
    """Kinds of sound in a clip, each with its share."""

    def __init__(self) -> None:
        super().__init__()
        self.listener = AudioSteps()
        self.kinds = nn.Linear(WIDTH, len(KINDS))

    def forward(self, spectra: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, 64, 125) to frames (B, 4, 64) and logits (B, 24)."""
        steps = self.listener(spectra)
        return steps.unflatten(1, (-1, PER_FRAME)).mean(2), self.kinds(steps.mean(1))


class Alignment(nn.Module):
    """Whether pictures and sound are of one scene, and synchronous."""

    def __init__(self) -> None:
        super().__init__()
        self.listener = AudioSteps()
        self.viewer = nn.Sequential(
            _convolution(3, 16), _convolution(16, 32), _convolution(32, 48), nn.Flatten(),
            nn.Linear(48 * 16, WIDTH), nn.SiLU(),
        )  # fmt: skip
        self.compare = nn.Sequential(
            nn.Conv1d(3 * WIDTH, 96, 3, padding=1), nn.SiLU(),
            nn.Conv1d(96, 96, 3, padding=1), nn.SiLU(), nn.Flatten(),
            nn.Linear(96 * STEPS, 96), nn.SiLU(), nn.Linear(96, 1),
        )  # fmt: skip

    def forward(self, videos: Tensor, spectra: Tensor) -> Tensor:
        """uint8 (B, 8, 32, 32, 3) and (B, 1, 64, 125) to (B,) logits."""
        return self.judge(self.view(videos), self.listener(spectra))

    def view(self, videos: Tensor) -> Tensor:
        """uint8 (B, 8, 32, 32, 3) to (B, 8, 64)."""
        pixels = videos.permute(0, 1, 4, 2, 3).float() / 255
        return self.viewer(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])

    def judge(self, video: Tensor, audio: Tensor) -> Tensor:
        """(B, 8, 64) each to (B,) logits."""
        # Their product lets the first convolution compare the two, step by step.
        both = torch.cat([video, audio, video * audio], dim=2)
        return self.compare(both.transpose(1, 2))[:, 0]


class Networks(nn.Module):
    """Both networks, as in the file of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier, self.alignment = Classifier(), Alignment()


class _Judge:
    name = "soundscape"
    rate = RATE
    network: str
    """Which of `Networks`."""

    def __init__(self, network: nn.Module, weights_hash: str, device: str = "cpu") -> None:
        self._network = network.eval().to(device)
        self._spectrogram = Spectrogram().to(device)
        self._device = device
        self.weights_hash = weights_hash

    @classmethod
    def load(cls, device: str = "cpu") -> Self:
        """The network with the weights that ship with this package."""
        networks = Networks()
        file_hash = load_bundled(networks, WEIGHTS)
        return cls(getattr(networks, cls.network), file_hash, device)


class SoundscapeExtractor(_Judge):
    """The classifier behind the `Extractor` protocol; use `load`.

    Longer clips are cut into windows of two seconds, the last padded with silence; a clip's
    features are the mean over its windows.
    """

    network = "classifier"

    def features(self, waveforms: Sequence[np.ndarray]) -> Features:
        """Frames of half a second, (N, F, 64); their means; and shares of the 24 kinds."""
        frames, clips, shares = run_on_clips(
            waveforms, self._run, device=self._device, multiple=WINDOW
        )
        return Features(pad_frames(frames), torch.stack(clips).numpy(), torch.stack(shares).numpy())

    def _run(self, waveforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        windows = waveforms.unflatten(1, (-1, WINDOW))
        frames, logits = self._network(self._spectrogram(windows.flatten(0, 1)))
        frames = frames.view(len(windows), -1, WIDTH)
        shares = logits.softmax(1).view(len(windows), -1, len(KINDS))
        return frames, frames.mean(1), shares.mean(1)


class SoundscapeAlignment(_Judge):
    """Diff-Foley's AlignAcc (Luo et al. 2023) for the embedded corpus; use `load`."""

    network = "alignment"

    @torch.inference_mode()
    def aligned(self, videos: Sequence[np.ndarray], waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """(N,) whether each video and its sound belong together.

        Args:
            videos: N of uint8 (8, 32, 32, 3), four frames a second.
            waveforms: N of mono float32 (32000,) at 16 kHz.

        Raises:
            UserError: where numbers or shapes differ from these, or samples are not finite.
        """
        check(waveforms)
        _check_shapes(videos, waveforms)
        batches = []
        for start in range(0, len(videos), BATCH):
            batch = slice(start, start + BATCH)
            pictures = torch.from_numpy(np.stack(videos[batch])).to(self._device)
            samples = torch.from_numpy(np.stack(waveforms[batch])).to(self._device)
            logits = self._network(pictures, self._spectrogram(samples.float()))
            batches.append(logits > 0)
        return np.asarray(torch.cat(batches).cpu())


def _check_shapes(videos: Sequence[np.ndarray], waveforms: Sequence[np.ndarray]) -> None:
    shapes = {f"{video.dtype} {video.shape}" for video in videos}
    lengths = {len(waveform) for waveform in waveforms}
    expected = f"uint8 {(FRAMES, SIZE, SIZE, 3)}"
    if shapes != {expected} or lengths != {WINDOW} or len(videos) != len(waveforms):
        raise UserError(
            f"videos: {len(videos)}, of {sorted(shapes)}, with {len(waveforms)} sounds of "
            f"{sorted(lengths)} samples; alignment needs {expected} and {WINDOW} samples each"
        )


def _convolution(inputs: int, outputs: int) -> nn.Module:
    """A convolution that halves both sides."""
    # Group normalisation, within each clip: a clip's features must not depend on its batch.
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()
    )
