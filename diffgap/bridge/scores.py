"""Retrieval scores: cosine, bridge, sample and rerank.

All of them score *pairs* (x, a), so that one score serves queries of both modalities. The first
three are an inner product of features, hence one matrix product; `rerank` refines the best
candidates of each query by how much the query helps to denoise them.

    scorer = Scorer(bridge, x, a)                   # the embeddings of both sides of a gallery
    scores = scorer.scores(0, len(x), from_x=True)  # (M, N)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from diffgap.bridge import bst
from diffgap.bridge.base import Bridge
from diffgap.bridge.config import ScoreConfig
from diffgap.bridge.diffusion_ret import DiffusionRet
from diffgap.bridge.hubness import Offsets, convolved, offsets
from diffgap.bridge.model import DiffGAP
from diffgap.bridge.reranking import Reranker, full_precision

CHUNK = 2048  # rows that go through the network at once; the most queries scored at once
SCORE_BYTES = 64 * 2**20  # for the scores of a chunk of queries


@dataclass(frozen=True)
class PairFeatures:
    """Features whose inner product is the score: ``score = x @ a.T``, (M, F) and (N, F)."""

    x: Tensor
    a: Tensor
    carried: dict[int, Tensor] = field(default_factory=dict)
    """The (M, D) or (N, D) rows that the bridge carried over, by direction."""


Bank = tuple[Tensor, Tensor]
"""Unit vectors of training queries, (B, D) of x and (C, D) of a. A side whose queries do not search
may be empty."""


class Scorer:
    """Scores of queries of either side against the whole other side.

    Args:
        bridge: the bridge.
        x: (M, D) unit vectors, as the frozen encoder gives them.
        a: (N, D) unit vectors.
        config: how to score; default as the bridge was evaluated.
        bank: what `config.normalise` corrects by, if it does.
    """

    @torch.inference_mode()
    def __init__(
        self,
        bridge: Bridge,
        x: Tensor,
        a: Tensor,
        config: ScoreConfig | None = None,
        bank: Bank | None = None,
    ) -> None:
        self.config = config or bridge.config.score
        with full_precision(x.device):
            self.features = pair_features(bridge, x, a, self.config)
            banks = self._banks(bridge, bank)
            self.offsets = self._offsets(banks)
        self._convolved_by = banks if self.config.normalise == "invgc" else None
        self._convolved: dict[bool, Tensor] = {}
        self.reranker: Reranker | None = None
        self.generator: DiffusionRet | None = None
        if self.config.kind != "cosine" and isinstance(bridge, DiffusionRet):
            self.generator = bridge
        if self.config.kind == "rerank" and bridge.directions:
            assert isinstance(bridge, DiffGAP), "only a conditional diffusion model re-ranks"
            self.reranker = Reranker(bridge, x, a, self.config)

    @property
    def is_pairwise(self) -> bool:
        """Whether a pair's score depends on the pair alone, whichever side is the query."""
        whole = self.reranker or self.generator or self.config.normalise != "none"
        return not whole

    @property
    def queries_at_once(self) -> int:
        """Queries of either side whose scores fit SCORE_BYTES."""
        longest = max(len(self.features.x), len(self.features.a))
        return max(1, min(CHUNK, SCORE_BYTES // (4 * longest)))

    @torch.inference_mode()
    def scores(self, start: int, stop: int, from_x: bool) -> Tensor:
        """(Q, N) scores of rows `start` to `stop` of x against a; else (Q, M) of a against x."""
        scores = self._products(start, stop, from_x)
        if self.generator:
            queries, items = self.features.x, self.features.a
            if not from_x:
                queries, items = items, queries
            with full_precision(queries.device):
                direction = bst.X_TO_A if from_x else bst.A_TO_X
                part = queries[start:stop]
                return self.generator.rerank(scores, part, items, direction, self.config)
        if self.reranker is None:
            return scores
        return rerank(scores, start, self.reranker, self.config.top_k, queries_are_x=from_x)

    @torch.inference_mode()
    def prepare(self) -> None:
        """Denoises the candidates of all queries of both sides, for speed; no score changes."""
        if self.reranker is None:
            return
        # All at once: a pair that is a candidate of both its sides is denoised once, and the terms
        # of a condition are computed once, not in every chunk of queries.
        x_rows, a_rows = [], []
        for from_x, queries in ((True, self.features.x), (False, self.features.a)):
            for start in range(0, len(queries), self.queries_at_once):
                stop = min(start + self.queries_at_once, len(queries))
                scores = self._products(start, stop, from_x)
                _, (x_part, a_part) = candidates(scores, start, self.config.top_k, from_x)
                x_rows.append(x_part)
                a_rows.append(a_part)
        self.reranker.prepare(torch.cat(x_rows), torch.cat(a_rows))

    @torch.inference_mode()
    def tile(self, x_row: int, a_row: int, size: int) -> Tensor:
        """(size, size) scores of rows of x against rows of a, where they are pairwise."""
        assert self.is_pairwise, "re-ranking and corrections need whole galleries"
        x, a = self.features.x[x_row : x_row + size], self.features.a[a_row : a_row + size]
        with full_precision(x.device):
            return x @ a.T

    def _products(self, start: int, stop: int, from_x: bool) -> Tensor:
        queries = self.features.x if from_x else self.features.a
        with full_precision(queries.device):
            scores = queries[start:stop] @ self._gallery(from_x).T
        correction = self.offsets.get(from_x)
        return correction.corrected(scores) if correction else scores

    def _gallery(self, from_x: bool) -> Tensor:
        """(N, F) features of what the queries of one side search."""
        gallery = self.features.a if from_x else self.features.x
        if self._convolved_by is None:
            return gallery
        if from_x not in self._convolved:  # a caller may have queries of one side only
            banks = self._convolved_by.x, self._convolved_by.a
            self._convolved[from_x] = convolved(gallery, banks, self.config)
        return self._convolved[from_x]

    def _banks(self, bridge: Bridge, bank: Bank | None) -> PairFeatures | None:
        """Features of the bank, if the correction reads one."""
        if self.config.normalise == "none":
            return None
        assert bank is not None, "a correction reads a bank"
        return pair_features(bridge, *bank, self.config)

    def _offsets(self, queries: PairFeatures | None) -> dict[bool, Offsets]:
        """What the correction takes from each gallery's items, by whether x searches it."""
        corrections: dict[bool, Offsets] = {}
        if queries is None or self.config.normalise == "invgc":
            return corrections
        for from_x, side, gallery in (
            (True, queries.x, self.features.a),
            (False, queries.a, self.features.x),
        ):
            if len(side):
                corrections[from_x] = offsets(partial(_products, side, gallery), self.config)
        return corrections


def _products(queries: Tensor, gallery: Tensor) -> Iterator[Tensor]:
    """(B, N) scores of all queries, so many at once that they fit SCORE_BYTES."""
    for chunk in queries.split(max(1, SCORE_BYTES // (4 * len(gallery)))):
        yield chunk @ gallery.T


@torch.inference_mode()
def pair_features(bridge: Bridge, x: Tensor, a: Tensor, config: ScoreConfig) -> PairFeatures:
    """Features of ``b(x) . a + x . b(a) + fusion * x . a`` over the trained directions.

    x (M, D) and a (N, D) are unit vectors. ``sample`` takes b from full samples, ``bridge`` and
    ``rerank`` from the posterior mean, ``cosine`` goes without.
    """
    x, a = bridge.space(x, 0), bridge.space(a, 1)
    if config.kind == "cosine" or not bridge.directions:
        return PairFeatures(x, a)
    carried = {}
    for direction in bridge.directions:
        chunks = (x, a)[direction].split(CHUNK)
        carried[direction] = torch.cat([bridge.carry(c, direction, config) for c in chunks])
    # Each term of the score is one block of the features; with one direction, the terms that share
    # a factor collapse, and the features stay (., D).
    if bst.X_TO_A not in carried:
        return PairFeatures(x, config.fusion * a + carried[bst.A_TO_X], carried)
    on_x = config.fusion * x + carried[bst.X_TO_A]
    if bst.A_TO_X not in carried:
        return PairFeatures(on_x, a, carried)
    on_a = torch.cat([a, carried[bst.A_TO_X]], -1)
    return PairFeatures(torch.cat([on_x, x], -1), on_a, carried)


def candidates(
    scores: Tensor, first: int, top_k: int, queries_are_x: bool
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The best candidates of each query of a chunk; see `rerank` for the arguments.

    Returns:
        Their (C, K) places in the gallery, and the (C K,) pairs as rows of x and of a.
    """
    best = scores.topk(min(top_k, scores.shape[1]), dim=1).indices
    rows = torch.arange(first, first + len(scores), device=scores.device)
    queries, gallery = rows[:, None].expand_as(best).reshape(-1), best.reshape(-1)
    return best, (queries, gallery) if queries_are_x else (gallery, queries)


def rerank(
    scores: Tensor, first: int, reranker: Reranker, top_k: int, queries_are_x: bool
) -> Tensor:
    """Adds the denoising bonus to each query's best candidates, in a copy of the scores.

    The (C, G) scores are those of a chunk of queries, which starts at row `first`, against the
    gallery: rows of x against a with `queries_are_x`, else the other way.
    """
    best, pairs = candidates(scores, first, top_k, queries_are_x)
    return scores.scatter_add(1, best, reranker.bonus(*pairs).view_as(best))
