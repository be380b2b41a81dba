"""Batches follow from seed and step alone, and pass over the data evenly."""

import numpy as np
import pytest
import torch

from diffgap.store.store import Pairs
from diffgap.training.data import PairTable


def table(captions=10, batch_size=4, seed=0):
    rng = np.random.default_rng(0)
    x, a = rng.normal(size=(2, captions, 3)).astype(np.float32)
    owner = np.arange(captions) // 2
    return PairTable(Pairs(("",) * captions, x, a, owner), batch_size, seed, torch.device("cpu"))


@pytest.mark.parametrize("batch_size", [4, 7, 25])
def test_every_pass_shows_every_row_once_whatever_the_batch(batch_size):
    data = table(batch_size=batch_size)
    rows = torch.cat([data.rows(step) for step in range(20)])
    for start in range(0, len(rows) - 9, 10):
        assert sorted(rows[start : start + 10].tolist()) == list(range(10))
    assert rows[:10].tolist() != rows[10:20].tolist()


def test_a_step_is_the_same_however_it_is_reached():
    straight, resumed = table(), table()
    for step in range(50):
        expected = straight.rows(step)
        noise = torch.randn(3, generator=straight.generator_at(step))
        if step > 40:
            assert resumed.rows(step).equal(expected)
            assert torch.randn(3, generator=resumed.generator_at(step)).equal(noise)


def test_seeds_and_steps_differ():
    noises = {
        tuple(torch.randn(2, generator=table(seed=seed).generator_at(step)).tolist())
        for seed in range(5)
        for step in range(5)
    }
    assert len(noises) == 25
    assert table(seed=0).rows(0).tolist() != table(seed=1).rows(0).tolist()


def test_pairs_of_a_batch_belong_together():
    data = table()
    x, a, clip = data.batch(3)
    rows = data.rows(3)
    assert x.equal(data.x[rows])
    assert clip.equal(rows // 2)
    assert a.equal(data.a[rows // 2])
