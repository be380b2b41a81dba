"""A scene in words: with synonyms, and, as people do, not mentioning everything."""

from __future__ import annotations

import numpy as np

from diffgap.corpora.soundscapes.scenes import KINDS, Event, Scene

PITCH = (("deep", "low"), (), ("high", "shrill"))
LOUDNESS = (("softly", "quietly", "in the distance"), (), ("loudly", "very loud", "close by"))
PACE = (("slowly", "unhurried"), (), ("fast", "rapidly", "in quick succession"))
BACKGROUND = ((), ("with some noise",), ("with loud noise behind", "in a noisy place"))
THEN = ("then", "followed by", "and then", "before")
WHILE = ("while", "and", "as", "together with")
MENTIONED = 0.6  # probability that an attribute is mentioned, if there is a word for it


def write_caption(scene: Scene, rng: np.random.Generator) -> str:
    """One caption; another generator gives another wording of the same scene."""
    # Each draw moves the generator on: their order decides every caption of the corpus.
    joins = WHILE if scene.mixed else THEN
    events = list(scene.events)
    if scene.mixed:
        rng.shuffle(events)  # type: ignore[arg-type]
    words = [_phrase(events[0], rng)]
    for event in events[1:]:
        words += [_pick(joins, rng), _phrase(event, rng)]
    if rng.random() < MENTIONED:
        words.append(_pick(BACKGROUND[scene.background], rng))
    return " ".join(filter(None, words))


def _phrase(event: Event, rng: np.random.Generator) -> str:
    kind = KINDS[event.kind]
    parts = [_pick(kind.names, rng)]
    if kind.pulses and rng.random() < MENTIONED:
        parts.append(_pick(PACE[event.pace], rng))
    if rng.random() < MENTIONED:
        parts.append(_pick(LOUDNESS[event.loudness], rng))
    if rng.random() < MENTIONED:
        parts.append(_pick(PITCH[event.pitch], rng))
    return " ".join(filter(None, parts))


def _pick(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))] if words else ""
