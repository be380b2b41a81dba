"""Errors of trials: which of them are worth a retry, and what people read of them."""

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

DISK_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
"""The system's messages for a full disk or quota."""

_FREE_SPACE = "free some space, then give the same command again"
_NAME_NETWORK = "name the network that the nodes share, as in resources.environment: {%s: eth0}"
REMEDIES = {
    **dict.fromkeys(DISK_FULL, _FREE_SPACE),
    "Gloo connect": _NAME_NETWORK % "GLOO_SOCKET_IFNAME",
    "NCCL error": _NAME_NETWORK % "NCCL_SOCKET_IFNAME",
}
"""What to do about errors, by a part of their message."""


def is_permanent(error: BaseException) -> bool:
    """Whether a retry would fail in the same way.

    All other errors may be transient: lost processes and connections, files that cannot be read
    for now.
    """
    return isinstance(error, PERMANENT) or _is_gpu_full(error)


def _is_gpu_full(error: BaseException) -> bool:
    # By name: the driver and the command ask too, which have not imported torch.
    return any(base.__name__ == "OutOfMemoryError" for base in type(error).__mro__)


def reason_of(error: BaseException) -> str:
    """An error in one line, with a remedy where one is known; secrets are redacted."""
    message = str(error).strip()
    text = message.splitlines()[0].rstrip() if message else type(error).__name__
    # By its words: libraries wrap the OSError in errors of their own.
    disk_full = any(words in message for words in DISK_FULL)
    if _is_gpu_full(error):
        remedy = "raise train.accumulation, lower train.batch_size or add resources.workers"
        text = f"out of GPU memory; {remedy} ({text})"
    elif not (isinstance(error, ValueError | ArithmeticError) or disk_full):
        text = f"{type(error).__name__}: {text}"
    return redact(with_remedy(text))


def with_remedy(text: str) -> str:
    """An error's text, and what to do about it where its words are known."""
    for words, remedy in REMEDIES.items():
        if words in text and remedy not in text:
            return f"{text}; {remedy}"
    return text
