"""MLflow's web pages of an output directory's runs, on this machine alone."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import uuid

from diffgap.cluster.guard import ProcessGuard
from diffgap.errors import UserError
from diffgap.io.paths import StoragePath
from diffgap.tracking.client import prepare, tracking_uri

HOST = "127.0.0.1"


def serve(output: StoragePath, port: int) -> int:
    """Runs MLflow's UI on 127.0.0.1 until it is stopped; returns its exit status.

    It ends with this process, however that ends.

    Raises:
        UserError: where the port cannot be listened on, or the database cannot be opened.
    """
    _check_free(port)
    prepare(output)
    command = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port)]
    with ProcessGuard(uuid.uuid4().hex):
        environment = {
            **os.environ,
            "MLFLOW_BACKEND_STORE_URI": tracking_uri(output),  # may hold secrets
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # or else it starts a job queue
        }
        try:
            # Not meant to end by itself, MLflow exits with 0 where its server could not start.
            return subprocess.run(command, check=False, env=environment).returncode or 1
        except KeyboardInterrupt:
            return 0


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
        try:
            probe.bind((HOST, port))
        except OSError as error:
            remedy = f"give another, such as --port {port % 65535 + 1}"
            if error.errno == errno.EACCES:
                remedy = "give one above 1023"
            raise UserError(f"--port {port}: {error.strerror}; {remedy}") from None
