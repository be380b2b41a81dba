"""Redaction of secrets in everything that is printed, logged, tagged or reported."""

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
"""Name and value of a parameter such as ``?token=...``."""
BEARER = re.compile(r"(?i)(bearer\s+)\S+")
SECRET_NAME = re.compile(r"(?i)password|passwd|secret|token|api_?key|access_?key|credential")
SHORTEST = 6
"""Characters: replacing shorter values of environment variables would garble common words."""


def redact(text: str) -> str:
    """The text without secrets of its URIs and of this process's environment variables."""
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= SHORTEST:
            text = text.replace(value, HIDDEN)
    text = USER_INFO.sub(HIDDEN, text)
    text = BEARER.sub(rf"\1{HIDDEN}", text)
    return PARAMETER.sub(rf"\1{HIDDEN}", text)
