"""A whole sweep whose output is on an object store, and which is killed on the way."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from object_store import bucket

from diffgap.ledger.ledger import Ledger

pytestmark = pytest.mark.fault

SPEC = """\
name: away
store: {store}
trial:
  denoiser: {{width: 32, blocks: 2}}
  train: {{steps: 24, batch_size: 32, epoch_steps: 2, zero_stage: 1}}
  score: {{top_k: 5}}
resources: {{workers: 2}}
"""


def test_a_sweep_on_an_object_store_is_killed_and_goes_on(tmp_path, small_store):
    """Two workers with shares of their own send their checkpoints, and fetch them again."""
    (tmp_path / "spec.yaml").write_text(SPEC.format(store=small_store))
    with bucket() as uri:
        clean = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
        environment = {**clean, "OMP_NUM_THREADS": "1", "DIFFGAP_OUTPUT": uri,
                       "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}  # fmt: skip
        command = [str(Path(sys.executable).parent / "diffgap"), "sweep", "spec.yaml"]
        first = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        said = ""
        for line in first.stdout:
            said += line
            if re.search(r"step 1\d/24", line):
                first.send_signal(signal.SIGKILL)
                break
        assert first.wait(30) == -signal.SIGKILL, said
        again = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
        )
        assert again.returncode == 0, again.stdout + again.stderr
        assert "CDM x BST ablation" in again.stdout
        ledger = Ledger.at(uri)
        (trial,) = (ledger.output / "trials").iterdir()
        record = ledger.trial(trial.name)
        points = [p for p in record.history() if "train/loss" in p["metrics"]]
        assert [p["step"] for p in points] == list(range(1, 25))
        said = "".join(file.read_text() for file in sorted(record.log.iterdir()))
        assert int(re.findall(r"Training from step (\d+)", said)[-1]) >= 8
        assert not record.checkpoints.exists()
