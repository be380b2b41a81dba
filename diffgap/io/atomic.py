"""Files that are whole or absent: written under a temporary name, synced, then renamed.

A process that is killed leaves temporary names behind, which nothing reads; `sweep_up` removes
those of a place that nobody is writing to. On an object store a file comes whole by itself, and a
directory's telling file last.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffgap.io.paths import RemotePath, StoragePath, remove, upload


def write_json(path: StoragePath, content: Any) -> None:
    """Writes JSON so that a reader never sees half of it."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: StoragePath, text: str) -> None:
    """Writes a text file so that a reader never sees half of it."""
    write_bytes(path, text.encode())


def write_bytes(path: StoragePath, content: bytes) -> None:
    """Writes a file so that a reader never sees half of it."""
    if isinstance(path, RemotePath):
        path.write_bytes(content)
        return
    with new_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file of the same suffix that becomes `path` if the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_directory(path: StoragePath, last: str = "") -> Iterator[Path]:
    """A temporary directory that becomes `path`, replacing what was there, if the block ends well.

    If the block raises, the temporary directory is gone and `path` is as it was. `last` is the file
    that says that all is there: on an object store it is taken away first and put back last.
    """
    if isinstance(path, RemotePath):
        with tempfile.TemporaryDirectory(prefix="diffgap-") as local:
            yield Path(local)
            if last:
                (path / last).unlink(missing_ok=True)
            remove(path)
            upload(Path(local), path, last)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    temporary.mkdir()
    try:
        yield temporary
        put_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_directory(temporary: Path, path: Path) -> None:
    """Renames a filled directory to `path`, in place of what was there, once it is on the disk."""
    for file in sorted(temporary.rglob("*")):
        sync(file)
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    if path.exists():
        path.rename(old)
    temporary.rename(path)
    sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def sweep_up(place: StoragePath) -> None:
    """Removes the temporary names that killed processes left in a directory."""
    if isinstance(place, RemotePath):
        return  # where there are none
    for entry in place.glob(".*.????????*"):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file's content, or a directory's names, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
