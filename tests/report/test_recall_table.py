"""Tables of recall: right means, honest marks, and the same figures in every format."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffgap.errors import UserError
from diffgap.report.formats import as_text
from diffgap.report.render import all_notes, to_markdown
from diffgap.report.results import read_cells
from diffgap.report.tables.recall import compare_recall, sweep_table
from diffgap.spec import SweepSpec
from diffgap.sweep.plan import make_plan
from diffgap.tracking.reader import LoggedSweep, TrialRun

CLIPS, CAPTIONS = 60, 2
SKILL = {"frozen": 0.0, "bst": 0.05, "cdm": 0.07, "cdm+bst": 0.4}


def ranks_of(cell, seed):
    """Ranks of a cell: a share of the queries that the baseline misses is found at once."""
    rng = np.random.default_rng(0)
    base = rng.integers(1, 30, CLIPS * (CAPTIONS + 1))
    better = np.random.default_rng(seed + 1).random(len(base)) < SKILL[cell]
    return np.where(better, 1, base)


def write_files(place, planned, cell, metrics):
    """The files of a finished trial that a table reads."""
    path = place / planned.signature
    path.mkdir(parents=True)
    clips = [f"clip {i}" for i in range(CLIPS)]
    ranks = ranks_of(cell or planned.trial.ablation_cell, planned.trial.seed)
    table = {
        "direction": ["text_to_audio"] * CLIPS * CAPTIONS + ["audio_to_text"] * CLIPS,
        "clip": list(np.repeat(clips, CAPTIONS)) + clips,
        "rank": ranks,
        "ap10": 1.0 / ranks,
    }
    pq.write_table(pa.table(table), path / "ranks.parquet")
    (path / "metrics.json").write_text(json.dumps(metrics))
    (path / "config.json").write_text(json.dumps({"store": {"name": "audiocaps"}}))
    return path


def logged(place, spec, finished=lambda planned: True, cell=None, metrics=None):
    """A sweep as it would be read from MLflow, with the trials finished that should be."""
    plan = make_plan(spec, "somewhere", "0" * 64)
    trials = []
    for planned in plan.trials:
        finished_trial = finished(planned)
        files = (
            write_files(place, planned, cell, (metrics or (lambda p: {}))(planned))
            if finished_trial
            else None
        )
        trials.append(
            TrialRun(
                planned.signature,
                planned.label,
                planned.trial.model_dump(mode="json"),
                status="FINISHED" if finished_trial else "MISSING",
                files=files,
                point=planned.point,
            )
        )
    record = plan.record()
    return LoggedSweep(spec.name, record.spec, record.store, "run", "1", tuple(trials))


ABLATION = SweepSpec(
    name="s", store="somewhere", seeds=3,
    axes={"cdm.enabled": [False, True], "bst.enabled": [False, True]},
)  # fmt: skip


@pytest.fixture
def sweep(tmp_path):
    return logged(tmp_path, ABLATION)


def figures(sweep, name, baseline=0):
    """The figures of one cell of the ablation, by column."""
    cells = read_cells(sweep)
    comparison = compare_recall(cells, baseline)
    row = [cell.trial.ablation_cell for cell in cells].index(name)
    return {column: comparison.estimates[row, column] for column in comparison.columns}


def row(table, name):
    return next(row for row in table.rows if row.name == name)


def value(table, name, heading):
    return row(table, name).values[table.headings.index(heading)]


def test_every_figure_is_the_mean_over_seeds_and_queries(sweep):
    table = sweep_table(sweep, "ablation")
    assert [row.name for row in table.rows] == [
        "frozen embeddings", "BST only", "CDM only", "CDM + BST",
    ]  # fmt: skip
    estimate = figures(sweep, "cdm+bst")["text->audio R@5"]
    hits = [ranks_of("cdm+bst", seed)[: CLIPS * CAPTIONS] <= 5 for seed in range(3)]
    assert estimate.interval.mean == pytest.approx(100 * np.mean(hits))
    assert estimate.interval.low < estimate.interval.mean < estimate.interval.high
    base = ranks_of("frozen", 0)[: CLIPS * CAPTIONS] <= 5
    assert estimate.test.difference == pytest.approx(100 * (np.mean(hits) - np.mean(base)))
    cell_value = value(table, "CDM + BST", "text->audio R@5")
    assert cell_value.number == estimate.interval.mean
    assert cell_value.text.startswith(f"{estimate.interval.mean:.1f} ± ")


def test_what_is_best_and_what_differs_is_marked(sweep):
    table = sweep_table(sweep, "ablation")
    both, frozen, cdm = (figures(sweep, n) for n in ("cdm+bst", "frozen", "cdm"))
    assert all(figure.best and figure.significant for figure in both.values())
    assert not any(figure.best or figure.significant for figure in frozen.values())
    assert not cdm["audio->text R@5"].significant
    text = to_markdown(table)
    interval = both["text->audio R@1"].interval
    half = (interval.high - interval.low) / 2
    assert f"**{interval.mean:.1f} ± {half:.1f}*** |" in text
    assert "CDM + BST against frozen embeddings: text->audio R@5 +" in text
    assert f"{interval.mean:.1f} ± {half:.1f}*" in as_text([table])


def test_what_does_not_differ_from_the_best_is_underlined(sweep):
    estimates = figures(sweep, "cdm")
    assert not any(estimate.near for estimate in estimates.values())  # CDM + BST is far ahead
    alike = logged_alike(sweep)
    near = figures(alike, "bst")["text->audio R@5"]
    best = figures(alike, "cdm")["text->audio R@5"]
    assert {near.best, best.best} == {True, False}
    assert {near.near, best.near} == {True, False}
    assert "<u>" in to_markdown(sweep_table(alike, "ablation"))


def logged_alike(sweep):
    """The same without its best cell: the others are much alike."""
    trials = [
        t for t in sweep.trials if not (t.trial["cdm"]["enabled"] and t.trial["bst"]["enabled"])
    ]
    return LoggedSweep(sweep.name, sweep.spec, sweep.store, "run", "1", tuple(trials))


def test_a_half_finished_sweep_says_so(tmp_path):
    half = logged(tmp_path, ABLATION, lambda p: p.trial.seed < 2 and p.trial.ablation_cell != "cdm")
    table = sweep_table(half, "ablation")
    text = as_text([table])
    assert "2 of 3" in text
    assert "0 of 3" in text
    assert "CDM only: 3 not in MLflow (not started, or deleted)." in text
    assert {value.text for value in row(table, "CDM only").values} == {"-"}
    assert [len(row.runs) for row in table.rows] == [2, 2, 0, 2]


def test_without_a_baseline_or_a_result_there_is_no_verdict(tmp_path):
    nothing = sweep_table(logged(tmp_path / "a", ABLATION, lambda p: False), "ablation")
    assert all_notes(nothing)[0] == "No trial is finished yet."
    bst = logged(tmp_path / "b", ABLATION, lambda p: p.trial.ablation_cell == "bst")
    notes = all_notes(sweep_table(bst, "ablation"))
    assert "No frozen baseline here: nothing to test against." in notes
    assert not any("against" in note and "points" in note for note in notes)


def test_any_row_can_be_what_others_are_tested_against(sweep):
    table = sweep_table(sweep, "ablation", against="CDM + BST")
    assert not value(table, "CDM + BST", "text->audio R@5").star
    assert value(table, "frozen embeddings", "text->audio R@5").star
    assert "frozen embeddings against CDM + BST: text->audio R@5 -" in as_text([table])
    with pytest.raises(UserError, match=r"--against: no row 'CDM onyl'; did you mean CDM only\?"):
        sweep_table(sweep, "ablation", against="CDM onyl")


def test_the_methods_table_has_gap_and_cost_beside_the_figures(tmp_path):
    spec = SweepSpec(
        name="m", store="somewhere", axes={"method": ["none", "center", "diffgap"]},
        report={"tables": ["methods"]},
    )  # fmt: skip
    facts = {
        "gap/before/mean_distance": 0.25, "gap/before/paired_cosine": 0.5,
        "cost/train_seconds": 34.0,
    }  # fmt: skip
    after = {"gap/after/mean_distance": 0.125, "gap/after/paired_cosine": 0.75}
    sweep = logged(
        tmp_path, spec, cell="frozen",
        metrics=lambda p: facts if p.trial.method == "none" else {**facts, **after},
    )  # fmt: skip
    table = sweep_table(sweep, "methods")
    lines = to_markdown(table).splitlines()
    assert lines[2].endswith(
        "| gap before | gap after | pairs' cosine before | pairs' cosine after | training s |"
    )
    (frozen,) = [line for line in lines if line.startswith("| frozen embeddings")]
    (ours,) = [line for line in lines if line.startswith("| DiffGAP")]
    assert frozen.endswith("| 0.25 | - | 0.5 | - | 34 |")
    assert ours.endswith("| 0.25 | 0.125 | 0.5 | 0.75 | 34 |")
    assert "center" in as_text([table])


def test_the_axes_table_names_cells_by_their_values_and_itself_by_its_axes(tmp_path):
    spec = SweepSpec(
        name="a", store="somewhere", axes={"cdm.schedule": ["cosine", "flow"]},
        report={"tables": ["axes"]},
    )  # fmt: skip
    table = sweep_table(logged(tmp_path, spec), "axes")
    assert [row.name for row in table.rows] == ["cdm.schedule cosine", "cdm.schedule flow"]
    assert table.title.startswith("Noise schedules on AudioCaps, test")
