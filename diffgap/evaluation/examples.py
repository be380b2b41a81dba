"""Retrieved examples: the first answers to a few queries, to read and to listen to."""

from __future__ import annotations

from collections.abc import Sequence

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
    """The first answers to ten queries of each direction: one row an answer, place from 1.

    A caption is the text of the query or answer, else its clip's first; null where there are none.

    Args:
        scorer: of all pairs.
        pairs: N clips and their M texts or videos.
        captions: the M texts; empty where x is no text.
        directions: x->a's name, then a->x's, such as ``text_to_audio``.
    """
    # The clips of lowest hash: the same ones for every bridge on the same pairs.
    queries = sorted(range(len(pairs.ids)), key=lambda i: hash_fraction(pairs.ids[i]))[:QUERIES]
    _, first = np.unique(pairs.owner, return_index=True)  # each clip's first text or video
    rows = []
    for direction, from_x in zip(directions, (True, False), strict=True):
        for query in queries:
            index = int(first[query]) if from_x else query
            scores = scorer.scores(index, index + 1, from_x=from_x)[0].float().cpu()
            best = scores.argsort(descending=True, stable=True)[:ANSWERS].tolist()
            for place, answer in enumerate(best, 1):
                clip, text = (answer, first[answer]) if from_x else (pairs.owner[answer], answer)
                row = {
                    "direction": direction,
                    "query": pairs.ids[query],
                    "query_caption": captions[first[query]] if captions else None,
                    "place": place,
                    "clip": pairs.ids[clip],
                    "caption": captions[text] if captions else None,
                    "score": float(scores[answer]),
                    "right": bool(clip == query),
                }
                rows.append(row)
    return pa.Table.from_pylist(rows, SCHEMA)
