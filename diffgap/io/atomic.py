"""Atomic writes: a file is whole or absent, written under a temporary name, synced, renamed.

A killed process leaves temporary names behind, which nothing reads. An object store writes every
file whole; the one that marks a directory as complete is written last.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from diffgap.io.json_text import json_text
from diffgap.io.paths import RemotePath, StoragePath, remove, upload
from diffgap.io.places import naming


def write_json(path: StoragePath, content: Any) -> None:
    write_text(path, json_text(content, indent=2) + "\n")


def write_text(path: StoragePath, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: StoragePath, content: bytes) -> None:
    """Writes a file, whole or not at all."""
    if isinstance(path, RemotePath):
        path.write_bytes(content)
        return
    with new_file(path) as temporary:
        temporary.write_bytes(content)


def create_text(path: StoragePath, text: str) -> None:
    """Writes a file unless there is one: of processes that create it at once, one does."""
    if isinstance(path, RemotePath):  # which cannot tell "create" from "replace"
        if not path.is_file():
            path.write_bytes(text.encode())
        return
    with new_file(path, _link) as temporary:
        temporary.write_text(text)


def _link(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        os.replace(temporary, path)


@contextmanager
def new_file(path: Path, publish: Callable[[Path, Path], None] = os.replace) -> Iterator[Path]:
    """A temporary file that becomes `path`, by `publish`, if the block succeeds.

    Raises:
        OSError: of `path` and not of the temporary name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same suffix, as numpy and others append one that is missing.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        with naming(path, temporary):
            yield temporary
            sync(temporary)
            publish(temporary, path)
            sync(path.parent)  # or the rename itself could be lost in a power cut
    finally:
        with suppress(OSError):  # the reason for being here says more
            temporary.unlink(missing_ok=True)


@contextmanager
def new_directory(path: StoragePath, marker: str = "") -> Iterator[Path]:
    """A temporary directory that replaces `path` if the block succeeds, and is deleted otherwise.

    `marker` is the file that marks the directory as complete: an object store cannot rename a
    directory, so there it is deleted first and written last.

    Raises:
        OSError: of `path` and not of the temporary name.
    """
    if isinstance(path, RemotePath):
        with tempfile.TemporaryDirectory(prefix="diffgap-") as local:
            yield Path(local)
            if marker:
                (path / marker).unlink(missing_ok=True)
            remove(path)
            upload(Path(local), path, marker)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with naming(path, temporary):
            temporary.mkdir()
            yield temporary
            replace_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_directory(temporary: Path, path: Path) -> None:
    """Renames a directory to `path`, replacing what was there, once its files are on disk."""
    for file in sorted(temporary.rglob("*")):
        sync(file)
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    if path.exists():
        path.rename(old)
    temporary.rename(path)
    sync(path.parent)
    delete(old)


def delete(path: Path) -> None:
    """Deletes a local directory with all in it, or a file; what cannot be deleted stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(directory: StoragePath) -> None:
    """Deletes the temporary names that killed processes left in a directory."""
    if isinstance(directory, RemotePath):
        return  # its files are written whole, under their own names
    for entry in directory.glob(".*.????????*"):
        delete(entry)


def remove_temporaries(path: Path) -> None:
    """Deletes what killed processes left of making one directory, where nobody makes it now."""
    for entry in path.parent.iterdir():
        if re.fullmatch(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}", entry.name):
            delete(entry)


def sync(path: Path) -> None:
    """Waits until a file's content, or a directory's entries, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
