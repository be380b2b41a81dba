"""Retrieved examples: the first answers to a few queries, to read and to listen to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from diffgap.bridge.scores import Scorer
from diffgap.store.splits import hash_fraction
from diffgap.store.store import Pairs

QUERIES, ANSWERS = 10, 5
"""Queries of each direction, and answers to each."""

SCHEMA = pa.schema(
    {
        "direction": pa.string(),
        "query": pa.string(),
        "query_caption": pa.string(),
        "place": pa.int64(),
        "clip": pa.string(),
        "caption": pa.string(),
        "score": pa.float64(),
        "right": pa.bool_(),
    }
)


def examples(
    scorer: Scorer, pairs: Pairs, captions: Sequence[str], directions: Sequence[str]
) -> pa.Table:
    """The first answers to ten queries of each direction.

    Args:
        scorer: of all pairs.
        pairs: N clips and their M texts or videos.
        captions: the M texts; empty where x is no text.
        directions: x->a's name, then a->x's, such as ``text_to_audio``.

    Returns:
        One row an answer: direction, query (a clip) and query_caption, place (from 1), clip,
        caption, score and whether it is right. A caption is the text of the query or answer, else
        its clip's first; null where there are none.
    """
    # The clips of lowest hash: the same ones for every bridge on the same pairs.
    chosen = sorted(range(len(pairs.ids)), key=lambda i: hash_fraction(pairs.ids[i]))[:QUERIES]
    search = _Search(scorer, pairs, captions)
    rows: list[dict[str, Any]] = []
    for direction, from_x in zip(directions, (True, False), strict=True):
        for clip in chosen:
            query = {"direction": direction, "query": pairs.ids[clip]}
            rows += [query | answer for answer in search.answers(clip, from_x)]
    return pa.Table.from_pylist(rows, SCHEMA)


@dataclass(frozen=True)
class _Search:
    scorer: Scorer
    pairs: Pairs
    captions: Sequence[str]

    @cached_property
    def _first(self) -> np.ndarray:
        """(N,) each clip's first text or video: the one that is its query."""
        return np.unique(self.pairs.owner, return_index=True)[1]  # every clip has one

    def answers(self, clip: int, from_x: bool) -> Iterator[dict[str, Any]]:
        """The best answers to one clip's query, without what all have in common."""
        query = int(self._first[clip]) if from_x else clip
        scores = self.scorer.scores(query, query + 1, from_x=from_x)[0].float().cpu()
        best = scores.argsort(descending=True, stable=True)[:ANSWERS].tolist()
        for place, item in enumerate(best, 1):
            owner = item if from_x else int(self.pairs.owner[item])
            yield {
                "query_caption": self._caption(int(self._first[clip])),
                "place": place,
                "clip": self.pairs.ids[owner],
                "caption": self._caption(int(self._first[item]) if from_x else item),
                "score": float(scores[item]),
                "right": owner == clip,
            }

    def _caption(self, number: int) -> str | None:
        return self.captions[number] if self.captions else None
