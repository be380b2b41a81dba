"""Sweep files into specs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from diffgap.errors import UserError
from diffgap.spec.checks import check
from diffgap.spec.document import apply_override, read_document
from diffgap.spec.sweep import SweepSpec


def load_sweep(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    known_stores: Callable[[str], str | None] | None = None,
) -> SweepSpec:
    """Reads a sweep file, applies ``KEY=VALUE`` overrides, and checks all of it.

    Args:
        path: the YAML file.
        overrides: keys are dotted as in the file, values are YAML.
        known_stores: returns what is wrong with the name of a store, or None.

    Raises:
        UserError: with every mistake of the file and the overrides at once.
    """
    document = read_document(path)
    for override in overrides:
        apply_override(document, override)
    spec = check(document, known_stores)
    if document.problems or spec is None:
        raise UserError(*document.error_lines())
    return spec
