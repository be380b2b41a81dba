"""Where outputs are: a path of this machine, one that all machines share, or an object store.

    runs                 of this machine
    file:///shared/runs  on a file system that all nodes of a cluster share
    s3://bucket/runs     on any of pyarrow's file systems

A `RemotePath` answers to what the rest asks of a `pathlib.Path`, as far as an object store can:
what it writes is whole or absent, nothing is appended or locked, and directories come and go with
what is in them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from diffgap.errors import UserError

OBJECT_STORES = ("s3", "gcs", "abfs")
"""pyarrow's names of file systems without directories of their own."""


class SharedPath(type(Path())):  # type: ignore[misc]
    """A local path on a file system that every machine of the cluster shares."""


class RemotePath:
    """A place on one of pyarrow's file systems.

    Args:
        root: URI of the bucket or host, with the options of a query if there are any.
        path: below it, without slashes around it.
    """

    def __init__(self, root: str, path: str) -> None:
        self.root, self.path = root, path

    @property
    def filesystem(self) -> Any:
        """pyarrow's, opened once a process."""
        return _filesystem(self.root)[0]

    @property
    def key(self) -> str:
        """What pyarrow calls the place: bucket and all."""
        base = _filesystem(self.root)[1].rstrip("/")
        return f"{base}/{self.path}".rstrip("/")

    # Names ----------------------------------------------------------------------------------------

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

    # What is there --------------------------------------------------------------------------------

    def _info(self) -> Any:
        return self.filesystem.get_file_info(self.key)

    def is_file(self) -> bool:
        return bool(self._info().is_file)

    def is_dir(self) -> bool:
        from pyarrow.fs import FileType

        return bool(self._info().type == FileType.Directory)

    def exists(self) -> bool:
        from pyarrow.fs import FileType

        return bool(self._info().type != FileType.NotFound)

    def stat(self) -> Any:
        """Its `st_mtime` and `st_size`."""
        info = self._info()
        return SimpleNamespace(st_mtime=info.mtime_ns / 1e9, st_size=info.size)

    def iterdir(self) -> Iterator[RemotePath]:
        for info in self._below(recursive=False):
            yield self / info.base_name

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """What lies directly in it, of names that match."""
        return (entry for entry in self.iterdir() if fnmatch(entry.name, pattern))

    def files(self) -> list[str]:
        """Every file below it, relative to it."""
        start = len(self.key) + 1
        return sorted(info.path[start:] for info in self._below(recursive=True) if info.is_file)

    def _below(self, recursive: bool) -> Any:
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.key, allow_not_found=True, recursive=recursive)
        return self.filesystem.get_file_info(selector)

    # Content --------------------------------------------------------------------------------------

    def read_bytes(self) -> bytes:
        with self.filesystem.open_input_stream(self.key) as stream:
            return bytes(stream.read())

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def write_bytes(self, content: bytes) -> None:
        """Puts a whole file in place of what was there."""
        if self.filesystem.type_name not in OBJECT_STORES:
            self.filesystem.create_dir(self.parent.key, recursive=True)
        with self.filesystem.open_output_stream(self.key) as stream:
            stream.write(content)

    def touch(self) -> None:
        self.write_bytes(b"")

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Nothing: a directory is there with what is in it."""

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self.filesystem.delete_file(self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove(self) -> None:
        """Removes the directory and all that is in it, if it is there."""
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
        raise UserError(f"{root}: cannot be reached: {str(error).splitlines()[0]}") from None
    return filesystem, base


def parse_path(text: str) -> StoragePath:
    """The place that a path or URI names.

    Raises:
        UserError: where pyarrow knows no such URI.
    """
    if "://" not in text:
        return Path(text)
    parts = urlsplit(text)
    if parts.scheme == "file":
        return SharedPath(unquote(parts.path))
    root = urlunsplit((parts.scheme, parts.netloc, "/", parts.query, ""))
    _filesystem(root)
    return RemotePath(root, unquote(parts.path).strip("/"))


def remove(place: StoragePath) -> None:
    """Removes a directory, if it is there."""
    if isinstance(place, RemotePath):
        place.remove()
    else:
        shutil.rmtree(place, ignore_errors=True)


def upload(directory: Path, target: RemotePath, last: str = "") -> None:
    """Copies a local directory; the file that says that all is there comes last."""
    files = sorted(str(f.relative_to(directory)) for f in directory.rglob("*") if f.is_file())
    for name in sorted(files, key=lambda name: name == last):
        (target / name).write_bytes((directory / name).read_bytes())


@contextmanager
def local_copy(place: StoragePath) -> Iterator[Path]:
    """A directory as one of this machine's: itself, or a copy for as long as the block lasts."""
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="diffgap-") as temporary:
        for name in place.files():
            target = Path(temporary) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((place / name).read_bytes())
        yield Path(temporary)
