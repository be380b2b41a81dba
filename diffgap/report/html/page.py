"""A report as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from diffgap.io.printable import printable
from diffgap.report.audio_clips import audio_galleries
from diffgap.report.examples import ClipFiles
from diffgap.report.html.trials import TrialSummary, page_data, rerun_command
from diffgap.report.model import Report

HERE = Path(__file__).parent
STYLE = (HERE / "page.css").read_text(encoding="utf-8")
SCRIPT = (HERE / "page.js").read_text(encoding="utf-8")

LINK = re.compile(r"https?://[^\s<>\"')]+|arXiv[: ](\d{4}\.\d{4,5})")
"""What can be opened in a source: an address, or a paper on arXiv."""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        kind: what the contents list it under.
        key: its anchor.
        title: for people.
        part: the macro of ``page.html`` that shows it.
        content: what that macro takes.
    """

    kind: str
    key: str
    title: str
    part: str
    content: Any


def to_html(report: Report) -> str:
    """The page: tables whose cells lead to their runs, figures, and the state of every trial."""
    trials = [TrialSummary(trial, report) for trial in report.trials.values()]
    page = _templates().get_template("page.html")
    return page.render(
        report=report,
        now=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        sections=_sections(report, trials),
        clips=ClipFiles(report.audio),
        rerun=rerun_command("SIGNATURE", report.where),
        data=page_data(report, trials),
        policy=_policy(),
        style=STYLE,
        script=SCRIPT,
    )


def _templates() -> Environment:
    # Names and notes come from MLflow, so whatever is not marked safe is escaped.
    templates = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        finalize=_printable,
    )
    templates.filters |= {"linked": linked, "data_url": _data_url}
    return templates


def _printable(value: Any) -> Any:
    """A value of the template without what could turn the direction of its line, say."""
    if isinstance(value, Markup):
        return Markup(printable(value))
    return printable(value) if isinstance(value, str) else value


def _policy() -> str:
    """What a browser may load and run: our style and script, known by their hashes.

    Should anything slip through unescaped, it does not run, and nothing asks the network.
    """
    return (
        f"default-src 'none'; img-src data:; media-src data: file:; style-src '{_hash(STYLE)}'; "
        f"script-src '{_hash(SCRIPT)}'; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data_url(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def linked(text: str) -> Markup:
    """Escaped text whose addresses and arXiv numbers can be opened."""
    html, end = Markup(), 0
    for match in LINK.finditer(text):
        address = f"https://arxiv.org/abs/{match[1]}" if match[1] else match[0]
        html += text[end : match.start()]  # a Markup escapes what is added to it
        html += Markup('<a href="{}" rel="noreferrer">{}</a>').format(address, match[0])
        end = match.end()
    return html + text[end:]


def _sections(report: Report, trials: Sequence[TrialSummary]) -> list[Section]:
    sections = []
    for table in report.tables:
        sections.append(Section("Tables", f"table-{table.key}", table.title, "table", table))
    for picture in report.pictures:
        key = f"figure-{picture.key}"
        sections.append(Section("Figures", key, picture.title, "figure", picture))
    by_setting = groupby(report.examples, attrgetter("setting"))  # they come setting by setting
    for number, (setting, examples) in enumerate(by_setting, 1):
        key, title = f"examples-{number}", f"Retrieval examples on {setting}"
        sections.append(Section("Examples", key, title, "examples", list(examples)))
    for number, gallery in enumerate(audio_galleries(report.sweeps), 1):
        sections.append(Section("Examples", f"heard-{number}", gallery.title, "gallery", gallery))
    uncounted = [summary for summary in trials if not summary.trial.is_complete]
    sections += [
        Section("Runs", "not-counted", "Trials that do not count", "uncounted", uncounted),
        Section("Runs", "missing", "What is missing", "notes", report.missing),
        Section("Runs", "trials", "All trials", "trials", trials),
    ]
    return [section for section in sections if section.content]
