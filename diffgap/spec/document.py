"""A sweep's file as a tree of values that know where they stand, and the way from it to a spec.

The tree is built from PyYAML's safe nodes, one at a time, so that a duplicate key, an anchor or a
bad value is a problem with a line and not a traceback.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from diffgap.errors import UserError
from diffgap.spec.sweep import SweepSpec

Key = tuple[str | int, ...]

MAX_BYTES = 100_000
MAX_DEPTH = 20
MAX_BRACKETS = 100
SHOWN = 80
"""Characters of an override that an error repeats."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also reads 1e-3 as a number, as people mean it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


@dataclass
class Document:
    """A file's values, where each stands, and what is wrong with it so far."""

    tree: dict[str, Any] = field(default_factory=dict)
    places: dict[Key, str] = field(default_factory=dict)
    """``line 12``, or the override that set the value."""
    problems: list[tuple[Key, str]] = field(default_factory=list)
    """Path and text of each mistake."""

    def place(self, key: Key) -> str:
        """Where a value stands, or else the closest block around it."""
        while key and key not in self.places:
            key = key[:-1]
        return self.places[key] if key else ""

    def lines(self) -> list[str]:
        """All problems as people read them, in the order of the file."""

        def order(problem: tuple[Key, str]) -> tuple[int, str]:
            number = re.match(r"line (\d+)", self.place(problem[0]))
            return (int(number[1]) if number else 1 << 30, show(problem[0]))

        said = []
        for key, text in sorted(self.problems, key=order):
            place = self.place(key)
            where = " ".join(part for part in (show(key), f"({place})" if place else "") if part)
            said.append(f"{where}: {text}" if where else text)
        return list(dict.fromkeys(said))


def show(key: Key) -> str:
    """A path as people write it: ``axes.cdm.enabled[1]``."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if part.isprintable() else repr(part)
            text += f".{name}" if text else name
    return text


def load_sweep(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    known_stores: Callable[[str], str | None] | None = None,
) -> SweepSpec:
    """Reads a sweep's file, applies ``KEY=VALUE`` overrides, and checks all of it.

    Args:
        path: the YAML file.
        overrides: keys are dotted as in the file, values are YAML.
        known_stores: says what is wrong with a store's name, or None.

    Raises:
        UserError: with every mistake of the file and the overrides at once.
    """
    from diffgap.spec.checks import check

    document = _read(path)
    for override in overrides:
        _override(document, override)
    spec = check(document, known_stores)
    if document.problems or spec is None:
        raise UserError(*document.lines())
    return spec


def _read(path: Path) -> Document:
    """Parses the file; one that is no YAML mapping at all is refused at once."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a sweep's YAML file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: {len(data)} bytes; a sweep's file is at most {MAX_BYTES}")
    document = Document()
    try:
        tree = _parse(text, document)
    except yaml.YAMLError as error:
        raise UserError(f"{path}{_yaml_reason(error)}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds no mapping; start it with name: and store:")
    document.tree = tree
    return document


def _yaml_reason(error: yaml.YAMLError) -> str:
    """What is wrong with the YAML, in one line."""
    mark = getattr(error, "problem_mark", None)
    where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return f"{where}: not valid YAML: {reason}".replace("\n", " ")


def _parse(text: str, document: Document) -> Any:
    """The values of a YAML text; fills in the document's places and problems."""
    _refuse_tricks(text)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return _build(loader, node, (), document) if node else None
    finally:
        loader.dispose()


def _refuse_tricks(text: str) -> None:
    """Refuses what no sweep needs and what would make a small file a huge tree."""
    if line := _unclosed(text):
        raise UserError(f"line {line}: nested too deeply; a sweep has a few levels")
    depth = 0
    for event in yaml.parse(text, _Loader):
        line = getattr(event.start_mark, "line", 0) + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise UserError(f"line {line}: anchors and aliases (&, *) are not used in a sweep")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UserError(f"line {line}: nested too deeply; a sweep has a few levels")


def _unclosed(text: str) -> int | None:
    """The line with more open brackets than any spec has, on which PyYAML would be slow."""
    open_brackets, line = 0, 1
    for character in re.findall(r"[\[\]{}\n]", text):
        line += character == "\n"
        open_brackets += (character in "[{") - (character in "]}")
        if open_brackets > MAX_BRACKETS:
            return line
    return None


def _build(loader: _Loader, node: yaml.Node, key: Key, document: Document) -> Any:
    document.places[key] = f"line {node.start_mark.line + 1}"
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, n, (*key, i), document) for i, n in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return _scalar(loader, node, key, document)
    tree: dict[str, Any] = {}
    for name_node, value_node in node.value:
        name = str(getattr(name_node, "value", "?"))
        inner: Key = (*key, name)
        line = name_node.start_mark.line + 1
        if name in tree:
            first = document.places[inner]
            document.problems.append((inner, f"stands twice, at {first} and line {line}; keep one"))
            continue
        tree[name] = _build(loader, value_node, inner, document)
        document.places[inner] = f"line {line}"
    return tree


def _scalar(loader: _Loader, node: yaml.Node, key: Key, document: Document) -> Any:
    try:
        return loader.construct_object(node)
    except (ValueError, OverflowError, yaml.YAMLError):
        short = str(node.value)[:40]
        document.problems.append((key, f"{short!r} cannot be read as {node.tag}; quote it?"))
        return None


def _override(document: Document, text: str) -> None:
    """Sets one value of the tree; a wrong name is found with the file's own."""
    said = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    name, equals, value_text = text.partition("=")
    if not equals or not name:
        document.problems.append(((), f"--set {said}: no KEY=VALUE; as in --set seeds=5"))
        return
    key: Key = tuple(name.split(".", 1)) if name.startswith("axes.") else tuple(name.split("."))
    scratch = Document()
    try:
        value = _parse(value_text, scratch)
    except (yaml.YAMLError, UserError):
        document.problems.append(((), f"--set {said}: the value is not valid YAML; quote it"))
        return
    document.problems += [((), f"--set {said}: {problem}") for _, problem in scratch.problems]
    block = document.tree
    for depth, part in enumerate(key[:-1], 1):
        inner = block.get(str(part))
        if not isinstance(inner, dict):
            inner = block[str(part)] = {}
            document.places[key[:depth]] = f"--set {said}"
        block = inner
    block[str(key[-1])] = value
    document.places = {k: v for k, v in document.places.items() if k[: len(key)] != key}
    document.places[key] = f"--set {said}"
