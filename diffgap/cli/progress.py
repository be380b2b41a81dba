"""Progress bars for long work on clips or rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def work_bar(console: Console, title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of clips done and in total; the bar appears at its first call."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    rates = TextColumn("{task.fields[rate]}", markup=False)
    bar = Progress(*columns, rates, TimeRemainingColumn(), console=console)
    task = bar.add_task(title, total=None, rate="")
    started = False

    def advance(done: int, total: int) -> None:
        nonlocal started
        if not started:
            started = True
            if console.is_terminal:
                bar.start()
            else:  # a log has no use for a bar
                console.print(f"{title}: {total} {unit} ...")
        bar.update(task, completed=done, total=total)
        if speed := bar.tasks[0].speed:
            bar.update(task, rate=f"{speed:.0f} {unit}/s")

    try:
        yield advance
    finally:
        if started and console.is_terminal:
            bar.stop()
