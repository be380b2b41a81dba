"""Repetition of a recorded trial, compared with its record: `diffgap rerun`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from diffgap.bridge.files import WEIGHTS
from diffgap.encoders.builtin import open_store, store_problem, store_uri
from diffgap.errors import UserError
from diffgap.io.paths import local_copy
from diffgap.io.redact import HIDDEN
from diffgap.ledger.ledger import Ledger, TrialRecord
from diffgap.ledger.provenance import git_commit, package_versions
from diffgap.spec import Trial, training_signature
from diffgap.training.local import train_here

COST = "cost/train_seconds"  # the one metric that no two runs share


@dataclass(frozen=True)
class RerunDifference:
    """What differs between a repeated trial and its record."""

    weights: float
    """The largest absolute difference of a weight; infinite where the weights' names differ."""
    metrics: dict[str, tuple[float, float]]
    """Recorded and repeated values of the metrics that differ; NaN where there is none."""

    @property
    def is_none(self) -> bool:
        """Whether the trials are equal, bit for bit."""
        return self.weights == 0 and not self.metrics


def rerun(
    ledger: Ledger,
    signature: str,
    store: str | None,
    console: Console,
    advance: Callable[[int, int], None],
) -> tuple[TrialRecord, RerunDifference | None]:
    """Repeats a trial in this process, into OUTPUT/reruns.

    The signature may be its beginning only; `store` is where the store is now, if it has moved.
    Returns the repeated trial and its difference, None where the recorded one never finished.

    Raises:
        UserError: where the trial's facts or its store are missing, or the store has changed.
    """
    record = ledger.find(signature)
    facts, config = _facts(record), _config(record)
    uri = _store_uri(facts, store)
    for line in _changes_since(config):
        console.print(line, style="yellow", soft_wrap=True)
    trial = Trial.model_validate(facts["trial"])
    reruns = Ledger(ledger.output / "reruns")
    repeated = reruns.trial(record.path.name)
    repeated.forget()
    reruns.forget_training(training_signature(trial, facts["fingerprint"]))
    if "threads" in config:
        torch.set_num_threads(config["threads"])  # the order of sums depends on it
    train_here(trial, repeated.path.name, uri, reruns, advance)
    return repeated, _difference(record, repeated) if record.finished else None


def _facts(record: TrialRecord) -> dict[str, Any]:
    facts, name = record.facts, record.path.name
    if facts is None:
        raise UserError(f"trial {name} has no trial.json, which describes it; run its sweep again")
    return facts


def _config(record: TrialRecord) -> dict[str, Any]:
    path = record.bridge / "config.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _store_uri(facts: dict[str, Any], store: str | None) -> str:
    """The trial's store, at its present place; its content must be the recorded one."""
    name = store or facts["store"]
    if HIDDEN in name:
        raise UserError(f"store: {name} was recorded without its secrets; give --store URI")
    problem = store_problem(name)
    if problem:
        raise UserError(f"store: {problem}; give --store PATH")
    if open_store(name).fingerprint != facts["fingerprint"]:
        raise UserError(f"store: the content of {name} has changed; give --store PATH")
    return store_uri(name)


def _changes_since(config: dict[str, Any]) -> list[str]:
    """The versions that differ from the recorded ones, a line each."""
    recorded = {"git commit": config.get("git_commit")} | config.get("packages", {})
    current = {"git commit": git_commit()} | package_versions()
    lines = []
    for name, version in current.items():
        if recorded.get(name) and recorded[name] != version:
            lines.append(f"{name} is {version} now; it was {recorded[name]}")
    return lines


def _difference(record: TrialRecord, repeated: TrialRecord) -> RerunDifference:
    with local_copy(record.bridge) as old, local_copy(repeated.bridge) as new:
        weights = _weight_difference(*(load_file(path / WEIGHTS) for path in (old, new)))
    recorded, current = record.metrics(), repeated.metrics()
    metrics = {}
    for name in sorted((recorded.keys() | current.keys()) - {COST}):
        if recorded.get(name) != current.get(name):
            metrics[name] = recorded.get(name, math.nan), current.get(name, math.nan)
    return RerunDifference(weights, metrics)


def _weight_difference(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> float:
    if old.keys() != new.keys():
        return math.inf
    return max((float((old[name] - new[name]).abs().max()) for name in old), default=0.0)
