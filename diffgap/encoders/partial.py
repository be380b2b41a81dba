"""An unfinished store: the finished chunks on disk, so that a killed run can be resumed.

It lies beside the store as ``STORE.partial``. It has no manifest, so that nothing takes it for one.

    request.json               what is embedded with what
    items-000000.parquet       a chunk's tables; captions- and rejected- likewise
    chunk-000000.json          their digests, and the clips and files that they were made of
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from diffgap.corpora.base import Clip, Corpus
from diffgap.encoders.chunks import EmbeddingTables
from diffgap.errors import ClipError, UserError
from diffgap.io.atomic import write_json
from diffgap.store.parquet import write_parquet

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
        previous = _read_json(path / REQUEST)
        if not previous:
            write_json(path / REQUEST, request)
            previous = request
        changed = [key for key in request if previous.get(key) != request[key]]
        if changed:
            raise UserError(
                f"--out: {path} was started with a different {', '.join(changed)}; remove it, or "
                "give another path"
            )
        return cls(path)

    def is_finished(self, number: int, source: str) -> bool:
        """Whether a chunk is whole on disk, and was made of this very `source_hash`."""
        record = _read_json(self._record(number))
        digests = record.get("files")
        if record.get("source") != source or not isinstance(digests, dict):
            return False
        return all(_digest(self.path / name) == digest for name, digest in digests.items())

    def write_chunk(self, number: int, tables: EmbeddingTables, source: str) -> None:
        """Writes a chunk; it counts as finished once all of it is on disk."""
        self._record(number).unlink(missing_ok=True)
        digests = {}
        for kind, table in _by_kind(tables):
            path = self._file(kind, number)
            write_parquet(table, path)
            digests[path.name] = _digest(path)
        write_json(self._record(number), {"source": source, "files": digests})

    def rejected_ids(self, number: int) -> set[str]:
        """The clips of a finished chunk that were left out."""
        rows = self._read_file("rejected", number).to_pylist()
        return {row["id"] for row in rows if row["stage"] != "text"}

    def read_all(self, chunks: int) -> EmbeddingTables:
        """All chunks together, in order.

        Raises:
            UserError: where one has been damaged since it was found whole.
        """
        has_captions = any(self.path.glob("captions-*.parquet"))
        return EmbeddingTables(
            self._read("items", chunks),
            self._read("captions", chunks) if has_captions else None,
            self._read("rejected", chunks),
        )

    def remove(self) -> None:
        shutil.rmtree(self.path)

    def _read(self, kind: str, chunks: int) -> pa.Table:
        # A chunk without a clip knows neither its further columns nor their types.
        parts = [self._read_file(kind, number) for number in range(chunks)]
        return pa.concat_tables(parts, promote_options="default").combine_chunks()

    def _read_file(self, kind: str, number: int) -> pa.Table:
        path = self._file(kind, number)
        try:
            return pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{path}: cannot be read: {reason}; give the same command again, which makes this "
                "chunk anew"
            ) from None

    def _file(self, kind: str, number: int) -> Path:
        return self.path / f"{kind}-{number:06d}.parquet"

    def _record(self, number: int) -> Path:
        return self.path / f"chunk-{number:06d}.json"


def source_hash(corpus: Corpus, clips: Sequence[Clip]) -> str:
    """SHA-256 over what a corpus lists of clips, and over the stamps of their files."""
    digest = hashlib.sha256()
    for clip in clips:
        # Sorted, because the order in which a clip names its further columns means nothing.
        listed = [clip.id, clip.split, clip.captions, clip.label, sorted(clip.extra.items())]
        digest.update(json.dumps([listed, _file_stamps(corpus, clip)]).encode())
    return digest.hexdigest()


def _file_stamps(corpus: Corpus, clip: Clip) -> list[object]:
    """What changes when a file of a clip is mended or replaced, or appears."""
    stamps: list[object] = []
    try:
        for path in corpus.files(clip):
            status = path.stat()
            # ctime too: a copy that keeps the time of its original (cp -p) has another.
            stamps.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    except (ClipError, OSError) as error:
        stamps.append(str(error))
    return stamps


def _by_kind(tables: EmbeddingTables) -> Iterator[tuple[str, pa.Table]]:
    yield "items", tables.items
    if tables.captions is not None:
        yield "captions", tables.captions
    yield "rejected", tables.rejected


def _read_json(path: Path) -> Mapping[str, object]:
    """A JSON object; an empty one where it is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _digest(path: Path) -> str | None:
    """SHA-256 of a file; None where it is missing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
