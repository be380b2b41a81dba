"""VGGSound as its releases come."""

import shutil

import pytest

from diffgap.corpora.vggsound import VGGSoundCorpus
from diffgap.errors import MissingClipError, UserError

WHOLE = """---g-f_I2yQ,1,people marching,test
--0PQM4-hqg,30,waterfall burbling,train
--56QUhyDQM,185,"bird chirping, tweeting",train
"""


def test_the_official_test_list_has_its_clips_and_classes(shared):
    clips = VGGSoundCorpus(shared / "vggsound").clips()
    assert len(clips) == 15_446
    assert len({clip.label for clip in clips}) == 309
    assert {clip.split for clip in clips} == {"test"}


def test_the_whole_list_names_clips_by_id_and_start(tmp_path):
    (tmp_path / "vggsound.csv").write_text(WHOLE)
    first, second, third = VGGSoundCorpus(tmp_path).clips()
    assert (first.id, first.split) == ("---g-f_I2yQ_000001", "test")
    assert second.id == "--0PQM4-hqg_000030"
    assert (third.id, third.label) == ("--56QUhyDQM_000185", "bird chirping, tweeting")


def test_a_fixed_part_of_train_becomes_val(tmp_path):
    rows = "".join(f"{i:011d},0,x,train\n" for i in range(6400))
    (tmp_path / "vggsound.csv").write_text(rows)
    splits = [clip.split for clip in VGGSoundCorpus(tmp_path).clips()]
    assert splits.count("val") == pytest.approx(100, abs=30)
    assert splits.count("test") == 0
    (tmp_path / "vggsound.csv").write_text("".join(rows.splitlines(keepends=True)[:100]))
    assert [clip.split for clip in VGGSoundCorpus(tmp_path).clips()] == splits[:100]


def test_audio_and_video_of_real_clips(tmp_path, real_videos, shared):
    pytest.importorskip("av", reason="needs the extra `video`")
    (tmp_path / "test.csv").write_text(
        "FwVYUHKoLtQ_000034.mp4,x\nfilm_000000.mp4,y\ngone_000000.mp4,z\n"
    )
    shutil.copy(shared / "vggsound" / "FwVYUHKoLtQ_000034.wav", tmp_path)
    (tmp_path / "video").mkdir()
    shutil.copy(real_videos / "drum.mp4", tmp_path / "video" / "film_000000.mp4")
    corpus = VGGSoundCorpus(tmp_path)
    sound, film, gone = corpus.clips()
    assert len(corpus.audio(sound)[0]) == pytest.approx(160_000, rel=0.05)
    with pytest.raises(MissingClipError):
        corpus.video(sound, 1, 32)
    assert corpus.video(film, 1, 32).shape[1:] == (32, 32, 3)
    with pytest.raises(MissingClipError):
        corpus.audio(gone)


def test_bad_lines_are_left_out_and_no_list_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no list of VGGSound"):
        VGGSoundCorpus(tmp_path)
    (tmp_path / "vggsound.csv").write_text(f"{WHOLE}a,x,label,test\nb,1,,test\nc,1,label,dev\n")
    corpus = VGGSoundCorpus(tmp_path)
    assert len(corpus.clips()) == 3
    assert [bad.reason for bad in corpus.rejected] == [
        "vggsound.csv line 4: start is 'x', not whole seconds",
        "vggsound.csv line 5: no label; a row is id,start,label,split or file,label",
        "vggsound.csv line 6: split is 'dev', not train or test",
    ]
