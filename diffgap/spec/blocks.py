"""The blocks of a trial: every field with its range, default and meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]

ScoreKind = Literal["cosine", "bridge", "sample", "rerank"]


class Model(BaseModel):
    """Unknown keys are mistakes, types are not coerced, and nothing changes after validation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class TSampler(Model):
    kind: Literal["uniform", "power", "logit_normal"] = "power"
    """How training noise times are drawn, from clean (0) to pure noise (1)."""
    power: Positive = 3.0
    """Of `power`: times are 1 - (1 - u)^power; more is skewed to high noise."""
    mean: float = 0.0
    """Of `logit_normal`: mean of the times' logit."""
    std: Positive = 1.0
    """Of `logit_normal`: standard deviation of the times' logit."""


class Weight(Model):
    kind: Literal["uniform", "snr", "min_snr", "sigmoid"] = "uniform"
    """Weight of the denoising loss at each noise level; uniform is 1 for what is predicted."""
    gamma: Positive = 5.0
    """Of `min_snr`: where the weight stops growing."""
    bias: float = -1.0
    """Of `sigmoid`: log-SNR at which half of the noise loss's weight is left."""


class CDM(Model):
    enabled: bool = True
    """Train a conditional diffusion model; without it the network is a deterministic bridge."""
    prediction: Literal["x0", "eps", "v"] = "x0"
    """What the network predicts; the paper's is eps."""
    schedule: Literal["cosine", "linear", "scaled_linear", "sigmoid", "edm", "flow"] = "cosine"
    """Noise schedule."""
    t_sampler: TSampler = TSampler()
    weight: Weight = Weight()


class BST(Model):
    enabled: bool = True
    """Train both directions; without it x->a only."""
    mode: Literal["split", "alternate", "joint"] = "split"
    """How a batch is dealt out to the directions."""
    fraction: Inside = Field(default=0.4, json_schema_extra={"remedy": "use 0.5 for an even split"})
    """Share of the direction x->a."""


class DenoiserOptions(Model):
    width: Annotated[int, Field(ge=8, le=8192)] = 1024
    """Hidden size W."""
    blocks: Annotated[int, Field(ge=1, le=64)] = 4
    """Residual blocks L."""


class Loss(Model):
    denoising_weight: NonNegative = 1.0
    """Weight of the squared error of the prediction; 0 leaves InfoNCE alone."""
    infonce_weight: NonNegative = 0.02
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
    """Pairs a step, over all workers and micro-batches."""
    accumulation: Annotated[int, Field(ge=1, le=4096)] = 1
    """Micro-batches that a worker's share of a step is cut into, to save memory; the result does
    not depend on it."""
    lr: Annotated[float, Field(gt=0, le=1)] = 2e-3
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
    """DeepSpeed's ZeRO stage: what workers share out instead of each holding all of it; 1 the
    optimiser's state, 2 gradients too, 3 weights too."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What waits in the CPU's memory while a GPU computes: the optimiser's state (from zero_stage 1
    on), or the weights as well (zero_stage 3). Without a GPU it has no effect, as the log says."""
    epoch_steps: Annotated[int, Field(ge=1, le=10_000_000)] = 500
    """Steps between validations and checkpoints."""


class Score(Model):
    kind: ScoreKind = "rerank"
    """The most a trial may use: without CDM it falls back to bridge, untrained to cosine."""
    fusion: NonNegative = 1.0
    """Weight of the frozen embeddings' cosine."""
    draws: Annotated[int, Field(ge=1, le=1024)] = 4
    """Noise draws averaged in the posterior mean."""
    top_k: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Candidates a query that are re-ranked."""
    rerank_weight: NonNegative = 24.0
    """Weight of the denoising gain, in unit-variance scaling."""
    levels: Annotated[tuple[Inside, ...], Field(min_length=1)] = (0.2, 0.4, 0.6, 0.8, 0.95)
    """Noise times at which candidates are denoised."""
    sampler: Literal["ddpm", "ddim", "heun", "dpmpp_2m"] = "ddim"
    """How the sample score runs diffusion backwards."""
    sample_steps: Annotated[int, Field(ge=1, le=1000)] = 6
    """Steps of the sampler."""
    start: Literal["noise", "query"] = "noise"
    """Where a sample starts: pure noise, or the query's own embedding noised to `start_t`."""
    start_t: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Noise time at which the query comes in."""
    samples: Annotated[int, Field(ge=1, le=1024)] = 8
    """Samples averaged in the sample score."""
    guidance: Positive = 1.0
    """Classifier-free guidance scale of the sample score; 1 is off."""

    @field_validator("levels", mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


Extractor = Annotated[
    str,
    Field(
        pattern=r"^(soundscape|(vggish|panns)(=.+)?)$",
        json_schema_extra={"remedy": "as in [vggish=/weights/vggish.pth]"},
    ),
]
"""What metrics of sound measure with: NAME, or NAME=WEIGHTS."""


class Generation(Model):
    """Makes a trial one of generation: sound from embeddings, instead of recall."""

    generator: Literal["none", "soundscape", "audioldm", "diff_foley"] = "none"
    """What makes sound of an audio embedding; none is a trial of retrieval."""
    weights: str | None = Field(
        default=None, json_schema_extra={"remedy": "give a path, or a hub id"}
    )
    """The generator's weights: a path or a hub id; soundscape comes with its own."""
    condition: Literal["query", "bridged", "target"] = "bridged"
    """What the generator is given: x's own embedding (the baseline), what the bridge makes of it,
    or the embedding of the true audio (the ceiling)."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    """Steps of the generator's sampler."""
    guidance: Annotated[float, Field(ge=1)] = 2.5
    """Classifier-free guidance scale of the generator; 1 is off."""
    clips: Annotated[int, Field(ge=2, le=1_000_000)] = 200
    """Clips of the split that are generated: those of least hash."""
    extractors: Annotated[tuple[Extractor, ...], Field(min_length=1)] = Field(
        default=("soundscape",), json_schema_extra={"remedy": "as in [vggish=/weights/vggish.pth]"}
    )
    """What the metrics measure with, as NAME or NAME=WEIGHTS."""
    audio: str | None = Field(default=None, json_schema_extra={"remedy": "give a directory"})
    """Where the corpus's real clips are, to compare with; soundscapes needs none."""
    encoder: str | None = Field(default=None, json_schema_extra={"remedy": "give a path"})
    """The checkpoint of the store's encoder, for the similarity of sound and query; soundscape
    comes with its own, and without one other stores go without that figure."""

    @field_validator("extractors", mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class MeanShiftOptions(Model):
    scale: NonNegative = 1.0
    """How far x is moved along the difference of the modality means; 1 is all the way."""


class CloseOptions(Model):
    noise: NonNegative = 0.08
    """Standard deviation of the noise on centred unit vectors while training."""


class DiffusionBridgeOptions(Model):
    radius: Positive = 5.0
    """Length of the embeddings that are diffused."""
    start_t: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Noise time at which the query comes in, without added noise."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 5
    """DDIM steps, each one re-normalised."""


class DiffusionLinkOptions(Model):
    topology_weight: NonNegative = 1.0
    """Weight of the loss that keeps the batch's similarities."""
    start_t: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Noise time at which the query comes in."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 5
    """DDIM steps."""
