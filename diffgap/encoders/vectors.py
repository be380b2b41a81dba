"""From a network's output to the unit vectors that encoders return."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F


def unit_vectors(vectors: Tensor) -> np.ndarray:
    """(..., D) of any device and precision to float32, L2-normalised."""
    return np.asarray(F.normalize(vectors.float(), dim=-1).cpu())
