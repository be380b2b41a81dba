"""Weights of a published checkpoint, loaded into a model all or none."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from diffgap.errors import UserError

SHOWN = 5  # names in an error about many

# Published checkpoints hold NumPy scalars, such as a training loss, beside the weights. Under
# weights_only torch refuses whatever is not on its list of safe types, and these are not.
NUMPY_SCALARS: list[Any] = [np.float64(0).__reduce__()[0], np.dtype]
NUMPY_SCALARS += map(type, map(np.dtype, ("f8", "f4", "i8")))


def load_strictly(model: nn.Module, path: Path, drop: Collection[str] = ()) -> None:
    """Loads a torch file: a state dict, bare or under ``state_dict``, of a wrapped module or not.

    No code in the file is run (``weights_only``); the names in `drop` are left out.

    Raises:
        UserError: naming every missing, unexpected and misshapen weight.
    """
    state = {name: value for name, value in read_state(path).items() if name not in drop}
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if problems := weight_problems(path, state, shapes):
        raise UserError(*problems)
    model.load_state_dict(state)


def load_bundled(model: nn.Module, path: Path) -> str:
    """Loads weights that ship with this package; returns the SHA-256 of their file."""
    model.load_state_dict(load_file(path))  # float16 on disk; copying converts to float32
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weight_problems(
    path: Path, state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """Missing, unexpected and misshapen weights of a file, given the shapes of a model's."""
    problems = []
    # torch's own strict loading would list every one of what may be hundreds of names.
    missing = [name for name in shapes if name not in state]
    if missing:
        problems.append(f"{path}: lacks {some_of(missing)}")
    unexpected = [name for name in state if name not in shapes]
    if unexpected:
        problems.append(f"{path}: holds {some_of(unexpected)}, which the model does not have")
    for name, shape in shapes.items():
        if name in state and tuple(state[name].shape) != shape:
            problems.append(f"{path}: {name} has shape {tuple(state[name].shape)}, not {shape}")
    return problems


def read_state(path: Path) -> dict[str, Tensor]:
    """The weights in a torch file by name, without a ``module.`` in front."""
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"--checkpoint: no file {path}; give the path of a checkpoint") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{path}: not a checkpoint: {str(error).splitlines()[0]}") from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(map(torch.is_tensor, content.values())):
        raise UserError(f"{path}: not a checkpoint; it holds a {type(content).__name__}")
    # The prefix of models that were trained under DataParallel.
    return {name.removeprefix("module."): value for name, value in content.items()}


def some_of(names: list[str]) -> str:
    """The first names of many, for an error."""
    listed = ", ".join(names[:SHOWN])
    return listed if len(names) <= SHOWN else f"{listed} and {len(names) - SHOWN} more"


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of all weights by name, whatever file they came in."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        # With name and shape, so that two models of the same numbers differ.
        digest.update(f"{name}:{tuple(value.shape)}:{value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
