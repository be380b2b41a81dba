"""DeepSpeed: the process group, the engine of one trial or several, and the averaged weights.

The only module that imports DeepSpeed.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from diffgap.compat.imports import without
from diffgap.compat.torch_optim import AdamW
from diffgap.spec import Train

log = logging.getLogger(__name__)


def _import_deepspeed() -> Any:
    """DeepSpeed, without the second that its autotuner spends on importing MLflow."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it warns that it found nothing
    with without("mlflow"):
        import deepspeed
    deepspeed.utils.logger.setLevel("ERROR")
    return deepspeed


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """DeepSpeed's process group: the one that is there already, else one of this process alone."""
    deepspeed = _import_deepspeed()
    # An inference-only operator, which would spend 20 s in a compiler on its first use.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if device.type == "cuda" else "gloo"
    alone = not torch.distributed.is_initialized()
    if alone:
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks for it, one process or many
        store = torch.distributed.HashStore()  # type: ignore[attr-defined]
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False)
    try:
        yield
    finally:
        if alone:
            deepspeed.comm.destroy_process_group()


def lr_factor(train: Train, step: int) -> float:
    """The learning rate of a step as a share of its peak.

    ``cosine``: linear warm-up, then half a cosine to zero (Loshchilov & Hutter 2017).
    ``one_cycle``: half a cosine up from 1/25, then down to zero (Smith & Topin 2019).
    """
    warmup = train.warmup * train.steps
    if step < warmup:
        up = (step + 1) / (warmup + 1)
        if train.lr_schedule == "cosine":
            return up
        return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * up))
    down = (step - warmup) / max(1.0, train.steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, down)))


def deepspeed_config(
    train: Train, workers: int, device: torch.device, universal: bool = False
) -> dict[str, Any]:
    """DeepSpeed's configuration of a trial; the global batch is split evenly among the workers.

    In ZeRO 0 the optimiser is PyTorch's and the gradients are clipped by `clip`, a trial at a time.
    With `universal`, checkpoints are loaded in the form that any number of workers can read.
    """
    on_gpu = device.type == "cuda"
    bf16 = train.precision == "bf16" or (train.precision == "auto" and on_gpu)
    return {
        "train_micro_batch_size_per_gpu": train.batch_size // (workers * train.accumulation),
        "gradient_accumulation_steps": train.accumulation,
        "gradient_clipping": train.gradient_clipping if train.zero_stage else 0.0,  # default: 1
        "checkpoint": {"load_universal": universal},
        "steps_per_print": sys.maxsize,
        # Autocast keeps fp32 weights in every ZeRO stage: EMA and checkpoints lose nothing.
        "torch_autocast": {"enabled": bf16, "dtype": "bfloat16"},
        **(_zero_config(train, on_gpu) if train.zero_stage else {}),
    }


def _zero_config(train: Train, on_gpu: bool) -> dict[str, Any]:
    """What ZeRO 1, 2 and 3 are told, which alone know where gradients and weights are."""
    return {
        "zero_optimization": {
            "stage": train.zero_stage,
            **(_offloaded(train) if on_gpu else {}),
        },
        # Else offloading asks for DeepSpeed's own Adam, which takes a compiler 40 s to build.
        "zero_force_ds_cpu_optimizer": False,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": train.lr,
                "weight_decay": train.weight_decay,
                "torch_adam": True,
            },
        },
    }


def _offloaded(train: Train) -> dict[str, Any]:
    """ZeRO's settings for what waits in the CPU's memory; weights go there with the optimiser."""
    to_cpu = {"device": "cpu", "pin_memory": True}
    parts = {
        "none": [],
        "optimizer": ["offload_optimizer"],
        "parameters": ["offload_optimizer", "offload_param"],
    }
    return dict.fromkeys(parts[train.offload], to_cpu)


def make_engine(
    model: nn.Module, train: Train, workers: int, device: torch.device, universal: bool = False
) -> Any:
    """Wraps the model of one trial into a DeepSpeed engine on `device`; needs a process group."""
    if train.offload != "none" and device.type != "cuda":
        log.info("train.offload %s has no effect here: there is no GPU", train.offload)
    return engine_of(model, [model], [train], workers, device, universal)


def engine_of(
    whole: nn.Module,
    parts: Sequence[nn.Module],
    settings: Sequence[Train],
    workers: int,
    device: torch.device,
    universal: bool = False,
) -> Any:
    """Wraps K trials' models into one DeepSpeed engine, each with optimiser settings of its own.

    Args:
        whole: what the engine calls, on `device`; it holds the parts.
        parts: the trials' models, and
        settings: how each is trained. K above 1 needs ZeRO 0 and the same batch of each.
        workers: data-parallel processes.
        device: where it computes.
        universal: see `deepspeed_config`.
    """
    first, *others = settings
    assert not (others and first.zero_stage), "several trials share no ZeRO 1, 2 or 3"
    groups = [
        {"params": list(part.parameters()), "lr": train.lr, "weight_decay": train.weight_decay}
        for part, train in zip(parts, settings, strict=True)
    ]
    engine, *_ = _import_deepspeed().initialize(
        model=whole.to(device),
        model_parameters=groups,
        optimizer=None if first.zero_stage else AdamW,
        config=deepspeed_config(first, workers, device, universal),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(
            optimizer, [partial(lr_factor, train) for train in settings]
        ),
    )
    if workers == 1 and first.zero_stage == 0:
        engine.enable_backward_allreduce = False  # it would copy every gradient there and back
    return engine


def close(engine: Any) -> None:
    """Ends an engine, and lets go of what it holds: its own references go round in circles.

    Until the garbage collector came by, weights, gradients and moments would stay in memory, and a
    process that trains one trial after another would hold those of many.
    """
    optimizer = engine.optimizer
    engine.destroy()
    for part in (optimizer, engine.lr_scheduler, engine):
        vars(part).clear()


def retune(engine: Any, settings: Sequence[Train], step: int) -> None:
    """Puts the learning rates and weight decays of some settings in force, from a step on."""
    engine.lr_scheduler.last_epoch = step
    engine.lr_scheduler.base_lrs = [train.lr for train in settings]
    for group, train in zip(engine.optimizer.param_groups, settings, strict=True):
        group["initial_lr"], group["lr"] = train.lr, train.lr * lr_factor(train, step)
        group["weight_decay"] = train.weight_decay


def clip(parameters: Iterable[nn.Parameter], train: Train) -> None:
    """Scales one trial's gradients to its largest norm; in ZeRO 1, 2 and 3 DeepSpeed does."""
    if train.gradient_clipping and train.zero_stage == 0:
        torch.nn.utils.clip_grad_norm_(parameters, train.gradient_clipping, foreach=True)


Model = TypeVar("Model", bound=nn.Module)


class Average(Generic[Model]):
    """Exponential moving average of a model's weights (EMA), kept in a twin of the model.

    Args:
        twin: a copy of the model, on its device, taken before DeepSpeed shards anything.
        decay: share of the old average; 0 keeps the latest weights.
    """

    def __init__(self, twin: Model, decay: float) -> None:
        self.twin: Model = twin.requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, zero_stage: int) -> None:
        """Moves the average towards the model; early steps forget faster (step + 1)/(step + 10)."""
        decay = min(self.decay, (step + 1) / (step + 10))
        parameters = list(model.parameters())
        with _whole(parameters, zero_stage):
            torch._foreach_lerp_(list(self.twin.parameters()), [*parameters], 1 - decay)


@contextmanager
def _whole(parameters: list[nn.Parameter], zero_stage: int) -> Iterator[None]:
    """ZeRO 3 keeps a slice of each parameter per worker: gather them for as long as needed.

    Small ones it keeps whole between steps. Those are left out, for they would be sliced up again
    afterwards, and a forward pass that reads one outside of its own module would find it empty.
    """
    if zero_stage < 3:
        yield
        return
    zero = _import_deepspeed().zero
    whole = zero.partition_parameters.ZeroParamStatus.AVAILABLE
    with zero.GatheredParameters([p for p in parameters if p.ds_status != whole]):  # type: ignore[attr-defined]
        yield
