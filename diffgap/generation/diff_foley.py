"""Diff-Foley as a generator: sound from CAVP tokens, four of them a second.

Luo et al., Diff-Foley: Synchronized Video-to-Audio Synthesis with Latent Diffusion Models (NeurIPS
2023). The checkpoint is ``ldm_epoch240.ckpt`` of the hub's SimianLuo/Diff-Foley; its second
guidance, by a classifier of alignment, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffgap.audio.griffin_lim import griffin_lim, mel_to_magnitudes
from diffgap.audio.mel import slaney_filterbank
from diffgap.errors import UserError, require
from diffgap.generation.base import Sampling
from diffgap.generation.latent import noise, sample
from diffgap.generation.ldm_layout import Checkpoint, unet_config, unet_name, vae_config, vae_name
from diffgap.pretrained.weights import weights_hash

DIMENSION, TOKENS = 512, 32  # of CAVP: eight seconds of it
RATE, N_FFT, HOP = 16_000, 1024, 256
MELS, FRAMES = 128, 512
LOW, HIGH = 125.0, 7600.0
HEADS = 8  # of the U-Net's attention; shapes of weights do not show how many
LATENT_SCALE = 0.18215  # latents were multiplied by it in training, to unit variance
CONDITION = "cond_stage_model."


class Conditioner(nn.Module):
    """CAVP tokens to the U-Net's context: projected, with positions."""

    def __init__(self, width: int, positions: int) -> None:
        super().__init__()
        self.embedder = nn.Sequential(nn.Linear(DIMENSION, width))
        self.pos_emb = nn.Embedding(positions, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, 512) unit vectors to (B, T, width)."""
        return self.embedder(tokens) + self.pos_emb.weight[: tokens.shape[1]]


class LatentDiffusion(nn.Module):
    """The three networks of the checkpoint."""

    def __init__(self, unet: Any, vae: Any, condition: Conditioner) -> None:
        super().__init__()
        self.unet, self.vae, self.condition = unet, vae, condition

    def noise(self, latents: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """The noise in (B, 4, 16, 64) latents, given (B, 32, width)."""
        return self.unet(latents, time, encoder_hidden_states=context).sample

    def mel(self, latents: Tensor) -> Tensor:
        """(B, 4, 16, 64) latents to (B, 128, 512) in [0, 1], as mel spectra were in training."""
        # A mel spectrum was given to all three channels of an autoencoder of pictures.
        return self.vae.decode(latents / LATENT_SCALE).sample[:, 0].clamp(0, 1)


class DiffFoley:
    """A frozen generator; use `load`."""

    name = "diff_foley"
    dimension = DIMENSION
    tokens: int | None = TOKENS
    rate = RATE
    seconds = FRAMES * HOP / RATE
    defaults = Sampling(steps=25, guidance=4.5)
    batch = 8

    def __init__(self, model: LatentDiffusion, scheduler: Any) -> None:
        self._model, self._scheduler = model.eval(), scheduler
        self._mel = slaney_filterbank(RATE, N_FFT, MELS, LOW, HIGH).to(self._device)
        self.weights_hash = weights_hash(model)

    @classmethod
    def load(cls, weights: str | None, device: str = "cpu") -> DiffFoley:
        """Loads a file of the layout of ldm_epoch240.ckpt.

        Raises:
            UserError: where there is none, or a weight is missing, unexpected or misshapen.
        """
        if weights is None:
            raise UserError(
                "--weights: missing; give the path of ldm_epoch240.ckpt (hub: SimianLuo/Diff-Foley)"
            )
        diffusers = require("diffusers", "generate", "the generator diff_foley")
        checkpoint = Checkpoint.read(Path(weights))
        scheduler = _scheduler(diffusers)
        if checkpoint.betas is not None and not _same_schedule(checkpoint.betas, scheduler.betas):
            raise UserError(f"{weights}: betas are not those of Diff-Foley's noise schedule")
        return cls(_model(diffusers, checkpoint).to(device), scheduler)

    @torch.inference_mode()
    def generate(
        self, conditions: np.ndarray, seeds: Sequence[int], sampling: Sampling
    ) -> np.ndarray:
        """(B, 32, 512) CAVP tokens to (B, 131072) samples at 16 kHz, each clip from its seed."""
        assert conditions.shape == (len(seeds), TOKENS, DIMENSION), "32 tokens and a seed a clip"
        latents = self._latents(conditions, seeds, sampling)
        return np.asarray(torch.cat(list(map(self._sound, latents, seeds))).cpu())

    @property
    def _device(self) -> torch.device:
        return self._model.condition.pos_emb.weight.device

    def _latents(self, conditions: np.ndarray, seeds: Sequence[int], sampling: Sampling) -> Tensor:
        context = self._model.condition(torch.from_numpy(conditions).float().to(self._device))
        vae = self._model.vae.config
        halved = 2 ** (len(vae.block_out_channels) - 1)
        shape = (vae.latent_channels, MELS // halved, FRAMES // halved)
        # The unconditional context is zeros after the projection, as in Diff-Foley's inference.
        return sample(
            self._model.noise,
            self._scheduler,
            noise(seeds, shape).to(self._device),
            (context, torch.zeros_like(context)),
            sampling,
        )

    def _sound(self, latent: Tensor, seed: int) -> Tensor:
        """(4, 16, 64) to (1, 131072) samples."""
        # One clip at a time: a batch rounds otherwise, and Griffin-Lim makes roundings audible.
        mel = self._model.mel(latent[None])
        # 0 to 1 stood for -100 to 0 decibels: of 20 log10 of the bands, less 20.
        magnitudes = mel_to_magnitudes(10 ** (5 * mel - 4), self._mel)
        # One frame more makes a whole number of hops out of a whole number of frames.
        longer = F.pad(magnitudes, (0, 1), mode="replicate")
        return griffin_lim(longer, N_FFT, HOP, seeds=[seed]).clamp(-1, 1)


def _model(diffusers: Any, checkpoint: Checkpoint) -> LatentDiffusion:
    """The networks with the checkpoint's weights, and of their sizes."""
    unet, vae = unet_config(checkpoint, HEADS), vae_config(checkpoint)
    positions = max(TOKENS, checkpoint.size(f"{CONDITION}pos_emb.weight", 0))
    with torch.device("meta"):
        model = LatentDiffusion(
            diffusers.UNet2DConditionModel(**unet),
            diffusers.AutoencoderKL(**vae),
            Conditioner(unet["cross_attention_dim"], positions),
        )
    layout_names = {"unet": unet_name(unet), "vae": vae_name(vae), "condition": CONDITION.__add__}
    names = {}
    for parameter in model.state_dict():
        part, _, name = parameter.partition(".")
        names[layout_names[part](name)] = parameter
    checkpoint.load_into(model, names)
    return model


def _scheduler(diffusers: Any) -> Any:
    """DPM-Solver++ of second order (Lu et al., 2022), down to the smallest noise trained with."""
    return diffusers.DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.0120,
        beta_schedule="scaled_linear",
        algorithm_type="dpmsolver++",
        solver_order=2,
        timestep_spacing="linspace",
        final_sigmas_type="sigma_min",
    )


def _same_schedule(betas: Tensor, others: Tensor) -> bool:
    return betas.shape == others.shape and torch.allclose(betas.float(), others, rtol=1e-3)
