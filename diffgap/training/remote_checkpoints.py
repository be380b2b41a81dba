"""Checkpoints on an object store: each worker uploads its own files, and downloads all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch

from diffgap.io.paths import RemotePath, StoragePath, local_copy, remove, upload
from diffgap.training.checkpoint import FILES, KEPT, Checkpoints, digests


def checkpoints_of(path: StoragePath, rank: int = 0, workers: int = 1) -> Checkpoints:
    """The checkpoints of a trial, wherever they are kept."""
    if isinstance(path, RemotePath):
        return RemoteCheckpoints(path, rank, workers)
    return Checkpoints(path, rank, workers)


class RemoteCheckpoints(Checkpoints):
    """The latest checkpoints of one trial, whole once they have `files.json`, written last."""

    private = True

    def __init__(self, path: RemotePath, rank: int = 0, workers: int = 1) -> None:
        self.remote, self.rank, self.workers = path, rank, workers
        self.trial = path.parent.name
        self._copies = ExitStack()

    def write(self, step: int, save: Callable[[Path], None]) -> None:
        whole = self.remote / f"step-{step:08}"
        if self.rank == 0:  # leftovers of an upload that was killed
            (whole / FILES).unlink(missing_ok=True)
            remove(whole)
        with tempfile.TemporaryDirectory(prefix="diffgap-checkpoint-") as local:
            save(Path(local))
            # Also a barrier: nobody uploads before the first worker has removed leftovers.
            files = self._gathered(digests(Path(local)))
            upload(Path(local), whole)
        self._meet()
        if self.rank == 0:
            (whole / FILES).write_bytes(json.dumps(files).encode())
            for old in self._remote_newest_first()[KEPT:]:
                remove(old)

    def latest(self) -> Path | None:
        """This worker's own copy of the newest checkpoint that is whole."""
        name = self._from_first_worker(self._newest_whole_name)
        if name is None:
            return None
        self._copies.close()  # the copy of an earlier call
        return self._copies.enter_context(local_copy(self.remote / name))

    def _newest_whole_name(self) -> str | None:
        for path in self._remote_newest_first():
            with local_copy(path) as copy:
                if self._is_whole(copy, path.name):
                    return path.name
        return None

    def _remote_newest_first(self) -> list[RemotePath]:
        return sorted(self.remote.glob("step-*"), reverse=True)

    def _gathered(self, digests_here: dict[str, str]) -> dict[str, str]:
        """The digests of all workers' files."""
        if self.workers == 1:
            return digests_here
        parts: list[dict[str, str]] = [{}] * self.workers
        torch.distributed.all_gather_object(parts, digests_here)
        files: dict[str, str] = {}
        for part in parts:
            files |= part
        return files
