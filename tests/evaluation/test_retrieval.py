"""Retrieval metrics against the slow, obvious version, chunked or not."""

import numpy as np
import pytest
import torch

from diffgap.evaluation import retrieval
from diffgap.evaluation.retrieval import ranks_of_captions, ranks_of_owner, ranks_of_pairs, summary

CLIPS = 40
OWNER = torch.arange(CLIPS).repeat_interleave(3)[torch.randperm(3 * CLIPS)]


@pytest.fixture
def scores():
    """(captions, clips), some of them equal."""
    torch.manual_seed(0)
    noise = torch.randn(len(OWNER), CLIPS)
    noise[torch.arange(len(OWNER)), OWNER] += 1.5
    return (noise * 4).round() / 4


def chunked(scores):
    return lambda start, stop: scores[start:stop]


def obvious_rank(row, right):
    above = sum(value > row[right] for i, value in enumerate(row) if i != right)
    equal = sum(value == row[right] for i, value in enumerate(row) if i != right)
    return 1 + above + (equal + 1) // 2


def assert_obvious_of_captions(found, scores, owner):
    """What clips found among (Q, G) scores of captions against them, by the long way."""
    for clip, row in enumerate(scores.T.tolist()):
        own = (clip == owner).nonzero().flatten().tolist()
        ranks = sorted(obvious_rank(row, caption) for caption in own)
        precision = sum((i + 1) / r for i, r in enumerate(ranks) if r <= 10) / len(own)
        assert found.rank[clip] == ranks[0]
        assert found.ap10[clip].item() == pytest.approx(precision)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_text_to_audio_ranks_every_caption(scores, chunk):
    found = ranks_of_owner(chunked(scores), OWNER, chunk)
    rows = scores.tolist()
    expected = [obvious_rank(rows[i], int(OWNER[i])) for i in range(len(OWNER))]
    assert found.rank.tolist() == expected
    assert found.ap10.tolist() == pytest.approx([1 / r if r <= 10 else 0 for r in expected])


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_audio_to_text_takes_the_best_caption_and_averages_precision(scores, chunk):
    found = ranks_of_captions(chunked(scores.T), OWNER, CLIPS, chunk)
    assert_obvious_of_captions(found, scores, OWNER)


def tied(rows, columns, seed):
    """Scores of which many are equal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator).mul(3).round().div(3)


@pytest.mark.parametrize(("clips", "chunk", "block"), [(23, 5, 90), (23, 23, 1), (9, 4, 1 << 20)])
def test_ranks_are_the_obvious_ones_of_unevenly_many_captions(monkeypatch, clips, chunk, block):
    monkeypatch.setitem(retrieval.BLOCK, "cpu", block)
    generator = torch.Generator().manual_seed(clips)
    more = torch.randint(clips, (2 * clips,), generator=generator)
    owner = torch.cat([torch.arange(clips), more])[torch.randperm(3 * clips, generator=generator)]
    scores = tied(len(owner), clips, seed=chunk)

    to_clips = ranks_of_owner(chunked(scores), owner, chunk)
    rows = scores.tolist()
    assert to_clips.rank.tolist() == [
        obvious_rank(r, int(o)) for r, o in zip(rows, owner, strict=True)
    ]

    to_captions = ranks_of_captions(chunked(scores.T), owner, clips, chunk)
    assert_obvious_of_captions(to_captions, scores, owner)


@pytest.mark.parametrize("tile", [1, 5, 12, 13, 26, 99])
def test_both_sides_of_pairs_rank_as_each_does_alone(tile):
    scores = tied(26, 26, seed=tile)

    def score(row, column, size):
        assert max(row, column) + size <= 26  # one shape everywhere
        return scores[row : row + size, column : column + size]

    of_x, of_a = ranks_of_pairs(score, 26, tile)
    alone = ranks_of_owner(chunked(scores), torch.arange(26), 26)
    other = ranks_of_captions(chunked(scores.T), torch.arange(26), 26, 26)
    for got, expected in ((of_x, alone), (of_a, other)):
        assert got.rank.equal(expected.rank)
        assert torch.allclose(got.ap10, expected.ap10)


def test_nan_scores_of_pairs_are_refused():
    scores = torch.eye(7)
    scores[6, 1] = torch.nan
    with pytest.raises(ValueError, match="1 of 12 scores are NaN"):
        ranks_of_pairs(lambda r, c, n: scores[r : r + n, c : c + n], 7, 4)


def test_scores_stay_as_they_were():
    scores = tied(6, 6, seed=1)
    before = scores.clone()
    ranks_of_owner(chunked(scores), torch.arange(6), 4)
    ranks_of_captions(chunked(scores), torch.arange(6), 6, 4)
    assert scores.equal(before)


def test_infinite_scores_are_scores():
    scores = torch.tensor([[0.0, torch.inf, -torch.inf]]).repeat(3, 1)
    found = ranks_of_owner(chunked(scores), torch.arange(3), 2)
    assert found.rank.tolist() == [2, 1, 3]


def test_captions_may_differ_in_number():
    owner = torch.tensor([1, 0, 1, 2])
    scores = torch.tensor([[0.1, 0.9, 0.2, 0.3], [0.5, 0.1, 0.9, 0.0], [0.9, 0.8, 0.7, 0.6]])
    found = ranks_of_captions(chunked(scores), owner, 3, 2)
    assert found.rank.tolist() == [1, 1, 4]
    assert found.ap10.tolist() == pytest.approx([1.0, 1.0, 0.25])


def test_a_constant_score_earns_the_middle_rank():
    found = ranks_of_owner(chunked(torch.zeros(101, 101)), torch.arange(101), 50)
    assert set(found.rank.tolist()) == {51}
    assert summary(found)["R10"] == 0


def test_nan_scores_are_refused():
    scores = torch.eye(4)
    scores[2, 1] = torch.nan
    with pytest.raises(ValueError, match="1 of 16 scores are NaN"):
        ranks_of_owner(chunked(scores), torch.arange(4), 10)
    with pytest.raises(ValueError, match="1 of 8 scores are NaN"):
        ranks_of_captions(chunked(scores), torch.arange(4), 4, 2)


def test_summary_is_in_percent_and_counts_ranks_from_one():
    found = ranks_of_owner(chunked(torch.eye(8)), torch.arange(8), 3)
    assert summary(found) == {"R1": 100, "R5": 100, "R10": 100, "MedR": 1, "mAP10": 100}
    queries = torch.tensor([[3.0, 2, 1], [3, 2, 1], [3, 2, 1], [3, 2, 1]])
    found = ranks_of_owner(chunked(queries), torch.tensor([0, 1, 2, 2]), 3)
    assert summary(found)["MedR"] == np.median([1, 2, 3, 3])
    assert summary(found)["R1"] == 25
