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
from diffgap.encoders.chunks import encode_streams
from diffgap.encoders.soundscape import FPS, SIZE
from diffgap.errors import UserError
from diffgap.evaluation.audio_metrics import Scores, measure, similarity
from diffgap.evaluation.extractors import ExtractorChoice
from diffgap.evaluation.extractors.base import Features
from diffgap.evaluation.extractors.soundscape_judges import SoundscapeAlignment
from diffgap.generation import GeneratorChoice
from diffgap.generation.base import Generator, Sampling, generate_in_batches
from diffgap.generation.conditions import GenerationRequest, conditions, noise_seeds, store_request
from diffgap.ledger.artifacts import GENERATED, PLAYED, REPLICATES
from diffgap.spec import Trial
from diffgap.store.schema import split_task
from diffgap.store.store import EmbeddingStore

log = logging.getLogger(__name__)

EXAMPLES = 3
"""Clips of a trial that are kept as sound, to be listened to."""
VIDEO = "video"


@dataclass(frozen=True)
class Waveforms:
    """N mono float32 clips, and their rate in Hz."""

    clips: Sequence[np.ndarray]
    rate: int

    def at(self, rate: int) -> list[np.ndarray]:
        """The clips at another rate."""
        return [resample(samples, self.rate, rate) for samples in self.clips]


@dataclass(frozen=True)
class CorpusClips:
    """Clips of a corpus: their own sound and pictures."""

    corpus: str
    root: str | None
    ids: tuple[str, ...]

    def audio(self, count: int | None = None) -> Waveforms:
        """The sound of the first clips, or of all, at the rate of the first."""
        decoded = [corpus.audio(clip) for corpus, clip in self._clips(count)]
        rate = decoded[0][1]
        return Waveforms([resample(samples, its, rate) for samples, its in decoded], rate)

    def videos(self) -> list[np.ndarray]:
        """The pictures, at the rate and size of the embedded corpus."""
        return [corpus.video(clip, FPS, SIZE) for corpus, clip in self._clips(None)]

    def _clips(self, count: int | None) -> list[tuple[Corpus, Clip]]:
        corpus, clips = _corpus_clips(self.corpus, self.root)
        missing = [name for name in self.ids if name not in clips]
        if missing:
            raise UserError(
                f"generation.audio: {self.root} has no clip {missing[0]!r}, and lacks "
                f"{len(missing)} of {len(self.ids)}; give the directory that the store was made of"
            )
        return [(corpus, clips[name]) for name in self.ids[:count]]


@dataclass(frozen=True)
class GenerationResult:
    """The clips that a trial generated, and their scores."""

    request: GenerationRequest
    generated: Waveforms
    examples: Waveforms
    """The true sound of the first clips."""
    scores: Scores
    generator: Generator
    split: str

    @property
    def facts(self) -> dict[str, Any]:
        """What the scores depend on, for the record."""
        attributes = ("name", "weights_hash", "rate")
        generator = {name: getattr(self.generator, name) for name in attributes}
        measurement = {"clips": self.scores.clips, "extractors": self.scores.extractors}
        return {"generation": {"generator": generator, **measurement}}

    @property
    def metrics(self) -> dict[str, float]:
        """By ``test/generation/FAD`` and so on."""
        values = self.scores.values
        return {f"{self.split}/generation/{name}": value for name, value in values.items()}

    def write(self, path: Path) -> None:
        """Writes a row for each clip, the replicates of every score, and a few clips as sound."""
        columns = {"clip": list(self.request.ids)}
        if self.request.captions:
            columns["caption"] = list(self.request.captions)
        pq.write_table(pa.table({**columns, **self.scores.per_clip}), path / GENERATED)
        pq.write_table(pa.table(self.scores.replicates), path / REPLICATES)
        for number, name in enumerate(self.request.ids[:EXAMPLES]):
            for kind, waveforms in (("made", self.generated), ("real", self.examples)):
                file = path / PLAYED / f"{number}-{kind}.flac"
                write_audio(file, waveforms.clips[number], waveforms.rate)
            log.info("%s is %s/%d-made.flac", name, PLAYED, number)


def generate_and_measure(trial: Trial, bridge: Bridge, store: EmbeddingStore) -> GenerationResult:
    """Generates sound for a trial's clips of the store, and compares it with theirs.

    Raises:
        UserError: where the generator, an extractor, the encoder or the corpus cannot be loaded.
    """
    options, device = trial.generation, str(bridge.device)
    generator = _generator(GeneratorChoice(options.generator, options.weights), device)
    request = store_request(store, trial.task, trial.split, options.clips)
    seeds = noise_seeds(request.ids, trial.seed)
    embeddings = conditions(options.condition, bridge, request, seeds)
    sampling = Sampling(options.steps, options.guidance)
    clips = generate_in_batches(generator, embeddings, seeds, sampling, _log_progress)
    generated = Waveforms(list(clips), generator.rate)
    originals = CorpusClips(store.manifest.corpus.name, options.audio, request.ids)
    features = _features(trial, generated, originals, device)
    cosines = _cosines(trial, store, request, generated, device)
    scores = measure(*features, *cosines, _aligned(trial, generated, originals, device))
    examples = originals.audio(EXAMPLES)
    return GenerationResult(request, generated, examples, scores, generator, trial.split)


def _log_progress(count: int, total: int) -> None:
    log.info("%d of %d clips generated", count, total)


def _features(
    trial: Trial, generated: Waveforms, originals: CorpusClips, device: str
) -> tuple[dict[str, Features], dict[str, Features]]:
    """Features of the generated and of the true sound, by extractor."""
    features, true_features = {}, {}
    for text in trial.generation.extractors:
        choice = ExtractorChoice.parse(text)
        extractor = _extractor(choice, device)
        features[choice.name] = extractor.features(generated.at(extractor.rate))
        true_features[choice.name] = _true_features(choice, device, originals)
    return features, true_features


def _cosines(
    trial: Trial,
    store: EmbeddingStore,
    request: GenerationRequest,
    generated: Waveforms,
    device: str,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(N,) cosines of each clip with its query and with its true audio, by the store's encoder.

    None where that encoder's checkpoint is not given.
    """
    choice = EncoderChoice(store.manifest.encoder.name, trial.generation.encoder)
    if choice.weights is None and not choice.is_bundled:
        return None, None
    encoder = _encoder(choice, device)
    audio = encode_streams(encoder, "audio", generated.at(encoder.sample_rate))
    assert request.targets is not None, "a store has the audio of its clips"
    return similarity(request.queries, audio), similarity(request.targets, audio)


def _aligned(
    trial: Trial, generated: Waveforms, originals: CorpusClips, device: str
) -> np.ndarray | None:
    """(N,) whether each clip belongs to its video; None for corpora without a trained judge."""
    if split_task(trial.task)[0] != VIDEO or originals.corpus not in corpora.BUILTIN:
        return None
    judge = _judge(device)
    return judge.aligned(_videos(originals), generated.at(judge.rate))


# Caches of a process that runs one trial after another --------------------------------------------
# Trials of a sweep mostly share generator, extractors and clips, which are slow to load and decode.
# Sizes bound the memory: of large networks one is kept at a time.


@lru_cache(maxsize=1)
def _corpus_clips(name: str, root: str | None) -> tuple[Corpus, dict[str, Clip]]:
    """A corpus and its clips by id."""
    corpus = corpora.load(name, Path(root) if root else None)
    return corpus, {clip.id: clip for clip in corpus.clips()}


_videos = lru_cache(maxsize=2)(CorpusClips.videos)
_generator = lru_cache(maxsize=1)(GeneratorChoice.load)
_extractor = lru_cache(maxsize=4)(ExtractorChoice.load)
_encoder = lru_cache(maxsize=1)(EncoderChoice.load)
_judge = lru_cache(maxsize=1)(SoundscapeAlignment.load)


@lru_cache(maxsize=4)
def _true_features(choice: ExtractorChoice, device: str, originals: CorpusClips) -> Features:
    extractor = _extractor(choice, device)
    return extractor.features(originals.audio().at(extractor.rate))
