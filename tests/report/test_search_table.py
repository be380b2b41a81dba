"""The table of a search: the best on val first, and how each trial ended."""

import json

import pytest

from diffgap.errors import UserError
from diffgap.ledger import Ledger
from diffgap.report.search import search_table
from diffgap.report.tables import as_markdown, as_svg, as_text
from diffgap.spec import SweepSpec
from diffgap.sweep.plan import Plan, label, planned_trial

RATES = (0.001, 0.002, 0.003, 0.004, 0.005)


@pytest.fixture
def ledger(tmp_path):
    """A search of five learning rates: two finished, one stopped, one failed, one not begun."""
    spec = SweepSpec(
        name="s", store="somewhere", search={"space": {"train.lr": {"low": 1e-4, "high": 1e-2}}}
    )
    planned = []
    for rate in RATES:
        values = {"train.lr": rate}
        trial = spec.trial_at(values, 0)
        planned.append(planned_trial(trial, label(values, trial), "0" * 64))
    ledger = Ledger(tmp_path)
    ledger.record_sweep(Plan(spec, "somewhere", "0" * 64, tuple(planned)).record())
    for one, found in zip(planned[:2], (60.0, 70.0), strict=True):
        record = ledger.trial(one.signature)
        record.bridge.mkdir(parents=True)
        metrics = {"val/text_to_audio/R5": found - 1, "val/audio_to_text/R5": found + 1}
        (record.bridge / "metrics.json").write_text(json.dumps(metrics))
    ledger.trial(planned[2].signature).tell_to_stop("behind", 500, 65.0)
    ledger.trial(planned[3].signature).fail("step 3: the loss is nan")
    return ledger


def test_finished_trials_come_first_and_the_best_of_them_on_top(ledger):
    table = search_table(ledger, "s")
    assert [row.values["train.lr"] for row in table.rows[:3]] == [0.002, 0.001, 0.003]
    assert [row.value for row in table.rows] == [70.0, 60.0, 65.0, None, None]
    assert [row.state for row in table.rows] == [
        "finished", "finished", "stopped at step 500", "failed", "not finished",
    ]  # fmt: skip


def test_the_best_can_be_repeated_in_any_sweep(ledger):
    for text in (as_text(ledger, "s"), as_markdown(ledger, "s")):
        assert "R@5 on val, mean of both directions" in text
        assert "--set trial.train.lr=0.002" in text


def test_a_search_has_no_bars(ledger):
    with pytest.raises(UserError, match="svg draws recalls, and a search has none; use md"):
        as_svg(ledger, "s")
