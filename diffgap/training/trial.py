"""One trial from its store to its bridge checkpoint: train, then evaluate once."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from diffgap.bridge.base import Bridge
from diffgap.bridge.config import BridgeConfig, Objective, ScoreConfig
from diffgap.bridge.methods import make_bridge
from diffgap.evaluation.evaluate import evaluate
from diffgap.io.atomic import new_directory
from diffgap.io.json_text import json_text
from diffgap.io.paths import local_copy
from diffgap.ledger.artifacts import CODE_DIFF, HISTORY, METRICS
from diffgap.ledger.ledger import Ledger, TrialRecord
from diffgap.ledger.provenance import code_diff, git_commit, hardware, package_versions
from diffgap.spec import Trial, training_signature
from diffgap.store.cache import open_again
from diffgap.store.schema import split_task
from diffgap.store.store import EmbeddingStore, Pairs
from diffgap.training.checkpoint import Best, HistoryPoint, Progress
from diffgap.training.context import TrialContext
from diffgap.training.data import PairTable
from diffgap.training.engine import process_group
from diffgap.training.loop import TrainingRecipe, train
from diffgap.training.results import trial_result

VALIDATION_SCORE = ScoreConfig("bridge")  # whatever the trial's own, so that all curves compare


def run_trial(
    trial: Trial, signature: str, store_uri: str, ledger: Ledger, context: TrialContext
) -> None:
    """Runs one trial on this worker; rank 0 writes the bridge checkpoint to the ledger.

    The bridge of a trial that differs in its score alone is reused, and only evaluated.

    Raises:
        DivergedError: where the loss is no number, or has exploded.
    """
    store = open_again(store_uri)
    bridge = fresh_bridge(trial, store, context.device)
    source = ledger.trained(training_signature(trial, store.fingerprint))
    if source:
        bridge, progress = _reuse(bridge, source, context.device)
    else:
        bridge, progress = _train(trial, store, bridge, context)
    if context.rank == 0:
        conclude(trial, signature, store, ledger, bridge, progress)


def fresh_bridge(trial: Trial, store: EmbeddingStore, device: torch.device) -> Bridge:
    """A trial's bridge before its first step, initialised by its seed."""
    torch.backends.cuda.matmul.allow_tf32 = True  # for training; scores are in full precision
    torch.manual_seed(trial.seed)
    return make_bridge(bridge_config(trial, store.manifest.dimension)).to(device)


def conclude(
    trial: Trial,
    signature: str,
    store: EmbeddingStore,
    ledger: Ledger,
    bridge: Bridge,
    progress: Progress,
) -> None:
    """Evaluates a trained bridge, once, and writes its checkpoint to the ledger."""
    result = trial_result(trial, bridge, store)
    with new_directory(ledger.trial(signature).bridge, METRICS) as path:
        bridge.save_pretrained(path, **_provenance(trial, signature, store), **result.facts)
        (path / CODE_DIFF).write_text(code_diff())
        result.write(path)
        (path / HISTORY).write_text(json_text([asdict(point) for point in progress.history]))
        metrics = {**result.metrics, **_costs(bridge, progress)}
        (path / METRICS).write_text(json_text(metrics, indent=2, sort_keys=True) + "\n")
    ledger.record_training(training_signature(trial, store.fingerprint), signature)


def _reuse(bridge: Bridge, source: TrialRecord, device: torch.device) -> tuple[Bridge, Progress]:
    """The weights and history of another trial, to be evaluated by this trial's score."""
    with local_copy(source.bridge) as path:
        bridge.load_state_dict(Bridge.from_pretrained(path).state_dict())
    history = [HistoryPoint(**point) for point in source.history()]
    metrics = source.metrics()
    best = None
    if "best/step" in metrics:
        best = Best(int(metrics["best/step"]), metrics["best/val_R5"])
    seconds = metrics["cost/train_seconds"]
    return bridge.to(device).eval(), Progress(history=history, seconds=seconds, best=best)


def _train(
    trial: Trial, store: EmbeddingStore, bridge: Bridge, context: TrialContext
) -> tuple[Bridge, Progress]:
    """Fits the method on the store's training split, and trains its network if it has one."""
    pairs = store.pairs(trial.task, "train")
    table = PairTable(pairs, trial.train.batch_size, trial.seed, context.device)
    bridge.fit(table.x, table.a, table.owner)
    if not trial.trains:
        return bridge.eval(), Progress()
    recipe = recipe_of(trial, store.pairs(trial.task, "val"))
    with process_group(context.device):
        return train(bridge, table, recipe, context)


def recipe_of(trial: Trial, val: Pairs) -> TrainingRecipe:
    """How a trial is trained, and validated on these pairs."""
    changes = {}
    for change in trial.changes:
        changed = trial.at(change.step)
        changes[change.step] = bridge_config(changed, val.x.shape[1]), changed.train

    def validate(bridge: Bridge) -> dict[str, float]:
        return evaluate(bridge, val, VALIDATION_SCORE).metrics

    return TrainingRecipe(trial.train, validate, changes)


def bridge_config(trial: Trial, dimension: int) -> BridgeConfig:
    """The config of a trial's bridge, on embeddings of this dimension."""
    options = getattr(trial, trial.method, None)
    return BridgeConfig(
        modalities=split_task(trial.task),
        dimension=dimension,
        width=trial.denoiser.width,
        blocks=trial.denoiser.blocks,
        cdm=trial.cdm.enabled,
        bst=trial.bst.enabled,
        method=trial.method,
        bst_mode=trial.bst.mode,
        bst_fraction=trial.bst.fraction,
        schedule=trial.cdm.schedule,
        objective=objective_of(trial),
        options=options.model_dump() if options else {},
        score=score_config(trial),
    )


def objective_of(trial: Trial) -> Objective:
    """What a trial minimises."""
    cdm = trial.cdm
    return Objective(
        prediction=cdm.prediction,
        t_sampler=cdm.t_sampler.kind,
        power=cdm.t_sampler.power,
        t_mean=cdm.t_sampler.mean,
        t_std=cdm.t_sampler.std,
        weight=cdm.weight.kind,
        gamma=cdm.weight.gamma,
        bias=cdm.weight.bias,
        **trial.loss.model_dump(),
    )


def score_config(trial: Trial) -> ScoreConfig:
    """The score that a trial's method supports, with the trial's settings."""
    return ScoreConfig(**{**trial.score.model_dump(), "kind": trial.effective_score})


def _provenance(trial: Trial, signature: str, store: EmbeddingStore) -> dict[str, Any]:
    """Facts for a bridge's config.json: what it was trained from, on and with."""
    corpus = store.manifest.corpus.model_dump(mode="json")
    return {
        "trial": trial.model_dump(mode="json"),
        "signature": signature,
        "encoder": store.manifest.encoder.model_dump(mode="json"),
        "store": {"fingerprint": store.fingerprint, **corpus},
        "git_commit": git_commit(),
        "packages": package_versions(),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
    }


def _costs(bridge: Bridge, progress: Progress) -> dict[str, float]:
    """Metrics of a training's cost, and its best validation."""
    metrics = {
        "cost/train_seconds": progress.seconds,
        "cost/parameters": float(sum(p.numel() for p in bridge.parameters())),
    }
    if progress.best:
        metrics |= {"best/step": float(progress.best.step), "best/val_R5": progress.best.value}
    return metrics
