"""An output directory that an earlier version left behind is reported, finished and gone on with.

`tests/data/carried.tar.xz` was made by the code before the package was laid out anew: a sweep of
four trials, killed with SIGKILL when two were done, one had a checkpoint and one had not begun.
"""

import sqlite3
import tarfile
from pathlib import Path

import pytest
from command import diffgap, runs_of

CARRIED = Path(__file__).parents[1] / "data" / "carried.tar.xz"
PLACEHOLDER = "/carried"
"""The directory that the sweep was run in, wherever its files name it."""

DONE, INTERRUPTED, NEW = {"8edb052df2d1", "8244d61aa763"}, "ea400793d5b2", "7845883b85d1"

TABLE = """\
| frozen embeddings | 1 | **26.6 ± 10.9** | **59.4 ± 12.0** | **81.2 ± 9.7** | **37.5 ± 11.8** | **65.6 ± 11.6** | **82.8 ± 9.4** |
| CDM only | 1 | <u>10.9 ± 8.0</u> | <u>39.1 ± 11.9</u> | 60.9 ± 11.9* | 9.4 ± 7.5* | <u>56.2 ± 12.1</u> | <u>68.8 ± 11.4</u> |
| BST only | 1 | <u>20.3 ± 10.0</u> | <u>48.4 ± 12.2</u> | <u>60.9 ± 11.9</u> | <u>23.4 ± 10.5</u> | <u>53.1 ± 12.2</u> | <u>73.4 ± 10.9</u> |
| CDM + BST | 1 | <u>12.5 ± 8.4</u> | <u>40.6 ± 12.0</u> | <u>67.2 ± 11.5</u> | 10.9 ± 8.0* | <u>46.9 ± 12.2</u> | 60.9 ± 11.9* |
"""  # noqa: E501
"""What the earlier code printed when it finished the sweep itself."""


@pytest.fixture
def place(tmp_path):
    """The carried directory, moved here."""
    with tarfile.open(CARRIED) as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "out").rename(tmp_path / "runs")
    moved = (
        (f"{PLACEHOLDER}/out", f"{tmp_path}/runs"),
        (f"{PLACEHOLDER}/store", f"{tmp_path}/store"),
    )
    for path in tmp_path.rglob("*.json"):
        text = path.read_text()
        for old, new in moved:
            text = text.replace(old, new)
        path.write_text(text)
    with sqlite3.connect(tmp_path / "runs" / "mlflow.db") as database:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("tags", "value"),
        ):
            for old, new in moved:
                database.execute(
                    f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (old, new)
                )
    return tmp_path


def test_it_is_reported_and_then_finished_as_the_earlier_code_would_have(place):
    status = diffgap("status", "carried", cwd=place)
    assert "2 finished" in status.stdout
    assert "1 interrupted" in status.stdout

    reported = diffgap("report", "carried", "--format", "md", cwd=place)
    assert reported.returncode == 0, reported.stderr
    assert "CDM + BST" in reported.stdout

    before = {path: path.stat().st_mtime_ns for path in place.glob("runs/trials/*/bridge/*")}
    swept = diffgap("sweep", "carried.yaml", cwd=place)
    assert swept.returncode == 0, swept.stderr
    assert "2 of 4 trials to run" in swept.stdout
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())

    log = (place / "runs" / "trials" / INTERRUPTED / "log.txt").read_text()
    assert "step 40" in log  # it resumed from its checkpoint
    runs = {run.data.tags.get("diffgap.signature"): run for run in runs_of(place, "carried")}
    assert set(runs) >= DONE | {INTERRUPTED, NEW}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}

    table = diffgap("report", "carried", "--format", "md", cwd=place)
    assert TABLE in table.stdout
