"""CAVP as an `Encoder`: Diff-Foley's frozen video and audio towers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from diffgap.audio.griffin_lim import stft
from diffgap.audio.mel import slaney_filterbank
from diffgap.encoders.cavp_model import CAVP, DIMENSION, MELS
from diffgap.encoders.vectors import unit_vectors
from diffgap.errors import ClipError, UserError
from diffgap.pretrained.weights import load_strictly, weights_hash

RATE = 16_000
SECONDS = 4.0  # length of the clips it was trained on: 16 tokens
FPS, SIZE = 4.0, 224
N_FFT, HOP = 1024, 250  # 64 frames a second; Diff-Foley's generator has a hop of 256
LOW, HIGH = 125.0, 7600.0  # Hz, of the mel bands
FLOOR = 1e-5


class CAVPEncoder:
    """Frozen towers; use `load`."""

    name = "cavp"
    dimension = DIMENSION
    modalities: tuple[str, ...] = ("audio", "video")
    sample_rate = RATE
    resampler = "scipy"
    window: float | None = SECONDS
    frame_rate, frame_size = FPS, SIZE

    def __init__(self, model: CAVP, source: str) -> None:
        self._model = model.eval()
        self._mel = slaney_filterbank(RATE, N_FFT, MELS, LOW, HIGH).to(self._device)
        self.checkpoint_hash = weights_hash(model)
        self.preprocessing: dict[str, str | int | float] = {
            "checkpoint": source,
            "seconds": SECONDS,
            "sample_rate": RATE,
            "resampler": self.resampler,
            "hop": HOP,
            "mels": MELS,
            "fps": FPS,
            "frame_size": SIZE,
        }

    @classmethod
    def load(cls, checkpoint: str | None, device: str = "cpu") -> CAVPEncoder:
        """Loads a file of the layout of cavp_epoch66.ckpt.

        Raises:
            UserError: where there is none, or a weight is missing, unexpected or misshapen.
        """
        if checkpoint is None:
            raise UserError(
                "--checkpoint: missing; give the path of cavp_epoch66.ckpt "
                "(hub: SimianLuo/Diff-Foley)"
            )
        model = CAVP()
        load_strictly(model, Path(checkpoint))
        return cls(model.to(device), Path(checkpoint).name)

    def encode_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """The maximum over the tokens of a clip, normalised; silence fills up to four seconds."""
        return clip_embeddings(self._audio([_fill(w, RATE, "constant") for w in waveforms]))

    def encode_video(self, videos: Sequence[np.ndarray]) -> np.ndarray:
        """The maximum over the tokens of a clip, normalised; the last frame fills up."""
        return clip_embeddings(self._video([_fill(v, FPS, "edge") for v in videos]))

    def encode_text(self, captions: Sequence[str]) -> np.ndarray:
        raise ClipError("CAVP has no text tower")

    def audio_tokens(self, waveform: np.ndarray) -> np.ndarray:
        """(samples,) of any length to (T, 512) unit vectors, four a second."""
        return unit_vectors(self._audio([waveform])[0])

    def video_tokens(self, video: np.ndarray) -> np.ndarray:
        """uint8 (T, H, W, 3) at 4 frames a second to (T, 512) unit vectors."""
        return unit_vectors(self._video([video])[0])

    @property
    def _device(self) -> torch.device:
        return self._model.logit_scale.device

    @torch.inference_mode()
    def _audio(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """(B, T, 512) tokens, not normalised, of waveforms of one length."""
        # Centred, a transform has a frame more than hops: a sample less makes whole tokens.
        samples = torch.from_numpy(np.stack(waveforms))[:, :-1].to(self._device)
        return self._model.audio_tokens(unit_decibels(samples, self._mel))

    @torch.inference_mode()
    def _video(self, videos: Sequence[np.ndarray]) -> Tensor:
        """(B, T, 512) tokens, not normalised, of videos of one length."""
        frames = torch.from_numpy(np.stack(videos)).to(self._device)
        pixels = frames.permute(0, 1, 4, 2, 3).float() / 255
        if pixels.shape[-2:] != (SIZE, SIZE):
            pixels = F.interpolate(
                pixels.flatten(0, 1), (SIZE, SIZE), mode="bilinear", antialias=True
            ).unflatten(0, pixels.shape[:2])
        return self._model.video_tokens(pixels)


def unit_decibels(samples: Tensor, filterbank: Tensor) -> Tensor:
    """(B, samples) at 16 kHz to (B, 128, frames) in [0, 1]: magnitudes, in decibels."""
    magnitudes = stft(samples, N_FFT, HOP).abs()
    # The constants are Diff-Foley's, whose spectrograms the tower was trained on.
    decibels = 20 * torch.log10((filterbank @ magnitudes).clamp_min(FLOOR))
    return ((decibels - 20 + 100) / 100).clamp(0, 1)


def _fill(stream: np.ndarray, rate: float, mode: str) -> np.ndarray:
    """Exactly four seconds, filled with silence (constant) or the last frame (edge)."""
    length = int(rate * SECONDS)
    padding = [(0, max(0, length - len(stream)))] + [(0, 0)] * (stream.ndim - 1)
    return np.pad(stream, padding, mode=mode)[:length]  # type: ignore[call-overload]


def clip_embeddings(tokens: Tensor) -> np.ndarray:
    """(B, T, D) tokens, not normalised, to (B, D) unit vectors."""
    return unit_vectors(tokens.amax(1))
