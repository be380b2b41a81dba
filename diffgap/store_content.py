"""What a store's tables hold: vectors as columns, what is wrong with them, their fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SPLITS = ("train", "val", "test")

NORM_TOLERANCE = 1e-3
SHOWN = 5
"""Rows named in an error about many."""


def vector_column(values: np.ndarray) -> pa.Array:
    """(N, D) floats as a column of fixed-size lists of float32."""
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def vectors(table: pa.Table, name: str) -> np.ndarray:
    """A column of fixed-size lists as (N, D) float32."""
    column = table[name].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size).copy()


def content_problems(items: pa.Table, captions: pa.Table | None, dimension: int) -> Iterator[str]:
    """Everything wrong with a store's content, one line each."""
    if missing := {"id", "split"} - set(items.column_names):
        yield f"items: no column {', '.join(sorted(missing))}; a row needs id and split"
        return
    ids = items["id"].to_pylist()
    if len(set(ids)) < len(ids):
        twice = [i for i, n in _counts(items["id"]) if n > 1]
        yield f"items: duplicate ids {_named(twice)}; keep one row a clip"
    strange = pc.invert(pc.is_in(items["split"], pa.array(SPLITS)))
    if odd := items.filter(strange)["id"].to_pylist():
        yield f"items: split is not one of {', '.join(SPLITS)} in rows {_named(odd)}"
    for name in ("audio", "video"):
        if name in items.column_names:
            yield from _vector_problems(items, "items", name, dimension)
    if captions is None:
        return
    if missing := {"id", "caption", "text"} - set(captions.column_names):
        yield f"captions: no column {', '.join(sorted(missing))}; a row needs id, caption and text"
        return
    lost = captions.filter(pc.invert(pc.is_in(captions["id"], items["id"].combine_chunks())))
    if len(lost):
        yield f"captions: no clip for the ids {_named(lost['id'].to_pylist())}"
    yield from _vector_problems(captions, "captions", "text", dimension)


def _vector_problems(table: pa.Table, kind: str, name: str, dimension: int) -> Iterator[str]:
    column = table[name]
    wanted = pa.list_(pa.float32(), dimension)
    if column.type != wanted or column.null_count:
        yield f"{kind}: {name} is {column.type} with {column.null_count} nulls, not {wanted}"
        return
    values = vectors(table, name)
    ids = np.array(table["id"].to_pylist(), dtype=object)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        yield f"{kind}: {name} is not finite in rows {_named(ids[~finite].tolist())}"
    lengths = np.linalg.norm(np.where(finite[:, None], values, 0), axis=1)
    wrong = finite & (np.abs(lengths - 1) > NORM_TOLERANCE)
    if wrong.any():
        rows = _named(ids[wrong].tolist())
        yield f"{kind}: {name} is zero or not L2-normalised in rows {rows}"


def _counts(column: pa.ChunkedArray) -> list[tuple[str, int]]:
    counted = pc.value_counts(column)
    return [(entry["values"], entry["counts"]) for entry in counted.to_pylist()]


def _named(rows: list[Any]) -> str:
    shown = ", ".join(repr(row) for row in rows[:SHOWN])
    return shown if len(rows) <= SHOWN else f"{shown} and {len(rows) - SHOWN} more"


def content_fingerprint(items: pa.Table, captions: pa.Table | None) -> str:
    """SHA-256 over every column of both tables, row order and all, however they are sharded."""
    digest = hashlib.sha256()
    for table in (items, captions):
        if table is None:
            continue
        for name in sorted(table.column_names):
            column = table[name]
            digest.update(f"{name}:{len(column)}\n".encode())
            if pa.types.is_fixed_size_list(column.type):
                digest.update(vectors(table, name).tobytes())
            else:
                digest.update(repr(column.to_pylist()).encode())
    return digest.hexdigest()
