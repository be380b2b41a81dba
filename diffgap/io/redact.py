"""Redaction of secrets in everything that is printed, logged, tagged or reported.

A net, not a proof: it knows the values of this process's secret environment variables, and secrets
by the names and shapes that clouds, databases and hubs give them.
"""

from __future__ import annotations

import base64
import binascii
import os
import re

HIDDEN = "***"
SHORTEST = 6
"""Characters: replacing shorter values of environment variables would garble common words."""

# Plurals and other long forms (tokens, tokenizer) count things; a bare `key` may be any key.
_WORDS = (
    "passwords?|passwd|passphrase|secrets?|credentials?|token(?!s|i[sz])"
    "|(?:api|access|account|private|secret|shared|signing|encryption)[_-]?key"
)
_ENDINGS = "pass|pwd|pat|key"
# Without what comes before it: a search for that would take a time quadratic in a long text.
NAME = rf"(?:(?:{_WORDS})(?:[_-][\w-]{{0,40}})?|[_-](?:{_ENDINGS})|\bpwd)"
"""End of a name that says it holds a secret: of AWS_SECRET_ACCESS_KEY, AccountKey or db-pass."""

SECRET_VARIABLE = re.compile(rf"(?i)[A-Z0-9_]*(?:{_WORDS})[A-Z0-9_]*|[A-Z0-9_]+_(?:{_ENDINGS})")
PLACE_VARIABLE = re.compile(r"(?i).*_(?:PATH|FILE|DIR|URL)")
"""Variables that say where a secret lies."""

USER_INFO = re.compile(
    # The second is for a password with a slash, which `HOST:PORT/...@...` is not.
    r"""(?<=://)(?:[^/\s'"]+|[^/\s@'":]+:(?!\d+/)[^\s@'"]+)(?=@)"""
)
"""``user:password`` of a URI."""

PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # ?token=abc, AccountKey=abc; password='abc def'
        rf"""({NAME}=)(?:'[^']+'|"[^"\\]+"|[^&\s'",;\\]+)""",
        r"""((?:[?&]|x-(?:amz|goog)-)(?:signature|sig)=)[^&\s'",;\\]+""",
        # "token": "abc", 'token': 'abc', and JSON within JSON
        rf"""({NAME}(?P<quote>\\*["'])\s*:\s*(?P=quote)).{{0,5000}}?(?=(?P=quote))""",
        # password = abc, of .ini files; `token = page.token` and `secret = ask()` are code
        rf"""({NAME}\s+=\s*["']?)(?![A-Za-z_.]+[.(\[])[^\s'",;\\]{{4,}}""",
        # x-api-key: abc1 and password: hunter2; a digit tells it from `HF_TOKEN: expired`
        rf"""({NAME}:\s*["']?)(?=[^\s'",;\\]*\d)[^\s'",;\\]{{6,}}""",
        r"""(\bauthorization\\?["']?\s*[:=]\s*\\?["']?(?:[a-z]+\s+)?)[^\s'",;\\]+""",
        r"""(\bbearer\s+)[^\s'",;\\]+""",
        # Published shapes: of hubs, clouds and JSON web tokens
        r"()\b(?:hf_|gh[oprsu]_)[a-z0-9]{30,}",
        r"()\b(?:github_pat_|glpat-|xox[abp]-|sk-)[\w-]{20,}",
        r"()\b(?-i:AKIA|ASIA)[A-Z0-9]{16}\b",
        r"()\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
    )
)
"""What is kept of a match is its first group."""

BASIC = re.compile(r"(?i)(\bbasic\s+)([A-Za-z0-9+/]{6,}={0,2})")


def redact(text: str) -> str:
    """The text without secrets of its URIs and of this process's environment variables."""
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and is_secret_name(name):
            text = text.replace(value, HIDDEN)
    text = USER_INFO.sub(HIDDEN, text)
    for pattern in PATTERNS:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return BASIC.sub(_without_login, text)


def is_secret_name(variable: str) -> bool:
    """Whether an environment variable's name says that its value is a secret."""
    is_secret = SECRET_VARIABLE.fullmatch(variable) and not PLACE_VARIABLE.fullmatch(variable)
    # The shell's working directories, which end in _PWD or as good as.
    return bool(is_secret) and variable not in ("PWD", "OLDPWD")


def _without_login(match: re.Match[str]) -> str:
    """Basic authentication without its ``user:password``; the word before other words stays."""
    try:
        is_login = b":" in base64.b64decode(match[2], validate=True)
    except binascii.Error:
        is_login = False
    return match[1] + HIDDEN if is_login else match[0]
