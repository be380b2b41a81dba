"""What the ledger keeps of a sweep, and what of it others may read."""

import json

from diffgap.ledger.ledger import Ledger, SweepRecord

VALUES = {"NCCL_SOCKET_IFNAME": "eth0-of-the-lab", "NCCL_IB_HCA": "mlx5_0"}


def test_values_of_variables_stay_in_the_output_and_only_their_names_are_published(tmp_path):
    """The same command resumes with them; MLflow, and every report from it, has the names."""
    spec = {"name": "s", "resources": {"workers": 2, "environment": dict(VALUES)}}
    ledger = Ledger(tmp_path)
    ledger.record_sweep(SweepRecord("s", spec, "store", []))
    record = ledger.sweep("s")
    published = json.dumps(record.public_facts())
    assert record.spec["resources"]["environment"] == VALUES
    assert all(name in published for name in VALUES)
    assert not any(value in published for value in VALUES.values())
