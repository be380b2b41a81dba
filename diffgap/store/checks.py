"""What is wrong with a store, if anything, in lines that name the table, the field and a remedy.

Whatever is on disk may have been cut off, edited or made up: what could fill the memory is refused
before it is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diffgap.errors import UserError
from diffgap.store.manifest import MANIFEST, REMEDY, Manifest
from diffgap.store.parquet import Shards
from diffgap.store.schema import (
    FIRST,
    NEEDED,
    NORM_TOLERANCE,
    TEXT,
    list_rows,
    modalities,
    modality_order,
    served_tasks,
    split_counts,
    vectors,
)
from diffgap.store.splits import SPLITS

TEXTS = {"items": ("id", "split", "label"), "captions": ("id", "caption")}
"""Columns that are text, by table; further ones may be of any type."""
MOST_CAPTIONS = 1000
"""A clip, on average."""


def check_shards(tables: Mapping[str, Shards], manifest: Manifest) -> None:
    """Refuses what cannot be right, before the content is read: it could fill the memory."""
    items, captions = tables["items"], tables["captions"]
    if not items.paths:
        raise UserError(f"{items.uri}: has no items-*.parquet; make the store anew")
    problems = []
    for kind, shards in tables.items():
        for schema in shards.schemas:
            problems += schema_problems(kind, schema, manifest.dimension)
    clips = sum(manifest.corpus.counts.values())
    if items.rows != clips:
        problems.append(f"items: {items.rows} rows are not the {clips} of {MANIFEST}; {REMEDY}")
    if captions.rows > MOST_CAPTIONS * clips:
        most = f"more than {MOST_CAPTIONS} for each of {clips} clips"
        problems.append(f"captions: {captions.rows} rows are {most}; {REMEDY}")
    if problems:
        raise UserError(*(f"{items.uri}: {problem}" for problem in dict.fromkeys(problems)))


def manifest_problems(
    manifest: Manifest, items: pa.Table, captions: pa.Table | None
) -> Iterator[str]:
    """What the manifest says that the content does not."""
    actual = split_counts(items)
    for split, count in manifest.corpus.counts.items():
        if count != actual.get(split, 0):
            yield (
                f"{MANIFEST}: corpus.counts.{split}: {count} is not the {actual.get(split, 0)} "
                f"clips of the items; {REMEDY}"
            )
    # A manifest of an earlier version lists fewer tasks than its content serves.
    served = set(served_tasks(items, captions))
    for task in manifest.task:
        if task not in served:
            yield f"{MANIFEST}: task: {task!r} is not one that the content serves; {REMEDY}"


def schema_problems(kind: str, schema: pa.Schema, dimension: int) -> list[str]:
    """What is wrong with the columns of items or captions, whatever their rows are."""
    names = schema.names
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        return [f"{kind}: {twice[0]} names several columns; keep one of them"]
    needed = NEEDED[kind]
    if missing := sorted(set(needed) - set(names)):
        needs = f"{', '.join(needed[:-1])} and {needed[-1]}"
        return [f"{kind}: no column {', '.join(missing)}; a row needs {needs}"]
    vector, vector_names = pa.list_(pa.float32(), dimension), _vector_names(kind, schema)
    problems = []
    for field in schema:
        actual = f"{kind}: {field.name} is {field.type}"
        if field.name in TEXTS[kind] and not _is_text(field.type, field.name):
            problems.append(f"{actual}, not string; write it as text")
        elif field.name in vector_names and field.type != vector:
            problems.append(f"{actual}, not {vector} as the store's other vectors")
        elif pa.types.is_fixed_size_list(field.type) and not _is_number(field.type.value_type):
            problems.append(f"{actual}; give lists of numbers, or leave it out")
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
