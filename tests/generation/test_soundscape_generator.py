"""The embedded corpus's generator, with the weights that ship."""

import hashlib
import json

import numpy as np
import pytest
import torch
import train_soundscape_generator

from diffgap.corpora.base import Clip
from diffgap.corpora.soundscapes import SoundscapeCorpus
from diffgap.encoders.soundscape import SoundscapeEncoder
from diffgap.errors import UserError
from diffgap.generation import GeneratorChoice
from diffgap.generation.base import Sampling
from diffgap.generation.soundscape_generator import WEIGHTS, Components, sounds, standard_log_mel

FEW = Sampling(steps=6, guidance=2.5)


@pytest.fixture(scope="module")
def real():
    """Twelve clips that neither it nor the encoder was trained on."""
    corpus = SoundscapeCorpus()
    return np.stack([corpus.audio(Clip(f"test-{i:05d}", "test", ()))[0] for i in range(12)])


@pytest.fixture(scope="module")
def encoder():
    return SoundscapeEncoder.load()


@pytest.fixture(scope="module")
def generator():
    return GeneratorChoice("soundscape").load()


def test_it_makes_what_it_is_told(generator, encoder, real):
    told = encoder.encode_audio(real)
    made = generator.generate(told, range(12), FEW)
    assert made.shape == (12, 32_000)
    assert made.dtype == np.float32
    assert np.abs(made).max() <= 1
    alike = encoder.encode_audio(made) @ told.T
    own, others = np.diag(alike), alike[~np.eye(12, dtype=bool)]
    assert own.mean() > others.mean() + 0.3
    assert (alike.argmax(1) == np.arange(12)).mean() > 0.7


def test_a_seed_is_a_clip(generator, encoder, real):
    told = np.repeat(encoder.encode_audio(real[:1]), 3, axis=0)
    one, same, other = generator.generate(told, [1, 1, 2], FEW)
    np.testing.assert_allclose(one, same, atol=1e-5)
    assert np.abs(one - other).max() > 0.01
    again = generator.generate(told, [1, 1, 2], FEW)
    np.testing.assert_array_equal(again[0], one)


def test_a_clip_is_the_same_alone_but_for_rounding(generator, encoder, real):
    told = encoder.encode_audio(real[:4])
    batch = standard_log_mel(torch.from_numpy(generator.generate(told, [1, 2, 3, 4], FEW)))
    alone = standard_log_mel(torch.from_numpy(generator.generate(told[2:3], [3], FEW)))
    assert (batch[2] - alone[0]).abs().mean() < 0.15 * batch.std()
    assert (batch[2] - batch[1]).abs().mean() > 0.4 * batch.std()


def test_its_latents_keep_what_is_heard(encoder, real):
    mels = standard_log_mel(torch.from_numpy(real))
    components = Components()
    components.fit(mels)
    latents = components.encode(mels)
    assert latents.shape == (12, 16, 8, 16)
    assert float(latents.square().mean()) == pytest.approx(1, abs=0.01)
    kept = components.decode(latents)
    assert float((kept - mels).square().mean()) < 0.05 * float(mels.var())
    heard = encoder.encode_audio(sounds(kept, range(12)))
    assert (heard * encoder.encode_audio(real)).sum(1).mean() > 0.8


def test_weights_are_those_of_the_record():
    record = json.loads(WEIGHTS.with_suffix(".json").read_text())
    assert record["sha256"] == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert record["minutes"] < 15
    assert WEIGHTS.stat().st_size < 20e6


def test_it_learns(encoder, real, monkeypatch):
    monkeypatch.setattr(train_soundscape_generator, "LOG_EVERY", 10)
    settings = {"batch_size": 4, "lr": 3e-3, "weight_decay": 0.01, "ema": 0.9}
    mels, told = (
        standard_log_mel(torch.from_numpy(real)),
        torch.from_numpy(encoder.encode_audio(real)),
    )
    network, losses = train_soundscape_generator.train(
        mels, told, steps=30, condition_dropout=0.1, seed=0, **settings
    )
    assert len(losses) == 3
    torch.manual_seed(1)
    latents, scheduler = (
        network.components.encode(mels),
        train_soundscape_generator.make_scheduler(),
    )
    with torch.no_grad():  # a batch of four is a matter of luck; these are the same for everybody
        left = [
            float(train_soundscape_generator._loss(network, scheduler, latents, told))
            for _ in range(8)
        ]
    assert np.mean(left) < 0.97 < 1 < losses[0]  # v has unit variance


def test_it_takes_no_other_weights():
    with pytest.raises(UserError, match="soundscape comes with its own weights; leave them out"):
        GeneratorChoice("soundscape", "mine.safetensors").load()
    with pytest.raises(UserError, match="unknown generator 'sundscape'; did you mean soundscape"):
        GeneratorChoice("sundscape").load()
