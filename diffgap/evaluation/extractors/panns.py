"""PANNs' Cnn14 at 16 kHz (Kong et al., TASLP 2020), the extractor of FD, KL and IS.

Weights: ``Cnn14_16k_mAP=0.438.pth`` (https://zenodo.org/records/3987831). As in the evaluation of
AudioLDM (https://github.com/haoheliu/audioldm_eval), class probabilities are the softmax of the
logits, which sum to 1; the sigmoids that the network was trained with do not.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffgap.audio.mel import slaney_filterbank
from diffgap.errors import UserError
from diffgap.evaluation.extractors.base import Features, weights_file
from diffgap.evaluation.extractors.waveforms import run_on_clips
from diffgap.pretrained.cnn14 import WIDTH, Cnn14Trunk
from diffgap.pretrained.weights import NUMPY_SCALARS, weights_hash

RATE = 16_000
N_FFT, HOP = 512, 160
MELS, LOW, HIGH = 64, 50.0, 8000.0
POWER_FLOOR = 1e-10
CLASSES = 527
POOLS = ((2, 2), (2, 2), (2, 2), (2, 2), (2, 2), (1, 1))
"""Of (time, mel), block by block."""
SHORTEST = 32 * HOP  # samples: the poolings halve time five times
ERROR = 500  # characters of torch's message that an error repeats

MEL_KEY = "logmel_extractor.melW"
FOURIER_KEYS = tuple(f"spectrogram_extractor.stft.conv_{part}.weight" for part in ("real", "imag"))
_REBUILT = np.zeros(0).__reduce__()[0]
ARRAYS: list[Any] = [_REBUILT, (_REBUILT, "numpy.core.multiarray._reconstruct"), np.ndarray]
"""What the sampler's state beside the weights is made of; NumPy 1 and 2 name it differently."""


class AudioTagger(Cnn14Trunk):
    """(B, 1, T, 64) log-mel spectra to embeddings (B, 2048) and logits (B, 527)."""

    def __init__(self) -> None:
        super().__init__(POOLS)
        self.bn0 = nn.BatchNorm2d(MELS)
        self.fc1 = nn.Linear(WIDTH, WIDTH)
        self.fc_audioset = nn.Linear(WIDTH, CLASSES)

    def forward(self, spectra: Tensor) -> tuple[Tensor, Tensor]:
        h = self.blocks(self.bn0(spectra.transpose(1, 3)).transpose(1, 3))
        embedding = F.relu(self.fc1(h.amax(2) + h.mean(2)))
        return embedding, self.fc_audioset(embedding)


class PANNsExtractor:
    """Cnn14 behind the `Extractor` protocol; use `load`."""

    name = "panns"
    rate = RATE

    def __init__(self, model: AudioTagger, device: str = "cpu") -> None:
        self.weights_hash = weights_hash(model)
        self._model = model.eval().to(device)
        self._mel = slaney_filterbank(RATE, N_FFT, MELS, LOW, HIGH).to(device)
        self._device = device

    @classmethod
    def load(cls, weights: str | None, device: str = "cpu") -> PANNsExtractor:
        """From a file of the layout of Cnn14_16k_mAP=0.438.pth.

        Raises:
            UserError: where there is none, a weight is missing, unexpected or misshapen, or it
                was trained on other spectra.
        """
        published = "Cnn14_16k_mAP=0.438.pth"
        path = weights_file(cls.name, weights, published)
        state = _state(path)
        _check_spectra(state, path)
        fixed = (MEL_KEY, *FOURIER_KEYS)
        learned = {name: value for name, value in state.items() if name not in fixed}
        model = AudioTagger()
        try:
            model.load_state_dict(learned)
        except RuntimeError as error:
            message = " ".join(str(error).split())[:ERROR]
            raise UserError(f"{path}: not the weights of {published}: {message}") from None
        return cls(model, device)

    def features(self, waveforms: Sequence[np.ndarray]) -> Features:
        """Clips (N, 2048) and probabilities (N, 527); silence pads a clip to 0.32 s."""
        clips, logits = run_on_clips(waveforms, self._run, device=self._device, shortest=SHORTEST)
        probabilities = torch.stack(logits).softmax(1).numpy()
        return Features(clips=torch.stack(clips).numpy(), probabilities=probabilities)

    def _run(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        outputs: tuple[Tensor, Tensor] = self._model(mel_decibels(waveforms, self._mel)[:, None])
        return outputs


def mel_decibels(waveforms: Tensor, filterbank: Tensor) -> Tensor:
    """(B, samples) at 16 kHz to (B, T, 64): power in decibels, as torchlibrosa gives it."""
    window = torch.hann_window(N_FFT, device=waveforms.device)
    spectra = torch.stft(waveforms, N_FFT, HOP, window=window, return_complex=True)
    power = filterbank @ torch.view_as_real(spectra).square().sum(-1)
    return 10 * power.clamp_min(POWER_FLOOR).log10().transpose(1, 2)


def _state(path: Path) -> Mapping[str, Tensor]:
    """The weights, which PANNs keeps under ``model``."""
    try:
        with torch.serialization.safe_globals([*NUMPY_SCALARS, *ARRAYS]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{path}: not a checkpoint: {str(error).splitlines()[0]}") from None
    state = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise UserError(f"{path}: not a checkpoint of PANNs; it holds nothing under 'model'")
    return state


def _check_spectra(state: Mapping[str, Tensor], path: Path) -> None:
    """Raises a UserError where the checkpoint's fixed filters are not those of `mel_decibels`."""
    # torchlibrosa keeps its transforms as weights. A checkpoint of another rate or window would
    # load into this network all the same, and its features would mean nothing.
    cycles = torch.outer(torch.arange(N_FFT // 2 + 1.0), torch.arange(N_FFT).double()) / N_FFT
    window = torch.hann_window(N_FFT, dtype=torch.float64)
    wave = torch.exp(-2j * torch.pi * cycles) * window
    expected = {
        MEL_KEY: slaney_filterbank(RATE, N_FFT, MELS, LOW, HIGH).T,
        FOURIER_KEYS[0]: wave.real[:, None],
        FOURIER_KEYS[1]: wave.imag[:, None],
    }
    for name, value in expected.items():
        filters = state.get(name)
        if filters is None:
            raise UserError(f"{path}: lacks {name}; give a checkpoint as PANNs published it")
        if filters.shape != value.shape or not torch.allclose(
            filters.double(), value.double(), atol=1e-4
        ):
            raise UserError(
                f"{path}: {name} is not that of 16 kHz, {N_FFT} samples and {MELS} mel bands; "
                "give Cnn14_16k_mAP=0.438.pth"
            )
