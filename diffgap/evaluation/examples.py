"""What a bridge retrieves for a few queries: for people to read, and to listen to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from diffgap.bridge.scores import Scorer
from diffgap.store.splits import hash_fraction
from diffgap.store.store import Pairs

QUERIES, SHOWN = 10, 5
"""How many queries of each direction, and how many answers of each."""


def examples(
    scorer: Scorer, pairs: Pairs, captions: Sequence[str], directions: Sequence[str]
) -> pa.Table:
    """The first answers to ten queries of each direction.

    The queries are those of the clips whose names hash lowest, so that every bridge on the same
    pairs answers the same ones; of several captions of a clip, the first asks.

    Args:
        scorer: of all pairs.
        pairs: N clips and their M texts or videos.
        captions: the M texts; empty where x is no text.
        directions: x->a's name, then a->x's, such as ``text_to_audio``.

    Returns:
        One row an answer: direction, query (a clip) and query_caption, place (from 1), clip,
        caption, score and whether it is right. A caption is the text that asks or was found, else
        its clip's first; null where there are none.
    """
    chosen = sorted(range(len(pairs.ids)), key=lambda i: hash_fraction(pairs.ids[i]))[:QUERIES]
    _, first = np.unique(pairs.owner, return_index=True)  # every clip has one
    rows = []
    for direction, from_x in zip(directions, (True, False), strict=True):
        for clip in chosen:
            asked = int(first[clip]) if from_x else clip
            scores = scorer.scores(asked, asked + 1, from_x=from_x)[0].float().cpu()
            best = scores.argsort(descending=True, stable=True)[:SHOWN].tolist()
            for place, found in enumerate(best, 1):
                owner = found if from_x else int(pairs.owner[found])
                text = int(first[found]) if from_x else found
                rows.append(
                    {
                        "direction": direction,
                        "query": pairs.ids[clip],
                        "query_caption": _text(captions, int(first[clip])),
                        "place": place,
                        "clip": pairs.ids[owner],
                        "caption": _text(captions, text),
                        "score": float(scores[found]),
                        "right": owner == clip,
                    }
                )
    return pa.Table.from_pylist(rows, SCHEMA)


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


def _text(captions: Sequence[str], number: int) -> str | None:
    return captions[number] if captions else None
