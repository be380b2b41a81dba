"""Ray Tune without the imports that nothing here has a use for."""

from __future__ import annotations

from diffgap.compat.imports import without


def import_integrations() -> None:
    """Imports Tune's logger callbacks, without the half second of Weights & Biases.

    Tune looks for their classes among a sweep's callbacks (`ray.air._internal.usage`), and wandb
    comes with laion-clap. Can be deleted once Tune looks only at what is imported anyway; Ray 2.60
    does not.
    """
    with without("wandb"):
        import ray.air.integrations.wandb  # noqa: F401
