"""DeepSpeed's private interfaces, as of version 0.19."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffgap.compat.imports import without
from diffgap.compat.torch_load import weights_only


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


@contextmanager
def plain_loading() -> Iterator[None]:
    """Reads checkpoints of ZeRO 1, 2 and 3 without the code that their pickles may name.

    Can go when DeepSpeed reads its checkpoints with ``weights_only``.
    """
    import_deepspeed()
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    with weights_only([LossScaler, ZeroStageEnum, fragment_address]):  # all that it pickles
        yield


def loading_problem(file: Path) -> str | None:
    """Why a file of DeepSpeed's part of a checkpoint cannot be loaded; None where it can.

    Nothing that it names is imported or run, and no tensor is read.
    """
    with plain_loading():
        try:
            torch.load(file, map_location="cpu", mmap=True)
        except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            names = _foreign_names(file)
            if names:
                return f"it names {', '.join(names)}, which no checkpoint of ours does"
            reason = str(error).splitlines()[0].split(". ")[0]
            return f"it is no file of plain tensors ({reason})"
    return None


def _foreign_names(file: Path) -> list[str]:
    """Functions and classes that a file would import, beyond those of checkpoints."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError):
        return []  # not of torch's format at all


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
