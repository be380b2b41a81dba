"""Retrieval examples in the page: one set of queries for every cell, right answers marked."""

import re

import pytest

from diffgap.report.examples import SMALL_BYTES, Answer, ClipFiles, Example, examples_of
from diffgap.report.html.page import to_html
from diffgap.report.model import Report, make_report
from diffgap.report.references import read_references


def test_every_cell_answers_the_same_ten_queries_of_each_direction(read):
    examples = examples_of([read("ablation")])
    assert len(examples) == 20
    assert {example.direction for example in examples} == {"text->audio", "audio->text"}
    for example in examples:
        assert list(example.answers) == [
            "frozen embeddings", "BST only", "CDM only", "CDM + BST",
        ]  # fmt: skip
        assert all(len(answers) == 5 for answers in example.answers.values())
        assert example.caption
        for answer in (a for answers in example.answers.values() for a in answers):
            assert answer.right == (answer.clip == example.clip)


def test_the_page_shows_them_and_a_search_has_none(read):
    page = to_html(make_report([read("ablation")], read_references(), "here"))
    assert page.count('<details class="example">') == 20
    assert "Retrieval examples on soundscapes, test, text-audio" in page
    assert examples_of([read("search")]) == []


@pytest.fixture
def clips(tmp_path):
    (tmp_path / "small.wav").write_bytes(b"RIFF1234")
    (tmp_path / "large.flac").write_bytes(b"0" * (SMALL_BYTES + 1))
    (tmp_path / "film.mp4").write_bytes(b"0")
    (tmp_path / "notes.txt").write_text("no sound")
    (tmp_path.parent / "secret.wav").write_bytes(b"0")
    return ClipFiles(tmp_path)


def test_small_files_become_part_of_the_page_and_large_ones_are_linked(clips, tmp_path):
    assert clips.source("small.wav")[0] == "audio"
    assert clips.source("small.wav")[1].startswith("data:audio/")
    assert clips.source("large.flac")[1] == (tmp_path / "large.flac").as_uri()
    assert clips.source("film.mp4")[0] == "video"
    for name in ("notes.txt", "absent.wav", "../secret.wav"):
        assert clips.source(name) is None
    assert ClipFiles(None).source("small.wav") is None


def test_what_comes_from_outside_is_escaped(clips):
    bad = "<script>alert(1)</script>"
    answers = {bad: (Answer("small.wav", bad, True), Answer(bad, None, False))}
    report = Report((), (), "here", audio=clips.root)
    report.__dict__["examples"] = [Example("s", "text->audio", "small.wav", bad, answers)]
    html = to_html(report)
    assert bad not in html
    assert html.count("<script") == 2
    assert html.count("<audio controls") == 2
    assert re.search(r"1 of 1 right at once", html)
