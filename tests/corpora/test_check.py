"""A corpus is checked as it would be embedded."""

import numpy as np
import pytest
import soundfile

from diffgap.corpora.check import check_corpus
from diffgap.corpora.folder import FolderCorpus
from diffgap.corpora.soundscapes import SoundscapeCorpus
from diffgap.errors import UserError


def test_present_missing_unreadable_and_duplicated_are_told_apart(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(30):
        soundfile.write(tmp_path / f"{i}.wav", rng.normal(0, 0.1, 2000), 16_000)
    (tmp_path / "twin.wav").write_bytes((tmp_path / "3.wav").read_bytes())
    (tmp_path / "text.wav").write_text("no sound")
    names = [*(f"{i}.wav" for i in range(30)), "twin.wav", "text.wav", "gone.wav"]
    rows = "".join(f"{name},a sound,test\n" for name in names)
    (tmp_path / "captions.csv").write_bytes(
        f"file_name,caption,split\n{rows}".encode() + b"odd.wav,caf\xe9,test\n"
    )
    seen = []
    result = check_corpus(FolderCorpus(tmp_path), lambda *done: seen.append(done))
    assert (result.listed["test"], result.usable["test"]) == (33, 31)
    assert [bad.id for bad in result.missing] == ["gone.wav"]
    assert [bad.id for bad in result.unreadable] == ["text.wav"]
    assert [bad.id for bad in result.bad_lines] == ["odd.wav"]
    assert result.duplicates == [("3.wav", "twin.wav")]
    assert not result.is_clean
    assert seen[-1] == (33, 33)


def test_a_whole_corpus_is_clean(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(2000) / 3), 16_000)
    (tmp_path / "captions.csv").write_text("file_name,caption\na.wav,a tone\n")
    assert check_corpus(FolderCorpus(tmp_path)).is_clean


def test_a_generated_corpus_need_not_be_checked():
    with pytest.raises(UserError, match="soundscapes is generated, not read"):
        check_corpus(SoundscapeCorpus({"train": 1}))


def test_a_clip_that_is_listed_twice_is_a_duplicate_with_or_without_its_file(tmp_path):
    class Twice(FolderCorpus):
        def clips(self):
            return super().clips() * 2

    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(2000) / 3), 16_000)
    (tmp_path / "captions.csv").write_text("file_name,caption\na.wav,a tone\ngone.wav,gone\n")
    result = check_corpus(Twice(tmp_path))
    assert result.duplicates == [("a.wav", "a.wav"), ("gone.wav", "gone.wav")]
