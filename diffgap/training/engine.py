"""DeepSpeed's process group, its engine for one trial or several, and averaged weights."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from diffgap.compat.deepspeed import gathered, import_deepspeed, skip_allreduce
from diffgap.compat.torch_foreach import lerp_
from diffgap.compat.torch_optim import AdamW
from diffgap.spec import Train

log = logging.getLogger(__name__)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """DeepSpeed's process group: the existing one, else one of this process alone."""
    deepspeed = import_deepspeed()
    backend = "nccl" if device.type == "cuda" else "gloo"
    alone = not torch.distributed.is_initialized()
    if alone:
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed needs it even for one process
        # A store in memory: the default, TCPStore, needs a free port, and trials would race for it.
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

    In ZeRO 0 the optimiser is PyTorch's and `clip_gradients` clips, a trial at a time. With
    `universal`, checkpoints are loaded in the form that any number of workers can read.
    """
    on_gpu = device.type == "cuda"
    bf16 = train.precision == "bf16" or (train.precision == "auto" and on_gpu)
    return {
        "train_micro_batch_size_per_gpu": train.batch_size // (workers * train.accumulation),
        "gradient_accumulation_steps": train.accumulation,
        # Never left out: DeepSpeed's default is 1, not 0.
        "gradient_clipping": train.gradient_clipping if train.zero_stage else 0.0,
        "checkpoint": {"load_universal": universal},
        "steps_per_print": sys.maxsize,
        # Autocast, unlike "bf16", keeps fp32 weights in every ZeRO stage: the EMA moves by
        # 1 - ema of a difference, which bf16's 8 bits would round away.
        "torch_autocast": {"enabled": bf16, "dtype": "bfloat16"},
        **(_zero_config(train, on_gpu) if train.zero_stage else {}),
    }


def _zero_config(train: Train, on_gpu: bool) -> dict[str, Any]:
    """Settings of ZeRO 1, 2 and 3, where DeepSpeed owns the optimiser and the clipping."""
    return {
        "zero_optimization": {"stage": train.zero_stage, **(_offloaded(train) if on_gpu else {})},
        # Otherwise offloading demands DeepSpeed's own Adam, which takes a compiler 40 s to build.
        "zero_force_ds_cpu_optimizer": False,
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": train.lr, "weight_decay": train.weight_decay, "torch_adam": True},
        },
    }


def _offloaded(train: Train) -> dict[str, Any]:
    """ZeRO's settings for parts kept in CPU memory; weights go there with the optimiser only."""
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
    return joint_engine(model, [model], [train], workers, device, universal)


def joint_engine(
    whole: nn.Module,
    parts: Sequence[nn.Module],
    settings: Sequence[Train],
    workers: int,
    device: torch.device,
    universal: bool = False,
) -> Any:
    """Wraps K trials' models into one DeepSpeed engine, each with optimiser settings of its own.

    The engine calls the whole, a module that holds the parts: the trials' models. K above 1 needs
    ZeRO 0 and equal batch sizes.
    """
    first, *others = settings
    assert not (others and first.zero_stage), "several trials share no ZeRO 1, 2 or 3"
    groups = []
    for part, train in zip(parts, settings, strict=True):
        weights = list(part.parameters())
        groups.append({"params": weights, "lr": train.lr, "weight_decay": train.weight_decay})
    schedules: list[Callable[[int], float]] = [partial(lr_factor, train) for train in settings]
    engine, *_ = import_deepspeed().initialize(
        model=whole.to(device),
        model_parameters=groups,
        optimizer=None if first.zero_stage else AdamW,
        config=deepspeed_config(first, workers, device, universal),
        # A function, because the optimiser of the schedule is made inside.
        lr_scheduler=partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=schedules),
    )
    if workers == 1 and first.zero_stage == 0:
        skip_allreduce(engine)
    return engine


def apply_settings(engine: Any, settings: Sequence[Train], step: int) -> None:
    """Sets each trial's learning rate and weight decay, as its settings have them at a step."""
    # The schedulers' closed form: the rate follows from the step, so a resumed trial replays none.
    engine.lr_scheduler.last_epoch = step
    engine.lr_scheduler.base_lrs = [train.lr for train in settings]
    for group, train in zip(engine.optimizer.param_groups, settings, strict=True):
        group["initial_lr"], group["lr"] = train.lr, train.lr * lr_factor(train, step)
        group["weight_decay"] = train.weight_decay


def clip_gradients(parameters: Iterable[nn.Parameter], train: Train) -> None:
    """Clips one trial's gradients by their norm; in ZeRO 1, 2 and 3 DeepSpeed does."""
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
        """Moves the average towards the model after a step, counted from 0."""
        # Early steps forget faster, as in TensorFlow's ExponentialMovingAverage: the random
        # initialisation would otherwise weigh on the average for 1 / (1 - decay) steps.
        decay = min(self.decay, (step + 1) / (step + 10))
        parameters = list(model.parameters())
        with gathered(parameters) if zero_stage == 3 else nullcontext():
            lerp_(self.twin.parameters(), parameters, 1 - decay)
