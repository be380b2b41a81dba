"""Fields of a sweep that are right alone and wrong together."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from diffgap.bridge.registry import METHODS
from diffgap.spec.blocks import Train
from diffgap.spec.document import Key
from diffgap.spec.sweep import Scheduler, Search, SweepSpec
from diffgap.spec.trial import TUNABLE, Trial

Problems = Iterator[tuple[tuple[Key, ...], str]]
"""Paths of the fields that do not go together, and what to do."""


def combinations(spec: SweepSpec) -> Problems:
    """Fields that are right alone and wrong together: their paths, and what to do."""
    resources = spec.resources
    gpus: Key = ("resources", "gpus_per_worker")
    workers: Key = ("resources", "workers")
    if resources.gpus_per_worker > 1:
        yield (
            (gpus,),
            f"{resources.gpus_per_worker:g} is more than a worker can use; keep 1 and raise "
            "resources.workers",
        )
    if resources.gpus_per_worker % 1 and resources.workers > 1:
        yield (
            (gpus, workers),
            f"{resources.gpus_per_worker:g} with {resources.workers} workers would put two ranks "
            "on one GPU, which NCCL refuses; use 1, or one worker",
        )

    def at(field: str) -> Key:
        return ("axes", field) if field in spec.axes else ("trial", *field.split("."))

    yield from _batched(spec, at)
    yield from _search_combinations(spec)
    yield from _generation_combinations(spec, at)
    yield from _method_combinations(spec, at)
    if spec.score_is_idle:
        yield (
            (at("score.kind"), at("cdm.enabled"), at("bst.enabled")),
            "'cosine' would score every trained bridge without using it; use bridge, sample or "
            "rerank",
        )
    told = set()
    for trial in spec.trials():
        for fields, problem in _trial_combinations(trial, resources.workers):
            if problem not in told:
                told.add(problem)
                yield (*(at(field) for field in fields), workers), problem


def _batched(spec: SweepSpec, at: Callable[[str], Key]) -> Problems:
    """Trials that train as one network need a pack, and weights that nobody shares out."""
    resources, mode = spec.resources, ("resources", "pack_mode")
    if resources.pack_mode != "batched":
        return
    if resources.pack in ("off", 1):
        yield (
            (mode, ("resources", "pack")),
            f"'batched' with pack {resources.pack} has nothing to train at once; use pack auto",
        )
    if any(spec.axes.get("train.zero_stage", [spec.trial.train.zero_stage])):
        yield (
            (mode, at("train.zero_stage")),
            "'batched' needs train.zero_stage 0; use in_turn, or leave the stage out",
        )


def _search_combinations(spec: SweepSpec) -> Problems:
    if spec.scheduler and not spec.search:
        yield (("scheduler",),), "has no search to schedule; add search:, or take it out"
    if not spec.search:
        return
    for field in set(spec.axes) & set(spec.search.space):
        yield ((("axes", field),), "is searched as well; keep it in axes or in search.space")
    if spec.scheduler:
        check = _asha if spec.scheduler.kind == "asha" else _pbt
        yield from check(spec, spec.search, spec.scheduler)


def _generation_combinations(spec: SweepSpec, at: Callable[[str], Key]) -> Problems:
    """Sweeps that make sound are told in tables of their own, and no search looks at it."""
    tables: Key = ("report", "tables")
    generator = at("generation.generator")
    made = {name != "none" for name in spec.generators}
    if len(made) > 1:
        yield ((generator,), "'none' beside others mixes recall and sound; give each its own sweep")
        return
    if made == {True}:
        if spec.search:
            yield (("search",),), "looks at recall, and these trials make sound; cross axes instead"
        if others := [table for table in spec.report.tables if table != "generation"]:
            yield (
                (tables, generator),
                f"{others[0]!r} tells of recall, and these trials make sound; use [generation]",
            )
        return
    if "generation" in spec.report.tables:
        yield (
            (tables, generator),
            "'generation' needs trials that make sound; use trial.generation.generator: soundscape",
        )
    if "task" in spec.axes:
        yield (
            (("axes", "task"),),
            "recall is compared within one task; set task, and give each a sweep of its own",
        )


def _asha(spec: SweepSpec, search: Search, scheduler: Scheduler) -> Problems:
    steps = spec.trial.train.steps
    if scheduler.min_steps >= steps and "train.steps" not in search.space:
        yield (
            (("scheduler", "min_steps"),),
            f"{scheduler.min_steps} is past the last of {steps} steps; use {max(1, steps // 3)}",
        )


def _pbt(spec: SweepSpec, search: Search, scheduler: Scheduler) -> Problems:
    train, interval = spec.trial.train, scheduler.interval
    at: Key = ("scheduler", "interval")
    if interval % train.epoch_steps:
        yield (
            (at, ("trial", "train", "epoch_steps")),
            f"{interval} is not a multiple of train.epoch_steps {train.epoch_steps}, after which "
            f"trials are compared; use {train.epoch_steps}",
        )
    if interval >= train.steps:
        yield ((at,), f"{interval} is past the last of {train.steps} steps; use a quarter of them")
    if search.trials < 2:
        yield ((("search", "trials"),), "1 is no population; use 8")
    if len(spec.seed_list) > 1:
        yield (
            (("seeds",),),
            f"{len(spec.seed_list)} seeds of one population; use 1, and sweep the winner with more",
        )
    for field in search.space:
        if field not in TUNABLE:
            yield (
                (("search", "space", field),),
                "cannot change while a trial trains, as pbt wants it; use asha, or one of "
                + ", ".join(TUNABLE),
            )


def _method_combinations(spec: SweepSpec, at: Callable[[str], Key]) -> Problems:
    """Methods decide on CDM and BST themselves; only DiffGAP leaves them open."""
    methods = spec.axes.get("method", [spec.trial.method])
    others = [method for method in methods if method != "diffgap"]
    for block in ("cdm", "bst"):
        given = "enabled" in getattr(spec.trial, block).model_fields_set
        if others and (given or f"{block}.enabled" in spec.axes):
            yield (
                (at(f"{block}.enabled"),),
                f"is decided by method {others[0]}; take it out, or use method diffgap alone",
            )


def _trial_combinations(trial: Trial, workers: int) -> Iterator[tuple[tuple[str, ...], str]]:
    if trial.trains and trial.loss.denoising_weight == 0 and trial.loss.infonce_weight == 0:
        yield (
            ("loss.denoising_weight", "loss.infonce_weight"),
            "0 with infonce_weight 0 leaves nothing to minimise; use 1",
        )
    batch = trial.train.batch_size
    yield from _sharing(trial.train, workers)
    yield from _weights(trial)
    bridged = trial.generates and trial.generation.condition == "bridged"
    if bridged and not METHODS[trial.method].carries_to_target:
        suitable = [method.name for method in METHODS.values() if method.carries_to_target]
        yield (
            ("method", "cdm.enabled", "bst.enabled", "generation.condition"),
            f"{trial.method} has no way to embeddings that a generator knows; use "
            f"{' or '.join(suitable)}, or generation.condition query",
        )
    yield from _offload(trial.train)
    forward = round(batch * trial.bst.fraction)
    if trial.bst.enabled and trial.bst.mode == "split" and forward in (0, batch):
        yield (
            ("bst.fraction", "train.batch_size", "bst.mode", "bst.enabled"),
            f"{trial.bst.fraction} of a batch of {batch} leaves one direction without a pair; "
            "use 0.5, or a larger train.batch_size",
        )


def _weights(trial: Trial) -> Iterator[tuple[tuple[str, ...], str]]:
    """What trials of generation load, and does not come with this package."""
    wanted = trial.generation
    if wanted.generator == "diff_foley" and wanted.weights is None:
        yield (
            ("generation.weights", "generation.generator"),
            "diff_foley has none of its own; give the path of ldm_epoch240.ckpt",
        )
    if wanted.generator == "soundscape" and wanted.weights is not None:
        yield (
            ("generation.weights", "generation.generator"),
            f"{wanted.weights!r}: soundscape comes with its own; take it out",
        )
    for name in wanted.extractors:
        if name != "soundscape" and "=" not in name:
            yield (("generation.extractors",), f"{name} needs weights; use {name}=PATH")


def _sharing(train: Train, workers: int) -> Iterator[tuple[tuple[str, ...], str]]:
    """A batch is cut into equal parts, so that the mean of their gradients is its own."""
    batch, parts = train.batch_size, workers * train.accumulation
    if batch % parts == 0:
        return
    by = f"{workers} workers"
    if train.accumulation > 1:
        by = f"{workers} x {train.accumulation} micro-batches (workers x train.accumulation)"
    yield (
        ("train.batch_size", "train.accumulation"),
        f"{batch} cannot be shared evenly by {by}; use {batch - batch % parts or parts}",
    )


NEEDED_STAGE = {"none": 0, "optimizer": 1, "parameters": 3}
"""The ZeRO stage from which on DeepSpeed can keep something in the CPU's memory."""


def _offload(train: Train) -> Iterator[tuple[tuple[str, ...], str]]:
    needed = NEEDED_STAGE[train.offload]
    if train.zero_stage < needed:
        yield (
            ("train.offload", "train.zero_stage"),
            f"{train.offload!r} needs train.zero_stage {needed}{' or more' * (needed < 3)}, not "
            f"{train.zero_stage}; use train.zero_stage {needed}, or offload none",
        )
