"""From a corpus to a store: bad clips are left out and reported, and no store is half-done."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from diffgap import corpora
from diffgap.corpora.folder import FolderCorpus
from diffgap.corpora.soundscapes import SoundscapeCorpus
from diffgap.encoders import EncoderChoice
from diffgap.encoders.embed import TooManyRejectedError
from diffgap.encoders.embed import embed as run
from diffgap.encoders.stream import EncoderPool
from diffgap.errors import UserError


def embed(corpus, out, **settings):
    return run(corpus, EncoderChoice("soundscape"), out, **settings)


def files(store):
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())}


def test_the_store_does_not_depend_on_where_its_clips_were_embedded(tmp_path):
    corpus = SoundscapeCorpus({"train": 120, "val": 40, "test": 8})
    seen = []
    embed(corpus, tmp_path / "here")
    result = embed(
        corpus, tmp_path / "ray", pool=EncoderPool(workers=2), progress=lambda *a: seen.append(a)
    )
    assert files(tmp_path / "here") == files(tmp_path / "ray")
    assert seen[-1] == (168, 168)
    assert result.store.manifest.task == ["text-audio", "text-video", "video-audio"]
    assert result.store.manifest.encoder.preprocessing["sample_rate"] == 16_000
    assert not (tmp_path / "ray.partial").exists()


def test_an_interrupted_run_is_resumed_with_the_missing_chunks(tmp_path):
    corpus = SoundscapeCorpus({"train": 150, "val": 10, "test": 8})
    embed(corpus, tmp_path / "once")

    def stop_at_half(done, total):
        if done >= total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(corpus, tmp_path / "twice", progress=stop_at_half)
    assert not (tmp_path / "twice").exists()
    seen = []
    embed(corpus, tmp_path / "twice", progress=lambda *a: seen.append(a))
    assert seen[0][0] > 168 / 2
    assert files(tmp_path / "once") == files(tmp_path / "twice")


def test_chunks_of_a_different_request_are_not_mixed_in(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(SoundscapeCorpus({"train": 40}), tmp_path / "s", progress=stop)
    with pytest.raises(UserError, match=r"s.partial was started with a different window; remove"):
        embed(SoundscapeCorpus({"train": 40}), tmp_path / "s", long_clips="mean")


def test_too_many_rejected_clips_fail_the_run_at_its_end(tmp_path, folder):
    corpus = FolderCorpus(folder)
    with pytest.raises(TooManyRejectedError, match=r"3 of 33 clips \(9.1 %\) .* --max-rejected 5%"):
        embed(corpus, tmp_path / "store", max_rejected=0.05)
    assert not (tmp_path / "store").exists()
    report = pq.read_table(tmp_path / "store.partial" / "rejected.parquet")
    assert set(report["id"].to_pylist()) == {"bad.wav", "gone.wav", "mute.wav", "0.wav"}
    seen = []
    embed(corpus, tmp_path / "store", max_rejected=0.1, progress=lambda *a: seen.append(a))
    assert seen == []  # nothing was embedded twice
    assert not (tmp_path / "store.partial").exists()


def test_a_clip_that_is_listed_twice_is_embedded_once(tmp_path):
    class Twice(SoundscapeCorpus):
        def clips(self):
            return super().clips() * 2

    result = embed(Twice({"train": 3}), tmp_path / "store")
    assert [bad.reason for bad in result.rejected] == ["listed twice; the first is kept"] * 3


def test_a_corpus_and_an_encoder_with_too_little_in_common_are_refused(tmp_path, folder):
    corpus = FolderCorpus(folder)
    corpus.modalities = ("text", "video")
    with pytest.raises(UserError, match=r"soundscape takes audio, text, video and the corpus"):
        embed(corpus, tmp_path / "store")


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
    result = embed(FolderCorpus(folder), tmp_path / "store")
    reasons = {(bad.id, bad.stage): bad.reason for bad in result.rejected}
    assert reasons["bad.wav", "audio"].startswith("not readable as audio")
    assert reasons["gone.wav", "audio"] == "no such file"
    assert reasons["0.wav", "text"] == "caption '...' has no word"
    assert reasons["mute.wav", "corpus"] == "it has no caption"
    assert len(reasons) == 4
    assert sum(result.store.manifest.corpus.counts.values()) == 30
    rejected = pq.read_table(tmp_path / "store" / "rejected.parquet")
    assert rejected["id"].to_pylist() == [bad.id for bad in result.rejected]
    pairs = result.store.pairs("text-audio", "train")
    assert len(pairs.x) == len(pairs.ids) + ("1.wav" in pairs.ids)


def test_a_corpus_without_a_usable_clip_leaves_nothing(tmp_path, folder):
    (folder / "captions.csv").write_text("file_name,caption\nbad.wav,a bad one\n")
    with pytest.raises(UserError, match=r"no clip can be used \(bad.wav: not readable as audio"):
        embed(FolderCorpus(folder), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_an_existing_path_is_not_touched(tmp_path, folder):
    (tmp_path / "store").mkdir()
    with pytest.raises(UserError, match="exists already; remove it, or give another path"):
        embed(FolderCorpus(folder), tmp_path / "store")


def test_corpora_are_known_by_name(tmp_path):
    with pytest.raises(UserError, match="unknown corpus 'foldr'; did you mean folder"):
        corpora.load("foldr", tmp_path)
    with pytest.raises(UserError, match="--root: missing"):
        corpora.load("folder", None)
    with pytest.raises(UserError, match="soundscapes is generated, not read"):
        corpora.load("soundscapes", tmp_path)


def test_real_recordings_become_a_store(tmp_path, real_sounds):
    root = tmp_path / "some"
    shutil.copytree(
        real_sounds / "audio", root / "audio", ignore=lambda d, names: sorted(names)[60:]
    )
    lines = (real_sounds / "captions.csv").read_text().splitlines(keepends=True)
    kept = [line for line in lines[1:] if (root / line.split(",")[0]).exists()]
    (root / "captions.csv").write_text(lines[0] + "".join(kept))
    result = embed(FolderCorpus(root), tmp_path / "store")
    assert sum(result.store.manifest.corpus.counts.values()) + len(result.rejected) == 60
