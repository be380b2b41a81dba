"""What every method that bridges a modality gap is, DiffGAP and its siblings alike.

A method has a *space* (where it compares embeddings: as they are, or centred), *directions* that
its network has learnt, and a way to *carry* embeddings over in these directions. Outside,
embeddings are unit vectors; inside a network they are scaled, to unit variance as a rule.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from diffgap.bridge import bst
from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.denoiser import Denoiser, DenoiserInput
from diffgap.bridge.objective import Batch, Losses
from diffgap.hub import CARD, foreign_card, model_card, write_whole

WEIGHTS, CONFIG, METRICS = "bridge.safetensors", "config.json", "metrics.json"


class Bridge(nn.Module, ABC):
    """A bridge between two modalities of frozen, L2-normalised embeddings.

    Sides are numbered as modalities are: 0 is x, 1 is a. Direction d takes side d to the other.
    """

    auxiliary: ClassVar[str | None] = None
    """What the second part of its loss is, if it has one."""

    denoiser: Denoiser
    """Its network, if it has one."""

    moves_space: ClassVar[bool] = False
    """Whether it compares embeddings elsewhere than where the encoders put them."""

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__()
        self.config = config

    @property
    @abstractmethod
    def directions(self) -> tuple[int, ...]:
        """The directions that its network has learnt; none where there is no network."""

    def fit(self, x: Tensor, a: Tensor) -> None:
        """Takes what is no gradient's business from the training split, (M, D) and (N, D)."""

    def space(self, vectors: Tensor, side: int) -> Tensor:
        """Embeddings of one side, (B, D) unit vectors, in the space where they are compared."""
        return vectors

    def batch(
        self, x: Tensor, a: Tensor, clip: Tensor, step: int, generator: torch.Generator
    ) -> Batch:
        """Training examples of P pairs of unit vectors, (P, D) each; see `make_batch`."""
        raise NotImplementedError(f"{self.config.method} has no network to train")

    def denoiser_input(self, batch: Batch) -> DenoiserInput:
        """What the network is given of a batch, once a step."""
        raise NotImplementedError(f"{self.config.method} has no network to train")

    def losses(self, batch: Batch, given: DenoiserInput, output: Tensor) -> Losses:
        """The training losses of a batch, from what the network was given and its (B, D) output."""
        raise NotImplementedError(f"{self.config.method} has no network to train")

    def forward(self, batch: Batch) -> Losses:
        """The training losses of a batch."""
        given = self.denoiser_input(batch)
        return self.losses(batch, given, self.denoiser(*given))

    def carry(self, source: Tensor, direction: int, score: ScoreConfig) -> Tensor:
        """Carries (B, D) unit vectors of its space over; returns unit vectors of its space."""
        raise NotImplementedError(f"{self.config.method} has no network to carry with")

    @torch.inference_mode()
    def bridge(self, embeddings: Tensor, source: str, *, draws: int = 4, seed: int = 0) -> Tensor:
        """Carries (B, D) unit vectors of one modality over to the other.

        Args:
            embeddings: as the frozen encoder gives them.
            source: the modality they are of.
            draws: noise draws to average over.
            seed: of the noise.

        Returns:
            (B, D) unit vectors: what the other modality's embeddings are expected to be. Methods
            that compare elsewhere (`moves_space`) return them in their own space.

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
        score = ScoreConfig("bridge", draws=draws, seed=seed)
        return self.carry(self.space(embeddings, direction), direction, score)

    def save_pretrained(self, path: str | Path, **facts: Any) -> None:
        """Writes weights and config.json into a directory, made if it is missing.

        Files are whole or absent, config.json is the last. `facts` join the config.
        """
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        config = {**facts, "bridge": asdict(self.config)}
        weights = {name: value.detach().contiguous() for name, value in self.state_dict().items()}
        write_whole(
            {
                path / WEIGHTS: save(weights),
                path / CONFIG: (json.dumps(config, indent=2, sort_keys=True) + "\n").encode(),
            }
        )

    def push(self, folder: str | Path, *, facts: Mapping[str, Any] | None = None) -> None:
        """Writes a folder to share, for `hf upload` or git: the checkpoint and its model card.

        Args:
            folder: made if it is missing; what else is in it stays.
            facts: what is known of the bridge, such as a trial's config.json and metrics; see
                `diffgap.bridge.card`. `metrics` go to metrics.json, the others to config.json.

        Raises:
            ValueError: where the folder has a README.md that is no model card of ours.
        """
        folder, known = Path(folder), dict(facts or {})
        if foreign_card(folder):
            raise ValueError(f"{folder} has a {CARD} that is no model card of diffgap's")
        name = known.get("name") or folder.absolute().name
        card = model_card(self.config, self.directions, name, known)
        metrics = known.pop("metrics", None)
        self.save_pretrained(folder, **known)
        files = {folder / CARD: card.encode()}
        if metrics:
            text = json.dumps(metrics, indent=2, sort_keys=True) + "\n"
            files = {folder / METRICS: text.encode(), **files}
        else:
            (folder / METRICS).unlink(missing_ok=True)
        write_whole(files)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Loads a bridge checkpoint of this class or one below; needs torch and safetensors only.

        Raises:
            FileNotFoundError: where there is no bridge checkpoint.
            ValueError: where it holds another method than this class is of.
        """
        from diffgap.bridge.methods import make_bridge

        path = Path(path)
        if not (path / CONFIG).is_file():
            raise FileNotFoundError(f"{path} holds no {CONFIG}; give a trial's bridge directory")
        fields = json.loads((path / CONFIG).read_text())["bridge"]
        bridge = make_bridge(BridgeConfig.from_dict(fields))
        if not isinstance(bridge, cls):
            raise ValueError(
                f"{path} holds the method {fields['method']}, not {cls.__name__}; "
                "use Bridge.from_pretrained"
            )
        bridge.load_state_dict(load_file(path / WEIGHTS))
        return bridge.eval()


def assigned(config: BridgeConfig, batch: int, step: int) -> tuple[Tensor, Tensor]:
    """The pairs and directions of a step's examples, by the bridge's BST settings."""
    return bst.assign(batch, step, config.bst, config.bst_mode, config.bst_fraction)


def shared_noise(draws: int, dimension: int, seed: int, device: torch.device) -> Tensor:
    """(draws, D) seeded standard normal: the same for every query, candidate and device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((draws, dimension), generator=generator).to(device)


def unit(vectors: Tensor) -> Tensor:
    """(B, D) vectors at length 1."""
    return F.normalize(vectors, dim=-1)
