"""Optuna's side of a study: the journal that keeps it, its name there, and its sampler."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from diffgap.errors import UserError
from diffgap.io.paths import StoragePath
from diffgap.sweep.plan import Plan

STARTUP_TRIALS = 10  # random trials before TPE models their values


def backend(journal: StoragePath) -> Any:
    """Optuna's backend for a journal, which only the search's own process writes."""
    from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

    if isinstance(journal, Path):
        path = journal
        path.parent.mkdir(parents=True, exist_ok=True)
        # Left by a process that was killed; Optuna would wait half a minute for it.
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)

        class LocalBackend(JournalFileBackend):
            """Lines of JSON in a file, of which a killed process may leave half a one."""

            def append_logs(self, logs: list[dict[str, Any]]) -> None:
                _drop_half_line(path)  # or the next would continue it, and none be readable
                super().append_logs(logs)

        return LocalBackend(str(path))

    class RemoteBackend(BaseJournalBackend):
        """Lines of JSON in one object, which is written anew with each: none can be appended."""

        def __init__(self) -> None:
            self._lines = journal.read_text().splitlines() if journal.is_file() else []

        def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
            return list(map(json.loads, self._lines[log_number_from:]))

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            self._lines += map(json.dumps, logs)
            journal.write_bytes("".join(f"{line}\n" for line in self._lines).encode())

    return RemoteBackend()


def _drop_half_line(journal: Path) -> None:
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(journal, whole)


def read_problem(journal: StoragePath, error: ValueError) -> UserError:
    """A journal that Optuna cannot read, as an error for users."""
    return UserError(
        f"{journal}: cannot be read ({error}); delete it, and the search draws the same trials "
        "again, of which the finished ones are not repeated"
    )


def study_identity(plan: Plan, point: Mapping[str, Any]) -> str:
    """A study's name in its journal: it changes with whatever makes values incomparable."""
    content = {
        "trial": plan.spec.trial.model_dump(mode="json", exclude={"generation"}),
        "task": plan.spec.task,
        "store": plan.fingerprint,
        "seeds": plan.spec.seed_list,
        "point": point,
        # A search may be prolonged: its length does not count.
        "search": plan.spec.search and plan.spec.search.model_dump(mode="json", exclude={"trials"}),
        "scheduler": plan.spec.scheduler and plan.spec.scheduler.model_dump(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def make_sampler(optuna: Any, kind: str, seed: int) -> Any:
    """The sampler of a search: random, or the multivariate tree-structured Parzen estimator."""
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():  # multivariate TPE counts as experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, n_startup_trials=STARTUP_TRIALS
        )
