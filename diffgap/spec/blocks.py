"""The blocks of a trial: a bridge's settings, and those of training and generation alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator

from diffgap.bridge.config import (
    BridgeConfig,
    Inside,
    LossOptions,
    NonNegative,
    Objective,
    Positive,
    ScoreOptions,
    Share,
)
from diffgap.bridge.registry import METHODS
from diffgap.bridge.schedules import SCHEDULES

# For pydantic the choices are those of the registries; type checkers cannot follow that.
if TYPE_CHECKING:
    ScheduleName: TypeAlias = str
    MethodName: TypeAlias = str
else:
    ScheduleName = Literal[tuple(SCHEDULES)]
    MethodName = Literal[tuple(METHODS)]


class Model(BaseModel):
    """Unknown keys are mistakes, types are not coerced, and nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # The fields that are tuples: YAML has lists only, which strict validation refuses for them. By
    # name, since a validator of all fields doubles the time that a large sweep takes to check.
    @field_validator(
        "changes", "choices", "extractors", "levels", "tables", mode="before", check_fields=False
    )
    @classmethod
    def _tuple_from_list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class TSampler(Model):
    kind: Literal["uniform", "power", "logit_normal"] = "power"
    """How training noise times are drawn, from clean (0) to pure noise (1)."""
    power: Positive = Objective.power
    """Of `power`: times are 1 - (1 - u)^power; more is skewed to high noise."""
    mean: float = Objective.t_mean
    """Of `logit_normal`: mean of the times' logit."""
    std: Positive = Objective.t_std
    """Of `logit_normal`: standard deviation of the times' logit."""


class Weight(Model):
    kind: Literal["uniform", "snr", "min_snr", "sigmoid"] = "uniform"
    """Weight of the denoising loss at each noise level; uniform is 1 for what is predicted."""
    gamma: Positive = Objective.gamma
    """Of `min_snr`: where the weight stops growing."""
    bias: float = Objective.bias
    """Of `sigmoid`: log-SNR at which half of the noise loss's weight is left."""


class CDM(Model):
    enabled: bool = True
    """Train a conditional diffusion model; without it the network is a deterministic bridge."""
    prediction: Literal["x0", "eps", "v"] = "x0"
    """What the network predicts; the paper's is eps."""
    schedule: ScheduleName = BridgeConfig.schedule
    """Noise schedule."""
    t_sampler: TSampler = TSampler()
    weight: Weight = Weight()


class BST(Model):
    enabled: bool = True
    """Train both directions; without it x->a only."""
    mode: Literal["split", "alternate", "joint"] = "split"
    """How a batch is dealt out to the directions."""
    fraction: Inside = Field(
        default=BridgeConfig.bst_fraction, json_schema_extra={"remedy": "use 0.5 for an even split"}
    )
    """Share of the direction x->a."""


class DenoiserOptions(Model):
    width: Annotated[int, Field(ge=8, le=8192)] = 1024
    """Hidden size W."""
    blocks: Annotated[int, Field(ge=1, le=64)] = 4
    """Residual blocks L."""


class Loss(Model, LossOptions):  # type: ignore[misc]  # frozen by its config, which mypy misses
    """See `LossOptions`."""


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


class Score(Model, ScoreOptions):  # type: ignore[misc]
    """See `ScoreOptions`."""


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


OPTION_BLOCKS: dict[str, type[Model]] = {}
"""The blocks of the methods that have settings of their own, by the method's name."""

for _method in METHODS.values():
    if _method.options:
        OPTION_BLOCKS[_method.name] = create_model(
            _method.options.__name__, __base__=(Model, _method.options), __module__=__name__
        )
