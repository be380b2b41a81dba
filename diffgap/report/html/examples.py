"""Retrieval examples on the page: what each cell retrieved for ten queries, to read and to play."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from diffgap.report.examples import Answer, ClipFiles, Example


def examples_html(examples: Sequence[Example], clips: ClipFiles) -> str:
    """One part a query: the query, and each cell's answers, best first, the right ones marked.

    Args:
        examples: of one setting.
        clips: the files of the corpus, if there are any.
    """
    return "".join(_example(example, clips) for example in examples)


def _example(example: Example, clips: ClipFiles) -> str:
    query = f"“{escape(example.caption)}”" if example.caption else escape(example.clip)
    right, longest, rows = 0, 0, []
    for name, answers in example.answers.items():
        right += bool(answers) and answers[0].right
        longest = max(longest, len(answers))
        rows.append(_row(name, answers, clips))
    places = [f'<th scope="col">{place}</th>' for place in range(1, longest + 1)]
    return (
        f'<details class="example"><summary><code>{escape(example.direction)}</code> {query} '
        f"<small>{right} of {len(rows)} right at once</small></summary>"
        f"<p>Its clip: {escape(example.clip)}{_player(example.clip, clips)}</p>"
        '<div class="scroll"><table class="words"><thead><tr><th scope="col">cell</th>'
        f"{''.join(places)}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _row(name: str, answers: Sequence[Answer], clips: ClipFiles) -> str:
    cells = [f"<td>{_answer(answer, clips)}</td>" for answer in answers]
    return f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>'


def _answer(answer: Answer, clips: ClipFiles) -> str:
    text = escape(answer.caption or answer.clip)
    marked = f'<strong title="right">✓ {text}</strong>' if answer.right else text
    return marked + _player(answer.clip, clips)


def _player(clip: str, clips: ClipFiles) -> str:
    """A player of a clip; nothing where it is no file."""
    source = clips.source(clip)
    if source is None:
        return ""
    kind, url = source
    return f' <{kind} controls preload="none" src="{escape(url)}"></{kind}>'
