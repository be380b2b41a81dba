"""Checks of a sweep file, which report all its mistakes in one pass.

A wrong value is reported and then replaced by its default, so that the other checks still run: a
misspelt key does not hide an impossible combination.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import Field, ValidationError

from diffgap.errors import nearest
from diffgap.spec.blocks import Model
from diffgap.spec.combinations import combinations
from diffgap.spec.document import Document, Key
from diffgap.spec.explain import explain_errors, short
from diffgap.spec.sweep import SweepSpec, leaf_fields
from diffgap.spec.trial import Task, TrialSpec

MAX_TRIALS = 10_000
"""Trials of one sweep, and seeds of a list."""

PLACEHOLDERS = {"name": "unnamed", "store": "unnamed"}
"""Stand in for required fields that are missing, so that the rest can be checked."""


class TaskAxis(Model):
    """The only field outside `trial` that an axis may vary."""

    task: Task = Field(..., json_schema_extra={"remedy": "use two modalities as in text-audio"})


AXIS_FIELDS = leaf_fields(TrialSpec) | {"task": (TaskAxis, "task")}
"""What an axis may vary: the model and the name that hold each field."""

StoreCheck = Callable[[str], str | None]


def check(document: Document, known_stores: StoreCheck | None) -> SweepSpec | None:
    """Adds all problems to the document; the spec is valid where there are none."""
    tree = copy.deepcopy(document.tree)
    bad = {key for key, _ in document.problems}
    problems = list(_field_problems(tree))
    _add_problems(document, bad, problems)
    for key, _ in problems:
        _drop(tree, key)
    problems = [*_axis_problems(tree), *_space_problems(tree)]
    _add_problems(document, bad, problems)
    for key, _ in problems:
        _drop(tree, key[:2] if key[0] == "axes" else key[:3])  # the whole axis or dimension
    if document.tree.get("search") is not None and not (tree.get("search") or {}).get("space"):
        # No dimension is left to search: neither the search nor its scheduler can be checked.
        tree.pop("search", None)
        tree.pop("scheduler", None)
    try:
        spec = SweepSpec.model_validate({**PLACEHOLDERS, **tree})
    except ValidationError:
        assert document.problems, "an invalid spec has no problem reported"
        return None
    if known_stores and ("store",) not in bad:
        problem = _store_problem(spec.store, known_stores)
        if problem:
            document.problems.append((("store",), problem))
    count = len(spec.seed_list) * math.prod(map(len, spec.axes.values()))
    if count > MAX_TRIALS:  # too many to check one by one
        problem = (
            f"makes {count} trials with its seeds; a sweep has at most {MAX_TRIALS}, so split it"
        )
        document.problems.append((("axes",), problem))
        return spec
    for keys, problem in combinations(spec):
        if not bad.intersection(keys):
            document.problems.append((keys[0], problem))
    return spec


def _add_problems(document: Document, bad: set[Key], problems: list[tuple[Key, str]]) -> None:
    """Records problems, except of blocks that miss a value only because it was dropped."""
    reported = {key[:end] for key in bad for end in range(1, len(key) + 1)}
    for key, problem in problems:
        if key not in reported:
            document.problems.append((key, problem))
        bad.add(key)


def _store_problem(store: str, known_stores: StoreCheck) -> str | None:
    try:
        return known_stores(store)
    except OSError as error:  # such as a directory without permission
        return f"{short(store)}: {error.strerror}; give the path of an embedding store"


def _field_problems(tree: dict[str, Any]) -> Iterator[tuple[Key, str]]:
    try:
        SweepSpec.model_validate(tree)
    except ValidationError as error:
        yield from explain_errors(error, SweepSpec)
    seeds = tree.get("seeds")
    if not isinstance(seeds, list) or set(map(type, seeds)) != {int}:
        return  # reported above
    if len(set(seeds)) < len(seeds):
        yield ("seeds",), f"{short(seeds)} has a seed twice; keep each once"
    if len(seeds) > MAX_TRIALS:
        yield ("seeds",), f"{len(seeds)} seeds; a sweep has at most {MAX_TRIALS}, so split it"
    if min(seeds) < 0 or max(seeds) >= 2**31:
        yield ("seeds",), f"{short(seeds)} leaves [0, 2147483647]; use small whole numbers"


def _drop(tree: dict[str, Any], key: Key) -> None:
    """Removes a wrong value, so that its default is used; of a list, the whole list."""
    names = [part for part in key if isinstance(part, str)]
    block: Any = tree
    for name in names[:-1]:
        block = block.get(name) if isinstance(block, dict) else None
    if isinstance(block, dict):
        block.pop(names[-1], None)


def _axis_problems(tree: dict[str, Any]) -> Iterator[tuple[Key, str]]:
    for axis, values in list((tree.get("axes") or {}).items()):
        key: Key = ("axes", axis)
        if problem := _field_name_problem(axis):
            yield key, problem
        elif not values:
            yield key, "is empty; list the values to try"
        elif len(values) > MAX_TRIALS:
            yield key, f"{len(values)} values; a sweep has at most {MAX_TRIALS} trials, so split it"
        elif _has_duplicates(values):
            yield key, f"{short(values)} has a value twice; keep each once"
        else:
            yield from _value_problems(key, axis, values)


def _space_problems(tree: dict[str, Any]) -> Iterator[tuple[Key, str]]:
    search = tree.get("search")
    space = search.get("space") if isinstance(search, dict) else None
    for name, dimension in list((space or {}).items()):
        key: Key = ("search", "space", name)
        if problem := _field_name_problem(name) or _dimension_problem(dimension):
            yield key, problem
        elif dimension.get("choices") is not None:
            yield from _value_problems((*key, "choices"), name, dimension["choices"])
        else:
            yield from _value_problems(key, name, [dimension["low"], dimension["high"]])


def _dimension_problem(dimension: dict[str, Any]) -> str | None:
    low, high, choices = map(dimension.get, ("low", "high", "choices"))
    if choices is not None and low is None and high is None:
        if not choices:
            return "choices is empty; list the values to choose from"
        if _has_duplicates(choices):
            return f"choices {short(choices)} has a value twice; keep each once"
        return None
    if choices is not None or low is None or high is None:
        return "needs low and high, or choices; as in {low: 0.1, high: 0.9}"
    if not low < high:
        return f"low {low} is not below high {high}; swap them"
    if dimension.get("log") and low <= 0:
        return f"low {low} has no logarithm; use one above 0, or log: false"
    return None


def _has_duplicates(values: list[Any]) -> bool:
    return len(set(map(repr, values))) < len(values)  # repr: lists cannot be hashed, and True == 1


def _field_name_problem(name: str) -> str | None:
    if name in AXIS_FIELDS:
        return None
    inside = [field for field in AXIS_FIELDS if field.startswith(f"{name}.")]
    hint = f"it is a block; use {inside[0]}" if inside else nearest(name, AXIS_FIELDS)
    if hint.startswith("known"):  # all sixty of them
        hint = f"fields begin with {', '.join(TrialSpec.model_fields)}"
    return f"not a field of a trial; {hint}"


def _value_problems(key: Key, field: str, values: list[Any]) -> Iterator[tuple[Key, str]]:
    model, name = AXIS_FIELDS[field]
    for i, value in enumerate(values):
        try:
            model.model_validate({name: value})
        except ValidationError as error:
            for _, problem in explain_errors(error, model):
                yield (*key, i), problem
