"""What the trials of a running sweep share."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffgap.cluster.capacity import ClusterCapacity
from diffgap.ledger.ledger import Ledger
from diffgap.ledger.locks import SweepLock
from diffgap.sweep.display import SweepDisplay
from diffgap.sweep.plan import Plan
from diffgap.sweep.tracking import SweepTracker


@dataclass
class SweepContext:
    """Everything that the trials of one sweep are run with."""

    plan: Plan
    ledger: Ledger
    tracker: SweepTracker
    lock: SweepLock
    capacity: ClusterCapacity
    display: SweepDisplay
    verbose: bool = False
    failures: dict[str, str] = field(default_factory=dict)
    """Why trials failed, by signature."""
