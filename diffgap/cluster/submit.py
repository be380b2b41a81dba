"""Submission of a sweep as a job of a Ray cluster, with a copy of the working directory."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import time
from collections.abc import Callable, Sequence
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from diffgap.cluster.connect import enable_token
from diffgap.cluster.working_directory import check_sent, excluded, too_large
from diffgap.errors import UserError
from diffgap.io.redact import is_secret_name, redact

CONSTRAINTS = "constraints.txt"
ON_NODE = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"  # by Ray: the unpacked working directory
RECONNECT_S, ATTEMPTS = 2.0, 30  # pause before each reconnection to a job, and how many there are
AGENT_S, AGENT_POLL_S = 60.0, 2.0  # how long a cluster's agent may take to be up, after its head
NO_AGENT, TOO_LARGE = "No available agent", "status code 413"  # of Ray's messages
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
    address: str,
    arguments: Sequence[str],
    folder: Path,
    environment: dict[str, Any],
    notify: Callable[[str], None],
) -> Submission:
    """Starts `diffgap ARGUMENTS` as a job in a copy of a folder.

    Args:
        address: the cluster's dashboard, as in http://HEAD:8265.
        arguments: the command's.
        folder: the working directory, which is sent.
        environment: from `runtime_environment`.
        notify: prints a line for people.

    Raises:
        UserError: where the cluster does not accept the job.
    """
    enable_token()
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    os.environ.setdefault("RAY_RUNTIME_ENV_LOG_TO_DRIVER_ENABLED", "0")
    runtime = {"working_dir": str(folder), "excludes": excluded(folder), **environment}
    command = shlex.join(["python", "-m", "diffgap", *arguments])
    try:
        client = JobSubmissionClient(address)
        return Submission(client, _submit_once_up(client, command, runtime, notify))
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        if TOO_LARGE in str(error):  # to a proxy, say, with a lower limit
            raise UserError(too_large(folder)) from None
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"--address {address}: the job was not accepted: {reason}; "
            "give the address of a Ray dashboard, as in http://HEAD:8265"
        ) from None


def _submit_once_up(
    client: Any, command: str, runtime: dict[str, Any], notify: Callable[[str], None]
) -> str:
    """Submits a job and returns its id; waits for the agent of a cluster that has just started."""
    start = time.monotonic()
    is_waiting = False
    while True:
        try:
            return str(client.submit_job(entrypoint=command, runtime_env=dict(runtime)))
        except RuntimeError as error:
            if NO_AGENT not in str(error) or time.monotonic() - start > AGENT_S:
                raise
        if not is_waiting:
            is_waiting = True
            notify(f"The cluster is starting; waiting up to {AGENT_S:.0f} s for its agent.")
        time.sleep(AGENT_POLL_S)


def check_request(spec: Path, folder: Path, output: str | None, pip: bool) -> None:
    """UserError for what the copy of the working directory would lack, or would lose.

    Args:
        spec: the sweep's spec.
        folder: the working directory.
        output: where results go, as the cluster sees it.
        pip: whether the folder's constraints.txt is needed.
    """
    enable_token()  # before `check_sent` imports Ray, which reads it then
    problems = []
    is_inside = spec.resolve().is_relative_to(folder.resolve())
    if not is_inside:
        where = f"not in {folder}, the directory that is sent"
        problems.append(f"SPEC: {spec} is {where}; run this from its own")
    if output and "://" not in output and not Path(output).is_absolute():
        problems.append(
            f"--output {output}: a job runs in a copy of this directory, which Ray removes; "
            "give an absolute path on the cluster, or a URI such as s3://bucket/runs"
        )
    needed = [spec.resolve().relative_to(folder.resolve())] if is_inside else []
    if pip and (folder / CONSTRAINTS).is_file():
        needed.append(Path(CONSTRAINTS))
    try:
        check_sent(folder, needed)
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(*problems)


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


def exposed(environment: dict[str, Any]) -> list[str]:
    """Names of variables whose secrets a job's environment shows: Ray prints and stores them."""
    variables: dict[str, str] = environment["env_vars"]
    return [
        name for name, value in variables.items() if is_secret_name(name) or redact(value) != value
    ]


def _requirements() -> list[str]:
    """Packages that diffgap and its searches need, without versions: constraints.txt has those."""
    packages = []
    for requirement in requires("diffgap") or []:
        if "extra ==" not in requirement or re.search("""['"]search['"]""", requirement):
            packages.append(re.split(r"[<>=!~; ]", requirement, maxsplit=1)[0])
    return packages
