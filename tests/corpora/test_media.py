"""Audio and video out of files: what is read, and the reason given for each bad file."""

import numpy as np
import pytest
import soundfile

from diffgap.corpora.media import read_audio, read_video
from diffgap.errors import ClipError

av = pytest.importorskip("av", reason="needs the extra `video`")


def tone(seconds=1.0, rate=16_000):
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


def write_video(path, grey_levels, fps=10, sound_seconds=0.0):
    """A video whose frame i is one grey, with or without a tone."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=fps)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        track = container.add_stream("aac", rate=16_000, layout="mono") if sound_seconds else None
        for level in grey_levels:
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8), "rgb24")
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode())
        if track:
            samples = tone(sound_seconds).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate = 16_000
            container.mux(track.encode(frame))
            container.mux(track.encode())


@pytest.mark.parametrize("suffix", ["mp3", "wav", "flac"])
def test_a_truncated_file_is_not_taken_for_a_short_one(tmp_path, suffix):
    whole = tmp_path / f"whole.{suffix}"
    soundfile.write(whole, tone(4), 16_000)
    assert len(read_audio(whole)[0]) == pytest.approx(64_000, rel=0.05)
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ClipError, match=r"truncated: it holds [12]\.\d of 4.0 s|lost sync"):
        read_audio(cut)


def test_each_bad_file_has_its_own_message(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("not a sound at all, although it is called one")
    (tmp_path / "text.mp4").write_text("not a video at all, although it is called one")
    soundfile.write(tmp_path / "mute.wav", np.zeros(16_000), 16_000)
    write_video(tmp_path / "silent_film.mp4", [100] * 10)
    reasons = {
        "empty.wav": "the file is empty",
        "text.wav": "not readable as audio",
        "text.mp4": "not readable as audio: Invalid data",
        "mute.wav": "it is silent",
        "silent_film.mp4": "it is a video without a sound track",
    }
    for name, reason in reasons.items():
        with pytest.raises(ClipError, match=reason):
            read_audio(tmp_path / name)
    with pytest.raises(ClipError, match="not readable as video: Invalid data"):
        read_video(tmp_path / "text.mp4", 4, 32)
    with pytest.raises(ClipError, match="a sound file has no video"):
        read_video(tmp_path / "text.wav", 4, 32)


def test_hours_of_sound_are_no_clip(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.tile(tone(1, 1000), 660), 1000)
    with pytest.raises(ClipError, match="it is 11 minutes long; cut it into clips of at most 10"):
        read_audio(tmp_path / "long.wav")


def test_a_sound_track_is_read_as_mono(tmp_path):
    write_video(tmp_path / "a.mp4", [100] * 20, sound_seconds=2)
    samples, rate = read_audio(tmp_path / "a.mp4")
    assert (samples.dtype, rate) == (np.float32, 16_000)
    assert len(samples) == pytest.approx(32_000, abs=2048)
    peak = np.abs(np.fft.rfft(samples[4000:20_000])).argmax()
    assert peak == pytest.approx(440, abs=1)  # Hz, for one second at 16 kHz


@pytest.mark.parametrize("fps", [2, 4, 10])
def test_frames_are_those_visible_at_their_times(tmp_path, fps):
    levels = np.arange(20) * 10 + 20
    write_video(tmp_path / "a.mp4", levels, fps=10)
    frames = read_video(tmp_path / "a.mp4", fps, 32)
    assert frames.shape == (2 * fps, 32, 32, 3)
    assert frames.dtype == np.uint8
    visible = np.floor(np.arange(2 * fps) / fps * 10 + 1e-6).astype(int)
    assert frames.mean(axis=(1, 2, 3)) == pytest.approx(levels[visible], abs=4)


def test_real_videos_have_audio_and_video(real_videos):
    for path in sorted(real_videos.glob("*.mp4")):
        samples, rate = read_audio(path)
        frames = read_video(path, 4.0, 224)
        assert len(frames) / 4 == pytest.approx(len(samples) / rate, abs=0.5)
        assert frames.std() > 10
