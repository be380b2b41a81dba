"""What a person sees while a sweep runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from diffgap.sweep.plan import PlannedTrial

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
STOPPED = "stopped"
STYLES = {
    WAITING: "dim",
    RUNNING: "cyan",
    DONE: "green",
    STOPPED: "yellow",
    FAILED: "bold red",
}


@dataclass
class _Row:
    label: str
    steps: int
    state: str = WAITING
    step: int = 0
    val: str = ""
    began: float = 0.0
    took: float = 0.0


class SweepDisplay:
    """Shows trials as they start, advance and end; use it as a context.

    Args:
        console: where to print.
        total: the sweep's trials, finished ones and all.
        left: how many of them will run.
    """

    def __init__(self, console: Console, total: int, left: int) -> None:
        self.console, self.total, self.left = console, total, left
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
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()

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
        self._line(row, f"step {step}/{row.steps}" + (f", val R@5 {row.val}" if row.val else ""))

    def finished(self, signature: str) -> None:
        row = self.rows[signature]
        row.state, row.step, row.took = DONE, row.steps, time.monotonic() - row.began
        self._line(row, f"done in {row.took:.0f} s; {self._summary()}")

    def stopped(self, signature: str, reason: str) -> None:
        row = self.rows[signature]
        row.state, row.took = STOPPED, time.monotonic() - row.began
        self._line(row, f"stopped at step {row.step}: {reason}; {self._summary()}")

    def failed(self, signature: str, reason: str) -> None:
        row = self.rows[signature]
        row.state, row.took = FAILED, time.monotonic() - row.began
        self._line(row, f"FAILED: {reason}")

    def _line(self, row: _Row, what: str) -> None:
        if not self.console.is_terminal:
            self.console.print(f"  {row.label}: {what}", highlight=False, soft_wrap=True)

    def _summary(self) -> str:
        ended = sum(row.state in (DONE, STOPPED, FAILED) for row in self.rows.values())
        text = f"{self.total - self.left + ended} of {self.total} trials"
        if ended and ended < self.left:
            rate = (time.monotonic() - self.began) / ended
            text += f", about {_duration(rate * (self.left - ended))} left"
        return text

    def _table(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for header in ("trial", "state", "steps", "", "val R@5", "time"):
            table.add_column(header)
        now = time.monotonic()
        for row in self.rows.values():
            seconds = now - row.began if row.state == RUNNING else row.took
            table.add_row(
                row.label,
                Text(row.state, style=STYLES[row.state]),
                f"{row.step}/{row.steps}" if row.steps else "no training",
                ProgressBar(total=max(1, row.steps), completed=row.step, width=20),
                row.val,
                _duration(seconds) if seconds else "",
            )
        return Group(table, Text(self._summary()))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
