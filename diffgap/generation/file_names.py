"""Names of the files of clips, which every file system keeps apart."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from diffgap.io.printable import FORMULA, printable

UNSAFE = re.compile(r'[<>:"/\\|?*]')
"""What a name cannot hold here or on Windows: a drive that is formatted for it, or a share."""
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\..*)?")
"""Names of devices on Windows, with any suffix."""
LONGEST = 180
"""Bytes: file systems allow 255, and a suffix and what keeps two names apart are added."""


def file_names(ids: Sequence[str]) -> list[str]:
    """A name for each clip's file, without a suffix, that says which clip it is.

    Where two would have the same name, maybe but for upper and lower case, a part of a hash of the
    clip's id follows.

    Args:
        ids: of the clips, no two the same.
    """
    assert len(set(ids)) == len(ids), "an id a clip"
    names = [_readable(name) for name in ids]
    # Again, should a name with its hash be the id of another clip.
    while taken := {key for key, count in Counter(map(_key, names)).items() if count > 1}:
        for row, (clip, name) in enumerate(zip(ids, names, strict=True)):
            if _key(name) in taken:
                names[row] = f"{name}-{_short_hash(clip)}"
    return names


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]


def _readable(name: str) -> str:
    """An id as a name of a file."""
    characters = []
    for character in unicodedata.normalize("NFC", name):
        is_shown = unicodedata.category(character)[0] != "C" and printable(character) == character
        characters.append(character if is_shown else "_")
    text = UNSAFE.sub("_", "".join(characters))
    text = text.encode()[:LONGEST].decode(errors="ignore").strip()
    if text.startswith(".") or FORMULA.match(text):  # hidden, or taken for an option or a formula
        text = f"_{text}"
    text = text.rstrip(". ") or "_"  # Windows drops them
    return f"_{text}" if RESERVED.fullmatch(text) else text


def _key(name: str) -> str:
    """Equal for names that some file system takes for the same."""
    return unicodedata.normalize("NFD", name.casefold())
