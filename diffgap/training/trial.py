"""One trial from its store to its bridge checkpoint: train, then evaluate once on test."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import torch

from diffgap.bridge.model import BridgeConfig, DiffGAP
from diffgap.bridge.scores import ScoreConfig
from diffgap.evaluation.bridged import Evaluation, evaluate, gap
from diffgap.files import new_directory
from diffgap.ledger import HISTORY, METRICS, RANKS, TrialRecord
from diffgap.provenance import git_commit, package_versions
from diffgap.spec import Trial
from diffgap.store import EmbeddingStore, Pairs
from diffgap.training.checkpoint import Progress
from diffgap.training.data import PairTable
from diffgap.training.engine import process_group
from diffgap.training.loop import Host, train


def run_trial(
    trial: Trial, signature: str, store_uri: str, record: TrialRecord, host: Host
) -> None:
    """Runs one trial on this worker; rank 0 leaves the bridge checkpoint in the record.

    Args:
        trial: the resolved trial.
        signature: its signature.
        store_uri: the embedding store.
        record: the trial's directory in the ledger.
        host: device, rank, checkpoints and reports; see `loop.Host`.
    """
    torch.manual_seed(trial.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    store = EmbeddingStore.open(store_uri)
    bridge = DiffGAP(bridge_config(trial, store.manifest.dimension)).to(host.device)
    bridge, progress = _train(trial, store, bridge, host)
    if host.rank != 0:
        return
    test = store.pairs(trial.task, "test")
    result = evaluate(bridge, test, score_config(trial))
    with new_directory(record.bridge) as path:
        _write(path, trial, signature, store, bridge, progress, result, test)


def _train(
    trial: Trial, store: EmbeddingStore, bridge: DiffGAP, host: Host
) -> tuple[DiffGAP, Progress]:
    """Trains on the store's training split; the frozen baseline comes back as it is."""
    if not bridge.config.trained:
        return bridge, Progress()
    pairs = store.pairs(trial.task, "train")
    table = PairTable(pairs, trial.train.batch_size, trial.seed, host.device)
    val = store.pairs(trial.task, "val")
    quick = ScoreConfig(kind="bridge", fusion=trial.score.fusion, draws=trial.score.draws)
    with process_group(host.device):
        return train(bridge, table, trial.train, host, lambda b: evaluate(b, val, quick).metrics)


def bridge_config(trial: Trial, dimension: int) -> BridgeConfig:
    """The bridge that a trial asks for, on embeddings of this dimension."""
    x, a = trial.task.split("-")
    return BridgeConfig(
        modalities=(x, a),
        dimension=dimension,
        width=trial.denoiser.width,
        blocks=trial.denoiser.blocks,
        cdm=trial.cdm.enabled,
        bst=trial.bst.enabled,
        bst_mode=trial.bst.mode,
        bst_fraction=trial.bst.fraction,
        schedule=trial.cdm.schedule,
        prediction=trial.cdm.prediction,
        power=trial.cdm.t_sampler.power,
        condition_noise=trial.loss.condition_noise,
        condition_dropout=trial.loss.condition_dropout,
        infonce_weight=trial.loss.infonce_weight,
        temperature=trial.loss.temperature,
    )


def score_config(trial: Trial) -> ScoreConfig:
    """The score that a trial's cell allows, with the trial's settings."""
    return ScoreConfig(**{**trial.score.model_dump(), "kind": trial.effective_score})


def _write(
    path: Path,
    trial: Trial,
    signature: str,
    store: EmbeddingStore,
    bridge: DiffGAP,
    progress: Progress,
    result: Evaluation,
    test: Pairs,
) -> None:
    """Fills a bridge checkpoint directory; metrics last, for they mean 'finished'."""
    bridge.save_pretrained(
        path,
        trial=trial.model_dump(mode="json"),
        signature=signature,
        store={"fingerprint": store.fingerprint, **store.manifest.corpus.model_dump(mode="json")},
        git_commit=git_commit(),
        packages=package_versions(),
        hardware=_hardware(),
    )
    pq.write_table(result.rank_table(test), path / RANKS)
    (path / HISTORY).write_text(json.dumps([asdict(point) for point in progress.history]))
    metrics = {f"test/{name}": value for name, value in result.metrics.items()}
    metrics |= {f"gap/{name}": value for name, value in gap(bridge, test).items()}
    (path / METRICS).write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"CPU, {torch.get_num_threads()} threads"
