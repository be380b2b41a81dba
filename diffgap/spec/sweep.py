"""A sweep's file: the trial that it starts from, and what it varies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, Field

from diffgap.bridge.config import NonNegative, Positive
from diffgap.errors import require
from diffgap.spec.blocks import Model
from diffgap.spec.environment import Environment
from diffgap.spec.tables import TABLES
from diffgap.spec.trial import Split, Task, Trial, TrialSpec
from diffgap.spec.trial import with_values as with_values


def _off(value: Any) -> Any:
    """YAML 1.1 reads a plain ``off`` as false."""
    return "off" if value is False else value


Pack = Annotated[
    Annotated[int, Field(ge=1, le=1024)] | Literal["auto", "off"], BeforeValidator(_off)
]


class Resources(Model):
    workers: Annotated[int, Field(ge=1, le=4096)] = 1
    """Data-parallel workers of one trial."""
    gpus_per_worker: NonNegative = 1.0
    """GPUs of a worker: 1, a fraction (one worker only), or 0; ignored where there are none."""
    cpus_per_worker: Positive = 1.0
    environment: Environment = Field(
        default_factory=dict,
        json_schema_extra={"remedy": "as in environment: {NCCL_SOCKET_IFNAME: eth0}"},
    )
    """Variables for the workers' processes that say how they talk to each other, such as
    NCCL_SOCKET_IFNAME; no part of a trial, for they decide no result."""
    pack: Pack = "auto"
    """Trials that share one Ray Train job: auto spreads them evenly over the room there is, off
    gives each a job with processes of its own."""
    pack_mode: Literal["auto", "in_turn", "batched"] = "auto"
    """How the trials of a pack train: one after another; or at once, as one network with a leading
    trial axis. auto trains in turn on a CPU, and takes the faster of both on a GPU."""


if TYPE_CHECKING:  # as in `blocks`
    TableKind: TypeAlias = str
else:
    TableKind = Literal[tuple(TABLES)]


class ReportOptions(Model):
    tables: Annotated[tuple[TableKind, ...], Field(min_length=1)] = ("ablation",)
    """Tables printed at the end."""


class Dimension(Model):
    """What a search may choose from: a range, or a list of choices."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    """Draw the logarithm evenly."""
    choices: tuple[Any, ...] | None = None

    def holds(self, value: Any) -> bool:
        if self.choices is not None:
            return value in self.choices
        return self.low is not None and self.high is not None and self.low <= value <= self.high

    @property
    def size(self) -> float:
        if self.choices is not None:
            return len(self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return self.high - self.low + 1
        return math.inf

    def distribution(self) -> Any:
        """Optuna's distribution of it; UserError where Optuna is not installed."""
        distributions = require("optuna", "search", "a search").distributions
        if self.choices is not None:
            return distributions.CategoricalDistribution(self.choices)
        of_integers = self.size < math.inf
        kind = distributions.IntDistribution if of_integers else distributions.FloatDistribution
        return kind(self.low, self.high, log=self.log)


class Search(Model):
    """A search for the trial that is best on val, in each point of the axes.

    A suggestion runs with its first seed; if it survives, with the others too, and counts by their
    mean. The best of each point is then evaluated on test.
    """

    kind: Literal["optuna", "random"] = "optuna"
    """optuna is its tree-structured Parzen estimator, multivariate."""
    trials: Annotated[int, Field(ge=1, le=100_000)] = 40
    """Suggestions tried, in each point of the axes; of PBT, the size of its population."""
    metric: Literal["R1", "R5", "R10", "mAP10"] = "R5"
    """What is maximised: the mean of both directions on val."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    space: Annotated[dict[str, Dimension], Field(min_length=1)]
    """Ranges or choices, by trial field."""


class Scheduler(Model):
    """Early stopping of trials that fall behind."""

    kind: Literal["asha", "pbt"] = "asha"
    """Asynchronous successive halving, or population-based training."""
    min_steps: Annotated[int, Field(ge=1, le=10_000_000)] = 500
    """Of `asha`: optimiser steps before a trial may be ended; later rungs are `reduction` times as
    far."""
    reduction: Annotated[int, Field(ge=2, le=16)] = 3
    """Of `asha`: one trial of so many goes on from each rung."""
    interval: Annotated[int, Field(ge=1, le=10_000_000)] = 500
    """Of `pbt`: optimiser steps from one generation to the next; epochs must end there."""
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """Of `pbt`: share of the population that is replaced by changed copies of the best."""

    def rungs(self, steps: int, epoch: int) -> tuple[int, ...]:
        """The validations of a trial at which successive halving may end it."""
        rungs, step = set(), self.min_steps
        while step < steps:
            rungs.add(math.ceil(step / epoch) * epoch)  # trials validate when an epoch ends
            step *= self.reduction
        return tuple(sorted(rung for rung in rungs if rung < steps))


class SweepSpec(Model):
    """A sweep's file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}$")] = Field(
        ..., json_schema_extra={"remedy": "use letters, digits, '_', '-' and '.'"}
    )
    """The sweep's name, and its MLflow experiment's."""
    store: Annotated[str, Field(min_length=1)]
    """A built-in corpus, or the path or URI of an embedding store."""
    task: Task = Field(
        default="text-audio", json_schema_extra={"remedy": "use two modalities as in text-audio"}
    )
    """Which two modalities are bridged, as x-a: of x a clip may have several."""
    split: Split = "test"
    """The split that trained bridges are evaluated on; choices are made on val."""
    trial: TrialSpec = TrialSpec()
    """Any field of a trial; the rest are defaults."""
    axes: dict[str, list[Any]] = Field(default_factory=dict)
    """Values of trial fields, crossed; in a sweep of generation, also of `task`."""
    seeds: Annotated[int, Field(ge=1, le=10_000)] | Annotated[list[int], Field(min_length=1)] = 1
    """How many seeds, counted from 0, or a list of them."""
    search: Search | None = None
    scheduler: Scheduler | None = None
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a trial is tried again, from its latest checkpoint, after a lost worker, node or
    connection."""
    resources: Resources = Resources()
    report: ReportOptions = ReportOptions()

    @property
    def seed_list(self) -> list[int]:
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def score_is_idle(self) -> bool:
        """Whether bridges are trained that the sweep's only score would never use."""
        idle = self.trial.score.kind == "cosine" and "score.kind" not in self.axes
        return idle and any(trial.trains for _, trial in self.points())

    def trials(self) -> list[Trial]:
        """The cross product of the axes, seeds innermost; a search starts from each of them."""
        return [trial for _, trial in self.points()]

    def points(self) -> Iterator[tuple[dict[str, Any], Trial]]:
        """Every point of the axes, with its trials."""
        for values in product(*self.axes.values()):
            point = dict(zip(self.axes, values, strict=True))
            first = self.trial_at(point, seed=0)
            for seed in self.seed_list:
                # A seed changes nothing that validation looks at, and validating is the slow part.
                yield point, first.model_copy(update={"seed": seed})

    def trial_at(self, values: dict[str, Any], seed: int) -> Trial:
        """The trial with these values of its fields; those of a search are scored on val."""
        # A model validates nested dumps in one go; copies of nested models would skip validation.
        tree = with_values({**self.trial.model_dump(), "task": self.task}, values)
        split = "val" if self.search else self.split
        return Trial.model_validate({**tree, "split": split, "seed": seed})

    @property
    def generators(self) -> list[str]:
        """What makes sound in its trials: none, unless they are of generation."""
        return self.axes.get("generation.generator", [self.trial.generation.generator])

    @property
    def tasks(self) -> list[str]:
        """The tasks of its trials: one, unless an axis has several."""
        return self.axes.get("task", [self.task])


def leaf_fields(model: type[BaseModel], prefix: str = "") -> dict[str, tuple[type[BaseModel], str]]:
    """Dotted path of every plain field below a model, with the model and name that hold it."""
    leaves: dict[str, tuple[type[BaseModel], str]] = {}
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            leaves |= leaf_fields(inner, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = (model, name)
    return leaves
