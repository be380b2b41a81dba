"""PyTorch's operations on lists of tensors, private until `torch.foreach` (pytorch#193607)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def lerp_(starts: Iterable[Tensor], ends: Iterable[Tensor], weight: float) -> None:
    """Moves each start towards its end by a share of their distance, in place, in one kernel."""
    torch._foreach_lerp_(list(starts), list(ends), weight)
