"""Connection to Ray: a cluster that is joined, or a quiet local Ray on this machine."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from diffgap.cluster.guard import RayGuard, end_marked
from diffgap.compat.ray_cluster import dead_core_processes, loopback_only, stop_monitor
from diffgap.errors import UserError
from diffgap.io.cpus import usable_cpus

WORKER_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # by default 2 s, of which each trial's end takes 4
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "TORCHDYNAMO_DISABLE": "1",  # or else DeepSpeed imports torch's compiler
}
QUIET_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its C++ side would write over progress lines
    "RAY_DEDUP_LOGS": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "64",  # ClusterCapacity decides how many run
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the sweep has its own, and stops Tune by SIGUSR1
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

OnLoss = Callable[[str, str], None]

WATCH_S = 1.0  # interval at which a local Ray's own processes are checked
CONNECT_S = 10.0  # how long to wait for a cluster's head
TOO_SLOW = "timed out during startup"  # of Ray's message where its node took more than 30 s


@contextmanager
def cluster(
    address: str | None, *, verbose: bool = False, on_loss: OnLoss | None = None
) -> Iterator[bool]:
    """Connects this process to Ray for the block; yields whether it joined an existing cluster.

    Joins `address`, or RAY_ADDRESS, where one is given; else starts a local Ray, which ends with
    the block, or with this process. It listens on loopback alone, and its files are private. Nested
    blocks share one Ray.

    Args:
        address: of the cluster to join.
        verbose: show what Ray and its workers log.
        on_loss: called from another thread with the names of a local Ray's own processes that died,
            and the folder with its logs, after the rest of them have been killed; this process
            cannot use Ray any more.
    """
    joined = address or os.environ.get("RAY_ADDRESS")
    if joined == "local":  # Ray's word for a new one
        joined = None
    if joined:
        enable_token()
    import ray

    if ray.is_initialized():
        yield bool(joined)
        return
    os.environ.update({**QUIET_ENVIRONMENT, **WORKER_ENVIRONMENT})
    level = logging.INFO if verbose else logging.ERROR
    logging.getLogger("ray").setLevel(level)
    logs: dict[str, Any] = {"log_to_driver": verbose, "logging_level": level}
    with _joined_ray(joined, logs) if joined else _local_ray(on_loss, logs):
        yield bool(joined)


@contextmanager
def _joined_ray(address: str, logs: dict[str, Any]) -> Iterator[None]:
    import ray

    with _one_line_errors(f"at {address}", "is its head up, and is --address right?"):
        _check_reachable(address)
        ray.init(address=address, runtime_env={"env_vars": WORKER_ENVIRONMENT}, **logs)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _local_ray(on_loss: OnLoss | None, logs: dict[str, Any]) -> Iterator[None]:
    import ray

    with ExitStack() as stack:
        guard = stack.enter_context(RayGuard())  # first, for it marks the processes that follow
        stack.enter_context(loopback_only())
        with _one_line_errors("on this machine", f"check free memory; its logs: {guard.logs}"):
            try:
                _start(guard, logs)
            except Exception:
                guard.keep_folder()
                raise
        stack.callback(ray.shutdown)
        stack.callback(stop_monitor)  # called before `shutdown`: callbacks run in reverse
        if on_loss:
            stack.enter_context(_watch(guard, on_loss))
        yield


def _start(guard: RayGuard, logs: dict[str, Any]) -> None:
    """Starts Ray, and once more where the machine is too busy for the time that Ray allows."""
    import ray

    for is_last in (False, True):
        try:
            ray.init(
                address="local",
                num_cpus=usable_cpus(),
                include_dashboard=False,
                _temp_dir=guard.temp_dir,
                **logs,
            )
            return
        except Exception as error:
            if is_last or TOO_SLOW not in str(error):
                raise
            ray.shutdown()
            end_marked(guard.mark)  # what has started of it, or still will


@contextmanager
def _watch(guard: RayGuard, on_loss: OnLoss) -> Iterator[None]:
    """Checks every second whether the local Ray's own processes are alive."""
    closing = Event()

    def watch() -> None:
        while not closing.wait(WATCH_S):
            dead = dead_core_processes()
            if dead and not closing.is_set():  # not those that the block's end has just stopped
                guard.keep_folder()
                end_marked(guard.mark)
                on_loss(", ".join(dead), guard.logs)

    Thread(target=watch, name="ray watch", daemon=True).start()
    try:
        yield
    finally:
        closing.set()


def enable_token() -> None:
    """Lets Ray send this user's token, where there is one; by itself it does so for local Rays.

    To be called before Ray is imported.
    """
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file() or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _check_reachable(address: str) -> None:
    """Raises an OSError where nothing listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()


@contextmanager
def _one_line_errors(where: str, remedy: str) -> Iterator[None]:
    """Turns whatever keeps Ray from being started or joined into a UserError of one line."""
    try:
        with _muted_stderr():
            yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"Ray {where} cannot be used: {lines[0]}; {remedy}") from None


@contextmanager
def _muted_stderr() -> Iterator[None]:
    """Keeps off the screen what C++ libraries write to standard error."""
    sys.stderr.flush()
    original = os.dup(2)  # the descriptor: C++ knows nothing of `sys.stderr`
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            os.close(original)
