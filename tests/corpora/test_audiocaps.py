"""AudioCaps as its releases come."""

import numpy as np
import pytest
import soundfile

from diffgap.corpora.audiocaps import AudioCapsCorpus
from diffgap.errors import ClipError, MissingClipError, UserError

OFFICIAL = "audiocap_id,youtube_id,start_time,caption\n"
NAME = "7fmOlUlwoNg"


def sound(path):
    path.parent.mkdir(exist_ok=True, parents=True)
    soundfile.write(path, 0.5 * np.sin(np.arange(8000) / 5), 16_000)


def test_the_official_lists_have_the_clips_and_captions_they_should(shared):
    corpus = AudioCapsCorpus(shared / "audiocaps")
    clips = corpus.clips()
    counts = {s: [c for c in clips if c.split == s] for s in ("train", "val", "test")}
    assert {s: len(c) for s, c in counts.items()} == {"train": 49_838, "val": 495, "test": 975}
    assert {len(c.captions) for c in counts["train"]} == {1}
    assert {len(c.captions) for c in counts["val"] + counts["test"]} == {5}
    assert not corpus.rejected
    assert len({c.id for c in clips}) == len(clips)


@pytest.mark.parametrize(
    "layout",
    [
        f"{NAME}.wav",
        f"audio/test/Y{NAME}.flac",
        f"clips/{NAME}_20.wav",
        f"Y{NAME}_20.ogg",
    ],
)
def test_files_are_found_in_every_layout(tmp_path, layout):
    (tmp_path / "test.csv").write_text(f"{OFFICIAL}1,{NAME},20,rattling\n2,{NAME},20,vibrations\n")
    sound(tmp_path / layout)
    corpus = AudioCapsCorpus(tmp_path)
    (clip,) = corpus.clips()
    assert (clip.id, clip.split, clip.captions) == (NAME, "test", ("rattling", "vibrations"))
    assert corpus.audio(clip)[1] == 16_000


def test_the_other_caption_format_is_a_row_a_clip(tmp_path):
    header = "file_name," + ",".join(f"caption_{i}" for i in range(1, 6))
    (tmp_path / "retrieval_val.csv").write_text(f'{header}\nY{NAME}.wav,a,b,"c, d",,e\n')
    sound(tmp_path / f"Y{NAME}.wav")
    corpus = AudioCapsCorpus(tmp_path)
    (clip,) = corpus.clips()
    assert (clip.id, clip.split, clip.captions) == (NAME, "val", ("a", "b", "c, d", "e"))
    assert len(corpus.audio(clip)[0]) == 8000


def test_an_id_may_begin_with_y_or_a_dash(tmp_path):
    rows = "file_name,caption_1\nY8fmOlUlwoN.wav,a\nYY8fmOlUlwoN.wav,b\n"
    (tmp_path / "test.csv").write_text(rows)
    assert [clip.id for clip in AudioCapsCorpus(tmp_path).clips()] == ["Y8fmOlUlwoN"] * 2
    (tmp_path / "test.csv").write_text(f"{OFFICIAL}1,-fmOlUlwoNg,0,a\n")
    assert [clip.id for clip in AudioCapsCorpus(tmp_path).clips()] == ["-fmOlUlwoNg"]


def test_missing_and_ambiguous_clips_are_refused(tmp_path):
    (tmp_path / "test.csv").write_text(f"{OFFICIAL}1,{NAME},20,rattling\n")
    corpus = AudioCapsCorpus(tmp_path)
    with pytest.raises(MissingClipError):
        corpus.audio(corpus.clips()[0])
    sound(tmp_path / f"{NAME}.wav")
    sound(tmp_path / "again" / f"Y{NAME}.flac")
    corpus = AudioCapsCorpus(tmp_path)
    with pytest.raises(ClipError, match=rf"several files: {NAME}.wav, again/Y{NAME}.flac; keep"):
        corpus.audio(corpus.clips()[0])


def test_lists_that_are_missing_wrong_or_there_twice_are_refused(tmp_path):
    with pytest.raises(UserError, match="has no list of AudioCaps"):
        AudioCapsCorpus(tmp_path)
    (tmp_path / "test.csv").write_text("youtube_id,caption\na,b\n")
    with pytest.raises(UserError, match="no column audiocap_id, start_time"):
        AudioCapsCorpus(tmp_path)
    (tmp_path / "test.csv").write_text(f"{OFFICIAL}1,{NAME},20,x\n")
    (tmp_path / "audiocaps_eval.csv").write_text(f"{OFFICIAL}1,{NAME},20,x\n")
    with pytest.raises(UserError, match=r"audiocaps_eval.csv and .*test.csv: lists of the same"):
        AudioCapsCorpus(tmp_path)


def test_a_caption_that_is_not_utf8_is_left_out_by_its_line(tmp_path):
    rows = OFFICIAL.encode() + f"1,{NAME},20,caf\xe9\n2,6BJ455B1aAs,0,fine\n".encode("latin-1")
    (tmp_path / "test.csv").write_bytes(rows)
    corpus = AudioCapsCorpus(tmp_path)
    assert [clip.id for clip in corpus.clips()] == ["6BJ455B1aAs"]
    (bad,) = corpus.rejected
    assert (bad.id, bad.reason) == (NAME, "test.csv line 2: not UTF-8; save the file as UTF-8")
