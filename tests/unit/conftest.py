# SPDX-License-Identifier: GPL-3.0-or-later
"""A real PostgreSQL 17 for the unit tests: `database` is a fresh directory, migrated, of a test's own.

The server is the control node's own /usr/lib/postgresql/17 if it has one, else the one in the lab's image `postgresql`,
run inside that tree without touching it. If there is neither, tests that need it fail and say what to type.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory, migrations

ROOT = Path(__file__).resolve().parents[2]
MIGRATIONS = ROOT / "roles/directory/files/migrations"
INSTALLED = Path("/usr/lib/postgresql/17/bin")
IMAGE = Path(os.environ.get("BOUWSTEEN_POSTGRESQL", "/var/lib/bouwsteen-lab/images/postgresql/current"))
MISSING = """PostgreSQL 17 is neither in /usr/lib/postgresql/17 nor in the lab's images. As root, type:
  ansible-playbook playbooks/lab.yml \\
    -e '{"lab_machines": [], "lab_images": [{"name": "postgresql", "packages": ["postgresql"], "bootable": false}]}'"""
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "fsync": "off",
    "full_page_writes": "off",
    "jit": "off",
    "log_min_messages": "warning",
    "log_statement": "none",
}


type Values = Sequence[Any] | Mapping[str, Any] | None


@dataclass(frozen=True)
class Server:
    """A running server: connect through the socket in `host`; everybody may log in as anybody."""

    host: str
    log: Path

    def connect(self, database: str, user: str = "postgres") -> Any:
        return psycopg2.connect(host=self.host, dbname=database, user=user)

    def execute(self, statement: str, database: str = "postgres") -> None:
        """One statement outside of a transaction."""
        connection = self.connect(database)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()


@dataclass
class Database:
    """A directory of a test's own. Connections that it gives out are closed with it."""

    server: Server
    name: str
    opened: list[Any]

    def connect(self, user: str = "postgres") -> Any:
        """A plain connection, autocommit off."""
        connection = self.server.connect(self.name, user)
        self.opened.append(connection)
        return connection

    def admin(self, actor: str = "test") -> Any:
        """A connection as the modules have it."""
        connection = directory.connect(actor=actor, database=self.name, host=self.server.host)
        self.opened.append(connection)
        return connection

    def rows(
        self, query: str, values: Sequence[Any] | Mapping[str, Any] | None = None, user: str = "postgres"
    ) -> list[Any]:
        """Run one query on a connection of its own, commit, and return its rows (none if it gives none)."""
        connection = self.server.connect(self.name, user)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(query, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def value(self, query: str, values: Values = None, user: str = "postgres") -> Any:
        """The first column of the first row."""
        return self.rows(query, values, user)[0][0]


def _command(home: Path) -> tuple[list[str], str, str]:
    """How to run a program of PostgreSQL: words before it, its directory, and `home` as it sees it."""
    if (INSTALLED / "postgres").exists():
        if os.geteuid() != 0:
            return [], str(INSTALLED), str(home)
        user = pwd.getpwnam("postgres")
        os.chown(home, user.pw_uid, user.pw_gid)
        return [*_drop(user.pw_uid, user.pw_gid)], str(INSTALLED), str(home)
    tree = IMAGE.resolve()
    if not (tree / INSTALLED.relative_to("/") / "postgres").exists():
        pytest.fail(MISSING, pytrace=False)
    if os.geteuid() != 0:
        pytest.fail(f"PostgreSQL 17 is in {tree}, which only root can run it from", pytrace=False)
    line = next(line for line in (tree / "etc/passwd").read_text().splitlines() if line.startswith("postgres:"))
    uid, gid = (int(field) for field in line.split(":")[2:4])
    os.chown(home, uid, gid)
    # Mounts of this process alone: the tree stays as it is for everybody else.
    script = (
        'tree=$1 && mount --rbind /dev "$tree/dev" && mount --bind "$2" "$tree/srv" && shift 2'
        ' && exec chroot "$tree" "$@"'
    )
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(tree), str(home)]
    return [*words, *_drop(uid, gid)], str(INSTALLED), "/srv"


def _drop(uid: int, gid: int) -> list[str]:
    # Stops with the tests, however they end.
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--pdeathsig=INT"]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """The server of this test run."""
    home = Path(tempfile.mkdtemp(prefix="bouwsteen-postgresql-", dir="/var/tmp"))
    home.chmod(0o755)
    try:
        words, programs, inside = _command(home)
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        made = subprocess.run(
            [*words, f"{programs}/initdb", f"--pgdata={inside}/data", "--auth=trust", "--username=postgres",
             "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"],
            env=environment, capture_output=True, text=True, check=False, cwd="/",
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
        log = home / "log"
        settings = [f"--{name}={value}" for name, value in {**SETTINGS, "unix_socket_directories": inside}.items()]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*words, f"{programs}/postgres", "-D", f"{inside}/data", *settings],
                env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/",
            )  # fmt: skip
        try:
            directory.connect(actor="test", database="postgres", host=str(home), role=None, patience=30).close()
            yield Server(str(home), log)
        except directory.DirectoryError as error:
            pytest.fail(f"{error}\n{log.read_text()}", pytrace=False)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
    finally:
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def template(postgresql: Server) -> str:
    """Name of a database with all migrations, to copy."""
    server = postgresql.connect("postgres")
    migrations.create_database(server, "template_directory")
    server.close()
    connection = postgresql.connect("template_directory")
    migrations.apply(connection, migrations.read(MIGRATIONS))
    connection.close()
    return "template_directory"


_numbers = itertools.count(1)


@pytest.fixture
def database(postgresql: Server, template: str) -> Iterator[Database]:
    """A fresh directory."""
    name = f"directory_{next(_numbers)}"
    postgresql.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    # Privileges of a database itself are not copied with it.
    postgresql.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    postgresql.execute(f"GRANT CONNECT ON DATABASE {name} TO postfix, dovecot, _rspamd, verify, directory_admin")
    postgresql.execute(f"GRANT TEMPORARY ON DATABASE {name} TO directory_admin")
    result = Database(postgresql, name, [])
    yield result
    for connection in result.opened:
        connection.close()
    postgresql.execute(f"DROP DATABASE {name} WITH (FORCE)")
