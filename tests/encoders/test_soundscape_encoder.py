"""The shipped encoder takes anything, does not mind the batch, and beats chance by far."""

import json

import numpy as np
import pytest

from diffgap.corpora.soundscapes import SoundscapeCorpus
from diffgap.encoders import EncoderChoice
from diffgap.encoders.soundscape import WEIGHTS
from diffgap.errors import ClipError, UserError


@pytest.fixture(scope="module")
def encoder():
    return EncoderChoice("soundscape").load()


def sounds():
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, n).astype(np.float32) for n in (1, 500, 32_000, 70_000, 160_000) * 7]


def test_vectors_do_not_depend_on_the_batch(encoder):
    words = ["a dog barks", "rain", "a bell rings then a bell rings then hihat ßø", "x"] * 9
    frames = [
        np.random.default_rng(i).integers(0, 255, (i + 1, 40, 50, 3), np.uint8) for i in range(9)
    ]
    for encode, inputs in [
        (encoder.encode_audio, sounds()),
        (encoder.encode_text, words),
        (encoder.encode_video, frames),
    ]:
        whole = encode(inputs)
        assert whole.shape == (len(inputs), 128)
        assert np.linalg.norm(whole, axis=1) == pytest.approx(np.ones(len(inputs)), abs=1e-5)
        alone = np.concatenate([encode([one]) for one in inputs])
        sevens = np.concatenate([encode(inputs[i : i + 7]) for i in range(0, len(inputs), 7)])
        assert np.abs(whole - alone).max() < 1e-5
        assert np.abs(whole - sevens).max() < 1e-5


def test_unknown_words_still_mean_something(encoder):
    a, b = encoder.encode_text(["hihat", "cowbell"])
    assert np.abs(a - b).max() > 0.01


def test_a_caption_without_a_word_is_refused(encoder):
    with pytest.raises(ClipError, match=r"caption '\.\.\.' has no word"):
        encoder.encode_text(["fine", "..."])


def test_captions_and_pictures_find_their_sounds_far_above_chance(encoder):
    corpus = SoundscapeCorpus({"val": 100})
    clips = corpus.clips()
    audio = encoder.encode_audio([corpus.audio(clip)[0] for clip in clips])
    for other in (
        encoder.encode_text([clip.captions[0] for clip in clips]),
        encoder.encode_video([corpus.video(clip) for clip in clips]),
    ):
        ranks = 1 + (other @ audio.T > (other * audio).sum(1, keepdims=True)).sum(1)
        assert (ranks <= 5).mean() > 0.5


def test_the_record_is_that_of_the_weights(encoder):
    record = json.loads(WEIGHTS.with_suffix(".json").read_text())
    assert record["sha256"] == encoder.checkpoint_hash


def test_an_unknown_encoder_is_refused():
    with pytest.raises(UserError, match="unknown encoder 'soundscap'; did you mean soundscape"):
        EncoderChoice("soundscap").load()
