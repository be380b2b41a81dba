"""Stores known by name, and the record of what the built-in ones hold."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from diffgap.corpora.soundscapes import COUNTS, SoundscapeCorpus
from diffgap.corpora.soundscapes.scenes import KINDS, draw_scene, generator
from diffgap.encoders import EncoderChoice
from diffgap.encoders.builtin import (
    BUILTIN_ENCODER,
    VERSION,
    is_built,
    open_store,
    store_problem,
    store_uri,
)
from diffgap.encoders.chunks import InputSpec, decode_chunk, encode_chunk
from diffgap.errors import UserError
from diffgap.store.schema import vectors

RECORD = Path(__file__).parent / "builtin_record.json"
CHANGED = """the built-in stores are not those of VERSION any more: {what}.
If that is what you want, change VERSION in diffgap/encoders/builtin.py (everybody's store is built
anew, under another fingerprint, and trials on it get other signatures), and write the new record:
    python tests/encoders/test_builtin.py
If it is not, something that decides an embedding was changed by accident: undo that."""


def record():
    """What decides the content of a built-in store, as numbers that every CPU agrees on.

    Captions and listing exactly; of each embedding its component along one fixed direction.
    """
    corpus, encoder = SoundscapeCorpus({"train": 48, "val": 12, "test": 12}), load_encoder()
    modalities = ("audio", "text", "video")
    spec = InputSpec.of(encoder, modalities, "crop")
    tables = encode_chunk(encoder, decode_chunk(corpus, corpus.clips(), spec), modalities)
    direction = np.random.default_rng(0).standard_normal(encoder.dimension)
    embeddings = {
        "audio": vectors(tables.items, "audio"),
        "text": vectors(tables.captions, "text"),
        "video": vectors(tables.items, "video"),
    }
    return {
        "version": VERSION,
        "weights": encoder.checkpoint_hash,
        "counts": COUNTS,
        "listing": listing_hash(SoundscapeCorpus({"train": 1000, "val": 200, "test": 200})),
        **{name: (array @ direction).round(6).tolist() for name, array in embeddings.items()},
    }


def load_encoder():
    return EncoderChoice(BUILTIN_ENCODER).load()


def listing_hash(corpus):
    """SHA-256 of ids, splits, labels and captions: text, so no CPU rounds it."""
    rows = [(clip.id, clip.split, clip.label, clip.captions) for clip in corpus.clips()]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def test_what_decides_an_embedding_is_that_of_the_version():
    expected, actual = json.loads(RECORD.read_text()), record()
    for name in ("version", "weights", "counts", "listing"):
        assert actual[name] == expected[name], CHANGED.format(what=f"{name} is {actual[name]}")
    for name in ("audio", "text", "video"):
        # CPUs differ by 1e-5; the smallest change of a sound or a picture that is meant, by 1e-3.
        apart = np.abs(np.array(actual[name]) - np.array(expected[name])).max()
        assert apart < 1e-4, CHANGED.format(what=f"an embedding of {name} is off by {apart:.1g}")


def test_the_record_has_every_kind_of_sound():
    scenes = [draw_scene(generator("scene", 1, f"train-{i:05d}")) for i in range(48)]
    assert {event.kind for scene in scenes for event in scene.events} == set(range(len(KINDS)))


def test_a_built_in_store_lives_in_the_cache_under_a_version(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFGAP_CACHE", str(tmp_path))
    assert Path(store_uri("soundscapes")).parent == tmp_path / "stores"
    assert not is_built("soundscapes")
    assert store_problem("soundscapes") is None


def test_a_built_in_store_that_is_damaged_says_what_to_remove(tmp_path, small_store, monkeypatch):
    monkeypatch.setenv("DIFFGAP_CACHE", str(tmp_path))
    store = shutil.copytree(small_store, store_uri("soundscapes"))
    assert open_store("soundscapes").manifest.corpus.name == "soundscapes"
    os.truncate(Path(store) / "items-00000.parquet", 100)
    remedy = r"store: soundscapes is damaged; remove .*/stores/soundscapes-.*, and the next command"
    with pytest.raises(UserError, match=remedy):
        open_store("soundscapes")


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/cache"])
def test_a_cache_that_cannot_be_written_to_says_how_to_choose_another(tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("DIFFGAP_CACHE", str(tmp_path / place))
    with pytest.raises(UserError, match=r": .*; set DIFFGAP_CACHE to a directory that can be"):
        open_store("soundscapes")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_path_stands_for_itself_wherever_a_worker_runs(small_store, monkeypatch):
    monkeypatch.chdir(small_store.parent)
    assert store_uri(small_store.name) == str(small_store)
    assert store_uri("s3://bucket/store") == "s3://bucket/store"
    assert open_store(small_store.name).manifest.corpus.name == "soundscapes"


def test_errors_about_unknown_names_name_the_known_ones(tmp_path):
    assert store_problem("soundscape") == (
        "unknown store 'soundscape'; did you mean soundscapes? (or give the path of an embedding "
        "store)"
    )
    with pytest.raises(UserError, match="not an embedding store"):
        open_store(str(tmp_path))


if __name__ == "__main__":
    RECORD.write_text(json.dumps(record(), indent=1) + "\n")
