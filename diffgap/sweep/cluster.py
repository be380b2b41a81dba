"""Ray itself: joining the cluster there is, or starting a quiet one on this machine."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffgap.errors import UserError
from diffgap.spec import Resources

WORKER_ENVIRONMENT = {
    # Ray Train polls its workers every 2 s otherwise: 4 s lost at the end of every trial.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # DeepSpeed imports torch's compiler otherwise; nothing here is compiled.
    "TORCHDYNAMO_DISABLE": "1",
}

LOCAL_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # a local Ray listens on loopback only
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@dataclass(frozen=True)
class Placement:
    """How trials are laid on a cluster."""

    workers: int
    cpus: float
    """CPUs of one worker."""
    gpus: float
    """GPUs of one worker; 0 where the cluster has none."""
    concurrent: int
    """Trials that fit at once, with all their workers."""

    @property
    def scaling(self) -> dict[str, Any]:
        """Arguments of Ray Train's ScalingConfig."""
        per_worker = {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})
        return {
            "num_workers": self.workers,
            "use_gpu": self.gpus > 0,
            "resources_per_worker": per_worker,
        }

    def __str__(self) -> str:
        device = f"{self.gpus:g} GPU" if self.gpus else f"{self.cpus:g} CPU"
        each = f"{self.workers} worker{'s' if self.workers > 1 else ''} x {device}"
        return f"{self.concurrent} trials at once, each {each}"


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Ray, for as long as the block lasts.

    Joins `address`, or RAY_ADDRESS, where one is given; else starts a local Ray, which listens on
    loopback only and ends with the block.
    """
    import ray

    os.environ.update({**LOCAL_ENVIRONMENT, **WORKER_ENVIRONMENT})
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    logging.getLogger("ray").setLevel(logging.ERROR)
    if address or os.environ.get("RAY_ADDRESS"):
        runtime = {"env_vars": WORKER_ENVIRONMENT}
        ray.init(address=address or "auto", runtime_env=runtime, **quiet)
    else:
        ray.init(address="local", num_cpus=os.cpu_count(), include_dashboard=False, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def place(resources: Resources) -> Placement:
    """Lays trials out on the cluster that Ray is connected to.

    Raises:
        UserError: where not even one trial fits.
    """
    import ray

    held = ray.cluster_resources()
    cpus, gpus = held.get("CPU", 0.0), held.get("GPU", 0.0)
    wanted_gpus = resources.gpus_per_worker if gpus else 0.0
    fits = _fits(cpus, resources.cpus_per_worker * resources.workers)
    if wanted_gpus:
        fits = min(fits, _fits(gpus, wanted_gpus * resources.workers))
    if fits == 0:
        raise UserError(
            f"resources.workers: {resources.workers} x {resources.cpus_per_worker:g} CPU and "
            f"{wanted_gpus:g} GPU do not fit the cluster's {cpus:g} CPUs and {gpus:g} GPUs; "
            "lower workers or cpus_per_worker, or add nodes"
        )
    return Placement(resources.workers, resources.cpus_per_worker, wanted_gpus, fits)


def _fits(held: float, wanted: float) -> int:
    return math.floor(held / wanted + 1e-9)
