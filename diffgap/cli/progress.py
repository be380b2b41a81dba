"""Progress bars for long work on clips, or on rows."""

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


class Speed(ProgressColumn):
    """Clips a second, or whatever is counted."""

    def __init__(self, counted: str) -> None:
        super().__init__()
        self.counted = counted

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} {self.counted}/s" if task.speed else "")


@contextmanager
def work_bar(console: Console, what: str, counted: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that appears with the first clip: yields a function of clips done and in all.

    Where the output is no terminal it is one line at the start and one at the end.
    """
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, Speed(counted), TimeRemainingColumn(), console=console)
    task = bar.add_task(what, total=None)
    begun = False

    def advance(done: int, total: int) -> None:
        nonlocal begun
        if not begun:
            begun = True
            if console.is_terminal:
                bar.start()
            else:
                console.print(f"{what}: {total} {counted} ...")
        bar.update(task, completed=done, total=total)

    try:
        yield advance
    finally:
        if begun and console.is_terminal:
            bar.stop()
