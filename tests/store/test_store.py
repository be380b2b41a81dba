"""A store comes back as it was written, and a wrong one is refused with its rows named."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgap.errors import UserError
from diffgap.store.manifest import EncoderInfo
from diffgap.store.schema import served_tasks, split_task, vector_column, vectors
from diffgap.store.store import EmbeddingStore, write_store

ENCODER = EncoderInfo(name="none", checkpoint_hash="0" * 64)
IDS = ["a", "b", "c", "d"]
F32 = pa.float32()
HOLE = [None, *[0.0] * 6, 1.0]
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
    items_ = items() if items_ is None else items_
    captions_ = captions() if captions_ is None else captions_
    return write_store(path, items_, captions_, ENCODER, "test")


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


def test_the_splits_that_a_task_has_no_clip_in(tmp_path):
    table = many("video").slice(0, 3)  # of train and val
    store = write(tmp_path / "store", table, captions(owners=["a", "b"]))
    assert store.empty_splits("video-audio") == ["test"]
    assert store.empty_splits("text-video") == ["val", "test"]


def many(*names):
    """Items with these modalities, each with vectors of its own."""
    table = items()
    for seed, name in enumerate(names, 2):
        table = table.append_column(name, vector_column(unit(4, seed=seed)))
    return table


@given(data=st.data())
def test_text_video_pairs_own_their_clips(data):
    """By slow look-up: text i is of clip ids[owner[i]], whose vector is a[owner[i]]."""
    splits = data.draw(st.lists(st.sampled_from(["train", "test"]), min_size=1, max_size=8))
    ids = data.draw(st.permutations([f"clip{i}" for i in range(len(splits))]))
    owners = data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=12))
    video, texts = unit(len(ids)), unit(len(owners), seed=1)
    table = pa.table({"id": ids, "split": splits, "video": vector_column(video)})
    store = EmbeddingStore(None, table, captions(texts, owners))
    wanted = [i for i, owner in enumerate(owners) if splits[ids.index(owner)] == "test"]
    if not wanted:
        with pytest.raises(UserError, match="its split 'test' is empty"):
            store.pairs("text-video", "test")
        return
    pairs = store.pairs("text-video", "test")
    assert np.array_equal(pairs.x, texts[wanted])
    assert [pairs.ids[n] for n in pairs.owner] == [owners[i] for i in wanted]
    assert np.array_equal(pairs.a, video[[ids.index(name) for name in pairs.ids]])


@pytest.mark.parametrize("task", ["image-audio", "audio-image", "audio-video", "image-video"])
def test_two_modalities_are_paired_either_way_round(tmp_path, task):
    store = write(tmp_path / "store", many("video", "image"))
    own = {"audio": unit(4), "video": unit(4, seed=2), "image": unit(4, seed=3)}
    x, a = task.split("-")
    pairs = store.pairs(task, "train")
    assert np.array_equal(pairs.x, own[x][:2])
    assert np.array_equal(pairs.a, own[a][:2])
    assert pairs.owner.tolist() == [0, 1]


def test_the_tasks_served_come_in_one_order_whatever_the_columns():
    texts = ["text-audio", "text-video", "text-depth", "text-image"]
    others = ["video-audio", "depth-audio", "image-audio", "depth-video", "image-video"]
    for names in (("video", "image", "depth"), ("depth", "video", "image")):
        assert served_tasks(many(*names), captions()) == [*texts, *others, "image-depth"]
    assert served_tasks(many("video"), None) == ["video-audio"]
    assert served_tasks(many(), None) == []


def test_extra_columns_are_no_modalities(tmp_path):
    extra = items(duration=[1.0] * 4, tags=[["a"]] * 4)
    box = pa.FixedSizeListArray.from_arrays(pa.array(range(16)), 4)
    assert write(tmp_path / "store", extra.append_column("box", box)).tasks == ["text-audio"]


def test_an_older_manifest_lists_fewer_tasks_than_its_store_serves(tmp_path):
    write(tmp_path / "store", many("video"))
    path = tmp_path / "store" / "manifest.json"
    older = {**json.loads(path.read_text()), "task": ["text-audio", "video-audio"]}
    path.write_text(json.dumps(older))
    store = EmbeddingStore.open(tmp_path / "store")
    assert store.tasks == ["text-audio", "text-video", "video-audio"]
    assert store.manifest.task == ["text-audio", "video-audio"]
    assert len(store.pairs("text-video", "val").ids) == 1


def test_the_fingerprint_of_stores_that_people_have_stays(tmp_path):
    """As it was when there were two tasks only; these vectors are exact on any machine."""
    axes = np.eye(8)
    table = items(audio=axes[:4], duration=[1.0, 2.0, 3.0, None])
    table = table.append_column("video", vector_column(axes[2:6]))
    store = write(tmp_path / "store", table, captions(text=axes[:5]))
    assert store.fingerprint[:16] == "aad357cc4f73bd37"


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
    "an image that is zero": (
        items().append_column("image", vector_column(bent(lambda v: v * 0))),
        captions(),
        "image is zero or not L2-normalised in rows 'c'",
    ),
    "an image missing": (
        items().append_column("image", pa.array([*unit(3).tolist(), None], pa.list_(F32, 8))),
        captions(),
        "image has no vector .null. in rows 'd'; leave them out",
    ),
    "a number missing": (
        items().append_column("image", pa.array([*unit(3).tolist(), HOLE], pa.list_(F32, 8))),
        captions(),
        "image is not finite in rows 'd'",
    ),
    "another dimension of images": (
        items().append_column("image", vector_column(np.eye(4, 7))),
        captions(),
        "image is fixed_size_list.*, not fixed_size_list.* as the store's other vectors",
    ),
    "boxes missing": (
        items().append_column("box", pa.array([[1], None, [3], [4]], pa.list_(pa.int32(), 1))),
        captions(),
        "box has lists that are null; fill them, or leave the column out",
    ),
    "integer ids": (items(id=[1, 2, 3, 4]), captions(), "id is int64, not string; write it as"),
    "no clip": (items()[:0], captions()[:0], "items: no row; a store needs a clip"),
    "an image of doubles": (
        items().append_column("image", pa.array(unit(4).tolist(), pa.list_(pa.float64(), 8))),
        captions(),
        "image is fixed_size_list.*double.*, not fixed_size_list.*float",
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
    with pytest.raises(
        UserError, match=r"content differs from manifest\.json; make the store anew"
    ):
        EmbeddingStore.open(tmp_path / "store")


def test_a_damaged_shard_is_refused(tmp_path):
    write(tmp_path / "store")
    shard = tmp_path / "store" / "captions-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UserError, match="a captions shard cannot be read"):
        EmbeddingStore.open(tmp_path / "store")


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"not an embedding store \(it has no manifest.json\)"):
        EmbeddingStore.open(tmp_path)
    write(tmp_path / "store")
    path = tmp_path / "store" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(UserError, match="format version 2 is not 1"):
        EmbeddingStore.open(tmp_path / "store")


REFUSED = {
    "video-audio": "cannot be done on this store, which serves text-audio, text-depth, depth-audio",
    "text-dpeth": "'text-dpeth' cannot be done on .*; did you mean text-depth?",
    "audio-dept": "did you mean audio-depth?",
    "textaudio": "is not two modalities; write it as in text-audio; this store serves text-audio",
    "audio-text": "has text second; write text-audio",
    "text-label": "cannot be done on .*; choose one of these, or another store",
}


@pytest.mark.parametrize(("task", "expected"), REFUSED.items())
def test_what_a_store_cannot_serve_is_refused_with_what_it_serves(tmp_path, task, expected):
    store = write(tmp_path / "store", many("depth"))
    with pytest.raises(UserError, match=expected):
        store.pairs(task, "train")


def test_an_empty_split_is_refused(tmp_path):
    with pytest.raises(UserError, match="its split 'dev' is empty"):
        write(tmp_path / "store").pairs("text-audio", "dev")


def test_text_without_captions_is_refused(tmp_path):
    store = write_store(tmp_path / "store", many("video"), None, ENCODER, "test")
    with pytest.raises(UserError, match=r"'text-video' cannot be done on .* serves video-audio;"):
        store.pairs("text-video", "train")


def test_a_task_is_two_different_modalities():
    assert split_task("text-video") == ("text", "video")
    assert split_task("clip_l14-audio_2") == ("clip_l14", "audio_2")
    for wrong in ("text", "", "-audio", "text-", "a-b-c", "Text-audio", "text audio", "1-2"):
        with pytest.raises(UserError, match=f"task: {wrong!r} is not two modalities; write it"):
            split_task(wrong)
    with pytest.raises(UserError, match="'text-text' is one modality twice; name two"):
        split_task("text-text")


def test_nothing_is_replaced_in_silence(tmp_path):
    write(tmp_path / "store")
    with pytest.raises(UserError, match="exists already; remove it"):
        write(tmp_path / "store")
    shutil.rmtree(tmp_path / "store")
    write(tmp_path / "store")


def test_vectors_survive_the_column(tmp_path):
    table = pa.table({"audio": vector_column(unit(4))})
    assert np.array_equal(vectors(table[1:3], "audio"), unit(4)[1:3])
