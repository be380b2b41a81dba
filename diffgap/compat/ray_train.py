"""Ray Train without two processes of each run that nothing here uses, and without an open port.

The trainer is to be deleted once runs share one PlacementGroupCleaner (ray#65443), and Ray Train
starts no process for data sets where there are none, as 2.60 still does; the configuration once
torch's TCPStore can be told an address to listen on, which 2.13 cannot.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import (
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)

UNUSED_CALLBACKS = ("DatasetsCallback", "PlacementGroupCleanerCallback")
"""Each starts a process, at two seconds of a core: for Ray's own data sets, and to free the
placement group of a killed controller, which `ray_cluster.remove_leaked_groups` does."""


class LeanTrainer(TorchTrainer):
    """A TorchTrainer that starts two processes fewer."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return [part for part in callbacks if type(part).__name__ not in UNUSED_CALLBACKS]


class OneMachineConfig(TorchConfig):
    """Workers of one machine that meet in a file: a TCPStore listens on every interface.

    Args:
        folder: where the file is made; whoever can write it can send tensors to the workers.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _OneMachineBackend


class _OneMachineBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: OneMachineConfig) -> None:
        """Sets the process group up; a new file each time, for a restarted one may be stale."""
        file = Path(tempfile.mkdtemp(prefix="group-", dir=backend_config.folder)) / "store"
        has_gpus = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        worker_group.execute(_set_torch_distributed_env_vars)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank,
                    _setup_torch_process_group,
                    backend="nccl" if has_gpus else "gloo",
                    world_rank=rank,
                    world_size=len(worker_group),
                    init_method=file.as_uri(),
                    timeout_s=backend_config.timeout_s,
                )
                for rank in range(len(worker_group))
            ]
        )
