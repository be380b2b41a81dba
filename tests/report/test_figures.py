"""Figures show what the tables say, of whatever is finished, the same every time."""

from dataclasses import replace
from pathlib import Path
from statistics import mean
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffgap.evaluation.metrics import METRICS, MetricInfo
from diffgap.evaluation.statistics import mean_interval
from diffgap.report.figures import draw, drawings
from diffgap.report.figures.against import series_against
from diffgap.report.figures.bars import heights
from diffgap.report.figures.cost import cost_points
from diffgap.report.figures.curves import learning_curves
from diffgap.report.figures.gap import best_bridge, points
from diffgap.report.figures.parallel import Scale, parallel_lines
from diffgap.report.figures.recall import cells_of, mean_recalls, trials_of
from diffgap.report.figures.schedules import FIELD, recall_by_schedule
from diffgap.report.figures.steps import FIELD as STEPS
from diffgap.report.figures.steps import recall_lines
from diffgap.report.figures.style import RC, Drawing, mark, new_figure
from diffgap.report.results import Cell, read_cells
from diffgap.report.tables.recall import heading
from diffgap.report.tables.registry import all_tables
from diffgap.tracking.reader import TrialRun


def table_of(report, key):
    return next(table for table in report.tables if table.key == key)


def sweep_of(report, name):
    return next(sweep for sweep in report.sweeps if sweep.name == name)


def number(table, name, column):
    row = next(row for row in table.ours if row.name == name)
    return row.values[table.headings.index(column)].number


def both(table, name, cutoff):
    """R@K of a table's row, mean of both directions."""
    columns = [h for h in table.headings if h.endswith(f"R@{cutoff}")]
    assert len(columns) == 2
    return mean(number(table, name, column) for column in columns)


def without(sweep, lost, **changes):
    """A sweep in which some trials, by their place, are not finished."""
    changes = {"files": None, "status": "KILLED", "logged": {}, **changes}
    return replace(
        sweep,
        trials=tuple(
            replace(trial, **changes) if place in lost else trial
            for place, trial in enumerate(sweep.trials)
        ),
    )


def test_there_is_a_figure_for_all_that_the_sweeps_have(report):
    corpus = next(t.key for t in report.tables if t.key.startswith("cost-"))
    keys = [drawing.key for drawing in drawings(report.sweeps, report.tables)]
    assert sorted(keys) == sorted(
        [
            "recall-ablation-ablation", "recall-methods-methods", corpus,
            "gap-ablation", "gap-methods", "schedules-schedules", "steps-scores",
            "curves-ablation", "curves-methods", "curves-schedules", "curves-scores",
            "parallel-search",
        ]
    )  # fmt: skip


def test_every_figure_names_its_trials_and_how_many_seeds(report):
    counting = {signature for signature, trial in report.trials.items() if trial.is_complete}
    for drawing in drawings(report.sweeps, report.tables):
        assert set(drawing.runs) <= counting
        assert len(drawing.runs) == len(set(drawing.runs)) > 0
        assert drawing.caption.endswith(".")
        assert drawing.key.startswith(("gap", "parallel")) or "seed" in drawing.caption


def test_every_axis_has_a_label(report):
    for drawing in drawings(report.sweeps, report.tables):
        with matplotlib.rc_context(RC):
            figure = drawing.draw()
        for axes in figure.axes:
            if drawing.key.startswith("parallel"):
                assert all(tick.get_text() for tick in axes.get_xticklabels())
            else:
                assert axes.get_xlabel(), drawing.key
                assert axes.get_ylabel(), drawing.key


@pytest.mark.parametrize("key", ["ablation-ablation", "methods-methods"])
def test_bars_are_as_high_as_the_table_says(report, key):
    table = table_of(report, key)
    cells = cells_of(table, trials_of(report.sweeps))
    assert [cell.name for cell in cells] == [row.name for row in table.rows]
    for cell in cells:
        for direction in ("text_to_audio", "audio_to_text"):
            intervals = heights(cell.directions[direction])
            assert list(intervals) == ["R@1", "R@5", "R@10"]
            for metric, interval in intervals.items():
                column = heading(direction, metric)
                assert interval.mean == number(table, cell.name, column)
                assert interval.low <= interval.mean <= interval.high


def test_schedules_stand_where_the_table_has_them(report):
    table, sweep = table_of(report, "schedules-schedules"), sweep_of(report, "schedules")
    series = series_against(sweep, FIELD)
    found = recall_by_schedule(series)
    assert [one.name for one in series] == ["prediction x0", "prediction v"]
    for one in series:
        assert one.values == ("cosine", "linear", "flow")
        for cell, schedule in zip(one.cells, one.values, strict=True):
            for cutoff in (1, 5, 10):
                interval = found["", one.name, f"R@{cutoff}"][schedule]
                assert interval.mean == pytest.approx(both(table, cell.name, cutoff))


def test_steps_have_a_line_a_score_and_a_level_for_one_without(report):
    table, sweep = table_of(report, "scores-scores"), sweep_of(report, "scores")
    lines = {name: (steps, found) for name, steps, found in recall_lines(
        series_against(sweep, STEPS)
    )}  # fmt: skip
    assert {name: steps for name, (steps, _) in lines.items()} == {
        "score bridge": [],
        "score sample": [1, 2, 4],
    }
    for name, (steps, found) in lines.items():
        for step, interval in zip(steps or [None], found, strict=True):
            row = name if step is None else f"{name}, score.sample_steps {step}"
            assert interval.mean == pytest.approx(both(table, row, 1))


def test_recall_of_both_directions_is_the_mean_of_its_clips(report):
    cell = read_cells(sweep_of(report, "ablation"))[-1]
    ranks = [pq.read_table(trial.files / "ranks.parquet").to_pylist() for trial in cell.finished]
    clips = sorted({row["clip"] for row in ranks[0]})
    values = np.zeros((len(ranks), len(clips)))
    for seed, rows in enumerate(ranks):
        for place, clip in enumerate(clips):
            own = [
                mean(100.0 * (row["rank"] <= 5) for row in rows
                     if row["clip"] == clip and row["direction"] == direction)
                for direction in ("text_to_audio", "audio_to_text")
            ]  # fmt: skip
            values[seed, place] = mean(own)
    expected = mean_interval(values, np.arange(len(clips)))
    (found,) = mean_recalls([cell], METRICS["R5"])
    assert (found.mean, found.low, found.high) == pytest.approx(
        (expected.mean, expected.low, expected.high), abs=1e-6
    )


def test_clips_may_differ_in_their_captions_and_their_order(tmp_path):
    texts, clips = ["b"] * 3 + ["a"], ["silent", "a", "b"]
    table = {
        "direction": ["text_to_audio"] * 4 + ["audio_to_text"] * 3,
        "clip": texts + clips,
        "rank": [1, 1, 9, 1, 9, 1, 9],
        "ap10": [0.0] * 7,
    }
    pq.write_table(pa.table(table), tmp_path / "ranks.parquet")
    cell = Cell("", "", (TrialRun("s", "", {}, files=Path(tmp_path)),))
    (found,) = mean_recalls([cell], METRICS["R1"])
    assert found.mean == pytest.approx((75 + 100 / 3) / 2)
    assert 0 <= found.low < found.mean < found.high <= 100


def test_curves_are_the_means_of_both_directions_on_val(report):
    sweep = sweep_of(report, "ablation")
    curves = {curve.name: curve for curve in learning_curves(sweep)}
    assert list(curves) == ["BST only", "CDM only", "CDM + BST"]  # nothing else trains
    cell = read_cells(sweep)[-1]
    curve = curves["CDM + BST"]
    assert list(curve.steps) == [2, 4, 6]
    for values, trial in zip(curve.values, cell.finished, strict=True):
        for step, value in zip(curve.steps, values, strict=True):
            (at,) = [
                p["metrics"] for p in trial.history
                if p["step"] == step and "val/text_to_audio/R5" in p["metrics"]
            ]  # fmt: skip
            assert value == mean([at["val/text_to_audio/R5"], at["val/audio_to_text/R5"]])


def test_trials_that_differ_in_their_score_have_one_curve(report):
    assert len(learning_curves(sweep_of(report, "scores"))) == 1
    assert len(learning_curves(sweep_of(report, "schedules"))) == 6


def test_the_gap_is_that_of_the_trial_that_was_best_on_val(report):
    sweep = sweep_of(report, "methods")
    best = best_bridge(sweep)
    values = [t.metrics["best/val_R5"] for t in sweep.trials if "best/val_R5" in t.metrics]
    assert best.metrics["best/val_R5"] == max(values)
    table = pq.read_table(best.files / "gap.parquet")
    assert points(table, "after").shape == (2, len(table), 2)
    x, a = points(table, "before")
    np.testing.assert_allclose((x.mean(0) + a.mean(0)) / 2, 0, atol=1e-9)


def test_trials_of_an_earlier_version_have_no_gap_to_show(report, tmp_path):
    sweep = sweep_of(report, "ablation")
    for name in ("metrics.json", "ranks.parquet", "history.json", "config.json"):
        (tmp_path / name).write_bytes((sweep.trials[-1].files / name).read_bytes())
    old = replace(sweep, trials=tuple(replace(t, files=tmp_path) for t in sweep.trials))
    assert "gap-ablation" not in [drawing.key for drawing in drawings([old], [])]


def test_costs_are_the_table_s(report):
    table = next(t for t in report.tables if t.key.startswith("cost-"))
    found = cost_points(table, trials_of(report.sweeps))
    assert len(found) == len(table.rows)
    for point in found:
        assert point.seconds == number(table, point.name, "device seconds")
        assert point.recall.mean == pytest.approx(number(table, point.name, "R@1"))
    assert [p.seconds for p in found if p.name == "frozen embeddings"] == [0]


def test_a_search_is_drawn_along_its_space(report):
    sweep = sweep_of(report, "search")
    scales, lines = parallel_lines(sweep)
    assert [scale.name for scale in scales] == [*sweep.spec["search"]["space"], "val R@5 (%)"]
    lr, blocks, prediction, value = scales
    assert (lr.log, blocks.log, prediction.choices) == (True, False, ("x0", "v"))
    trials = {trial.signature: trial for trial in sweep.trials}
    for line in lines:
        asked = trials[line.signature].trial
        assert line.places[0] == pytest.approx(np.log10(asked["train"]["lr"] / 1e-4) / 2)
        assert line.places[1] == asked["denoiser"]["blocks"] - 1
        assert line.places[2] == ["x0", "v"].index(asked["cdm"]["prediction"])
    table = table_of(report, "search-search")
    best = max(lines, key=lambda line: line.places[-1])
    assert (best.places[-1], value.high) == (1, table.rows[0].values[0].number)


def test_stopped_trials_of_a_search_end_where_their_curve_ended(report):
    logged = {"val/text_to_audio/R5": 20.0, "val/audio_to_text/R5": 30.0}
    sweep = without(sweep_of(report, "search"), {0}, logged=logged)
    sweep = without(sweep, {1}, status="FAILED")
    sweep = without(sweep, {2}, status="MISSING")
    scales, lines = parallel_lines(sweep)
    assert [line.value for line in lines[:2]] == [25.0, None]
    assert [len(line.places) for line in lines[:2]] == [len(scales), len(scales) - 1]
    assert [line.finished for line in lines[:3]] == [False, False, True]
    assert len(lines) == len([trial for trial in sweep.trials if not trial.final]) - 1
    (picture,) = draw([sweep], [])
    assert "2 that were stopped or failed" in picture.caption


@pytest.mark.parametrize(
    ("scale", "value", "place"),
    [
        (Scale("lr", 1e-4, 1e-2, log=True), 1e-3, 0.5),
        (Scale("noise", 0.2, 0.6), 0.3, 0.25),
        (Scale("kind", 0, 2, choices=("a", "b", "c")), "b", 0.5),
        (Scale("kind", 0, 0, choices=("a",)), "a", 0.5),
        (Scale("same", 3.0, 3.0), 3.0, 0.5),
    ],
)
def test_places_on_a_scale(scale, value, place):
    assert scale.place(value) == pytest.approx(place)
    places = [at for at, _ in scale.ticks]
    assert places == sorted(places)
    assert all(0 <= at <= 1 for at in places)


def test_whole_numbers_have_whole_ticks():
    assert [text for _, text in Scale("blocks", 2, 4).ticks] == ["2", "3", "4"]


@pytest.mark.parametrize("name", ["ablation", "methods", "schedules", "scores", "search"])
def test_sweeps_may_be_half_finished_or_not_begun(report, name):
    sweep = sweep_of(report, name)
    places = range(len(sweep.trials))
    half = without(sweep, {place for place in places if place % 3 != 1})
    assert draw([half], all_tables([half], ()))
    for status in ("KILLED", "FAILED", "RUNNING", "MISSING"):
        none = without(sweep, set(places), status=status)
        assert draw([none], all_tables([none], ())) == []


def test_a_seed_less_is_told(report):
    half = without(sweep_of(report, "ablation"), {0})
    bars, *_ = drawings([half], all_tables([half], ()))
    assert "1 to 2 seeds" in bars.caption
    assert half.trials[0].signature not in bars.runs


def test_figures_are_the_same_every_time(report):
    first, again = report.pictures, draw(report.sweeps, report.tables)
    assert [picture.svg for picture in first] == [picture.svg for picture in again]
    assert [picture.png for picture in first] == [picture.png for picture in again]
    assert all(picture.png.startswith(b"\x89PNG") for picture in first)


def test_text_in_figures_is_text(report):
    (picture,) = [p for p in report.pictures if p.key == "recall-ablation-ablation"]
    for said in ("text → audio", "CDM + BST", "recall (%)", "R@10"):
        assert said in picture.svg


def test_series_are_told_apart_without_their_colour():
    marks = [mark(place) for place in range(64)]
    assert len({(m.colour, m.marker, str(m.line)) for m in marks}) == 64
    assert len({(m.marker, str(m.line)) for m in marks[:8]}) == 8


@pytest.mark.parametrize(
    "metric",
    [
        MetricInfo("R20", "R@20", lambda rank: rank <= 20, in_tables=True),
        MetricInfo("AP", "AP", np.asarray, column="ap10", in_tables=True),
    ],
)
def test_a_metric_of_the_registry_is_in_the_figures_of_trials_that_never_logged_it(
    report, monkeypatch, metric
):
    monkeypatch.setitem(METRICS, metric.name, metric)
    sweeps = [sweep_of(report, "ablation"), sweep_of(report, "schedules")]
    tables = [table for table in all_tables(sweeps, ()) if table.key.startswith("ablation")]
    for table in tables:
        assert f"text->audio {metric.title}" in table.headings
    bars, *others = draw(sweeps, tables)
    assert bars.svg.count(f">{metric.title}<") == 2  # a group in each direction
    (schedules,) = [picture for picture in others if picture.key.startswith("schedules")]
    assert f">{metric.title} (%)<" in schedules.svg


def test_names_with_dollars_and_escapes_are_drawn_as_they_are():
    def draw_names():
        figure = new_figure(1.0)
        figure.suptitle("$\\frac{ \x1b[2J <b> --> &")
        return figure

    picture = Drawing("key", "title", "caption", (), draw_names).picture()
    text = "".join(ElementTree.fromstring(picture.svg).itertext())
    assert "$\\frac{ ␛[2J <b> --> &" in text
