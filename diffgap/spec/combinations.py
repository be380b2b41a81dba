"""Combinations of fields that are valid alone and invalid together.

Each check yields the fields that conflict, the one to report first, and what to do. Fields of a
trial are named as axes name them, others as in the file: ``bst.fraction``, ``resources.workers``.
"""

from __future__ import annotations

from collections.abc import Iterator

from diffgap.bridge.registry import METHODS
from diffgap.spec.blocks import Train
from diffgap.spec.document import Key, parse_key
from diffgap.spec.environment import danger
from diffgap.spec.plausible import mistakes
from diffgap.spec.sweep import Scheduler, Search, SweepSpec
from diffgap.spec.trial import TUNABLE, Trial

Conflicts = Iterator[tuple[tuple[str, ...], str]]


def combinations(spec: SweepSpec) -> Iterator[tuple[tuple[Key, ...], str]]:
    """All invalid combinations of a sweep: the paths of their fields, and what to do."""
    # Trials of one sweep mostly share their conflicts: a dict keeps each once, in order.
    for fields, problem in dict.fromkeys(_conflicts(spec)):
        yield tuple(_key(spec, field) for field in fields), problem


def _key(spec: SweepSpec, field: str) -> Key:
    """Where a field stands in the file: a trial's in its axis, if it has one."""
    if field in spec.axes:
        return ("axes", field)
    block = field.split(".")[0]
    return parse_key(field if block in SweepSpec.model_fields else f"trial.{field}")


def _conflicts(spec: SweepSpec) -> Conflicts:
    yield from _environment(spec)
    for field, problem in mistakes(spec):
        yield (field,), problem
    yield from _gpus(spec)
    yield from _batched_packs(spec)
    yield from _search(spec)
    yield from _generation(spec)
    yield from _method_cells(spec)
    if spec.score_is_idle:
        fields = ("score.kind", "cdm.enabled", "bst.enabled")
        yield fields, "'cosine' would never use the trained bridges; use bridge, sample or rerank"
    for trial in spec.trials():
        yield from _trial(trial, spec.resources.workers)


def _environment(spec: SweepSpec) -> Conflicts:
    for name in spec.resources.environment:
        if harm := danger(name):
            yield (f"resources.environment.{name}",), harm


def _gpus(spec: SweepSpec) -> Conflicts:
    gpus, workers = spec.resources.gpus_per_worker, spec.resources.workers
    if gpus > 1:
        remedy = "keep 1 and raise resources.workers"
        yield ("resources.gpus_per_worker",), f"{gpus:g} is more than a worker can use; {remedy}"
    if gpus % 1 and workers > 1:
        yield (
            ("resources.gpus_per_worker", "resources.workers"),
            f"{gpus:g} with {workers} workers would put two ranks on one GPU, which NCCL refuses; "
            "use 1, or one worker",
        )


def _batched_packs(spec: SweepSpec) -> Conflicts:
    """Trials that train as one network need a pack, and weights that are not sharded."""
    if spec.resources.pack_mode != "batched":
        return
    pack = spec.resources.pack
    if pack in ("off", 1):
        yield (
            ("resources.pack_mode", "resources.pack"),
            f"'batched' with pack {pack} has only one trial to train at once; use pack auto",
        )
    if any(spec.axes.get("train.zero_stage", [spec.trial.train.zero_stage])):
        fields = ("resources.pack_mode", "train.zero_stage")
        yield fields, "'batched' needs train.zero_stage 0; use in_turn, or leave the stage out"


def _search(spec: SweepSpec) -> Conflicts:
    if not spec.search:
        if spec.scheduler:
            yield ("scheduler",), "has no search to schedule; add search:, or remove it"
        return
    for field in set(spec.axes) & set(spec.search.space):
        yield (field,), "is searched as well; keep it in axes or in search.space"
    if spec.scheduler and spec.scheduler.kind == "asha":
        yield from _asha(spec, spec.search, spec.scheduler)
    elif spec.scheduler:
        yield from _pbt(spec, spec.search, spec.scheduler)


def _asha(spec: SweepSpec, search: Search, scheduler: Scheduler) -> Conflicts:
    steps, first_rung = spec.trial.train.steps, scheduler.min_steps
    if first_rung >= steps and "train.steps" not in search.space:
        remedy = f"use {max(1, steps // 3)}"
        yield ("scheduler.min_steps",), f"{first_rung} is past the last of {steps} steps; {remedy}"


def _pbt(spec: SweepSpec, search: Search, scheduler: Scheduler) -> Conflicts:
    train, interval = spec.trial.train, scheduler.interval
    if interval % train.epoch_steps:  # trials can be compared only where they are validated
        yield (
            ("scheduler.interval", "train.epoch_steps"),
            f"{interval} is not a multiple of train.epoch_steps {train.epoch_steps}, after which "
            f"trials are compared; use {train.epoch_steps}",
        )
    if interval >= train.steps:
        problem = f"{interval} is past the last of {train.steps} steps; use a quarter of them"
        yield ("scheduler.interval",), problem
    if search.trials < 2:
        yield ("search.trials",), "a population needs 2 trials or more, not 1; use 8"
    seeds = len(spec.seed_list)
    if seeds > 1:
        remedy = "use 1, and sweep the winner with more"
        yield ("seeds",), f"a population has one seed, not {seeds}; {remedy}"
    remedy = f"use asha, or one of {', '.join(TUNABLE)}"
    for field in search.space:
        if field not in TUNABLE:
            problem = f"cannot change while a trial trains, as pbt requires; {remedy}"
            yield (f"search.space.{field}",), problem


def _generation(spec: SweepSpec) -> Conflicts:
    """Trials of generation have tables of their own, and searches optimise recall."""
    generators = set(spec.generators)
    fields = ("report.tables", "generation.generator")
    if "none" in generators and len(generators) > 1:
        problem = "'none' beside others mixes retrieval and generation; give each its own sweep"
        yield ("generation.generator",), problem
    elif generators == {"none"}:
        if "generation" in spec.report.tables:
            remedy = "use trial.generation.generator: soundscape"
            yield fields, f"'generation' needs trials that generate; {remedy}"
        if "task" in spec.axes:
            remedy = "set task, and give each task its own sweep"
            yield ("task",), f"recall is compared within one task; {remedy}"
    else:
        if spec.search:
            remedy = "use axes instead"
            yield ("search",), f"optimises recall, and these trials generate audio; {remedy}"
        others = [table for table in spec.report.tables if table != "generation"]
        if others:
            remedy = "use [generation]"
            yield (
                fields,
                f"{others[0]!r} compares recall, and these trials generate audio; {remedy}",
            )


def _method_cells(spec: SweepSpec) -> Conflicts:
    """Methods fix CDM and BST themselves; only DiffGAP leaves them open."""
    methods = spec.axes.get("method", [spec.trial.method])
    others = [method for method in methods if method != "diffgap"]
    for block in ("cdm", "bst"):
        field = f"{block}.enabled"
        is_set = field in spec.axes or "enabled" in getattr(spec.trial, block).model_fields_set
        if others and is_set:
            remedy = "remove it, or use method diffgap alone"
            yield (field,), f"is fixed by method {others[0]}; {remedy}"


def _trial(trial: Trial, workers: int) -> Conflicts:
    if trial.trains and trial.loss.denoising_weight == 0 and trial.loss.infonce_weight == 0:
        fields = ("loss.denoising_weight", "loss.infonce_weight")
        yield fields, "0 with infonce_weight 0 leaves nothing to minimise; use 1"
    if trial.trains:  # else its batch is the default, which nobody draws
        yield from _batch_shares(trial.train, workers)
    yield from _generation_weights(trial)
    yield from _generation_condition(trial)
    yield from _offload(trial.train)
    yield from _batch_split(trial)
    yield from _turns(trial)


def _batch_shares(train: Train, workers: int) -> Conflicts:
    batch, parts = train.batch_size, workers * train.accumulation
    if batch % parts == 0:  # only the mean over equal parts is the gradient of the whole batch
        return
    by = f"{workers} workers"
    if train.accumulation > 1:
        by = f"{workers} x {train.accumulation} micro-batches (workers x train.accumulation)"
    fields = ("train.batch_size", "train.accumulation", "resources.workers")
    yield fields, f"{batch} cannot be shared evenly by {by}; use {batch - batch % parts or parts}"


def _batch_split(trial: Trial) -> Conflicts:
    """BST in its split mode gives each direction a share of the batch."""
    batch, bst = trial.train.batch_size, trial.bst
    if bst.enabled and bst.mode == "split" and round(batch * bst.fraction) in (0, batch):
        yield (
            ("bst.fraction", "train.batch_size", "bst.mode", "bst.enabled"),
            f"{bst.fraction} of a batch of {batch} leaves one direction without a pair; "
            "use 0.5, or a larger train.batch_size",
        )


def _turns(trial: Trial) -> Conflicts:
    """BST in its alternating mode gives each direction a share of the steps."""
    steps, bst = trial.train.steps, trial.bst
    is_shared = 1 <= steps * bst.fraction <= steps - 1
    if bst.enabled and bst.mode == "alternate" and steps > 1 and not is_shared:
        yield (
            ("bst.fraction", "train.steps", "bst.mode", "bst.enabled"),
            f"{bst.fraction} of {steps} steps leaves one direction without a step; use 0.5",
        )


def _generation_weights(trial: Trial) -> Conflicts:
    """Weights that trials of generation load and this package does not ship."""
    generation = trial.generation
    fields = ("generation.weights", "generation.generator")
    if generation.generator == "diff_foley" and generation.weights is None:
        yield fields, "diff_foley ships without weights; give the path of ldm_epoch240.ckpt"
    if generation.generator == "soundscape" and generation.weights is not None:
        yield fields, f"{generation.weights!r}: soundscape ships its own weights; remove it"
    for name in generation.extractors:
        if name != "soundscape" and "=" not in name:
            yield ("generation.extractors",), f"{name} needs weights; use {name}=PATH"


def _generation_condition(trial: Trial) -> Conflicts:
    is_bridged = trial.generates and trial.generation.condition == "bridged"
    if not is_bridged or METHODS[trial.method].carries_to_target:
        return  # a generator knows only the encoder's own space
    suitable = [method.name for method in METHODS.values() if method.carries_to_target]
    yield (
        ("method", "cdm.enabled", "bst.enabled", "generation.condition"),
        f"{trial.method} does not reach the embeddings that a generator takes; use "
        f"{' or '.join(suitable)}, or generation.condition query",
    )


NEEDED_STAGE = {"none": 0, "optimizer": 1, "parameters": 3}
"""The ZeRO stage from which on DeepSpeed can keep something in the CPU's memory."""


def _offload(train: Train) -> Conflicts:
    needed = NEEDED_STAGE[train.offload]
    if train.zero_stage < needed:
        yield (
            ("train.offload", "train.zero_stage"),
            f"{train.offload!r} needs train.zero_stage {needed}{' or more' * (needed < 3)}, not "
            f"{train.zero_stage}; use train.zero_stage {needed}, or offload none",
        )
