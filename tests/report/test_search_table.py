"""The tables of a search: the best on val first, how each trial ended, and what mattered."""

import json

import pytest
from conftest import log_sweep

from diffgap.ledger.ledger import Ledger
from diffgap.report.formats import as_markdown, as_text
from diffgap.report.tables.registry import own_tables
from diffgap.report.tables.search import importance_table, search_table
from diffgap.spec import SweepSpec
from diffgap.sweep.plan import Plan, planned_trial
from diffgap.tracking.reader import Reader

RATES = (0.001, 0.002, 0.003, 0.004, 0.005)


@pytest.fixture
def search(tmp_path):
    """A search of five learning rates: two finished, one stopped, one failed, one not begun."""
    spec = SweepSpec(
        name="s", store="somewhere", search={"space": {"train.lr": {"low": 1e-4, "high": 1e-2}}}
    )
    planned = []
    for rate in RATES:
        values = {"train.lr": rate}
        trial = spec.trial_at(values, 0)
        planned.append(planned_trial(trial, values, "0" * 64))
    ledger = Ledger(tmp_path)
    for one, score in zip(planned[:2], (60.0, 70.0), strict=True):
        bridge = ledger.trial(one.signature).bridge
        bridge.mkdir(parents=True)
        metrics = {"val/text_to_audio/R5": score - 1, "val/audio_to_text/R5": score + 1}
        (bridge / "metrics.json").write_text(json.dumps(metrics))
        (bridge / "ranks.parquet").touch()
        (bridge / "history.json").write_text("[]")
    tracker = log_sweep(Plan(spec, "somewhere", "0" * 64, tuple(planned)), ledger, planned[:4])
    curve = {"val/text_to_audio/R5": 64.0, "val/audio_to_text/R5": 66.0}
    tracker.log(planned[2].signature, [{"step": 500, "metrics": curve}], 1.0)
    tracker.kill(planned[2].signature, "behind at step 500 (ASHA)")
    tracker.fail(planned[3].signature, "step 3: the loss is nan")
    return Reader(tmp_path).sweep("s")


def test_finished_trials_come_first_and_the_best_of_them_on_top(search):
    table = search_table(search)
    rates = [row.values[1].text for row in table.rows]
    assert rates[:3] == ["0.002", "0.001", "0.003"]
    assert [row.values[0].number for row in table.rows] == [70.0, 60.0, 65.0, None, None]
    assert [row.values[0].best for row in table.rows] == [True, False, False, False, False]
    assert [row.values[2].text for row in table.rows] == [
        "finished", "finished", "stopped: behind at step 500 (ASHA)", "failed",
        "not in MLflow (not started, or deleted)",
    ]  # fmt: skip


def test_the_best_can_be_repeated_in_any_sweep(search):
    for text in (as_text(own_tables(search, ())), as_markdown(own_tables(search, ()))):
        assert "R@5 on val, mean of both directions" in text
        assert "--set trial.train.lr=0.002" in text


def test_importance_needs_enough_trials(search):
    assert importance_table(search).notes == (
        "2 trials are finished; at least 8 are needed to say what mattered.",
    )


def test_importance_finds_the_field_that_matters(read):
    """In the demo, six steps of training: the learning rate decides, the rest hardly."""
    table = importance_table(read("search"))
    shares = {row.name: row.values[0].number for row in table.rows}
    assert set(shares) == {"train.lr", "denoiser.blocks", "cdm.prediction"}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert max(shares, key=shares.get) == "train.lr"
