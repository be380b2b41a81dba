"""Artifacts of runs: files beside the database where they are local, else downloaded.

MLflow records where a run's artifacts are as an absolute path. Those of an output directory are in
OUTPUT/mlartifacts, and stay its own when it is moved, renamed or copied.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from diffgap.io.paths import StoragePath
from diffgap.tracking.database import sqlite_file
from diffgap.tracking.names import ARTIFACTS


def local_path(artifact_uri: str) -> Path | None:
    """The directory that an artifact URI names on this machine; None for any other."""
    parts = urlsplit(artifact_uri)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if parts.scheme else Path(artifact_uri)


def home(artifact_uri: str, output: StoragePath) -> Path | None:
    """Where an output directory has a run's artifacts; None for those that it does not hold."""
    recorded = local_path(artifact_uri)
    if recorded is None or not isinstance(output, Path):
        return None
    tail = recorded.parts[-4:]  # mlartifacts, sweep, run, "artifacts"
    is_ours = len(tail) == 4 and (tail[0], tail[-1]) == (ARTIFACTS, "artifacts")
    return output.absolute().joinpath(*tail) if is_ours else None


def strayed(rows: Iterable[tuple[str, str]], output: StoragePath) -> list[tuple[str, str]]:
    """Of pairs of run id and artifact URI, those recorded elsewhere, with their URIs in `output`.

    All rows have to be of runs that belong to this output.
    """
    moves = []
    for run_id, uri in rows:
        place = home(uri, output)
        if place and place != local_path(uri):
            moves.append((run_id, place.as_uri()))
    return moves


class ArtifactReader:
    """Reader of the artifacts in one tracking store; what it downloads lives as long as itself."""

    def __init__(self, client: Any, uri: str, output: StoragePath) -> None:
        self.client, self.uri = client, uri
        # A server decides by itself where artifacts are.
        self.output = output if sqlite_file(uri) and isinstance(output, Path) else None
        self._downloads = TemporaryDirectory(prefix="diffgap-report-")

    def path(self, info: Any, name: str) -> Path | None:
        """An artifact of a run, given by its `RunInfo`, as a local path; None where it has none."""
        directory = self._local(info)
        if directory:
            path = directory / name
            return path if path.exists() else None
        return self._download(info.run_id, name)

    def sizes(self, info: Any, directory: str = "") -> dict[str, int | None]:
        """Entries in a directory of a run's artifacts: bytes of files, None of directories."""
        local = self._local(info)
        if local is None:
            entries = self.client.list_artifacts(info.run_id, directory or None)
            return {Path(entry.path).name: entry.file_size for entry in entries}
        place = local / directory
        paths = place.iterdir() if place.is_dir() else ()
        return {path.name: path.stat().st_size if path.is_file() else None for path in paths}

    def has_strayed(self, info: Any) -> bool:
        """Whether a run's artifacts are recorded where they were before the output was moved."""
        uri = str(info.artifact_uri)
        return bool(self.output and strayed([(info.run_id, uri)], self.output))

    def _local(self, info: Any) -> Path | None:
        """The directory of a run's artifacts, if that is on this machine."""
        own = home(info.artifact_uri, self.output) if self.output else None
        return own if own and own.is_dir() else local_path(info.artifact_uri)

    def _download(self, run_id: str, name: str) -> Path | None:
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        if all(artifact.path != name for artifact in self.client.list_artifacts(run_id)):
            return None
        directory = Path(self._downloads.name) / run_id
        directory.mkdir(exist_ok=True)
        try:
            return Path(
                download_artifacts(
                    run_id=run_id,
                    artifact_path=name,
                    dst_path=str(directory),
                    tracking_uri=self.uri,
                )
            )
        except (MlflowException, OSError):
            return None
