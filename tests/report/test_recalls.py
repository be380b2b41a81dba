"""The table from trials' files: right means, honest gaps, and the same figures in every format."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffgap.errors import UserError
from diffgap.ledger import Ledger
from diffgap.report.recalls import recall_table
from diffgap.report.render import notes, to_markdown
from diffgap.report.tables import as_markdown, as_svg, as_text
from diffgap.spec import SweepSpec
from diffgap.sweep.plan import make_plan

CLIPS, CAPTIONS = 60, 2
SKILL = {"frozen": 0.0, "bst": 0.05, "cdm": 0.05, "cdm+bst": 0.4}


def ranks_of(cell, seed):
    """Ranks of a cell: a share of the queries that the baseline misses is found at once."""
    rng = np.random.default_rng(0)
    base = rng.integers(1, 30, CLIPS * (CAPTIONS + 1))
    better = np.random.default_rng(seed + 1).random(len(base)) < SKILL[cell]
    return np.where(better, 1, base)


def write_trial(ledger, planned, cell=None):
    record = ledger.trial(planned.signature)
    record.bridge.mkdir(parents=True)
    clips = [f"clip {i}" for i in range(CLIPS)]
    ranks = ranks_of(cell or planned.trial.cell, planned.trial.seed)
    table = {
        "direction": ["text_to_audio"] * CLIPS * CAPTIONS + ["audio_to_text"] * CLIPS,
        "clip": list(np.repeat(clips, CAPTIONS)) + clips,
        "rank": ranks,
        "ap10": 1.0 / ranks,
    }
    pq.write_table(pa.table(table), record.bridge / "ranks.parquet")
    (record.bridge / "metrics.json").write_text(json.dumps({"test/text_to_audio/R1": 0.0}))


@pytest.fixture
def sweep(tmp_path):
    spec = SweepSpec(
        name="s", store="somewhere", seeds=3,
        axes={"cdm.enabled": [False, True], "bst.enabled": [False, True]},
    )  # fmt: skip
    plan = make_plan(spec, "somewhere", "0" * 64)
    ledger = Ledger(tmp_path)
    ledger.record_sweep(plan.record())
    return ledger, plan


def row(table, name):
    return next(row for row in table.rows if row.name == name)


def test_every_figure_is_the_mean_over_seeds_and_queries(sweep):
    ledger, plan = sweep
    for planned in plan.trials:
        write_trial(ledger, planned)
    table = recall_table(ledger, "s", "ablation")
    assert [row.name for row in table.rows] == [
        "frozen embeddings", "BST only", "CDM only", "CDM + BST",
    ]  # fmt: skip
    found = row(table, "CDM + BST").figures["text_to_audio", 5]
    hits = [ranks_of("cdm+bst", seed)[: CLIPS * CAPTIONS] <= 5 for seed in range(3)]
    assert found.interval.mean == pytest.approx(100 * np.mean(hits))
    assert found.interval.low < found.interval.mean < found.interval.high
    base = ranks_of("frozen", 0)[: CLIPS * CAPTIONS] <= 5
    assert found.difference == pytest.approx(100 * (np.mean(hits) - np.mean(base)))


def test_what_is_best_and_what_differs_is_marked(sweep):
    ledger, plan = sweep
    for planned in plan.trials:
        write_trial(ledger, planned)
    table = recall_table(ledger, "s", "ablation")
    both, frozen, cdm = (
        row(table, n).figures for n in ("CDM + BST", "frozen embeddings", "CDM only")
    )
    assert all(figure.best and figure.significant for figure in both.values())
    assert not any(figure.best or figure.significant for figure in frozen.values())
    assert not cdm["audio_to_text", 5].significant
    text = to_markdown(table)
    found = both["text_to_audio", 1].interval
    half = (found.high - found.low) / 2
    assert f"**{found.mean:.1f} ± {half:.1f}*** |" in text
    assert "CDM + BST against frozen embeddings: text->audio R@5 +" in text
    assert f"{found.mean:.1f} ± {half:.1f}*" in as_text(ledger, "s")
    assert "CDM + BST" in as_svg(ledger, "s")


def test_a_half_finished_sweep_says_so(sweep):
    ledger, plan = sweep
    finished = [p for p in plan.trials if p.trial.seed < 2 and p.trial.cell != "cdm"]
    for planned in finished:
        write_trial(ledger, planned)
    text = as_text(ledger, "s")
    assert "2 of 3" in text
    assert "0 of 3" in text
    assert len(row(recall_table(ledger, "s", "ablation"), "CDM only").figures) == 0


def test_without_a_baseline_or_a_result_there_is_no_verdict(sweep):
    ledger, plan = sweep
    assert notes(recall_table(ledger, "s", "ablation")) == ["No trial is finished yet."]
    for planned in plan.trials:
        if planned.trial.cell == "bst":
            write_trial(ledger, planned)
    assert notes(recall_table(ledger, "s", "ablation"))[-1] == (
        "No frozen baseline in this sweep: nothing to test against."
    )


def test_any_row_can_be_what_others_are_tested_against(sweep):
    ledger, plan = sweep
    for planned in plan.trials:
        write_trial(ledger, planned)
    table = recall_table(ledger, "s", "ablation", against="CDM + BST")
    assert row(table, "CDM + BST").figures["text_to_audio", 5].p is None
    assert row(table, "frozen embeddings").figures["text_to_audio", 5].difference < 0
    assert "frozen embeddings against CDM + BST" in as_text(ledger, "s", "CDM + BST")
    with pytest.raises(UserError, match=r"--against: no row 'CDM onyl'; did you mean CDM only\?"):
        recall_table(ledger, "s", "ablation", against="CDM onyl")


def test_an_unknown_sweep_is_refused(sweep):
    with pytest.raises(UserError, match=r"sweep 'x' is not in .*; known: s"):
        recall_table(sweep[0], "x", "ablation")


def test_the_methods_table_has_gap_and_cost_beside_the_figures(tmp_path):
    spec = SweepSpec(
        name="m", store="somewhere", axes={"method": ["none", "center", "diffgap"]},
        report={"tables": ["methods"]},
    )  # fmt: skip
    plan, ledger = make_plan(spec, "somewhere", "0" * 64), Ledger(tmp_path)
    ledger.record_sweep(plan.record())
    facts = {"gap/before/mean_distance": 0.25, "gap/before/paired_cosine": 0.5}
    after = {"gap/after/mean_distance": 0.125, "gap/after/paired_cosine": 0.75}
    for planned in plan.trials:
        write_trial(ledger, planned, cell="frozen")
        own = {**facts, "cost/train_seconds": 34.0} | (
            {} if planned.trial.method == "none" else after
        )
        (ledger.trial(planned.signature).bridge / "metrics.json").write_text(json.dumps(own))
    lines = as_markdown(ledger, "m").splitlines()
    assert lines[2].endswith(
        "| gap before | gap after | pairs' cosine before | pairs' cosine after | training s |"
    )
    (frozen,) = [line for line in lines if line.startswith("| frozen embeddings")]
    (ours,) = [line for line in lines if line.startswith("| DiffGAP")]
    assert frozen.endswith("| 0.25 | - | 0.5 | - | 34 |")
    assert ours.endswith("| 0.25 | 0.125 | 0.5 | 0.75 | 34 |")
    assert "center" in as_text(ledger, "m")


def test_the_axes_table_names_cells_by_their_values(tmp_path):
    spec = SweepSpec(
        name="a", store="somewhere", axes={"cdm.schedule": ["cosine", "flow"]},
        report={"tables": ["axes"]},
    )  # fmt: skip
    plan, ledger = make_plan(spec, "somewhere", "0" * 64), Ledger(tmp_path)
    ledger.record_sweep(plan.record())
    for planned in plan.trials:
        write_trial(ledger, planned)
    table = recall_table(ledger, "a", "axes")
    assert [row.name for row in table.rows] == ["cdm.schedule cosine", "cdm.schedule flow"]
    assert "No frozen baseline in this sweep" in as_text(ledger, "a")
