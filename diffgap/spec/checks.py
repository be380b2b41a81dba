"""Everything that can be wrong with a sweep, told in one pass.

A field that is wrong is reported and then left at its default, so that the checks of the rest
still run: one misspelt key does not hide an impossible combination.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from diffgap.errors import nearest
from diffgap.spec.blocks import Model
from diffgap.spec.combinations import combinations
from diffgap.spec.document import Document, Key
from diffgap.spec.explain import explained, short
from diffgap.spec.sweep import SweepSpec, leaf_fields
from diffgap.spec.trial import Task, TrialSpec

MAX_TRIALS = 10_000
"""Trials of one sweep, and seeds of a list."""


class OnTask(Model):
    """The one field of a sweep itself that an axis may vary."""

    task: Task = Field(..., json_schema_extra={"remedy": "use two modalities as in text-audio"})


FIELDS: dict[str, tuple[type[BaseModel], str]] = {
    "task": (OnTask, "task"),
    **leaf_fields(TrialSpec),
}
"""What an axis may vary."""

STAND_IN = {"name": "unnamed", "store": "unnamed"}

Stores = Callable[[str], str | None]


def check(document: Document, known_stores: Stores | None) -> SweepSpec | None:
    """Adds all problems to the document; the spec is whole where there are none."""
    tree = copy.deepcopy(document.tree)
    bad = {key for key, _ in document.problems}
    told = _around(bad)
    for key, problem in _field_problems(tree):
        if key not in told:
            document.problems.append((key, problem))
        bad.add(key)
        _drop(tree, key)
    told = _around(bad)
    for key, problem in [*_axis_problems(tree), *_space_problems(tree)]:
        if key not in told:
            document.problems.append((key, problem))
        bad.add(key)
        block = tree["axes"] if key[0] == "axes" else tree["search"]["space"]
        block.pop(str(key[1 if key[0] == "axes" else 2]), None)
    if document.tree.get("search") is not None and not (tree.get("search") or {}).get("space"):
        for name in ("search", "scheduler"):
            tree.pop(name, None)
    try:
        spec = SweepSpec.model_validate({**STAND_IN, **tree})
    except ValidationError:
        assert document.problems, "a spec that fails must have a problem"
        return None
    if known_stores and ("store",) not in bad and (unknown := _unknown(spec.store, known_stores)):
        document.problems.append((("store",), unknown))
    if too_many := _too_many(spec):
        document.problems.append((("axes",), too_many))
        return spec
    for keys, problem in combinations(spec):
        if not bad.intersection(keys):
            document.problems.append((keys[0], problem))
    return spec


def _around(keys: Iterable[Key]) -> set[Key]:
    """The paths and all blocks around them: of a block that lost a value no more need be told."""
    return {key[:end] for key in keys for end in range(1, len(key) + 1)}


def _unknown(store: str, known_stores: Stores) -> str | None:
    """Why a store's name is none; the file system may have a word of its own about it."""
    try:
        return known_stores(store)
    except OSError as error:
        return f"{short(store)}: {error.strerror}; give the path of an embedding store"


def _too_many(spec: SweepSpec) -> str | None:
    """Why a sweep is refused for its size, told without making its trials."""
    count = len(spec.seed_list) * math.prod(len(values) for values in spec.axes.values())
    if count <= MAX_TRIALS:
        return None
    return f"makes {count} trials with its seeds; a sweep has at most {MAX_TRIALS}, so split it"


# Fields -----------------------------------------------------------------------------------------


def _field_problems(tree: dict[str, Any]) -> Iterator[tuple[Key, str]]:
    try:
        SweepSpec.model_validate(tree)
    except ValidationError as error:
        yield from explained(error, SweepSpec)
    seeds = tree.get("seeds")
    if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds):
        return
    if len(set(seeds)) < len(seeds):
        yield ("seeds",), f"{short(seeds)} names a seed twice; keep each once"
    if len(seeds) > MAX_TRIALS:
        yield ("seeds",), f"{len(seeds)} seeds; a sweep has at most {MAX_TRIALS}, so split it"
    if any(not 0 <= seed < 2**31 for seed in seeds):
        yield ("seeds",), f"{short(seeds)} leaves [0, 2147483647]; use small whole numbers"


def _drop(tree: dict[str, Any], key: Key) -> None:
    """Removes a wrong value, so that its default stands in; of a list, the whole list."""
    names = [part for part in key if isinstance(part, str)]
    block: Any = tree
    for name in names[:-1]:
        block = block.get(name) if isinstance(block, dict) else None
    if isinstance(block, dict):
        block.pop(names[-1], None)


# Axes -------------------------------------------------------------------------------------------


def _axis_problems(tree: dict[str, Any]) -> Iterator[tuple[Key, str]]:
    for axis, values in list((tree.get("axes") or {}).items()):
        key: Key = ("axes", axis)
        if problem := _no_field(axis):
            yield key, problem
        elif not values:
            yield key, "is empty; list the values to try"
        elif len(values) > MAX_TRIALS:
            yield key, f"{len(values)} values; a sweep has at most {MAX_TRIALS} trials, so split it"
        elif len({repr(value) for value in values}) < len(values):
            yield key, f"{short(values)} holds a value twice; keep each once"
        else:
            yield from _value_problems(key, axis, values)


def _space_problems(tree: dict[str, Any]) -> Iterator[tuple[Key, str]]:
    """What is wrong with the dimensions of a search."""
    search = tree.get("search")
    space = search.get("space") if isinstance(search, dict) else None
    for name, dimension in list((space or {}).items()):
        key: Key = ("search", "space", name)
        if problem := _no_field(name) or _no_dimension(dimension):
            yield key, problem
        elif dimension.get("choices") is not None:
            yield from _value_problems((*key, "choices"), name, dimension["choices"])
        else:
            yield from _value_problems(key, name, [dimension["low"], dimension["high"]])


def _no_dimension(dimension: dict[str, Any]) -> str | None:
    """What is wrong with a range or a list of choices, whatever the field is."""
    low, high, choices = (dimension.get(part) for part in ("low", "high", "choices"))
    if choices is not None and low is None and high is None:
        if not choices:
            return "choices is empty; list the values to choose from"
        if len({repr(value) for value in choices}) < len(choices):
            return f"choices {short(choices)} holds a value twice; keep each once"
        return None
    if choices is not None or low is None or high is None:
        return "needs low and high, or choices; as in {low: 0.1, high: 0.9}"
    if not low < high:
        return f"low {low} is not below high {high}; swap them"
    if dimension.get("log") and low <= 0:
        return f"low {low} has no logarithm; use one above 0, or log: false"
    return None


def _no_field(name: str) -> str | None:
    """What is wrong with the path of a trial's field; None where it is one."""
    if name in FIELDS:
        return None
    inside = [field for field in FIELDS if field.startswith(f"{name}.")]
    hint = f"it is a block; use {inside[0]}" if inside else nearest(name, FIELDS)
    if hint.startswith("known"):
        hint = f"fields begin with {', '.join(TrialSpec.model_fields)}"
    return f"no field of a trial; {hint}"


def _value_problems(key: Key, field: str, values: list[Any]) -> Iterator[tuple[Key, str]]:
    model, name = FIELDS[field]
    for i, value in enumerate(values):
        try:
            model.model_validate({name: value})
        except ValidationError as error:
            for _, problem in explained(error, model):
                yield (*key, i), problem
