"""Ray Train without the processes that nothing here has a use for."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer

IDLE = ("DatasetsCallback", "PlacementGroupCleanerCallback")
"""Parts of Ray Train that start a process a trial, at two seconds of a core each: for Ray's own
data sets, of which a trial has none, and for the placement group of a killed controller, which the
sweep gives back itself (`placement.remove_leaked_groups`)."""


class LeanTrainer(TorchTrainer):
    """A TorchTrainer that starts two processes fewer."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return [part for part in callbacks if type(part).__name__ not in IDLE]
