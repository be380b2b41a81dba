"""Successive halving by itself; for its rungs in a search see test_study."""

import pytest

from diffgap.sweep.halving import survives


@pytest.mark.parametrize(
    ("value", "earlier", "goes_on"),
    [(1, [], True), (1, [2], False), (2, [1], True), (3, [4, 2, 1], True), (2, [4, 3, 1], False),
     (5, [5, 5, 5], True), (4, [9, 8, 7, 6, 5], False), (7, [9, 8, 6, 5, 4], True)],
)  # fmt: skip
def test_one_of_so_many_survives_a_rung(value, earlier, goes_on):
    assert survives(value, earlier, reduction=2) == goes_on
