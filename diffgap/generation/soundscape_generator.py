"""Generator of the embedded corpus: AudioLDM's idea at a thousandth of its size.

Latent diffusion of log-mels of two seconds, conditioned on one embedding of the frozen soundscape
encoder; trained on audio embeddings alone, so that conditioning it on a text's or a video's shows
the modality gap. Its latents are principal components of patches, its phases Griffin-Lim's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffgap.audio.griffin_lim import griffin_lim, mel_to_magnitudes
from diffgap.audio.mel import slaney_filterbank
from diffgap.encoders.soundscape import DIMENSION, RATE
from diffgap.errors import require
from diffgap.generation.base import Sampling
from diffgap.generation.latent import noise, sample
from diffgap.pretrained.weights import load_bundled

WEIGHTS = Path(__file__).parent / "weights" / "soundscape.safetensors"
SECONDS = 2.0
N_FFT, HOP, MELS, FRAMES = 1024, 256, 64, 128
LOW, HIGH = 40.0, 8000.0
FLOOR = 1e-3
CENTRE, SCALE = -1.8, 0.64
"""Mean and standard deviation of log10 magnitudes, over the training clips."""
LOUDEST = 1.0  # highest log10 magnitude of a generated clip; no training clip reaches it
ITERATIONS = 16  # of Griffin-Lim: 32 bring FD 0.04 nearer to the real clips, but take twice as long
PATCH, CHANNELS = 8, 16  # pixels a side of a patch, and how many of its 64 components are kept
LATENT = (CHANNELS, MELS // PATCH, FRAMES // PATCH)


class Components(nn.Module):
    """The autoencoder: log-mels to the principal components of their patches, and back.

    Components are divided by the square root of their standard deviations: the strong ones, which
    tell the shape of a sound, stay above its texture, but not by as much.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(PATCH**2))
        self.register_buffer("basis", torch.zeros(CHANNELS, PATCH**2))
        self.register_buffer("scale", torch.ones(CHANNELS))

    def fit(self, mels: Tensor) -> None:
        """Fits the components to (N, 64, 128) log-mels; latents get unit variance over all."""
        patches = F.pixel_unshuffle(mels[:, None], PATCH).transpose(0, 1).flatten(1)
        variances, vectors = torch.linalg.eigh(torch.cov(patches))
        self.mean, self.basis = patches.mean(1), vectors.T.flip(0)[:CHANNELS].contiguous()
        roots = variances.flip(0)[:CHANNELS] ** 0.25
        self.scale = roots * roots.square().mean().sqrt()

    def encode(self, mels: Tensor) -> Tensor:
        """(B, 64, 128) to (B, 16, 8, 16)."""
        patches = F.pixel_unshuffle(mels[:, None], PATCH) - self.mean[:, None, None]
        return torch.einsum("cp,bphw->bchw", self.basis, patches) / self.scale[:, None, None]

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 16, 8, 16) to (B, 64, 128)."""
        patches = torch.einsum("cp,bchw->bphw", self.basis, latents * self.scale[:, None, None])
        return F.pixel_shuffle(patches + self.mean[:, None, None], PATCH)[:, 0]


class Network(nn.Module):
    """(B, 16, 8, 16) noisy latents, (B,) times and (B, 128) conditions to v of the latents' shape.

    A zero condition stands for none, for classifier-free guidance (Ho & Salimans 2022).
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.components, self.unet = Components(), unet

    def forward(self, latents: Tensor, times: Tensor, conditions: Tensor) -> Tensor:
        scaled = conditions * DIMENSION**0.5  # unit variance, as the network's other inputs
        output = self.unet(latents, times, encoder_hidden_states=None, class_labels=scaled)
        v: Tensor = output.sample
        return v


def make_network() -> Network:
    """The network before training."""
    diffusers = require("diffusers", "generate", "the generator soundscape")
    return Network(
        diffusers.UNet2DConditionModel(
            sample_size=LATENT[1:],
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            mid_block_type="UNetMidBlock2D",
            block_out_channels=(96, 192),
            layers_per_block=1,
            norm_num_groups=16,
            attention_head_dim=32,
            resnet_time_scale_shift="scale_shift",
            class_embed_type="projection",
            projection_class_embeddings_input_dim=DIMENSION,
        )
    )


def make_scheduler() -> Any:
    """DPM-Solver++ of second order (Lu et al. 2022) on the cosine schedule, predicting v."""
    diffusers = require("diffusers", "generate", "the generator soundscape")
    return diffusers.DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", lambda_min_clipped=-5.1
    )


def autocast(device: torch.device) -> AbstractContextManager:
    """bfloat16 where the device has matrix units for it."""
    # Elsewhere bfloat16 is slower than float32.
    fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)


def standard_log_mel(samples: Tensor) -> Tensor:
    """(B, up to 32768) samples at 16 kHz to (B, 64, 128) log-mel magnitudes, standardised."""
    padded = F.pad(samples, (0, FRAMES * HOP - samples.shape[-1]))
    window = torch.hann_window(N_FFT, device=samples.device)
    spectra = torch.stft(padded, N_FFT, HOP, window=window, return_complex=True)[..., :FRAMES]
    mels = torch.matmul(filterbank().to(samples.device), spectra.abs())
    return (torch.log10(mels.clamp_min(FLOOR)) - CENTRE) / SCALE


@cache
def filterbank() -> Tensor:
    """(64, 513) Slaney's filters."""
    return slaney_filterbank(RATE, N_FFT, MELS, LOW, HIGH)


class SoundscapeGenerator:
    """The trained network as a frozen generator; use `load`."""

    name = "soundscape"
    dimension = DIMENSION
    tokens: int | None = None
    rate = RATE
    seconds = SECONDS
    defaults = Sampling(steps=25, guidance=2.5)
    batch = 50

    def __init__(self, network: Network, weights_hash: str) -> None:
        self._network = network.eval()
        self.weights_hash = weights_hash

    @classmethod
    def load(cls, device: str = "cpu") -> SoundscapeGenerator:
        """The network with its bundled weights; UserError where diffusers is not installed."""
        network = make_network()
        file_hash = load_bundled(network, WEIGHTS)
        return cls(network.to(device), file_hash)

    @torch.inference_mode()
    def generate(
        self, conditions: np.ndarray, seeds: Sequence[int], sampling: Sampling
    ) -> np.ndarray:
        """(B, 128) unit vectors to (B, 32000) samples."""
        device = next(self._network.parameters()).device
        embeddings = torch.from_numpy(conditions).to(device)
        start = noise(seeds, LATENT).to(device)
        guided = (embeddings, torch.zeros_like(embeddings))
        latents = sample(self._predict_v, make_scheduler(), start, guided, sampling)
        return sounds(self._network.components.decode(latents), seeds)

    def _predict_v(self, latents: Tensor, time: Tensor, conditions: Tensor) -> Tensor:
        with autocast(latents.device):
            v: Tensor = self._network(latents, time.expand(len(latents)), conditions)
        return v.float()


def sounds(mels: Tensor, seeds: Sequence[int]) -> np.ndarray:
    """(B, 64, 128) standardised log-mels to (B, 32000) samples, with phases drawn by seed."""
    bands = 10 ** (mels * SCALE + CENTRE).clamp(max=LOUDEST)
    magnitudes = mel_to_magnitudes(bands, filterbank().to(mels.device))
    sound = griffin_lim(magnitudes, N_FFT, HOP, ITERATIONS, seeds=seeds)
    samples: np.ndarray = sound[:, : int(SECONDS * RATE)].clamp(-1, 1).cpu().numpy()
    return samples
