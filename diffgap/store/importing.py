"""Embeddings that people already have, as a store: npz, CSV with npy, Parquet, torch files.

Every source is a set of named columns. Known names, and what people call them, are in `ALIASES`.

    id        one a clip; default row numbers
    split     one a clip, train, val or test; default from the id
    label     one a clip, optional
    audio     (N, D), optional
    video     (N, D), optional
    text      (N, D), (N, C, D) for C captions a clip, or (M, D) with clip_id
    caption   as text has it: (N,), (N, C) or (M,)
    clip_id   (M,), the clip of each text where that is not one or C a clip

Whatever else is named by the person, such as image, is a modality: (N, D). Two modalities are
needed, of which text may be one.
"""

from __future__ import annotations

import csv
import difflib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diffgap.errors import UserError, nearest
from diffgap.pretrained.choice import UNKNOWN_HASH
from diffgap.store.schema import FIRST, MODALITY, TEXT, modality_order, vector_column
from diffgap.store.splits import split_of
from diffgap.store.store import EmbeddingStore, EncoderInfo, write_store

ALIASES = {
    "id": ("id", "ids", "clip", "file_name", "filename", "youtube_id"),
    "split": ("split", "splits", "subset"),
    "label": ("label", "labels", "class"),
    "audio": ("audio", "audio_embedding", "audio_embeddings", "audio_embeds", "audio_features"),
    "video": ("video", "video_embedding", "video_embeddings", "video_embeds", "video_features"),
    "text": ("text", "text_embedding", "text_embeddings", "text_embeds", "text_features"),
    "caption": ("caption", "captions", "sentence", "sentences"),
    "clip_id": ("clip_id", "clip_ids", "caption_clip", "owner"),
}
OURS = {theirs: ours for ours, names in ALIASES.items() for theirs in names}
TYPO = 0.8
"""How alike (`difflib`) a name may be to one of `ALIASES` and be meant as a modality."""
SUFFIXES = (".npz", ".csv", ".parquet", ".pt", ".pth")


def import_store(
    source: Path,
    out: Path,
    *,
    arrays: Mapping[str, Path] | None = None,
    columns: Mapping[str, str] | None = None,
    encoder: str = "imported",
    corpus: str | None = None,
) -> EmbeddingStore:
    """Makes a store of a file of embeddings; vectors are L2-normalised.

    Args:
        source: a .npz, .csv, .parquet, .pt or .pth file.
        out: the store's directory; must not exist.
        arrays: columns that are .npy files of their own; a name that is none of `ALIASES` is a
            modality.
        columns: what the source calls a column, by our name for it; likewise.
        encoder: name for the manifest.
        corpus: name for the manifest; default the source's.

    Raises:
        UserError: naming what is missing, misshapen, zero or not finite.
    """
    found = _read(source)
    for name, path in (arrays or {}).items():
        found[name] = _read_npy(path)
    columns = {**(columns or {})}
    columns |= {n: n for n in arrays or {} if n not in OURS and n not in columns.values()}
    known = _known(found, columns)
    items, captions = _tables(known)
    info = EncoderInfo(name=encoder, checkpoint_hash=UNKNOWN_HASH)
    return write_store(out, items, captions, info, corpus or source.stem)


# Reading ----------------------------------------------------------------------------------------


def _read(source: Path) -> dict[str, Any]:
    """Columns by the source's own names."""
    readers = {".npz": _npz, ".csv": _csv, ".parquet": _parquet, ".pt": _torch, ".pth": _torch}
    if source.suffix not in readers:
        raise UserError(f"SOURCE: {source} is none of {', '.join(SUFFIXES)}; convert it to one")
    try:
        return readers[source.suffix](source)
    except FileNotFoundError:
        raise UserError(f"SOURCE: no file {source}") from None
    except (OSError, ValueError, pickle.UnpicklingError, pa.ArrowException) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"SOURCE: {source} cannot be read: {str(error).splitlines()[0]}") from None


def _npz(source: Path) -> dict[str, Any]:
    with np.load(source, allow_pickle=False) as file:
        return dict(file.items())


def _read_npy(path: Path) -> np.ndarray:
    try:
        found: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"--array: {path} cannot be read: {str(error).splitlines()[0]}") from None
    return found


def _csv(source: Path) -> dict[str, Any]:
    with source.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _parquet(source: Path) -> dict[str, Any]:
    table = pq.read_table(source)
    return {name: table[name].to_pylist() for name in table.column_names}


def _torch(source: Path) -> dict[str, Any]:
    import torch

    found = torch.load(source, map_location="cpu", weights_only=True)
    if not isinstance(found, dict):
        raise UserError(f"SOURCE: {source} holds a {type(found).__name__}, not a dict of columns")
    return {n: v.float().numpy() if torch.is_tensor(v) else v for n, v in found.items()}


# Columns ----------------------------------------------------------------------------------------


def _known(found: Mapping[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    """Columns by our names: those of `ALIASES`, and further modalities that `columns` names."""
    problems = [problem for ours in columns if (problem := _name_problem(ours))]
    problems += [
        f"--column: the source has no {theirs!r}; {nearest(theirs, found)}"
        for theirs in columns.values()
        if theirs not in found
    ]
    called = _called(found, columns) | columns
    known = {ours: found[theirs] for ours, theirs in called.items() if theirs in found}
    if len(has := [*_clip_modalities(known), *({TEXT} & set(known))]) < 2:
        problems.append(
            f"a store needs embeddings of two modalities, and {' '.join(has) or 'none'} is known; "
            f"the source has {', '.join(found)} (--column NAME=THEIRS names one)"
        )
    if problems:
        raise UserError(*problems)
    return known


def _called(found: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    """What the source calls our columns, by `ALIASES`.

    What `columns` names as a modality is that alone, though it be called audio or clip.
    """
    modal = {ours for ours in columns if ours in (*FIRST, TEXT) or ours not in ALIASES}
    free = found.keys() - {columns[ours] for ours in modal}
    return {
        ours: next(theirs for theirs in names if theirs in free)
        for ours, names in ALIASES.items()
        if not free.isdisjoint(names)
    }


def _name_problem(ours: str) -> str | None:
    """Why a name that a person gave is neither one of ours nor of a modality of their own."""
    if ours in ALIASES:
        return None
    if ours in OURS:
        return f"{ours!r} is what sources call {OURS[ours]}; write {OURS[ours]}"
    if not MODALITY.fullmatch(ours):
        return f"{ours!r} is no name of a modality; use a-z, 0-9 and _, a letter first"
    stem = re.split(r"_|\d", ours)[0]  # audio_2 is no typo
    close = difflib.get_close_matches(ours, ALIASES, n=1, cutoff=TYPO)
    if close and stem not in ALIASES:
        return f"unknown column {ours!r}; did you mean {close[0]}? Else call it less alike"
    return None


def _clip_modalities(known: Mapping[str, Any]) -> list[str]:
    """The names of the columns with a vector a clip, in a store's order."""
    own = {name for name in known if name in FIRST or name not in ALIASES}
    return sorted(own, key=modality_order)


def _vectors(known: Mapping[str, Any], name: str) -> np.ndarray:
    """(..., D) float32 unit vectors; zero rows stay zero, and are refused by the store."""
    hint = "" if name in ALIASES else f"; {name} is a modality, as it is not {', '.join(ALIASES)}"
    try:
        values = np.asarray(known[name], dtype=np.float32)
    except (TypeError, ValueError):
        raise UserError(f"{name}: rows missing, of different lengths or no numbers{hint}") from None
    if values.ndim < 2 or (values.ndim > 2 and name != TEXT):
        raise UserError(f"{name}: shape {values.shape}; embeddings are (N, D){hint}")
    lengths = np.linalg.norm(values, axis=-1, keepdims=True)
    return values / np.where(lengths > 0, lengths, 1)


def _tables(known: Mapping[str, Any]) -> tuple[pa.Table, pa.Table | None]:
    streams = {name: _vectors(known, name) for name in _clip_modalities(known)}
    ids = [str(name) for name in known.get("id", range(len(next(iter(streams.values())))))]
    columns: dict[str, list[str | None]] = {
        "id": [*ids],
        "split": [str(s) for s in known.get("split", map(split_of, ids))],
        "label": [None if v is None else str(v) for v in known.get("label", [None] * len(ids))],
    }
    lengths = {n: len(v) for n, v in columns.items()} | {n: len(v) for n, v in streams.items()}
    if wrong := [f"{name} has {n}" for name, n in lengths.items() if n != len(ids)]:
        raise UserError(f"columns of different lengths: id has {len(ids)} rows, {', '.join(wrong)}")
    items = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    items |= {name: vector_column(values) for name, values in streams.items()}
    return pa.table(items), _captions(known, ids) if TEXT in known else None


def _captions(known: Mapping[str, Any], ids: list[str]) -> pa.Table:
    text = _vectors(known, TEXT)
    told = known.get("caption")
    if text.ndim == 3:
        owners = [name for name in ids for _ in range(text.shape[1])]
        told = None if told is None else [caption for own in told for caption in own]
    else:
        owners = [str(name) for name in known.get("clip_id", ids)]
    text = text.reshape(-1, text.shape[-1])
    told = [""] * len(text) if told is None else [str(caption) for caption in told]
    if not len(text) == len(owners) == len(told):
        raise UserError(
            f"text has {len(text)} rows, for {len(owners)} clips and {len(told)} captions; give "
            "clip_id, the clip of each text, where there is not one a clip"
        )
    return pa.table({"id": owners, "caption": told, "text": vector_column(text)})
