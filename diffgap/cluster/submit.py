"""`diffgap submit`: a sweep as a job of a Ray cluster, sent there with the working directory."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from diffgap.errors import UserError
from diffgap.io.redact import redact

DEPTH = 3
"""How deep below the working directory outputs, stores and environments are looked for."""

NEVER = (".git", ".venv", "__pycache__", "*.egg-info", ".mypy_cache", ".ruff_cache")
MARKS = ("ledger.json", "mlflow.db", "manifest.json", "pyvenv.cfg")
"""Files that tell an output, a store or a virtual environment."""

CONSTRAINTS = "constraints.txt"
ON_NODE = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
"""What Ray puts the unpacked working directory's path in place of."""

AGAIN_S, ATTEMPTS = 2.0, 30
"""Pause before the log of a job is asked for again, when the connection is lost; how often."""


class _Tail:
    """Shows a log that is told from its beginning again after every lost connection, once."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show, self._heard, self._shown = show, 0, 0

    def begin(self) -> None:
        self._heard = 0

    def hear(self, text: str) -> None:
        fresh = text[max(0, self._shown - self._heard) :]
        self._heard += len(text)
        if fresh:
            self._show(fresh)
            self._shown = self._heard


@dataclass(frozen=True)
class Submission:
    """A job of a cluster.

    Args:
        client: Ray's, of the cluster.
        job: the job's id.
    """

    client: Any
    job: str

    def follow(self, show: Callable[[str], None]) -> int:
        """Shows what the job says until it ends; returns its exit status, 130 if it was stopped.

        Raises:
            UserError: where the cluster answers no more.
        """
        tail = _Tail(show)
        for _ in range(ATTEMPTS):
            try:
                asyncio.run(self._tail(tail))
                info = self.client.get_job_info(self.job)
                if info.status.is_terminal():
                    return self._status(info)
            except (RuntimeError, OSError):  # the connection is lost, perhaps for a while
                time.sleep(AGAIN_S)
        raise UserError(
            f"job {self.job}: the cluster answers no more; the job may go on: "
            "ask again with ray job logs --follow"
        )

    async def _tail(self, tail: _Tail) -> None:
        tail.begin()
        async for text in self.client.tail_job_logs(self.job):
            tail.hear(text)

    def _status(self, info: Any) -> int:
        if info.status == "SUCCEEDED":
            return 0
        if info.status == "STOPPED":
            return 130
        if info.driver_exit_code is None:
            raise UserError(f"job {self.job}: {redact(info.message or 'it failed')}")
        return int(info.driver_exit_code)


def submit(
    address: str, words: Sequence[str], folder: Path, environment: dict[str, Any]
) -> Submission:
    """Starts `diffgap WORDS` as a job in a copy of a folder.

    Args:
        address: the cluster's dashboard, as in http://HEAD:8265.
        words: the command's arguments.
        folder: the working directory, which is sent.
        environment: what else the job needs; see `runtime_environment`.

    Raises:
        UserError: where no cluster answers, or it refuses the job.
    """
    from diffgap.cluster.connect import show_token

    show_token()
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    os.environ.setdefault("RAY_RUNTIME_ENV_LOG_TO_DRIVER_ENABLED", "0")
    runtime = {"working_dir": str(folder), "excludes": excluded(folder), **environment}
    try:
        client = JobSubmissionClient(address)
        command = shlex.join(["python", "-m", "diffgap", *words])
        return Submission(client, client.submit_job(entrypoint=command, runtime_env=runtime))
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"--address {redact(address)}: the job was not taken: {redact(reason)}; "
            "give the address of a Ray dashboard, as in http://HEAD:8265"
        ) from None


def runtime_environment(
    folder: Path, pip: bool, image: str | None, passed: Sequence[str]
) -> dict[str, Any]:
    """What a job needs beyond the working directory.

    Args:
        folder: the working directory.
        pip: install diffgap's requirements on the nodes, in the versions of constraints.txt.
        image: the container image to run in, instead.
        passed: names of environment variables that the job gets as they are here.

    Raises:
        UserError: where a variable is not set, or constraints.txt is missing.
    """
    problems = [
        f"--env {name}: it is not set here; export it, or leave it out"
        for name in passed
        if name not in os.environ
    ]
    if pip and image:
        problems.append("--pip and --image exclude each other: an image has its packages")
    if pip and not (folder / CONSTRAINTS).is_file():
        problems.append(f"--pip: {folder} has no {CONSTRAINTS} to take versions from; add one")
    if problems:
        raise UserError(*problems)
    found: dict[str, Any] = {"env_vars": {name: os.environ[name] for name in passed}}
    if pip:
        option = f"--constraint={ON_NODE}/{CONSTRAINTS}"
        found["pip"] = {"packages": _requirements(), "pip_install_options": [option]}
    if image:
        found["image_uri"] = image
    return found


def _requirements() -> list[str]:
    """What diffgap and its searches need, without versions: those are the constraints'."""
    wanted = [r for r in requires("diffgap") or [] if "extra ==" not in r or "'search'" in r
              or '"search"' in r]  # fmt: skip
    return [re.split(r"[<>=!~; ]", requirement, maxsplit=1)[0] for requirement in wanted]


def excluded(folder: Path) -> list[str]:
    """What is not sent of a folder: outputs, stores, environments, git's own; as .gitignore has it.

    What .gitignore and .rayignore name is left out by Ray itself.
    """
    found = []
    for depth in range(1, DEPTH + 1):
        for mark in MARKS:
            pattern = "/".join(["*"] * depth + [mark])
            found += [path.parent.relative_to(folder) for path in folder.glob(pattern)]
    return [*NEVER, *sorted({f"/{path.as_posix()}/" for path in found})]
