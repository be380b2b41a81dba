"""Trials as tidy data: a row each, numbers that read back as the same, nothing made up."""

import csv
import io
import json
import math
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffgap.report.tidy import FACTS, tidy, to_csv, to_parquet
from diffgap.spec import SweepSpec, Trial, flatten
from diffgap.sweep.plan import make_plan
from diffgap.tracking.reader import LoggedSweep, TrialRun

AWKWARD = [1 / 3, 1e-300, 123456789.12345679, 0.1 + 0.2, -0.0, 5e22, 100.0]
"""Numbers that lose something in fewer than 17 digits."""

REASON = 'step 3: the loss is "nan",\nsee its log; ± 3'


@pytest.fixture
def sweep(tmp_path):
    """Four planned trials: two finished, one failed, one that MLflow does not know."""
    axes = {"method": ["none", "diffgap"]}
    spec = SweepSpec(name="one", store="somewhere", axes=axes, seeds=2)
    plan = make_plan(spec, "somewhere", "0" * 64)
    trials = []
    for number, planned in enumerate(plan.trials):
        asked = (planned.signature, planned.label, planned.trial.model_dump(mode="json"))
        if number < 2:
            path = tmp_path / planned.signature
            path.mkdir()
            metrics = {f"test/{i}": value * (number + 1) for i, value in enumerate(AWKWARD)}
            metrics |= {"best/step": 5.0} if number else {}
            (path / "metrics.json").write_text(json.dumps(metrics))
            config = {"git_commit": "abc", "encoder": {"name": "clap"}, "store": {"name": "corpus"}}
            (path / "config.json").write_text(json.dumps(config))
            trials.append(TrialRun(*asked, run_id=f"run{number}", status="FINISHED", files=path))
        elif number == 2:
            tags = {"diffgap.git_commit": "def"}
            found = {"logged": {"test/0": 1.0}, "tags": tags}
            trials.append(TrialRun(*asked, run_id="run2", status="FAILED", reason=REASON, **found))
        else:
            trials.append(TrialRun(*asked))
    return LoggedSweep("a, b", spec.model_dump(mode="json"), "somewhere", "run", "1", tuple(trials))


def test_every_planned_trial_has_a_row(sweep):
    found = tidy([sweep, sweep])
    assert found.num_rows == 8
    assert found["signature"].to_pylist() == [t.signature for t in sweep.trials] * 2
    assert found["status"].to_pylist()[:4] == ["FINISHED", "FINISHED", "FAILED", "MISSING"]
    assert found["counts"].to_pylist()[:4] == [True, True, False, False]
    assert found["git_commit"].to_pylist()[:4] == ["abc", "abc", "def", None]
    assert found["encoder"].to_pylist()[:4] == ["clap", "clap", None, None]
    assert found["corpus"].to_pylist()[:4] == ["corpus", "corpus", None, None]


def test_columns_are_facts_then_fields_then_metrics(sweep):
    found = tidy([sweep])
    fields = [f"trial.{name}" for name in flatten(Trial.model_validate(sweep.trials[0].trial))]
    metrics = sorted([*(f"test/{i}" for i in range(len(AWKWARD))), "best/step"])
    assert found.column_names == [*FACTS, *fields, *metrics]


def test_fields_have_their_own_types(sweep):
    found = tidy([sweep])
    kinds = {name: found.schema.field(name).type for name in found.column_names}
    assert kinds["trial.method"] == pa.string()
    assert kinds["trial.seed"] == pa.int64()
    assert kinds["trial.cdm.enabled"] == pa.bool_()
    assert kinds["trial.train.lr"] == pa.float64()
    assert kinds["test/0"] == pa.float64()
    assert found["trial.seed"].to_pylist() == [0, 1, 0, 1]
    assert found["trial.method"].to_pylist() == ["none", "none", "diffgap", "diffgap"]


def test_what_failed_or_is_missing_has_nulls_and_nothing_that_was_only_logged(sweep):
    failed, missing = tidy([sweep]).to_pylist()[2:]
    assert failed["reason"] == REASON
    assert missing["run_id"] is None
    assert missing["reason"] is None
    for row in (failed, missing):
        assert all(row[f"test/{i}"] is None for i in range(len(AWKWARD)))
        assert row["trial.train.lr"] > 0


def test_columns_of_several_kinds_are_text(sweep):
    changed = sweep.trials[2].trial | {"changes": [{"step": 3, "values": {"train.lr": 0.1}}]}
    trials = (sweep.trials[0], TrialRun("s", "l", changed))
    other = LoggedSweep(sweep.name, sweep.spec, sweep.store, "run", "1", trials)
    first, second = tidy([other])["trial.changes"].to_pylist()
    assert first == "[]"
    assert json.loads(second) == [{"step": 3, "values": {"train.lr": 0.1}}]


def test_parquet_reads_back_as_it_was(sweep):
    assert pq.read_table(pa.BufferReader(to_parquet([sweep]))).equals(tidy([sweep]))


def test_csv_keeps_every_bit_of_a_number(sweep):
    rows = list(csv.DictReader(io.StringIO(to_csv([sweep]))))
    assert len(rows) == 4
    for number, row in enumerate(rows[:2], 1):
        for place, value in enumerate(AWKWARD):
            found = float(row[f"test/{place}"])
            assert found == value * number
            assert math.copysign(1, found) == math.copysign(1, value)
    assert rows[0]["sweep"] == "a, b"
    assert rows[2]["reason"] == REASON
    assert rows[0]["best/step"] == rows[2]["test/0"] == rows[3]["run_id"] == ""
    rate = sweep.trials[0].trial["train"]["lr"]
    assert float(rows[0]["trial.train.lr"]) == rate


def test_no_sweep_is_no_row(sweep):
    assert tidy([]).num_rows == 0
    assert to_csv([]).strip().split(",") == [f'"{name}"' for name in FACTS]


def test_real_sweeps_read_back_from_both_formats(report):
    found = tidy(report.sweeps)
    assert found.num_rows == sum(len(sweep.trials) for sweep in report.sweeps)
    assert all(found["counts"].to_pylist())
    assert set(found["corpus"].to_pylist()) == {"soundscapes"}
    assert None not in found["git_commit"].to_pylist()
    assert pq.read_table(pa.BufferReader(to_parquet(report.sweeps))).equals(found)
    told = csv.DictReader(io.StringIO(to_csv(report.sweeps)))
    trials = [trial for sweep in report.sweeps for trial in sweep.trials]
    for row, trial in zip(told, trials, strict=True):
        assert row["signature"] == trial.signature
        read = {name: float(row[name]) for name in trial.metrics}
        assert read == trial.metrics


def test_csv_has_nothing_for_a_spreadsheet_to_compute_and_parquet_has_it_as_it_is(sweep):
    formula, escape = "=HYPERLINK(A1)", "a\x1b[2J"
    trials = (replace(sweep.trials[0], label=formula), replace(sweep.trials[1], label="-1.5"))
    hostile = replace(sweep, name=escape, store="@store", trials=trials)
    rows = list(csv.DictReader(io.StringIO(to_csv([hostile]))))
    assert [row["label"] for row in rows] == [f"'{formula}", "-1.5"]
    assert {row["sweep"] for row in rows} == {"a␛[2J"}
    assert {row["store"] for row in rows} == {"'@store"}
    table = pq.read_table(pa.BufferReader(to_parquet([hostile])))
    assert table["label"].to_pylist() == [formula, "-1.5"]
    assert table["sweep"].to_pylist() == [escape] * 2
