"""Environment variables that a sweep may set for its workers: only those of communication.

They are settings and never code: a spec is often somebody else's, and what loads a library or runs
a command would run as whoever sweeps it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from diffgap.errors import nearest

PREFIXES = ("FI_", "GLOO_", "NCCL_", "TORCH_NCCL_", "UCX_")
"""Allowed prefixes; other variables could change results, and signatures do not cover them."""

CODE = re.compile(
    r"_(PLUGINS?|MODULES?|PATH|DIR|LIB|LIBRARY|CONF|CONFIG|COMMAND|CMD|GDB|PRELOAD|PIPE)(?=_|$)"
    r"|HANDLE_ERRORS$|ERROR_SIGNALS$"
)
"""Parts of names that make libraries load code, run a command, or read settings that do:
NCCL_NET_PLUGIN, NCCL_CONF_FILE, UCX_MODULE_DIR, UCX_GDB_COMMAND, FI_PROVIDER_PATH."""

WRITES = re.compile(r"_(DEBUG|DUMP|LOG|STATS|INFO|PROFILE|TRACE)(_[A-Z]+)*_(FILE|DEST)$")
"""Names of files that libraries overwrite, such as NCCL_DEBUG_FILE."""

COMMON_NAMES = (
    "FI_PROVIDER", "GLOO_SOCKET_IFNAME", "NCCL_DEBUG", "NCCL_IB_DISABLE", "NCCL_IB_HCA",
    "NCCL_P2P_DISABLE", "NCCL_SOCKET_IFNAME", "TORCH_NCCL_BLOCKING_WAIT", "UCX_NET_DEVICES",
    "UCX_TLS",
)  # fmt: skip
"""Suggestions for misspelt names."""


def _as_text(value: Any) -> Any:
    """A number as text, since environment variables are; other values unchanged."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


Name = Annotated[str, Field(pattern=rf"^({'|'.join(PREFIXES)})[A-Z0-9_]+$")]
Value = Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^[^\x00-\x1f\x7f]*$")]
Environment = dict[Name, Value]


def danger(name: str) -> str | None:
    """Why a variable of communication is refused; None where it only sets something."""
    if CODE.search(name):
        harm = "can make a library load code or run a command"
    elif WRITES.search(name):
        harm = "makes a library write to any file"
    else:
        return None
    return f"{harm}, which a spec must not; remove it, or set it on the nodes themselves"


def name_problem(name: str) -> str:
    """Why a name is refused, and which are allowed."""
    hint = nearest(name.upper(), COMMON_NAMES)
    hint = "" if hint.startswith("known") else f"; {hint}"
    return f"is not a setting of communication; names begin with {', '.join(PREFIXES)}{hint}"


def value_problem(value: str) -> str:
    return f"{value} is not a text or number; quote it, as in NCCL_SOCKET_IFNAME: 'eth0'"
