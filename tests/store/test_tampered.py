"""Stores that somebody has changed by hand or by accident: each is refused in a plain line.

Every entry changes a whole store; the line has to name the file or table, the field, and a remedy.
"""

import json
import os
import shutil
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffgap.errors import UserError
from diffgap.store.manifest import EncoderInfo
from diffgap.store.schema import content_fingerprint, vector_column
from diffgap.store.store import EmbeddingStore, write_store

IDS = ["a", "b", "c", "d"]
ITEMS, CAPTIONS, MANIFEST = "items-00000.parquet", "captions-00000.parquet", "manifest.json"
NOT_UTF8 = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
)


def unit(count, seed=0):
    values = np.random.default_rng(seed).normal(size=(count, 8))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    items = pa.table({
        "id": IDS, "split": ["train", "train", "val", "test"], "label": ["x", "y", None, "x"],
        "audio": vector_column(unit(4)), "video": vector_column(unit(4, 1)),
        "box": pa.FixedSizeListArray.from_arrays(pa.array(range(8)), 2),
    })  # fmt: skip
    captions = pa.table({"id": IDS, "caption": list("abcd"), "text": vector_column(unit(4, 2))})
    path = tmp_path_factory.mktemp("whole") / "store"
    encoder = EncoderInfo(name="e", checkpoint_hash="0", preprocessing={"rate": 16_000})
    write_store(path, items, captions, encoder, "c")
    return path


@pytest.fixture
def store(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "store")


# Ways to tamper -----------------------------------------------------------------------------------


def manifest(**changes):
    """Sets fields of the manifest; a dict within one is merged, and None deletes."""

    def tamper(store):
        content = json.loads((store / MANIFEST).read_text())
        for key, value in changes.items():
            if value is None:
                del content[key]
            elif isinstance(value, dict):
                content[key] = {**content[key], **value}
            else:
                content[key] = value
        (store / MANIFEST).write_text(json.dumps(content))

    return tamper


def text(content):
    return lambda store: (store / MANIFEST).write_bytes(content)


def column(name, values, file=ITEMS):
    """Replaces or adds a column; the manifest gets the fingerprint of it, where it has one."""

    def tamper(store):
        tables = {f: pq.read_table(store / f) for f in (ITEMS, CAPTIONS)}
        table = tables[file]
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, values)
        else:
            table = table.append_column(name, values)
        write(store, {**tables, file: table})

    return tamper


def rows(order, file=ITEMS):
    def tamper(store):
        tables = {f: pq.read_table(store / f) for f in (ITEMS, CAPTIONS)}
        write(store, {**tables, file: tables[file].take(pa.array(order, pa.int64()))})

    return tamper


def without(name, file=ITEMS):
    return lambda store: pq.write_table(pq.read_table(store / file).drop([name]), store / file)


def write(store, tables):
    for file, table in tables.items():
        pq.write_table(table, store / file)
    with suppress(ValueError, TypeError):  # of content that has none
        manifest(fingerprint=content_fingerprint(tables[ITEMS], tables[CAPTIONS]))(store)


def twice(store):
    table = pq.read_table(store / ITEMS)
    pq.write_table(table.append_column("id", pa.array(IDS)), store / ITEMS)


def second_shard(table):
    return lambda store: pq.write_table(table, store / "items-00001.parquet")


def folder(name):
    def tamper(store):
        (store / name).unlink()
        (store / name).mkdir()

    return tamper


def bent(value, row=2):
    values = unit(4)
    values[row] = value
    return vector_column(values)


def nested(depth):
    return text(b'{"task": ' + b"[" * depth + b"]" * depth + b"}")


def many_rows(kind, count):
    """A file of some kilobytes that claims, by its own numbers, a great many rows."""

    def tamper(store):
        table = pq.read_table(store / f"{kind}-00000.parquet").slice(0, 1)
        big = table.take([0] * count)
        pq.write_table(big, store / f"{kind}-00000.parquet", compression="zstd")

    return tamper


LONG, I32 = "x" * 500, pa.int32()
TAMPERED = {
    # the manifest
    "empty": (text(b""), r"manifest.json is not JSON: .*; restore"),
    "cut off": (text(b'{"format_version": 1, "ta'), r"manifest.json is not JSON: .*; restore"),
    "not UTF-8": (text(b"\xff\xfe{}"), r"manifest.json is not JSON: .*; restore"),
    "a list": (text(b"[]"), r"manifest.json: it: \[\]: input should be a valid dict.*; restore"),
    "a number": (text(b"1"), r"manifest.json: it: 1: .*; restore"),
    "deep": (nested(100_000), r"manifest.json is not JSON: recursion .*; restore"),
    "huge": (text(b" " * 2**20 + b"{}"), r"manifest.json: 1048578 bytes are more than 1048576"),
    "gone": (lambda s: (s / MANIFEST).unlink(), "not an embedding store"),
    "a folder": (folder(MANIFEST), r"manifest.json cannot be read: .*; restore"),
    "no task": (manifest(task=None), r"manifest.json: task: .*: field required; restore"),
    "an odd field": (manifest(colour="red"), r"manifest.json: colour: 'red': extra inputs"),
    "two wrong": (manifest(dtype="f", dimension=0), r"(?s)dimension: 0: .*dtype: 'f': "),
    "dimension 0": (manifest(dimension=0), r"dimension: 0: .*greater than or equal to 1; restore"),
    "dimension -8": (manifest(dimension=-8), r"dimension: -8: .*greater than or equal to 1"),
    "dimension 1e12": (manifest(dimension=10**12), r"dimension: 10{12}: .*less than or equal to"),
    "dimension 1e99": (manifest(dimension=10**99), r"dimension: 1000.*: .*less than or equal to"),
    "dimension 8.5": (manifest(dimension=8.5), r"dimension: 8.5: input should be a valid integer"),
    "dimension '8'": (manifest(dimension="8"), r"dimension: '8': input should be a valid integer"),
    "dimension true": (manifest(dimension=True), r"dimension: True: input should be a valid int"),
    "dimension NaN": (manifest(dimension=float("nan")), r"dimension: nan: .*valid integer"),
    "dimension 9": (manifest(dimension=9), r"items: audio is fixed_size_list.*\[8\], not .*\[9\]"),
    "float64": (manifest(dtype="float64"), r"dtype: 'float64': input should be 'float32'; restore"),
    "dtype int8": (manifest(dtype="int8"), r"dtype: 'int8': input should be 'float32'; restore"),
    "dtype 32": (manifest(dtype=32), r"dtype: 32: input should be 'float32'; restore"),
    "version 0": (manifest(format_version=0), "format version 0 is not 1; make the store anew"),
    "version 2": (manifest(format_version=2, new=1), "format version 2 is not 1; make the store"),
    "version x": (manifest(format_version="x"), r"format_version: 'x': input should be a valid"),
    "more clips": (
        manifest(corpus={"counts": {"train": 3, "val": 1, "test": 1}}),
        r"items: 4 rows are not the 5 of manifest.json; restore",
    ),
    "other clips": (
        manifest(corpus={"counts": {"train": 1, "val": 2, "test": 1}}),
        r"manifest.json: corpus.counts.train: 1 is not the 2 clips of the items; restore",
    ),
    "an odd split": (
        manifest(corpus={"counts": {"train": 2, "val": 1, "dev": 1}}),
        r"manifest.json: corpus.counts.dev: 1 is not the 0 clips of the items; restore",
    ),
    "fewer than none": (
        manifest(corpus={"counts": {"train": 6, "val": -2}}),
        r"corpus.counts.val: -2: .*greater than or equal to 0; restore",
    ),
    "1e300 clips": (
        manifest(corpus={"counts": {"train": 10**300}}),
        r"corpus.counts.train: 1000.*: .*less than or equal to 1000000000000; restore",
    ),
    "clips of words": (
        manifest(corpus={"counts": {"train": "two"}}), r"corpus.counts.train: 'two': .*integer"
    ),
    "no counts": (manifest(corpus={"counts": []}), r"corpus.counts: \[\]: .*dictionary; restore"),
    "a task of its own": (
        manifest(task=["text-smell"]), r"manifest.json: task: 'text-smell' is not one that the con"
    ),
    "a task of numbers": (manifest(task=[1]), r"manifest.json: task.0: 1: .*string; restore"),
    "a corpus of words": (manifest(corpus=LONG), r"corpus: 'xxx.*\.\.\..*xxx': .*; restore"),
    "no encoder": (manifest(encoder=None), r"manifest.json: encoder: .*: field required; restore"),
    "an odd encoder": (manifest(encoder={"name": 5}), r"encoder.name: 5: .*valid string; restore"),
    "another fingerprint": (manifest(fingerprint="0" * 64), "content differs from manifest.json"),
    "a fingerprint of numbers": (manifest(fingerprint=7), r"fingerprint: 7: .*valid string"),
    # the tables
    "no items": (lambda s: (s / ITEMS).unlink(), r"has no items-\*.parquet; make the store anew"),
    "no captions": (lambda s: (s / CAPTIONS).unlink(), r"task: 'text-audio' is not one that"),
    "items cut off": (lambda s: os.truncate(s / ITEMS, 300), "items shard cannot be read: .*; res"),
    "items emptied": (lambda s: os.truncate(s / ITEMS, 0), "items shard cannot be read: .*; rest"),
    "items a folder": (folder(ITEMS), "items shard cannot be read: .*; restore"),
    "captions a folder": (folder(CAPTIONS), "captions shard cannot be read: .*; restore"),
    "no id": (without("id"), "items: no column id; a row needs id and split"),
    "no split": (without("split"), "items: no column split; a row needs id and split"),
    "no audio": (without("audio"), "manifest.json: task: 'text-audio' is not one that the content"),
    "no text": (without("text", CAPTIONS), "captions: no column text; a row needs id, caption and"),
    "two ids": (twice, "items: id names several columns; keep one of them"),
    "another shard": (second_shard(pa.table({"id": ["e"]})), "items: no column split; a row needs"),
    "integer ids": (column("id", pa.array(range(4))), "items: id is int64, not string; write it"),
    "ids of bytes": (column("id", pa.array([b"a"] * 4)), "items: id is binary, not string"),
    "ids of nothing": (column("id", pa.nulls(4)), "items: id is null, not string"),
    "ids of lists": (column("id", pa.array([["a"]] * 4)), "items: id is list<.*>, not string"),
    "an id missing": (column("id", pa.array(["a", None, "c", "d"])), r"items: id is missing \(nul"),
    "ids twice": (column("id", pa.array(["a", "b", "a", "d"])), "items: duplicate ids 'a'; keep"),
    "ids not UTF-8": (
        column("id", pa.chunked_array([["a", "b", "c"], NOT_UTF8])),
        "items shard cannot be read: .*UTF8.*; restore",
    ),
    "integer labels": (column("label", pa.array(range(4))), "items: label is int64, not string"),
    "labels of floats": (column("label", pa.array([0.5] * 4)), "items: label is double, not str"),
    "integer splits": (column("split", pa.array(range(4))), "items: split is int64, not string"),
    "splits of truth": (column("split", pa.array([True] * 4)), "items: split is bool, not string"),
    "an unknown split": (column("split", pa.array(["train"] * 3 + ["Test"])), "in rows 'd'"),
    "a split missing": (column("split", pa.array(["train", "train", "val", None])), "in rows 'd'"),
    "a clip in two splits": (
        rows([0, 1, 2, 0]), r"(?s)duplicate ids 'a'; keep one row a clip"
    ),
    "clips left out": (rows([0, 1, 2]), "items: 3 rows are not the 4 of manifest.json; restore"),
    "no clip": (rows([]), "items: 0 rows are not the 4 of manifest.json; restore"),
    "NaN": (column("audio", bent(np.nan)), "items: audio is not finite in rows 'c'"),
    "infinity": (column("video", bent(np.inf)), "items: video is not finite in rows 'c'"),
    "zeros": (column("audio", bent(0)), "items: audio is zero or not L2-normalised in rows 'c'"),
    "long vectors": (column("audio", bent(3e38)), "items: audio is zero or not L2-norm.* rows 'c'"),
    "texts NaN": (column("text", bent(np.nan), CAPTIONS), "captions: text is not finite in rows"),
    "texts zero": (column("text", bent(0), CAPTIONS), "captions: text is zero or not L2-norm"),
    "no vector": (
        column("audio", pa.array([*unit(3).tolist(), None], pa.list_(pa.float32(), 8))),
        "items shard cannot be read: items-00000.parquet: .*; restore",
    ),
    "narrow": (column("audio", vector_column(np.eye(4, 7))), r"audio is .*\[7\], not .*\[8\]"),
    "of doubles": (
        column("audio", pa.FixedSizeListArray.from_arrays(pa.array(unit(4).ravel()), 8)),
        r"items: audio is fixed_size_list<.*double>\[8\], not .*float",
    ),
    "of any length": (column("video", pa.array(unit(4).tolist())), r"video is list<.*>, not fixed"),
    "of words": (column("audio", pa.array(IDS)), r"items: audio is string, not fixed_size_list"),
    "texts of words": (column("text", pa.array(IDS), CAPTIONS), r"captions: text is string, not"),
    "boxes of words": (
        column("box", pa.array([["a", "b"]] * 4, pa.list_(pa.string(), 2))),
        r"items: box is fixed_size_list<.*string>\[2\]; give lists of numbers",
    ),
    "captions of nobody": (column("id", pa.array(["a", "b", "c", "z"]), CAPTIONS), "the ids 'z'"),
    "captions of numbers": (column("id", pa.array(range(4)), CAPTIONS), "captions: id is int64, n"),
    "integer captions": (column("caption", pa.array(range(4)), CAPTIONS), "caption is int64, not"),
    "a lot of clips": (many_rows("items", 10**5), "items: 100000 rows are not the 4 of manifest"),
    "a lot of captions": (
        many_rows("captions", 10**5), "captions: 100000 rows are more than 1000 for each of 4"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("tamper", "expected"), TAMPERED.values(), ids=TAMPERED.keys())
def test_a_tampered_store_is_refused_in_a_plain_line(store, tamper, expected):
    tamper(store)
    with pytest.raises(UserError, match=expected) as refusal:
        EmbeddingStore.open(store)
    for problem in refusal.value.problems:
        assert problem.startswith(f"{store}: ")
        assert len(problem) < 400


@pytest.mark.parametrize("file", [MANIFEST, ITEMS, CAPTIONS])
def test_a_byte_changed_anywhere_is_no_traceback(whole, store, file):
    """It is refused, or changes nothing that is read, such as a name in the manifest."""
    rng = np.random.default_rng(0)
    content = (whole / file).read_bytes()
    fingerprint = EmbeddingStore.open(whole).fingerprint
    for _ in range(150):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        (store / file).write_bytes(damaged)
        with suppress(UserError):
            assert EmbeddingStore.open(store).fingerprint == fingerprint


def test_text_of_other_types_that_are_text_still_opens(store):
    """Stores that were written from tables of other libraries."""
    column("label", pa.array(["x", "y", None, "x"]).dictionary_encode())(store)
    for ids in (pa.array(IDS).dictionary_encode(), pa.array(IDS, pa.large_string())):
        column("id", ids)(store)
        opened = EmbeddingStore.open(store)
        assert opened.labels() == {"a": "x", "b": "y", "c": None, "d": "x"}
        assert opened.pairs("text-audio", "train").ids == ("a", "b")
