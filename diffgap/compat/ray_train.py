"""Ray Train without two processes of each run that nothing here uses.

To be deleted once runs share one PlacementGroupCleaner (ray#65443), and Ray Train starts no process
for data sets where there are none, as 2.60 still does.
"""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer

UNUSED_CALLBACKS = ("DatasetsCallback", "PlacementGroupCleanerCallback")
"""Each starts a process, at two seconds of a core: for Ray's own data sets, and to free the
placement group of a killed controller, which `ray_cluster.remove_leaked_groups` does."""


class LeanTrainer(TorchTrainer):
    """A TorchTrainer that starts two processes fewer."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return [part for part in callbacks if type(part).__name__ not in UNUSED_CALLBACKS]
