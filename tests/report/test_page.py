"""The HTML report as text: all that is in it, nothing that it loads, nothing that it runs."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from diffgap.report.figures.style import Picture
from diffgap.report.html.page import to_html
from diffgap.report.model import Report
from diffgap.report.tables.table import NOTHING, Row, Table, Value
from diffgap.spec import Trial
from diffgap.tracking.reader import LoggedSweep, TrialRun

TRIAL = Trial(task="text-audio", seed=0).model_dump(mode="json")
EVIL = "<script>alert(1)</script>"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="3"><title>é</title></svg>'
PICTURE = Picture("recall-a", "Recall & more", "Bars: <means>.", SVG, b"", ("0a",))


class Reader(HTMLParser):
    """What a browser would find: elements with their attributes, and texts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.data, self._in_data = [], [], "", False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in_data = ("id", "data") in attrs

    def handle_endtag(self, tag):
        self._in_data = False

    def handle_data(self, data):
        if self._in_data:
            self.data += data
        else:
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def sweep_of(*trials, name="one"):
    return LoggedSweep(
        name,
        {"search": None, "task": "text-audio", "split": "test"},
        "store",
        "parent",
        "7",
        trials,
    )


def made(sweeps=(), tables=(), where="sqlite:////data/my runs/mlflow.db", pictures=()):
    """A report with these figures."""
    report = Report(tuple(sweeps), tuple(tables), where)
    report.__dict__["pictures"] = list(pictures)
    return report


@pytest.fixture(scope="module")
def real(report):
    """Of real sweeps, with a published row."""
    first = report.tables[0]
    row = Row("Theirs", (Value("36.7", 36.7), *[NOTHING] * (len(first.headings) - 1)), footnote=1)
    table = replace(first, rows=(*first.rows, row), sources=("arXiv 2406.07012 (quoted)",))
    copy = replace(report, tables=(table, *report.tables[1:]))
    copy.__dict__["pictures"] = [PICTURE]
    return copy


@pytest.fixture(scope="module")
def page(real):
    return to_html(real)


@pytest.fixture(scope="module")
def parsed(page):
    return Reader(page)


def test_everything_is_on_the_page(real, parsed):
    text = " ".join(parsed.texts)
    for table in real.tables:
        assert table.title in text
        for row in table.rows:
            assert row.name in text
            assert all(value.text in text for value in row.values)
        assert all(note in text for note in table.notes)
    assert all(sweep.name in text for sweep in real.sweeps)
    assert all(line in text for line in real.missing)
    assert real.where in text
    assert "Recall & more" in text
    assert "Bars: <means>." in text


def test_contents_lead_to_every_section(parsed):
    sections = {tag["id"] for tag in parsed.all("section")}
    links = {tag["href"].removeprefix("#") for tag in parsed.all("a") if "href" in tag}
    assert sections <= links
    ids = [tag["id"] for _, tag in parsed.tags if "id" in tag]
    assert len(ids) == len(set(ids))
    inner = {tag["href"][1:] for tag in parsed.all("a") if tag["href"].startswith("#")}
    assert inner - {"run-0a"} <= set(ids)  # the stub of a figure names a trial of nobody


def test_every_rows_runs_are_there(real, parsed):
    data = json.loads(parsed.data)
    rows = [tag["data-runs"].split() for tag in parsed.all("tr") if "data-runs" in tag]
    ours = [list(row.runs) for table in real.tables for row in table.rows]
    assert rows == ours
    for signature in (signature for runs in ours for signature in runs):
        entry, trial = data["trials"][signature], real.trials[signature]
        assert (entry["run"], entry["label"]) == (trial.run_id, trial.label)
        assert entry["state"] == "finished"
        assert entry["command"].startswith(f"diffgap rerun {signature} --output /")
        assert entry["commit"] == trial.config["git_commit"]


def test_columns_know_their_metrics(real, parsed):
    data = json.loads(parsed.data)
    table = next(table for table in real.tables if table.key == "methods-methods")
    metrics = dict(zip(table.headings, data["columns"][table.key], strict=True))
    assert metrics["text->audio R@5"] == ["test/text_to_audio/R5"]
    assert metrics["training s"] == ["cost/train_seconds"]
    for row in table.rows:
        values = [data["trials"][run]["metrics"]["test/text_to_audio/R5"] for run in row.runs]
        assert sum(values) / len(values) == pytest.approx(row.values[1].number)
    assert data["columns"]["search-search"][:2] == [
        ["val/audio_to_text/R5", "val/text_to_audio/R5"],  # the mean of both
        [],  # train.lr is no metric
    ]


def test_marks_and_published_rows():
    values = (Value("9", 9.0, best=True), Value("8", 8.0, near=True), Value("7", 7.0, star=True))
    rows = (Row("ours", values), Row("theirs", (NOTHING,) * 3, footnote=1))
    table = Table("t", "T", ("a", "b", "c"), rows, sources=("arXiv 2406.07012, https://x.org/a",))
    page = to_html(made(tables=[table]))
    assert '<span class="best">9</span>' in page
    assert '<span class="near">8</span>' in page
    assert "7*" in page
    ours, published = re.findall(r'<tbody class="(\w+)">', page)
    assert (ours, published) == ("ours", "published")
    assert '<a href="#source-t-1">[1]</a>' in page
    assert '<li id="source-t-1">' in page
    assert 'href="https://arxiv.org/abs/2406.07012"' in page
    assert 'href="https://x.org/a"' in page


def test_what_comes_from_outside_stays_text():
    trial = TrialRun("0a", EVIL, TRIAL, False, EVIL, "FAILED", f"died: {EVIL}", {}, {}, None, EVIL)
    row = Row(EVIL, (Value(EVIL, None, best=True),), ("0a",), EVIL, EVIL)
    table = Table('"><b>', EVIL, (EVIL,), (row,), (EVIL,), (f"https://x.org/{EVIL}",))
    picture = Picture('"><b>', EVIL, EVIL, f"<svg>{EVIL}</svg>", b"", ('"><b>',))
    where = f"https://mlflow.example/{EVIL}"
    page = to_html(made([sweep_of(trial, name=EVIL)], [table], where, [picture]))
    assert EVIL not in page
    parsed = Reader(page)
    assert len(parsed.all("script")) == 2
    assert not parsed.all("b")
    assert json.loads(parsed.data)["trials"]["0a"]["label"] == EVIL
    assert EVIL in parsed.texts


def test_nothing_is_loaded(page, parsed):
    loaded = [tag[name] for _, tag in parsed.tags for name in ("src", "srcset") if name in tag]
    loaded += [tag["href"] for tag in parsed.all("link")]
    assert loaded
    assert all(address.startswith("data:") for address in loaded)
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(m["content"] for m in parsed.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_figures_are_whole(parsed):
    address = next(tag["src"] for tag in parsed.all("img"))
    assert base64.b64decode(address.partition(",")[2]).decode() == SVG


def test_failed_trials_are_told_with_their_reasons():
    trials = [
        TrialRun("0a", "x 1", TRIAL, run_id="r1", status="FAILED", reason="out of memory"),
        TrialRun(
            "0b", "x 2", TRIAL, run_id="r2", status="FINISHED", problem="its run has no ranks"
        ),
        TrialRun("0c", "x 3", TRIAL),
    ]
    page = to_html(made([sweep_of(*trials)]))
    lost = page.partition("Trials that do not count</h2>")[2].partition("</section>")[0]
    assert "failed: out of memory" in lost
    assert "its run has no ranks" in lost
    assert "not in MLflow" in lost
    assert "0 of 3 finished" in page
    assert "diffgap rerun 0a --output &#39;/data/my runs&#39;" not in page  # in the data alone
    assert "diffgap rerun SIGNATURE --output &#39;/data/my runs&#39;" in page


def test_commits_say_that_the_code_was_changed():
    tags = {"diffgap.git_commit": "0123456789ab" + "c" * 28 + "-dirty"}
    trial = TrialRun("0a", "x", TRIAL, run_id="r1", status="FAILED", tags=tags)
    page = to_html(made([sweep_of(trial)]))
    assert "<code>0123456789ab-dirty</code>" in page
    assert tags["diffgap.git_commit"] in Reader(page).data


def test_runs_link_to_a_server():
    trial = TrialRun("0a", "x 1", TRIAL, run_id="r1", status="FAILED")
    page = to_html(made([sweep_of(trial)], where="http://127.0.0.1:5000/"))
    assert 'href="http://127.0.0.1:5000/#/experiments/7/runs/r1"' in page
    assert "diffgap rerun 0a" in Reader(page).data
    assert "--output" not in page


def test_numbers_that_are_none_do_not_break_the_data():
    trial = TrialRun(
        "0a", "x", TRIAL, status="FAILED", logged={"val/a_to_b/R1": float("nan")}, run_id="r"
    )
    table = Table("t", "T", ("R@1",), (Row("x", (NOTHING,), ("0a",)),))
    data = Reader(to_html(made([sweep_of(trial)], [table]))).data
    assert "NaN" not in data
    assert json.loads(data)["trials"]["0a"]["metrics"] == {}


def test_nothing_at_all_makes_a_page():
    empty = Table("ablation-x", "Ablation", ("R@1",), (), ("No trial is finished yet.",))
    page = to_html(made(tables=[empty]))
    assert "No trial is finished yet." in page
    assert "0 of 0 finished" in page
    assert to_html(made()).endswith("</html>\n")
