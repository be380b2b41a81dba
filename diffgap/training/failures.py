"""Which errors of a trial are worth another try, and what a person is told of them."""

from __future__ import annotations

import errno
import os

from diffgap.io.redact import redact

PERMANENT = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    TypeError,
    ValueError,
)
"""What the same trial would raise again: a diverged loss, bad data, too large a batch, a bug."""


FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says of a full disk."""

REMEDIES = {
    **{os.strerror(code): "free some space, then give the same command again" for code in FULL},
    "Gloo connect": "name the network that the nodes share, as in resources.environment: "
    "{GLOO_SOCKET_IFNAME: eth0}",
    "NCCL error": "name the network that the nodes share, as in resources.environment: "
    "{NCCL_SOCKET_IFNAME: eth0}",
}
"""What to do about errors, by words that tell them."""


def is_permanent(error: BaseException) -> bool:
    """Whether trying again would end the same.

    What remains (lost processes, connections, files that cannot be read for now) may get better.
    """
    return isinstance(error, PERMANENT) or _gpu_is_full(error)


def _gpu_is_full(error: BaseException) -> bool:
    """Told by name: who asks (the command, say) need not have imported torch."""
    return any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)


def reason_of(error: BaseException) -> str:
    """An error in one line, with what to do where that is known; secrets are blotted out."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if _gpu_is_full(error):
        remedy = "raise train.accumulation, lower train.batch_size or add resources.workers"
        text = f"out of GPU memory; {remedy} ({text})"
    elif any(os.strerror(code) in str(error) for code in FULL):  # whoever passed it on
        pass
    elif not isinstance(error, ValueError | ArithmeticError):
        text = f"{type(error).__name__}: {text}"
    return redact(with_remedy(text))


def with_remedy(text: str) -> str:
    """What was said of an error, with what to do where that follows from the words."""
    remedy = next((r for sign, r in REMEDIES.items() if sign in text), None)
    return f"{text}; {remedy}" if remedy and remedy not in text else text
