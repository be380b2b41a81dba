"""Variables for the workers' processes: how they talk to each other, which decides no result."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from diffgap.errors import nearest

PREFIXES = ("FI_", "GLOO_", "NCCL_", "TORCH_NCCL_", "UCX_")
"""What names begin with; any others could decide a result, and are no sweep's to set."""

USUAL = (
    "FI_PROVIDER",
    "GLOO_SOCKET_IFNAME",
    "NCCL_DEBUG",
    "NCCL_IB_DISABLE",
    "NCCL_IB_HCA",
    "NCCL_P2P_DISABLE",
    "NCCL_SOCKET_IFNAME",
    "TORCH_NCCL_BLOCKING_WAIT",
    "UCX_NET_DEVICES",
    "UCX_TLS",
)
"""Names that people mean by misspelt ones."""


def _as_text(value: Any) -> Any:
    """A number as the text that a process sees; whatever else is left as it is."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number else value


Name = Annotated[str, Field(pattern=rf"^({'|'.join(PREFIXES)})[A-Z0-9_]+$")]
Value = Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^[^\x00-\x1f\x7f]*$")]
Environment = dict[Name, Value]


def no_name(name: str) -> str:
    """What is wrong with a name, and which are none."""
    hint = nearest(name.upper(), USUAL)
    hint = "" if hint.startswith("known") else f"; {hint}"
    return f"is no setting of communication; names begin with {', '.join(PREFIXES)}{hint}"


def no_value(shown: str) -> str:
    """What is wrong with a value, as it is shown."""
    return f"{shown} is no text or number; quote it, as in NCCL_SOCKET_IFNAME: 'eth0'"
