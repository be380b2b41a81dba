"""Where a result comes from: the code's git commit and the packages it ran with."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("diffgap", "torch", "ray", "deepspeed", "mlflow", "numpy", "pyarrow", "safetensors")


@cache
def git_commit() -> str:
    """The commit of the checkout this package runs from, ``-dirty`` where it was changed.

    ``unknown`` where the package was installed without a checkout, or git is missing.
    """
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(
            [*command, "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def package_versions() -> dict[str, str]:
    """Installed versions of what decides a result."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions
