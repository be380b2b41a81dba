"""Checks of a request before anything is started: one list for a run and for its dry run.

A spec has been checked by itself by then (`diffgap.spec`). Here it meets its store, this machine
and the output. What only the nodes of a cluster can tell is checked on them: see `preflight`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import permutations

from diffgap import corpora
from diffgap.bridge.registry import METHODS
from diffgap.cluster.capacity import local_problem
from diffgap.encoders.builtin import BUILTIN_ENCODER
from diffgap.errors import UserError, require
from diffgap.generation import encoder_mismatch
from diffgap.ledger.leases import sweep_lock
from diffgap.ledger.ledger import Ledger
from diffgap.spec import SweepSpec
from diffgap.spec.plausible import oddities
from diffgap.store.schema import TEXT, split_task
from diffgap.store.store import EmbeddingStore
from diffgap.tracking.client import tracking_uri

FEW = 2
"""Clips of a split from which on a rank among them says something, and a batch has two pairs."""


def check_unbuilt(spec: SweepSpec) -> None:
    """UserError for what a built-in store cannot serve, before a minute goes into building it."""
    if spec.store not in corpora.BUILTIN:
        return
    names = corpora.load(spec.store, None).modalities
    served = [f"{x}-{a}" for x, a in permutations(names, 2) if a != TEXT]
    problems = [
        f"task: {task!r} cannot be done on {spec.store}, which serves {', '.join(served)}; choose "
        "one of these, or another store"
        for task in spec.tasks
        if task not in served
    ]
    _raise(problems + list(_generator_problems(spec, BUILTIN_ENCODER)))


def check_store(spec: SweepSpec, store: EmbeddingStore) -> None:
    """UserError with everything that a store lacks for the trials of a spec."""
    problems = list(_generator_problems(spec, store.manifest.encoder.name))
    for task in spec.tasks:
        if problem := store.task_problem(task, spec.store):
            problems.append(problem)
        else:
            problems += _split_problems(spec, store, task)
    _raise(problems)


def check_run(spec: SweepSpec, ledger: Ledger) -> None:
    """UserError where the sweep cannot be run now, whatever its trials are."""
    if spec.search:
        require("optuna", "search", "a search")
    tracking_uri(ledger.output)  # raises where there is no place for MLflow's records
    if problem := sweep_lock(ledger.output, spec.name).problem():
        raise UserError(problem)


def check_room(spec: SweepSpec, address: str | None) -> None:
    """UserError where no trial fits this machine, and there is no cluster to join."""
    if not (address or os.environ.get("RAY_ADDRESS")) and (
        problem := local_problem(spec.resources)
    ):
        raise UserError(problem)


def remarks(spec: SweepSpec, store: EmbeddingStore | None) -> Iterator[str]:
    """What is unusual about a request, though it can be done: one line each."""
    yield from oddities(spec)
    batch = max(spec.axes.get("train.batch_size") or [spec.trial.train.batch_size])
    for task in spec.tasks if store and _trains(spec) else ():
        _, pairs = store.size(task, "train") if store else (0, 0)
        if batch > pairs:
            yield (
                f"train.batch_size: {batch} is more than the {pairs} pairs that {spec.store} has "
                f"to train {task}, so every batch holds some of them several times"
            )


def _trains(spec: SweepSpec) -> bool:
    methods = spec.axes.get("method") or [spec.trial.method]
    return any(METHODS[method].trained for method in methods)


def _split_problems(spec: SweepSpec, store: EmbeddingStore, task: str) -> Iterator[str]:
    uses = {"train": "trials are trained on it", "val": "trials are chosen by it"}
    uses[spec.split] = "trials are evaluated on it"
    if not _trains(spec) and not spec.search and spec.split != "val":
        del uses["val"]
    with_text = " with a caption" if split_task(task)[0] == TEXT else ""
    for split, use in uses.items():
        clips, _ = store.size(task, split)
        if clips >= FEW:
            continue
        count = "no clip" if clips == 0 else "one clip"
        remedy = "make a store with more of them"
        if use.endswith("evaluated on it") and store.size(task, "val")[0] >= FEW:
            remedy = "use split: val, or a store that has some"
        where = f"{with_text} in its split {split!r}"
        yield f"store: {spec.store} has {count}{where}, and {use}; {remedy}"


def _generator_problems(spec: SweepSpec, encoder: str) -> Iterator[str]:
    for name in spec.generators:
        if problem := encoder_mismatch(name, encoder):
            yield f"generation.generator: {problem}; use one that fits the store"


def _raise(problems: list[str]) -> None:
    if problems:
        raise UserError(*problems)
