"""A trial's checkpoints: only whole ones count, and the one before a broken one is there."""

import shutil

import pytest

from diffgap.training.checkpoint import Checkpoints, broken


def writer(text):
    def save(path):
        (path / "part").mkdir()
        (path / "part" / "weights").write_text(text * 100)
        (path / "progress.json").write_text("{}")

    return save


@pytest.fixture
def checkpoints(tmp_path):
    kept = Checkpoints(tmp_path / "checkpoints")
    for step in (500, 1000, 1500):
        kept.write(step, writer(str(step)))
    return kept


def test_the_last_two_are_kept(checkpoints):
    assert sorted(p.name for p in checkpoints.path.iterdir()) == ["step-00001000", "step-00001500"]
    assert checkpoints.latest().name == "step-00001500"
    assert Checkpoints(checkpoints.path / "none").latest() is None


@pytest.mark.parametrize("name", ["part/weights", "progress.json", "files.json"])
@pytest.mark.parametrize("harm", ["truncated", "gone", "changed"])
def test_a_broken_one_is_passed_over_for_the_one_before(checkpoints, name, harm, caplog):
    file = checkpoints.latest() / name
    content = file.read_bytes()
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if harm == "truncated" else content + b"?")
    assert checkpoints.latest().name == "step-00001000"
    assert f"Skipping checkpoint step-00001500: {name}" in caplog.text


def a_file(path):
    shutil.rmtree(path)
    path.write_text("a file where a directory is meant")


def an_empty_file(path):
    (path / "part" / "weights").write_bytes(b"")


def a_loop_of_links(path):
    (path / "progress.json").unlink()
    (path / "progress.json").symlink_to(path / "progress.json")


HARMS = {
    "a file": a_file,
    "no files": lambda path: shutil.rmtree(path) or path.mkdir(),
    "an empty file": an_empty_file,
    "a file more": lambda path: (path / "part" / "more").write_text(""),
    "a loop of links": a_loop_of_links,
    "renamed": lambda path: (path / "part").rename(path / "parts"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_whatever_happened_to_it_the_one_before_is_used_and_the_next_replaces_it(checkpoints, harm):
    HARMS[harm](checkpoints.path / "step-00001500")
    assert checkpoints.latest().name == "step-00001000"
    checkpoints.write(1500, writer("again"))
    assert checkpoints.latest().name == "step-00001500"
    checkpoints.write(2000, writer("2000"))
    assert sorted(p.name for p in checkpoints.path.iterdir()) == ["step-00001500", "step-00002000"]


def test_an_attempt_that_was_killed_counts_for_nothing(checkpoints):
    """Killed while it was written, and while it replaced what was there."""
    half = checkpoints.path / ".step-00002000.unfinished"
    shutil.copytree(checkpoints.latest(), half)
    (checkpoints.path / "step-00001500").rename(checkpoints.path / ".step-00001500.0123abcd")
    assert checkpoints.latest().name == "step-00001000"
    checkpoints.write(2000, writer("2000"))
    assert checkpoints.latest().name == "step-00002000"


def test_one_that_could_not_be_written_is_none(checkpoints):
    def full(path):
        writer("2000")(path)
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoints.write(2000, full)
    assert checkpoints.latest().name == "step-00001500"
    checkpoints.write(2000, writer("2000"))  # what is left of the attempt is in nobody's way
    assert checkpoints.latest().name == "step-00002000"
    assert broken(checkpoints.latest()) is None
