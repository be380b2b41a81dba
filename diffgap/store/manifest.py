"""Manifest of an embedding store: what made it, of which corpus, and its fingerprint."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
from pyarrow import fs
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from diffgap.errors import UserError
from diffgap.store.schema import MOST_DIMENSIONS

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
LARGEST = 2**20
"""Bytes of a manifest."""
MOST_CLIPS = 10**12
REMEDY = "restore the file, or make the store anew"


class EncoderInfo(BaseModel, extra="forbid"):
    """The frozen encoder that made a store."""

    name: str
    checkpoint_hash: str
    preprocessing: dict[str, str | int | float] = {}
    """What was done to clips before the network."""


class CorpusInfo(BaseModel, extra="forbid"):
    """The corpus of a store, and its clips per split."""

    name: str
    counts: dict[str, Annotated[int, Field(strict=True, ge=0, le=MOST_CLIPS)]]


class Manifest(BaseModel, extra="forbid"):
    """manifest.json."""

    format_version: int
    task: list[str]
    """Those it served when it was written; `EmbeddingStore.tasks` is what it serves."""
    dimension: Annotated[int, Field(strict=True, ge=1, le=MOST_DIMENSIONS)]
    dtype: Literal["float32"]
    encoder: EncoderInfo
    corpus: CorpusInfo
    fingerprint: str


def locate(uri: str) -> tuple[fs.FileSystem, str]:
    """pyarrow's file system of a local path or URI, and the path on it."""
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).absolute())
    try:
        return fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"store: {uri!r} cannot be reached: {error}") from None


def read_manifest(filesystem: fs.FileSystem, root: str, uri: str) -> Manifest:
    """A store's manifest; UserError where there is none, or it is invalid or of another version."""
    where = f"{uri}: {MANIFEST}"
    content = _read_json(filesystem, f"{root}/{MANIFEST}", uri)
    version = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version != FORMAT_VERSION:
        raise UserError(
            f"{uri}: format version {version} is not {FORMAT_VERSION}; "
            "make the store anew with this version of diffgap"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        problems = []
        for wrong in error.errors(include_url=False):
            field = ".".join(map(str, wrong["loc"])) or "it"
            message = wrong["msg"][0].lower() + wrong["msg"][1:]
            problems.append(
                f"{where}: {field}: {reprlib.repr(wrong['input'])}: {message}; {REMEDY}"
            )
        raise UserError(*problems) from None


def _read_json(filesystem: fs.FileSystem, path: str, uri: str) -> object:
    where = f"{uri}: {MANIFEST}"
    try:
        with filesystem.open_input_file(path) as file:
            if file.size() > LARGEST:
                raise UserError(f"{where}: {file.size()} bytes are more than {LARGEST}; {REMEDY}")
            return from_json(file.read())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{uri}: not an embedding store (it has no {MANIFEST})") from None
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{where} cannot be read: {reason}; {REMEDY}") from None
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{where} is not JSON: {error}; {REMEDY}") from None
