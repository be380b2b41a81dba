"""Places that cannot be used: each is told in a line with its cause and a remedy, no traceback."""

import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.methods import make_bridge
from diffgap.cli.main import main

SPEC = """\
name: one
store: {store}
trial:
  denoiser: {{width: 16, blocks: 1}}
  train: {{steps: 4, batch_size: 32, epoch_steps: 2}}
  score: {{top_k: 5}}
"""

NEW_FILES = {
    "train": ("train", "spec.yaml", "--set", "seeds=1", "--output", "{place}/runs"),
    "store import": ("store", "import", "a.npz", "--out", "{place}/store"),
    "store show": ("store", "show", "store", "--picture", "{place}/gap.png"),
    "bridge": ("bridge", "bridge", "a.npz", "{place}/b.npz"),
    "push": ("push", "bridge", "{place}/pushed"),
    "embed": ("embed", "folder", "--root", "sounds", "--encoder", "soundscape",
              "--out", "{place}/embedded"),
}  # fmt: skip
"""A command of every kind that writes, by its name."""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A store, a bridge, sounds, a file of vectors and a spec."""
    import soundfile

    from diffgap.store.importing import import_store

    place = tmp_path_factory.mktemp("places")
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(60, 16))
    splits = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    np.savez(place / "a.npz", audio=audio, text=audio + rng.normal(size=(60, 16)), split=splits)
    import_store(place / "a.npz", place / "store")
    score = ScoreConfig("cosine")
    config = BridgeConfig(("text", "audio"), 16, 8, 1, True, True, "diffgap", score=score)
    make_bridge(config).save_pretrained(place / "bridge")
    (place / "spec.yaml").write_text(SPEC.format(store=place / "store"))
    (place / "sounds").mkdir()
    soundfile.write(place / "sounds" / "a.wav", [0.1, -0.1] * 100, 16_000)
    (place / "sounds" / "captions.csv").write_text("file_name,caption\na.wav,noise\n")
    return place


@contextmanager
def mounted(place: Path, *options: str):
    """A file system of its own; skips where none can be mounted."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def place(request, tmp_path):
    """A place of the kind that is asked for."""
    if request.param == "file":
        (tmp_path / "file").write_text("a file where a directory is meant")
        yield tmp_path / "file"
    elif request.param == "system":
        yield Path("/proc/diffgap")  # where even root can make nothing
    else:
        options = ("ro",) if request.param == "read-only" else ("size=16k",)
        with mounted(tmp_path / "disk", *options) as disk:
            if request.param == "full":
                with pytest.raises(OSError, match="No space"):
                    (disk / "filler").write_bytes(bytes(100_000))
            yield disk


CAUSES = {
    "file": ("Not a directory", "File exists"),
    "system": ("No such file or directory",),
    "read-only": ("Read-only file system",),
    "full": ("No space left on device",),
}


@pytest.mark.parametrize("words", NEW_FILES.values(), ids=NEW_FILES)
@pytest.mark.parametrize(("place", "causes"), CAUSES.items(), ids=CAUSES, indirect=["place"])
def test_a_place_that_cannot_be_written_to_is_named_with_cause_and_remedy(
    here, monkeypatch, place, causes, words
):
    monkeypatch.chdir(here)
    done = CliRunner().invoke(main, [word.format(place=place) for word in words])
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit), done.exception
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert any(cause in line for cause in causes), line
    assert str(place.parent if place.name == "diffgap" else place) in line
    assert "; " in line.partition(causes[0])[2] or "remove it" in line  # a remedy comes last
