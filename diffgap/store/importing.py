"""Import of embeddings that people already have: npz, CSV with npy, Parquet, torch files.

Every source is a set of named columns. Known names, and what people call them, are in `ALIASES`.

    id        one a clip; default row numbers
    split     one a clip, train, val or test; default from the id
    label     one a clip, optional
    audio     (N, D), optional
    video     (N, D), optional
    text      (N, D), (N, C, D) for C captions a clip, or (M, D) with clip_id
    caption   as text has it: (N,), (N, C) or (M,)
    clip_id   (M,), the clip of each text where that is not one or C a clip

Any other column that the caller names, such as image, is a modality: (N, D). A store needs two
modalities, of which text may be one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from diffgap.errors import UserError, nearest
from diffgap.io.locks import only_maker
from diffgap.pretrained.choice import UNKNOWN_HASH
from diffgap.store.embedding_files import SINGLE, matrix, read_columns
from diffgap.store.manifest import EncoderInfo
from diffgap.store.schema import FIRST, MODALITY, TEXT, list_rows, modality_order, vector_column
from diffgap.store.splits import split_of
from diffgap.store.store import EmbeddingStore, write_store

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
CANONICAL = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
NULLABLE = ("label", "caption")
"""Columns that rows may lack."""
TYPO = 0.8
"""Similarity (`difflib`) to a name in `ALIASES` from which on a new modality looks misspelt."""
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
        arrays: columns that are .npy files of their own, by name; one not in `ALIASES` is a
            modality.
        columns: what the source calls a column, by our name for it; likewise.
        encoder: name for the manifest.
        corpus: name for the manifest; default the source's.

    Raises:
        UserError: naming what is missing, misshapen, zero or not finite.
    """
    file = read_columns(source, "SOURCE", SUFFIXES)
    if SINGLE in file.columns:
        raise UserError(f"SOURCE: {source} holds one tensor; give a dict of columns")
    source_columns = dict(file.columns)
    names = dict(columns or {})
    for name, path in (arrays or {}).items():
        source_columns[name] = read_columns(path, "--array", (".npy",)).columns[SINGLE]
        if name not in CANONICAL and name not in names.values():
            names[name] = name  # a modality of its own
    items, captions = _tables(_select_columns(source_columns, names))
    info = EncoderInfo(name=encoder, checkpoint_hash=UNKNOWN_HASH)
    with only_maker(out):
        return write_store(out, items, captions, info, corpus or source.stem)


def _select_columns(source: Mapping[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Columns by our names: those of `ALIASES`, and the modalities that `names` adds."""
    problems = [problem for name in names if (problem := _name_problem(name))]
    for alias in names.values():
        if alias not in source:
            problems.append(f"--column: the source has no {alias!r}; {nearest(alias, source)}")
    aliases = _match_aliases(source, names) | names
    columns = {name: source[alias] for name, alias in aliases.items() if alias in source}
    modalities = _clip_modalities(columns)
    if TEXT in columns:
        modalities.append(TEXT)
    if len(modalities) < 2:
        problems.append(
            "a store needs embeddings of two modalities, and the source has "
            f"{' '.join(modalities) or 'none'} among its columns {', '.join(source)}; name others "
            "with --column NAME=THEIRS"
        )
    if problems:
        raise UserError(*problems)
    return columns


def _match_aliases(source: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """What the source calls our columns, by `ALIASES`."""
    unmatched = set(source)
    for name, alias in names.items():
        if name in (*FIRST, TEXT) or name not in ALIASES:
            unmatched.discard(alias)  # a modality is that alone, though it be called audio or clip
    # Reversed, so that of several the first in `ALIASES` wins.
    return {CANONICAL[alias]: alias for alias in reversed(CANONICAL) if alias in unmatched}


def _name_problem(name: str) -> str | None:
    """Why a name is neither one of ours nor fit for a new modality."""
    if name in ALIASES:
        return None
    if name in CANONICAL:
        return f"{name!r} is what sources call {CANONICAL[name]}; write {CANONICAL[name]}"
    if not MODALITY.fullmatch(name):
        return f"{name!r} cannot name a modality; use a-z, 0-9 and _, a letter first"
    stem = re.split(r"_|\d", name)[0]
    if stem in ALIASES:  # audio_2 is a second encoder, not a typo
        return None
    if close := difflib.get_close_matches(name, ALIASES, n=1, cutoff=TYPO):
        return f"unknown column {name!r}; did you mean {close[0]}? If not, use a less similar name"
    return None


def _clip_modalities(columns: Mapping[str, Any]) -> list[str]:
    """The names of the columns with a vector a clip, in a store's order."""
    return sorted(set(columns) - (set(ALIASES) - set(FIRST)), key=modality_order)


def _tables(columns: Mapping[str, Any]) -> tuple[pa.Table, pa.Table | None]:
    """A store's items and captions."""
    modalities = {name: _vectors(columns, name) for name in _clip_modalities(columns)}
    first = next(iter(modalities.values()), ())
    ids = _texts(columns, "id", list(map(str, range(len(first)))))
    texts: dict[str, Any] = {
        "id": ids,
        "split": _texts(columns, "split", list(map(split_of, ids))),
        "label": _texts(columns, "label", [None] * len(ids)),
    }
    lengths = {name: len(values) for name, values in (texts | modalities).items()}
    if set(lengths.values()) != {len(ids)}:
        others = ", ".join(f"{name} has {n}" for name, n in lengths.items() if n != len(ids))
        raise UserError(f"columns of different lengths: id has {len(ids)} rows, {others}")
    arrays = {name: pa.array(values, pa.string()) for name, values in texts.items()}
    for name, values in modalities.items():
        arrays[name] = vector_column(values)
    return pa.table(arrays), _captions(columns, ids) if TEXT in columns else None


def _texts(columns: Mapping[str, Any], name: str, default: list[Any]) -> list[Any]:
    """A column of one value a row, as text; labels and captions may be missing (null)."""
    if name not in columns:
        return default
    values = columns[name]
    shape = np.shape(values) if isinstance(values, np.ndarray) else ()
    if len(shape) != 1 and not isinstance(values, (list, tuple)):
        raise UserError(f"{name}: shape {shape}; give one value a row")
    try:
        texts = [_text(value) for value in values]
        "".join(filter(None, texts)).encode()
    except TypeError:
        hint = ", or a vector for each (N, C, D)" if name == "caption" else ""
        raise UserError(f"{name}: holds lists; give one value a row{hint}") from None
    except UnicodeError:
        raise UserError(f"{name}: holds text that is not UTF-8; save the source as UTF-8") from None
    if name not in NULLABLE and None in texts:
        rows = list_rows([row for row, text in enumerate(texts) if text is None])
        raise UserError(f"{name}: is missing (null) in rows {rows}; fill it, or leave them out")
    return texts


def _text(value: Any) -> str | None:
    """A value as text; TypeError where it is a list of them."""
    if isinstance(value, bytes):
        return value.decode()  # as HDF5 and np.char have text
    if isinstance(value, (list, tuple, dict, np.ndarray)):
        raise TypeError
    return None if value is None else str(value)


def _vectors(columns: Mapping[str, Any], name: str) -> np.ndarray:
    """(..., D) float32 unit vectors; zero rows stay zero, and are refused by the store."""
    hint = "" if name in ALIASES else f"; {name} is a modality, as it is not {', '.join(ALIASES)}"
    try:
        raw = matrix(columns[name], "SOURCE", name)
        if raw.dtype.kind not in "fiub":  # complex numbers, dates and records would be cut to size
            raise TypeError
        with np.errstate(over="ignore"):  # what is too large is infinite, and refused as such
            values = raw.astype(np.float32)
    except UserError:
        raise
    except (TypeError, ValueError):
        raise UserError(f"{name}: rows of different shapes, or not numbers{hint}") from None
    if values.ndim < 2 or (values.ndim > 2 and name != TEXT) or not values.size:
        raise UserError(f"{name}: shape {values.shape}; embeddings are (N, D){hint}")
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(values, axis=-1, keepdims=True)
        return values / np.where(lengths > 0, lengths, 1)


def _captions(columns: Mapping[str, Any], ids: list[str]) -> pa.Table:
    text = _vectors(columns, TEXT)
    captions = columns.get("caption")
    if text.ndim == 3:  # (N, C, D): a block of C captions a clip
        owners = np.repeat(ids, text.shape[1]).tolist()
        if captions is not None:
            columns = {**columns, "caption": list(chain.from_iterable(map(_row, captions)))}
    else:
        owners = _texts(columns, "clip_id", ids)
    text = text.reshape(-1, text.shape[-1])
    captions = [caption or "" for caption in _texts(columns, "caption", [""] * len(text))]
    if not len(text) == len(owners) == len(captions):
        raise UserError(
            f"text has {len(text)} rows, for {len(owners)} clips and {len(captions)} captions; "
            "give clip_id, the clip of each text, where clips do not have one text each"
        )
    names = pa.array(owners, pa.string()), pa.array(captions, pa.string())
    return pa.table([*names, vector_column(text)], names=["id", "caption", TEXT])


def _row(captions: Any) -> Any:
    """The captions of a clip; UserError where they are no list of them."""
    if isinstance(captions, str) or not hasattr(captions, "__iter__"):
        raise UserError("caption: one for each clip, where text has several; give as many captions")
    return captions
