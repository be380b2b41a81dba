"""Display of a running sweep: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from diffgap.ledger.states import TrialState
from diffgap.sweep.plan import PlannedTrial

STYLES = {
    TrialState.WAITING: "dim",
    TrialState.RUNNING: "cyan",
    TrialState.FINISHED: "green",
    TrialState.STOPPED: "yellow",
    TrialState.PAUSED: "dim",
    TrialState.FAILED: "bold red",
}


@dataclass
class _Row:
    label: str
    steps: int
    state: TrialState = TrialState.WAITING
    step: int = 0
    recall: str = ""
    started_at: float | None = None
    seconds: float = 0.0

    def elapsed(self) -> float:
        """Seconds since it was started, in this run of the sweep."""
        return time.monotonic() - self.started_at if self.started_at else 0.0


class SweepDisplay:
    """Shows trials as they start, advance and end; use it as a context.

    Args:
        total: the sweep's trials, with those that are finished.
        to_run: how many of them this run is to finish.
        quiet: show nothing but warnings.
    """

    def __init__(self, console: Console, total: int, to_run: int, quiet: bool = False) -> None:
        self.console, self.to_run, self.quiet = console, to_run, quiet
        self._finished_before = max(0, total - to_run)
        self.best: tuple[float, str] | None = None
        self.rows: dict[str, _Row] = {}
        self.started_at = time.monotonic()
        self.live = Live(
            get_renderable=self._table,
            console=console,
            refresh_per_second=2,
            redirect_stdout=False,  # what Tune prints goes elsewhere: see `tune.run_searcher`
            redirect_stderr=False,
        )

    def __enter__(self) -> SweepDisplay:
        if self.console.is_terminal and not self.quiet:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()  # does nothing where it was not started

    def counts(self) -> dict[str, int]:
        """How many trials are in each state; those of earlier runs are finished."""
        counts = Counter(row.state for row in self.rows.values())
        counts[TrialState.FINISHED] += self._finished_before
        counts[TrialState.WAITING] += max(0, self.to_run - len(self.rows))  # a search draws later
        return {state: counts[state] for state in TrialState if counts[state]}

    def warn(self, text: str) -> None:
        self.console.print(text, style="yellow", soft_wrap=True)

    def note(self, text: str) -> None:
        """Says something that only explains what is going on."""
        if not self.quiet:
            self.warn(text)

    def add(self, planned: PlannedTrial) -> None:
        steps = planned.trial.train.steps if planned.trial.trains else 0
        self.rows[planned.signature] = _Row(planned.label, steps)

    def started(self, signature: str) -> None:
        row = self.rows[signature]
        row.state, row.started_at = TrialState.RUNNING, time.monotonic()
        self._print(row, "started")

    def progress(self, signature: str, step: int, metrics: Mapping[str, float]) -> None:
        """A trial has ended an epoch; `metrics` are its latest."""
        row = self.rows[signature]
        row.step = step
        recalls = [value for name, value in metrics.items() if name.endswith("/R5")]
        if recalls:  # of both directions; an epoch without a validation has none
            row.recall = " / ".join(map("{:.1f}".format, recalls))
            if self.best is None or mean(recalls) > self.best[0]:
                self.best = mean(recalls), row.label
        recall = f", val R@5 {row.recall}" if recalls else ""
        self._print(row, f"step {step}/{row.steps}{recall}")

    def finished(self, signature: str) -> None:
        row = self._end(signature, TrialState.FINISHED)
        row.step = row.steps
        self._print(row, f"finished in {row.seconds:.0f} s; {self._summary()}")

    def stopped(self, signature: str, reason: str) -> None:
        row = self._end(signature, TrialState.STOPPED)
        self._print(row, f"stopped at step {row.step}: {reason}; {self._summary()}")

    def paused(self, signature: str) -> None:
        # One that is not running waits as before, or is paused already.
        if self.rows[signature].state == TrialState.RUNNING:
            row = self._end(signature, TrialState.PAUSED)
            self._print(row, f"paused at step {row.step}")

    def failed(self, signature: str, reason: str) -> None:
        self._print(self._end(signature, TrialState.FAILED), f"FAILED: {reason}")

    def _end(self, signature: str, state: TrialState) -> _Row:
        row = self.rows[signature]
        row.state, row.seconds = state, row.elapsed()
        return row

    def _print(self, row: _Row, event: str) -> None:
        if not (self.console.is_terminal or self.quiet):  # a terminal has the table
            self.console.print(f"  {row.label}: {event}", soft_wrap=True)

    def _summary(self) -> str:
        ended = sum(row.state.is_final for row in self.rows.values())
        # A population's copies and a search's winners on test come on top of `total`.
        to_run, before = max(self.to_run, len(self.rows)), self._finished_before
        text = f"{before + ended} of {before + to_run} trials"
        if ended and ended < to_run:
            seconds_each = (time.monotonic() - self.started_at) / ended
            text += f", about {duration(seconds_each * (to_run - ended))} left"
        if self.best:
            text += f"; best R@5 on val so far {self.best[0]:.1f} ({self.best[1]})"
        return text

    def _visible_rows(self) -> list[_Row]:
        """The rows that fit the screen: all, or those that are running and that ended last."""
        capacity = max(5, self.console.height - 5)  # header, summary and some air
        rows = list(self.rows.values())
        if len(rows) <= capacity:
            return rows
        started = [row for row in rows if row.state != TrialState.WAITING]
        # The running ones at the end, whatever their start: they are what is cut off last.
        started.sort(key=lambda row: (row.state == TrialState.RUNNING, row.started_at or 0.0))
        return started[-capacity:]

    def _table(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for header in ("trial", "state", "steps", "", "val R@5", "time"):
            table.add_column(header)
        for row in self._visible_rows():
            seconds = row.elapsed() if row.state == TrialState.RUNNING else row.seconds
            table.add_row(
                row.label,
                Text(row.state, style=STYLES[row.state]),
                f"{row.step}/{row.steps}" if row.steps else "no training",
                ProgressBar(total=max(1, row.steps), completed=row.step, width=20),
                row.recall,
                duration(seconds) if seconds else "",
            )
        states = ", ".join(f"{count} {state}" for state, count in self.counts().items())
        return Group(table, Text(f"{states}. {self._summary()}"))


def duration(seconds: float) -> str:
    """Seconds as people write them: ``2 min 05 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
