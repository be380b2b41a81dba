"""Tables of generated sound, from real trials logged to a real MLflow, and what a page plays."""

import base64
import re
from io import BytesIO

import numpy as np
import pytest
import soundfile
from conftest import log_sweep, plan_of, run_here

from diffgap.errors import UserError
from diffgap.evaluation.statistics import replicate_interval, replicate_test
from diffgap.ledger.ledger import Ledger
from diffgap.report.audio_clips import audio_galleries
from diffgap.report.formats import write_report
from diffgap.report.model import make_report
from diffgap.report.references import read_references
from diffgap.report.results import read_cells
from diffgap.report.tables.generation import generation_tables, replicated_metrics
from diffgap.tracking.reader import Reader

SPEC = """\
name: sound
axes:
  task: [text-audio, video-audio]
  generation.condition: [query, bridged, target]
  generation.steps: [1, 2]
seeds: 2
report: {{tables: [generation]}}
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory, small_store):
    """The output directory of a finished sweep of generation."""
    place = tmp_path_factory.mktemp("sound")
    ledger = Ledger(place / "runs")
    generation = "  generation: {{generator: soundscape, guidance: 1, clips: 6}}\n"
    log_sweep(run_here(plan_of(SPEC, place, small_store, generation), ledger), ledger)
    return place / "runs"


@pytest.fixture(scope="module")
def sweep(output):
    return Reader(output).sweep("sound")


def test_each_task_has_a_table_with_baseline_bridge_and_ceiling(sweep):
    text, video = generation_tables(sweep, read_references())
    assert text.title == "Table II. Text-to-audio generation on soundscapes, test (sweep sound)"
    assert video.title.startswith("Table I. Video-to-audio generation on soundscapes")
    assert [row.name for row in text.rows] == [
        "text embedding, guidance 1, 1 steps",
        "DiffGAP (mean), guidance 1, 1 steps",
        "audio embedding (ceiling), guidance 1, 1 steps",
        "text embedding, guidance 1, 2 steps",
        "DiffGAP (mean), guidance 1, 2 steps",
        "audio embedding (ceiling), guidance 1, 2 steps",
    ]
    assert text.headings == ("FAD", "FD", "KL", "IS", "similarity", "fidelity")
    assert video.headings == (*text.headings, "AlignAcc")
    for table in (text, video):
        for row in table.rows:
            assert row.seeds == "2"
            assert len(row.runs) == 2
            assert all(re.fullmatch(r"-?[\d.]+ ± [\d.]+", value.text) for value in row.values)


def test_figures_are_those_of_the_trials(sweep):
    (cell, *_) = read_cells(sweep)
    samples = replicated_metrics(cell)
    assert list(samples) == ["FAD", "FD", "KL", "IS", "similarity", "fidelity"]
    for name, (values, replicates) in samples.items():
        assert values.tolist() == [t.logged[f"test/generation/{name}"] for t in cell.finished]
        np.testing.assert_allclose(replicates.mean(axis=1), values, rtol=1e-6)


def test_the_best_is_no_ceiling_and_notes_say_what_was_measured(sweep):
    for table in generation_tables(sweep, ()):
        best = [row.name for row in table.rows for value in row.values if value.best]
        assert len(best) >= len(table.headings)
        assert not any("ceiling" in name for name in best)
        notes = "\n".join(table.notes)
        assert "6 clips; FAD by soundscape, FD by soundscape" in notes
        assert (
            "DiffGAP (mean), guidance 1, 2 steps, against the query's own embedding: FAD" in notes
        )
        assert "No bridge is significantly better than the query's own embedding in" in notes


def test_rows_are_tested_against_another_that_is_named(sweep):
    ceiling = "audio embedding (ceiling), guidance 1, 2 steps"
    text, video = generation_tables(sweep, (), against=ceiling)
    for table in (text, video):
        notes = "\n".join(table.notes)
        assert f"* differs from {ceiling}: p < 0.05" in notes
        assert f"DiffGAP (mean), guidance 1, 1 steps, against {ceiling}: FAD" in notes
    with pytest.raises(UserError, match="--against: no row 'DifGAP'; known: DiffGAP"):
        generation_tables(sweep, (), against="DifGAP")


def test_bridges_are_trained_once_for_all_settings(output, sweep):
    ledger = Ledger(output)
    trained = {path.stem for path in (ledger.output / "trained").iterdir()}
    bridged = {t.signature for t in sweep.trials if t.trial["method"] == "diffgap"}
    assert len(bridged) == 8
    holders = {ledger.trained(name).path.name for name in trained}
    assert len(holders & bridged) == 4


def test_a_page_plays_what_was_made(output, sweep, tmp_path):
    text, video = audio_galleries([sweep])
    assert "text-audio" in text.title
    assert len(video.clips) == 3
    for clip in text.clips:
        assert clip.caption
        assert len(clip.generated) == 6
        for sound in (clip.real, *clip.generated.values()):
            content = base64.b64decode(sound.partition("base64,")[2])
            info = soundfile.info(BytesIO(content))
            assert (info.samplerate, info.frames) == (16_000, 32_000)
    report = make_report([sweep], read_references(), "somewhere")
    write_report(report, "all", tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("<audio") == 2 * 3 * 7
    assert "Generated on soundscapes, test, video-audio (sweep sound)" in page
    assert "media-src data:" in page
    for name in ("report.md", "report.tex", "report.txt", "trials.csv"):
        assert "0 trials" not in (tmp_path / "report" / name).read_text()


def test_published_rows_stand_apart_with_their_extractors(sweep):
    for trial in sweep.trials:
        trial.config["store"]["name"] = "audiocaps"
    try:
        (text, _) = generation_tables(sweep, read_references())
    finally:
        for trial in sweep.trials:
            trial.config["store"]["name"] = "soundscapes"
    published = {row.name: row for row in text.published}
    assert published["AudioLDM-S"].values[text.headings.index("FD")].text == "29.48"
    assert published["Tango 2"].values[text.headings.index("similarity")].text == "0.57"
    assert any("FD by PANNs" in source for source in text.sources)


# Statistics ---------------------------------------------------------------------------------------


def test_intervals_are_of_clips_and_of_seeds():
    rng = np.random.default_rng(0)
    clips = rng.normal(size=(1, 4000))
    one = replicate_interval(np.array([5.0]), 5 + clips)
    assert (one.high - one.low) / 2 == pytest.approx(1.96, abs=0.1)
    same = replicate_interval(np.array([5.0, 5.0]), 5 + np.repeat(clips, 2, axis=0))
    assert same.high - same.low == pytest.approx(one.high - one.low)
    apart = replicate_interval(np.array([4.0, 6.0]), 5 + np.repeat(clips, 2, axis=0))
    assert (apart.high - apart.low) / 2 == pytest.approx(np.hypot(1.96, 12.7), abs=0.3)


def test_tests_are_paired_by_replicate():
    rng = np.random.default_rng(0)
    common = 10 * rng.normal(size=(1, 200))
    noise = rng.normal(size=(2, 1, 200))
    a = (np.array([3.0]), 3 + common + noise[0])
    b = (np.array([0.0]), common + noise[1])
    assert replicate_test(a, b).p == pytest.approx(0.034, abs=0.02)
    assert replicate_test(a, b).difference == 3
    assert replicate_test(a, a).p == 1
    assert replicate_test((a[0], a[1] - 1 + 1), (b[0], b[1][:, ::-1])).p > 0.5
