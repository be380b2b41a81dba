"""Progress bars for long work with clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class ClipsPerSecond(ProgressColumn):
    """Clips a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} clips/s" if task.speed else "")


@contextmanager
def clips_bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that appears with the first clip: yields a function of clips done and in all.

    Where the output is no terminal it is one line at the start and one at the end.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, ClipsPerSecond(), TimeRemainingColumn(), console=console)
    task = bar.add_task(what, total=None)
    begun = False

    def advance(done: int, total: int) -> None:
        nonlocal begun
        if not begun:
            begun = True
            if console.is_terminal:
                bar.start()
            else:
                console.print(f"{what}: {total} clips ...")
        bar.update(task, completed=done, total=total)

    try:
        yield advance
    finally:
        if begun and console.is_terminal:
            bar.stop()
