"""Publication of a sweep's report in its own MLflow run: artifacts, and tables as description."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from diffgap.report.formats import as_markdown, write_report
from diffgap.report.model import make_report
from diffgap.report.references import Reference
from diffgap.tracking.names import Tag
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
        Whether the report differs from the last one that was published.
    """
    report = make_report([sweep], references, reader.where)
    description = as_markdown(report.tables)
    # A resumed sweep with nothing new would else draw and upload all its figures again.
    digest = hashlib.sha256(description.encode()).hexdigest()
    is_there = reader.has_artifact(sweep.run_id, DIRECTORY)  # not where artifacts were deleted
    if is_there and reader.tag(sweep.run_id, Tag.REPORT) == digest:
        return False
    with TemporaryDirectory(prefix="diffgap-report-") as scratch:
        directory = Path(scratch) / DIRECTORY
        write_report(report, "all", directory)
        reader.ask(lambda: reader.client.log_artifacts(sweep.run_id, str(directory), DIRECTORY))
    # The digest last, so that a publication that failed half-way is repeated.
    for tag, value in ((Tag.NOTE, description), (Tag.REPORT, digest)):
        reader.ask(partial(reader.client.set_tag, sweep.run_id, tag, value))
    return True
