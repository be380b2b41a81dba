"""Audio files: 16 bits at their own rate, whole or absent."""

import errno

import numpy as np
import pytest
import soundfile

from diffgap.audio.files import format_problem, write_audio
from diffgap.errors import UserError
from diffgap.io import atomic as files

SAMPLES = (0.5 * np.sin(np.arange(1600) / 5)).astype(np.float32)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "new/A.WAV"])
def test_a_file_reads_back_in_16_bits_at_its_rate(tmp_path, name):
    write_audio(tmp_path / name, SAMPLES, 16_000)
    info = soundfile.info(tmp_path / name)
    assert (info.subtype, info.samplerate, info.frames, info.channels) == (
        "PCM_16",
        16_000,
        1600,
        1,
    )
    read, _ = soundfile.read(tmp_path / name, dtype="float32")
    assert np.abs(read - SAMPLES).max() <= 2**-15


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(UserError, match="No space left on device; make room"):
        write_audio(tmp_path / "a.wav", SAMPLES, 16_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_sound_that_is_not_finite_is_never_written(tmp_path, number):
    samples = SAMPLES.copy()
    samples[7] = number
    with pytest.raises(UserError, match=r"shown.wav: .* samples are not all finite"):
        write_audio(tmp_path / "a.wav", samples, 16_000, tmp_path / "shown.wav")
    assert list(tmp_path.iterdir()) == []


def test_errors_about_other_formats_name_the_known_ones(tmp_path):
    assert "ends in .mp3; use .wav or .flac" in str(format_problem(tmp_path / "a.mp3"))
    assert format_problem(tmp_path / "a.flac") is None
