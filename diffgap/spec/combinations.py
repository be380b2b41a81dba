"""Fields of a sweep that are right alone and wrong together."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from diffgap.spec.document import Key
from diffgap.spec.sweep import SweepSpec
from diffgap.spec.trial import Trial


def combinations(spec: SweepSpec) -> Iterator[tuple[tuple[Key, ...], str]]:
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

    yield from _search_combinations(spec)
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


def _search_combinations(spec: SweepSpec) -> Iterator[tuple[tuple[Key, ...], str]]:
    if spec.scheduler and not spec.search:
        yield (("scheduler",),), "has no search to schedule; add search:, or take it out"
    if not spec.search:
        return
    if spec.axes:
        yield (("axes",),), "would be crossed with a search; move them into search.space"
    if len(spec.seed_list) > 1:
        yield (
            (("seeds",),),
            f"{len(spec.seed_list)} seeds in a search; use 1, and the winner in a sweep with more",
        )
    scheduler, steps = spec.scheduler, spec.trial.train.steps
    if scheduler and scheduler.min_steps >= steps and "train.steps" not in spec.search.space:
        yield (
            (("scheduler", "min_steps"),),
            f"{scheduler.min_steps} is past the last of {steps} steps; use {max(1, steps // 3)}",
        )


def _method_combinations(
    spec: SweepSpec, at: Callable[[str], Key]
) -> Iterator[tuple[tuple[Key, ...], str]]:
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
    if batch % workers:
        below = batch - batch % workers or workers
        yield (
            ("train.batch_size",),
            f"{batch} cannot be shared evenly by {workers} workers; use {below}",
        )
    forward = round(batch * trial.bst.fraction)
    if trial.bst.enabled and trial.bst.mode == "split" and forward in (0, batch):
        yield (
            ("bst.fraction", "train.batch_size", "bst.mode", "bst.enabled"),
            f"{trial.bst.fraction} of a batch of {batch} leaves one direction without a pair; "
            "use 0.5, or a larger train.batch_size",
        )
