"""What a bridge retrieves for a few queries, against a slow search by hand."""

import numpy as np
import pytest

from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.methods import make_bridge
from diffgap.evaluation.evaluate import evaluate
from diffgap.evaluation.examples import examples
from diffgap.store.store import Pairs

CLIPS, CAPTIONS, DIMENSION = 24, 2, 8


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)

    def unit(rows):
        drawn = rng.normal(size=(rows, DIMENSION)).astype(np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    owner = np.repeat(np.arange(CLIPS), CAPTIONS)
    return Pairs(
        tuple(f"clip {i}" for i in range(CLIPS)), unit(CLIPS * CAPTIONS), unit(CLIPS), owner
    )


@pytest.fixture
def shown(pairs):
    config = BridgeConfig(
        modalities=("text", "audio"), dimension=DIMENSION, width=0, blocks=0, cdm=False, bst=False,
        method="none", score=ScoreConfig("cosine"),
    )  # fmt: skip
    found = evaluate(make_bridge(config), pairs)
    texts = [f"caption {i}" for i in range(CLIPS * CAPTIONS)]
    return found, examples(found.scorer, pairs, texts, tuple(found.ranks)).to_pylist()


def test_answers_are_the_nearest_and_right_where_they_are_the_querys_own(pairs, shown):
    _, rows = shown
    assert len(rows) == 2 * 10 * 5
    for row in rows:
        number = pairs.ids.index(row["query"])
        if row["direction"] == "text_to_audio":
            scores = pairs.a @ pairs.x[number * CAPTIONS]  # its first caption asks
            expected = pairs.ids[np.argsort(-scores)[row["place"] - 1]]
            assert row["caption"] == f"caption {pairs.ids.index(row['clip']) * CAPTIONS}"
        else:
            scores = pairs.x @ pairs.a[number]
            best = np.argsort(-scores)[row["place"] - 1]
            expected = pairs.ids[best // CAPTIONS]
            assert row["caption"] == f"caption {best}"
        assert row["query_caption"] == f"caption {number * CAPTIONS}"
        assert row["clip"] == expected
        assert row["right"] == (row["clip"] == row["query"])
        assert row["score"] == pytest.approx(np.sort(scores)[-row["place"]], abs=1e-5)


def test_what_is_right_at_place_one_has_rank_one(pairs, shown):
    found, rows = shown
    best = found.ranks["audio_to_text"].rank.numpy()
    for row in rows:
        if row["direction"] == "audio_to_text" and row["place"] == 1:
            assert row["right"] == (best[pairs.ids.index(row["query"])] == 1)


def test_every_bridge_answers_the_same_queries(pairs, shown):
    _, rows = shown
    asked = list(dict.fromkeys(row["query"] for row in rows))
    assert len(asked) == 10
    assert asked != sorted(asked)  # by their hash, not as they come
