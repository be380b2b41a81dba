"""Trained bridges at work: ranking a gallery or a store, and carrying rows over.

scores, found = rank(bridge, texts, audios, source="text")       # tensors of unit vectors
moved = carry_over(bridge, vectors, source="text")               # arrays of them
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
from diffgap.encoders import NAMES, EncoderChoice
from diffgap.errors import UserError
from diffgap.store.schema import NORM_TOLERANCE, TEXT
from diffgap.store.store import EmbeddingStore

UNKNOWN = "unknown"
"""The checkpoint's hash in a store of imported embeddings."""


# Ranking ------------------------------------------------------------------------------------------


@torch.inference_mode()
def rank(
    bridge: Bridge,
    queries: Tensor,
    gallery: Tensor,
    source: str = "text",
    score: ScoreConfig | None = None,
    top: int = 10,
) -> tuple[Tensor, Tensor]:
    """The best of a gallery for each query, by the very score that evaluation uses.

    Args:
        bridge: a trained bridge.
        queries: (Q, D) unit vectors of the modality `source`, as the frozen encoder gives them.
        gallery: (N, D) unit vectors of the bridge's other modality.
        source: which of the bridge's modalities the queries are of.
        score: how to score; default as the bridge was evaluated, re-ranking included.
        top: how many to return, of as many as the gallery has.

    Returns:
        (Q, K) scores, best first, and (Q, K) int64 rows of the gallery, on the queries' device;
        K is the lesser of `top` and N.

    Raises:
        ValueError: where a side is not (rows, D) unit vectors, `source` is none of the bridge's,
            or the score needs what the bridge is not.
    """
    score = score or bridge.config.score
    if problem := _rank_problem(bridge, queries, gallery, source, score, top):
        raise ValueError(problem)
    home, device, from_x = queries.device, bridge.device, source == bridge.config.modalities[0]
    sides = [side.to(device, torch.float32) for side in (queries, gallery)]
    x, a = sides if from_x else sides[::-1]
    scorer = Scorer(bridge, x, a, score)
    parts = []
    for start in range(0, len(queries), scorer.queries_at_once):
        stop = min(start + scorer.queries_at_once, len(queries))
        parts.append(scorer.scores(start, stop, from_x).topk(min(top, len(gallery)), dim=1))
    scores, found = (torch.cat(part).to(home) for part in zip(*parts, strict=True))
    return scores, found


def _rank_problem(
    bridge: Bridge, queries: Tensor, gallery: Tensor, source: str, score: ScoreConfig, top: int
) -> str | None:
    dimension, modalities = bridge.config.dimension, bridge.config.modalities
    if source not in modalities:
        return f"source: {source!r} is not bridged here; use {' or '.join(modalities)}"
    if top < 1:
        return f"top: {top} is not 1 or more"
    if score.kind == "rerank" and bridge.directions and not bridge.config.cdm:
        return f"score: {bridge.config.method} cannot re-rank, as DiffGAP with CDM can; use bridge"
    for name, side in (("queries", queries), ("gallery", gallery)):
        if side.ndim != 2 or side.shape[1] != dimension or not len(side):
            return f"{name}: shape {tuple(side.shape)}; give (rows, {dimension}), one row or more"
        lengths = side.float().norm(dim=1)
        if not ((lengths - 1).abs() <= NORM_TOLERANCE).all():
            return f"{name}: rows are not unit vectors; use torch.nn.functional.normalize"
    return None


# Carrying over ------------------------------------------------------------------------------------


@torch.inference_mode()
def carry_over(
    bridge: Bridge,
    values: np.ndarray,
    source: str,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """(N, D) float32 unit vectors carried over, or taken to the space of a bridge without network.

    Args:
        bridge: with a direction from there, or with a space of its own.
        values: (N, D) float32 unit vectors of the modality `source`.
        progress: called with rows done and in all, where they are more than one chunk.
    """
    side, parts = bridge.config.modalities.index(source), []
    for start in range(0, len(values), CHUNK):
        rows = torch.from_numpy(values[start : start + CHUNK]).to(bridge.device)
        moved = bridge.bridge(rows, source) if bridge.directions else bridge.space(rows, side)
        parts.append(moved.cpu().numpy())
        if progress and len(values) > CHUNK:
            progress(start + len(rows), len(values))
    return np.concatenate(parts)


# Queries of a store's clips -----------------------------------------------------------------------


@dataclass(frozen=True)
class Query:
    """What looks for clips."""

    told: str
    """The text, or the clip's id."""
    source: str
    vector: np.ndarray
    """(D,) unit vector of the modality `source`."""
    clip: str | None = None
    """The clip that it is of, if it is of one."""


@dataclass(frozen=True)
class Hit:
    """A place in a ranking."""

    rank: int
    score: float
    clip: str
    label: str | None
    caption: str | None
    """What was found, where that is a text; else the first caption of the clip, if it has one."""
    own: bool | None
    """Whether it belongs to the clip that is the query; None for a text."""


class Gallery:
    """One split of a store, to be ranked by a bridge.

    Raises:
        UserError: where the store does not have what the bridge joins.
    """

    def __init__(self, store: EmbeddingStore, bridge: Bridge, split: str) -> None:
        self.bridge = bridge
        self.pairs = store.pairs("-".join(bridge.config.modalities), split)
        if self.pairs.a.shape[1] != bridge.config.dimension:
            raise UserError(
                f"BRIDGE: it takes {bridge.config.dimension} dimensions, and the store has "
                f"{self.pairs.a.shape[1]}; use a store of the same encoder"
            )
        self.labels = store.labels()
        told = store.caption_texts(self.pairs.ids)
        self.texts = [text for _, text in told] if bridge.config.modalities[0] == TEXT else None
        self.first = dict(reversed(told))

    def answers(self, queries: Sequence[Query], top: int) -> list[tuple[Query, list[Hit]]]:
        """The best hits of each query, in the queries' order."""
        found: dict[int, list[Hit]] = {}
        for source in {query.source for query in queries}:
            numbers = [i for i, query in enumerate(queries) if query.source == source]
            vectors = torch.from_numpy(np.stack([queries[i].vector for i in numbers]))
            from_x = source == self.bridge.config.modalities[0]
            others = torch.from_numpy(self.pairs.a if from_x else self.pairs.x)
            ranked = rank(self.bridge, vectors, others, source, top=top)
            for i, scores, rows in zip(numbers, *(part.tolist() for part in ranked), strict=True):
                placed = enumerate(zip(scores, rows, strict=True), 1)
                found[i] = [self._hit(queries[i], from_x, n, *at) for n, at in placed]
        return [(query, found[i]) for i, query in enumerate(queries)]

    def _hit(self, query: Query, from_x: bool, place: int, score: float, row: int) -> Hit:
        clip = self.pairs.ids[row if from_x else int(self.pairs.owner[row])]
        text = self.first.get(clip) if from_x or self.texts is None else self.texts[row]
        own = None if query.clip is None else query.clip == clip
        return Hit(place, score, clip, self.labels.get(clip), text, own)


def text_queries(
    store: EmbeddingStore, bridge: Bridge, texts: Sequence[str], checkpoint: str | None
) -> list[Query]:
    """Texts, encoded by the store's own encoder.

    Raises:
        UserError: where the bridge takes no text, or there is no such encoder, or its weights are
            not those that made the store.
    """
    modalities, made = bridge.config.modalities, store.manifest.encoder
    if TEXT not in modalities:
        raise UserError(f"TEXT: this bridge joins {' and '.join(modalities)}; give --clip ID")
    if made.name not in NAMES:
        raise UserError(
            f"TEXT: the store's encoder, {made.name!r}, is none of diffgap's; give --clip ID, or "
            "encode the text yourself and use diffgap.apply.rank"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = EncoderChoice(made.name, checkpoint).load(device)
    if TEXT not in encoder.modalities:
        raise UserError(f"TEXT: the store's encoder, {made.name}, takes no text; give --clip ID")
    if made.checkpoint_hash not in (UNKNOWN, encoder.checkpoint_hash):
        raise UserError(
            f"--checkpoint: these weights of {made.name} are {encoder.checkpoint_hash}, and the "
            f"store was made with {made.checkpoint_hash}; give those"
        )
    vectors = encoder.encode_text(list(texts))
    return [Query(text, TEXT, vector) for text, vector in zip(texts, vectors, strict=True)]


def clip_queries(
    store: EmbeddingStore, bridge: Bridge, clip: str, source: str | None
) -> list[Query]:
    """A clip of any split as the query: one, or as many as it has texts.

    Args:
        store: where the clip is.
        bridge: what joins its modalities.
        clip: the clip's id.
        source: which modality of it; default x, or a where x is text.

    Raises:
        UserError: where the store has no such clip, or the bridge no such modality.
    """
    x_name, a_name = modalities = bridge.config.modalities
    source = source or (a_name if x_name == TEXT else x_name)
    if source not in modalities:
        raise UserError(f"--from: this bridge joins {' and '.join(modalities)}, not {source}")
    known: list[str] = []
    for split, count in store.manifest.corpus.counts.items():
        pairs = store.pairs("-".join(modalities), split) if count else None
        if pairs and clip in pairs.ids:
            row = pairs.ids.index(clip)
            vectors = pairs.x[pairs.owner == row] if source == x_name else pairs.a[[row]]
            return [Query(clip, source, vector, clip) for vector in vectors]
        known += pairs.ids if pairs else ()
    raise UserError(f"--clip: the store has no clip {clip!r}; {_likely(clip, known)}")


def _likely(clip: str, known: list[str]) -> str:
    close = difflib.get_close_matches(clip, known, n=1)
    return f"did you mean {close[0]}?" if close else f"its clips are called like {known[0]}"
