"""Retrieval examples: ten queries a corpus, and what each cell retrieved for them."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from diffgap.corpora.media import within
from diffgap.errors import ClipError
from diffgap.ledger.artifacts import EXAMPLES
from diffgap.report.results import Cell, cell_names, merged, setting_of
from diffgap.tracking.reader import LoggedSweep

SMALL_BYTES = 300_000
"""Files up to this size become part of the page; larger ones are linked, to keep it small."""


@dataclass(frozen=True)
class Answer:
    """One retrieved item: its clip, its caption where it has one, and whether it is right."""

    clip: str
    caption: str | None
    right: bool


@dataclass(frozen=True)
class Example:
    """One query, and the first answers of each cell.

    Attributes:
        setting: what was searched, for people.
        direction: such as ``text->audio``.
        clip: whose text, video or audio is the query.
        caption: the query itself, where it is a text.
        answers: by the cell's name, the best first.
    """

    setting: str
    direction: str
    clip: str
    caption: str | None
    answers: dict[str, tuple[Answer, ...]]

    @property
    def right_at_once(self) -> int:
        """How many cells have the right answer first."""
        right = 0
        for answers in self.answers.values():
            right += bool(answers) and answers[0].right
        return right

    @property
    def longest(self) -> int:
        """How many answers the cells have at most."""
        return max(map(len, self.answers.values()), default=0)


def examples_of(sweeps: Sequence[LoggedSweep]) -> list[Example]:
    """The examples of all cells, of the first finished seed each; by corpus, direction, query."""
    by_setting: dict[str, list[LoggedSweep]] = {}
    for sweep in sweeps:
        if not sweep.spec["search"]:
            setting = setting_of(sweep)
            by_setting.setdefault(f"{setting}, {setting.task}", []).append(sweep)
    examples: list[Example] = []
    for title, group in by_setting.items():
        cells = [cell for cell in merged(group) if cell.finished]
        examples += _examples(title, cells)
    return examples


def _examples(setting: str, cells: Sequence[Cell]) -> list[Example]:
    queries: dict[tuple[str, str], Example] = {}
    for cell, name in zip(cells, cell_names(cells, "ablation"), strict=True):
        files = cell.finished[0].files
        if files is None or not (files / EXAMPLES).is_file():  # trials of before there were any
            continue
        for row in pq.read_table(files / EXAMPLES).to_pylist():
            direction, query = row["direction"], row["query"]
            if (direction, query) not in queries:
                label = direction.replace("_to_", "->")
                example = Example(setting, label, query, row["query_caption"], {})
                queries[direction, query] = example
            answer = Answer(row["clip"], row["caption"], row["right"])
            answers = queries[direction, query].answers
            answers[name] = (*answers.get(name, ()), answer)
    return list(queries.values())


class ClipFiles:
    """The files of a corpus's clips, to be played from a page.

    Args:
        root: the directory in which clips are files of their names; None where there are none.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root.resolve() if root else None

    def source(self, clip: str) -> tuple[str, str] | None:
        """Whether a clip is ``audio`` or ``video``, and its URL, which holds small files whole.

        None where it is no file of the directory.
        """
        if self.root is None:
            return None
        try:
            path = within(self.root, clip)  # a name from MLflow must not read any other file
        except ClipError:
            return None
        kind = mimetypes.guess_type(path.name)[0] or ""
        if not path.is_file() or not kind.startswith(("audio/", "video/")):
            return None
        if path.stat().st_size > SMALL_BYTES:
            return kind.partition("/")[0], path.as_uri()
        content = base64.b64encode(path.read_bytes()).decode()
        return kind.partition("/")[0], f"data:{kind};base64,{content}"
