"""`torch.load` without the code that a file may name, whoever calls it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

FORCE_PLAIN, FORCE_PICKLE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextmanager
def weights_only(types: Sequence[Any] = ()) -> Iterator[None]:
    """Makes `torch.load` take tensors and plain types alone, even where a library asks for more.

    What is neither on torch's list nor among `types` raises `pickle.UnpicklingError`. Can go when
    the libraries that load for us (DeepSpeed, diffusers, transformers) never ask for more.
    """
    before = {name: os.environ.pop(name, None) for name in (FORCE_PLAIN, FORCE_PICKLE)}
    # The one switch that also holds where a caller writes weights_only=False.
    os.environ[FORCE_PLAIN] = "1"
    try:
        with torch.serialization.safe_globals([*types]):
            yield
    finally:
        del os.environ[FORCE_PLAIN]
        os.environ.update({name: value for name, value in before.items() if value is not None})
