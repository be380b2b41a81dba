"""Optuna's side of a study: the journal that keeps it, its name there, and its sampler."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from diffgap.io.paths import RemotePath, StoragePath
from diffgap.sweep.plan import Plan

STARTUP_TRIALS = 10  # random trials before TPE models their values


def backend(journal: StoragePath) -> Any:
    """Optuna's backend for a journal, which only the search's own process writes."""
    from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

    if not isinstance(journal, RemotePath):
        journal.parent.mkdir(parents=True, exist_ok=True)
        return JournalFileBackend(str(journal))

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
