"""Tables of a store: vector columns, the tasks that they serve, their checks and fingerprint."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diffgap.errors import UserError
from diffgap.store.splits import SPLITS

TEXT = "text"
"""The modality of captions, of which a clip may have several; every other has one vector a clip."""
FIRST = ("audio", "video")
"""Modalities that are listed first, in this order."""
MODALITY = re.compile(r"[a-z][a-z0-9_]*")
"""Names that a modality may have."""

MOST_DIMENSIONS = 2**16
"""Of an embedding; more can only be a mistake."""
NORM_TOLERANCE = 1e-3  # the relative precision of float16
NEEDED = {"items": ("id", "split"), "captions": ("id", "caption", TEXT)}
"""Columns by table, beside the vectors of items."""
SHOWN = 5
"""Rows that an error names."""


def vector_column(values: np.ndarray) -> pa.Array:
    """(N, D) floats as a column of fixed-size lists of float32."""
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def vectors(table: pa.Table, name: str) -> np.ndarray:
    """A column of fixed-size lists as (N, D) float32; numbers that are null become NaN."""
    column = table[name].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), column.type.list_size).copy()


def modalities(schema: pa.Schema) -> list[str]:
    """The columns of items with one vector a clip: audio, video, then the others by name.

    Any column of fixed-size lists of floats is one, if it is named like a `MODALITY` and not text.
    """
    names = []
    for column in schema:
        is_vector = pa.types.is_fixed_size_list(column.type)
        if is_vector and pa.types.is_floating(column.type.value_type) and column.name != TEXT:
            names.append(column.name)
    return sorted(filter(MODALITY.fullmatch, names), key=modality_order)


def modality_order(name: str) -> tuple[int, str]:
    """Sort key of modalities: `FIRST`, then by name."""
    return (FIRST.index(name) if name in FIRST else len(FIRST), name)


def vector_dimension(items: pa.Table) -> int:
    """D of the first modality; UserError where there is none, or D is absurd."""
    columns = modalities(items.schema)
    if not columns:
        raise UserError("items: no column of fixed-size lists of floats; add one such as audio")
    dimension = int(items[columns[0]].type.list_size)
    if dimension > MOST_DIMENSIONS:
        most = f"more than {MOST_DIMENSIONS}"
        raise UserError(f"items: {columns[0]} has {dimension} dimensions, {most}; give embeddings")
    return dimension


def split_task(task: str) -> tuple[str, str]:
    """The modalities of a task ``x-a``; of x a clip may have several.

    Raises:
        UserError: where they are not two different modalities, or text is the second.
    """
    x, _, a = task.partition("-")
    if not (MODALITY.fullmatch(x) and MODALITY.fullmatch(a)):
        raise UserError(f"task: {task!r} is not two modalities; write it as in text-audio")
    if x == a:
        raise UserError(f"task: {task!r} is one modality twice; name two, as in text-audio")
    if a == TEXT:  # every query has one right answer in a, and a clip may have several texts
        raise UserError(f"task: {task!r} has text second; write {TEXT}-{x}")
    return x, a


def served_tasks(items: pa.Table, captions: pa.Table | None) -> list[str]:
    """The tasks of a store's columns: text with each modality, then each two once.

    The second of two is the one that `modality_order` puts first; the reverse is served too.
    """
    columns = modalities(items.schema)
    tasks = [] if captions is None else [f"{TEXT}-{a}" for a in columns]
    return tasks + [f"{x}-{a}" for a, x in combinations(columns, 2)]


def schema_problems(kind: str, schema: pa.Schema, dimension: int) -> list[str]:
    """What is wrong with the columns of items or captions, whatever their rows are."""
    names = schema.names
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        return [f"{kind}: {twice[0]} names several columns; keep one of them"]
    needed = NEEDED[kind]
    if missing := sorted(set(needed) - set(names)):
        needs = f"{', '.join(needed[:-1])} and {needed[-1]}"
        return [f"{kind}: no column {', '.join(missing)}; a row needs {needs}"]
    problems = []
    for name in ("id", "split", "label", "caption"):
        if name in names and not _is_text(schema.field(name).type, name):
            problem = f"{kind}: {name} is {schema.field(name).type}, not string; write it as text"
            problems.append(problem)
    expected = pa.list_(pa.float32(), dimension)
    for name in _vector_names(kind, schema):
        if schema.field(name).type != expected:
            actual = schema.field(name).type
            problems.append(
                f"{kind}: {name} is {actual}, not {expected} as the store's other vectors"
            )
    for field in schema:
        if pa.types.is_fixed_size_list(field.type) and not _is_number(field.type.value_type):
            problems.append(
                f"{kind}: {field.name} is {field.type}; give lists of numbers, or leave it out"
            )
    return problems


def _is_text(column: pa.DataType, name: str) -> bool:
    if name == "label" and pa.types.is_null(column):
        return True
    if pa.types.is_dictionary(column):
        column = column.value_type
    return bool(pa.types.is_string(column) or pa.types.is_large_string(column))


def _is_number(value: pa.DataType) -> bool:
    is_number = pa.types.is_floating(value) or pa.types.is_integer(value)
    return bool(is_number or pa.types.is_boolean(value))


def _vector_names(kind: str, schema: pa.Schema) -> list[str]:
    """The columns that have to be vectors, some of them whatever their type is."""
    if kind == "captions":
        return [TEXT]
    expected = set(FIRST) & set(schema.names)
    return sorted(expected | set(modalities(schema)), key=modality_order)


def content_problems(items: pa.Table, captions: pa.Table | None, dimension: int) -> Iterator[str]:
    """Everything wrong with a store's content, one line each."""
    tables = {"items": items} if captions is None else {"items": items, "captions": captions}
    problems: list[str] = []
    for kind, table in tables.items():
        problems += schema_problems(kind, table.schema, dimension)
    if problems:
        yield from problems  # rows can be looked at only where columns are what they should be
        return
    yield from _item_problems(items)
    if captions is not None:
        yield from _caption_problems(captions, items["id"])
    for kind, table in tables.items():
        yield from _list_problems(table, kind)
        for name in _vector_names(kind, table.schema):
            yield from _vector_problems(table, kind, name)


def _item_problems(items: pa.Table) -> Iterator[str]:
    if not len(items):
        yield "items: no row; a store needs a clip"
    if items["id"].null_count:
        yield f"items: id is missing (null) in {items['id'].null_count} rows; every clip needs one"
    counts = Counter(items["id"].to_pylist())
    duplicates = [name for name, count in counts.items() if count > 1 and name is not None]
    if duplicates:
        yield f"items: duplicate ids {list_rows(duplicates)}; keep one row a clip"
    no_split = items.filter(pc.invert(pc.is_in(items["split"], pa.array(SPLITS))))
    if len(no_split):
        rows = list_rows(no_split["id"].to_pylist())
        yield f"items: split is not one of {', '.join(SPLITS)} in rows {rows}"


def _caption_problems(captions: pa.Table, ids: pa.ChunkedArray) -> Iterator[str]:
    lost = captions.filter(pc.invert(pc.is_in(captions["id"], ids.combine_chunks())))
    if len(lost):
        yield f"captions: no clip for the ids {list_rows(lost['id'].to_pylist())}"


def _list_problems(table: pa.Table, kind: str) -> Iterator[str]:
    """Further columns of lists: a list that is null would shift those after it."""
    names = [field.name for field in table.schema if pa.types.is_fixed_size_list(field.type)]
    for name in names:
        if name not in _vector_names(kind, table.schema) and table[name].null_count:
            yield f"{kind}: {name} has lists that are null; fill them, or leave the column out"


def _vector_problems(table: pa.Table, kind: str, name: str) -> Iterator[str]:
    column = table[name]
    ids = np.array(table["id"].to_pylist(), dtype=object)
    if column.null_count:
        rows = list_rows(ids[column.is_null().to_numpy()].tolist())
        yield f"{kind}: {name} has no vector (null) in rows {rows}; leave them out"
        return
    values = vectors(table, name)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        yield f"{kind}: {name} is not finite in rows {list_rows(ids[~finite].tolist())}"
    with np.errstate(over="ignore"):  # the square of a large number is not finite, nor normalised
        lengths = np.linalg.norm(np.where(finite[:, None], values, 0), axis=1)
    wrong = finite & (np.abs(lengths - 1) > NORM_TOLERANCE)
    if wrong.any():
        rows = list_rows(ids[wrong].tolist())
        yield f"{kind}: {name} is zero or not L2-normalised in rows {rows}"


def list_rows(rows: list[Any]) -> str:
    """The first rows of a list, by id or by number from 0, as an error names them."""
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return ", ".join(map(repr, rows[:SHOWN])) + more


def content_fingerprint(items: pa.Table, captions: pa.Table | None) -> str:
    """SHA-256 over every column of both tables and their row order, whatever the shards."""
    digest = hashlib.sha256()
    for table in [items] if captions is None else [items, captions]:
        for name in sorted(table.column_names):
            column = table[name]
            digest.update(f"{name}:{len(column)}\n".encode())
            if pa.types.is_fixed_size_list(column.type):
                digest.update(vectors(table, name).tobytes())
            else:
                digest.update(repr(column.to_pylist()).encode())
    return digest.hexdigest()
