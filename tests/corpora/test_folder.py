"""A folder of audio: what is read, how it is split, and the reason given for each bad file."""

import numpy as np
import pytest
import soundfile

from diffgap.corpora.folder import FolderCorpus
from diffgap.corpora.media import read_audio
from diffgap.errors import ClipError, MissingClipError, UserError
from diffgap.store.splits import split_of


def tone(seconds=0.3, rate=16_000):
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


def corpus(tmp_path, csv="file_name,caption\na.wav,a tone\n"):
    (tmp_path / "captions.csv").write_text(csv)
    return FolderCorpus(tmp_path)


def test_rows_of_one_file_are_its_captions_and_further_columns_are_kept(tmp_path):
    csv = (
        'file_name,caption,source,split\na.wav,"one, tone",x,val\nb.wav,two,y,\na.wav,three,x,val\n'
    )
    first, second = corpus(tmp_path, csv).clips()
    assert (first.id, first.captions, first.split) == ("a.wav", ("one, tone", "three"), "val")
    assert (second.split, second.extra) == (split_of("b.wav"), {"source": "y"})


@pytest.mark.parametrize(("rate", "suffix"), [(8_000, "wav"), (44_100, "ogg"), (48_000, "flac")])
def test_any_rate_format_and_number_of_channels(tmp_path, rate, suffix):
    stereo = np.stack([tone(rate=rate), 0 * tone(rate=rate)], axis=1)
    soundfile.write(tmp_path / f"a.{suffix}", stereo, rate)
    read = corpus(tmp_path, f"file_name,caption\na.{suffix},a tone\n")
    samples, found = read.audio(read.clips()[0])
    assert (samples.dtype, found) == (np.float32, rate)
    assert samples == pytest.approx(stereo.mean(axis=1), abs=0.01)


def test_each_bad_file_has_its_reason(tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(1000), 16_000)
    soundfile.write(tmp_path / "short.wav", tone(), 16_000)
    whole = (tmp_path / "short.wav").read_bytes()
    (tmp_path / "short.wav").write_bytes(whole[:20])
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("not a sound")
    soundfile.write(tmp_path.parent / "outside.wav", tone(), 16_000)
    reasons = {
        "missing.wav": "no such file",
        "silent.wav": "it is silent",
        "short.wav": "not readable as audio",
        "empty.wav": "the file is empty",
        "text.wav": "not readable as audio",
        "../outside.wav": "its path climbs out",
    }
    read = corpus(tmp_path, "file_name,caption\n" + "".join(f"{n},a sound\n" for n in reasons))
    for clip in read.clips():
        with pytest.raises(ClipError, match=reasons[clip.id]):
            read.audio(clip)


def test_a_bad_captions_file_is_refused_with_its_line(tmp_path):
    with pytest.raises(UserError, match=r"captions.csv: missing; write it with columns"):
        FolderCorpus(tmp_path)
    with pytest.raises(UserError, match=r"\(line 1\): no column caption; it has file_name, text"):
        corpus(tmp_path, "file_name,text\na.wav,a tone\n")
    with pytest.raises(UserError, match="names no file"):
        corpus(tmp_path, "file_name,caption\n")
    with pytest.raises(UserError, match=r"line 2\): a\.wav has split 'dev', not one of train, val"):
        corpus(tmp_path, "file_name,caption,split\na.wav,a tone,dev\n")
    with pytest.raises(UserError, match=r"a\.wav: is in the splits test, val; keep one"):
        corpus(tmp_path, "file_name,caption,split\na.wav,a,val\na.wav,b,test\n").clips()


def test_a_line_that_is_not_utf8_costs_one_caption(tmp_path):
    (tmp_path / "captions.csv").write_bytes(b"file_name,caption\na.wav,ok\nb.wav,caf\xe9\n")
    read = FolderCorpus(tmp_path)
    assert [clip.id for clip in read.clips()] == ["a.wav"]
    (bad,) = read.rejected
    assert (bad.id, bad.stage) == ("b.wav", "corpus")
    assert bad.reason == "captions.csv line 3: not UTF-8; save the file as UTF-8"


def test_a_folder_of_videos_needs_no_captions(tmp_path, real_videos):
    pytest.importorskip("av", reason="needs the extra `video`")
    read = FolderCorpus(real_videos)
    assert read.modalities == ("audio", "video")
    assert [clip.id for clip in read.clips()] == ["car.mp4", "drum.mp4", "gun.mp4"]
    assert read.video(read.clips()[0], 1, 32).shape[1:] == (32, 32, 3)


def test_captioned_videos_have_all_three_modalities(tmp_path):
    read = corpus(tmp_path, "file_name,caption\na.mp4,a car\nb.webm,a drum\n")
    assert read.modalities == ("audio", "text", "video")
    mixed = corpus(tmp_path, "file_name,caption\na.mp4,a car\nb.wav,a drum\n")
    assert mixed.modalities == ("audio", "text")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a\0.wav", "its name is not that of a file: embedded null byte"),
        ("a" * 5000 + ".wav", "its name is not that of a file: File name too long"),
        ("loop.wav", "its name is not that of a file: symlink loop"),
        ("folder.wav", "no such file"),
        ("../up.wav", "its path climbs out of the corpus's directory"),
    ],
)
def test_names_that_are_of_no_file_cost_their_clips_alone(tmp_path, name, reason):
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "captions.csv").write_text(f"file_name,caption\n{name},noise\n")
    corpus = FolderCorpus(tmp_path)
    with pytest.raises(ClipError, match=reason):
        corpus.audio(corpus.clips()[0])


def test_a_file_that_vanishes_while_it_is_read_costs_its_clip_alone(tmp_path):
    with pytest.raises(MissingClipError, match="no such file"):
        read_audio(tmp_path / "gone.wav")
