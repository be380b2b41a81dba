"""Sweeps as MLflow has them, whole or not: a table that says so, never a wrong mean."""

import shutil

import pytest
from conftest import ABLATION, log_sweep, plan_of

from diffgap.errors import UserError
from diffgap.ledger.ledger import Ledger
from diffgap.report.formats import TEXTS, as_markdown, as_text
from diffgap.report.model import make_report
from diffgap.report.references import read_references
from diffgap.report.tables.recall import sweep_table
from diffgap.report.tables.registry import all_tables
from diffgap.tracking.reader import Reader


@pytest.fixture
def trained(demo, tmp_path, small_store):
    """A new ledger that has all trials of the demo, and tells MLflow as a test likes."""
    ledger = Ledger(tmp_path / "runs")
    shutil.copytree(demo / "trials", ledger.output / "trials")
    plan = plan_of(ABLATION, tmp_path, small_store)
    assert all(ledger.trial(planned.signature).finished for planned in plan.trials)
    return ledger, plan


def logged_and_reader(ledger, plan, **more):
    return log_sweep(plan, ledger, **more), lambda: Reader(ledger.output).sweep(plan.spec.name)


def text_of(sweep):
    return as_text(all_tables([sweep], read_references()))


def test_a_sweep_is_read_as_it_was_run(trained, demo):
    ledger, plan = trained
    _, read_sweep = logged_and_reader(ledger, plan)
    sweep = read_sweep()
    assert [t.signature for t in sweep.trials] == [p.signature for p in plan.trials]
    assert all(t.is_complete and t.status == "FINISHED" for t in sweep.trials)
    for trial in sweep.trials:
        record = ledger.trial(trial.signature)
        assert trial.metrics == record.metrics()
        assert trial.history == record.history()
    assert text_of(sweep) == text_of(Reader(demo).sweep("ablation"))


def test_the_ledger_is_not_asked(trained):
    ledger, plan = trained
    _, read_sweep = logged_and_reader(ledger, plan)
    before = text_of(read_sweep())
    for name in ("trials", "ledger.json"):
        path = ledger.output / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert text_of(read_sweep()) == before


def test_a_half_finished_sweep_counts_what_is_there(trained):
    ledger, plan = trained
    _, read_sweep = logged_and_reader(ledger, plan, trials=plan.trials[:5], status="KILLED")
    table = sweep_table(read_sweep(), "ablation")
    assert [row.seeds for row in table.rows] == ["2", "2", "1 of 2", "0 of 2"]
    assert table.rows[2].missing_reason == "1 not in MLflow (not started, or deleted)"


def test_failed_running_and_interrupted_trials_do_not_count_and_say_so(trained):
    ledger, plan = trained
    tracker, read_sweep = logged_and_reader(ledger, plan, trials=plan.trials[:4])
    failed, running, killed = plan.trials[4:7]
    for planned in (failed, running, killed):
        tracker.start(planned.signature, planned.label, {})
    tracker.fail(failed.signature, "the loss is nan")
    tracker.kill(killed.signature)
    sweep = read_sweep()
    assert [t.reason for t in sweep.trials[4:7]] == ["the loss is nan", None, "interrupted"]
    missing_reason = [row.missing_reason for row in sweep_table(sweep, "ablation").rows]
    assert missing_reason[2] == "1 failed, 1 running"
    assert missing_reason[3] == "1 interrupted, 1 not in MLflow (not started, or deleted)"
    assert "nan" not in sweep_table(sweep, "ablation").rows[2].values[0].text


def test_a_deleted_run_is_missing_and_not_zero(trained):
    ledger, plan = trained
    tracker, read_sweep = logged_and_reader(ledger, plan)
    run = read_sweep().trials[0].run_id
    whole = sweep_table(read_sweep(), "ablation").rows[0].values[0].number
    tracker.client.delete_run(run)
    row = sweep_table(read_sweep(), "ablation").rows[0]
    assert row.seeds == "1 of 2"
    assert row.values[0].number == pytest.approx(whole)  # frozen: both seeds are alike
    assert "deleted" in text_of(read_sweep())


def test_a_run_without_its_ranks_does_not_count(trained):
    ledger, plan = trained
    victim = plan.trials[0]
    (ledger.trial(victim.signature).bridge / "ranks.parquet").unlink()
    _, read_sweep = logged_and_reader(ledger, plan)
    assert read_sweep().trials[0].problem == "its run has no ranks.parquet"
    assert "frozen embeddings: 1 its run has no ranks.parquet." in text_of(read_sweep())


def test_of_two_sweeps_with_one_name_the_last_counts_and_it_is_said(trained, tmp_path, monkeypatch):
    ledger, plan = trained
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared.db")
    logged_and_reader(ledger, plan)
    other_ledger = Ledger(tmp_path / "other")
    shutil.copytree(ledger.output / "trials", other_ledger.output / "trials")
    _, read_sweep = logged_and_reader(other_ledger, plan, trials=plan.trials[:2], status="KILLED")
    table = sweep_table(read_sweep(), "ablation")
    assert [row.seeds for row in table.rows] == ["2", "0 of 2", "0 of 2", "0 of 2"]
    assert any("2 sweeps are named 'ablation'" in note for note in table.notes)


def test_nothing_finished_still_gives_every_format(trained):
    ledger, plan = trained
    _, read_sweep = logged_and_reader(ledger, plan, trials=())
    report = make_report([read_sweep()], read_references(), "here")
    assert report.pictures == []
    for text_format in TEXTS.values():
        assert text_format.render(report)
    assert "No trial is finished yet." in as_markdown(report.tables)


def test_unknown_sweeps_and_empty_places_are_refused(demo, tmp_path):
    with pytest.raises(UserError, match=r"SWEEP: 'ablatoin' is not in .*; did you mean ablation\?"):
        Reader(demo).sweep("ablatoin")
    with pytest.raises(UserError, match="no sweep has been run in"):
        Reader(tmp_path)
    assert not list(tmp_path.iterdir())


def test_all_sweeps_of_a_store_are_known_the_newest_first(demo):
    assert Reader(demo).sweeps() == ["search", "scores", "schedules", "methods", "ablation"]


def test_cells_that_two_sweeps_share_stand_once_in_the_table_of_both(report):
    (table,) = [t for t in report.tables if t.key.startswith("retrieval-")]
    names = [row.name for row in table.ours]
    assert sorted(names) == sorted(set(names))
    assert {"frozen embeddings", "BST only", "CDM + BST", "mean shift"} <= set(names)
    assert "deterministic bridge" not in names  # which is what BST only is


def test_a_table_without_runs_names_its_command(trained):
    ledger, plan = trained
    _, read_sweep = logged_and_reader(ledger, plan)
    missing = make_report([read_sweep()], read_references(), "here").missing
    assert "No runs of methods: make them with: diffgap sweep sweeps/methods.yaml" in missing
    assert not any("ablation.yaml" in line for line in missing)
