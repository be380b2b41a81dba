"""A store that is opened again: read once, and anew when its files change."""

import os
import shutil

import pytest

from diffgap.errors import UserError
from diffgap.store.cache import open_again


@pytest.fixture
def store(tmp_path, small_store):
    return shutil.copytree(small_store, tmp_path / "store")


def test_a_store_as_it_was_is_not_read_again(store):
    assert open_again(str(store)) is open_again(str(store))


def test_a_shard_that_changed_is_noticed(store):
    before = open_again(str(store))
    shard = next(store.glob("items-*.parquet"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="items shard cannot be read"):
        open_again(str(store))
    shard.write_bytes(whole)
    again = open_again(str(store))
    assert again is not before
    assert again.fingerprint == before.fingerprint


def test_a_shard_of_the_same_size_is_noticed_by_its_time(store):
    before = open_again(str(store))
    shard = next(store.glob("items-*.parquet"))
    later = shard.stat().st_mtime + 5
    os.utime(shard, (later, later))
    assert open_again(str(store)) is not before


def test_a_store_that_goes_away_is_told(store):
    open_again(str(store))
    shutil.rmtree(store)
    with pytest.raises(UserError, match="not an embedding store"):
        open_again(str(store))
