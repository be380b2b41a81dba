"""Checkpoints on an object store: each worker sends its own files, and fetches all of them."""

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
    """The latest checkpoints of one trial; `files.json`, written last, says that one is whole."""

    private = True

    def __init__(self, path: RemotePath, rank: int = 0, workers: int = 1) -> None:
        self.place, self.rank, self.workers = path, rank, workers
        self.trial = path.parent.name
        self._fetched = ExitStack()

    def write(self, step: int, save: Callable[[Path], None]) -> None:
        whole = self.place / f"step-{step:08}"
        if self.rank == 0:
            (whole / FILES).unlink(missing_ok=True)
            remove(whole)
        with tempfile.TemporaryDirectory(prefix="diffgap-checkpoint-") as local:
            save(Path(local))
            found = self._gathered(digests(Path(local)))  # everyone comes here after the removal
            upload(Path(local), whole)
        self._meet()
        if self.rank == 0:
            (whole / FILES).write_bytes(json.dumps(found).encode())
            for old in self._remote_newest_first()[KEPT:]:
                remove(old)

    def latest(self) -> Path | None:
        """A copy of this worker's own of the newest checkpoint that is whole."""
        found: list[str | None] = [self._newest_name() if self.rank == 0 else None]
        if self.workers > 1:
            torch.distributed.broadcast_object_list(found, src=0)
        if found[0] is None:
            return None
        self._fetched.close()
        return self._fetched.enter_context(local_copy(self.place / found[0]))

    def _newest_name(self) -> str | None:
        for place in self._remote_newest_first():
            with local_copy(place) as copy:
                if self._is_whole(copy, place.name):
                    return place.name
        return None

    def _remote_newest_first(self) -> list[RemotePath]:
        return sorted(self.place.glob("step-*"), reverse=True)

    def _gathered(self, own: dict[str, str]) -> dict[str, str]:
        """The digests of all workers' files."""
        if self.workers == 1:
            return own
        parts: list[dict[str, str]] = [{}] * self.workers
        torch.distributed.all_gather_object(parts, own)
        return {name: digest for part in parts for name, digest in part.items()}
