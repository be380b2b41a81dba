"""Every number on the page can be traced: three of them, computed again from their runs by hand."""

import json
import re
from html import unescape

import pyarrow.parquet as pq
import pytest

from diffgap.report.html.page import to_html
from diffgap.tracking.reader import Reader


def recall_by_hand(reader, runs, direction, k):
    """R@K in % of MLflow runs: every rank that they logged is looked at, one after the other."""
    hits = queries = 0
    for run in runs:
        for row in pq.read_table(
            reader.download_artifact(run, "bridge") / "ranks.parquet"
        ).to_pylist():
            if row["direction"] == direction:
                queries += 1
                hits += row["rank"] <= k
    return 100 * hits / queries


def shown(page, title, name, column):
    """The text of one cell of a table of the page, and the signatures behind its row."""
    section = next(s for s in page.split("<section")[1:] if title in s)
    headings = [
        " ".join(re.findall(r"<span[^>]*>([^<]*)</span>", head))
        for head in re.findall(r'<th scope="col">(.*?)</th>', section)
    ]
    for runs, row in re.findall(r'<tr data-runs="([^"]*)">(.*?)</tr>', section):
        cells = [unescape(re.sub(r"<[^>]+>", "", c)) for c in re.findall(r"<t[hd].*?</t[hd]>", row)]
        if cells[0] == name:
            return cells[headings.index(column)], runs.split()
    raise AssertionError(f"no row {name}")


@pytest.mark.parametrize(
    ("title", "name", "direction", "k"),
    [
        ("CDM x BST ablation", "CDM + BST", "text_to_audio", 1),
        ("Methods", "deterministic bridge", "audio_to_text", 5),
        ("retrieval on", "BST only", "text_to_audio", 10),
    ],
)
def test_a_cell_is_what_its_runs_logged(report, demo, title, name, direction, k):
    page = to_html(report)
    column = f"{unescape(direction.replace('_to_', '-&gt;'))} R@{k}"
    text, signatures = shown(unescape_headings(page), title, name, column)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    runs = [data["trials"][signature]["run"] for signature in signatures]
    assert len(runs) == 2
    expected = recall_by_hand(Reader(demo), runs, direction, k)
    assert text.startswith(f"{expected:.1f} ±")


def unescape_headings(page):
    return page.replace("-&gt;", "->")
