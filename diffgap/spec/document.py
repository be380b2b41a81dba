"""A sweep's file as a tree of values that know where they stand, and the way from it to a spec.

The tree is built from PyYAML's safe nodes, one at a time, so that a duplicate key, an anchor or a
bad value is a problem with a line and not a traceback.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.reader import Reader

from diffgap.errors import UserError
from diffgap.spec.sweep import SweepSpec

Key = tuple[str | int, ...]

MAX_BYTES = 100_000
MAX_DEPTH = 20
MAX_TOKENS = 25_000
"""Values, keys and signs of a file: a list of 10,000 seeds has 20,000."""

MAX_PROBLEMS = 50
SHOWN, LONGEST_LINE = 80, 500
"""Characters of a word that an error repeats, and of the error."""

_YAML = "tag:yaml.org,2002:"
_SCALARS = {_YAML + kind for kind in ("str", "int", "float", "bool", "null")}
_BLOCKS = {_YAML + kind for kind in ("map", "seq")}


class _RefusedError(Exception):
    """YAML that no sweep needs, or that would make a small file a huge tree."""

    def __init__(self, line: int, reason: str) -> None:
        self.line, self.reason = line, reason
        super().__init__(f"line {line}: {reason}")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which reads 1e-3 as a number and a date as a text, as people mean them.

    What a sweep has no use for it refuses while it scans, before anything is made of it.
    """

    def fetch_more_tokens(self) -> None:
        if self.flow_level + len(self.indents) > MAX_DEPTH:
            self._refuse("nested too deeply; a sweep has a few levels")
        if self.tokens_taken > MAX_TOKENS:
            self._refuse("too many values for one sweep; split it")
        super().fetch_more_tokens()

    def fetch_anchor(self) -> NoReturn:
        self._refuse("anchors and aliases (&, *) are not used in a sweep; write the value out")

    fetch_alias = fetch_anchor

    def _refuse(self, reason: str) -> NoReturn:
        raise _RefusedError(self.line + 1, reason)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag in {*_SCALARS, _YAML + "merge"}]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _YAML + "float",
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

        def line(problem: tuple[Key, str]) -> int:
            number = re.match(r"line (\d+)", self.place(problem[0]))
            return int(number[1]) if number else 1 << 30

        said = []
        for key, text in sorted(self.problems, key=line):
            place = self.place(key)
            where = " ".join(part for part in (show(key), f"({place})" if place else "") if part)
            said.append(brief(f"{where}: {text}" if where else text, LONGEST_LINE))
        said = list(dict.fromkeys(said))
        if more := said[MAX_PROBLEMS:]:
            said = [*said[:MAX_PROBLEMS], f"{len(more)} more mistakes; mend these first"]
        return said


def show(key: Key) -> str:
    """A path as people write it: ``axes.cdm.enabled[1]``."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = brief(part) or "''"
            text += f".{name}" if text else name
    return text


def brief(text: str, longest: int = SHOWN) -> str:
    """A text as a line of an error may hold it: printable, and cut where it is long."""
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= longest else f"{text[:longest]}..."


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
    name = brief(str(path), LONGEST_LINE)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UserError(f"{name}: a sweep's file has at most {MAX_BYTES} bytes; is it one?")
        text = data.decode("utf-8")
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}; give a sweep's YAML file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    document = Document()
    try:
        tree = _parse(text, document)
    except yaml.YAMLError as error:
        raise UserError(f"{name}{_yaml_reason(error)}") from None
    except _RefusedError as refused:
        raise UserError(str(refused)) from None
    if not isinstance(tree, dict):
        raise UserError(f"{name}: holds no mapping; start it with name: and store:")
    document.tree = tree
    return document


def _yaml_reason(error: yaml.YAMLError) -> str:
    """What is wrong with the YAML, in one line."""
    mark = getattr(error, "problem_mark", None)
    where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return brief(f"{where}: not valid YAML: {reason}".replace("\n", " "), LONGEST_LINE)


def _parse(text: str, document: Document) -> Any:
    """The values of a YAML text; fills in the document's places and problems."""
    if odd := Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, odd.start()) + 1
        raise _RefusedError(
            line, f"the character {odd[0]!r} has no place in a text file; take it out"
        )
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return _build(loader, node, (), document) if node else None
    except (ValueError, OverflowError):  # PyYAML's own, of \U escapes and %YAML versions
        raise _RefusedError(loader.line + 1, "holds an escape or a version that is none") from None
    finally:
        loader.dispose()


def _build(loader: _Loader, node: yaml.Node, key: Key, document: Document) -> Any:
    document.places[key] = f"line {node.start_mark.line + 1}"
    if isinstance(node, yaml.ScalarNode):
        return _scalar(loader, node, key, document)
    if node.tag not in _BLOCKS:
        problem = f"cannot be read as {brief(node.tag)}; take the tag out"
        document.problems.append((key, problem))
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, n, (*key, i), document) for i, n in enumerate(node.value)]
    tree: dict[str, Any] = {}
    for name_node, value_node in node.value:
        name = name_node.value if isinstance(name_node, yaml.ScalarNode) else "?"
        inner: Key = (*key, name)
        line = name_node.start_mark.line + 1
        if name in tree:
            first = document.places[inner]
            document.problems.append((inner, f"stands twice, at {first} and line {line}; keep one"))
            continue
        if name_node.tag == _YAML + "str" and _is_text(name):
            tree[name] = _build(loader, value_node, inner, document)
        else:
            problem = "is no key; keys are plain names, without tags and merges (<<)"
            document.problems.append((inner, problem))
        document.places[inner] = f"line {line}"
    return tree


def _scalar(loader: _Loader, node: yaml.ScalarNode, key: Key, document: Document) -> Any:
    value, short = None, repr(node.value[:40])
    try:
        if node.tag in _SCALARS:
            value = loader.construct_object(node)
            problem = _misread(node.value, value)
        else:
            problem = f"{short} cannot be read as {brief(node.tag)}; quote it?"
    except (ArithmeticError, LookupError, ValueError):
        problem = f"{short} cannot be read as {node.tag}; quote it?"
    if problem:
        document.problems.append((key, problem))
        return None
    return value


def _misread(text: str, value: Any) -> str | None:
    """Why a value is not taken as YAML reads it; None where people would read it so too."""
    short = repr(text[:40])
    if isinstance(value, str) and not _is_text(value):
        return f"{short} is no Unicode text; take its surrogates out"
    if isinstance(value, str | bool | None):
        return None
    if isinstance(value, int) and value.bit_length() > 63:
        return f"{short} is too large a number; the largest has 18 digits"
    if not math.isfinite(value):
        return f"{short} is not a finite number; give one that is"
    if ":" in text or (isinstance(value, int) and re.match(r"[-+]?0_*\d", text)):
        return f"{short} would be read as {value}; write that, or the number that is meant"
    return None


def _is_text(text: str) -> bool:
    """Whether it can be written to a file: half a surrogate pair cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _override(document: Document, text: str) -> None:
    """Sets one value of the tree; a wrong name is found with the file's own."""
    said = f"--set {brief(text)}"
    name, equals, value_text = text.partition("=")
    key = _dotted(name)
    if not equals or not name or not _is_text(name):
        document.problems.append(((), f"{said}: no KEY=VALUE; as in --set seeds=5"))
        return
    if len(key) > MAX_DEPTH or len(text) > MAX_BYTES:
        document.problems.append(((), f"{said}: too long; put the value into the file"))
        return
    scratch = Document()
    try:
        value = _parse(value_text, scratch)
    except yaml.YAMLError:
        document.problems.append(((), f"{said}: the value is not valid YAML; quote it"))
        return
    except _RefusedError as refused:
        document.problems.append(((), f"{said}: {refused.reason}"))
        return
    document.problems += [((*key, *inner), problem) for inner, problem in scratch.problems]
    block = document.tree
    for depth, part in enumerate(key[:-1], 1):
        inner = block.get(str(part))
        if not isinstance(inner, dict):
            inner = block[str(part)] = {}
            document.places[key[:depth]] = said
        block = inner
    block[str(key[-1])] = value
    document.places = {k: v for k, v in document.places.items() if k[: len(key)] != key}
    document.places[key] = said


def _dotted(name: str) -> Key:
    """The path that an override's name means: an axis's own name has dots, and a dimension's."""
    for block in (("axes",), ("search", "space")):
        prefix = ".".join((*block, ""))
        if name.startswith(prefix):
            return (*block, name.removeprefix(prefix))
    return tuple(name.split("."))
