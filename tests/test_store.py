"""A store comes back as it was written, and a wrong one is refused with its rows named."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffgap.errors import UserError
from diffgap.store import EmbeddingStore, EncoderInfo, write_store
from diffgap.store_content import vector_column, vectors

ENCODER = EncoderInfo(name="none", checkpoint_hash="0" * 64)
IDS = ["a", "b", "c", "d"]
OWNERS = ["b", "a", "b", "d", "c"]


def unit(count, seed=0):
    values = np.random.default_rng(seed).normal(size=(count, 8))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def items(audio=None, **columns):
    table = {"id": IDS, "split": ["train", "train", "val", "test"], "label": [None] * 4, **columns}
    return pa.table({**table, "audio": vector_column(unit(4) if audio is None else audio)})


def captions(text=None, owners=OWNERS):
    text = unit(len(owners), seed=1) if text is None else text
    return pa.table(
        {"id": owners, "caption": [f"a {i}" for i in owners], "text": vector_column(text)}
    )


def write(path, items_=None, captions_=None):
    return write_store(path, items_ or items(), captions_ or captions(), ENCODER, "test")


def test_a_store_comes_back_as_it_was_written(tmp_path):
    write(tmp_path / "store")
    store = EmbeddingStore.open(tmp_path / "store")
    pairs = store.pairs("text-audio", "train")
    assert pairs.ids == ("a", "b")
    assert np.array_equal(pairs.a, unit(4)[:2])
    assert pairs.owner.tolist() == [1, 0, 1]
    assert np.array_equal(pairs.x, unit(5, seed=1)[:3])
    assert store.manifest.task == ["text-audio"]
    assert store.manifest.corpus.counts == {"train": 2, "val": 1, "test": 1}


def test_video_pairs_are_one_to_one(tmp_path):
    table = items().append_column("video", vector_column(unit(4, seed=2)))
    store = write(tmp_path / "store", table)
    pairs = store.pairs("video-audio", "train")
    assert np.array_equal(pairs.x, unit(4, seed=2)[:2])
    assert pairs.owner.tolist() == [0, 1]


def test_clips_without_a_caption_are_no_text_pairs(tmp_path):
    store = write(tmp_path / "store", captions_=captions(owners=["b", "c", "d"]))
    assert store.pairs("text-audio", "train").ids == ("b",)


def test_a_uri_opens_the_same_store(tmp_path):
    written = write(tmp_path / "store")
    assert EmbeddingStore.open((tmp_path / "store").as_uri()).fingerprint == written.fingerprint


def test_the_fingerprint_does_not_depend_on_shards(tmp_path):
    written = write(tmp_path / "store")
    table = pq.read_table(tmp_path / "store" / "items-00000.parquet")
    pq.write_table(table[:1], tmp_path / "store" / "items-00000.parquet")
    pq.write_table(table[1:], tmp_path / "store" / "items-00001.parquet")
    assert EmbeddingStore.open(tmp_path / "store").fingerprint == written.fingerprint


def test_the_fingerprint_depends_on_every_part_of_the_content(tmp_path):
    tables = [
        (items(), captions()),
        (items(split=["train", "train", "val", "val"]), captions()),
        (items(label=["x", None, None, None]), captions()),
        (items(audio=unit(4, seed=9)), captions()),
        (items(), captions(text=unit(5, seed=9))),
        (items(), captions(owners=["b", "a", "b", "d", "d"])),
    ]
    stores = [write(tmp_path / str(i), *pair) for i, pair in enumerate(tables)]
    assert len({store.fingerprint for store in stores}) == len(tables)


def bent(change):
    values = unit(4)
    values[2] = change(values[2])
    return values


WRONG = {
    "not finite": (
        items(bent(lambda v: v * np.nan)),
        captions(),
        "audio is not finite in rows 'c'",
    ),
    "zero": (items(bent(lambda v: v * 0)), captions(), "zero or not L2-normalised in rows 'c'"),
    "too long": (items(bent(lambda v: v * 2)), captions(), "not L2-normalised in rows 'c'"),
    "an id twice": (items(id=["a", "b", "b", "d"]), captions(), "duplicate ids 'b'"),
    "odd split": (items(split=["train", "dev", "val", "test"]), captions(), "test in rows 'b'"),
    "lost caption": (
        items(),
        captions(owners=["a", "x", "b", "c", "d"]),
        "no clip for the ids 'x'",
    ),
    "another dimension": (items(), captions(text=np.eye(5, 7)), "not fixed_size_list"),
}


@pytest.mark.parametrize(("items_", "captions_", "expected"), WRONG.values(), ids=WRONG.keys())
def test_wrong_content_is_refused_with_its_rows(tmp_path, items_, captions_, expected):
    with pytest.raises(UserError, match=expected):
        write(tmp_path / "store", items_, captions_)
    assert list(tmp_path.iterdir()) == []


def test_content_that_changed_since_is_noticed(tmp_path):
    write(tmp_path / "store")
    pq.write_table(items(audio=unit(4, seed=3)), tmp_path / "store" / "items-00000.parquet")
    with pytest.raises(UserError, match=r"not what manifest\.json says; make the store anew"):
        EmbeddingStore.open(tmp_path / "store")


def test_a_damaged_shard_is_refused(tmp_path):
    write(tmp_path / "store")
    shard = tmp_path / "store" / "captions-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UserError, match="a captions shard cannot be read"):
        EmbeddingStore.open(tmp_path / "store")


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no embedding store \(it has no manifest.json\)"):
        EmbeddingStore.open(tmp_path)
    write(tmp_path / "store")
    path = tmp_path / "store" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(UserError, match="format version 2 is not 1"):
        EmbeddingStore.open(tmp_path / "store")


def test_what_a_store_cannot_serve_is_refused(tmp_path):
    store = write(tmp_path / "store")
    with pytest.raises(UserError, match="'video-audio' is not served by this store; it has text-"):
        store.pairs("video-audio", "train")
    with pytest.raises(UserError, match="no clip in its split 'dev'"):
        store.pairs("text-audio", "dev")


def test_nothing_is_replaced_in_silence(tmp_path):
    write(tmp_path / "store")
    with pytest.raises(UserError, match="exists already; remove it"):
        write(tmp_path / "store")
    shutil.rmtree(tmp_path / "store")
    write(tmp_path / "store")


def test_vectors_survive_the_column(tmp_path):
    table = pa.table({"audio": vector_column(unit(4))})
    assert np.array_equal(vectors(table[1:3], "audio"), unit(4)[1:3])
