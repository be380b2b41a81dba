"""One chunk of clips: windows, batches, and what is rejected."""

import numpy as np
import pytest

from diffgap.audio.resampling import RESAMPLERS, resample
from diffgap.corpora.base import Clip
from diffgap.corpora.soundscapes import SoundscapeCorpus
from diffgap.encoders import EncoderChoice
from diffgap.encoders.chunks import DecodedChunk, InputSpec, cut_windows, decode_chunk, encode_chunk
from diffgap.store.splits import hash_fraction


def input_spec(long_clips, window=4.0):
    return InputSpec(("audio", "video"), 100, "scipy", window, 4.0, 8, long_clips)


def seconds_of(windows, rate):
    """When each window begins and how long it is; streams hold their own times."""
    return [(w[0] / rate, len(w) / rate) for w in windows]


def test_a_crop_is_fixed_by_the_clips_id_and_is_the_same_time_in_audio_and_video():
    streams = {"audio": np.arange(1000), "video": np.arange(40)}
    starts = set()
    for name in ("a", "b", "c", "d"):
        windows = cut_windows(streams, name, input_spec("crop"))
        ((start, length),) = seconds_of(windows["audio"], 100)
        assert (start, length) == seconds_of(windows["video"], 4)[0]
        assert length == 4.0
        assert start == np.floor(4 * hash_fraction(name) * 6.0) / 4
        starts.add(start)
    assert len(starts) > 1


def test_the_mean_covers_the_whole_clip():
    streams = {"audio": np.arange(1000), "video": np.arange(40)}
    windows = cut_windows(streams, "a", input_spec("mean"))
    assert seconds_of(windows["audio"], 100) == [(0.0, 4.0), (3.0, 4.0), (6.0, 4.0)]
    assert seconds_of(windows["video"], 4) == seconds_of(windows["audio"], 100)


@pytest.mark.parametrize("long_clips", ["crop", "mean"])
def test_short_clips_and_encoders_of_any_length_get_everything(long_clips):
    streams = {"audio": np.arange(250)}
    assert len(cut_windows(streams, "a", input_spec(long_clips))["audio"][0]) == 250
    streams = {"audio": np.arange(5000)}
    (whole,) = cut_windows(streams, "a", input_spec(long_clips, window=None))["audio"]
    assert len(whole) == 5000


class Sums:
    """An encoder that can be calculated by hand: sum and length of the input."""

    dimension = 2

    def encode_audio(self, waveforms):
        vectors = np.array([[w.sum(), len(w)] for w in waveforms], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_text(self, captions):
        """Captions that are numbers, as the first of two."""
        return np.array([[float(caption), 0] for caption in captions], np.float32)


def test_a_clip_is_the_normalised_mean_of_its_windows():
    windows = [[np.ones(3), np.zeros(4)], [np.ones(5)]]
    decoded = DecodedChunk([Clip("a", "train", ()), Clip("b", "train", ())], {"audio": windows})
    vectors = encode_chunk(Sums(), decoded, ("audio",)).items["audio"].to_pylist()
    mean = np.array([1, 1]) / np.sqrt(2) + np.array([0, 1])
    assert vectors[0] == pytest.approx(mean / np.linalg.norm(mean))
    assert vectors[1] == pytest.approx([1 / np.sqrt(2)] * 2)


def test_an_embedding_that_is_not_finite_is_rejected_by_name():
    windows = [[np.full(3, np.nan)], [np.ones(5)]]
    decoded = DecodedChunk([Clip("a", "train", ()), Clip("b", "train", ())], {"audio": windows})
    tables = encode_chunk(Sums(), decoded, ("audio",))
    assert tables.items["id"].to_pylist() == ["b"]
    assert tables.rejected.to_pylist() == [
        {"id": "a", "stage": "audio", "reason": "its embedding is not finite"}
    ]


def test_captions_without_a_direction_are_left_out_by_name():
    clips = [Clip("a", "train", ("1", "nan")), Clip("b", "train", ("0",))]
    decoded = DecodedChunk(clips, {"audio": [[np.ones(3)], [np.ones(5)]]})
    tables = encode_chunk(Sums(), decoded, ("audio", "text"))
    assert tables.items["id"].to_pylist() == ["a", "b"]
    assert tables.captions.to_pylist() == [{"id": "a", "caption": "1", "text": [1, 0]}]
    assert [(row["id"], row["stage"]) for row in tables.rejected.to_pylist()] == [
        ("a", "text"), ("b", "text")
    ]  # fmt: skip
    assert "'nan' is zero or not finite" in tables.rejected["reason"][0].as_py()


@pytest.mark.parametrize("batch", [1, 7, 32])
def test_the_batch_does_not_change_a_clips_vectors(batch):
    corpus = SoundscapeCorpus({"test": 32})
    encoder = EncoderChoice("soundscape").load()
    modalities = ("audio", "text", "video")
    spec = InputSpec.of(encoder, modalities, "crop")
    clips = corpus.clips()
    whole = encode_chunk(encoder, decode_chunk(corpus, clips, spec), modalities)
    part = encode_chunk(encoder, decode_chunk(corpus, clips[:batch], spec), modalities)
    for name in ("audio", "video"):
        vectors = np.array(part.items[name].to_pylist())
        assert np.abs(vectors - np.array(whole.items[name].to_pylist())[:batch]).max() < 1e-5
    texts = np.array(part.captions["text"].to_pylist())
    assert np.abs(texts - np.array(whole.captions["text"].to_pylist())[: len(texts)]).max() < 1e-5


@pytest.mark.parametrize("resampler", RESAMPLERS)
@pytest.mark.parametrize(("rate", "target"), [(44_100, 16_000), (32_000, 48_000)])
def test_resampling_keeps_a_tone_and_its_length(resampler, rate, target):
    if resampler == "torchaudio":
        pytest.importorskip("torchaudio", reason="needs the extra `clap`")
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    resampled = resample(tone, rate, target, resampler)
    expected = np.sin(2 * np.pi * 440 * np.arange(target) / target)
    assert (len(resampled), resampled.dtype) == (target, np.float32)
    assert np.abs(resampled - expected)[200:-200].max() < 0.01
