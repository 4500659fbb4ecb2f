# SPDX-License-Identifier: GPL-3.0-or-later
"""Versioned forward migrations of a PostgreSQL database.

A migration is a file `NNNN_name.sql`, numbered from 0001 without gaps, that never changes once it has been applied
somewhere. Each is applied in a transaction of its own together with its row in `directory.migrations` (version, name,
SHA-256, when), so a run that is killed leaves whole migrations only.

Two runs at once: every transaction takes the same advisory lock first and looks then what is still to do.

Under load: DDL waits for the locks of running statements, and everybody else queues behind it. So it waits for
`lock_timeout` only, gives way, and tries again.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory

try:
    import psycopg2
except ImportError:  # on a machine before its packages are installed
    psycopg2 = None

NAME = re.compile(r"^(?P<version>[0-9]{4})_[a-z0-9][a-z0-9_]*\.sql$")
# Any number that nothing else uses as an advisory lock: "bouwsteen" in ASCII, shortened to 63 bits.
LOCK = int.from_bytes(b"bouwstee", "big")

_RECORDS = """
CREATE SCHEMA IF NOT EXISTS directory;
CREATE TABLE IF NOT EXISTS directory.migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""


class MigrationError(Exception):
    """The migrations cannot be applied: the text names the file and what to do."""


@dataclass(frozen=True)
class Migration:
    """One file. `version` from its number, `checksum` the SHA-256 of its bytes in hexadecimal."""

    version: int
    name: str
    checksum: str
    sql: str


@dataclass(frozen=True)
class Applied:
    """One row of `directory.migrations`."""

    version: int
    name: str
    checksum: str


def number(name: str) -> int:
    """The version in a file's name. Raises `MigrationError`."""
    match = NAME.match(name)
    if not match:
        raise MigrationError(f"{name}: not a migration; allowed: NNNN_name.sql with name of a-z, 0-9 and _")
    return int(match["version"])


def in_order(names: Sequence[str]) -> list[str]:
    """File names by version. Raises `MigrationError` for wrong names, doubles and gaps."""
    numbered = sorted((number(name), name) for name in names)
    for position, (version, name) in enumerate(numbered, start=1):
        if version != position:
            problem = "has the number of another migration" if version < position else "comes after a gap"
            raise MigrationError(f"{name}: {problem}; wanted: {position:04d}")
    return [name for _version, name in numbered]


def read(path: Path) -> list[Migration]:
    """All migrations of a directory, in order. Raises `MigrationError`."""
    try:
        names = in_order([entry.name for entry in path.iterdir() if entry.suffix == ".sql"])
        files = [(name, (path / name).read_bytes()) for name in names]
    except OSError as error:
        raise MigrationError(f"{error.filename}: cannot be read ({error.strerror})") from error
    return [
        Migration(number(name), name, hashlib.sha256(content).hexdigest(), content.decode("utf-8"))
        for name, content in files
    ]


def pending(migrations: Sequence[Migration], applied: Sequence[Applied]) -> list[Migration]:
    """What is still to be applied. Raises `MigrationError` if the database is not an earlier state of these files."""
    pending_names([migration.name for migration in migrations], applied)
    by_version = {migration.version: migration for migration in migrations}
    for row in sorted(applied, key=lambda row: row.version):
        migration = by_version[row.version]
        if migration.checksum != row.checksum:
            raise MigrationError(
                f"{migration.name}: changed after it was applied as {row.name} "
                f"(was {row.checksum[:12]}, is {migration.checksum[:12]}); restore the file and add a new migration"
            )
    done = {row.version for row in applied}
    return [migration for migration in migrations if migration.version not in done]


def pending_names(names: Sequence[str], applied: Sequence[Applied]) -> list[str]:
    """The same from the names alone, when the files are not at hand. Raises `MigrationError`."""
    ordered = in_order(names)
    for row in sorted(applied, key=lambda row: row.version):
        if row.version > len(ordered):
            raise MigrationError(
                f"the database has migration {row.name}, which this version of the collection does not know; "
                "use the version that applied it, or a newer one"
            )
    done = {row.version for row in applied}
    return [name for name in ordered if number(name) not in done]


def applied(cursor: Any) -> list[Applied]:
    """What the database says was applied; nothing for an empty database."""
    cursor.execute("SELECT to_regclass('directory.migrations') IS NOT NULL")
    if not cursor.fetchone()[0]:
        return []
    cursor.execute("SELECT version, name, checksum FROM directory.migrations ORDER BY version")
    return [Applied(*row) for row in cursor.fetchall()]


def apply(
    connection: Any,
    migrations: Sequence[Migration],
    *,
    lock_timeout: float = 5,
    attempts: int = 24,
    report: Callable[[str], None] = lambda _line: None,
) -> list[str]:
    """Apply what is pending; returns the names. `lock_timeout` in seconds, per attempt. Raises `MigrationError`."""
    names: list[str] = []
    attempt = 1
    while True:
        try:
            name = _apply_next(connection, migrations, lock_timeout)
        except psycopg2.Error as error:
            connection.rollback()
            refused = directory.explain(error)
            if not refused.temporary or attempt >= attempts:
                where = getattr(error, "migration", "") or "migrations"
                tried = f" ({attempt} attempts of {lock_timeout:g} s)" if refused.temporary else ""
                raise MigrationError(f"{where}: {refused.message}{_line(error)}{tried}") from error
            report(f"attempt {attempt}: {refused.message}")
            # Give way: whoever queued behind the lock runs first.
            time.sleep(min(0.2 * attempt, 2))
            attempt += 1
            continue
        if name is None:
            return names
        names.append(name)
        attempt = 1


def _apply_next(connection: Any, migrations: Sequence[Migration], lock_timeout: float) -> str | None:
    """One transaction: lock, look, apply the first that is pending. None when there is none."""
    with connection.cursor() as cursor:
        # Without a limit: the other run gives way after each migration.
        cursor.execute("SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        rest = pending(migrations, applied(cursor))
        if not rest:
            connection.rollback()
            return None
        first = rest[0]
        try:
            cursor.execute(
                "SET LOCAL lock_timeout = %s; SET LOCAL statement_timeout = 0; SET LOCAL search_path = pg_catalog",
                (f"{int(lock_timeout * 1000)}ms",),
            )
            cursor.execute(_RECORDS)
            cursor.execute(first.sql)
            # A migration may have set its own role and settings; the record is ours.
            cursor.execute("RESET ROLE")
            cursor.execute(
                "INSERT INTO directory.migrations (version, name, checksum) VALUES (%s, %s, %s)",
                (first.version, first.name, first.checksum),
            )
            connection.commit()
        except psycopg2.Error as error:
            error.migration = first.name
            raise
    return first.name


def _line(error: Any) -> str:
    """Where in the file the server found the error, when it says so."""
    position = getattr(getattr(error, "diag", None), "statement_position", None)
    query = getattr(getattr(error, "cursor", None), "query", None)
    if not position or not query:
        return ""
    return f" at line {query[: int(position)].count(b'\n') + 1}"


def database_exists(connection: Any, name: str) -> bool:
    """Whether the server has this database; `connection` is to any other of its databases."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        return cursor.fetchone() is not None


def create_database(connection: Any, name: str) -> None:
    """Create a database whose order of text does not depend on the operating system's C library.

    A new libc that sorts differently would break indexes silently; the server's own C.UTF-8 does not change with it.
    """
    if not re.match(r"^[a-z][a-z0-9_]*$", name):
        raise MigrationError(f"{name}: not a name for a database; allowed: a-z, 0-9 and _")
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'"
                " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C.UTF-8'"
            )
    except psycopg2.errors.DuplicateDatabase:
        pass  # another run was faster
    finally:
        connection.autocommit = False
