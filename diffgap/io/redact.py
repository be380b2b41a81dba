"""Blots secrets out of whatever people, logs, tags or reports get to see.

A URI may carry a password or a token, and the environment holds tokens of its own.
"""

from __future__ import annotations

import os
import re

HIDDEN = "***"

USER_INFO = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
"""``user:password`` of a URI."""
PARAMETER = re.compile(
    r"(?i)((?:password|passwd|secret|token|api_?key|access_?key|credential|signature)"
    r"[a-z_]*=)[^&\s'\";,]+"
)
"""The value of a telling parameter, such as ``?token=...``."""
BEARER = re.compile(r"(?i)(bearer\s+)\S+")
TELLING = re.compile(r"(?i)password|passwd|secret|token|api_?key|access_?key|credential")
SHORTEST = 6
"""Characters of an environment variable's value below which it would blot out common words."""


def redact(text: str) -> str:
    """The text without the secrets of its URIs and of this process's environment."""
    for name, value in os.environ.items():
        if TELLING.search(name) and len(value) >= SHORTEST:
            text = text.replace(value, HIDDEN)
    text = USER_INFO.sub(HIDDEN, text)
    text = BEARER.sub(rf"\1{HIDDEN}", text)
    return PARAMETER.sub(rf"\1{HIDDEN}", text)
