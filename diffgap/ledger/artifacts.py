"""Names of the files in a bridge checkpoint and in a trial's directory."""

from __future__ import annotations

# A bridge checkpoint: OUTPUT/trials/SIGNATURE/bridge
CONFIG = "config.json"
METRICS = "metrics.json"  # sent last to an object store: where it is, the checkpoint is whole
HISTORY = "history.json"
RANKS = "ranks.parquet"
EXAMPLES = "examples.parquet"
GAP_SAMPLE = "gap.parquet"
EXPLAINED = "explained"  # in GAP_SAMPLE's metadata: JSON, shares of variance of its coordinates
GENERATED = "generated.parquet"
REPLICATES = "replicates.parquet"
PLAYED = "audio"
CODE_DIFF = "code.diff"  # how the package differed from its commit; empty where it did not

# A trial's directory: OUTPUT/trials/SIGNATURE
TRIAL = "trial.json"
PROGRESS = "progress.json"
LOG = "log.txt"
FAILURE = "failed.json"
STOP = "stop.json"
ATTEMPTS = "attempts.json"
