"""Checks of a request before anything is started: one list for a run and for its dry run.

A spec has been checked by itself by then (`diffgap.spec`). Here it meets its store, this machine
and the output. What only the nodes of a cluster can tell is checked on them: see `preflight`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain, permutations

from diffgap import corpora
from diffgap.bridge.registry import METHODS
from diffgap.cluster.capacity import local_problem
from diffgap.encoders.builtin import BUILTIN_ENCODER
from diffgap.errors import UserError, require
from diffgap.generation import encoder_mismatch
from diffgap.ledger.leases import sweep_lock
from diffgap.ledger.ledger import Ledger
from diffgap.spec import SweepSpec
from diffgap.spec.plausible import oddities, values_of
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
    tasks = [f"{x}-{a}" for x, a in permutations(names, 2) if a != TEXT]
    problems = [
        f"task: {task!r} cannot be done on {spec.store}, which serves {', '.join(tasks)}; choose "
        "one of these, or another store"
        for task in spec.tasks
        if task not in tasks
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


def check_sound(spec: SweepSpec, corpus: str, address: str | None) -> None:
    """UserError where trials of generation would train first and then miss what they measure with.

    `corpus` is the store's. Files of a cluster that is joined are looked for by its nodes alone.
    """
    if spec.generators == ["none"]:
        return
    problems = list(_corpus_problems(spec, corpus))
    if not joins(address):
        problems += _missing_files(spec)
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
    if not joins(address) and (problem := local_problem(spec.resources)):
        raise UserError(problem)


def joins(address: str | None) -> bool:
    """Whether a command joins a cluster; else it starts a local Ray."""
    return bool(address or os.environ.get("RAY_ADDRESS"))


def remarks(spec: SweepSpec, store: EmbeddingStore | None) -> Iterator[str]:
    """What is unusual about a request, though it can be done: one line each."""
    yield from oddities(spec)
    batch = max(values_of(spec, "train.batch_size"))
    for task in spec.tasks if store and _trains(spec) else ():
        _, pairs = store.size(task, "train") if store else (0, 0)
        if batch > pairs:
            yield (
                f"train.batch_size: {batch} is more than the {pairs} pairs that {spec.store} has "
                f"to train {task}, so every batch holds some of them several times"
            )


def _trains(spec: SweepSpec) -> bool:
    return any(METHODS[method].trained for method in values_of(spec, "method"))


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


def _corpus_problems(spec: SweepSpec, corpus: str) -> Iterator[str]:
    """Why the sound of a corpus's own clips, to compare with, cannot be read."""
    if corpus not in corpora.CORPORA:
        yield (
            f"store: {spec.store} is of the corpus {corpus!r}, whose sound diffgap cannot read; "
            "use a store that `diffgap embed` made"
        )
        return
    for directory in values_of(spec, "generation.audio"):
        if directory and corpus in corpora.BUILTIN:
            yield f"generation.audio: {corpus} is generated, not read; leave {directory} out"
        elif not directory and corpus not in corpora.BUILTIN:
            yield f"generation.audio: is missing; give the directory of the {corpus} corpus"


def _missing_files(spec: SweepSpec) -> Iterator[str]:
    for directory in values_of(spec, "generation.audio"):
        if directory and not os.path.isdir(directory):
            yield f"generation.audio: no directory {directory}; give that of the store's corpus"
    for extractor in chain.from_iterable(values_of(spec, "generation.extractors")):
        name, _, weights = extractor.partition("=")
        if weights and not os.path.isfile(weights):
            yield f"generation.extractors: {name} has no file {weights}; give the path of one"
    for field in ("generation.weights", "generation.encoder"):
        for weights in values_of(spec, field):
            # Others may be the id of a hub.
            is_path = weights and weights.startswith(("/", "./", "../", "~"))
            if is_path and not os.path.exists(os.path.expanduser(weights)):
                yield f"{field}: {weights} does not exist; give the path of a checkpoint"


def _raise(problems: list[str]) -> None:
    if problems:
        raise UserError(*problems)
