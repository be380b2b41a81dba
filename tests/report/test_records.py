"""Damaged records: the others are reported, and what is wrong is named, with a remedy."""

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from diffgap.cli.main import main

OTHER_VERSION = {"spec": {"task": "text-audio"}, "store": "s", "trials": [{"point": {}}]}
DAMAGE = {
    "no JSON": ("{", "JSONDecodeError"),
    "other JSON": ("[1, 2]", "TypeError"),
    "another version": (json.dumps(OTHER_VERSION), "KeyError"),
    "missing": (None, "has no record (sweep.json is missing"),
}


@contextmanager
def damaged(path: Path, content: str | bytes | None):
    """A file of the demo with other content, or without it; as it was after the block."""
    before = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    try:
        yield
    finally:
        path.write_bytes(before)


def report(demo, *words):
    done = CliRunner().invoke(main, ["report", *words, "--output", str(demo), "--format", "csv"])
    assert isinstance(done.exception, SystemExit | None), done.exception
    return done


@pytest.mark.parametrize(("content", "cause"), DAMAGE.values(), ids=DAMAGE)
def test_one_damaged_record_is_named_and_the_others_are_reported(demo, content, cause):
    (record,) = (demo / "mlartifacts" / "methods").rglob("artifacts/sweep.json")
    with damaged(record, content):
        every = report(demo)
        alone = report(demo, "methods")
        beside = report(demo, "methods", "ablation")
    assert every.exit_code == beside.exit_code == 1
    for done in (every, beside):
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: SWEEP: ")
        assert "'methods'" in line
        assert cause in line
        assert "command" in line  # the remedy: its sweep command makes it anew
        assert '"ablation"' in done.stdout
        assert '"methods"' not in done.stdout
    assert '"scores"' in every.stdout
    assert alone.exit_code == 2
    assert alone.stderr == every.stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [("metrics.json", "{"), ("history.json", "[3]"), ("config.json", "null"),
     ("ranks.parquet", b"PAR1 and no more"), ("examples.parquet", b"")],
)  # fmt: skip
def test_a_trial_with_a_damaged_file_does_not_count_and_says_why(demo, name, content):
    files = sorted((demo / "mlartifacts" / "ablation").rglob(f"bridge/{name}"))
    with damaged(files[0], content):
        done = report(demo, "ablation")
    assert done.exit_code == 0, done.output
    rows = done.stdout.strip().splitlines()[1:]
    assert len(rows) == 8
    assert [f"the {name} of its run is damaged" in row for row in rows].count(True) == 1
