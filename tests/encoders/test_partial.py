"""What a run of `embed` that ended early leaves: whole chunks of the corpus as it is, or none."""

import os
import shutil
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from diffgap.corpora.folder import FolderCorpus
from diffgap.corpora.vggsound import VGGSoundCorpus
from diffgap.encoders import EncoderChoice
from diffgap.encoders.embed import StoreExistsError, TooManyRejectedError
from diffgap.encoders.embed import embed as run
from diffgap.encoders.partial import source_hash
from diffgap.errors import ClipError, UserError
from diffgap.store.store import EmbeddingStore

CLIPS = 34
"""Two chunks, of 32 clips and of 2."""


def embed(corpus, out, **settings):
    """The store, and how many clips had been done at each chunk that was made."""
    done = []
    store = run(
        corpus, EncoderChoice("soundscape"), out, progress=lambda n, _: done.append(n), **settings
    ).store
    return store, done


def files(store):
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())}


def write_sound(path, number):
    samples = 0.1 * np.random.default_rng(number).standard_normal(8000)
    soundfile.write(path, samples, 16_000)


def list_clips(root, count):
    rows = [f"{number}.wav,noise number {number}\n" for number in range(count)]
    (root / "captions.csv").write_text("file_name,caption\n" + "".join(rows))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder with a clip that cannot be read, and what a run that it failed has left."""
    place = tmp_path_factory.mktemp("stopped")
    root = place / "sounds"
    root.mkdir()
    for number in range(CLIPS):
        write_sound(root / f"{number}.wav", number)
    (root / "3.wav").write_text("not a sound")
    list_clips(root, CLIPS)
    with pytest.raises(TooManyRejectedError):
        embed(FolderCorpus(root), place / "store", max_rejected=0.0)
    run(FolderCorpus(root), EncoderChoice("soundscape"), place / "undisturbed")
    return place


@pytest.fixture
def place(stopped, tmp_path):
    """A copy of it to do harm to, with the same times of files."""
    shutil.copytree(stopped / "store.partial", tmp_path / "store.partial")
    return tmp_path


def overwrite(path, start, content):
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


HARM = {
    "a table cut off": lambda p: os.truncate(p / "items-000001.parquet", 100),
    "a table emptied": lambda p: os.truncate(p / "captions-000001.parquet", 0),
    "a byte changed": lambda p: overwrite(p / "items-000001.parquet", 700, b"\0\1\2\3"),
    "a table gone": lambda p: (p / "rejected-000001.parquet").unlink(),
    "a table of another chunk": lambda p: shutil.copy(
        p / "captions-000000.parquet", p / "captions-000001.parquet"
    ),
    "a record cut off": lambda p: os.truncate(p / "chunk-000001.json", 20),
    "a record of nothing": lambda p: (p / "chunk-000001.json").write_text("[]"),
    "a record gone": lambda p: (p / "chunk-000001.json").unlink(),
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM.keys())
def test_a_damaged_chunk_is_made_again_and_only_that(stopped, place, harm):
    harm(place / "store.partial")
    _, done = embed(FolderCorpus(stopped / "sounds"), place / "store")
    assert done == [CLIPS]
    assert files(place / "store") == files(stopped / "undisturbed")
    assert [path.name for path in place.iterdir()] == ["store"]


def test_what_a_killed_run_left_of_a_store_is_removed_and_nothing_else(stopped, place):
    (place / ".store.0123abcd").mkdir()
    (place / ".store.0123abcd" / "items-00000.parquet").touch()
    (place / ".store.lock").touch()
    for name in (".store.mine", ".other.0123abcd"):
        (place / name).touch()
    embed(FolderCorpus(stopped / "sounds"), place / "store")
    assert {path.name for path in place.iterdir()} == {"store", ".store.mine", ".other.0123abcd"}


def test_a_damaged_request_costs_nothing(stopped, place):
    os.truncate(place / "store.partial" / "request.json", 10)
    _, done = embed(FolderCorpus(stopped / "sounds"), place / "store")
    assert done == []


def test_a_chunk_that_is_damaged_under_the_run_is_named(stopped, place):
    class Damaging(FolderCorpus):
        def audio(self, clip):
            os.truncate(place / "store.partial" / "items-000000.parquet", 100)
            return super().audio(clip)

    (place / "store.partial" / "chunk-000001.json").unlink()
    remedy = r"items-000000.parquet: cannot be read: .*; give the same command again"
    with pytest.raises(UserError, match=remedy):
        embed(Damaging(stopped / "sounds"), place / "store")
    embed(FolderCorpus(stopped / "sounds"), place / "store")
    assert files(place / "store") == files(stopped / "undisturbed")


# A corpus that changes between two runs -----------------------------------------------------------


@pytest.fixture
def sounds(stopped, tmp_path):
    """A folder of its own, and a run on it that has failed."""
    shutil.copytree(stopped / "sounds", tmp_path / "sounds")
    with pytest.raises(TooManyRejectedError):
        embed(FolderCorpus(tmp_path / "sounds"), tmp_path / "store", max_rejected=0.0)
    return tmp_path / "sounds"


def assert_as_made_at_once(sounds, store):
    """The store is that of a run on the corpus as it is now."""
    run(FolderCorpus(sounds), EncoderChoice("soundscape"), sounds.parent / "at-once")
    assert files(store) == files(sounds.parent / "at-once")


def test_a_mended_file_is_tried_again(sounds, tmp_path):
    write_sound(sounds / "3.wav", 3)
    store, done = embed(FolderCorpus(sounds), tmp_path / "store", max_rejected=0.0)
    assert done == [CLIPS]
    assert sum(store.manifest.corpus.counts.values()) == CLIPS
    assert_as_made_at_once(sounds, tmp_path / "store")


def test_a_file_that_appears_is_tried(sounds, tmp_path):
    (sounds / "33.wav").rename(sounds / "away")
    with pytest.raises(TooManyRejectedError, match="2 of 34 clips"):
        embed(FolderCorpus(sounds), tmp_path / "store", max_rejected=0.0)
    (sounds / "away").rename(sounds / "33.wav")
    embed(FolderCorpus(sounds), tmp_path / "store")
    assert_as_made_at_once(sounds, tmp_path / "store")


def test_a_file_replaced_by_one_of_the_same_size_and_time_gets_its_own_vector(sounds, tmp_path):
    before = (sounds / "33.wav").stat()
    write_sound(sounds / "33.wav", 99)
    os.utime(sounds / "33.wav", ns=(before.st_atime_ns, before.st_mtime_ns))
    after = (sounds / "33.wav").stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    _, done = embed(FolderCorpus(sounds), tmp_path / "store")
    assert done == [CLIPS]
    assert_as_made_at_once(sounds, tmp_path / "store")


def test_mended_lists_cost_only_the_chunks_that_they_change(sounds, tmp_path):
    write_sound(sounds / f"{CLIPS}.wav", CLIPS)
    list_clips(sounds, CLIPS + 1)
    _, done = embed(FolderCorpus(sounds), tmp_path / "store")
    assert done == [CLIPS + 1]  # once: the first chunk is kept
    assert_as_made_at_once(sounds, tmp_path / "store")


def test_a_clip_that_was_left_out_for_want_of_a_disk_is_tried_again(stopped, tmp_path):
    """Its file is the same as before, and so are those of all other clips."""

    class Away(FolderCorpus):
        def audio(self, clip):
            if clip.id == "33.wav":
                raise ClipError("the disk is away")
            return super().audio(clip)

    with pytest.raises(TooManyRejectedError, match="2 of 34 clips"):
        embed(Away(stopped / "sounds"), tmp_path / "store", max_rejected=0.0)
    _, done = embed(FolderCorpus(stopped / "sounds"), tmp_path / "store")
    assert done == [CLIPS]
    assert files(tmp_path / "store") == files(stopped / "undisturbed")


def test_a_sound_beside_a_video_is_one_of_its_files(tmp_path):
    """VGGSound takes the sound of a clip from there, where there is one."""
    (tmp_path / "vggsound.csv").write_text("abc,30,dog barking,train\n")
    (tmp_path / "abc_000030.mp4").write_text("a video")

    def hash_now():
        corpus = VGGSoundCorpus(tmp_path)
        return source_hash(corpus, corpus.clips())

    alone = hash_now()
    assert alone == hash_now()
    write_sound(tmp_path / "abc_000030.wav", 0)
    with_sound = hash_now()
    write_sound(tmp_path / "abc_000030.wav", 1)
    assert len({alone, with_sound, hash_now()}) == 3


# Two at once --------------------------------------------------------------------------------------


def test_the_second_of_two_runs_waits_and_then_finds_the_store(stopped, tmp_path, caplog):
    corpus = FolderCorpus(stopped / "sounds")
    is_waiting = threading.Event()
    caplog.handler.addFilter(lambda record: is_waiting.set() or True)
    ends = []

    def second():
        with pytest.raises(StoreExistsError, match="store exists already"):
            embed(corpus, tmp_path / "store")
        ends.append("refused")

    def let_it_wait(*_):
        if not ends and not thread.ident:
            thread.start()
            assert is_waiting.wait(30)

    thread = threading.Thread(target=second)
    run(corpus, EncoderChoice("soundscape"), tmp_path / "store", progress=let_it_wait)
    thread.join(30)
    assert ends == ["refused"]
    assert "Another process is making" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    EmbeddingStore.open(tmp_path / "store")
    assert len(pq.read_table(tmp_path / "store" / "rejected.parquet")) == 1
