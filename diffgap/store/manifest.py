"""Manifest of an embedding store: what made it, of which corpus, and its fingerprint."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pyarrow import fs
from pydantic import BaseModel, ValidationError

from diffgap.errors import UserError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"


class EncoderInfo(BaseModel, extra="forbid"):
    """The frozen encoder that made a store."""

    name: str
    checkpoint_hash: str
    preprocessing: dict[str, str | int | float] = {}
    """What was done to clips before the network."""


class CorpusInfo(BaseModel, extra="forbid"):
    """The corpus of a store, and its clips per split."""

    name: str
    counts: dict[str, int]


class Manifest(BaseModel, extra="forbid"):
    """manifest.json."""

    format_version: int
    task: list[str]
    """Those it served when it was written; `EmbeddingStore.tasks` is what it serves."""
    dimension: int
    dtype: str
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
    try:
        with filesystem.open_input_file(f"{root}/{MANIFEST}") as file:
            manifest = Manifest.model_validate_json(file.read())
    except OSError:
        raise UserError(f"{uri}: not an embedding store (it has no {MANIFEST})") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{uri}: {MANIFEST} is invalid at {where}: {first['msg']}") from None
    if manifest.format_version != FORMAT_VERSION:
        raise UserError(
            f"{uri}: format version {manifest.format_version} is not {FORMAT_VERSION}; "
            "make the store anew with this version of diffgap"
        )
    return manifest
