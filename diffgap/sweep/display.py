"""What a person sees while a sweep runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from diffgap.sweep.plan import PlannedTrial

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
STOPPED, PAUSED = "stopped", "paused"
STYLES = {
    WAITING: "dim",
    RUNNING: "cyan",
    DONE: "green",
    STOPPED: "yellow",
    PAUSED: "dim",
    FAILED: "bold red",
}


@dataclass
class _Row:
    label: str
    steps: int
    state: str = WAITING
    step: int = 0
    val: str = ""
    began: float | None = None
    took: float = 0.0

    def end(self, state: str) -> None:
        now = time.monotonic()
        self.state, self.took = state, now - (self.began or now)


class SweepDisplay:
    """Shows trials as they start, advance and end; use it as a context.

    Args:
        console: where to print.
        total: the sweep's trials, finished ones and all.
        left: how many of them will run.
        quiet: show nothing but what is said with `say`.
    """

    def __init__(self, console: Console, total: int, left: int, quiet: bool = False) -> None:
        self.console, self.total, self.left, self.quiet = console, total, left, quiet
        self.best: tuple[float, str] | None = None
        self.rows: dict[str, _Row] = {}
        self.began = time.monotonic()
        self.live = Live(
            get_renderable=self._table,
            console=console,
            refresh_per_second=2,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> SweepDisplay:
        if self.console.is_terminal and not self.quiet:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self.live.is_started:
            self.live.stop()

    def counts(self) -> dict[str, int]:
        """How many trials are in each state; those that were done before are done."""
        counts = {DONE: self.total - self.left} if self.total > self.left else {}
        for row in self.rows.values():
            counts[row.state] = counts.get(row.state, 0) + 1
        unknown = self.left - len(self.rows)
        if unknown > 0:
            counts[WAITING] = counts.get(WAITING, 0) + unknown
        return {state: counts[state] for state in STYLES if state in counts}

    def say(self, text: str) -> None:
        """Tells something that concerns no single trial."""
        self.console.print(text, style="yellow", soft_wrap=True)

    def add(self, planned: PlannedTrial) -> None:
        """A trial that will run; those of a search become known one at a time."""
        steps = planned.trial.train.steps if planned.trial.trains else 0
        self.rows[planned.signature] = _Row(planned.label, steps)

    def started(self, signature: str) -> None:
        row = self.rows[signature]
        row.state, row.began = RUNNING, time.monotonic()
        self._line(row, "started")

    def progress(self, signature: str, step: int, metrics: Mapping[str, float]) -> None:
        """A trial has ended an epoch; `metrics` are its latest."""
        row = self.rows[signature]
        row.step = step
        recalls = [value for name, value in metrics.items() if name.endswith("/R5")]
        row.val = " / ".join(f"{value:.1f}" for value in recalls)
        if recalls and (self.best is None or mean(recalls) > self.best[0]):
            self.best = mean(recalls), row.label
        self._line(row, f"step {step}/{row.steps}" + (f", val R@5 {row.val}" if row.val else ""))

    def finished(self, signature: str) -> None:
        row = self.rows[signature]
        row.end(DONE)
        row.step = row.steps
        self._line(row, f"done in {row.took:.0f} s; {self._summary()}")

    def stopped(self, signature: str, reason: str) -> None:
        row = self.rows[signature]
        row.end(STOPPED)
        self._line(row, f"stopped at step {row.step}: {reason}; {self._summary()}")

    def paused(self, signature: str) -> None:
        """A trial can go on later; one that has not begun, or has paused already, is as it was."""
        row = self.rows[signature]
        if row.state == RUNNING:
            row.end(PAUSED)
            self._line(row, f"paused at step {row.step}")

    def failed(self, signature: str, reason: str) -> None:
        row = self.rows[signature]
        row.end(FAILED)
        self._line(row, f"FAILED: {reason}")

    def _line(self, row: _Row, what: str) -> None:
        if not (self.console.is_terminal or self.quiet):
            self.console.print(f"  {row.label}: {what}", soft_wrap=True)

    def _summary(self) -> str:
        ended = sum(row.state in (DONE, STOPPED, FAILED) for row in self.rows.values())
        text = f"{self.total - self.left + ended} of {self.total} trials"
        if ended and ended < self.left:
            rate = (time.monotonic() - self.began) / ended
            text += f", about {duration(rate * (self.left - ended))} left"
        if self.best:
            text += f"; best R@5 on val so far {self.best[0]:.1f} ({self.best[1]})"
        return text

    def _shown(self) -> list[_Row]:
        """What fits the screen: all, or what is going on and what was last."""
        capacity = max(5, self.console.height - 5)
        rows = list(self.rows.values())
        if len(rows) <= capacity:
            return rows
        running = [row for row in rows if row.state == RUNNING]
        others = sorted(
            (r for r in rows if r.state not in (RUNNING, WAITING)), key=lambda r: r.began or 0.0
        )
        return [*others[-max(0, capacity - len(running)) :], *running]

    def _table(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for header in ("trial", "state", "steps", "", "val R@5", "time"):
            table.add_column(header)
        now = time.monotonic()
        for row in self._shown():
            seconds = now - (row.began or now) if row.state == RUNNING else row.took
            table.add_row(
                row.label,
                Text(row.state, style=STYLES[row.state]),
                f"{row.step}/{row.steps}" if row.steps else "no training",
                ProgressBar(total=max(1, row.steps), completed=row.step, width=20),
                row.val,
                duration(seconds) if seconds else "",
            )
        states = ", ".join(f"{count} {state}" for state, count in self.counts().items())
        return Group(table, Text(f"{states}. {self._summary()}"))


def duration(seconds: float) -> str:
    """Seconds as people say them: ``2 min 05 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
