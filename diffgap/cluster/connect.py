"""Ray itself: joining the cluster there is, or starting a quiet one on this machine."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from diffgap.cluster.guard import RayGuard, end_marked
from diffgap.errors import UserError

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
}

QUIET_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else its C++ side writes over people's screens
    "RAY_DEDUP_LOGS": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "64",  # how many run is for the sweep to say, by its room
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the sweep has its own, and ends Tune by SIGUSR1
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

WATCH_S = 1.0
"""Between two looks at a local Ray's own processes."""

REACH_S = 10.0
"""How long a cluster's head is waited for."""

CORE = ("raylet", "gcs_server")
"""Processes without which a Ray is none."""


@contextmanager
def cluster(
    address: str | None, *, verbose: bool = False, on_loss: Callable[[str], None] | None = None
) -> Iterator[bool]:
    """Ray, for as long as the block lasts; gives whether it is somebody's cluster that was joined.

    Joins `address`, or RAY_ADDRESS, where one is given; else starts a local Ray, which listens on
    loopback only and ends with the block, or with this process. Within another such block it is
    that block's Ray.

    Args:
        address: of the cluster to join.
        verbose: show what Ray and its workers say.
        on_loss: called from another thread, once nothing is left of a local Ray one of whose own
            processes died; this process cannot go on with it. Gets what died.
    """
    joined = address or os.environ.get("RAY_ADDRESS")
    if joined:
        show_token()
    import ray

    if ray.is_initialized():
        yield bool(joined)
        return
    own = {} if joined else LOCAL_ENVIRONMENT
    os.environ.update({**own, **QUIET_ENVIRONMENT, **WORKER_ENVIRONMENT})
    level = logging.INFO if verbose else logging.ERROR
    talk: dict[str, Any] = {"log_to_driver": verbose, "logging_level": level}
    logging.getLogger("ray").setLevel(level)
    with ExitStack() as stack:
        if joined:
            runtime = {"env_vars": WORKER_ENVIRONMENT}
            with _explained(f"at {joined}", "is its head up, and is --address right?"):
                _reach(joined)
                ray.init(address=joined, runtime_env=runtime, **talk)
            stack.callback(ray.shutdown)
        else:
            guard = stack.enter_context(RayGuard())
            with _explained("on this machine", "look at free memory and disk"):
                ray.init(address="local", num_cpus=os.cpu_count(), include_dashboard=False, **talk)
            stack.callback(_end_local)
            if on_loss:
                stack.enter_context(_watched(guard, on_loss))
        yield bool(joined)


def _end_local() -> None:
    """Ends the local Ray that this process has started.

    Its autoscaler takes no notice of a request to end, and Ray would wait a second for it.
    """
    import ray
    from ray._private.worker import _global_node

    _global_node.kill_monitor(check_alive=False)
    ray.shutdown()


@contextmanager
def _watched(guard: RayGuard, on_loss: Callable[[str], None]) -> Iterator[None]:
    """Looks every second whether the local Ray's own processes are alive."""
    from ray._private.worker import _global_node

    over = Event()

    def watch() -> None:
        while not over.wait(WATCH_S):
            dead = [kind for kind, _ in _global_node.dead_processes() if kind in CORE]
            if dead and not over.is_set():
                end_marked(guard.mark)
                on_loss(", ".join(dead))

    Thread(target=watch, name="ray watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def show_token() -> None:
    """Lets Ray send its token, where this user has one: by itself it does so for local Rays only,
    and a cluster that asks for it would seem not to be there."""
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file() or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _reach(address: str) -> None:
    """Raises an OSError where nothing listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=REACH_S).close()


@contextmanager
def _explained(where: str, remedy: str) -> Iterator[None]:
    """Makes one line of whatever keeps Ray from starting, or from being joined."""
    try:
        with _standard_error_held():
            yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"Ray {where} cannot be used: {lines[0]}; {remedy}") from None


@contextmanager
def _standard_error_held() -> Iterator[None]:
    """Keeps what C++ libraries write to standard error off people's screens."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            os.close(original)
