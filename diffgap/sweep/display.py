"""What a person sees while a sweep runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from diffgap.sweep.plan import PlannedTrial

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
STYLES = {WAITING: "dim", RUNNING: "cyan", DONE: "green", FAILED: "bold red"}


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
        trials: the trials that will run.
        done: how many of the sweep's trials were finished before.
    """

    def __init__(self, console: Console, trials: Sequence[PlannedTrial], done: int) -> None:
        self.console, self.done_before = console, done
        self.rows = {t.signature: _Row(t.label, _steps(t)) for t in trials}
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

    def failed(self, signature: str, reason: str) -> None:
        row = self.rows[signature]
        row.state, row.took = FAILED, time.monotonic() - row.began
        self._line(row, f"FAILED: {reason}")

    def _line(self, row: _Row, what: str) -> None:
        if not self.console.is_terminal:
            self.console.print(f"  {row.label}: {what}", highlight=False, soft_wrap=True)

    def _summary(self) -> str:
        ended = [row for row in self.rows.values() if row.state in (DONE, FAILED)]
        total = self.done_before + len(self.rows)
        text = f"{self.done_before + len(ended)} of {total} trials"
        left = len(self.rows) - len(ended)
        if ended and left:
            rate = (time.monotonic() - self.began) / len(ended)
            text += f", about {_duration(rate * left)} left"
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


def _steps(planned: PlannedTrial) -> int:
    return 0 if planned.trial.cell == "frozen" else planned.trial.train.steps


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
