"""Stores known by name."""

from pathlib import Path

import pytest

from diffgap.encoders.builtin import is_built, open_store, store_problem, store_uri
from diffgap.errors import UserError


def test_a_built_in_store_lives_in_the_cache_under_a_version(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFGAP_CACHE", str(tmp_path))
    assert Path(store_uri("soundscapes")).parent == tmp_path / "stores"
    assert not is_built("soundscapes")
    assert store_problem("soundscapes") is None


def test_a_path_stands_for_itself_wherever_a_worker_runs(small_store, monkeypatch):
    monkeypatch.chdir(small_store.parent)
    assert store_uri(small_store.name) == str(small_store)
    assert store_uri("s3://bucket/store") == "s3://bucket/store"
    assert open_store(small_store.name).manifest.corpus.name == "soundscapes"


def test_unknown_names_are_told_what_there_is(tmp_path):
    assert store_problem("soundscape") == (
        "unknown store 'soundscape'; did you mean soundscapes? (or give the path of an embedding "
        "store)"
    )
    with pytest.raises(UserError, match="no embedding store"):
        open_store(str(tmp_path))
