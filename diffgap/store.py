"""Embedding stores: paired, frozen embeddings on disk, in Parquet that any tool can read.

    manifest.json            what is in it; written last, so that a store without one is no store
    items-*.parquet          one row a clip: id, split, label, audio and/or video, extra columns
    captions-*.parquet       one row a caption: id of its clip, caption, text

Embeddings are L2-normalised float32. The fingerprint covers the content, not the shards.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs
from pydantic import BaseModel, ConfigDict, ValidationError

from diffgap.errors import UserError
from diffgap.files import new_directory
from diffgap.store_content import SPLITS, content_fingerprint, content_problems, vectors

FORMAT_VERSION = 1
TASKS = {"text-audio": ("text", "audio"), "video-audio": ("video", "audio")}
MANIFEST = "manifest.json"


class EncoderInfo(BaseModel):
    """The frozen encoder that made a store."""

    model_config = ConfigDict(extra="forbid")

    name: str
    checkpoint_hash: str
    preprocessing: dict[str, str | int | float] = {}
    """What was done to clips before the network."""


class CorpusInfo(BaseModel):
    """The corpus of a store, and its clips per split."""

    model_config = ConfigDict(extra="forbid")

    name: str
    counts: dict[str, int]


class Manifest(BaseModel):
    """manifest.json."""

    model_config = ConfigDict(extra="forbid")

    format_version: int
    task: list[str]
    """The tasks that the store's columns serve."""
    dimension: int
    dtype: str
    encoder: EncoderInfo
    corpus: CorpusInfo
    fingerprint: str


@dataclass(frozen=True)
class Pairs:
    """One split for one task: ``x[i]`` (text or video) belongs to ``a[owner[i]]`` (audio)."""

    ids: tuple[str, ...]
    """N clip ids, the rows of a."""
    x: np.ndarray
    """(M, D) float32 unit vectors."""
    a: np.ndarray
    """(N, D) float32 unit vectors."""
    owner: np.ndarray
    """(M,) int64."""

    def take(self, ids: Collection[str]) -> Pairs:
        """The pairs of these clips only, in the same order."""
        kept = np.array([name in ids for name in self.ids], bool)
        numbers = np.cumsum(kept) - 1
        own = kept[self.owner]
        names = tuple(name for name in self.ids if name in ids)
        return Pairs(names, self.x[own], self.a[kept], numbers[self.owner[own]])


class EmbeddingStore:
    """A store opened for reading; use `open`."""

    def __init__(self, manifest: Manifest, items: pa.Table, captions: pa.Table | None) -> None:
        self.manifest = manifest
        self._items, self._captions = items, captions

    @property
    def captions(self) -> int:
        """Captions of all clips."""
        return 0 if self._captions is None else len(self._captions)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the content, 64 hex digits."""
        return self.manifest.fingerprint

    @classmethod
    def open(cls, uri: str | os.PathLike[str]) -> EmbeddingStore:
        """Opens a store and checks its content.

        Args:
            uri: a local path, or the URI of any pyarrow filesystem, such as s3://bucket/store.

        Raises:
            UserError: where it is no store, or its content is wrong; the rows are named.
        """
        filesystem, root = _locate(str(uri))
        manifest = _read_manifest(filesystem, root, str(uri))
        items = _read_shards(filesystem, root, "items", str(uri))
        captions = _read_shards(filesystem, root, "captions", str(uri), needed=False)
        problems = [f"{uri}: {p}" for p in content_problems(items, captions, manifest.dimension)]
        if not problems and content_fingerprint(items, captions) != manifest.fingerprint:
            problems = [f"{uri}: its content is not what manifest.json says; make the store anew"]
        if problems:
            raise UserError(*problems)
        return cls(manifest, items, captions)

    def labels(self) -> dict[str, str | None]:
        """The label of every clip, by id; empty for a store without labels."""
        if "label" not in self._items.column_names:
            return {}
        return dict(
            zip(self._items["id"].to_pylist(), self._items["label"].to_pylist(), strict=True)
        )

    def pairs(self, task: str, split: str) -> Pairs:
        """The pairs of one split, in the order of the files.

        Raises:
            UserError: where the store cannot serve the task, or has no clip in the split.
        """
        if task not in self.manifest.task:
            served = ", ".join(self.manifest.task)
            raise UserError(f"task: {task!r} is not served by this store; it has {served}")
        x_name, a_name = TASKS[task]
        items = self._items.filter(pc.equal(self._items["split"], split))
        if x_name == "text" and self._captions is not None:
            items = items.filter(pc.is_in(items["id"], self._captions["id"].combine_chunks()))
        if not len(items):
            raise UserError(f"store: no clip in its split {split!r}; embed a corpus that has some")
        ids, a = items["id"].combine_chunks(), vectors(items, a_name)
        if x_name != "text":
            x, owner = vectors(items, x_name), np.arange(len(items))
        else:
            assert self._captions is not None
            captions = self._captions.filter(pc.is_in(self._captions["id"], ids))
            owner = pc.index_in(captions["id"], ids).to_numpy().astype(np.int64)
            x = vectors(captions, "text")
        return Pairs(tuple(ids.to_pylist()), x, a, owner)


def write_store(
    path: Path,
    items: pa.Table,
    captions: pa.Table | None,
    encoder: EncoderInfo,
    corpus: str,
    extra: dict[str, pa.Table] | None = None,
) -> EmbeddingStore:
    """Writes a whole store, or nothing.

    Args:
        path: the store's directory; must not exist.
        items: one row a clip.
        captions: one row a caption; None for a store without text.
        encoder: what made the embeddings.
        corpus: the corpus's name.
        extra: further Parquet files by name, such as ``rejected``.

    Raises:
        UserError: where the path is taken, or the content is wrong.
    """
    if path.exists():
        raise UserError(f"{path}: exists already; remove it, or give another place")
    dimension = _dimension(items)
    if problems := list(content_problems(items, captions, dimension)):
        raise UserError(*problems)
    counts = {s: pc.sum(pc.equal(items["split"], s)).as_py() or 0 for s in SPLITS}
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        task=[t for t, names in TASKS.items() if set(names) <= _modalities(items, captions)],
        dimension=dimension,
        dtype="float32",
        encoder=encoder,
        corpus=CorpusInfo(name=corpus, counts=counts),
        fingerprint=content_fingerprint(items, captions),
    )
    with new_directory(path) as temporary:
        pq.write_table(items, temporary / "items-00000.parquet")
        if captions is not None:
            pq.write_table(captions, temporary / "captions-00000.parquet")
        for name, table in (extra or {}).items():
            pq.write_table(table, temporary / f"{name}.parquet")
        (temporary / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    return EmbeddingStore(manifest, items, captions)


# Reading ----------------------------------------------------------------------------------------


def _locate(uri: str) -> tuple[fs.FileSystem, str]:
    if "://" in uri:
        try:
            return fs.FileSystem.from_uri(uri)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"store: {uri!r} cannot be reached: {error}") from None
    return fs.LocalFileSystem(), str(Path(uri).absolute())


def _read_manifest(filesystem: fs.FileSystem, root: str, uri: str) -> Manifest:
    try:
        with filesystem.open_input_file(f"{root}/{MANIFEST}") as file:
            manifest = Manifest.model_validate_json(file.read())
    except OSError:
        raise UserError(f"{uri}: no embedding store (it has no {MANIFEST})") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{uri}: {MANIFEST} is wrong at {where}: {first['msg']}") from None
    if manifest.format_version != FORMAT_VERSION:
        raise UserError(
            f"{uri}: format version {manifest.format_version} is not {FORMAT_VERSION}; "
            "make the store anew with this version of diffgap"
        )
    return manifest


def _read_shards(
    filesystem: fs.FileSystem, root: str, kind: str, uri: str, needed: bool = True
) -> pa.Table | None:
    names = [info.path for info in filesystem.get_file_info(fs.FileSelector(root))]
    shards = sorted(n for n in names if Path(n).match(f"{kind}-*.parquet"))
    if not shards:
        if needed:
            raise UserError(f"{uri}: holds no {kind}-*.parquet; make the store anew")
        return None
    try:
        return pa.concat_tables(pq.read_table(n, filesystem=filesystem) for n in shards)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{uri}: a {kind} shard cannot be read: {reason}") from None


def _modalities(items: pa.Table, captions: pa.Table | None) -> set[str]:
    found = {name for name in ("audio", "video") if name in items.column_names}
    return found | ({"text"} if captions is not None else set())


def _dimension(items: pa.Table) -> int:
    for name in ("audio", "video"):
        if name in items.column_names and pa.types.is_fixed_size_list(items[name].type):
            return int(items[name].type.list_size)
    raise UserError("items: neither audio nor video is a column of fixed-size float lists")
