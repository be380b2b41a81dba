"""From a corpus to a store: bad clips are left out and told, and nothing is left half-done."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from diffgap import corpora
from diffgap.corpora.folder import FolderCorpus
from diffgap.corpora.soundscapes import SoundscapeCorpus
from diffgap.encoders.embed import embed, resample
from diffgap.errors import UserError
from diffgap.store import EmbeddingStore


def test_the_store_does_not_depend_on_the_number_of_workers(tmp_path):
    corpus = SoundscapeCorpus({"train": 120, "val": 40, "test": 8})
    seen = []
    one = embed(corpus, "soundscape", tmp_path / "one", workers=1)
    two = embed(
        corpus, "soundscape", tmp_path / "two", workers=2, progress=lambda *a: seen.append(a)
    )
    assert one.store.fingerprint == two.store.fingerprint
    assert seen[-1] == (168, 168)
    assert EmbeddingStore.open(tmp_path / "two").manifest.task == ["text-audio", "video-audio"]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "sounds"
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(30):
        soundfile.write(root / f"{i}.wav", rng.normal(0, 0.1, 22_050 + 1000 * i), 44_100)
    (root / "bad.wav").write_text("not a sound")
    rows = [f"{i}.wav,noise number {i}\n" for i in range(30)]
    rows += ["bad.wav,a bad one\n", "gone.wav,gone\n", "0.wav,...\n", "1.wav,again\n"]
    rows += ["mute.wav,\n"]
    (root / "captions.csv").write_text("file_name,caption\n" + "".join(rows))
    return root


def test_bad_clips_are_left_out_by_name_and_reason(tmp_path, folder):
    result = embed(FolderCorpus(folder), "soundscape", tmp_path / "store")
    told = {(bad.id, bad.stage): bad.reason for bad in result.rejected}
    assert told["bad.wav", "audio"].startswith("not readable as audio")
    assert told["gone.wav", "audio"] == "no such file"
    assert told["0.wav", "text"] == "caption '...' has no word"
    assert told["mute.wav", "corpus"] == "it has no caption"
    assert len(told) == 4
    assert sum(result.store.manifest.corpus.counts.values()) == 30
    rejected = pq.read_table(tmp_path / "store" / "rejected.parquet")
    assert rejected["id"].to_pylist() == [bad.id for bad in result.rejected]
    pairs = result.store.pairs("text-audio", "train")
    assert len(pairs.x) == len(pairs.ids) + ("1.wav" in pairs.ids)


def test_a_corpus_without_a_usable_clip_leaves_nothing(tmp_path, folder):
    (folder / "captions.csv").write_text("file_name,caption\nbad.wav,a bad one\n")
    with pytest.raises(UserError, match=r"no clip can be used \(bad.wav: not readable as audio"):
        embed(FolderCorpus(folder), "soundscape", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_an_existing_place_is_not_touched(tmp_path, folder):
    (tmp_path / "store").mkdir()
    with pytest.raises(UserError, match="exists already; remove it, or give another place"):
        embed(FolderCorpus(folder), "soundscape", tmp_path / "store")


def test_a_run_that_breaks_leaves_nothing_that_looks_like_a_store(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(SoundscapeCorpus({"train": 10}), "soundscape", tmp_path / "s", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_resampling_keeps_a_tone_and_its_length():
    rate = 44_100
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    found = resample(tone, rate, 16_000)
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert len(found) == 16_000
    assert np.abs(found - expected)[200:-200].max() < 0.01


def test_corpora_are_known_by_name(tmp_path):
    with pytest.raises(UserError, match="unknown corpus 'foldr'; did you mean folder"):
        corpora.load("foldr", tmp_path)
    with pytest.raises(UserError, match="--root: missing"):
        corpora.load("folder", None)
    with pytest.raises(UserError, match="soundscapes is made, not read"):
        corpora.load("soundscapes", tmp_path)


def test_real_recordings_become_a_store(tmp_path, real_sounds):
    root = tmp_path / "some"
    shutil.copytree(
        real_sounds / "audio", root / "audio", ignore=lambda d, names: sorted(names)[60:]
    )
    lines = (real_sounds / "captions.csv").read_text().splitlines(keepends=True)
    kept = [line for line in lines[1:] if (root / line.split(",")[0]).exists()]
    (root / "captions.csv").write_text(lines[0] + "".join(kept))
    result = embed(FolderCorpus(root), "soundscape", tmp_path / "store")
    assert sum(result.store.manifest.corpus.counts.values()) + len(result.rejected) == 60
