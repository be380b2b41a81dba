"""Numbers that a setting may have and nobody means: refused, or only remarked on.

A field's own range says what can be computed, and every recorded trial is read by it. These ranges
are narrower, and of requests alone: beyond the outer one a table would come out all the same and
mean nothing; beyond the inner one the request is unusual, and its author is told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from diffgap.spec.signature import flatten
from diffgap.spec.sweep import SweepSpec

TINY, HUGE = 1e-9, 1e6
"""Outer range of the size of any number that has none of its own below; 0 is always allowed."""

OUTER = {
    "train.lr": (1e-9, 0.5),  # AdamW's steps are about as large, and so are weights
    "train.weight_decay": (0, 10),
    "loss.temperature": (1e-3, 10),
    "loss.condition_noise": (0, math.inf),  # too much fails at the first step, and says so
    "cdm.t_sampler.power": (0.01, 100),
    "cdm.t_sampler.mean": (-20, 20),  # of a logit: times of 1e-9 and less from either end
    "cdm.t_sampler.std": (0.01, 100),
    "cdm.weight.gamma": (1e-4, 1e5),  # signal-to-noise ratios are in exp(-10) to exp(10)
    "cdm.weight.bias": (-100, 100),
    "score.fusion": (0, 1e4),  # beyond, float32 has no digit left for what it is added to
    "score.rerank_weight": (0, 1e4),
    "score.guidance": (0.01, 100),
    "generation.guidance": (1, 100),
    "mean_shift.scale": (0, 100),
    "close.noise": (0, 100),
    "diffusion_bridge.radius": (1e-3, 1e3),
    "resources.cpus_per_worker": (0.01, 4096),
    "resources.gpus_per_worker": (0.01, 1024),
}
"""By field, the range outside of which a value can only be a mistake."""

INNER = {
    "train.lr": (1e-6, 0.1),
    "train.weight_decay": (0, 1),
    "loss.temperature": (0.01, 1),
    "loss.condition_noise": (0, 10),
    "score.fusion": (0, 100),
    "score.rerank_weight": (0, 1000),
    "score.guidance": (0.1, 20),
    "generation.guidance": (1, 20),
}
"""By field, the range outside of which a value is unusual."""


def mistakes(spec: SweepSpec) -> Iterator[tuple[str, str]]:
    """Fields with numbers that nobody means, and what to do."""
    for field, name, value in _numbers(spec):
        if value and (limits := _limits(name, value)):
            yield field, f"{value!r} can only be a mistake: not {limits}; {_default(name, spec)}"
    lr, decay = max(values_of(spec, "train.lr")), max(values_of(spec, "train.weight_decay"))
    if lr * decay >= 1:
        yield (
            "train.weight_decay",
            f"{decay:g} with train.lr {lr:g} takes more than all of a weight away at each step; "
            "use 0.05",
        )


def _limits(name: str, value: float) -> str | None:
    """What a number is not, though anybody who means it would have it so."""
    low, high = OUTER.get(name, (-HUGE, HUGE))
    if abs(value) < TINY and low <= 0:
        return f"0, nor at least {TINY:g}"
    return None if low <= value <= high else f"in [{low:g}, {high:g}]"


def oddities(spec: SweepSpec) -> Iterator[str]:
    """What is unusual about a spec, one line each, and what it leads to."""
    for field, name, value in _numbers(spec):
        low, high = INNER.get(name, (-math.inf, math.inf))
        is_searched = field.startswith("search.")  # whose ranges may well be wide
        if value and not is_searched and not low <= value <= high:
            yield f"{field}: {value!r} is unusual; common are [{low:g}, {high:g}]"
    steps, epoch = min(values_of(spec, "train.steps")), max(values_of(spec, "train.epoch_steps"))
    is_set = "epoch_steps" in spec.trial.train.model_fields_set
    is_chosen = is_set or "train.epoch_steps" in spec.axes
    if is_chosen and epoch > steps:
        yield (
            f"train.epoch_steps: {epoch} is more than train.steps {steps}, so a trial is validated "
            "once, after its last step, and has no checkpoint to resume from before"
        )


def values_of(spec: SweepSpec, name: str) -> list[Any]:
    """The values that a field has in a sweep, without those of a search."""
    return spec.axes.get(name) or [flatten(spec.trial)[name]]


def _numbers(spec: SweepSpec) -> Iterator[tuple[str, str, float]]:
    """Every number with a fraction: where it stands, its field, and its value."""
    for name, value in flatten(spec.trial).items():
        if name not in spec.axes:
            yield from _floats(name, name, [value])
    for name, values in spec.axes.items():
        yield from _floats(name, name, values)
    for name, dimension in spec.search.space.items() if spec.search else ():
        values = [dimension.low, dimension.high, *(dimension.choices or ())]
        yield from _floats(f"search.space.{name}", name, values)
    for name in ("cpus_per_worker", "gpus_per_worker"):
        field = f"resources.{name}"
        yield from _floats(field, field, [getattr(spec.resources, name)])


def _floats(field: str, name: str, values: list[Any]) -> Iterator[tuple[str, str, float]]:
    for value in values:
        if isinstance(value, list):
            yield from _floats(field, name, value)
        elif isinstance(value, float) or (name in OUTER and isinstance(value, int)):
            yield field, name, value


def _default(name: str, spec: SweepSpec) -> str:
    if name.startswith("resources."):
        default: Any = getattr(type(spec.resources)(), name.removeprefix("resources."))
    else:
        default = flatten(type(spec.trial)())[name]
    return f"the default is {default}"
