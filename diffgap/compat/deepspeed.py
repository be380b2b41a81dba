"""DeepSpeed's private interfaces, as of version 0.19."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from diffgap.compat.imports import without


def import_deepspeed() -> Any:
    """DeepSpeed, without the work that its import does for nothing here."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # it warns when it has to detect this
    # Its autotuner imports MLflow, which takes a second (DeepSpeed#2460); can go when it no longer
    # does so at import.
    with without("mlflow"):
        import deepspeed
    # An operator for inference only, which every CPU process group compiles on its first use, in
    # 20 s (DeepSpeed#5391); can go when it can be declined (#7625).
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.utils.logger.setLevel("ERROR")
    return deepspeed


def skip_allreduce(engine: Any) -> None:
    """Leaves out the all-reduce of gradients, for a single worker in ZeRO 0.

    DeepSpeed would copy every gradient into a bucket and back; can go when it does not for a world
    size of 1.
    """
    engine.enable_backward_allreduce = False


def close_engine(engine: Any) -> None:
    """Destroys an engine and drops its references, which form cycles (DeepSpeed#7204, open).

    Until the garbage collector ran, weights, gradients and moments would stay in memory, and a
    process that trains one trial after another would hold those of many.
    """
    optimizer = engine.optimizer
    engine.destroy()
    for part in (optimizer, engine.lr_scheduler, engine):
        vars(part).clear()


def gathered(parameters: Iterable[nn.Parameter]) -> AbstractContextManager[None]:
    """Gathers parameters that ZeRO 3 has partitioned, for as long as the block lasts.

    Small ones stay whole between steps (`stage3_param_persistence_threshold`). Those are left out:
    `GatheredParameters` would partition them afterwards, and a forward pass that reads one outside
    its own module would find it empty. Can go when it leaves persistent parameters alone.
    """
    zero = import_deepspeed().zero
    whole = zero.partition_parameters.ZeroParamStatus.AVAILABLE
    partitioned = [p for p in parameters if p.ds_status != whole]  # type: ignore[attr-defined]
    context: AbstractContextManager[None] = zero.GatheredParameters(partitioned)
    return context
