"""PyTorch's optimisers without its compiler, whose import takes a second of every process.

PyTorch wraps an optimiser's methods to keep the compiler out of them, and imports its 1,400 modules
to do so. Nothing here is compiled: the same methods unwrapped compute the same to the last digit.
To be deleted once `torch.optim` no longer imports `torch._dynamo`, which 2.11 does.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class _Eager(Optimizer):
    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)


class AdamW(_Eager, torch.optim.AdamW):
    """Fused AdamW of parameter groups."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, fused=True)


class LBFGS(_Eager, torch.optim.LBFGS):
    """L-BFGS of one tensor, with a line search."""

    def __init__(self, parameter: Tensor, max_iter: int) -> None:
        super().__init__([parameter], max_iter=max_iter, line_search_fn="strong_wolfe")
