"""One SQLite file: names, images, layers, builds, and what is known of registries. Opened when first asked."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlbox.errors import StoreError
from mlbox.files import disk_errors, locked

if TYPE_CHECKING:
    import sqlite3

SCHEMA = 3
_TABLES = (
    "CREATE TABLE images (digest TEXT PRIMARY KEY, created REAL NOT NULL, size INTEGER NOT NULL,"
    " layers INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE names (reference TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID",
    "CREATE INDEX names_by_digest ON names (digest)",
    "CREATE TABLE layers (key TEXT PRIMARY KEY, diff_id TEXT NOT NULL, size INTEGER NOT NULL,"
    " name TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE builds (key TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID",
)
_SECOND = (
    "CREATE TABLE blobs (digest TEXT PRIMARY KEY, diff_id TEXT NOT NULL, media_type TEXT NOT NULL,"
    " size INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX blobs_by_diff_id ON blobs (diff_id)",
    "CREATE TABLE remotes (digest TEXT NOT NULL, repository TEXT NOT NULL, image TEXT NOT NULL,"
    " PRIMARY KEY (digest, repository)) WITHOUT ROWID",
    "CREATE INDEX remotes_by_image ON remotes (image)",
    "CREATE TABLE referrers (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, subject TEXT NOT NULL,"
    " artifact_type TEXT NOT NULL)",
    "CREATE INDEX referrers_by_subject ON referrers (subject)",
)
_THIRD = ("ALTER TABLE remotes ADD COLUMN claimed INTEGER NOT NULL DEFAULT 0",)
_STEPS = (_TABLES, _SECOND, _THIRD)
"""What makes schema 1 from nothing, schema 2 from schema 1, and so on."""
_WAIT = 30.0
"""Seconds to wait for another process's transaction; ours take milliseconds."""

Row = tuple[Any, ...]
Execute = Callable[..., Any]


class NewerStoreError(StoreError):
    """The store was written by an mlbox that knows more than this one."""


class Database:
    """The file at `path`. Usable from several threads and several processes at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()

    def rows(self, sql: str, *values: object) -> list[Row]:
        """Return all rows of one query."""
        with self._lock, self._errors():
            return self._open().execute(sql, values).fetchall()

    def row(self, sql: str, *values: object) -> Row | None:
        """Return the first row of one query, None when there is none."""
        return next(iter(self.rows(sql, *values)), None)

    @contextmanager
    def write(self) -> Iterator[Execute]:
        """Yield `execute` inside one transaction: all of it happens, or nothing."""
        with self._lock, self._errors():
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection.execute
            except BaseException:
                if connection.in_transaction:  # a full disk has already rolled back
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def problems(self) -> list[str]:
        """Return what SQLite finds wrong with its own file."""
        return [text for (text,) in self.rows("PRAGMA integrity_check(20)") if text != "ok"]

    def set_aside(self) -> None:
        """Rename a damaged file out of the way; the next use begins with an empty one."""
        self.close()
        for ending in ("", "-wal", "-shm"):
            path = self.path.with_name(self.path.name + ending)
            if path.exists():
                path.replace(self.path.with_name(f"damaged-{self.path.name}{ending}"))

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> "sqlite3.Connection":
        if self._connection is None:
            import sqlite3  # 5 ms that many commands do not need

            with disk_errors(f"opening {self.path}"):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                connection = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
                try:
                    self._prepare(connection)
                except BaseException:
                    connection.close()
                    raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: "sqlite3.Connection") -> None:
        # In WAL mode readers never wait; NORMAL survives every crash of a process, and of the machine but for
        # the last transactions (sqlite.org/pragma.html#pragma_synchronous).
        connection.execute("PRAGMA synchronous=NORMAL")
        if _version(connection) < SCHEMA:
            with locked(self.path.with_name(self.path.name + ".lock")):
                _migrate(connection)
        version = _version(connection)
        if version > SCHEMA:
            raise NewerStoreError(
                f"{self.path} was written by a newer mlbox (schema {version}, this one knows {SCHEMA})",
                hint="upgrade mlbox, or use another store with MLBOX_HOME",
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import sqlite3

        try:
            yield
        except sqlite3.Error as problem:
            raise self._store_error(str(problem)) from problem

    def _store_error(self, text: str) -> StoreError:
        if "full" in text:
            hint = "free some space on the disk, then run the same command again"
        elif "readonly" in text or "unable to open" in text:
            hint = "mlbox needs a store it may write: run as root, or set MLBOX_HOME"
        else:
            hint = "'mlbox fsck' says what is damaged"
        return StoreError(f"{self.path}: {text}", hint=hint)


def _version(connection: "sqlite3.Connection") -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _migrate(connection: "sqlite3.Connection") -> None:
    """Bring the file to the newest schema: from nothing, or from that of an older mlbox."""
    connection.execute("PRAGMA journal_mode=WAL")
    for version in range(_version(connection), SCHEMA):
        connection.execute("BEGIN IMMEDIATE")
        for statement in _STEPS[version]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={version + 1}")
        connection.execute("COMMIT")
