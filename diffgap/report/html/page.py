"""A report as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from diffgap.report.audio_clips import audio_galleries
from diffgap.report.examples import ClipFiles, Example
from diffgap.report.figures.style import Picture
from diffgap.report.html.audio_clips import audio_gallery_html
from diffgap.report.html.elements import html_list
from diffgap.report.html.examples import examples_html
from diffgap.report.html.tables import heading_html, table_html
from diffgap.report.html.trials import TrialSummary, page_data, rerun_command
from diffgap.report.model import Report

STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
SCRIPT = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")

HELP = (
    '<p class="help">A click on a heading sorts its table; a click on a figure shows the runs '
    "behind it. Arrow keys move between cells, Enter opens one, Escape closes it.</p>"
)

PANEL = (
    '<aside id="panel" hidden aria-labelledby="panel-title">'
    '<button type="button" id="close" aria-label="Close">×</button>'
    '<h2 id="panel-title" tabindex="-1"></h2><div id="panel-body"></div></aside>'
)
"""Where the script shows the runs behind a cell."""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        kind: what the contents list it under.
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


def to_html(report: Report) -> str:
    """The page: tables whose cells lead to their runs, figures, and the state of every trial."""
    trials = [TrialSummary(trial, report) for trial in report.trials.values()]
    sections = _sections(report, trials)
    name = ", ".join(sweep.name for sweep in report.sweeps) or "no sweep"
    return _document(
        f"DiffGAP report: {name}",
        _head(report, name),
        _contents(sections),
        HELP,
        *[section.html for section in sections],
        PANEL,
        f'<script type="application/json" id="data">{_json(page_data(report, trials))}</script>',
    )


def _sections(report: Report, trials: Sequence[TrialSummary]) -> list[Section]:
    sections = []
    for table in report.tables:
        sections.append(Section("Tables", f"table-{table.key}", table.title, table_html(table)))
    for picture in report.pictures:
        key = f"figure-{picture.key}"
        sections.append(Section("Figures", key, picture.title, _figure(picture)))
    sections += _retrieval_sections(report)
    for number, gallery in enumerate(audio_galleries(report.sweeps), 1):
        body = audio_gallery_html(gallery)
        sections.append(Section("Examples", f"heard-{number}", gallery.title, body))
    return sections + _trial_sections(report, trials)


def _document(title: str, *parts: str) -> str:
    """A page of these parts."""
    # Only our own style and script, known by their hashes, and nothing from the network: names and
    # notes come from MLflow, and one that slipped through unescaped must not run.
    policy = (
        f"default-src 'none'; img-src data:; media-src data: file:; style-src '{_hash(STYLE)}'; "
        f"script-src '{_hash(SCRIPT)}'; base-uri 'none'; form-action 'none'"
    )
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # Without an icon of its own the browser asks the network for one.
            '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>",
            *parts,
            f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        ]
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(content: Any) -> str:
    """JSON in which a parser of HTML cannot find the end of its element."""
    text = json.dumps(content, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _head(report: Report, name: str) -> str:
    trials = report.trials.values()
    complete = sum(trial.is_complete for trial in trials)
    facts = {
        "Tracking store": f"<code>{escape(report.where)}</code>",
        "Made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "Trials": f"{complete} of {len(trials)} finished",
    }
    items = [f"<div><dt>{key}</dt><dd>{value}</dd></div>" for key, value in facts.items()]
    title = f'<p class="kind">DiffGAP report</p><h1>{escape(name)}</h1>'
    return f"<header>{title}<dl>{''.join(items)}</dl></header>"


def _contents(sections: Iterable[Section]) -> str:
    """Links to the sections, in a list a kind."""
    links: dict[str, list[str]] = {}
    for section in sections:
        link = f'<a href="#{escape(section.key)}">{escape(section.title)}</a>'
        links.setdefault(section.kind, []).append(link)
    groups = []
    for kind, group in links.items():
        groups.append(f"<div><h2>{kind}</h2>{html_list(group, 'links')}</div>")
    return f'<nav aria-label="Contents">{"".join(groups)}</nav>'


def _figure(picture: Picture) -> str:
    """A figure; as an image of its own, since the ids of several SVGs would clash."""
    image = base64.b64encode(picture.svg.encode()).decode()
    html = (
        f'<figure><img src="data:image/svg+xml;base64,{image}" alt="{escape(picture.title)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )
    if picture.runs:
        runs = html_list(map(_run_link, picture.runs), "runs")
        html += f"<details><summary>{len(picture.runs)} trials</summary>{runs}</details>"
    return html


def _run_link(signature: str) -> str:
    return f'<a href="#run-{escape(signature)}"><code>{escape(signature)}</code></a>'


def _retrieval_sections(report: Report) -> list[Section]:
    """What was retrieved, a section a setting."""
    by_setting: dict[str, list[Example]] = {}
    for example in report.examples:
        by_setting.setdefault(example.setting, []).append(example)
    sections = []
    for number, (setting, examples) in enumerate(by_setting.items(), 1):
        title = f"Retrieval examples on {setting}"
        body = examples_html(examples, ClipFiles(report.audio))
        sections.append(Section("Examples", f"examples-{number}", title, body))
    return sections


def _trial_sections(report: Report, trials: Sequence[TrialSummary]) -> list[Section]:
    """Trials that do not count, tables that are missing, and every trial."""
    uncounted = []
    for summary in trials:
        trial = summary.trial
        if not trial.is_complete:
            name = f"{escape(trial.label)}, sweep {escape(summary.sweep.name)}"
            uncounted.append(f"{_run_link(trial.signature)} {name}: {escape(summary.state)}")
    missing = html_list(map(escape, report.missing), "notes")
    sections = [
        Section("Runs", "not-counted", "Trials that do not count", html_list(uncounted, "notes")),
        Section("Runs", "missing", "What is missing", missing),
        Section("Runs", "trials", "All trials", _all_trials(report, trials)),
    ]
    return [section for section in sections if section.body]


def _all_trials(report: Report, trials: Sequence[TrialSummary]) -> str:
    if not trials:
        return ""
    names = ("signature", "trial", "sweep", "state", "MLflow run", "git commit")
    command = escape(rerun_command("SIGNATURE", report.where))
    return (
        '<div class="scroll"><table class="words" aria-labelledby="trials-title"><thead><tr>'
        f"{''.join(map(heading_html, names))}</tr></thead>"
        f"<tbody>{''.join(map(_trial_row, trials))}</tbody></table>"
        f'</div><p class="notes">To repeat one: <code>{command}</code></p>'
    )


def _trial_row(summary: TrialSummary) -> str:
    signature, run = escape(summary.trial.signature), escape(summary.trial.run_id or "-")
    if summary.address:
        run = f'<a href="{escape(summary.address)}">{run}</a>'
    cells = (
        escape(summary.trial.label),
        escape(summary.sweep.name),
        escape(summary.state),
        f"<code>{run}</code>",
        f"<code>{escape(summary.short_commit or '-')}</code>",
    )
    columns = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr id="run-{signature}"><th scope="row"><code>{signature}</code></th>{columns}</tr>'
