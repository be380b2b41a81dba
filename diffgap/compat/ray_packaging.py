"""Which files Ray sends along with a job, by its private walk over a working directory.

To be deleted once Ray lists them itself, or names the largest of a directory that is too large
(ray#45602), which 2.60 does not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def size_limit() -> int:
    """Bytes of the compressed working directory that a dashboard accepts."""
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE

    return int(DASHBOARD_CLIENT_MAX_SIZE)


def heeds_gitignore() -> bool:
    """Whether Ray leaves out what .gitignore names, as it does by default."""
    from ray._private.ray_constants import RAY_RUNTIME_ENV_IGNORE_GITIGNORE

    return os.environ.get(RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"


def sent_files(folder: Path, excludes: Sequence[str], *, gitignore: bool) -> dict[Path, int]:
    """Size in bytes of every file that Ray would send, by its path below the folder.

    Args:
        folder: the working directory.
        excludes: patterns of what is left out, besides those of .rayignore and Ray's own.
        gitignore: leave out what .gitignore names, too.
    """
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    sizes = {}

    def add(path: Path) -> None:
        if path.is_file():
            sizes[path.relative_to(folder)] = path.stat().st_size

    patterns = [*get_runtime_env_default_excludes(), *excludes]
    _dir_travel(folder, [_get_excludes(folder, patterns)], add, include_gitignore=gitignore)
    return sizes
