"""Which errors are retried, and what people read of them."""

import errno
import os

import pytest
import torch

from diffgap.training.divergence import DivergedError
from diffgap.training.failures import is_permanent, reason_of

FULL = os.strerror(errno.ENOSPC)
ERRORS = {
    "diverged": (DivergedError("step 3: the loss is nan"), True, "step 3: the loss is nan"),
    "a bug": (KeyError("x"), True, "KeyError: 'x'"),
    "a lost connection": (ConnectionError("reset\nby peer"), False, "ConnectionError: reset"),
    "no message": (TimeoutError(), False, "TimeoutError: TimeoutError"),
    "GPU memory": (
        torch.OutOfMemoryError("CUDA out of memory."),
        True,
        "out of GPU memory; raise train.accumulation, lower train.batch_size or add "
        "resources.workers (CUDA out of memory.)",
    ),
    "a full disk": (
        RuntimeError(f"cannot save: {FULL}"),
        False,
        f"cannot save: {FULL}; free some space, then give the same command again",
    ),
    "a wrong network": (
        RuntimeError("Gloo connectFullMesh failed"),
        False,
        "RuntimeError: Gloo connectFullMesh failed; name the network that the nodes share, as in "
        "resources.environment: {GLOO_SOCKET_IFNAME: eth0}",
    ),
}


@pytest.mark.parametrize(("error", "permanent", "reason"), ERRORS.values(), ids=ERRORS.keys())
def test_errors(error, permanent, reason):
    assert is_permanent(error) == permanent
    assert reason_of(error) == reason


def test_a_remedy_is_given_once():
    once = reason_of(OSError(errno.ENOSPC, FULL))
    assert reason_of(ValueError(once)) == once
