"""Provenance of a result: the code's git commit and changes, packages and hardware."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from diffgap.io.redact import redact

PACKAGES = ("diffgap", "torch", "ray", "deepspeed", "mlflow", "numpy", "pyarrow", "safetensors")
"""Those that can change a result."""

LONGEST_DIFF = 1_000_000  # characters of the diff that are kept


@cache
def git_commit() -> str:
    """The commit of this package's checkout, ``-dirty`` if that has changes; else ``unknown``."""
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or "unknown"


@cache
def code_diff() -> str:
    """The package's changes since its commit, without secrets."""
    return redact(_git("diff", "HEAD", "--", ".") or "")[:LONGEST_DIFF]


def _git(*arguments: str) -> str | None:
    """Output of a git command in the package's directory; None where it fails."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        output = subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return output.strip()


def hardware() -> str:
    """The device that this process computes on."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"CPU ({platform.machine()}), {torch.get_num_threads()} threads"


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that can change a result."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions
