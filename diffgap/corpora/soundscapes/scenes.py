"""Scenes: which sounds happen when, before they are rendered or captioned."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

SECONDS = 2.0
LEVELS = 3  # pitch, loudness and pace each come in three levels


@dataclass(frozen=True)
class Kind:
    """A kind of sound: a harmonic tone, shaped noise, or both, in one long gesture or in pulses."""

    names: tuple[str, ...]  # synonyms; the first is the label
    hz: float  # pitch of the tone, or centre of the noise, at middle pitch
    noise: float = 0.0  # fraction of noise, 0 to 1
    octaves: float = 1.0  # bandwidth of the noise
    sweep: float = 1.0  # pitch at a gesture's end, as a multiple of its start
    vibrato: float = 0.0  # depth of a 6 Hz vibrato, as a fraction of the pitch
    rolloff: float = 0.5  # each harmonic's amplitude, as a multiple of the one below
    pulses: float = 0.0  # pulses a second at middle pace; 0 is one long gesture
    decay: float = 3.0  # how fast a pulse decays, in nepers over its length


KINDS: tuple[Kind, ...] = (
    Kind(("a dog barks", "a dog is barking", "barking"), 420, 0.35, 1.5, 0.6, 0, 0.7, 2.5, 5),
    Kind(("a bird chirps", "bird song", "a bird sings"), 3200, 0, 1, 1.5, 0.05, 0.1, 5, 2),
    Kind(("a bell rings", "a bell tolls", "ringing of a bell"), 880, 0, 1, 1, 0, 0.65, 1.2, 4),
    Kind(("a siren wails", "a siren", "an ambulance passes"), 800, 0, 1, 1.7, 0, 0.4, 0.8, 0),
    Kind(("an engine runs", "a motor hums", "an engine idles"), 90, 0.15, 2, 1, 0.02, 0.85, 0, 0),
    Kind(("rain falls", "rain", "steady rain"), 4500, 1, 2.5),
    Kind(("wind blows", "gusts of wind", "wind howls"), 500, 1, 1, 1.3, 0, 0.5, 0.7, 0.5),
    Kind(("someone knocks", "knocking on a door", "knocks"), 220, 0.6, 1, 0.8, 0, 0.5, 3.5, 9),
    Kind(("a drum beats", "drumming", "a drum is hit"), 130, 0.4, 2, 0.5, 0, 0.5, 2.2, 6),
    Kind(("someone whistles", "a whistle", "whistling"), 1700, 0.03, 0.5, 1.2, 0.02, 0.05),
    Kind(("a horn honks", "a car horn", "honking"), 400, 0, 1, 1, 0, 0.85, 1.4, 0.3),
    Kind(("an alarm beeps", "beeping", "an electronic alarm"), 2200, 0, 1, 1, 0, 0.3, 4, 0.1),
    Kind(("someone types", "typing on a keyboard", "clicks"), 3000, 0.95, 1.5, 1, 0, 0.3, 7, 14),
    Kind(("thunder rumbles", "thunder", "a rumble"), 90, 1, 1.5, 0.6, 0, 0.5, 0.6, 2),
    Kind(("water drips", "drops of water", "dripping"), 1100, 0, 1, 1.9, 0, 0.2, 2.6, 10),
    Kind(("crickets chirp", "crickets", "insects in the grass"), 4800, 0.1, 0.3, 1, 0, 0, 12, 1.5),
    Kind(("a bee buzzes", "buzzing", "an insect buzzes"), 210, 0.05, 1, 1.05, 0.06, 0.92),
    Kind(("a guitar is plucked", "guitar notes", "strings"), 330, 0, 1, 1, 0, 0.75, 2, 3),
    Kind(("footsteps", "someone walks", "steps on gravel"), 900, 1, 2.5, 1, 0, 0.5, 2.2, 8),
    Kind(("a cat meows", "a cat", "meowing"), 600, 0.05, 1, 0.75, 0.03, 0.7, 1, 0.8),
    Kind(("a frog croaks", "croaking", "a frog"), 260, 0.2, 1, 0.9, 0, 0.8, 9, 3),
    Kind(("a saw cuts wood", "sawing", "a hand saw"), 2500, 0.9, 1, 1.6, 0, 0.6, 1.8, 0.5),
    Kind(("a machine hisses", "hissing steam", "a hiss"), 6500, 1, 1),
    Kind(("an organ plays", "an organ note", "a long chord"), 260, 0, 1, 1, 0.01, 0.8),
)


@dataclass(frozen=True)
class Event:
    """One sound in a scene; levels count from 0, low to high."""

    kind: int
    pitch: int
    loudness: int
    pace: int
    onset: float  # seconds from the scene's start
    duration: float  # seconds


@dataclass(frozen=True)
class Scene:
    """What happens in a clip."""

    events: tuple[Event, ...]  # in the order of their onsets
    mixed: bool  # whether they sound together; else one after another
    background: int  # the background noise's level, 0 to 2


def generator(*key: str | int) -> np.random.Generator:
    """A random generator that follows from a key alone, in any process."""
    # CRC-32, because Python's own hash of a string differs from process to process.
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return np.random.default_rng(words)


def draw_scene(rng: np.random.Generator) -> Scene:
    """One to three events, in sequence or mixed."""
    count = int(rng.choice([1, 2, 3], p=[0.25, 0.5, 0.25]))
    kinds = rng.choice(len(KINDS), size=count, replace=False)
    mixed = count > 1 and bool(rng.random() < 0.4)
    levels = rng.integers(LEVELS, size=(count, 3)).tolist()
    spans = _together(rng, count) if mixed else _in_turn(rng, count)
    events = []
    for kind, (pitch, loudness, pace), (onset, duration) in zip(kinds, levels, spans, strict=True):
        events.append(Event(int(kind), pitch, loudness, pace, onset, duration))
    return Scene(tuple(events), mixed, int(rng.integers(LEVELS)))


def _together(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    onsets = np.sort(rng.uniform(0.0, 0.3, size=count))
    return [(float(onset), SECONDS - float(onset)) for onset in onsets]


def _in_turn(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    shares = rng.dirichlet(np.full(count, 12.0)) * SECONDS
    onsets = np.concatenate([[0.0], np.cumsum(shares)[:-1]])
    # A little short, so that there is a gap before the next one.
    return list(zip(onsets.tolist(), (shares * 0.95).tolist(), strict=True))
