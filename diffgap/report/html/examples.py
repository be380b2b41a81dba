"""Retrieval examples on the page: what each cell found for ten queries, to read and to play."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from diffgap.report.examples import Answer, Clips, Example


def examples_html(examples: Sequence[Example], clips: Clips) -> str:
    """One part a query: who asks, and the answers of each cell, best first, the right ones marked.

    Args:
        examples: of one setting.
        clips: the files of the corpus, if there are any.
    """
    return "".join(_example(example, clips) for example in examples)


def _example(example: Example, clips: Clips) -> str:
    found = sum(answers[0].right for answers in example.answers.values() if answers)
    head = (
        f"<summary><code>{escape(example.direction)}</code> {_asked(example)} "
        f"<small>{found} of {len(example.answers)} right at once</small></summary>"
    )
    played = _played(example.clip, clips)
    longest = max(map(len, example.answers.values()), default=0)
    places = "".join(f'<th scope="col">{place}</th>' for place in range(1, longest + 1))
    rows = "".join(_row(name, answers, clips) for name, answers in example.answers.items())
    return (
        f'<details class="example">{head}<p>Its clip: {escape(example.clip)}{played}</p>'
        f'<div class="scroll"><table class="words"><thead><tr><th scope="col">cell</th>{places}'
        f"</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _asked(example: Example) -> str:
    return f"“{escape(example.caption)}”" if example.caption else escape(example.clip)


def _row(name: str, answers: Sequence[Answer], clips: Clips) -> str:
    cells = "".join(f"<td>{_answer(answer, clips)}</td>" for answer in answers)
    return f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'


def _answer(answer: Answer, clips: Clips) -> str:
    text = escape(answer.caption or answer.clip)
    shown = f'<strong title="right">✓ {text}</strong>' if answer.right else text
    return shown + _played(answer.clip, clips)


def _played(clip: str, clips: Clips) -> str:
    """A player of a clip; nothing where it is no file."""
    found = clips.source(clip)
    if found is None:
        return ""
    kind, address = found
    return f' <{kind} controls preload="none" src="{escape(address)}"></{kind}>'
