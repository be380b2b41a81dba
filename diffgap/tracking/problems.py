"""Problems with a tracking store, in one line each: what is wrong, and what to do about it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeGuard, TypeVar

from diffgap.errors import UserError
from diffgap.io.places import REMEDIES, is_refused, place_problem
from diffgap.io.redact import redact

T = TypeVar("T")

# MLflow's codes of errors that no retry can cure.
FATAL = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")
DENIED = ("UNAUTHENTICATED", "PERMISSION_DENIED")

_KNOWN = (
    "set MLFLOW_TRACKING_URI to a server, such as http://mlflow.example.org:5000, or to a "
    "database, such as sqlite:////data/mlflow.db"
)
_NOT_KNOWN = f"is of a kind that MLflow does not know; {_KNOWN}"
_NEW_FILE = "move its file away, and the sweep command makes it anew from the finished trials"
_DAMAGED = "is damaged ({line}); " + _NEW_FILE
_OUTDATED = "is of another version of MLflow; back it up, then run: mlflow db upgrade {uri}"
_LOCKED_UP = "cannot be opened ({line}); check that its path is right and may be written to"
_NO_MLFLOW = "is no MLflow server ({line}); change MLFLOW_TRACKING_URI"
_NO_ACCESS = (
    "refuses access ({line}); check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
    "MLFLOW_TRACKING_TOKEN"
)
_AWAY = "does not answer: {line}; start it, or change MLFLOW_TRACKING_URI or --output"

PERMANENT = {
    "file is not a database": _DAMAGED,
    "malformed": _DAMAGED,
    "out-of-date database schema": _OUTDATED,
    "Can't locate revision": _OUTDATED,
    "filesystem tracking backend": f"is a directory, which MLflow no longer writes to; {_KNOWN}",
    "unsupported URI": _NOT_KNOWN,
    "Can't load plugin": _NOT_KNOWN,
    "Could not parse SQLAlchemy URL": _NOT_KNOWN,
}
"""What is wrong, by words of the libraries below MLflow; no retry cures it."""

PASSING = {
    "unable to open database file": _LOCKED_UP,
    "readonly database": _LOCKED_UP,
    "ENDPOINT_NOT_FOUND": _NO_MLFLOW,
    "not in a valid JSON format": _NO_MLFLOW,
    **dict.fromkeys(DENIED, _NO_ACCESS),
}
"""The same of what a retry may cure."""

ROOM = (errno.ENOSPC, errno.EDQUOT)

DRIVERS = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
}
"""Packages of database drivers that are not named like their module."""


def is_transient(error: BaseException) -> bool:
    """Whether a request that failed so is worth a retry: a server is away, a database locked."""
    if isinstance(error, LookupError | TypeError | AttributeError | AssertionError):
        return False
    if isinstance(error, UserError | ImportError) or _is_misplaced(error):
        return False
    is_permanent = any(words in str(error) for words in PERMANENT)
    return not is_permanent and getattr(error, "error_code", None) not in FATAL


def ask(request: Callable[[], T], uri: str) -> T:
    """The answer of the tracking store at a URI; UserError of one line where there is none."""
    try:
        return request()
    except Exception as error:
        if isinstance(error, UserError) or not _is_the_stores(error):
            raise
        raise UserError(problem(error, uri)) from None


def problem(error: BaseException, uri: str) -> str:
    """What is wrong with the tracking store at a URI, and the remedy, without secrets."""
    where = redact(uri)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = f"{getattr(error, 'error_code', '')} {error}"
    if isinstance(error, ImportError):
        return f"MLflow at {where} {_missing_driver(error)}"
    if _is_misplaced(error):
        return f"MLflow at {where} cannot be used: {place_problem(error)}"
    for words, remedy in (PERMANENT | PASSING).items():
        if words in text:
            return f"MLflow at {where} {remedy.format(line=redact(lines[0]), uri=where)}"
    return f"MLflow at {where} {_AWAY.format(line=redact(lines[0]))}"


def _is_misplaced(error: BaseException) -> TypeGuard[OSError]:
    """Whether a file's place cannot be used; a full disk can, once there is room."""
    return (
        isinstance(error, OSError) and is_refused(error) and error.errno in REMEDIES.keys() - ROOM
    )


def _missing_driver(error: ImportError) -> str:
    module = (error.name or "").split(".")[0]
    if not isinstance(error, ModuleNotFoundError):  # the module is there, and a part of it is not
        return f"needs a driver that cannot be imported ({error}); install it anew"
    package = DRIVERS.get(module, module)
    return f"needs the package {package}, which is not installed; run: pip install '{package}'"


def _is_the_stores(error: Exception) -> bool:
    """Whether an error is of a library or of the system, and not of the code that asks."""
    if isinstance(error, ImportError | OSError):
        return True
    return type(error).__module__.partition(".")[0] not in ("builtins", __name__.partition(".")[0])
