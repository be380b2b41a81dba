"""A sweep's own run in MLflow carries its tables and figures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from diffgap.report.model import Report, make_report, write_report
from diffgap.report.references import Reference
from diffgap.report.tables.registry import as_markdown
from diffgap.tracking.client import NOTE, REPORT
from diffgap.tracking.reader import LoggedSweep, Reader

DIRECTORY = "report"
"""Of the artifacts."""


def publish(reader: Reader, sweep: LoggedSweep, references: Sequence[Reference]) -> bool:
    """Logs a sweep's whole report as artifacts of its run, and its tables as the run's description.

    Args:
        reader: of the tracking store.
        sweep: as it was read from there.
        references: published rows.

    Returns:
        Whether there was something new to tell.
    """
    made = make_report([sweep], references, reader.where)
    digest = hashlib.sha256(as_markdown(made.tables).encode()).hexdigest()
    if reader.tag(sweep.run_id, REPORT) == digest:
        return False
    _log(reader, sweep, made)
    reader.client.set_tag(sweep.run_id, NOTE, as_markdown(made.tables))
    reader.client.set_tag(sweep.run_id, REPORT, digest)
    return True


def _log(reader: Reader, sweep: LoggedSweep, made: Report) -> None:
    with TemporaryDirectory(prefix="diffgap-report-") as scratch:
        write_report(made, "all", Path(scratch) / DIRECTORY)
        reader.client.log_artifacts(sweep.run_id, str(Path(scratch) / DIRECTORY), DIRECTORY)
