"""Loading a checkpoint's weights into a model, every one of them or none."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffgap.errors import UserError

SHOWN = 5
"""Names in an error about many."""

# Scalars of NumPy, such as a training loss, lie beside the weights in published checkpoints.
HARMLESS: list[Any] = [
    np.float64(0).__reduce__()[0],
    np.dtype,
    type(np.dtype("f8")),
    type(np.dtype("f4")),
    type(np.dtype("i8")),
]


def load_strictly(model: nn.Module, path: Path, drop: Collection[str] = ()) -> None:
    """Loads a torch file: a state dict, bare or under ``state_dict``, maybe of a wrapped module.

    Args:
        model: takes the weights.
        path: the file; read without running code in it (``weights_only``).
        drop: names to leave out.

    Raises:
        UserError: naming every missing, unexpected and misshapen weight.
    """
    state = {name: value for name, value in read_state(path).items() if name not in drop}
    wanted = model.state_dict()
    problems = []
    if missing := [name for name in wanted if name not in state]:
        problems.append(f"{path}: lacks {some_of(missing)}")
    if unexpected := [name for name in state if name not in wanted]:
        problems.append(f"{path}: holds {some_of(unexpected)}, which the model does not have")
    for name, value in state.items():
        if name in wanted and value.shape != wanted[name].shape:
            problems.append(
                f"{path}: {name} has shape {tuple(value.shape)}, not {tuple(wanted[name].shape)}"
            )
    if problems:
        raise UserError(*problems)
    model.load_state_dict(state)


def read_state(path: Path) -> dict[str, Tensor]:
    """The weights in a torch file by name, without a ``module.`` in front."""
    try:
        with torch.serialization.safe_globals(HARMLESS):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"--checkpoint: no file {path}; give the path of a checkpoint") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{path}: no checkpoint of weights: {str(error).splitlines()[0]}") from None
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(torch.is_tensor(v) for v in found.values()):
        raise UserError(f"{path}: no checkpoint of weights; it holds a {type(found).__name__}")
    return {name.removeprefix("module."): value for name, value in found.items()}


def some_of(names: list[str]) -> str:
    """The first names of many, for an error."""
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of all weights by name, whatever file they came in."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}:{tuple(value.shape)}:{value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
