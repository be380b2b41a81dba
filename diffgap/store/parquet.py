"""Parquet files of stores: written whole or not at all, and looked at before they are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from diffgap.errors import UserError
from diffgap.io.atomic import new_file

UNREADABLE = (pa.ArrowException, OSError, ValueError)
"""What pyarrow raises for files that are damaged."""


def write_parquet(table: pa.Table, path: Path) -> None:
    """Writes a table; OSError, which names the file, where the disk is full or read-only."""
    with new_file(path) as temporary:
        pq.write_table(table, temporary)


@dataclass(frozen=True)
class Shards:
    """The files of one table of a store, of which only the ends have been read."""

    filesystem: fs.FileSystem
    kind: str
    uri: str
    paths: tuple[str, ...]
    schemas: tuple[pa.Schema, ...]
    rows: int
    """Rows that the files say they have."""

    @classmethod
    def open(cls, filesystem: fs.FileSystem, root: str, kind: str, uri: str) -> Shards:
        """The files ``KIND-*.parquet``, in the order of their names; there may be none.

        Raises:
            UserError: where one is damaged.
        """
        pattern = f"{kind}-*.parquet"
        infos = filesystem.get_file_info(fs.FileSelector(root))
        paths = sorted(info.path for info in infos if Path(info.path).match(pattern))
        schemas, rows = [], 0
        for path in paths:
            with _readable(uri, kind, path), _open(path, filesystem) as file:
                schemas.append(file.schema_arrow)
                rows += file.metadata.num_rows
        return cls(filesystem, kind, uri, tuple(paths), tuple(schemas), rows)

    def read(self) -> pa.Table:
        """All rows; UserError where a file is damaged, or has other columns than the others."""
        tables = []
        for path in self.paths:
            with _readable(self.uri, self.kind, path), _open(path, self.filesystem) as file:
                tables.append(file.read())
                tables[-1].validate(full=True)  # such as text that is not UTF-8
        with _readable(self.uri, self.kind, f"{self.kind}-*.parquet"):
            return pa.concat_tables(tables)


def _open(path: str, filesystem: fs.FileSystem) -> pq.ParquetFile:
    # Not read_table, which takes folders too.
    return pq.ParquetFile(path, filesystem=filesystem, pre_buffer=True)


@contextmanager
def _readable(uri: str, kind: str, path: str) -> Iterator[None]:
    """Turns the errors of pyarrow into one that says what to do."""
    try:
        yield
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        article = "an" if kind == "items" else "a"
        raise UserError(
            f"{uri}: {article} {kind} shard cannot be read: {Path(path).name}: {reason}; restore "
            "it, or make the store anew"
        ) from None
