"""A trial of generation: sound for clips of a store, measured against their own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diffgap import corpora
from diffgap.audio.files import write_audio
from diffgap.audio.resampling import resample
from diffgap.bridge.base import Bridge
from diffgap.corpora.base import Clip, Corpus
from diffgap.encoders import EncoderChoice
from diffgap.encoders.base import Encoder
from diffgap.encoders.chunks import encode_streams
from diffgap.encoders.soundscape import FPS, SIZE
from diffgap.errors import UserError
from diffgap.evaluation.audio_metrics import Scores, measure, similarity
from diffgap.evaluation.extractors import ExtractorChoice
from diffgap.evaluation.extractors.base import Extractor, Features
from diffgap.evaluation.extractors.soundscape_judges import SoundscapeAlignment
from diffgap.generation import GeneratorChoice
from diffgap.generation.base import Generator, Sampling, generate_in_batches
from diffgap.generation.conditions import GenerationRequest, choose, conditions, seeds_of
from diffgap.ledger.artifacts import GENERATED, PLAYED, REPLICATES
from diffgap.spec import Trial
from diffgap.store.schema import split_task
from diffgap.store.store import EmbeddingStore

log = logging.getLogger(__name__)

HEARD = 3
"""Clips of a trial that are kept, to be listened to."""
VIDEO = "video"


@dataclass(frozen=True)
class Sounds:
    """N mono float32 clips, and their rate in Hz."""

    waveforms: Sequence[np.ndarray]
    rate: int

    def at(self, rate: int) -> list[np.ndarray]:
        """The clips at another rate."""
        return [resample(waveform, self.rate, rate) for waveform in self.waveforms]


@dataclass(frozen=True)
class Source:
    """Clips of a corpus: what was really heard and seen."""

    corpus: str
    root: str | None
    ids: tuple[str, ...]

    def sounds(self, count: int | None = None) -> Sounds:
        """The own sound of the first clips, or of all, at the rate of the first."""
        found = [corpus.audio(clip) for corpus, clip in self._clips(count)]
        rate = found[0][1]
        return Sounds([resample(samples, its, rate) for samples, its in found], rate)

    def videos(self) -> list[np.ndarray]:
        """The clips' own pictures, as the embedded corpus has them."""
        return [corpus.video(clip, FPS, SIZE) for corpus, clip in self._clips(None)]

    def _clips(self, count: int | None) -> list[tuple[Corpus, Clip]]:
        corpus, clips = _listed(self.corpus, self.root)
        if missing := [name for name in self.ids if name not in clips]:
            raise UserError(
                f"generation.audio: {self.root} has no clip {missing[0]!r}, and lacks "
                f"{len(missing)} of {len(self.ids)}; give the directory that the store was made of"
            )
        return [(corpus, clips[name]) for name in self.ids[:count]]


@dataclass(frozen=True)
class GenerationResult:
    """What a trial has made, and how good that is."""

    asked: GenerationRequest
    made: Sounds
    real: Sounds
    """Of the clips that are kept to be listened to."""
    scores: Scores
    generator: Generator
    split: str

    @property
    def facts(self) -> dict[str, Any]:
        """What its figures mean."""
        made_by = {
            "name": self.generator.name,
            "weights_hash": self.generator.weights_hash,
            "rate": self.generator.rate,
        }
        measured = {"clips": self.scores.clips, "extractors": self.scores.extractors}
        return {"generation": {"generator": made_by, **measured}}

    @property
    def metrics(self) -> dict[str, float]:
        """``test/generation/FAD`` and so on."""
        return {f"{self.split}/generation/{n}": value for n, value in self.scores.values.items()}

    def write(self, path: Path) -> None:
        """Leaves a row a clip, the replicates of every figure, and a few clips to listen to."""
        columns = {"clip": list(self.asked.ids)}
        if self.asked.captions:
            columns["caption"] = list(self.asked.captions)
        pq.write_table(pa.table({**columns, **self.scores.per_clip}), path / GENERATED)
        pq.write_table(pa.table(self.scores.replicates), path / REPLICATES)
        for number, name in enumerate(self.asked.ids[:HEARD]):
            for kind, sounds in (("made", self.made), ("real", self.real)):
                place = path / PLAYED / f"{number}-{kind}.flac"
                write_audio(place, sounds.waveforms[number], sounds.rate)
            log.info("%s is %s/%d-made.flac", name, PLAYED, number)


def generate_and_measure(trial: Trial, bridge: Bridge, store: EmbeddingStore) -> GenerationResult:
    """Makes sound for a trial's clips, and compares it with theirs.

    Args:
        trial: one that generates.
        bridge: its own; idle where its condition is not `bridged`.
        store: where the clips' embeddings are.

    Raises:
        UserError: where the generator, an extractor, the encoder or the corpus cannot be had.
    """
    wanted, device = trial.generation, str(bridge.device)
    generator = _generator(GeneratorChoice(wanted.generator, wanted.weights), device)
    asked = choose(store, trial.task, trial.split, wanted.clips)
    seeds = seeds_of(asked.ids, trial.seed)
    vectors = conditions(wanted.condition, bridge, asked, seeds)
    sampling = Sampling(wanted.steps, wanted.guidance)
    waveforms = generate_in_batches(generator, vectors, seeds, sampling, _said)
    made = Sounds(list(waveforms), generator.rate)
    source = Source(store.manifest.corpus.name, wanted.audio, asked.ids)
    scores = _scores(trial, store, asked, made, source, device)
    return GenerationResult(asked, made, source.sounds(HEARD), scores, generator, trial.split)


def _said(done: int, total: int) -> None:
    log.info("%d of %d clips made", done, total)


# What it is measured with, kept by a process that runs one trial after another -------------------


def _scores(
    trial: Trial,
    store: EmbeddingStore,
    asked: GenerationRequest,
    made: Sounds,
    source: Source,
    device: str,
) -> Scores:
    choices = [ExtractorChoice.parse(text) for text in trial.generation.extractors]
    found = {}
    for choice in choices:
        extractor = _extractor(choice, device)
        found[choice.name] = extractor.features(made.at(extractor.rate))
    return measure(
        found,
        {choice.name: _real_features(choice, device, source) for choice in choices},
        *_cosines(trial, store, asked, made, device),
        _aligned(trial, made, source, device),
    )


def _cosines(
    trial: Trial, store: EmbeddingStore, asked: GenerationRequest, made: Sounds, device: str
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(N,) cosines of each clip with what asked for it, and with its true audio, by the store's
    own frozen encoder; None where its checkpoint is not given."""
    choice = EncoderChoice(store.manifest.encoder.name, trial.generation.encoder)
    if choice.weights is None and not choice.is_bundled:
        return None, None
    encoder = _encoder(choice, device)
    heard = encode_streams(encoder, "audio", made.at(encoder.sample_rate))
    assert asked.targets is not None, "a store has the audio of its clips"
    return similarity(asked.queries, heard), similarity(asked.targets, heard)


def _aligned(trial: Trial, made: Sounds, source: Source, device: str) -> np.ndarray | None:
    """(N,) whether each clip belongs to its video; None for corpora that no judge was made for."""
    if split_task(trial.task)[0] != VIDEO or source.corpus not in corpora.BUILTIN:
        return None
    judge = _judge(device)
    return judge.aligned(_videos(source), made.at(judge.rate))


@lru_cache(maxsize=1)
def _listed(name: str, root: str | None) -> tuple[Corpus, dict[str, Clip]]:
    """A corpus and its clips by id."""
    corpus = corpora.load(name, Path(root) if root else None)
    return corpus, {clip.id: clip for clip in corpus.clips()}


@lru_cache(maxsize=2)
def _videos(source: Source) -> list[np.ndarray]:
    return source.videos()


@lru_cache(maxsize=1)
def _generator(choice: GeneratorChoice, device: str) -> Generator:
    return choice.load(device)


@lru_cache(maxsize=4)
def _extractor(choice: ExtractorChoice, device: str) -> Extractor:
    return choice.load(device)


@lru_cache(maxsize=1)
def _encoder(choice: EncoderChoice, device: str) -> Encoder:
    return choice.load(device)


@lru_cache(maxsize=1)
def _judge(device: str) -> SoundscapeAlignment:
    return SoundscapeAlignment.load(device)


@lru_cache(maxsize=4)
def _real_features(choice: ExtractorChoice, device: str, source: Source) -> Features:
    extractor = _extractor(choice, device)
    return extractor.features(source.sounds().at(extractor.rate))
