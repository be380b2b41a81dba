"""Tables of a store: vector columns, the tasks that they serve, and their fingerprint."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

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


def plain_text(table: pa.Table) -> pa.Table:
    """The table with its columns of dictionaries of text as text, which the fingerprint equals."""
    for position, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            plain = table.column(position).cast(field.type.value_type)
            table = table.set_column(position, field.name, plain)
    return table


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


def split_counts(items: pa.Table) -> dict[str, int]:
    """Clips by split."""
    counts = Counter(items["split"].to_pylist())
    return {split: counts[split] for split in SPLITS}


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
