"""`diffgap embed` is killed half-way and started again, on real recordings, through Ray Data."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

DIFFGAP = str(Path(sys.executable).parent / "diffgap")
CHUNKS = 26
"""Of 818 clips."""


def command(root, out):
    return [
        DIFFGAP, "embed", "folder", "--root", str(root), "--encoder", "soundscape",
        "--workers", "2", "--out", str(out),
    ]  # fmt: skip


def finished_chunks(partial):
    return len(list(partial.glob("chunk-*.json")))


def kill_at_half(root, out):
    """SIGKILL once half of the chunks are on disk."""
    process = subprocess.Popen(command(root, out), stdout=subprocess.DEVNULL)
    partial = out.with_name(f"{out.name}.partial")
    while finished_chunks(partial) < CHUNKS // 2:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.kill()
    process.wait()
    return finished_chunks(partial)


@pytest.mark.fault
def test_killed_at_half_and_resumed_the_store_is_the_same_byte_for_byte(tmp_path, real_sounds):
    subprocess.run(command(real_sounds, tmp_path / "once"), check=True, capture_output=True)
    done = kill_at_half(real_sounds, tmp_path / "twice")
    assert CHUNKS // 2 <= done < CHUNKS
    assert not (tmp_path / "twice").exists()
    resumed = subprocess.run(
        command(real_sounds, tmp_path / "twice"), check=True, capture_output=True, text=True
    )
    assert "651 train, 84 val, 83 test clips; 0 left out" in resumed.stdout
    assert resumed.stderr == ""
    once, twice = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("once", "twice")
    )
    assert once == twice
    assert not (tmp_path / "twice.partial").exists()
