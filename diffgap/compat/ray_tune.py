"""Ray Tune without the import of Weights & Biases, which nothing here uses."""

from __future__ import annotations

from diffgap.compat.imports import without


def import_integrations() -> None:
    """Imports Tune's logger callbacks, without the half second that wandb takes.

    Tune looks for their classes among a sweep's callbacks (`ray.air._internal.usage`), and wandb
    comes with laion-clap. To be deleted once Tune imports none for that, as 2.60 still does.
    """
    with without("wandb"):
        import ray.air.integrations.wandb  # noqa: F401
