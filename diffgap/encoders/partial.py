"""A store in the making: the chunks that are finished, on disk, so that a killed run goes on.

Lies beside the store as ``STORE.partial``; it has no manifest, so that nothing takes it for one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from diffgap.corpora.base import Clip
from diffgap.encoders.chunks import Tables
from diffgap.errors import UserError
from diffgap.io.atomic import write_json

REQUEST = "request.json"


class PartialStore:
    """The finished chunks of one request; use `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, store: Path, request: dict[str, object]) -> PartialStore:
        """Opens, or begins, what is to become the store.

        Raises:
            UserError: where another request's chunks lie there.
        """
        path = store.with_name(f"{store.name}.partial")
        if (path / REQUEST).exists():
            begun = json.loads((path / REQUEST).read_text())
            if other := [key for key in request if begun.get(key) != request[key]]:
                raise UserError(
                    f"--out: {path} was begun with another {', '.join(other)}; remove it, or give "
                    "another place"
                )
        else:
            write_json(path / REQUEST, request)
        return cls(path)

    def done(self) -> set[int]:
        """Numbers of the finished chunks."""
        return {int(path.stem.split("-")[1]) for path in self.path.glob("items-*.parquet")}

    def add(self, number: int, tables: Tables) -> None:
        """Writes a chunk; its items come last and make it finished."""
        self._write("rejected", number, tables.rejected)
        if tables.captions is not None:
            self._write("captions", number, tables.captions)
        self._write("items", number, tables.items)

    def tables(self, chunks: int) -> Tables:
        """All chunks together, in order."""
        captions = list(self.path.glob("captions-*.parquet"))
        return Tables(
            self._read("items", chunks),
            self._read("captions", chunks) if captions else None,
            self._read("rejected", chunks),
        )

    def remove(self) -> None:
        shutil.rmtree(self.path)

    def _write(self, kind: str, number: int, table: pa.Table) -> None:
        path = self._file(kind, number)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        pq.write_table(table, temporary)
        os.replace(temporary, path)

    def _read(self, kind: str, chunks: int) -> pa.Table:
        # A chunk without a clip does not know its further columns, nor their types.
        parts = (pq.read_table(self._file(kind, number)) for number in range(chunks))
        return pa.concat_tables(parts, promote_options="default").combine_chunks()

    def _file(self, kind: str, number: int) -> Path:
        return self.path / f"{kind}-{number:06d}.parquet"


def listing_hash(clips: Sequence[Clip]) -> str:
    """SHA-256 over what a corpus lists."""
    digest = hashlib.sha256()
    for clip in clips:
        listed = [clip.id, clip.split, clip.captions, clip.label, sorted(clip.extra.items())]
        digest.update(json.dumps(listed).encode())
    return digest.hexdigest()
