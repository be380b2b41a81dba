"""Sweep files as trees of values that know their line.

The tree is built from PyYAML's nodes, so that a duplicate key, a merge or a misread number is a
problem with a line, reported beside all others, and not a traceback.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from diffgap.errors import UserError

Key = tuple[str | int, ...]
"""Path of a value: ``("axes", "cdm.enabled", 1)``."""

MAX_BYTES = 100_000
MAX_DEPTH = 20  # of nested blocks and lists
MAX_PROBLEMS = 50
MAX_WORD, MAX_LINE = 80, 500
"""Characters of a word that an error repeats, and of the error."""

_YAML = "tag:yaml.org,2002:"
_SCALARS = {_YAML + kind for kind in ("str", "int", "float", "bool", "null")}
_BLOCKS = {_YAML + kind for kind in ("map", "seq")}
_UNREADABLE = (yaml.YAMLError, ValueError, OverflowError, RecursionError)
"""What PyYAML raises: also of numbers that are none, and of hundreds of nested brackets."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, reading 1e-3 as a number and a date as text, without aliases."""

    def fetch_more_tokens(self) -> None:
        # PyYAML scans nested brackets in quadratic time, and then recurses into each of them.
        if self.flow_level + len(self.indents) > MAX_DEPTH:
            self._refuse("nested too deeply; a sweep has a few levels")
        super().fetch_more_tokens()

    def fetch_anchor(self) -> NoReturn:
        # A page of aliases to aliases is a tree of billions of values.
        self._refuse("anchors and aliases (&, *) are not used in a sweep; write the value out")

    def _refuse(self, problem: str) -> NoReturn:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark())

    fetch_alias = fetch_anchor


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in {*_SCALARS, _YAML + "merge"}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(  # YAML 1.1 wants a dot and a sign: 1.0e-3
    _YAML + "float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass
class Document:
    """The values of a file, where each was set, and the mistakes so far."""

    tree: dict[str, Any] = field(default_factory=dict)
    sources: dict[Key, int | str] = field(default_factory=dict)
    """The line of each value, or the override that set it."""
    problems: list[tuple[Key, str]] = field(default_factory=list)
    """Path and text of each mistake."""

    def source(self, key: Key) -> int | str | None:
        """Where a value was set, or else the closest block around it."""
        while key and key not in self.sources:
            key = key[:-1]
        return self.sources[key] if key else None

    def error_lines(self) -> list[str]:
        """All problems, in the order of the file, overrides last."""

        def position(problem: tuple[Key, str]) -> float:
            source = self.source(problem[0])
            return source if isinstance(source, int) else math.inf

        lines = [self._error_line(*problem) for problem in sorted(self.problems, key=position)]
        lines = list(dict.fromkeys(lines))
        if (hidden := len(lines) - MAX_PROBLEMS) > 0:
            lines[MAX_PROBLEMS:] = [f"{hidden} more mistakes; fix these first"]
        return lines

    def _error_line(self, key: Key, text: str) -> str:
        source = self.source(key)
        if isinstance(source, int):
            source = f"line {source}"
        where = format_key(key) + (f" ({source})" if source else "")
        return shorten(f"{where}: {text}" if where else text, MAX_LINE)


def format_key(key: Key) -> str:
    """A path as people write it: ``axes.cdm.enabled[1]``."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else "." + (shorten(part) or "''")
    return text.removeprefix(".")


def shorten(text: str, longest: int = MAX_WORD) -> str:
    """A text as part of an error line: printable, and cut where it is long."""
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= longest else f"{text[:longest]}..."


def read_document(path: Path) -> Document:
    """Parses a sweep file; UserError where it cannot be read, or is not a YAML mapping."""
    name = shorten(str(path), MAX_LINE)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}; give a sweep's YAML file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    if len(data) > MAX_BYTES:
        raise UserError(f"{name}: longer than the {MAX_BYTES} bytes of a sweep file; is it one?")
    document = Document()
    try:
        tree = _parse(text, document)
    except _UNREADABLE as error:
        raise UserError(shorten(f"{name}{_parse_problem(error)}", MAX_LINE)) from None
    if not isinstance(tree, dict):
        raise UserError(f"{name}: not a mapping; start it with name: and store:")
    document.tree = tree
    return document


def _parse_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    if isinstance(error, RecursionError):
        reason = "nested too deeply"
    return f"{where}: cannot be read as YAML: {reason}".replace("\n", " ")


def _parse(text: str, document: Document) -> Any:
    """The values of a YAML text; adds their lines and problems to the document."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return _build(loader, node, (), document) if node else None
    finally:
        loader.dispose()


def _build(loader: _Loader, node: yaml.Node, key: Key, document: Document) -> Any:
    document.sources[key] = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        value, problem = _read_scalar(loader, node)
        if problem:
            document.problems.append((key, problem))
        return value
    if node.tag not in _BLOCKS:
        document.problems.append((key, f"cannot be read as {shorten(node.tag)}; remove the tag"))
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, n, (*key, i), document) for i, n in enumerate(node.value)]
    return _build_mapping(loader, node, key, document)


def _build_mapping(
    loader: _Loader, node: yaml.Node, key: Key, document: Document
) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for name_node, value_node in node.value:
        name = name_node.value if isinstance(name_node, yaml.ScalarNode) else "?"
        inner: Key = (*key, name)
        line = name_node.start_mark.line + 1
        if name in mapping:
            first = document.sources[inner]
            problem = f"is given twice, at line {first} and line {line}; keep one"
            document.problems.append((inner, problem))
            continue
        if name_node.tag == _YAML + "str":
            mapping[name] = _build(loader, value_node, inner, document)
        else:
            problem = "is not a key; keys are plain names without tags or merges (<<)"
            document.problems.append((inner, problem))
        document.sources[inner] = line  # the key's: a block's first value stands a line below
    return mapping


def _read_scalar(loader: _Loader, node: yaml.ScalarNode) -> tuple[Any, str | None]:
    """The value of a scalar, or what is wrong with it."""
    unreadable = f"{node.value[:40]!r} cannot be read as {shorten(node.tag)}; quote it?"
    if node.tag not in _SCALARS:
        return None, unreadable
    try:
        value = loader.construct_object(node)
    except (ArithmeticError, LookupError, ValueError):  # such as !!int many
        return None, unreadable
    problem = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        problem = _number_problem(node.value, value)
    return (None if problem else value), problem


def _number_problem(text: str, value: int | float) -> str | None:
    """Why a number is not taken as YAML reads it; None where people read it the same way."""
    shown = repr(text[:40])
    if isinstance(value, int) and value.bit_length() > 63:
        return f"{shown} is too large; numbers have at most 18 digits"
    if not math.isfinite(value):
        return f"{shown} is not a finite number; give one that is"
    # YAML 1.1 reads 1:30 as 90 (base 60) and 010 as 8 (octal).
    if ":" in text or (isinstance(value, int) and re.match(r"[-+]?0_*\d", text)):
        return f"{shown} would be read as {value}; write that, or the number you mean"
    return None


def apply_override(document: Document, text: str) -> None:
    """Sets one value of the tree, as in ``seeds=5``; unknown names are left to the checks."""
    source = f"--set {shorten(text)}"
    name, equals, value_text = text.partition("=")
    if not equals or not name:
        document.problems.append(((), f"{source}: not KEY=VALUE; as in --set seeds=5"))
        return
    key = parse_key(name)
    override = Document()
    try:
        value = _parse(value_text, override)
    except _UNREADABLE:
        document.problems.append(((), f"{source}: the value is not valid YAML; quote it"))
        return
    document.problems += [((*key, *inner), problem) for inner, problem in override.problems]
    block = document.tree
    for depth, part in enumerate(key[:-1], 1):
        if not isinstance(block.get(str(part)), dict):
            block[str(part)] = {}
            document.sources[key[:depth]] = source
        block = block[str(part)]
    block[str(key[-1])] = value
    for inner in list(document.sources):
        if inner[: len(key)] == key:  # lines of the value that is replaced
            del document.sources[inner]
    document.sources[key] = source


def parse_key(name: str) -> Key:
    """The path of a dotted name; axes and dimensions have dots in their own names."""
    for block in ("axes", "search.space"):
        if name.startswith(f"{block}."):
            return (*block.split("."), name.removeprefix(f"{block}."))
    return tuple(name.split("."))
