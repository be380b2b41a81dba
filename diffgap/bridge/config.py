"""What a bridge is made of: plain data, saved beside its weights.

Fields mean what they mean in a trial's blocks of the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Objective:
    """What training minimises, and what it draws at random."""

    prediction: str = "x0"
    t_sampler: str = "power"
    power: float = 3.0
    t_mean: float = 0.0
    t_std: float = 1.0
    weight: str = "uniform"
    gamma: float = 5.0
    bias: float = -1.0
    denoising_weight: float = 1.0
    infonce_weight: float = 0.02
    temperature: float = 0.05
    condition_noise: float = 0.5
    condition_dropout: float = 0.1


@dataclass(frozen=True)
class ScoreConfig:
    """How pairs are scored."""

    kind: str
    fusion: float = 1.0
    draws: int = 4
    top_k: int = 20
    rerank_weight: float = 24.0
    levels: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 0.95)
    sampler: str = "ddim"
    sample_steps: int = 6
    start: str = "noise"
    start_t: float = 0.6
    samples: int = 8
    guidance: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class BridgeConfig:
    """Every number that training or applying a bridge needs."""

    modalities: tuple[str, str]
    """x and a, such as ("text", "audio")."""
    dimension: int
    width: int
    blocks: int
    cdm: bool
    bst: bool
    method: str = "diffgap"
    bst_mode: str = "split"
    bst_fraction: float = 0.4
    schedule: str = "cosine"
    objective: Objective = Objective()
    options: Mapping[str, float] = field(default_factory=dict)
    """What the method alone has: a trial's block of the method's name."""
    score: ScoreConfig = ScoreConfig("bridge")
    """How it scores unless asked otherwise."""

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> BridgeConfig:
        """The config that `dataclasses.asdict` made a mapping of, through JSON or not."""
        score = {**fields["score"], "levels": tuple(fields["score"]["levels"])}
        nested = {
            "modalities": tuple(fields["modalities"]),
            "objective": Objective(**fields["objective"]),
            "score": ScoreConfig(**score),
        }
        return cls(**{**fields, **nested})
