"""What many tests need: a small real store, and its place."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def small_store(tmp_path_factory) -> Path:
    """Soundscapes, really rendered and encoded: 192 train, 32 val and 32 test clips."""
    from diffgap.corpora.soundscapes import SoundscapeCorpus
    from diffgap.encoders.embed import embed

    path = tmp_path_factory.mktemp("stores") / "small"
    embed(SoundscapeCorpus({"train": 192, "val": 32, "test": 32}), "soundscape", path, workers=1)
    return path


@pytest.fixture
def real_sounds() -> Path:
    """818 real recordings with captions."""
    path = SHARED / "realsounds"
    if not path.is_dir():
        pytest.skip("the real recordings are not beside this checkout (../shared/data/realsounds)")
    return path
