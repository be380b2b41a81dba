"""What a tracking store has of a sweep at this moment, whatever was logged to it before.

Databases are deleted, outputs moved, and tracking servers changed. So a ledger does not remember
what was logged: the store that is there now is asked, and gets what it lacks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffgap.io.paths import StoragePath
from diffgap.tracking.artifacts import ArtifactReader
from diffgap.tracking.client import (
    all_runs,
    client_of,
    experiment_of,
    sweep_run,
    tracking_uri,
)
from diffgap.tracking.names import BRIDGE, SWEEP_FILE, Kind, Status, Tag
from diffgap.tracking.problems import ask


class StoredSweep:
    """A ledger's run of one sweep in a tracking store, with the runs of its trials."""

    def __init__(self, client: Any, output: StoragePath, experiment: str, sweep_run: Any) -> None:
        self.info = sweep_run.info
        self.artifacts = ArtifactReader(client, tracking_uri(output), output)
        tags = {Tag.KIND: Kind.TRIAL, Tag.PARENT: self.info.run_id}
        self.runs = all_runs(client, [experiment], tags)

    def has_record(self, facts: Mapping[str, Any]) -> bool:
        """Whether its record is the one given."""
        file = self.artifacts.path(self.info, SWEEP_FILE)
        if file is None or self.artifacts.has_strayed(self.info):
            return False
        try:
            return bool(json.loads(file.read_text()) == facts)
        except ValueError:  # broken: it is to be written anew
            return False

    def lacks(self, ended: Mapping[str, StoragePath | None]) -> set[str]:
        """Which of some trials that ended have no run, or none with all of their checkpoint.

        `ended` has their checkpoints by signature; None for a trial that failed or was stopped.
        """
        lacking = dict(ended)
        for run in self.runs:
            signature = run.data.tags.get(Tag.SIGNATURE)
            if signature in lacking and self._suffices(run, lacking[signature]):
                del lacking[signature]
        return set(lacking)

    def _suffices(self, run: Any, bridge: StoragePath | None) -> bool:
        if bridge is None:
            return True
        return run.info.status == Status.FINISHED and self._has_files(run.info, bridge)

    def _has_files(self, info: Any, bridge: StoragePath) -> bool:
        sizes = self.artifacts.sizes(info, BRIDGE)
        for entry in bridge.iterdir():
            if entry.name not in sizes:
                return False
            # An object store would be asked for the size of each file by itself.
            is_local = isinstance(entry, Path) and entry.is_file()
            if is_local and entry.stat().st_size != sizes[entry.name]:
                return False
        return not self.artifacts.has_strayed(info)


def is_logged(
    output: StoragePath,
    ledger: str,
    facts: Mapping[str, Any],
    ended: Mapping[str, StoragePath | None],
) -> bool:
    """Whether a sweep's record and all of its trials that ended are in the tracking store.

    `ended` is as for `StoredSweep.lacks`.

    Raises:
        UserError: where the store cannot be asked, or the sweep's experiment is deleted.
    """
    uri = tracking_uri(output)

    def look() -> bool:
        client = client_of(output)
        experiment = experiment_of(client, str(facts["name"]), uri)
        run = sweep_run(client, experiment, ledger) if experiment else None
        if experiment is None or run is None:
            return False
        stored = StoredSweep(client, output, experiment, run)
        return stored.has_record(facts) and not stored.lacks(ended)

    return ask(look, uri)
