"""Submission of a sweep as a job of a Ray cluster, with a copy of the working directory."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import time
from collections.abc import Callable, Sequence
from importlib.metadata import requires
from itertools import product
from pathlib import Path
from typing import Any

from diffgap.errors import UserError
from diffgap.io.redact import redact

DEPTH = 3  # how deep below the working directory outputs, stores and environments are looked for
NEVER_SENT = (".git", ".venv", "__pycache__", "*.egg-info", ".mypy_cache", ".ruff_cache")
# Files by which an output, a store or a virtual environment is recognised.
MARKERS = ("ledger.json", "mlflow.db", "manifest.json", "pyvenv.cfg")

CONSTRAINTS = "constraints.txt"
ON_NODE = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"  # by Ray: the unpacked working directory
RECONNECT_S, ATTEMPTS = 2.0, 30  # pause before each reconnection to a job, and how many there are
STOPPED_STATUS = 130  # exit status of a job that was stopped, that of a command ended by Ctrl-C


class Submission:
    """A job of a cluster, reached by Ray's JobSubmissionClient."""

    def __init__(self, client: Any, job_id: str) -> None:
        self.client, self.job_id = client, job_id
        self._printed = 0

    def follow(self, write: Callable[[str], None]) -> int:
        """Writes the job's log until it ends; returns its exit status.

        Raises:
            UserError: where the cluster no longer answers, or the job never started.
        """
        for _ in range(ATTEMPTS):
            try:
                asyncio.run(self._tail_log(write))
                info = self.client.get_job_info(self.job_id)
                if info.status.is_terminal():
                    return self._exit_status(info)
            except (RuntimeError, OSError):  # a restarted head is back within a minute
                time.sleep(RECONNECT_S)
        raise UserError(
            f"job {self.job_id}: the cluster no longer answers; the job may still be running; "
            "follow it with: ray job logs --follow"
        )

    async def _tail_log(self, write: Callable[[str], None]) -> None:
        position = 0  # a new connection sends the log from its beginning
        async for text in self.client.tail_job_logs(self.job_id):
            position += len(text)
            unseen = position - self._printed
            if unseen > 0:
                write(text[-unseen:])
                self._printed = position

    def _exit_status(self, info: Any) -> int:
        if info.status == "SUCCEEDED":
            return 0
        if info.status == "STOPPED":
            return STOPPED_STATUS
        if info.driver_exit_code is None:
            raise UserError(f"job {self.job_id}: {redact(info.message or 'it failed')}")
        return int(info.driver_exit_code)


def submit(
    address: str, arguments: Sequence[str], folder: Path, environment: dict[str, Any]
) -> Submission:
    """Starts `diffgap ARGUMENTS` as a job in a copy of a folder.

    Args:
        address: the cluster's dashboard, as in http://HEAD:8265.
        arguments: the command's.
        folder: the working directory, which is sent.
        environment: from `runtime_environment`.
    """
    from diffgap.cluster.connect import enable_token

    enable_token()
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    os.environ.setdefault("RAY_RUNTIME_ENV_LOG_TO_DRIVER_ENABLED", "0")
    runtime = {"working_dir": str(folder), "excludes": excluded(folder), **environment}
    try:
        client = JobSubmissionClient(address)
        command = shlex.join(["python", "-m", "diffgap", *arguments])
        return Submission(client, client.submit_job(entrypoint=command, runtime_env=runtime))
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"--address {redact(address)}: the job was not accepted: {redact(reason)}; "
            "give the address of a Ray dashboard, as in http://HEAD:8265"
        ) from None


def runtime_environment(
    folder: Path, pip: bool, image: str | None, variables: Sequence[str]
) -> dict[str, Any]:
    """Ray's runtime environment of a job, except for the working directory.

    Args:
        folder: the working directory.
        pip: install diffgap's requirements on the nodes, in the versions of constraints.txt.
        image: the container image to run in, instead.
        variables: names of environment variables to pass on with their values here.
    """
    problems = []
    for name in variables:
        if name not in os.environ:
            problems.append(f"--env {name}: it is not set here; export it, or leave it out")
    if pip and image:
        problems.append("--pip and --image exclude each other: an image has its packages")
    if pip and not (folder / CONSTRAINTS).is_file():
        problems.append(f"--pip: {folder} has no {CONSTRAINTS} to take versions from; add one")
    if problems:
        raise UserError(*problems)
    environment: dict[str, Any] = {"env_vars": {name: os.environ[name] for name in variables}}
    if pip:
        option = f"--constraint={ON_NODE}/{CONSTRAINTS}"
        environment["pip"] = {"packages": _requirements(), "pip_install_options": [option]}
    if image:
        environment["image_uri"] = image
    return environment


def _requirements() -> list[str]:
    """Packages that diffgap and its searches need, without versions: constraints.txt has those."""
    packages = []
    for requirement in requires("diffgap") or []:
        if "extra ==" not in requirement or re.search("""['"]search['"]""", requirement):
            packages.append(re.split(r"[<>=!~; ]", requirement, maxsplit=1)[0])
    return packages


def excluded(folder: Path) -> list[str]:
    """Patterns of what is not sent, besides .gitignore's and .rayignore's, which Ray leaves out."""
    folders = set()
    for depth, marker in product(range(1, DEPTH + 1), MARKERS):
        for path in folder.glob("*/" * depth + marker):
            folders.add(f"/{path.parent.relative_to(folder).as_posix()}/")
    return [*NEVER_SENT, *sorted(folders)]
