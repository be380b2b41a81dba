"""Splits that follow from a name."""

import pytest

from diffgap.store.splits import hash_fraction, split_of


def test_fractions_are_uniformly_spread_and_fixed():
    fractions = sorted(hash_fraction(f"clip {i}") for i in range(2000))
    assert max(abs(f - i / 2000) for i, f in enumerate(fractions)) < 0.04
    assert hash_fraction("a") == pytest.approx(0.7913742703)  # of SHA-256, on every machine
    assert hash_fraction("a") != hash_fraction("b")


def test_splits_follow_from_the_name_and_are_80_10_10():
    splits = [split_of(f"{i}.wav") for i in range(5000)]
    assert splits.count("train") / 5000 == pytest.approx(0.8, abs=0.02)
    assert splits.count("val") / 5000 == pytest.approx(0.1, abs=0.02)
    assert split_of("0.wav") == splits[0]
