"""Names that sweeps and trials have in MLflow.

One experiment for each sweep name; in it a parent run for the sweep, whose artifact sweep.json is
its record, and a child run for each trial, found by its signature. `writer` writes, `reader` reads.
"""

from __future__ import annotations


class Tag:
    SWEEP, SIGNATURE, KIND = "diffgap.sweep", "diffgap.signature", "diffgap.kind"
    REASON, PRUNED, LEDGER = "diffgap.reason", "diffgap.pruned", "diffgap.ledger"
    REPORT = "diffgap.report"  # the digest of the tables that a sweep's own run carries
    PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"


class Kind:
    SWEEP, TRIAL = "sweep", "trial"


class Status:
    FINISHED, FAILED, KILLED, RUNNING = "FINISHED", "FAILED", "KILLED", "RUNNING"


INTERRUPTED, LOST_PROCESS = "interrupted", "its process died"
# Reasons of KILLED runs whose trials nobody stopped; the last is an earlier version's.
RESUMABLE = (INTERRUPTED, LOST_PROCESS, "its process ended without a word")

DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"  # in an output directory
SWEEP_FILE, BRIDGE = "sweep.json", "bridge"  # artifacts: a sweep's record, a trial's checkpoint
