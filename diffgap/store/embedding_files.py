"""Files of embeddings that people have: .npy, .npz, .parquet, .pt, and stores.

    read = read_embeddings(Path("texts.npy"), "text")
    read.write(Path("bridged.npy"), moved)

A file that is written is the one that was read, with its vectors replaced; rows keep their order.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from diffgap.errors import UserError, nearest
from diffgap.store.schema import NORM_TOLERANCE, SHOWN, TEXT, vector_column
from diffgap.store.store import EmbeddingStore


@dataclass(frozen=True)
class Embeddings:
    """The vectors of one file, and how to write the same file with others."""

    values: np.ndarray
    """(N, D), as they are in the file."""
    write: Callable[[Path, np.ndarray], None]


def read_embeddings(path: Path, source: str, array: str | None = None) -> Embeddings:
    """Reads a .npy, .npz, .parquet, .pt or .pth file.

    Args:
        path: the file.
        source: modality, and the default name of the array in a file of several.
        array: the array's name.

    Raises:
        UserError: where the file cannot be read, or has no such array.
    """
    if path.suffix not in READERS:
        raise UserError(
            f"IN: {path} is none of {', '.join(READERS)} and no store; convert it to one"
        )
    try:
        return READERS[path.suffix](path, source, array)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"IN: no file {path}") from None
    except UNREADABLE as error:
        reason = (str(error).splitlines() or ["it is damaged"])[0]
        raise UserError(f"IN: {path} cannot be read: {reason}") from None


def read_store(
    store: EmbeddingStore, modalities: tuple[str, str], source: str, split: str
) -> Embeddings:
    """One modality of a split, to be written as Parquet: id, caption of a text, bridged.

    Raises:
        UserError: where the store does not have what the bridge joins.
    """
    pairs = store.pairs("-".join(modalities), split)
    from_x = source == modalities[0]
    ids = [pairs.ids[i] for i in pairs.owner] if from_x else list(pairs.ids)
    columns = {"id": pa.array(ids, pa.string())}
    if source == TEXT:
        columns["caption"] = pa.array(
            [text for _, text in store.caption_texts(pairs.ids)], pa.string()
        )

    def write(out: Path, new: np.ndarray) -> None:
        pq.write_table(pa.table({**columns, "bridged": vector_column(new)}), out)

    return Embeddings(pairs.x if from_x else pairs.a, write)


def _npy(path: Path, source: str, array: str | None) -> Embeddings:
    _only_one(array, path)
    return Embeddings(np.load(path, allow_pickle=False), lambda out, new: np.save(out, new))


def _npz(path: Path, source: str, array: str | None) -> Embeddings:
    with np.load(path, allow_pickle=False) as file:
        held = dict(file.items())
    name = _chosen(path, [n for n, v in held.items() if v.ndim == 2], source, array)
    return Embeddings(held[name], lambda out, new: np.savez(out, **{**held, name: new}))


def _torch(path: Path, source: str, array: str | None) -> Embeddings:
    held = torch.load(path, map_location="cpu", weights_only=True)
    if torch.is_tensor(held):
        _only_one(array, path)
        return Embeddings(_numpy(held), lambda out, new: torch.save(torch.from_numpy(new), out))
    named = {**held} if isinstance(held, dict) else {}
    name = _chosen(path, [n for n, v in named.items() if torch.is_tensor(v)], source, array)

    def write(out: Path, new: np.ndarray) -> None:
        torch.save({**named, name: torch.from_numpy(new)}, out)

    return Embeddings(_numpy(named[name]), write)


def _parquet(path: Path, source: str, array: str | None) -> Embeddings:
    table = pq.read_table(path)
    lists = [f.name for f in table.schema if any(is_one(f.type) for is_one in LISTS)]
    name = _chosen(path, lists, source, array)
    place = table.column_names.index(name)

    def write(out: Path, new: np.ndarray) -> None:
        pq.write_table(table.set_column(place, name, vector_column(new)), out)

    return Embeddings(_list_rows(table, name), write)


LISTS = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
READERS = {".npy": _npy, ".npz": _npz, ".parquet": _parquet, ".pt": _torch, ".pth": _torch}
UNREADABLE = (
    OSError, ValueError, EOFError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile,
    pa.ArrowException,
)  # fmt: skip


def _list_rows(table: pa.Table, name: str) -> np.ndarray:
    """A column of lists of one length as (N, D)."""
    column = table[name].combine_chunks()
    if column.null_count:
        rows = _numbers(column.is_null().to_numpy(zero_copy_only=False))
        raise UserError(f"IN: {name} has no vector (null) in rows {rows}; leave them out")
    lengths = set(pc.list_value_length(column).unique().to_pylist())
    if len(lengths) > 1:
        raise UserError(
            f"IN: {name} has rows of {min(lengths)} to {max(lengths)} numbers, not one D"
        )
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1) if len(column) else flat.reshape(0, 0)


def _numpy(tensor: Tensor) -> np.ndarray:
    kept = tensor.dtype in (torch.float32, torch.float64) or not tensor.is_floating_point()
    found: np.ndarray = (tensor if kept else tensor.float()).detach().numpy()
    return found


def _only_one(array: str | None, path: Path) -> None:
    if array is not None:
        raise UserError(f"--array: {path} holds one array; leave it out")


def _chosen(path: Path, names: list[str], source: str, array: str | None) -> str:
    """The array that was asked for, else the source modality's, else the only one."""
    if array is not None and array not in names:
        raise UserError(f"--array: {path} has no {array!r}; {nearest(array, names)}")
    if array is not None:
        return array
    if source in names or len(names) == 1:
        return source if source in names else names[0]
    told = (
        f"has none called {source}: name one of {', '.join(names)}" if names else "has no vectors"
    )
    raise UserError(f"--array: {path} {told}")


def unit_rows(values: np.ndarray, dimension: int) -> tuple[np.ndarray, bool]:
    """(N, D) float32 unit vectors, and whether they had to be normalised.

    Raises:
        UserError: where they are not of this dimension, or rows have no direction.
    """
    if not np.issubdtype(values.dtype, np.floating):
        raise UserError(f"IN: numbers of type {values.dtype}; embeddings are floats")
    if values.ndim != 2 or values.shape[1] != dimension or not len(values):
        raise UserError(
            f"IN: shape {values.shape}; this bridge takes (N, {dimension}), N at least 1"
        )
    lengths = np.linalg.norm(values.astype(np.float64), axis=1)
    problems = [
        f"IN: rows {_numbers(wrong)} are {what}; leave them out"
        for what, wrong in (("not finite", ~np.isfinite(lengths)), ("zero", lengths == 0))
        if wrong.any()
    ]
    if problems:
        raise UserError(*problems)
    if (np.abs(lengths - 1) <= NORM_TOLERANCE).all():
        return np.array(values, np.float32, order="C"), False
    return (values / lengths[:, None]).astype(np.float32), True


def _numbers(wrong: np.ndarray) -> str:
    """Row numbers, counted from 0, where (N,) is true."""
    rows = np.flatnonzero(wrong)
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return ", ".join(map(str, rows[:SHOWN])) + more
