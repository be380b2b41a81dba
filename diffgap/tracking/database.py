"""MLflow's SQLite database: made whole or not at all, by one process of those that start at once.

MLflow makes its tables in some fifty migrations, each in the file at once. A process that ends amid
them leaves a file that no later one can open, and two processes that begin together undo each
other. So the tables are made under a temporary name, which is then renamed.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote

from diffgap.io.atomic import new_file
from diffgap.io.locks import only_maker
from diffgap.tracking.names import ARTIFACTS

MADE_WHOLE = 1
"""``PRAGMA user_version`` of a database that was made here; MLflow leaves it at 0."""

SEEDED = ("alembic_version", "workspaces")
"""Tables that have rows from the start."""

LOCKED_S = 20.0  # how long another process may have it locked, as MLflow itself waits
SIDE_FILES = ("-journal", "-wal", "-shm")


def sqlite_file(uri: str) -> Path | None:
    """The file of a tracking URI; None for a server, a database in memory, or an odd path."""
    path = uri.removeprefix("sqlite:///")
    if path == uri or not path or path.startswith((":memory:", "file:")) or not is_plain(path):
        return None
    return Path(path)


def is_plain(path: str) -> bool:
    """Whether a path stands for itself in a URI of SQLAlchemy, whichever version reads it."""
    return "?" not in path and unquote(path) == path


def ensure_database(path: Path) -> None:
    """Makes an MLflow database unless there is one; one left half-made, without runs, is replaced.

    Raises:
        sqlite3.Error: where the file is no database, is damaged, or is locked for too long.
        OSError: where none can be made.
    """
    if _is_whole(path):
        return
    with only_maker(path):
        if not _is_whole(path):  # another process may have made it meanwhile
            _make(path)


def _make(path: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for leftover in path.parent.glob(f".{path.stem}.????????{path.suffix}*"):
        leftover.unlink(missing_ok=True)  # of a process that was killed here
    artifacts = (path.parent / ARTIFACTS).absolute().as_uri()
    with new_file(path) as temporary:
        SqlAlchemyStore(f"sqlite:///{temporary.absolute()}", artifacts).engine.dispose()
        with opened(temporary) as database:
            database.execute(f"PRAGMA user_version = {MADE_WHOLE}")
        for suffix in SIDE_FILES:  # SQLite would apply those of a half-made one to the new one
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    """Whether MLflow may open the file: it was made here, or holds something, so was made once."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not path.is_file():
        return False
    with opened(path) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        return version == MADE_WHOLE or _holds_something(database)


def _holds_something(database: sqlite3.Connection) -> bool:
    rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in rows:
        if table in SEEDED:
            continue
        # The experiment that MLflow itself makes has the id 0.
        others = " WHERE experiment_id != 0" if table == "experiments" else ""
        if database.execute(f'SELECT 1 FROM "{table}"{others} LIMIT 1').fetchone():
            return True
    return False


def relocate(path: Path, artifact_uris: Iterable[tuple[str, str]]) -> None:
    """Sets the places of runs' artifacts, pairs of run id and URI, which MLflow cannot change."""
    rows = [(uri, run_id) for run_id, uri in artifact_uris]
    if rows:
        with opened(path) as database:
            database.executemany("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", rows)


def artifact_uris(path: Path) -> list[tuple[str, str]]:
    """Run id and artifact URI of every run in a database."""
    with opened(path) as database:
        return database.execute("SELECT run_uuid, artifact_uri FROM runs").fetchall()


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A database that exists, for the block, which is one transaction."""
    address = f"{path.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(address, timeout=LOCKED_S, uri=True)) as database, database:
        yield database
