"""Settings of a bridge, saved beside its weights; `diffgap.spec.blocks` is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Inside = Annotated[float, Gt(0), Lt(1)]
Share = Annotated[float, Ge(0), Lt(1)]
NoiseTime = Annotated[float, Gt(0), Le(1)]
Steps = Annotated[int, Ge(1), Le(1000)]

ScoreKind = Literal["cosine", "bridge", "sample", "rerank"]
NormaliseKind = Literal["none", "inverted_softmax", "dis", "dual_is", "csls", "nnn", "dn", "invgc"]


class Correction(NamedTuple):
    """The defaults of a hubness correction; None is what it does not read."""

    strength: float | None = None
    neighbours: int | None = None
    pool: float | None = None


CORRECTIONS: dict[NormaliseKind, Correction] = {
    "none": Correction(),
    "inverted_softmax": Correction(20.0),
    "dis": Correction(20.0, 1),
    "dual_is": Correction(20.0),
    "csls": Correction(neighbours=10),
    "nnn": Correction(0.75, 128),
    "dn": Correction(0.5),
    "invgc": Correction(0.1, pool=0.01),
}
"""Defaults are the sources' own (`diffgap.bridge.hubness`); that of `dual_is`, and the
strength of `invgc`, which its authors tune for each corpus, are ours."""


@dataclass(frozen=True)
class LossOptions:
    """The `loss:` block."""

    denoising_weight: NonNegative = 1.0
    """Weight of the squared error of the prediction; 0 leaves InfoNCE alone."""
    infonce_weight: NonNegative = 0.02
    """Weight of InfoNCE on the denoised prediction; 0 is off."""
    temperature: Annotated[float, Gt(0), Le(10)] = 0.05
    """Temperature of InfoNCE."""
    condition_noise: NonNegative = 0.5
    """Standard deviation of the noise on conditions, in unit-variance scaling."""
    condition_dropout: Share = 0.1
    """Probability of the null condition (classifier-free guidance)."""


@dataclass(frozen=True)
class Objective(LossOptions):
    """What training minimises, and what it draws at random: the `loss:` and `cdm:` blocks."""

    prediction: Literal["x0", "eps", "v"] = "x0"
    t_sampler: Literal["uniform", "power", "logit_normal"] = "power"
    power: Positive = 3.0
    t_mean: float = 0.0
    t_std: Positive = 1.0
    weight: Literal["uniform", "snr", "min_snr", "sigmoid"] = "uniform"
    gamma: Positive = 5.0
    bias: float = -1.0


@dataclass(frozen=True)
class ScoreOptions:
    """The `score:` block."""

    kind: ScoreKind = "rerank"
    """The most a trial may use: without CDM it falls back to bridge, untrained to cosine."""
    fusion: NonNegative = 1.0
    """Weight of the frozen embeddings' cosine."""
    draws: Annotated[int, Ge(1), Le(1024)] = 4
    """Noise draws averaged in the posterior mean."""
    top_k: Annotated[int, Ge(1), Le(10_000)] = 20
    """Candidates a query that are re-ranked."""
    rerank_weight: NonNegative = 24.0
    """Weight of the denoising gain, in unit-variance scaling."""
    levels: Annotated[tuple[Inside, ...], MinLen(1), MaxLen(100)] = (0.2, 0.4, 0.6, 0.8, 0.95)
    """Noise times at which candidates are denoised."""
    sampler: Literal["ddpm", "ddim", "heun", "dpmpp_2m"] = "ddim"
    """How the sample score runs diffusion backwards."""
    sample_steps: Steps = 6
    """Steps of the sampler."""
    start: Literal["noise", "query"] = "noise"
    """Where a sample starts: pure noise, or the query's own embedding noised to `start_t`."""
    start_t: NoiseTime = 0.6
    """Noise time at which the query comes in."""
    samples: Annotated[int, Ge(1), Le(1024)] = 8
    """Samples averaged in the sample score."""
    guidance: Positive = 1.0
    """Classifier-free guidance scale of the sample score; 1 is off."""
    normalise: NormaliseKind = "none"
    """Hubness correction of any score, by a bank of the training split's queries."""
    normalise_strength: Annotated[float, Gt(0), Le(1000)] | None = None
    """Temperature b of the correction, or its weight a, l or r; null is its default."""
    normalise_neighbours: Annotated[int, Ge(1), Le(1_000_000)] | None = None
    """Nearest items that the correction reads; null is the correction's default."""
    normalise_pool: Annotated[float, Gt(0), Le(1)] | None = None
    """Share of a bank that the correction reads as nearest; null is the correction's default."""


@dataclass(frozen=True)
class ScoreConfig(ScoreOptions):
    """How pairs are scored."""

    seed: Annotated[int, Ge(0), Lt(2**63)] = 0
    """Of the noise."""


@dataclass(frozen=True)
class BridgeConfig:
    """Every number that training or applying a bridge needs."""

    modalities: tuple[str, str]
    """x and a, such as ("text", "audio")."""
    dimension: Annotated[int, Ge(1), Le(65_536)]
    width: Annotated[int, Ge(0), Le(8192)]
    blocks: Annotated[int, Ge(0), Le(64)]
    cdm: bool
    bst: bool
    method: str = "diffgap"
    bst_mode: Literal["split", "alternate", "joint"] = "split"
    bst_fraction: Inside = 0.4
    schedule: str = "cosine"
    objective: Objective = Objective()
    options: Mapping[str, int | float] = field(default_factory=dict)
    """The method's own settings: a trial's block of the method's name."""
    score: ScoreConfig = ScoreConfig("bridge")
    """How it scores unless asked otherwise."""
