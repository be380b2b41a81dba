"""What a sweep and a trial are: every field with its range, default and meaning.

A sweep's file is a `SweepSpec`; its `trial:` block a `TrialSpec`; each point of its axes and seeds
a `Trial`, which is all that decides an experiment but the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]

Task = Literal["text-audio", "video-audio"]
ScoreKind = Literal["cosine", "bridge", "sample", "rerank"]


class Model(BaseModel):
    """Unknown keys are mistakes, types are not coerced, and nothing changes after validation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class TSampler(Model):
    power: Positive = 3.0
    """Training noise times are 1 - (1 - u)^power: 1 is uniform, more is skewed to high noise."""


class CDM(Model):
    enabled: bool = True
    """Train a conditional diffusion model; without it the network is a deterministic bridge."""
    prediction: Literal["x0", "eps", "v"] = "x0"
    """What the network predicts; the paper's is eps."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """Noise schedule."""
    t_sampler: TSampler = TSampler()


class BST(Model):
    enabled: bool = True
    """Train both directions; without it x->a only."""
    mode: Literal["split", "alternate", "joint"] = "split"
    """How a batch is dealt out to the directions."""
    fraction: Inside = Field(default=0.5, json_schema_extra={"remedy": "use 0.5 for an even split"})
    """Share of the direction x->a."""


class Denoiser(Model):
    width: Annotated[int, Field(ge=8, le=8192)] = 1024
    """Hidden size W."""
    blocks: Annotated[int, Field(ge=1, le=64)] = 4
    """Residual blocks L."""


class Loss(Model):
    infonce_weight: NonNegative = 0.1
    """Weight of InfoNCE on the denoised prediction; 0 is off."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.05
    """Temperature of InfoNCE."""
    condition_noise: NonNegative = 0.5
    """Standard deviation of the noise on conditions, in unit-variance scaling."""
    condition_dropout: Share = 0.1
    """Probability of the null condition (classifier-free guidance)."""


class Train(Model):
    steps: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=4000, json_schema_extra={"remedy": "give a number of optimiser steps such as 1500"}
    )
    """Optimiser steps."""
    batch_size: Annotated[int, Field(ge=2, le=1_048_576)] = 1024
    """Pairs a step, over all workers."""
    lr: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: NonNegative = 0.05
    lr_schedule: Literal["cosine", "one_cycle"] = "cosine"
    warmup: Share = 0.05
    """Share of the steps that the learning rate rises."""
    ema: Share = 0.998
    """Decay of the averaged weights; 0 is off."""
    gradient_clipping: NonNegative = 1.0
    """Largest gradient norm; 0 is off."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto is bf16 on a GPU and fp32 on a CPU."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 0
    """DeepSpeed's ZeRO stage."""
    epoch_steps: Annotated[int, Field(ge=1)] = 500
    """Steps between validations and checkpoints."""


class Score(Model):
    kind: ScoreKind = "rerank"
    """The most a trial may use: without CDM it falls back to bridge, untrained to cosine."""
    fusion: NonNegative = 1.0
    """Weight of the frozen embeddings' cosine."""
    draws: Annotated[int, Field(ge=1, le=1024)] = 4
    """Noise draws averaged in the posterior mean."""
    top_k: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Candidates a query that are re-ranked."""
    rerank_weight: NonNegative = 3.0
    levels: Annotated[tuple[Inside, ...], Field(min_length=1)] = (0.3, 0.5, 0.7, 0.85, 0.95)
    """Noise times at which candidates are denoised."""
    sample_steps: Annotated[int, Field(ge=1, le=1000)] = 6
    """DDIM steps of the sample score."""
    samples: Annotated[int, Field(ge=1, le=1024)] = 8
    """Samples averaged in the sample score."""
    guidance: Positive = 1.0
    """Classifier-free guidance scale of the sample score; 1 is off."""

    @field_validator("levels", mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class TrialSpec(Model):
    """The `trial:` block."""

    cdm: CDM = CDM()
    bst: BST = BST()
    denoiser: Denoiser = Denoiser()
    loss: Loss = Loss()
    train: Train = Train()
    score: Score = Score()


class Trial(TrialSpec):
    """One experiment, fully resolved: with its store's fingerprint it decides the signature."""

    task: Task
    seed: Annotated[int, Field(ge=0, lt=2**31)]

    @property
    def cell(self) -> str:
        """Its place in the CDM x BST ablation: frozen, bst, cdm or cdm+bst."""
        parts = [n for n, on in (("cdm", self.cdm.enabled), ("bst", self.bst.enabled)) if on]
        return "+".join(parts) or "frozen"

    @property
    def effective_score(self) -> ScoreKind:
        """The score its cell allows, at most `score.kind`."""
        if self.cell == "frozen":
            return "cosine"
        if not self.cdm.enabled and self.score.kind in ("sample", "rerank"):
            return "bridge"
        return self.score.kind


class Resources(Model):
    workers: Annotated[int, Field(ge=1, le=4096)] = 1
    """Data-parallel workers of one trial."""
    gpus_per_worker: NonNegative = 1.0
    """GPUs of a worker: 1, a fraction (one worker only), or 0; ignored where there are none."""
    cpus_per_worker: Positive = 1.0


class Report(Model):
    tables: tuple[Literal["ablation"], ...] = ("ablation",)
    """Tables printed at the end."""

    @field_validator("tables", mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class SweepSpec(Model):
    """A sweep's file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}$")] = Field(
        ..., json_schema_extra={"remedy": "use letters, digits, '_', '-' and '.'"}
    )
    """The sweep's name, and its MLflow experiment's."""
    store: Annotated[str, Field(min_length=1)]
    """A built-in corpus, or the path or URI of an embedding store."""
    task: Task = "text-audio"
    """Which two modalities are bridged."""
    trial: TrialSpec = TrialSpec()
    """Any field of a trial; the rest are defaults."""
    axes: dict[str, list[Any]] = Field(default_factory=dict)
    """Values of trial fields, crossed."""
    seeds: Annotated[int, Field(ge=1, le=10_000)] | Annotated[list[int], Field(min_length=1)] = 1
    """How many seeds, counted from 0, or a list of them."""
    resources: Resources = Resources()
    report: Report = Report()

    @property
    def seed_list(self) -> list[int]:
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def score_is_idle(self) -> bool:
        """Whether bridges are trained that the one score of the sweep would never use."""
        idle = self.trial.score.kind == "cosine" and "score.kind" not in self.axes
        return idle and any(trial.cell != "frozen" for trial in self.trials())

    def trials(self) -> list[Trial]:
        """The cross product of the axes, seeds innermost."""
        return list(self._trials())

    def _trials(self) -> Iterator[Trial]:
        base = self.trial.model_dump()
        for values in product(*self.axes.values()):
            point = with_values(base, dict(zip(self.axes, values, strict=True)))
            first = Trial.model_validate({**point, "task": self.task, "seed": 0})
            for seed in self.seed_list:
                yield first.model_copy(update={"seed": seed})


def with_values(tree: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A copy of a nested mapping with the fields at some dotted paths replaced."""
    copy = dict(tree)
    for path, value in values.items():
        head, _, rest = path.partition(".")
        copy[head] = with_values(copy.get(head, {}), {rest: value}) if rest else value
    return copy


def leaf_fields(model: type[BaseModel], prefix: str = "") -> dict[str, tuple[type[BaseModel], str]]:
    """Dotted path of every plain field below a model, with the model and name that hold it."""
    found: dict[str, tuple[type[BaseModel], str]] = {}
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= leaf_fields(inner, f"{prefix}{name}.")
        else:
            found[prefix + name] = (model, name)
    return found
