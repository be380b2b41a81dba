"""VGGish (Hershey et al., ICASSP 2017), the extractor of FAD, in plain torch.

Weights: ``vggish-10086976.pth``, the port of the published ones
(https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth).
Features are those that evaluations of generated audio take: before the last ReLU, and without the
PCA and quantisation of AudioSet's own embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from diffgap.evaluation.extractors.base import Features, weights_file
from diffgap.evaluation.extractors.waveforms import pad_frames, run_on_clips
from diffgap.pretrained.weights import load_strictly, weights_hash

RATE = 16_000
WINDOW, HOP, N_FFT = 400, 160, 512
MELS, LOW, HIGH = 64, 125.0, 7500.0
OFFSET = 0.01  # added before the logarithm, as in the published code
PATCH = 96  # spectra in a patch: 0.96 s
SHORTEST = WINDOW + (PATCH - 1) * HOP  # samples that a patch needs


class VGGish(nn.Module):
    """(B, 96, 64) log-mel patches to (B, 128)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for outputs in (64, None, 128, None, 256, 256, None, 512, 512, None):
            if outputs is None:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(512 * 6 * 4, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, 128),
        )  # fmt: skip

    def forward(self, patches: Tensor) -> Tensor:
        h = self.features(patches[:, None])
        return self.embeddings(h.permute(0, 2, 3, 1).flatten(1))  # as TensorFlow orders them


class VGGishExtractor:
    """VGGish behind the `Extractor` protocol; use `load`."""

    name = "vggish"
    rate = RATE

    def __init__(self, model: VGGish, device: str = "cpu") -> None:
        self.weights_hash = weights_hash(model)
        self._model = model.eval().to(device)
        self._mel = mel_matrix().to(device)
        self._device = device

    @classmethod
    def load(cls, weights: str | None, device: str = "cpu") -> VGGishExtractor:
        """From a file of the layout of vggish-10086976.pth.

        Raises:
            UserError: where there is none, or a weight is missing, unexpected or misshapen.
        """
        path = weights_file(cls.name, weights, "vggish-10086976.pth")
        model = VGGish()
        load_strictly(model, path)
        return cls(model, device)

    def features(self, waveforms: Sequence[np.ndarray]) -> Features:
        """Frames (N, F, 128), one for each whole 0.96 s; silence pads a clip to one."""
        (frames,) = run_on_clips(waveforms, self._run, device=self._device, shortest=SHORTEST)
        return Features(frames=pad_frames(frames))

    def _run(self, waveforms: Tensor) -> tuple[Tensor]:
        patches = patches_of(waveforms, self._mel)
        return (self._model(patches.flatten(0, 1)).unflatten(0, patches.shape[:2]),)


def patches_of(waveforms: Tensor, mel: Tensor) -> Tensor:
    """(B, samples) at 16 kHz to (B, F, 96, 64) logarithms of mel magnitudes; the rest is cut."""
    # No padding at the ends, and windows shorter than the transform: torch.stft has neither.
    window = torch.hann_window(WINDOW, device=waveforms.device)
    windows = waveforms.unfold(1, WINDOW, HOP) * window
    spectra = (torch.fft.rfft(windows, N_FFT).abs() @ mel + OFFSET).log()
    patches = spectra.shape[1] // PATCH
    return spectra[:, : patches * PATCH].unflatten(1, (patches, PATCH))


def mel_matrix() -> Tensor:
    """(257, 64): triangles of height 1, in HTK's mel and linear in it, without the lowest bin."""

    # Not audio.mel's: Slaney's triangles are linear in Hz and of unit area.
    def mel(hz: np.ndarray | float) -> np.ndarray:
        return np.asarray(1127 * np.log1p(np.asarray(hz) / 700))

    edges = np.linspace(mel(LOW), mel(HIGH), MELS + 2)
    bins = mel(np.linspace(0, RATE / 2, N_FFT // 2 + 1))[:, None]
    rising = (bins - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - bins) / np.diff(edges)[1:]
    matrix = np.clip(np.minimum(rising, falling), 0, None)
    matrix[0] = 0  # no DC
    return torch.from_numpy(matrix).float()
