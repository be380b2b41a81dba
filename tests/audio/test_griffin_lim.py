"""Audio from magnitudes: Griffin-Lim's iterations, and mel bands back to magnitudes."""

import itertools
import math

import numpy as np
import pytest
import torch

from diffgap.audio.griffin_lim import griffin_lim, mel_to_magnitudes
from diffgap.audio.mel import slaney_filterbank

RATE, N_FFT, HOP = 16_000, 1024, 256


def magnitudes(samples):
    window = torch.hann_window(N_FFT)
    spectra = torch.stft(
        samples, N_FFT, HOP, window=window, pad_mode="constant", return_complex=True
    )
    return spectra.abs()


def tone(hertz, seconds=1.0):
    times = torch.arange(int(RATE * seconds)) / RATE
    return 0.5 * torch.sin(2 * math.pi * hertz * times)


def loudest(samples):
    """Hz of the strongest component, to the nearest."""
    spectrum = np.abs(np.fft.rfft(np.asarray(samples)))
    return spectrum.argmax() * RATE / len(samples)


@pytest.fixture(scope="module")
def sounds():
    """Three of a second: a chord, a falling whistle, and knocks of noise."""
    times = torch.arange(RATE) / RATE
    whistle = 0.3 * torch.sin(2 * math.pi * (3000 * times - 1000 * times**2))
    noise = torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    knocks = 0.3 * noise * torch.exp(-30 * (times % 0.25))
    return torch.stack([tone(440) + 0.4 * tone(660), whistle, knocks])


@pytest.fixture(scope="module")
def filterbank():
    return slaney_filterbank(RATE, N_FFT, 128, 125, 7600)


def distance(samples, wanted):
    """Spectral convergence, a clip."""
    error = (magnitudes(samples) - wanted).flatten(1).norm(dim=1)
    return error / wanted.flatten(1).norm(dim=1)


@pytest.mark.parametrize("hertz", [250, 1000, 5000])
def test_a_tone_comes_back_with_its_frequency_and_loudness(hertz):
    wanted = magnitudes(tone(hertz)[None])
    (found,) = griffin_lim(wanted, N_FFT, HOP, seeds=[3])
    assert len(found) == (wanted.shape[-1] - 1) * HOP
    assert loudest(found) == pytest.approx(hertz, abs=4)
    assert float(found.std()) == pytest.approx(float(tone(hertz).std()), rel=0.05)


def test_iterations_bring_spectra_closer(sounds):
    wanted = magnitudes(sounds)
    steps = [
        distance(griffin_lim(wanted, N_FFT, HOP, n, seeds=[1, 2, 3]), wanted)
        for n in (0, 1, 4, 16, 64)
    ]
    for before, after in itertools.pairwise(steps):
        assert (after < before).all()
    assert (steps[-1] < 0.2 * steps[0]).all()


def test_a_seed_decides_its_clip_whatever_the_batch(sounds):
    wanted = magnitudes(sounds)
    together = griffin_lim(wanted, N_FFT, HOP, 8, seeds=[1, 2, 3])
    assert torch.equal(together, griffin_lim(wanted, N_FFT, HOP, 8, seeds=[1, 2, 3]))
    assert torch.equal(together[1:2], griffin_lim(wanted[1:2], N_FFT, HOP, 8, seeds=[2]))
    other = griffin_lim(wanted[1:2], N_FFT, HOP, 8, seeds=[4])
    assert (other - together[1:2]).abs().max() > 0.01


def test_silence_stays_silent(filterbank):
    nothing = mel_to_magnitudes(torch.zeros(1, 128, 10), filterbank)
    assert (nothing == 0).all()
    assert (griffin_lim(nothing, N_FFT, HOP, seeds=[1]) == 0).all()


def test_bands_become_magnitudes_that_give_the_same_bands(sounds, filterbank):
    bands = filterbank @ magnitudes(sounds)
    found = mel_to_magnitudes(bands, filterbank)
    assert (found >= 0).all()
    assert (found[:, filterbank.sum(0) == 0] == 0).all()
    error = (filterbank @ found - bands).norm() / bands.norm()
    clipped = (torch.linalg.pinv(filterbank) @ bands).clamp_min(0)
    assert error < 1e-3
    assert error < 0.1 * (filterbank @ clipped - bands).norm() / bands.norm()


def test_a_tone_survives_the_bands(filterbank):
    found = mel_to_magnitudes(filterbank @ magnitudes(tone(1000)[None]), filterbank)
    (samples,) = griffin_lim(found, N_FFT, HOP, seeds=[5])
    assert loudest(samples) == pytest.approx(1000, abs=RATE / N_FFT)
    assert float(samples.std()) == pytest.approx(float(tone(1000).std()), rel=0.2)
