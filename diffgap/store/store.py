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
import itertools
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from diffgap.errors import UserError
from diffgap.io.atomic import new_directory
from diffgap.store.checks import check_shards, content_problems, manifest_problems
from diffgap.store.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    CorpusInfo,
    EncoderInfo,
    Manifest,
    locate,
    read_manifest,
)
from diffgap.store.parquet import Shards, write_parquet
from diffgap.store.schema import (
    NEEDED,
    TEXT,
    content_fingerprint,
    modalities,
    plain_text,
    served_tasks,
    split_counts,
    split_task,
    vector_dimension,
    vectors,
)

LIKELY = 0.8
"""Similarity (`difflib`) to a task that is served from which on that is suggested."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """One split for one task: ``x[i]`` (a text, say) belongs to ``a[owner[i]]`` (its audio).

    Compared by identity, so that results can be cached by pairs.
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
        a_rows = np.array([name in ids for name in self.ids], bool)
        x_rows = a_rows[self.owner]
        positions = np.cumsum(a_rows) - 1  # of the clips that remain
        remaining = tuple(itertools.compress(self.ids, a_rows))
        return Pairs(remaining, self.x[x_rows], self.a[a_rows], positions[self.owner[x_rows]])


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
            UserError: where it is not a store, or its content is invalid; the rows are named.
        """
        filesystem, root = locate(str(uri))
        manifest = read_manifest(filesystem, root, str(uri))
        tables = {}
        for kind in NEEDED:
            tables[kind] = Shards.open(filesystem, root, kind, str(uri))
        check_shards(tables, manifest)
        items = plain_text(tables["items"].read())
        captions = plain_text(tables["captions"].read()) if tables["captions"].paths else None
        problems = list(content_problems(items, captions, manifest.dimension))
        if not problems:
            problems = list(manifest_problems(manifest, items, captions))
        if problems:
            raise UserError(*(f"{uri}: {problem}" for problem in problems))
        if content_fingerprint(items, captions) != manifest.fingerprint:
            raise UserError(f"{uri}: content differs from {MANIFEST}; make the store anew")
        return cls(manifest, items, captions)

    def caption_texts(self, ids: Sequence[str]) -> list[tuple[str, str]]:
        """(clip, caption) of all captions of these clips, in the order of the texts of `pairs`."""
        if self._captions is None:
            return []
        rows = self._captions.filter(pc.is_in(self._captions["id"], pa.array(ids)))
        return list(zip(rows["id"].to_pylist(), rows["caption"].to_pylist(), strict=True))

    def labels(self) -> dict[str, str | None]:
        """The label of every clip, by id; empty for a store without labels."""
        if "label" not in self._items.column_names:
            return {}
        ids, labels = self._items["id"].to_pylist(), self._items["label"].to_pylist()
        return dict(zip(ids, labels, strict=True))

    def task_problem(self, task: str, name: str = "this store") -> str | None:
        """Why the store, called `name`, does not serve a task; None where it does."""
        names = modalities(self._items.schema)
        if self._captions is not None:
            names = [TEXT, *names]
        try:
            if set(split_task(task)) <= set(names):
                return None
            problem = f"task: {task!r} cannot be done on {name}, which"
        except UserError as error:
            problem = f"{error}; {name}"
        tasks = [f"{x}-{a}" for x, a in itertools.permutations(names, 2) if a != TEXT]
        close = difflib.get_close_matches(task, tasks, n=1, cutoff=LIKELY)
        remedy = f"did you mean {close[0]}?" if close else "choose one of these, or another store"
        return f"{problem} serves {', '.join(self.tasks) or 'no task'}; {remedy}"

    def empty_splits(self, task: str) -> list[str]:
        """The splits in which no clip has both modalities of a task that is served."""
        return [split for split, n in split_counts(self._task_items(task)).items() if not n]

    def pairs(self, task: str, split: str) -> Pairs:
        """The pairs of one split, in the order of the files; the same object at each call.

        Args:
            task: x-a, any two modalities of the store; text, where it is one, is x.
            split: train, val or test.

        Raises:
            UserError: where the store cannot serve the task, or has no clip in the split.
        """
        if (task, split) not in self._pairs:
            self._pairs[task, split] = self._read_pairs(task, split)
        return self._pairs[task, split]

    def size(self, task: str, split: str) -> tuple[int, int]:
        """Clips and pairs of one split, for a task that the store serves."""
        items = self._items_of(task, split)
        if split_task(task)[0] != TEXT or self._captions is None:
            return len(items), len(items)
        ids = items["id"].combine_chunks()
        return len(items), pc.sum(pc.is_in(self._captions["id"], ids)).as_py() or 0

    def _items_of(self, task: str, split: str) -> pa.Table:
        items = self._task_items(task)
        return items.filter(pc.equal(items["split"], split))

    def _read_pairs(self, task: str, split: str) -> Pairs:
        if problem := self.task_problem(task):
            raise UserError(problem)
        x_name, a_name = split_task(task)
        items = self._items_of(task, split)
        if not len(items):
            raise UserError(f"store: its split {split!r} is empty; use another, or another store")
        ids, a = items["id"].combine_chunks(), vectors(items, a_name)
        if x_name == TEXT:
            x, owner = self._texts(ids)
        else:
            x, owner = vectors(items, x_name), np.arange(len(items))
        return Pairs(tuple(ids.to_pylist()), x, a, owner)

    def _task_items(self, task: str) -> pa.Table:
        """The clips that have both modalities of a task."""
        if split_task(task)[0] != TEXT or self._captions is None:
            return self._items
        with_caption = pc.is_in(self._items["id"], self._captions["id"].combine_chunks())
        return self._items.filter(with_caption)

    def _texts(self, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """(M, D) texts of N clips, and (M,) the position of each text's clip."""
        assert self._captions is not None, "the store serves no task with text"
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
        extra: further Parquet files by name, such as ``rejected``.

    Raises:
        UserError: where the path is taken, or the content is wrong.
    """
    if path.exists():
        raise UserError(f"{path}: exists already; remove it, or give another path")
    items, captions = plain_text(items), None if captions is None else plain_text(captions)
    dimension = vector_dimension(items)
    if problems := list(content_problems(items, captions, dimension)):
        raise UserError(*problems)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        task=served_tasks(items, captions),
        dimension=dimension,
        dtype="float32",
        encoder=encoder,
        corpus=CorpusInfo(name=corpus, counts=split_counts(items)),
        fingerprint=content_fingerprint(items, captions),
    )
    with new_directory(path) as temporary:
        write_parquet(items, temporary / "items-00000.parquet")
        if captions is not None:
            write_parquet(captions, temporary / "captions-00000.parquet")
        for name, table in (extra or {}).items():
            write_parquet(table, temporary / f"{name}.parquet")
        # Last: a store without a manifest is not read.
        (temporary / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    return EmbeddingStore(manifest, items, captions)


def stamp(uri: str) -> object:
    """Names, sizes and times of a store's files: equal as long as none has changed."""
    filesystem, root = locate(uri)
    files = filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True))
    return sorted((info.path, info.size, info.mtime_ns) for info in files)
