"""Paths of outputs: on this machine, on a shared file system, or in an object store.

    runs                 on this machine
    file:///shared/runs  on a file system that all nodes of a cluster share
    s3://bucket/runs     on any of pyarrow's file systems

A `RemotePath` has the methods of a `pathlib.Path` that the package uses, as far as an object store
can: files are written whole, nothing is appended or locked, and a directory exists as long as
files are in it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from diffgap.errors import UserError

OBJECT_STORES = ("s3", "gcs", "abfs")
"""pyarrow's names of file systems without real directories."""


class SharedPath(type(Path())):  # type: ignore[misc]
    """A local path on a file system that every machine of the cluster shares."""


class RemotePath:
    """A path on one of pyarrow's file systems, without leading or trailing slashes.

    `root` is the URI of the bucket or host, with its query: ``s3://bucket/?region=eu-west-1``.
    """

    def __init__(self, root: str, path: str) -> None:
        self.root, self.path = root, path

    @property
    def filesystem(self) -> Any:
        """pyarrow's file system, opened once per process."""
        return _filesystem(self.root)[0]

    @property
    def key(self) -> str:
        """pyarrow's name of the path, which includes the bucket."""
        base = _filesystem(self.root)[1].rstrip("/")
        return f"{base}/{self.path}".rstrip("/")

    def __truediv__(self, name: str | Path) -> RemotePath:
        return RemotePath(self.root, f"{self.path}/{name}".strip("/"))

    def __str__(self) -> str:
        parts = urlsplit(self.root)
        return urlunsplit((parts.scheme, parts.netloc, f"/{self.path}", parts.query, ""))

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __lt__(self, other: RemotePath) -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    @property
    def parent(self) -> RemotePath:
        return RemotePath(self.root, self.path.rpartition("/")[0])

    def absolute(self) -> RemotePath:
        return self

    def _info(self) -> Any:
        return self.filesystem.get_file_info(self.key)

    def is_file(self) -> bool:
        return bool(self._info().is_file)

    def is_dir(self) -> bool:
        return bool(self._info().type.name == "Directory")

    def exists(self) -> bool:
        return bool(self._info().type.name != "NotFound")

    def stat(self) -> Any:
        """`st_mtime` in seconds and `st_size` in bytes."""
        info = self._info()
        return SimpleNamespace(st_mtime=info.mtime_ns / 1e9, st_size=info.size)

    def iterdir(self) -> Iterator[RemotePath]:
        for info in self._below(recursive=False):
            yield self / info.base_name

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Entries directly in it whose names match."""
        return (entry for entry in self.iterdir() if fnmatch(entry.name, pattern))

    def files(self) -> list[str]:
        """Paths of all files below it, relative to it."""
        start = len(self.key) + 1
        return sorted(info.path[start:] for info in self._below(recursive=True) if info.is_file)

    def _below(self, recursive: bool) -> Any:
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.key, allow_not_found=True, recursive=recursive)
        return self.filesystem.get_file_info(selector)

    def read_bytes(self) -> bytes:
        with self.filesystem.open_input_stream(self.key) as stream:
            return bytes(stream.read())

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def write_bytes(self, content: bytes) -> None:
        """Writes a whole file, replacing what was there."""
        if self.filesystem.type_name not in OBJECT_STORES:
            self.filesystem.create_dir(self.parent.key, recursive=True)
        with self.filesystem.open_output_stream(self.key) as stream:
            stream.write(content)

    def touch(self) -> None:
        self.write_bytes(b"")

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Does nothing: a directory exists as soon as a file is in it."""

    def unlink(self, missing_ok: bool = False) -> None:
        with suppress(FileNotFoundError) if missing_ok else nullcontext():
            self.filesystem.delete_file(self.key)

    def remove(self) -> None:
        """Deletes the directory and everything in it, if it exists."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_dir(self.key)


StoragePath = Path | RemotePath


@cache
def _filesystem(root: str) -> tuple[Any, str]:
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem

    try:
        filesystem, base = FileSystem.from_uri(root)
    except (ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{root}: cannot be reached: {reason}; check the URI") from None
    return filesystem, base


def parse_path(text: str) -> StoragePath:
    """The path of a string; UserError for a URI whose file system pyarrow cannot open."""
    if "://" not in text:
        return Path(text)
    parts = urlsplit(text)
    if parts.scheme == "file":
        return SharedPath(unquote(parts.path))
    root = urlunsplit((parts.scheme, parts.netloc, "/", parts.query, ""))
    _filesystem(root)  # so that a wrong URI is refused now and not hours later
    return RemotePath(root, unquote(parts.path).strip("/"))


def remove(path: StoragePath) -> None:
    """Deletes a directory, if it exists."""
    if isinstance(path, RemotePath):
        path.remove()
    else:
        shutil.rmtree(path, ignore_errors=True)


def upload(directory: Path, target: RemotePath, marker: str = "") -> None:
    """Copies a local directory; the file that marks it as complete comes last."""
    for file in sorted(directory.rglob("*"), key=lambda file: (file.name == marker, file)):
        if file.is_file():
            (target / file.relative_to(directory)).write_bytes(file.read_bytes())


@contextmanager
def local_copy(directory: StoragePath) -> Iterator[Path]:
    """A directory on this machine: itself, or a copy that is deleted after the block."""
    if isinstance(directory, Path):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="diffgap-") as temporary:
        for name in directory.files():
            target = Path(temporary) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((directory / name).read_bytes())
        yield Path(temporary)
