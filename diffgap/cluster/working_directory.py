"""The working directory that is sent along with a job: what is left out, and what must not be."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from diffgap.compat.ray_packaging import heeds_gitignore, sent_files, size_limit
from diffgap.errors import UserError

DEPTH = 3  # how deep below the working directory outputs, stores and environments are looked for
NEVER_SENT = (".git", ".venv", "__pycache__", "*.egg-info", ".mypy_cache", ".ruff_cache")
# Files by which an output, a store or a virtual environment is recognised.
MARKERS = ("ledger.json", "mlflow.db", "manifest.json", "pyvenv.cfg")

MIB = 2**20
LARGEST = 3  # files that are named where there is too much
CHUNK_BYTES = MIB


def excluded(folder: Path) -> list[str]:
    """Patterns of what is not sent, besides .gitignore's and .rayignore's, which Ray leaves out."""
    folders = set()
    for depth, marker in product(range(1, DEPTH + 1), MARKERS):
        for path in folder.glob("*/" * depth + marker):
            folders.add(f"/{path.parent.relative_to(folder).as_posix()}/")
    return [*NEVER_SENT, *sorted(folders)]


def check_sent(folder: Path, needed: Sequence[Path]) -> None:
    """UserError where a job would lack one of its files, or where there is too much to send.

    Args:
        folder: the working directory.
        needed: the job's files, relative to the folder.
    """
    excludes = excluded(folder)
    sizes = sent_files(folder, excludes, gitignore=heeds_gitignore())
    problems = [_hidden(folder, path, excludes) for path in needed if path not in sizes]
    if _is_too_large(folder, sizes):
        problems.append(too_large(folder, sizes))
    if problems:
        raise UserError(*problems)


def too_large(folder: Path, sizes: Mapping[Path, int] | None = None) -> str:
    """That a working directory is too large to send, with its largest files."""
    if sizes is None:
        sizes = sent_files(folder, excluded(folder), gitignore=heeds_gitignore())
    largest = sorted(sizes, key=lambda path: sizes[path], reverse=True)[:LARGEST]
    names = ", ".join(f"{path.as_posix()} ({_readable(sizes[path])})" for path in largest)
    return (
        f"{folder}: the working directory, {_readable(sum(sizes.values()))}, is "
        f"too large to send: a dashboard accepts {_readable(size_limit())}; its largest files are "
        f"{names}; name what the job does not need in {folder}/.rayignore"
    )


def _readable(size: int) -> str:
    return f"{size / MIB:.1f} MiB" if size >= MIB / 10 else f"{size / 1024:.1f} KiB"


def _hidden(folder: Path, path: Path, excludes: Sequence[str]) -> str:
    """Why a file is not sent, and what to do."""
    where = f"{path.as_posix()}: it is not sent, and the job needs it: "
    if path in sent_files(folder, excludes, gitignore=False):
        return (
            f"{where}a .gitignore names it; take it out there, or send what .gitignore names with "
            "RAY_RUNTIME_ENV_IGNORE_GITIGNORE=1"
        )
    return (
        f"{where}a .rayignore names it, or its folder is an output, a store or a virtual "
        "environment; take it out there, or move it"
    )


def _is_too_large(folder: Path, sizes: Mapping[Path, int]) -> bool:
    """Whether the files, compressed as Ray sends them, are more than a dashboard accepts."""
    limit = size_limit()
    if sum(sizes.values()) <= limit:
        return False
    compressed = 0
    for path in sizes:
        packer = zlib.compressobj()
        with (folder / path).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                compressed += len(packer.compress(chunk))
                if compressed > limit:
                    return True
        compressed += len(packer.flush())
    return compressed > limit
