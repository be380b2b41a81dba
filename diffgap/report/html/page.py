"""A report as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from diffgap.report.audio_clips import audio_gallery
from diffgap.report.examples import Clips, Example
from diffgap.report.html.audio_clips import audio_gallery_html
from diffgap.report.html.examples import examples_html
from diffgap.report.html.trials import TrialSummary, command, page_data
from diffgap.report.model import Report
from diffgap.report.picture import Picture
from diffgap.report.tables.table import Row, Table, Value

STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
SCRIPT = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")

LINK = re.compile(r"https?://[^\s<>\"')]+|arXiv[: ](\d{4}\.\d{4,5})")
"""What can be opened in a source: an address, or a paper on arXiv."""

LONG_HASH = re.compile(r"(?<=^[0-9a-f]{12})[0-9a-f]+")
"""What nobody needs of a commit's hash; a mark behind it, such as -dirty, stays."""


def to_html(report: Report) -> str:
    """The page: tables whose cells lead to their runs, figures, and what became of every trial."""
    trials = [TrialSummary(trial, report) for trial in report.trials.values()]
    sections = [
        *(
            _Section("Tables", f"table-{table.key}", table.title, _table(table))
            for table in report.tables
        ),
        *(_Section("Figures", f"figure-{p.key}", p.title, _figure(p)) for p in report.pictures),
        *_examples(report),
        *_heard(report),
        *_closing(report, trials),
    ]
    name = ", ".join(sweep.name for sweep in report.sweeps) or "no sweep"
    return _document(
        f"DiffGAP report: {name}",
        _head(report, name),
        _contents(sections),
        HELP,
        *(section.html for section in sections),
        PANEL,
        f'<script type="application/json" id="data">{_json(page_data(report, trials))}</script>',
    )


@dataclass(frozen=True)
class _Section:
    """A part of the page.

    Attributes:
        kind: of what the contents list it under.
        key: its anchor.
        title, body: plain text, and HTML.
    """

    kind: str
    key: str
    title: str
    body: str

    @property
    def html(self) -> str:
        head = f'<h2 id="{escape(self.key)}-title">{escape(self.title)}</h2>'
        return (
            f'<section id="{escape(self.key)}" aria-labelledby="{escape(self.key)}-title">'
            f"{head}{self.body}</section>"
        )


PANEL = (
    '<aside id="panel" hidden aria-labelledby="panel-title">'
    '<button type="button" id="close" aria-label="Close">×</button>'
    '<h2 id="panel-title" tabindex="-1"></h2><div id="panel-body"></div></aside>'
)
"""Where the script shows the runs behind a cell."""


def _document(title: str, *parts: str) -> str:
    """A page of these parts, which may run our script alone and load nothing."""
    rules = (
        f"default-src 'none'; img-src data:; media-src data: file:; style-src '{_hash(STYLE)}'; "
        f"script-src '{_hash(SCRIPT)}'; base-uri 'none'; form-action 'none'"
    )
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{rules}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>",
            *parts,
            f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        ]
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(content: Any) -> str:
    """JSON that no parser of HTML can take for the end of its element."""
    text = json.dumps(content, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _head(report: Report, name: str) -> str:
    trials = report.trials.values()
    counted = sum(trial.is_complete for trial in trials)
    facts = {
        "Tracking store": f"<code>{escape(report.where)}</code>",
        "Made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "Trials": f"{counted} of {len(trials)} finished",
    }
    shown = "".join(f"<div><dt>{key}</dt><dd>{value}</dd></div>" for key, value in facts.items())
    title = f'<p class="kind">DiffGAP report</p><h1>{escape(name)}</h1>'
    return f"<header>{title}<dl>{shown}</dl></header>"


HELP = (
    '<p class="help">A click on a heading sorts its table; a click on a figure shows the runs '
    "behind it. Arrow keys move between cells, Enter opens one, Escape closes it.</p>"
)


def _contents(sections: Sequence[_Section]) -> str:
    """Links to the sections, in a list a kind."""
    groups = []
    for kind in dict.fromkeys(section.kind for section in sections):
        found = [section for section in sections if section.kind == kind]
        links = (f'<a href="#{escape(s.key)}">{escape(s.title)}</a>' for s in found)
        groups.append(f"<div><h2>{kind}</h2>{_list(links, 'links')}</div>")
    return f'<nav aria-label="Contents">{"".join(groups)}</nav>'


def _table(table: Table) -> str:
    """A table, its published rows in a part of their own, and its notes."""
    if not table.rows:
        return _notes(table)
    seeds = any(row.seeds for row in table.rows)
    names = ["", *(["seeds"] if seeds else []), *table.headings]
    groups = (("ours", table.ours), ("published", table.published))
    bodies = "".join(
        f'<tbody class="{kind}">{"".join(_row(row, table, seeds) for row in rows)}</tbody>'
        for kind, rows in groups
        if rows
    )
    head = "".join(map(_heading, names))
    return (
        f'<div class="scroll"><table data-key="{escape(table.key)}" '
        f'aria-labelledby="table-{escape(table.key)}-title">'
        f"<thead><tr>{head}</tr></thead>{bodies}</table></div>{_notes(table)}"
    )


def _heading(name: str) -> str:
    """A heading that sorts; it breaks between words alone."""
    words = " ".join(f"<span>{escape(word)}</span>" for word in name.split())
    shown = words or '<span class="unseen">row</span>'
    return f'<th scope="col"><button type="button">{shown}</button></th>'


def _row(row: Row, table: Table, seeds: bool) -> str:
    name = escape(row.name)
    if row.published:
        anchor = f"source-{escape(table.key)}-{row.footnote}"
        name += f' <sup><a href="#{anchor}">[{row.footnote}]</a></sup>'
    else:
        name = _button(name, None)
    cells = [f'<th scope="row">{name}</th>']
    if seeds:
        cells.append(f"<td>{escape(row.seeds)}</td>")
    cells += [_cell(value, row, place) for place, value in enumerate(row.values)]
    return f'<tr data-runs="{escape(" ".join(row.runs))}">{"".join(cells)}</tr>'


def _cell(value: Value, row: Row, place: int) -> str:
    kind = "best" if value.best else "near" if value.near else ""
    number = "" if value.number is None else f' data-number="{value.number!r}"'
    text = f'<span class="{kind}">{escape(value.marked)}</span>' if kind else escape(value.marked)
    return f"<td{number}>{text if row.published else _button(text, place)}</td>"


def _button(text: str, column: int | None) -> str:
    place = "" if column is None else f' data-column="{column}"'
    return f'<button type="button" class="cell" aria-haspopup="true"{place}>{text}</button>'


def _notes(table: Table) -> str:
    """Notes, what is lacking, and the sources of published rows, to which these lead."""
    notes = _list(map(escape, (*table.notes, *table.incomplete)), "notes")
    sources = "".join(
        f'<li id="source-{escape(table.key)}-{number}">{_linked(source)}</li>'
        for number, source in enumerate(table.sources, 1)
    )
    return notes + (f'<ol class="sources">{sources}</ol>' if sources else "")


def _list(lines: Iterable[str], kind: str) -> str:
    shown = "".join(f"<li>{line}</li>" for line in lines)
    return f'<ul class="{kind}">{shown}</ul>' if shown else ""


def _linked(text: str) -> str:
    """Text whose addresses and arXiv numbers can be opened."""
    parts, end = [], 0
    for found in LINK.finditer(text):
        address = f"https://arxiv.org/abs/{found[1]}" if found[1] else found[0]
        parts += [
            escape(text[end : found.start()]),
            f'<a href="{escape(address)}" rel="noreferrer">{escape(found[0])}</a>',
        ]
        end = found.end()
    return "".join(parts) + escape(text[end:])


def _figure(picture: Picture) -> str:
    """A figure; as an image of its own, since the ids of several SVGs would clash."""
    image = base64.b64encode(picture.svg.encode()).decode()
    runs = _list((_run_link(signature) for signature in picture.runs), "runs")
    return (
        f'<figure><img src="data:image/svg+xml;base64,{image}" alt="{escape(picture.title)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        + (
            f"<details><summary>{len(picture.runs)} trials</summary>{runs}</details>"
            if runs
            else ""
        )
    )


def _examples(report: Report) -> list[_Section]:
    """What was retrieved, a section a setting."""
    clips = Clips(report.audio)
    by_setting: dict[str, list[Example]] = {}
    for example in report.examples:
        by_setting.setdefault(example.setting, []).append(example)
    return [
        _Section(
            "Examples",
            f"examples-{number}",
            f"Retrieval examples on {setting}",
            examples_html(found, clips),
        )
        for number, (setting, found) in enumerate(by_setting.items(), 1)
    ]


def _heard(report: Report) -> list[_Section]:
    """What was generated, to be played: a section a sweep and task."""
    return [
        _Section("Examples", f"heard-{number}", heard.title, audio_gallery_html(heard))
        for number, heard in enumerate(audio_gallery(report.sweeps), 1)
    ]


def _run_link(signature: str) -> str:
    return f'<a href="#run-{escape(signature)}"><code>{escape(signature)}</code></a>'


def _closing(report: Report, trials: Sequence[TrialSummary]) -> list[_Section]:
    """What does not count, what is missing, and every trial."""
    lost = [
        f"{_run_link(told.trial.signature)} {escape(told.trial.label)}, sweep "
        f"{escape(told.sweep.name)}: {escape(told.state)}"
        for told in trials
        if not told.trial.is_complete
    ]
    missing = _list(map(escape, report.missing), "notes")
    found = [
        _Section("Runs", "not-counted", "Trials that do not count", _list(lost, "notes")),
        _Section("Runs", "missing", "What is missing", missing),
        _Section("Runs", "trials", "All trials", _all_trials(report, trials)),
    ]
    return [section for section in found if section.body]


def _all_trials(report: Report, trials: Sequence[TrialSummary]) -> str:
    if not trials:
        return ""
    names = ("signature", "trial", "sweep", "state", "MLflow run", "git commit")
    rows = "".join(map(_trial_row, trials))
    again = escape(command("SIGNATURE", report.where))
    return (
        '<div class="scroll"><table class="words" aria-labelledby="trials-title">'
        f"<thead><tr>{''.join(map(_heading, names))}</tr></thead><tbody>{rows}</tbody></table>"
        f'</div><p class="notes">One of them again: <code>{again}</code></p>'
    )


def _trial_row(told: TrialSummary) -> str:
    signature, run = escape(told.trial.signature), escape(told.trial.run_id or "-")
    link = f'<a href="{escape(told.address)}">{run}</a>' if told.address else run
    cells = (
        escape(told.trial.label),
        escape(told.sweep.name),
        escape(told.state),
        f"<code>{link}</code>",
        f"<code>{escape(LONG_HASH.sub('', told.commit) or '-')}</code>",
    )
    shown = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr id="run-{signature}"><th scope="row"><code>{signature}</code></th>{shown}</tr>'
