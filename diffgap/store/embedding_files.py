"""Files of embeddings: .npy, .npz, .parquet, .pt and .csv as named columns, read and rewritten.

read_columns(Path("a.npz"), "SOURCE", [".npz"]).columns["audio"]    # (N, D)
texts = read_embeddings(Path("texts.npy"), "text")
texts.write(Path("bridged.npy"), bridged)          # the same file, its vectors replaced
"""

from __future__ import annotations

import csv
import pickle
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diffgap.errors import UserError, nearest
from diffgap.store.schema import NORM_TOLERANCE, TEXT, list_rows, vector_column
from diffgap.store.store import EmbeddingStore

SINGLE = ""
"""Name of the only array of a file without names."""


@dataclass(frozen=True)
class ColumnFile:
    columns: Mapping[str, Any]
    """Arrays, or lists with an entry a row."""
    write: Callable[[str, Path, np.ndarray], None] | None = None
    """Writes the same file with the column of this name replaced; None for .csv."""


@dataclass(frozen=True)
class Embeddings:
    values: np.ndarray
    """(N, D), as they are in the file or store."""
    write: Callable[[Path, np.ndarray], None]
    """Writes others in their place."""


def read_columns(path: Path, argument: str, suffixes: Collection[str]) -> ColumnFile:
    """Reads a file of one of the formats; `argument` is its name on the command line.

    Raises:
        UserError: where it cannot be read, or is of another format.
    """
    if path.suffix not in suffixes:
        allowed = ", ".join(suffixes)
        raise UserError(f"{argument}: {path} is not one of {allowed}; convert it to one")
    try:
        return READERS[path.suffix](path)
    except FileNotFoundError:
        raise UserError(f"{argument}: no file {path}") from None
    except UNREADABLE as error:
        reason = (str(error).splitlines() or ["it is damaged"])[0]
        raise UserError(f"{argument}: {path} cannot be read: {reason}") from None


def _read_npy(path: Path) -> ColumnFile:
    array = np.load(path, allow_pickle=False)  # pickles run code when they are loaded
    return ColumnFile({SINGLE: array}, lambda _, out, new: _write_npy(out, new))


def _write_npy(path: Path, array: np.ndarray) -> None:
    # np.save writes through C, and takes no notice of a disk that is full when it closes the file.
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        if array.size:
            file.write(array.data.cast("B"))


def _read_npz(path: Path) -> ColumnFile:
    with np.load(path, allow_pickle=False) as file:
        columns = dict(file.items())
    return ColumnFile(columns, lambda name, out, new: _write_npz(out, {**columns, name: new}))


def _write_npz(path: Path, columns: dict[str, Any]) -> None:
    # np.savez leaves its archive open on a full disk, which Python then tells in a traceback.
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(values), allow_pickle=False)


def _read_torch(path: Path) -> ColumnFile:
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)

    def as_array(value: Any) -> Any:
        if not torch.is_tensor(value):
            return value
        if value.dtype in (torch.float16, torch.bfloat16):
            value = value.float()  # numpy has no bfloat16
        return value.detach().numpy()

    def write(name: str, out: Path, new: np.ndarray) -> None:
        tensor = torch.from_numpy(new)
        torch.save(tensor if name == SINGLE else {**content, name: tensor}, out)

    if torch.is_tensor(content):
        return ColumnFile({SINGLE: as_array(content)}, write)
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not a tensor or dict of columns")
    return ColumnFile({name: as_array(value) for name, value in content.items()}, write)


def _read_parquet(path: Path) -> ColumnFile:
    table = pq.read_table(path)

    def write(name: str, out: Path, new: np.ndarray) -> None:
        position = table.column_names.index(name)
        pq.write_table(table.set_column(position, name, vector_column(new)), out)

    return ColumnFile({name: _parquet_column(table[name]) for name in table.column_names}, write)


def _parquet_column(column: pa.ChunkedArray) -> Any:
    """(N, D) where the rows are lists of one length, else a list with an entry a row."""
    value_type = getattr(column.type, "value_type", pa.null())  # of lists of any kind
    if not column.null_count and pa.types.is_floating(value_type):
        lengths = pc.unique(pc.list_value_length(column))
        if len(lengths) == 1:  # without a Python object a number, which takes 30 bytes each
            flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
            return flat.reshape(len(column), -1)
    return column.to_pylist()


def _read_csv(path: Path) -> ColumnFile:
    with path.open(newline="", encoding="utf-8-sig") as file:  # Excel writes a byte order mark
        reader = csv.DictReader(file)
        rows = list(reader)
    return ColumnFile({name: [row[name] for row in rows] for name in reader.fieldnames or ()})


READERS: dict[str, Callable[[Path], ColumnFile]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".parquet": _read_parquet,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".csv": _read_csv,
}
VECTOR_SUFFIXES = (".npy", ".npz", ".parquet", ".pt", ".pth")

UNREADABLE = (
    OSError, ValueError, EOFError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile,
    pa.ArrowException, csv.Error, MemoryError,
)  # fmt: skip


def read_embeddings(path: Path, source: str, array: str | None = None) -> Embeddings:
    """Reads the embeddings of a .npy, .npz, .parquet, .pt or .pth file.

    In a file of several, `array` names them; by default it is the modality `source`.

    Raises:
        UserError: where the file cannot be read, or has no such array.
    """
    file = read_columns(path, "IN", VECTOR_SUFFIXES)
    assert file.write is not None
    name = _choose_array(path, file.columns, source, array)
    return Embeddings(matrix(file.columns[name], "IN", name), partial(file.write, name))


def read_store(
    store: EmbeddingStore, modalities: tuple[str, str], source: str, split: str
) -> Embeddings:
    """One modality of a split, to be written as Parquet: id, caption of a text, bridged."""
    pairs = store.pairs("-".join(modalities), split)
    from_x = source == modalities[0]
    ids = [pairs.ids[i] for i in pairs.owner] if from_x else list(pairs.ids)
    columns = {"id": pa.array(ids, pa.string())}
    if source == TEXT:
        captions = [text for _, text in store.caption_texts(pairs.ids)]
        columns["caption"] = pa.array(captions, pa.string())

    def write(out: Path, new: np.ndarray) -> None:
        pq.write_table(pa.table({**columns, "bridged": vector_column(new)}), out)

    return Embeddings(pairs.x if from_x else pairs.a, write)


def _choose_array(path: Path, columns: Mapping[str, Any], source: str, array: str | None) -> str:
    """The array that was requested, else the source modality's, else the only one."""
    if SINGLE in columns:
        if array is None:
            return SINGLE
        raise UserError(f"--array: {path} holds one array; leave it out")
    names = [name for name, values in columns.items() if _is_matrix(values)]
    if not names:
        raise UserError(f"--array: {path} has no vectors; give a file of embeddings")
    if array is None:
        array = names[0] if len(names) == 1 else source
        if array not in names:
            choices = ", ".join(names)
            raise UserError(f"--array: {path} has none called {source}; use one of {choices}")
    if array not in names:
        raise UserError(f"--array: {path} has no {array!r}; {nearest(array, names)}")
    return array


def _is_matrix(values: Any) -> bool:
    if isinstance(values, list):
        return any(isinstance(row, list) for row in values)
    return isinstance(values, np.ndarray) and values.ndim == 2


def matrix(values: Any, argument: str, name: str) -> np.ndarray:
    """A column of vectors, lists as (N, D); UserError where one is missing or lengths differ."""
    if not isinstance(values, list):
        return np.asarray(values)
    if missing := [number for number, row in enumerate(values) if row is None]:
        rows = list_rows(missing)
        raise UserError(f"{argument}: {name} has no vector (null) in rows {rows}; leave them out")
    lengths = {len(row) for row in values if isinstance(row, list)}
    if len(lengths) > 1:
        extremes = f"{min(lengths)} to {max(lengths)}"
        raise UserError(f"{argument}: {name} has rows of {extremes} numbers, not one D")
    return np.asarray(values)


def unit_rows(values: np.ndarray, dimension: int) -> tuple[np.ndarray, bool]:
    """(N, D) float32 unit vectors, and whether they had to be normalised.

    Raises:
        UserError: where they are not of this dimension, or rows have no direction.
    """
    if not np.issubdtype(values.dtype, np.floating):
        raise UserError(f"IN: numbers of type {values.dtype}; embeddings are floats")
    if values.ndim != 2 or values.shape[1] != dimension or not len(values):
        expected = f"(N, {dimension}), N at least 1"
        raise UserError(f"IN: shape {values.shape}; this bridge takes {expected}")
    lengths = np.linalg.norm(values.astype(np.float64), axis=1)  # float16 would overflow
    problems = []
    for adjective, wrong in (("not finite", ~np.isfinite(lengths)), ("zero", lengths == 0)):
        if wrong.any():
            rows = list_rows(np.flatnonzero(wrong).tolist())
            problems.append(f"IN: rows {rows} are {adjective}; leave them out")
    if problems:
        raise UserError(*problems)
    if (np.abs(lengths - 1) <= NORM_TOLERANCE).all():
        return np.array(values, np.float32, order="C"), False
    return (values / lengths[:, None]).astype(np.float32), True
