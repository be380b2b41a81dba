"""Storage of Optuna's journal: in a file, or on an object store."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from diffgap.io.paths import RemotePath, StoragePath


def backend(journal: StoragePath) -> Any:
    """Optuna's backend for a journal, which only the search's own process writes."""
    from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

    if not isinstance(journal, RemotePath):
        journal.parent.mkdir(parents=True, exist_ok=True)
        return JournalFileBackend(str(journal))

    class RemoteBackend(BaseJournalBackend):
        """Lines of JSON in one object, which is written anew with each: none can be appended."""

        def __init__(self) -> None:
            text = journal.read_text() if journal.is_file() else ""
            self._lines = text.splitlines()

        def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
            return [json.loads(line) for line in self._lines[log_number_from:]]

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            self._lines += map(json.dumps, logs)
            journal.write_bytes("".join(f"{line}\n" for line in self._lines).encode())

    return RemoteBackend()
