"""Common interface of the methods that bridge a modality gap, DiffGAP and its siblings alike.

A method has a *space* in which it compares embeddings (as they are, or centred), the *directions*
that its network has learnt, and a way to *carry* embeddings over in these directions. Its callers
hold unit vectors; inside a network they are scaled, as a rule to unit variance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import save
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.denoiser import Denoiser, DenoiserInput
from diffgap.bridge.files import (
    CONFIG,
    METRICS,
    WEIGHTS,
    check_config,
    check_finite,
    read_config,
    read_weights,
)
from diffgap.bridge.objective import Batch, Losses
from diffgap.bridge.registry import bridge_class
from diffgap.hub import CARD, foreign_card, model_card, write_whole
from diffgap.io.json_text import json_text


class Bridge(nn.Module, ABC):
    """A bridge between two modalities of frozen, L2-normalised embeddings.

    Sides are numbered as modalities are: 0 is x, 1 is a. Direction d takes side d to the other.
    """

    auxiliary: ClassVar[str | None] = None
    """Name of the second part of its loss, if it has one."""

    denoiser: Denoiser
    """Its network, if it has one."""

    moves_space: ClassVar[bool] = False
    """Whether it compares embeddings in another space than the encoders'."""

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__()
        self.config = config

    @property
    @abstractmethod
    def directions(self) -> tuple[int, ...]:
        """The directions that its network has learnt; empty without a network."""

    @property
    def device(self) -> torch.device:
        """Where its weights are; the CPU for a method without any."""
        tensor = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device

    def fit(self, x: Tensor, a: Tensor, owner: Tensor) -> None:
        """Computes statistics of the training split before the first step.

        x is (M, D), a is (N, D), and row i of x belongs to row ``owner[i]`` of a, (M,).
        """

    def space(self, vectors: Tensor, side: int) -> Tensor:
        """(B, D) unit vectors of one side, in the space where they are compared."""
        return vectors

    def batch(
        self,
        x: Tensor,
        a: Tensor,
        clip: Tensor,
        step: int,
        generator: Generator,
        average: Bridge | None = None,
    ) -> Batch:
        """Training examples from P pairs of unit vectors, (P, D) each; see `make_batch`.

        `average` is the bridge with its averaged weights, for methods that take targets from it.
        """
        raise NotImplementedError(f"{self.config.method} has no network to train")

    def denoiser_input(self, batch: Batch) -> DenoiserInput:
        """What the network sees of a batch; called once a step."""
        raise NotImplementedError(f"{self.config.method} has no network to train")

    def losses(self, batch: Batch, inputs: DenoiserInput, output: Tensor) -> Losses:
        """The training losses of a batch, from the network's inputs and its (B, D) output."""
        raise NotImplementedError(f"{self.config.method} has no network to train")

    def forward(self, batch: Batch) -> Losses:
        """The training losses of a batch."""
        inputs = self.denoiser_input(batch)
        return self.losses(batch, inputs, self.denoiser(*inputs))

    def carry(self, source: Tensor, direction: int, score: ScoreConfig) -> Tensor:
        """Carries (B, D) unit vectors of its space over; returns unit vectors of its space."""
        raise NotImplementedError(f"{self.config.method} has no network to carry with")

    @torch.inference_mode()
    def bridge(self, embeddings: Tensor, source: str, *, draws: int = 4, seed: int = 0) -> Tensor:
        """Carries (B, D) unit vectors of one modality over to the other.

        Args:
            embeddings: as the frozen encoder returns them.
            source: their modality.
            draws: noise draws to average over.
            seed: of the noise.

        Returns:
            (B, D) unit vectors, the expected embeddings of the other modality. Methods that
            compare elsewhere (`moves_space`) return them in their own space.

        Raises:
            ValueError: where `source` is none of the bridge's modalities, or its direction was
                not trained.
        """
        modalities = self.config.modalities
        if source not in modalities:
            joined = " and ".join(modalities)
            raise ValueError(f"source: {source!r} is not bridged here; this bridge joins {joined}")
        direction = modalities.index(source)
        if direction not in self.directions:
            raise ValueError(
                f"source: this bridge was not trained from {source}; train one with bst.enabled"
            )
        score = ScoreConfig("bridge", draws=draws, seed=seed)
        return self.carry(self.space(embeddings, direction), direction, score)

    def save_pretrained(self, path: str | Path, **facts: Any) -> None:
        """Writes the weights and config.json into a directory, creating it if necessary.

        Files are whole or absent, and config.json is written last. `facts` join the config.

        Raises:
            ValueError: where a weight is not finite, or the bridge could not be loaded again.
        """
        path = Path(path)
        files = self._files(path, facts)
        path.mkdir(parents=True, exist_ok=True)
        write_whole(files)

    def _files(self, path: Path, facts: Mapping[str, Any]) -> dict[Path, bytes]:
        """The files of a saved bridge, by their places; config.json is the last."""
        check_config(self.config)
        weights = {name: value.detach().contiguous() for name, value in self.state_dict().items()}
        check_finite(weights, "the bridge")
        config = {**facts, "bridge": asdict(self.config)}
        return {path / WEIGHTS: save(weights), path / CONFIG: _json_bytes(config)}

    def push(self, folder: str | Path, *, facts: Mapping[str, Any] | None = None) -> None:
        """Writes a folder to share, for `hf upload` or git: the checkpoint and its model card.

        Args:
            folder: created if it is missing; other files in it stay.
            facts: what is recorded of the bridge, such as a trial's config.json and metrics; see
                `diffgap.hub`. `metrics` go to metrics.json, the others to config.json.

        Raises:
            ValueError: where the folder has a README.md that is no model card of ours, or a
                weight or a fact is not finite.
        """
        folder, config_facts = Path(folder), dict(facts or {})
        if foreign_card(folder):
            raise ValueError(f"{folder} has a {CARD} that is no model card of diffgap's")
        name = config_facts.get("name") or folder.absolute().name
        card = model_card(self.config, self.directions, name, config_facts)
        metrics = config_facts.pop("metrics", None)
        files = {folder / METRICS: _json_bytes(metrics)} if metrics else {}
        files |= {folder / CARD: card.encode(), **self._files(folder, config_facts)}
        folder.mkdir(parents=True, exist_ok=True)
        if not metrics:
            (folder / METRICS).unlink(missing_ok=True)  # an earlier push may have had some
        write_whole(files)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Loads a bridge of this class or a subclass; needs torch and safetensors only.

        Raises:
            FileNotFoundError: where there is no bridge checkpoint.
            ValueError: where the checkpoint is of another class, or anything in its files is
                missing, unknown, out of its bounds, of another shape or not finite.
        """
        path = Path(path)
        config = read_config(path)
        saved_class = bridge_class(config.method)
        if not issubclass(saved_class, cls):
            raise ValueError(
                f"{path} holds the method {config.method}, not {cls.__name__}; "
                "use Bridge.from_pretrained"
            )
        with torch.device("meta"):  # its shapes alone, until the file is known to have them
            shapes = saved_class(config).state_dict()
        weights = read_weights(path, shapes)
        bridge = saved_class(config)
        bridge.load_state_dict(weights)
        return bridge.eval()


def shared_noise(draws: int, dimension: int, seed: int, device: torch.device) -> Tensor:
    """(draws, D) seeded standard normal: the same for every query, candidate and device."""
    generator = torch.Generator().manual_seed(seed)  # a GPU's generator draws other numbers
    return torch.randn((draws, dimension), generator=generator).to(device)


def unit(vectors: Tensor) -> Tensor:
    """(B, D) vectors scaled to length 1."""
    return F.normalize(vectors, dim=-1)


def _json_bytes(value: object) -> bytes:
    return (json_text(value, indent=2, sort_keys=True) + "\n").encode()
