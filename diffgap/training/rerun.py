"""`diffgap rerun`: a trial once more, from what is recorded of it, held against what it gave."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from diffgap.encoders.builtin import open_store, store_problem, store_uri
from diffgap.errors import UserError
from diffgap.io.paths import local_copy
from diffgap.io.redact import HIDDEN
from diffgap.ledger.ledger import Ledger, TrialRecord
from diffgap.ledger.provenance import git_commit, package_versions
from diffgap.spec import Trial

COST = "cost/train_seconds"
"""The one metric that no two runs share."""


@dataclass(frozen=True)
class Comparison:
    """A repeated trial beside the recorded one."""

    difference: float
    """The largest of the weights'; 0 is bit for bit."""
    metrics: dict[str, tuple[float, float]]
    """Recorded and repeated, of those that differ."""

    @property
    def equal(self) -> bool:
        return self.difference == 0 and not self.metrics


def rerun(
    ledger: Ledger, signature: str, store: str | None, console: Console
) -> tuple[TrialRecord, Comparison | None]:
    """Repeats a trial in this process, into OUTPUT/reruns.

    Args:
        ledger: which knows the trial.
        signature: the trial's, or its beginning.
        store: where its store is now; default where it was.
        console: for people.

    Returns:
        The repeated trial, and how it compares; None where the first never finished.

    Raises:
        UserError: where the trial's facts or its store cannot be had.
    """
    record = ledger.find(signature)
    facts, config = _facts(record), _config(record)
    uri = _store(facts, store)
    for line in _changed_since(config):
        console.print(line, style="yellow", soft_wrap=True)
    repeated = Ledger(ledger.output / "reruns")
    again = repeated.trial(record.path.name)
    again.forget()
    _train(Trial.model_validate(facts["trial"]), again, uri, repeated, config, console)
    return again, _compare(record, again) if record.finished else None


def _train(
    trial: Trial,
    again: TrialRecord,
    uri: str,
    repeated: Ledger,
    config: dict[str, Any],
    console: Console,
) -> None:
    import torch

    from diffgap.spec import training_signature
    from diffgap.store.store import EmbeddingStore
    from diffgap.training.local import train_here

    fingerprint = EmbeddingStore.open(uri).fingerprint
    repeated.forget_training(training_signature(trial, fingerprint))
    if "threads" in config:
        torch.set_num_threads(config["threads"])  # sums are taken in another order otherwise
    train_here(trial, again.path.name, uri, repeated, console)


def _facts(record: TrialRecord) -> dict[str, Any]:
    if facts := record.facts:
        return facts
    raise UserError(
        f"trial {record.path.name} has no trial.json, which says what it was; run its sweep again"
    )


def _config(record: TrialRecord) -> dict[str, Any]:
    path = record.bridge / "config.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _store(facts: dict[str, Any], given: str | None) -> str:
    """The trial's store; its content must be what it was."""
    name = given or facts["store"]
    if HIDDEN in name:
        raise UserError(f"store: {name} was recorded without its secrets; give --store URI")
    if problem := store_problem(name):
        raise UserError(f"store: {problem}; give --store PATH")
    if open_store(name).fingerprint != facts["fingerprint"]:
        raise UserError(f"store: the content of {name} is not what it was; give --store PATH")
    return store_uri(name)


def _changed_since(config: dict[str, Any]) -> list[str]:
    """What is not as it was when the trial was recorded, a line each."""
    then = {"git commit": config.get("git_commit")} | config.get("packages", {})
    now = {"git commit": git_commit()} | package_versions()
    return [
        f"{name} is {now[name]} now; it was {then[name]}"
        for name in now
        if then.get(name) and then[name] != now[name]
    ]


def _compare(record: TrialRecord, again: TrialRecord) -> Comparison:
    from safetensors.torch import load_file

    with local_copy(record.bridge) as old, local_copy(again.bridge) as new:
        first, second = (load_file(path / "bridge.safetensors") for path in (old, new))
    same = first.keys() == second.keys()
    differences = [float((first[n] - second[n]).abs().max()) for n in first] if same else [1.0]
    was, now = record.metrics(), again.metrics()
    names = sorted((was.keys() | now.keys()) - {COST})
    nan = float("nan")
    metrics = {n: (was.get(n, nan), now.get(n, nan)) for n in names if was.get(n) != now.get(n)}
    return Comparison(max(differences, default=0.0), metrics)
