"""Disks that fill up, and files that change under a sweep."""

import shutil
import subprocess
from contextlib import contextmanager

import pytest
from conftest import MIDDLE, TWO, Sweep, assert_healed

pytestmark = [pytest.mark.fault, pytest.mark.slow]


@contextmanager
def small_disk(path, megabytes):
    """A file system of its own; skips where none can be mounted."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_fails_trials_in_a_plain_word_and_nothing_else(single, undisturbed):
    with small_disk(single.place / "runs", 32) as disk:
        single.start("--set", "retries=0").wait_for(MIDDLE)
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(b"0" * 64_000_000)
        single.wait_for("FAILED")
        filler.unlink()
        # 2 where the disk was still full when the command wrote down how the sweep had ended.
        assert single.finish() in (1, 2), single.said
        assert "No space left on device" in single.said
        assert "free some space" in single.said
        single.wait_until_alone()
        assert single.run() == 0, single.said
        assert_healed(single, undisturbed)


def test_a_store_that_changes_fails_the_trials_that_come_later(tmp_path, small_store, undisturbed):
    store = tmp_path / "store"
    shutil.copytree(small_store, store)
    sweep = Sweep(tmp_path, store, TWO)
    one_by_one = ("--max-concurrent", "1", "--set", "resources.pack=1")
    sweep.start(*one_by_one).wait_for("step 10/48")
    shard = next(store.glob("items-*.parquet"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    assert sweep.finish() == 1, sweep.said
    assert "items shard cannot be read" in sweep.said
    assert sorted(run.info.status for run in sweep.runs()[1]) == ["FAILED", "FAILED", "FINISHED"]
    logs = "".join(log.read_text() for log in (tmp_path / "runs/trials").glob("*/log.txt"))
    assert logs.count("items shard cannot be read") == 1  # bad data are not tried again

    shard.write_bytes(whole)
    assert sweep.run() == 0, sweep.said
    assert_healed(sweep, undisturbed)
