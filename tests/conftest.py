"""What many tests need: a small real store, and its place."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Small networks on few cores, beside others: more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Hubs are not asked, not even for a newer file: tests make what they load.
os.environ["HF_HUB_OFFLINE"] = "1"

settings.register_profile("shared machine", deadline=None)  # others may be using it
settings.load_profile("shared machine")

LINK = "diffgap0"
"""The network interface of every host that has a network of its own."""

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def small_store(tmp_path_factory) -> Path:
    """Soundscapes, really rendered and encoded: 192 train, 32 val and 32 test clips."""
    from diffgap.corpora.soundscapes import SoundscapeCorpus
    from diffgap.encoders import EncoderChoice
    from diffgap.encoders.embed import embed

    path = tmp_path_factory.mktemp("stores") / "small"
    corpus = SoundscapeCorpus({"train": 192, "val": 32, "test": 32})
    embed(corpus, EncoderChoice("soundscape"), path)
    return path


@pytest.fixture(autouse=True)
def _no_token() -> Iterator[None]:
    """Joining a cluster turns Ray's token on for the whole process; the next test may not join."""
    yield
    os.environ.pop("RAY_AUTH_MODE", None)


@pytest.fixture
def shared() -> Path:
    """Official split files and real clips."""
    if not SHARED.is_dir():
        pytest.skip("the real data are not beside this checkout (../shared/data)")
    return SHARED


@pytest.fixture
def real_sounds(shared) -> Path:
    """818 real recordings with captions."""
    return shared / "realsounds"


@pytest.fixture
def real_videos(shared) -> Path:
    """Three real videos with sound."""
    return shared / "videos"


@pytest.fixture
def spaces():
    """Two network namespaces that reach each other, with addresses of their own."""
    tag = uuid.uuid4().hex[:6]
    made = [(f"dg{tag}{i}", f"10.213.7.{i + 1}") for i in range(2)]
    try:
        for name, _ in made:
            ip("netns", "add", name)
        ip("link", "add", LINK, "netns", made[0][0], "type", "veth",
           "peer", "name", LINK, "netns", made[1][0])  # fmt: skip
        for name, address in made:
            ip("-n", name, "address", "add", f"{address}/24", "dev", LINK)
            ip("-n", name, "link", "set", LINK, "up")
            ip("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces cannot be made here ({error}); be root, with iproute2")
    yield made
    for name, _ in made:
        ip("netns", "del", name)


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)
