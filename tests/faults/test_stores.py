"""Stores that are made by two processes at once, by killed ones, and on disks that are full."""

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from test_storage import small_disk

from diffgap.cli.main import main
from diffgap.corpora.soundscapes import SoundscapeCorpus
from diffgap.encoders import EncoderChoice
from diffgap.encoders.embed import embed
from diffgap.store.store import EmbeddingStore

pytestmark = pytest.mark.fault

DEADLINE = 120
"""Seconds that anything here may take on a busy machine."""

COUNTS = {"train": 96, "val": 32, "test": 32}
BUILD = f"""
from diffgap.corpora.soundscapes import SoundscapeCorpus
SoundscapeCorpus.__init__.__defaults__ = ({COUNTS}, None)
from diffgap.encoders.builtin import open_store
store = open_store("soundscapes", lambda done, total: print(done, "of", total, flush=True))
print("opened", store.fingerprint, flush=True)
"""
"""Opens the built-in corpus, in a small form, as every command does that names it."""


class Builder:
    """A process that needs the built-in store, and its output as it comes."""

    def __init__(self, cache):
        environment = {**os.environ, "DIFFGAP_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", BUILD], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.output = ""
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            with self._changed:
                self.output += line
                self._changed.notify_all()

    def wait_for(self, pattern):
        with self._changed:
            seen = self._changed.wait_for(lambda: re.search(pattern, self.output), DEADLINE)
        assert seen, f"no {pattern!r} in:\n{self.output}"

    def send(self, number):
        self.process.send_signal(number)

    def finish(self):
        """The fingerprint of the store that it opened."""
        assert self.process.wait(DEADLINE) == 0, self.output
        self.wait_for("opened ")
        return re.search(r"opened (\w+)", self.output)[1]


@contextmanager
def builders(cache, count):
    processes = [Builder(cache) for _ in range(count)]
    try:
        yield processes
    finally:
        for builder in processes:
            builder.process.kill()
            builder.process.wait()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The fingerprint of the store when one process alone builds it."""
    path = tmp_path_factory.mktemp("alone") / "store"
    return embed(SoundscapeCorpus(COUNTS), EncoderChoice("soundscape"), path).store.fingerprint


@contextmanager
def two_builders(cache):
    """One that stands still with a chunk of the store built, and one that waits for it."""
    with builders(cache, 1) as (first,):
        first.wait_for("32 of 160")
        first.send(signal.SIGSTOP)
        with builders(cache, 1) as (second,):
            second.wait_for("Another process is making .*soundscapes-.*; waiting until it is done")
            yield first, second


def assert_only_the_store_is_left(cache):
    (store,) = (cache / "stores").iterdir()
    assert EmbeddingStore.open(store).manifest.corpus.name == "soundscapes"


def test_the_second_of_two_first_builds_waits_and_uses_what_the_first_has_built(
    tmp_path, undisturbed
):
    with two_builders(tmp_path) as (first, second):
        first.send(signal.SIGCONT)
        assert first.finish() == second.finish() == undisturbed
        assert "of 160" not in second.output
    assert_only_the_store_is_left(tmp_path)


def test_when_the_first_of_two_builds_is_killed_the_second_goes_on_from_there(
    tmp_path, undisturbed
):
    with two_builders(tmp_path) as (first, second):
        first.send(signal.SIGKILL)
        assert second.finish() == undisturbed
        assert "32 of 160" not in second.output  # the chunk that the first has left is used
        assert "160 of 160" in second.output
    assert_only_the_store_is_left(tmp_path)


def test_three_first_builds_at_any_moment_all_get_the_store(tmp_path, undisturbed):
    with builders(tmp_path, 3) as processes:
        assert {builder.finish() for builder in processes} == {undisturbed}
    assert_only_the_store_is_left(tmp_path)


# Places that cannot be written to -----------------------------------------------------------------


ROOM = 16_384
"""Bytes left on a disk: enough to begin, and not for what is to be written."""


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def sounds(tmp_path):
    root = tmp_path / "sounds"
    root.mkdir()
    for number in range(40):
        samples = 0.1 * np.random.default_rng(number).standard_normal(1600)
        soundfile.write(root / f"{number}.wav", samples, 16_000)
    rows = "".join(f"{number}.wav,noise {number}\n" for number in range(40))
    (root / "captions.csv").write_text(f"file_name,caption\n{rows}")
    return root


@pytest.fixture
def source(tmp_path):
    audio, text = np.random.default_rng(0).standard_normal((2, 3000, 64)).astype(np.float32)
    np.savez(tmp_path / "a.npz", audio=audio, text=text)
    return tmp_path / "a.npz"


def test_a_full_disk_is_named_and_the_same_command_finishes_later(tmp_path, sounds, source):
    commands = {
        "embedded": ("embed", "folder", "--root", sounds, "--encoder", "soundscape"),
        "imported": ("store", "import", source),
    }
    with small_disk(tmp_path / "disk", 8) as disk:
        filler = disk / "filler"
        for name, command in commands.items():
            with pytest.raises(OSError, match="No space"):
                filler.write_bytes(b"0" * 9_000_000)
            os.truncate(filler, filler.stat().st_size - ROOM)
            full = run(*command, "--out", disk / name)
            assert full.exit_code != 0
            assert re.search(rf"{disk}/{name}.*: No space left on device", full.stderr), full.stderr
            left = {path.name for path in disk.iterdir()}
            assert left <= {"filler", f"{name}.partial"}  # no store, and no part of one
            filler.unlink()
            later = run(*command, "--out", disk / name)
            assert later.exit_code == 0, later.output
            EmbeddingStore.open(disk / name)
            assert {path.name for path in disk.iterdir()} == {name}
            subprocess.run(["rm", "-r", disk / name], check=True)


def test_places_where_nothing_can_be_made_are_named_before_anything_is_done(
    tmp_path, sounds, source
):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file" / "store", Path("/proc/store"), tmp_path / ("x" * 300)):
        for command in (
            ("embed", "folder", "--root", sounds, "--encoder", "soundscape"),
            ("store", "import", source),
        ):
            refused = run(*command, "--out", out)
            assert refused.exit_code == 2, refused.output
            (line,) = refused.stderr.splitlines()
            assert line.startswith((f"error: {out}: ", f"error: {out.parent}: "))
    assert (tmp_path / "file").read_text() == "mine"
