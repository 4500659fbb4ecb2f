# SPDX-License-Identifier: GPL-3.0-or-later
"""A real PostgreSQL 17 for the unit tests: `database` is a fresh directory, migrated, of a test's own.

The server is the control node's own /usr/lib/postgresql/17 if it has one, else the one in the lab's image `postgresql`,
run inside that tree without touching it. If there is neither, tests that need it fail and say what to type.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import re
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
CONFIGURATION = ROOT / "roles/directory/templates/etc/postgresql/17/main/conf.d/bouwsteen.conf.j2"
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
    # What is logged is as on a machine: a test looks for secrets in the log.
    **dict(re.findall(r"^(log_\w+) = (\S+)$", CONFIGURATION.read_text(encoding="utf-8"), re.MULTILINE)),
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


class Accounts:
    """Makes accounts in a directory, the way the modules do: as directory_admin, each statement on its own."""

    def __init__(self, database: Database) -> None:
        self.connection = database.admin()
        self.connection.autocommit = True

    def execute(self, query: str, values: Values = None) -> list[Any]:
        """One statement; its rows, or none. Raises psycopg2's errors."""
        with self.connection.cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall() if cursor.description else []

    def refusal(self, query: str, values: Values = None) -> directory.DirectoryError:
        """One statement that must be refused; why."""
        try:
            self.execute(query, values)
        except psycopg2.Error as error:
            return directory.explain(error)
        pytest.fail(f"not refused: {query}", pytrace=False)

    def insert(self, table: str, **columns: Any) -> Any:
        """One row; returns the column after reseller_id of its key."""
        names, places = ", ".join(columns), ", ".join(f"%({name})s" for name in columns)
        query = f"INSERT INTO directory.{table} ({names}) VALUES ({places}) RETURNING *"
        with self.connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(query, columns)
            row = cursor.fetchone()
        return row.get(f"{table.removesuffix('s')}_id")

    def reseller(self, name: str = "noorderict", **columns: Any) -> str:
        values = {"title": name.title(), "engineer": f"beheer@{name}.example", "domain": f"{name}.example", **columns}
        return self.insert("resellers", name=name, **values)

    def customer(self, reseller: str, name: str = "bakkerij", **columns: Any) -> str:
        return self.insert("customers", reseller_id=reseller, name=name, **{"title": name.title(), **columns})

    def domain(self, reseller: str, customer: str, name: str = "degraaf.example", **columns: Any) -> str:
        return self.insert("domains", reseller_id=reseller, customer_id=customer, name=name, **columns)

    def user(self, reseller: str, customer: str, login: str, **columns: Any) -> str:
        values = {"name": login.split("@", maxsplit=1)[0].title(), "mail": True, **columns}
        return self.insert("users", reseller_id=reseller, customer_id=customer, login=login, **values)

    def users(
        self, reseller: str, customer: str, count: int, domain: str = "degraaf.example", prefix: str = "u"
    ) -> None:
        """Many in one statement: u1, u2, ..."""
        self.execute(
            "INSERT INTO directory.users (reseller_id, customer_id, login, name, mail)"
            " SELECT %s, %s, %s || i || '@' || %s, 'Person ' || i, true FROM generate_series(1, %s) AS i",
            (reseller, customer, prefix, domain, count),
        )

    def alias(self, reseller: str, customer: str, user: str, address: str, kind: str = "alias") -> None:
        self.insert("addresses", reseller_id=reseller, customer_id=customer, user_id=user, address=address, kind=kind)

    def forward(self, reseller: str, customer: str, user: str, target: str) -> None:
        self.insert("forwards", reseller_id=reseller, customer_id=customer, user_id=user, target=target)

    def group(self, reseller: str, customer: str, address: str, members: Sequence[str], kind: str = "list") -> str:
        group = self.insert(
            "groups", reseller_id=reseller, customer_id=customer, name=address.split("@", maxsplit=1)[0], mail_kind=kind
        )
        self.insert(
            "addresses", reseller_id=reseller, customer_id=customer, group_id=group, address=address, kind="group"
        )
        for member in members:
            self.insert("group_members", reseller_id=reseller, customer_id=customer, group_id=group, user_id=member)
        return group

    def resource(self, reseller: str, customer: str, address: str) -> str:
        resource = self.insert(
            "resources", reseller_id=reseller, customer_id=customer, name=address.split("@", maxsplit=1)[0]
        )
        self.insert(
            "addresses",
            reseller_id=reseller,
            customer_id=customer,
            resource_id=resource,
            address=address,
            kind="resource",
        )
        return resource

    def limit(
        self,
        reseller: str,
        name: str,
        maximum: Any,
        *,
        customer: str | None = None,
        user: str | None = None,
        **columns: Any,
    ) -> None:
        if name.endswith("_storage") and user is None:
            columns.setdefault("basis", "used")
        self.insert(
            "limits", reseller_id=reseller, owner_id=user or customer or reseller, customer_id=customer, user_id=user,
            name=name, max=maximum, **columns,
        )  # fmt: skip

    def use(self, login: str, size: int) -> None:
        """What the mail service reports of a mailbox."""
        self.execute(
            "INSERT INTO directory.mail_usage (reseller_id, owner_id, customer_id, user_id, bytes)"
            " SELECT reseller_id, user_id, customer_id, user_id, %s FROM directory.users WHERE login = %s"
            " ON CONFLICT (reseller_id, owner_id) DO UPDATE SET bytes = excluded.bytes",
            (size, login),
        )


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


@contextlib.contextmanager
def copied(server: Server, template: str) -> Iterator[Database]:
    """A copy of a database for the time being."""
    name = f"directory_{next(_numbers)}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    # Privileges of a database itself are not copied with it.
    server.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    roles = "postfix, dovecot, _rspamd, sogo, portal, verify, directory_admin"
    server.execute(f"GRANT CONNECT ON DATABASE {name} TO {roles}")
    server.execute(f"GRANT TEMPORARY ON DATABASE {name} TO directory_admin")
    result = Database(server, name, [])
    try:
        yield result
    finally:
        for connection in result.opened:
            connection.close()
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


# Emptying is twenty times cheaper than copying. Rows go without triggers, so neither audit nor claims stand in the way.
_EMPTY = """
DO $$
DECLARE
    t regclass;
    found boolean;
BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid();
    SET LOCAL lock_timeout = '10s';
    SET LOCAL session_replication_role = replica;
    FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r'
             AND relnamespace::regnamespace::text IN ('directory', 'mail', 'groupware')
             AND relname NOT IN ('limit_names', 'migrations')
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', t) INTO found;
        IF found THEN
            EXECUTE format('DELETE FROM %s', t);
        END IF;
    END LOOP;
    ALTER SEQUENCE directory.unix_ids RESTART;
END $$
"""


@pytest.fixture(scope="session")
def _reused(postgresql: Server, template: str) -> Iterator[Database]:
    with copied(postgresql, template) as result:
        yield result


@pytest.fixture
def database(_reused: Database) -> Iterator[Database]:
    """An empty directory. A test that changes its schema or settings takes `fresh_database`."""
    _reused.rows(_EMPTY)
    result = Database(_reused.server, _reused.name, [])
    yield result
    for connection in result.opened:
        connection.close()


@pytest.fixture
def fresh_database(postgresql: Server, template: str) -> Iterator[Database]:
    """A directory that is this test's alone."""
    with copied(postgresql, template) as result:
        yield result


@pytest.fixture(scope="module")
def module_database(postgresql: Server, template: str) -> Iterator[Database]:
    """A directory for the tests of one file that change nothing in it."""
    with copied(postgresql, template) as result:
        yield result


@pytest.fixture
def accounts(database: Database) -> Accounts:
    """To fill `database` with."""
    return Accounts(database)


@pytest.fixture
def fresh_accounts(fresh_database: Database) -> Accounts:
    """To fill `fresh_database` with."""
    return Accounts(fresh_database)


@pytest.fixture(scope="module")
def module_accounts(module_database: Database) -> Accounts:
    """To fill `module_database` with, once."""
    return Accounts(module_database)


class PortalSite:
    """The portal on a real directory: two resellers, a customer and a person each, as the web gateway asks for them."""

    LOGIN, OTHER = "jan@degraaf.example", "kees@smid.example"

    def __init__(self, database: Database, accounts: Accounts, certificates: Path) -> None:
        from portal.application import create
        from portal.settings import Settings

        self.accounts, self.certificates = accounts, certificates
        for reseller, title, customer, domain, login in (
            ("noorderict", "Noorder <ICT> & Zn", "bakkerij", "degraaf.example", self.LOGIN),
            ("zuidwest", "Zuidwest", "smederij", "smid.example", self.OTHER),
        ):
            owner = accounts.reseller(reseller, title=title)
            bakery = accounts.customer(owner, customer)
            accounts.domain(owner, bakery, domain)
            accounts.user(owner, bakery, login, name="Jan <script>alert(1)</script>", language="nl")
        self.settings: dict[str, Any] = {
            "directory": {"host": database.server.host, "dbname": database.name, "user": "portal"},
            "certificates": str(certificates),
            "support": {"noorderict": "help@noorderict.example"},
        }
        self.database, self._create, self._settings = database, create, Settings
        self.client = self.make()

    def make(self, **settings: Any) -> Any:
        """A client of the portal with other settings."""
        return self._create(self._settings(**{**self.settings, **settings})).test_client()

    def open(self, path: str, reseller: str = "noorderict", method: str = "GET", **more: Any) -> Any:
        """An answer, as the gateway gets it for a site of a reseller."""
        headers = {"X-Bouwsteen-Reseller": reseller, **more.pop("headers", {})}
        client = more.pop("client", self.client)
        return client.open(path, method=method, headers=headers, **more)

    def link(self, token: str, login: str = LOGIN, lives: str = "1 hour") -> str:
        """A one-time link; its token."""
        self.accounts.execute(
            "INSERT INTO directory.password_links (reseller_id, customer_id, user_id, digest, expires_at)"
            " SELECT reseller_id, customer_id, user_id, sha256(%s::bytea), now() + %s::interval"
            " FROM directory.users WHERE login = %s",
            (token, lives, login),
        )
        return token


@pytest.fixture
def portal_site(database: Database, accounts: Accounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PortalSite:
    """The portal of role `portal` as the machines have it."""
    monkeypatch.syspath_prepend(str(ROOT / "roles/portal/files"))
    return PortalSite(database, accounts, tmp_path)
