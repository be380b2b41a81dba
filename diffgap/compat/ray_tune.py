"""Ray Tune without the import of Weights & Biases, and without copies of cloud keys."""

from __future__ import annotations

from diffgap.compat.imports import without


def import_integrations() -> None:
    """Imports Tune's logger callbacks, without the half second that wandb takes.

    Tune looks for their classes among a sweep's callbacks (`ray.air._internal.usage`), and wandb
    comes with laion-clap. To be deleted once Tune imports none for that, as 2.60 still does.
    """
    with without("wandb"):
        import ray.air.integrations.wandb  # noqa: F401


def withhold_cloud_keys() -> None:
    """Keeps Tune from copying AWS_* of this environment into its runtime environments.

    Ray shows those on command lines and in logs. A local Ray's processes inherit this environment
    anyway, and the nodes of a cluster have keys of their own, or could not reach the output. To be
    deleted once Tune copies no keys (`ray.tune.execution.class_cache`), as 2.60 still does.
    """
    from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

    for name in [name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")]:
        ENV_VARS_TO_PROPAGATE.remove(name)
