"""A scene as audio: harmonic tones and shaped noise, mixed into one waveform."""

from __future__ import annotations

import numpy as np
from scipy import fft

from diffgap.corpora.soundscapes.scenes import KINDS, SECONDS, Event, Kind, Scene

RATE = 16_000  # samples a second
PITCHES = (0.63, 1.0, 1.6)
PACES = (0.6, 1.0, 1.7)
GAINS = (0.12, 0.35, 1.0)
BACKGROUNDS = (0.002, 0.01, 0.04)
HARMONICS = 6


def render_audio(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Mono float32 (32000,) at 16 kHz, its peak below 1."""
    samples = int(SECONDS * RATE)
    mix = BACKGROUNDS[scene.background] * rng.standard_normal(samples, dtype=np.float32)
    for event in scene.events:
        start = int(event.onset * RATE)
        sound = _render(event, rng)[: samples - start]
        mix[start : start + len(sound)] += sound
    # Scaled only where it would clip: loudness is one of the things that captions tell.
    return (0.9 * mix / max(1.0, np.abs(mix).max())).astype(np.float32)


def _render(event: Event, rng: np.random.Generator) -> np.ndarray:
    kind = KINDS[event.kind]
    count = max(1, int(event.duration * RATE))
    hz = float(kind.hz * PITCHES[event.pitch] * rng.uniform(0.94, 1.06))
    pace = float(PACES[event.pace] * rng.uniform(0.92, 1.08))
    seconds = np.arange(count, dtype=np.float32) / np.float32(RATE)
    pulses = kind.pulses * pace or 1.0 / event.duration
    phase = (seconds * pulses) % 1.0  # of each sample within its pulse, or the whole gesture
    sound = np.zeros(count, dtype=np.float32)
    if kind.noise < 1:
        sound += (1 - kind.noise) * _tone(kind, hz, seconds, phase)
    if kind.noise > 0:
        sound += kind.noise * _noise(kind, hz, count, rng)
    sound *= _envelope(kind, phase, seconds, event.duration)
    loudest = np.abs(sound).max() or 1.0
    return GAINS[event.loudness] * rng.uniform(0.85, 1.15) * 0.5 * sound / loudest


def _tone(kind: Kind, hz: float, seconds: np.ndarray, phase: np.ndarray) -> np.ndarray:
    vibrato = 1 + kind.vibrato * np.sin(2 * np.pi * 6 * seconds) if kind.vibrato else 1.0
    # Summed in float64: over 32,000 samples float32 would drift.
    turns = np.cumsum(hz / RATE * kind.sweep**phase * vibrato, dtype=np.float64) % 1.0
    angle = (2 * np.pi * turns).astype(np.float32)
    # None above 0.45 of the rate, even at the end of a rising sweep: it would alias.
    highest = max(1, min(HARMONICS, int(0.45 * RATE / (hz * max(1.0, kind.sweep)))))
    below, harmonic = np.zeros_like(angle), np.sin(angle)
    twice_cosine = 2 * np.cos(angle)
    tone = harmonic.copy()
    for number in range(1, highest):
        if kind.rolloff**number < 0.02:
            break
        below, harmonic = harmonic, twice_cosine * harmonic - below  # sin of the next multiple
        tone += kind.rolloff**number * harmonic
    return tone


def _noise(kind: Kind, hz: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """White noise under a bell curve over log frequency."""
    length = fft.next_fast_len(count, real=True)
    spectrum = fft.rfft(rng.standard_normal(length, dtype=np.float32))
    frequencies = fft.rfftfreq(length, 1 / RATE).astype(np.float32)
    distance = np.log2(np.maximum(frequencies, 1.0) / hz) / (0.5 * kind.octaves)
    shaped = fft.irfft(spectrum * np.exp(-0.5 * distance**2), length)[:count]
    return shaped / (shaped.std() or 1.0)


def _envelope(kind: Kind, phase: np.ndarray, seconds: np.ndarray, duration: float) -> np.ndarray:
    # Ramps of 10 ms, without which a sound starts and stops with a click.
    ramps = np.minimum(1.0, np.minimum(seconds, duration - seconds) / 0.01).clip(0)
    if not kind.pulses:
        return ramps
    return ramps * np.exp(-kind.decay * phase) * np.minimum(1.0, phase / 0.03)
