"""Trained bridges at work: ranking a gallery or a store, and bridging rows.

scores, rows = rank(bridge, texts, audios, source="text")      # tensors of unit vectors
bridged = carry_over(bridge, vectors, source="text")           # arrays of them
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffgap.bridge.base import Bridge
from diffgap.bridge.config import ScoreConfig
from diffgap.bridge.scores import CHUNK, Scorer
from diffgap.encoders import EncoderChoice
from diffgap.errors import UserError
from diffgap.evaluation.evaluate import bank_of
from diffgap.store.schema import NORM_TOLERANCE, TEXT
from diffgap.store.store import EmbeddingStore


@torch.inference_mode()
def rank(
    bridge: Bridge,
    queries: Tensor,
    gallery: Tensor,
    source: str = "text",
    score: ScoreConfig | None = None,
    top: int = 10,
    bank: Tensor | tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The best matches of a gallery for each query, by the same score that evaluation uses.

    Args:
        bridge: a trained bridge.
        queries: (Q, D) unit vectors of the modality `source`, straight from the frozen encoder.
        gallery: (N, D) unit vectors of the bridge's other modality.
        source: which of the bridge's modalities the queries are of.
        score: how to score; default as the bridge was evaluated, re-ranking included.
        top: how many matches to return.
        bank: (B, D) unit vectors of training queries of the modality `source`, which a score that
            corrects hubness (`score.normalise`) reads; `invgc` reads (C, D) of the gallery's
            modality too, as the second of a pair.

    Returns:
        (Q, K) scores, best first, and (Q, K) int64 rows of the gallery, on the queries' device;
        K is the lesser of `top` and N.

    Raises:
        ValueError: where a side is not (rows, D) unit vectors, `source` is not one of the bridge's
            modalities, its method cannot re-rank, there is no bank and the score reads one, or a
            score is not finite.
    """
    score = score or bridge.config.score
    if problem := _rank_problem(bridge, queries, gallery, source, score, top, bank):
        raise ValueError(problem)
    from_x = source == bridge.config.modalities[0]
    x, a = (queries, gallery) if from_x else (gallery, queries)
    x, a = x.to(bridge.device, torch.float32), a.to(bridge.device, torch.float32)
    scorer = Scorer(bridge, x, a, score, _bank(bridge, bank, from_x, score))
    score_parts, row_parts = [], []
    for start in range(0, len(queries), scorer.queries_at_once):
        stop = min(start + scorer.queries_at_once, len(queries))
        scores = scorer.scores(start, stop, from_x)
        _check_finite(scores, "scores")
        best = scores.topk(min(top, len(gallery)), dim=1)
        score_parts.append(best.values)
        row_parts.append(best.indices)
    return torch.cat(score_parts).to(queries.device), torch.cat(row_parts).to(queries.device)


def _bank(
    bridge: Bridge, bank: Tensor | tuple[Tensor, Tensor] | None, from_x: bool, score: ScoreConfig
) -> tuple[Tensor, Tensor] | None:
    """Training rows of x and of a: none of the side that does not search, unless they are read."""
    if bank is None:
        return None
    queries, items = bank if isinstance(bank, tuple) else (bank, bank[:0])
    if score.normalise != "invgc":
        items = items[:0]
    queries = queries.to(bridge.device, torch.float32)
    items = items.to(bridge.device, torch.float32)
    return (queries, items) if from_x else (items, queries)


def _rank_problem(
    bridge: Bridge,
    queries: Tensor,
    gallery: Tensor,
    source: str,
    score: ScoreConfig,
    top: int,
    bank: Tensor | tuple[Tensor, Tensor] | None,
) -> str | None:
    config, modalities = bridge.config, bridge.config.modalities
    if source not in modalities:
        return f"source: {source!r} is not a modality of this bridge; use {' or '.join(modalities)}"
    if top < 1:
        return f"top: {top} is not in [1, inf); use 10"
    if score.kind == "rerank" and bridge.directions and not config.cdm:
        return f"score: {config.method} cannot re-rank; only DiffGAP with CDM can; use bridge"
    if score.normalise != "none" and bank is None:
        remedy = f"give the {source} vectors of a training split"
        return f"bank: none, and score.normalise {score.normalise!r} reads one; {remedy}"
    if score.normalise == "invgc" and not isinstance(bank, tuple):
        remedy = f"give a pair, the {source} vectors of a training split and those of the other"
        return f"bank: of one side, and score.normalise 'invgc' reads both; {remedy}"
    sides = {"queries": queries, "gallery": gallery}
    if bank is not None:
        banks = bank if isinstance(bank, tuple) else (bank,)
        sides |= {f"bank[{i}]" if len(banks) > 1 else "bank": side for i, side in enumerate(banks)}
    for name, side in sides.items():
        if side.ndim != 2 or side.shape[1] != config.dimension or not len(side):
            expected = f"(rows, {config.dimension}), one row or more"
            return f"{name}: shape {tuple(side.shape)}; give {expected}"
        lengths = side.float().norm(dim=1)
        if not ((lengths - 1).abs() <= NORM_TOLERANCE).all():
            return f"{name}: rows are not unit vectors; use torch.nn.functional.normalize"
    return None


def _check_finite(values: Tensor, what: str) -> None:
    """Raises UserError where a bridge's (rows, columns) results are NaN or infinite."""
    if not bool(torch.isfinite(values).all()):
        raise UserError(
            f"BRIDGE: its {what} are not all finite: its weights are too large, or its score's "
            "settings are; retrain it"
        )


@torch.inference_mode()
def carry_over(
    bridge: Bridge,
    values: np.ndarray,
    source: str,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """(N, D) float32 unit vectors bridged to the other modality.

    Args:
        bridge: a method without a network takes them to its own space instead.
        values: (N, D) float32 unit vectors of the modality `source`.
        progress: called with rows done and in total, where they are more than one chunk.

    Raises:
        ValueError: where a vector is not finite.
    """
    side = bridge.config.modalities.index(source)
    parts = []
    for start in range(0, len(values), CHUNK):
        rows = torch.from_numpy(values[start : start + CHUNK]).to(bridge.device)
        bridged = bridge.bridge(rows, source) if bridge.directions else bridge.space(rows, side)
        _check_finite(bridged, "vectors")
        parts.append(bridged.cpu().numpy())
        if progress and len(values) > CHUNK:
            progress(start + len(rows), len(values))
    return np.concatenate(parts)


@dataclass(frozen=True)
class Query:
    """What is searched for: a text, or a clip of the store."""

    name: str
    """The text, or the clip's id."""
    source: str
    vector: np.ndarray
    """(D,) unit vector of the modality `source`."""
    clip: str | None = None
    """The clip's id again; None for a text."""


@dataclass(frozen=True)
class Hit:
    """A clip in a ranking."""

    rank: int
    """From 1."""
    score: float
    clip: str
    label: str | None
    caption: str | None
    """The text itself where texts are ranked; else the first caption of the clip, if any."""
    own: bool | None
    """Whether it belongs to the query's own clip; None for a text."""


class Gallery:
    """One split of a store, to be ranked by a bridge.

    Raises:
        UserError: where the store lacks a modality of the bridge, or has another dimension.
    """

    def __init__(self, store: EmbeddingStore, bridge: Bridge, split: str) -> None:
        self.bridge = bridge
        self.pairs = store.pairs("-".join(bridge.config.modalities), split)
        if self.pairs.a.shape[1] != bridge.config.dimension:
            raise UserError(
                f"BRIDGE: it takes {bridge.config.dimension} dimensions, and the store has "
                f"{self.pairs.a.shape[1]}; use a store of the same encoder"
            )
        self.bank = bank_of(bridge.config.score, store, "-".join(bridge.config.modalities))
        self.labels = store.labels()
        captions = store.caption_texts(self.pairs.ids)
        self.first_captions = dict(reversed(captions))  # so that the first of a clip wins
        self.texts: list[str] | None = None
        if bridge.config.modalities[0] == TEXT:
            self.texts = [text for _, text in captions]  # in the order of the rows of pairs.x

    def search(self, queries: Sequence[Query], top: int) -> list[tuple[Query, list[Hit]]]:
        """The best hits of each query, in the queries' order."""
        hits: dict[int, list[Hit]] = {}
        for source in {query.source for query in queries}:
            numbers = [i for i, query in enumerate(queries) if query.source == source]
            vectors = torch.from_numpy(np.stack([queries[i].vector for i in numbers]))
            from_x = source == self.bridge.config.modalities[0]
            targets = torch.from_numpy(self.pairs.a if from_x else self.pairs.x)
            bank = None
            if self.bank:
                x, a = torch.from_numpy(self.bank.x), torch.from_numpy(self.bank.a)
                bank = (x, a) if from_x else (a, x)
            scores, rows = rank(self.bridge, vectors, targets, source, top=top, bank=bank)
            for i, *ranking in zip(numbers, scores.tolist(), rows.tolist(), strict=True):
                hits[i] = []
                for place, (score, row) in enumerate(zip(*ranking, strict=True), 1):
                    hits[i].append(self._hit(queries[i], from_x, place, score, row))
        return [(query, hits[i]) for i, query in enumerate(queries)]

    def _hit(self, query: Query, from_x: bool, place: int, score: float, row: int) -> Hit:
        clip = self.pairs.ids[row if from_x else int(self.pairs.owner[row])]
        text = self.first_captions.get(clip)
        if not from_x and self.texts is not None:
            text = self.texts[row]
        is_own = None if query.clip is None else query.clip == clip
        return Hit(place, score, clip, self.labels.get(clip), text, is_own)


def text_queries(
    store: EmbeddingStore, bridge: Bridge, texts: Sequence[str], checkpoint: str | None
) -> list[Query]:
    """Texts, encoded by the store's own encoder.

    Raises:
        UserError: where the bridge takes no text, the encoder is not one of ours, or its weights
            are not those that made the store.
    """
    modalities, info = bridge.config.modalities, store.manifest.encoder
    if TEXT not in modalities:
        raise UserError(f"TEXT: this bridge joins {' and '.join(modalities)}; give --clip ID")
    if info.name not in EncoderChoice.models:
        raise UserError(
            f"TEXT: the store's encoder, {info.name!r}, is not one of diffgap's; give --clip ID, "
            "or encode the text yourself and use diffgap.apply.rank"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    choice = EncoderChoice(info.name, checkpoint)
    encoder = choice.load_verified(info.checkpoint_hash, "the store", device)
    if TEXT not in encoder.modalities:
        raise UserError(f"TEXT: the store's encoder, {info.name}, takes no text; give --clip ID")
    vectors = encoder.encode_text(list(texts))
    return [Query(text, TEXT, vector) for text, vector in zip(texts, vectors, strict=True)]


def clip_queries(
    store: EmbeddingStore, bridge: Bridge, clip: str, source: str | None
) -> list[Query]:
    """A clip of any split as the query: one, or as many as it has texts.

    `source` is the query's modality; by default the bridge's first, or second if that is text.

    Raises:
        UserError: where the store has no such clip, or the bridge no such modality.
    """
    x_name, a_name = modalities = bridge.config.modalities
    source = source or (a_name if x_name == TEXT else x_name)
    if source not in modalities:
        raise UserError(f"--from: this bridge joins {' and '.join(modalities)}, not {source}")
    clip_ids: list[str] = []
    for split, count in store.manifest.corpus.counts.items():
        if not count:  # `pairs` refuses an empty split
            continue
        pairs = store.pairs("-".join(modalities), split)
        if clip in pairs.ids:
            row = pairs.ids.index(clip)
            vectors = pairs.x[pairs.owner == row] if source == x_name else pairs.a[[row]]
            return [Query(clip, source, vector, clip) for vector in vectors]
        clip_ids += pairs.ids
    close = difflib.get_close_matches(clip, clip_ids, n=1)
    hint = f"did you mean {close[0]}?" if close else f"its ids look like {clip_ids[0]}"
    raise UserError(f"--clip: the store has no clip {clip!r}; {hint}")
