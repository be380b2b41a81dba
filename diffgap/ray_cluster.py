"""Ray itself: joining the cluster there is, or starting a quiet one on this machine."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else its C++ side writes over people's screens
    "RAY_DEDUP_LOGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Ray, for as long as the block lasts.

    Joins `address`, or RAY_ADDRESS, where one is given; else starts a local Ray, which listens on
    loopback only and ends with the block. Within another such block it is that block's Ray.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.update({**LOCAL_ENVIRONMENT, **WORKER_ENVIRONMENT})
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    logging.getLogger("ray").setLevel(logging.ERROR)
    with _standard_error_held():
        if address or os.environ.get("RAY_ADDRESS"):
            runtime = {"env_vars": WORKER_ENVIRONMENT}
            ray.init(address=address or "auto", runtime_env=runtime, **quiet)
        else:
            ray.init(address="local", num_cpus=os.cpu_count(), include_dashboard=False, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _standard_error_held() -> Iterator[None]:
    """Keeps what C++ libraries write to standard error; it is shown only if the block fails."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)
