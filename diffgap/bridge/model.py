"""DiffGAP itself: a denoiser with what it takes to train it, apply it, save it and load it.

    bridge = DiffGAP.from_pretrained("runs/trials/0123456789ab/bridge")
    audio_like = bridge.bridge(text_embeddings, source="text")

Outside, embeddings are unit vectors; inside, they are scaled by sqrt(D) to unit variance.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from diffgap.bridge import bst
from diffgap.bridge.denoiser import Denoiser, Modulation
from diffgap.bridge.objective import (
    Batch,
    Losses,
    deterministic_bridge,
    deterministic_losses,
    diffusion_losses,
    make_batch,
)
from diffgap.bridge.predictions import clean_estimate
from diffgap.bridge.samplers import ddim
from diffgap.bridge.schedules import LOG_SNR_MAX, SCHEDULES, NoiseLevel, noise_level

WEIGHTS, CONFIG = "bridge.safetensors", "config.json"


@dataclass(frozen=True)
class BridgeConfig:
    """What a bridge is made of; every number that training or applying it needs."""

    modalities: tuple[str, str]
    """x and a, such as ("text", "audio")."""
    dimension: int
    width: int
    blocks: int
    cdm: bool
    bst: bool
    bst_mode: str = "split"
    bst_fraction: float = 0.5
    schedule: str = "cosine"
    prediction: str = "x0"
    power: float = 3.0
    condition_noise: float = 0.5
    condition_dropout: float = 0.1
    infonce_weight: float = 0.1
    temperature: float = 0.05

    @property
    def trained(self) -> bool:
        """False for the frozen baseline, which has no network."""
        return self.cdm or self.bst


class DiffGAP(nn.Module):
    """A bridge between two modalities of frozen, L2-normalised embeddings.

    With CDM it is a conditional diffusion model; without CDM but with BST the same network as a
    deterministic bridge; with neither it is the frozen baseline, and has no weights.
    """

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = SCHEDULES[config.schedule]
        self.scale = config.dimension**0.5
        if config.trained:
            self.denoiser = Denoiser(config.dimension, config.width, config.blocks)

    @property
    def directions(self) -> tuple[int, ...]:
        """The directions this bridge has learnt."""
        return bst.directions_trained(self.config.bst) if self.config.trained else ()

    # Training ---------------------------------------------------------------------------------

    def batch(
        self, x: Tensor, a: Tensor, clip: Tensor, step: int, generator: torch.Generator
    ) -> Batch:
        """Denoising examples of P pairs of unit vectors, (P, D) each; see `make_batch`."""
        config = self.config
        pairs, direction = bst.assign(
            len(x), step, config.bst, config.bst_mode, config.bst_fraction
        )
        return make_batch(
            x * self.scale,
            a * self.scale,
            clip,
            pairs.to(x.device),
            direction.to(x.device),
            power=config.power,
            condition_noise=config.condition_noise,
            condition_dropout=config.condition_dropout,
            generator=generator,
        )

    def forward(self, batch: Batch) -> Losses:
        """The training losses of a batch."""
        config = self.config
        contrastive: dict[str, float] = {
            "infonce_weight": config.infonce_weight,
            "temperature": config.temperature,
        }
        if not config.cdm:
            return deterministic_losses(self.denoiser, batch, **contrastive)
        return diffusion_losses(
            self.denoiser,
            batch,
            schedule=self.schedule,
            prediction=config.prediction,
            **contrastive,
        )

    # Applying (all of it in unit-variance scaling) ----------------------------------------------

    def modulation(self, condition: Tensor, direction: int, log_snr: Tensor) -> Modulation:
        """The conditioning side for (B, D) conditions, one direction, one noise level."""
        rows = len(condition)
        which = torch.full((rows,), direction, device=condition.device)
        return self.denoiser.modulation(log_snr.expand(rows), which, condition)

    def clean(self, z: Tensor, log_snr: Tensor, modulation: Modulation) -> Tensor:
        """The clean target estimated from (B, D) noisy ones at one noise level."""
        level: NoiseLevel = noise_level(log_snr)
        output = self.denoiser.denoise(z, modulation)
        return clean_estimate(self.config.prediction, output, z, level)

    def posterior_mean(self, condition: Tensor, direction: int, noise: Tensor) -> Tensor:
        """The expected target given its (B, D) conditions: denoised from (K, D) shared draws.

        Starts at the highest noise level, where the input carries nothing of the target, and
        averages over the K draws. A deterministic bridge has nothing to average.
        """
        if not self.config.cdm:
            which = torch.full((len(condition),), direction, device=condition.device)
            return deterministic_bridge(self.denoiser, which, condition)
        log_snr = condition.new_tensor(-LOG_SNR_MAX)
        modulation = self.modulation(condition, direction, log_snr)
        draws = [self.clean(z.expand_as(condition), log_snr, modulation) for z in noise]
        return torch.stack(draws).mean(0)

    def sample(
        self, condition: Tensor, direction: int, noise: Tensor, steps: int, guidance: float
    ) -> Tensor:
        """Mean of K full reverse-diffusion samples per condition, from (K, D) shared draws.

        Args:
            condition: (B, D).
            direction: index of `bst.DIRECTIONS`.
            noise: (K, D) standard normal, where the K paths of every condition start.
            steps: DDIM steps.
            guidance: classifier-free guidance scale (Ho & Salimans 2022); 1 is off.
        """
        null = self.denoiser.null(len(condition))

        def estimate(z: Tensor, log_snr: Tensor) -> Tensor:
            guided = self.clean(z, log_snr[0], self.modulation(condition, direction, log_snr[0]))
            if guidance == 1.0:
                return guided
            free = self.clean(z, log_snr[0], self.modulation(null, direction, log_snr[0]))
            return free + guidance * (guided - free)

        paths = [ddim(estimate, z.expand_as(condition), self.schedule, steps) for z in noise]
        return torch.stack(paths).mean(0)

    @torch.inference_mode()
    def bridge(self, embeddings: Tensor, source: str, *, draws: int = 4, seed: int = 0) -> Tensor:
        """Carries (B, D) unit vectors of one modality over to the other.

        Returns unit vectors: the posterior mean of the target, averaged over `draws` noise draws.

        Raises:
            ValueError: where `source` is none of the bridge's modalities, or its direction was
                not trained.
        """
        if source not in self.config.modalities:
            known = " and ".join(self.config.modalities)
            raise ValueError(f"source: {source!r} is not bridged here; this bridge joins {known}")
        direction = self.config.modalities.index(source)
        if direction not in self.directions:
            raise ValueError(
                f"source: this bridge was not trained from {source}; train one with bst.enabled"
            )
        noise = shared_noise(draws, self.config.dimension, seed, embeddings.device)
        return F.normalize(self.posterior_mean(embeddings * self.scale, direction, noise), dim=-1)

    # Saving and loading -------------------------------------------------------------------------

    def save_pretrained(self, path: Path, **facts: Any) -> None:
        """Writes weights and config.json into an existing directory; `facts` join the config."""
        config = {"bridge": asdict(self.config), **facts}
        (path / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        weights = {name: value.detach().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, path / WEIGHTS)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> DiffGAP:
        """Loads a bridge checkpoint; needs torch and safetensors only.

        Raises:
            FileNotFoundError: where there is no bridge checkpoint.
        """
        path = Path(path)
        if not (path / CONFIG).is_file():
            raise FileNotFoundError(f"{path} holds no {CONFIG}; give a trial's bridge directory")
        fields = json.loads((path / CONFIG).read_text())["bridge"]
        fields["modalities"] = tuple(fields["modalities"])
        bridge = cls(BridgeConfig(**fields))
        bridge.load_state_dict(load_file(path / WEIGHTS))
        return bridge.eval()


def shared_noise(draws: int, dimension: int, seed: int, device: torch.device) -> Tensor:
    """(draws, D) seeded standard normal: the same for every query, candidate and device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((draws, dimension), generator=generator).to(device)
