"""Embedding stores: paired, frozen embeddings on disk, in Parquet that any tool can read.

    manifest.json            what is in it; written last, so that a store without one is no store
    items-*.parquet          one row a clip: id, split, label, a column a modality, extra columns
    captions-*.parquet       one row a caption: id of its clip, caption, text

A modality is any column of fixed-size lists of floats, such as audio, video or image; a task is any
two of them, or text and one. Embeddings are L2-normalised float32 of one dimension. The
fingerprint covers the content, not the shards.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs
from pydantic import BaseModel, ConfigDict, ValidationError

from diffgap.errors import UserError
from diffgap.io.atomic import new_directory
from diffgap.store.schema import (
    TEXT,
    content_fingerprint,
    content_problems,
    modalities,
    vector_dimension,
    vectors,
)
from diffgap.store.schema import served_tasks as served_tasks
from diffgap.store.schema import split_task as split_task
from diffgap.store.splits import SPLITS

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
LIKELY = 0.8
"""How alike (`difflib`) a task must be to one that is served, to be proposed."""


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
    """The tasks that the store served when it was written; `EmbeddingStore.tasks` is what it
    serves."""
    dimension: int
    dtype: str
    encoder: EncoderInfo
    corpus: CorpusInfo
    fingerprint: str


@dataclass(frozen=True, eq=False)
class Pairs:
    """One split for one task: ``x[i]`` (a text, say) belongs to ``a[owner[i]]`` (its audio).

    Compared by identity, so that what follows from pairs can be kept beside them.
    """

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
        self._pairs: dict[tuple[str, str], Pairs] = {}

    @property
    def tasks(self) -> list[str]:
        """The tasks that the store's columns serve; see `served_tasks`."""
        return served_tasks(self._items, self._captions)

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

    def caption_texts(self, ids: Sequence[str]) -> list[tuple[str, str]]:
        """Clip and caption of these clips' captions, in the order of the texts of `pairs`."""
        if self._captions is None:
            return []
        own = self._captions.filter(pc.is_in(self._captions["id"], pa.array(ids)))
        return list(zip(own["id"].to_pylist(), own["caption"].to_pylist(), strict=True))

    def labels(self) -> dict[str, str | None]:
        """The label of every clip, by id; empty for a store without labels."""
        if "label" not in self._items.column_names:
            return {}
        return dict(
            zip(self._items["id"].to_pylist(), self._items["label"].to_pylist(), strict=True)
        )

    def task_problem(self, task: str, name: str = "this store") -> str | None:
        """Why a task cannot be done on the store, called `name`; None where it can."""
        known = [*([] if self._captions is None else [TEXT]), *modalities(self._items)]
        try:
            if set(split_task(task)) <= set(known):
                return None
            problem = f"task: {task!r} cannot be done on {name}, which"
        except UserError as error:
            problem = f"{error}; {name}"
        every = [f"{x}-{a}" for x, a in permutations(known, 2) if a != TEXT]
        close = difflib.get_close_matches(task, every, n=1, cutoff=LIKELY)
        remedy = f"did you mean {close[0]}?" if close else "choose one of these, or another store"
        return f"{problem} serves {', '.join(self.tasks) or 'no task'}; {remedy}"

    def pairs(self, task: str, split: str) -> Pairs:
        """The pairs of one split, in the order of the files; the same object when asked again.

        Args:
            task: x-a, any two modalities of the store; text, where it is one, is x.
            split: train, val or test.

        Raises:
            UserError: where the store cannot serve the task, or has no clip in the split.
        """
        if (task, split) not in self._pairs:
            self._pairs[task, split] = self._read_pairs(task, split)
        return self._pairs[task, split]

    def _read_pairs(self, task: str, split: str) -> Pairs:
        if problem := self.task_problem(task):
            raise UserError(problem)
        x_name, a_name = split_task(task)
        items = self._items.filter(pc.equal(self._items["split"], split))
        if x_name == TEXT and self._captions is not None:
            items = items.filter(pc.is_in(items["id"], self._captions["id"].combine_chunks()))
        if not len(items):
            raise UserError(f"store: no clip in its split {split!r}; embed a corpus that has some")
        ids, a = items["id"].combine_chunks(), vectors(items, a_name)
        if x_name == TEXT:
            x, owner = self._texts(ids)
        else:
            x, owner = vectors(items, x_name), np.arange(len(items))
        return Pairs(tuple(ids.to_pylist()), x, a, owner)

    def _texts(self, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """The (M, D) texts of N clips, and the number (M,) of the clip of each."""
        assert self._captions is not None
        captions = self._captions.filter(pc.is_in(self._captions["id"], ids))
        owner = pc.index_in(captions["id"], ids).to_numpy().astype(np.int64)
        return vectors(captions, TEXT), owner


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
    dimension = vector_dimension(items)
    if problems := list(content_problems(items, captions, dimension)):
        raise UserError(*problems)
    counts = {s: pc.sum(pc.equal(items["split"], s)).as_py() or 0 for s in SPLITS}
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        task=served_tasks(items, captions),
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


def stamp(uri: str) -> object:
    """What changes when a store's files do: the names, sizes and times of all of them."""
    filesystem, root = _locate(uri)
    files = filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True))
    return sorted((info.path, info.size, info.mtime_ns) for info in files)


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
