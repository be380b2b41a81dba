"""pydantic's errors in plain words: what is wrong, what is allowed, the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from diffgap.errors import nearest
from diffgap.spec.document import MAX_WORD, Key, format_key
from diffgap.spec.environment import name_problem, value_problem
from diffgap.spec.sweep import SweepSpec

TYPES = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a block of keys",
    "model": "a block of keys",
}

KEY = "[key]"
"""What pydantic adds to the path where a key itself is wrong."""
DEPTHS: dict[Key, int] = {("resources", "pack"): 2, ("resources", "environment"): 3}
"""Parts of a path that are in the file."""


def explain_errors(error: ValidationError, root: type[BaseModel]) -> Iterator[tuple[Key, str]]:
    """Path and text of each error; the branches of a union are one."""
    explained = set()
    for detail in error.errors(include_url=False):
        key = _file_path(detail["loc"], root)
        # pydantic counts a list after dropping its wrong values, which have errors of their own.
        emptied = detail["type"] == "too_short" and detail["input"]
        if key not in explained and not emptied:
            explained.add(key)
            yield key, _explain(detail, key, root)


def _file_path(loc: tuple[int | str, ...], root: type[BaseModel]) -> Key:
    """An error's path in the file, without the union branches and keys that pydantic adds."""
    if root is SweepSpec and loc[:1] == ("seeds",):
        return loc[:1]
    if loc[:2] == ("search", "space") and loc[3:4] in (("low",), ("high",)):
        return loc[:4]
    return loc[: DEPTHS.get(loc[:2])]


def _explain(detail: ErrorDetails, key: Key, root: type[BaseModel]) -> str:
    model, schema = _schema(key, root)
    kind, value = detail["type"], detail["input"]
    if key[:2] == ("resources", "environment") and len(key) > 2:
        wrong_name = detail["loc"][-1:] == (KEY,)
        return name_problem(str(key[2])) if wrong_name else value_problem(short(value))
    if kind == "missing":
        return f"is missing; add {format_key(key)}: to the file"
    if kind == "extra_forbidden":
        return f"unknown key; {nearest(str(key[-1]), model.model_fields)}"
    if key == ("seeds",):
        return f"{short(value)} is neither in [1, 10000] nor a list of whole numbers; use 3"
    if key == ("resources", "pack"):
        return f"{short(value)} is not a number in [1, 1024], auto or off; use auto"
    if key[0] == "search" and key[3:] in (("low",), ("high",)):
        return f"{short(value)} is not a number; as in {{low: 0.1, high: 0.9}}"
    remedy = _remedy(schema)
    if kind == "literal_error":
        allowed = list(map(str, schema.get("enum") or [schema["const"]]))
        hint = nearest(str(value)[:MAX_WORD], allowed)
        return f"{short(value)} is not one of {', '.join(allowed)}; {hint}"
    if kind.endswith("_type"):
        expected = TYPES.get(kind.removesuffix("_type"), kind)
        return f"{short(value)} is not {expected}; {remedy}"
    if kind == "too_short":
        return f"is empty; {remedy}"
    if kind == "too_long":
        return f"has {len(value)} entries, more than {schema['maxItems']}; {remedy}"
    if kind == "string_pattern_mismatch":
        return f"{short(value)} is not a name; {remedy}"
    return f"{short(value)} is not in {_range(schema)}; {remedy}"


def _schema(key: Key, root: type[BaseModel]) -> tuple[type[BaseModel], dict[str, Any]]:
    """The innermost model on the way to a path, and the JSON schema of its field there."""
    model = root
    schema: dict[str, Any] = {}
    free_name = False  # the next part is a key of a dict, such as an axis's name
    for part in key:
        if isinstance(part, int):
            schema = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        elif free_name:
            free_name = False
        elif part in model.model_fields:
            schema = _properties(model).get(part, {})
            annotation = model.model_fields[part].annotation
            free_name = get_origin(annotation) is dict
            model = _model_in(annotation) or model
        else:
            break
    return model, schema


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation is, or contains as an option or as the values of a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


@cache
def _properties(model: type[BaseModel]) -> dict[str, Any]:
    return dict(model.model_json_schema()["properties"])


def _range(schema: dict[str, Any]) -> str:
    """The interval that a number's schema allows, such as ``(0, 1)`` or ``[1, inf)``."""
    low, high = "(-inf", "inf)"
    if "exclusiveMinimum" in schema:
        low = f"({schema['exclusiveMinimum']:g}"
    elif "minimum" in schema:
        low = f"[{schema['minimum']:.10g}"
    if "exclusiveMaximum" in schema:
        high = f"{schema['exclusiveMaximum']:.10g})"
    elif "maximum" in schema:
        high = f"{schema['maximum']:.10g}]"  # .10g: 1e+07 is not how people write 10000000
    return f"{low}, {high}"


def _remedy(schema: dict[str, Any]) -> str:
    if remedy := schema.get("remedy"):
        return str(remedy)
    default = schema.get("default")
    if default is None or isinstance(default, dict):
        return "see the example specs in sweeps/"
    return f"the default is {str(default).lower() if isinstance(default, bool) else default}"


def short(value: Any) -> str:
    """A value as an error repeats it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
