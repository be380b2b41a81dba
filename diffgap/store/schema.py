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

NORM_TOLERANCE = 1e-3  # the relative precision of float16
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


def modalities(items: pa.Table) -> list[str]:
    """The columns with one vector a clip: audio, video, then the others by name.

    Any column of fixed-size lists of floats is one, if it is named like a `MODALITY` and not text.
    """
    names = []
    for column in items.schema:
        is_vector = pa.types.is_fixed_size_list(column.type)
        if is_vector and pa.types.is_floating(column.type.value_type) and column.name != TEXT:
            names.append(column.name)
    return sorted(filter(MODALITY.fullmatch, names), key=modality_order)


def modality_order(name: str) -> tuple[int, str]:
    """Sort key of modalities: `FIRST`, then by name."""
    return (FIRST.index(name) if name in FIRST else len(FIRST), name)


def vector_dimension(items: pa.Table) -> int:
    """D of the first modality; UserError where there is none."""
    if columns := modalities(items):
        return int(items[columns[0]].type.list_size)
    raise UserError("items: no column of fixed-size lists of floats; add one such as audio")


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
    columns = modalities(items)
    tasks = [] if captions is None else [f"{TEXT}-{a}" for a in columns]
    return tasks + [f"{x}-{a}" for a, x in combinations(columns, 2)]


def content_problems(items: pa.Table, captions: pa.Table | None, dimension: int) -> Iterator[str]:
    """Everything wrong with a store's content, one line each."""
    if missing := {"id", "split"} - set(items.column_names):
        yield f"items: no column {', '.join(sorted(missing))}; a row needs id and split"
        return
    yield from _item_problems(items, dimension)
    if captions is not None:
        yield from _caption_problems(captions, items["id"], dimension)


def _item_problems(items: pa.Table, dimension: int) -> Iterator[str]:
    counts = Counter(items["id"].to_pylist())
    duplicates = [name for name, count in counts.items() if count > 1]
    if duplicates:
        yield f"items: duplicate ids {list_rows(duplicates)}; keep one row a clip"
    no_split = items.filter(pc.invert(pc.is_in(items["split"], pa.array(SPLITS))))
    if len(no_split):
        rows = list_rows(no_split["id"].to_pylist())
        yield f"items: split is not one of {', '.join(SPLITS)} in rows {rows}"
    expected = set(FIRST) & set(items.column_names)  # must be vectors, whatever their type is
    for name in sorted(expected | set(modalities(items)), key=modality_order):
        yield from _vector_problems(items, "items", name, dimension)


def _caption_problems(captions: pa.Table, ids: pa.ChunkedArray, dimension: int) -> Iterator[str]:
    if missing := {"id", "caption", TEXT} - set(captions.column_names):
        yield f"captions: no column {', '.join(sorted(missing))}; a row needs id, caption and text"
        return
    lost = captions.filter(pc.invert(pc.is_in(captions["id"], ids.combine_chunks())))
    if len(lost):
        yield f"captions: no clip for the ids {list_rows(lost['id'].to_pylist())}"
    yield from _vector_problems(captions, "captions", TEXT, dimension)


def _vector_problems(table: pa.Table, kind: str, name: str, dimension: int) -> Iterator[str]:
    column = table[name]
    expected = pa.list_(pa.float32(), dimension)
    if column.type != expected:
        yield f"{kind}: {name} is {column.type}, not {expected} as the store's other vectors"
        return
    ids = np.array(table["id"].to_pylist(), dtype=object)
    if column.null_count:
        rows = list_rows(ids[column.is_null().to_numpy()].tolist())
        yield f"{kind}: {name} has no vector (null) in rows {rows}; leave them out"
        return
    values = vectors(table, name)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        yield f"{kind}: {name} is not finite in rows {list_rows(ids[~finite].tolist())}"
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
