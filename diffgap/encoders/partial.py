"""An unfinished store: the finished chunks on disk, so that a killed run can be resumed.

It lies beside the store as ``STORE.partial``. It has no manifest, so that nothing takes it for one.
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
from diffgap.encoders.chunks import EmbeddingTables
from diffgap.errors import UserError
from diffgap.io.atomic import write_json

REQUEST = "request.json"


class PartialStore:
    """The finished chunks of one request; use `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, store: Path, request: dict[str, object]) -> PartialStore:
        """Opens, or creates, the directory of what is to become a store.

        Raises:
            UserError: where it holds the chunks of a different request.
        """
        path = store.with_name(f"{store.name}.partial")
        if not (path / REQUEST).exists():
            write_json(path / REQUEST, request)
        previous = json.loads((path / REQUEST).read_text())
        changed = [key for key in request if previous.get(key) != request[key]]
        if changed:
            raise UserError(
                f"--out: {path} was started with a different {', '.join(changed)}; remove it, or "
                "give another path"
            )
        return cls(path)

    def finished_chunks(self) -> set[int]:
        return {int(path.stem.split("-")[1]) for path in self.path.glob("items-*.parquet")}

    def write_chunk(self, number: int, tables: EmbeddingTables) -> None:
        self._write("rejected", number, tables.rejected)
        if tables.captions is not None:
            self._write("captions", number, tables.captions)
        # Last: a chunk counts as finished once its items are there.
        self._write("items", number, tables.items)

    def read_all(self, chunks: int) -> EmbeddingTables:
        """All chunks together, in order."""
        has_captions = any(self.path.glob("captions-*.parquet"))
        return EmbeddingTables(
            self._read("items", chunks),
            self._read("captions", chunks) if has_captions else None,
            self._read("rejected", chunks),
        )

    def remove(self) -> None:
        shutil.rmtree(self.path)

    def _write(self, kind: str, number: int, table: pa.Table) -> None:
        path = self._file(kind, number)
        # Renamed when complete; the dot in front hides it from the glob of finished chunks.
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        pq.write_table(table, temporary)
        os.replace(temporary, path)

    def _read(self, kind: str, chunks: int) -> pa.Table:
        # A chunk without a clip knows neither its further columns nor their types.
        parts = [pq.read_table(self._file(kind, number)) for number in range(chunks)]
        return pa.concat_tables(parts, promote_options="default").combine_chunks()

    def _file(self, kind: str, number: int) -> Path:
        return self.path / f"{kind}-{number:06d}.parquet"


def listing_hash(clips: Sequence[Clip]) -> str:
    """SHA-256 over what a corpus lists."""
    digest = hashlib.sha256()
    for clip in clips:
        # Sorted, because the order in which a clip names its further columns means nothing.
        columns = [clip.id, clip.split, clip.captions, clip.label, sorted(clip.extra.items())]
        digest.update(json.dumps(columns).encode())
    return digest.hexdigest()
