# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrations: in order, once, whole, safe twice at once, under load and when killed; module directory_migration."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import migrations
from ansible_collections.bouwsteen.hosting.plugins.module_utils.migrations import Applied, Migration, MigrationError

ROOT = Path(__file__).resolve().parents[2]
OURS = ROOT / "roles/directory/files/migrations"
MODULE = ROOT / "plugins/modules/directory_migration.py"
_numbers = itertools.count(1)


@pytest.fixture
def empty(postgresql: Any) -> Iterator[str]:
    """Name of an empty database."""
    name = f"empty_{next(_numbers)}"
    postgresql.execute(f"CREATE DATABASE {name}")
    yield name
    postgresql.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def write(path: Path, **files: str) -> Path:
    """`_0001_one="SELECT 1"` becomes 0001_one.sql."""
    for name, text in files.items():
        (path / f"{name.removeprefix('_')}.sql").write_text(text)
    return path


def apply(postgresql: Any, database: str, path: Path, **options: Any) -> list[str]:
    connection = postgresql.connect(database)
    try:
        return migrations.apply(connection, migrations.read(path), **options)
    finally:
        connection.close()


def applied(postgresql: Any, database: str) -> list[str]:
    connection = postgresql.connect(database)
    try:
        with connection.cursor() as cursor:
            return [row.name for row in migrations.applied(cursor)]
    finally:
        connection.close()


# ------------------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1_x.sql"], "1_x.sql: not a migration; allowed: NNNN_name.sql with name of a-z, 0-9 and _"),
        (["0001_X.sql"], "0001_X.sql: not a migration; allowed: NNNN_name.sql with name of a-z, 0-9 and _"),
        (["0001_x.sql", "0003_x.sql"], "0003_x.sql: comes after a gap; wanted: 0002"),
        (["0002_x.sql"], "0002_x.sql: comes after a gap; wanted: 0001"),
        (["0001_x.sql", "0001_y.sql"], "0001_y.sql: has the number of another migration; wanted: 0002"),
    ],
)
def test_wrong_names(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(MigrationError) as refused:
        migrations.read(tmp_path)
    assert str(refused.value) == message


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MigrationError) as refused:
        migrations.read(tmp_path / "x")
    assert str(refused.value) == f"{tmp_path}/x: cannot be read (No such file or directory)"


def test_reading(tmp_path: Path) -> None:
    found = migrations.read(write(tmp_path, _0002_two="SELECT 2", _0001_one="SELECT 1"))
    assert [(item.version, item.name, item.sql) for item in found] == [
        (1, "0001_one.sql", "SELECT 1"), (2, "0002_two.sql", "SELECT 2"),
    ]  # fmt: skip
    assert len(found[0].checksum) == 64


ONE, TWO = Migration(1, "0001_one.sql", "a" * 64, ""), Migration(2, "0002_two.sql", "b" * 64, "")


def test_what_is_pending() -> None:
    assert migrations.pending([ONE, TWO], []) == [ONE, TWO]
    assert migrations.pending([ONE, TWO], [Applied(1, ONE.name, ONE.checksum)]) == [TWO]
    assert migrations.pending_names([TWO.name, ONE.name], [Applied(1, ONE.name, "")]) == [TWO.name]


def test_a_changed_file_is_named() -> None:
    with pytest.raises(MigrationError) as refused:
        migrations.pending([ONE, TWO], [Applied(1, "0001_one.sql", "c" * 64)])
    assert str(refused.value) == (
        "0001_one.sql: changed after it was applied as 0001_one.sql (was cccccccccccc, is aaaaaaaaaaaa);"
        " restore the file and add a new migration"
    )


def test_a_newer_database_is_named() -> None:
    message = (
        "the database has migration 0003_later.sql, which this version of the collection does not know;"
        " use the version that applied it, or a newer one"
    )
    later = [Applied(3, "0003_later.sql", "d" * 64)]
    for run in (lambda: migrations.pending([ONE, TWO], later), lambda: migrations.pending_names([ONE.name], later)):
        with pytest.raises(MigrationError) as refused:
            run()
        assert str(refused.value) == message


# --------------------------------------------------------------------------------------------------------- database


def test_twice_changes_nothing(postgresql: Any, empty: str) -> None:
    names = [item.name for item in migrations.read(OURS)]
    assert apply(postgresql, empty, OURS) == names
    assert apply(postgresql, empty, OURS) == []
    assert applied(postgresql, empty) == names


def test_an_error_names_file_and_line_and_leaves_the_ones_before(postgresql: Any, empty: str, tmp_path: Path) -> None:
    write(tmp_path, _0001_one="SELECT 1", _0002_two="CREATE TABLE public.two ();\n\nSELEKT 1;")
    with pytest.raises(MigrationError) as refused:
        apply(postgresql, empty, tmp_path)
    assert str(refused.value) == '0002_two.sql: syntax error at or near "SELEKT" at line 3'
    assert applied(postgresql, empty) == ["0001_one.sql"]
    connection = postgresql.connect(empty)
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.two') IS NULL")
        assert cursor.fetchone() == (True,)
    connection.close()


def test_a_changed_and_an_unknown_migration_are_refused(postgresql: Any, empty: str, tmp_path: Path) -> None:
    apply(postgresql, empty, write(tmp_path, _0001_one="SELECT 1", _0002_two="SELECT 2"))
    write(tmp_path, _0001_one="SELECT 1 -- other")
    with pytest.raises(MigrationError, match=r"^0001_one\.sql: changed after it was applied"):
        apply(postgresql, empty, tmp_path)
    write(tmp_path, _0001_one="SELECT 1")
    (tmp_path / "0002_two.sql").unlink()
    with pytest.raises(MigrationError, match=r"^the database has migration 0002_two\.sql"):
        apply(postgresql, empty, tmp_path)


def arguments(postgresql: Any, database: str, path: Path, **more: Any) -> dict[str, Any]:
    names = sorted(entry.name for entry in path.glob("*.sql"))
    return {"path": str(path), "names": names, "database": database, "login_host": postgresql.host, **more}


def module(options: dict[str, Any], *, check: bool = False) -> subprocess.Popen[str]:
    """The module as a process of its own, as on a machine."""
    wrapped = {"ANSIBLE_MODULE_ARGS": {**options, "_ansible_check_mode": check, "_ansible_diff": True}}
    runner = (
        "import sys, runpy; from ansible.module_utils.testing import patch_module_args\n"
        "import json; arguments = json.load(sys.stdin)['ANSIBLE_MODULE_ARGS']\n"
        f"with patch_module_args(arguments): runpy.run_path({str(MODULE)!r}, run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", runner], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".collections")},
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(wrapped))
    process.stdin.close()
    process.stdin = None
    return process


def outcome(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate(timeout=120)
    assert output, errors
    return json.loads(output)


def test_two_processes_at_once(postgresql: Any, empty: str) -> None:
    """Together they apply every migration once; neither fails."""
    options = arguments(postgresql, empty, OURS)
    results = [outcome(process) for process in [module(options) for _ in range(4)]]
    names = options["names"]
    assert [result.get("failed", False) for result in results] == [False] * 4
    assert sorted(itertools.chain.from_iterable(result["applied"] for result in results)) == names
    assert {result["version"] for result in results} == {len(names)}
    assert applied(postgresql, empty) == names


def test_killed_half_way_and_run_again(postgresql: Any, empty: str, tmp_path: Path) -> None:
    """At several moments: what is recorded is there, what is not recorded is not, and the next run completes it."""
    slow = "SELECT pg_sleep(0.1); CREATE TABLE directory.t{0} (a int); SELECT pg_sleep(0.1)"
    path = write(tmp_path, **{f"_{number:04d}_step": slow.format(number) for number in range(1, 8)})
    seen = []
    for wanted in (0, 1, 3, 5):
        process = module(arguments(postgresql, empty, path))
        while len(applied(postgresql, empty)) < wanted and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        connection = postgresql.connect(empty)
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'directory' AND tablename LIKE 't_'")
            tables = cursor.fetchone()[0]
        connection.close()
        seen.append(len(applied(postgresql, empty)))
        # A statement may run on after its client has gone, but its commit was never sent.
        assert tables == seen[-1]
    print(f"migrations found after the kills: {seen}")
    assert seen[0] < seen[-1] < 7
    result = outcome(module(arguments(postgresql, empty, path)))
    assert result.get("failed", False) is False, result
    assert len(applied(postgresql, empty)) == 7


def test_under_a_write_load(postgresql: Any, empty: str, tmp_path: Path) -> None:
    """Writers go on, also while the migration waits for its lock; nobody waits longer than the lock's time."""
    path = write(tmp_path, _0001_one="CREATE TABLE directory.load (id bigint GENERATED ALWAYS AS IDENTITY, a int)")
    apply(postgresql, empty, path)
    stop, errors, longest, written = threading.Event(), [], [0.0] * 4, [0] * 4

    def run(number: int) -> None:
        connection = postgresql.connect(empty)
        try:
            while not stop.is_set():
                began = time.monotonic()
                with connection, connection.cursor() as cursor:
                    cursor.execute("INSERT INTO directory.load (a) VALUES (1)")
                    if number == 0:  # holds its lock longer than the migration waits for one
                        cursor.execute("SELECT pg_sleep(0.4)")
                if number:
                    longest[number] = max(longest[number], time.monotonic() - began)
                written[number] += 1
                if number == 0 and written[0] % 3 == 0:
                    stop.wait(0.6)  # and leaves a gap now and then
        except psycopg2.Error as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    tries: list[str] = []
    write(
        path,
        _0002_two="ALTER TABLE directory.load ADD COLUMN b int NOT NULL DEFAULT 7; CREATE INDEX ON directory.load (a)",
    )
    try:
        names = apply(postgresql, empty, path, lock_timeout=0.1, attempts=100, report=tries.append)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    connection = postgresql.connect(empty)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), count(b) FROM directory.load")
        rows = cursor.fetchone()
    connection.close()
    print(f"attempts {len(tries) + 1}, rows acknowledged {sum(written)}, lost {sum(written) - rows[0]}")
    print(f"longest wait of a writer {max(longest):.2f} s")
    assert names == ["0002_two.sql"]
    assert errors == []
    assert rows == (sum(written), sum(written))


def test_a_lock_that_never_comes(postgresql: Any, empty: str, tmp_path: Path) -> None:
    path = write(tmp_path, _0001_one="CREATE TABLE directory.held (a int)")
    apply(postgresql, empty, path)
    holder = postgresql.connect(empty)
    holder.cursor().execute("LOCK TABLE directory.held")
    write(path, _0002_two="ALTER TABLE directory.held ADD COLUMN b int")
    with pytest.raises(MigrationError) as refused:
        apply(postgresql, empty, path, lock_timeout=0.05, attempts=2)
    assert str(refused.value) == "0002_two.sql: canceling statement due to lock timeout (2 attempts of 0.05 s)"
    holder.rollback()
    assert apply(postgresql, empty, path, lock_timeout=0.05, attempts=2) == ["0002_two.sql"]
    holder.close()


def test_a_migration_of_our_own_under_the_real_schema(postgresql: Any, empty: str, tmp_path: Path) -> None:
    """The next migration finds the helpers that docs/directory.md names."""
    for source in OURS.glob("*.sql"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    apply(postgresql, empty, tmp_path)
    following = f"{len(list(OURS.glob('*.sql'))) + 1:04d}_next.sql"
    (tmp_path / following).write_text(
        "SET LOCAL ROLE directory_owner;\n"
        "ALTER TABLE directory.users ADD COLUMN nickname directory.title;\n"
        "DO $$ BEGIN PERFORM directory.audit_table('users', ARRAY['user_id'], 'r.login',"
        " ARRAY['password_hash', 'password_first']); END $$;\n"
        "CREATE TABLE directory.things (reseller_id uuid, thing_id uuid, customer_id uuid,"
        " PRIMARY KEY (reseller_id, thing_id));\n"
        "DO $$ BEGIN PERFORM directory.audit_table('things', ARRAY['thing_id'], 'r.thing_id::text'); END $$;\n"
    )
    assert apply(postgresql, empty, tmp_path) == [following]


# ----------------------------------------------------------------------------------------------------------- module


def test_module_creates_the_database(postgresql: Any, empty: str, tmp_path: Path) -> None:
    path = write(tmp_path, _0001_one="SELECT 1", _0002_two="SELECT 2")
    name = f"{empty}_new"
    options = arguments(postgresql, name, path)
    preview = outcome(module(options, check=True))
    assert (preview["changed"], preview["applied"], preview["pending"]) == (True, [], ["0001_one.sql", "0002_two.sql"])
    assert preview["diff"] == {"before": "", "after": "0001_one.sql\n0002_two.sql\n"}
    first = outcome(module(options))
    assert (first["changed"], first["applied"], first["pending"], first["version"]) == (True, options["names"], [], 2)
    second = outcome(module(options))
    assert (second["changed"], second["applied"], second["version"]) == (False, [], 2)
    assert second["diff"]["before"] == second["diff"]["after"]
    assert outcome(module(options, check=True))["changed"] is False
    write(path, _0003_three="SELECT 3")
    options = arguments(postgresql, name, path)
    third = outcome(module(options, check=True))
    assert (third["changed"], third["pending"], third["version"]) == (True, ["0003_three.sql"], 3)
    assert applied(postgresql, name) == ["0001_one.sql", "0002_two.sql"]
    connection = postgresql.connect(name)
    with connection.cursor() as cursor:
        cursor.execute("SELECT datlocprovider, datlocale FROM pg_database WHERE datname = current_database()")
        assert cursor.fetchone() == ("b", "C.UTF-8")
    connection.close()
    postgresql.execute(f"DROP DATABASE {name}")


def test_module_in_check_mode_before_anything_is_there(tmp_path: Path) -> None:
    """On a machine without PostgreSQL and without the files."""
    options = {"path": str(tmp_path / "x"), "names": ["0001_one.sql"], "login_host": str(tmp_path)}
    result = outcome(module(options, check=True))
    assert (result["changed"], result["pending"]) == (True, ["0001_one.sql"])
    assert result["warnings"][0]["event"]["msg"].startswith("cannot reach the directory: ")


def test_module_says_what_is_wrong(postgresql: Any, empty: str, tmp_path: Path) -> None:
    path = write(tmp_path, _0001_one="SELECT 1")
    wanted = {**arguments(postgresql, empty, path), "names": ["0001_one.sql", "0002_two.sql"]}
    assert outcome(module(wanted))["msg"] == f"{path}: has 0001_one.sql; wanted: 0001_one.sql, 0002_two.sql"
    nowhere = {**arguments(postgresql, empty, path), "login_host": str(tmp_path), "start_timeout": 0}
    unreachable = outcome(module(nowhere))
    assert unreachable["failed"]
    assert unreachable["msg"].startswith("cannot reach the directory: ")
    assert unreachable["msg"].endswith("Look at `systemctl status postgresql@17-main` on the directory machine.")
    assert outcome(module(arguments(postgresql, empty, path)))["applied"] == ["0001_one.sql"]
    write(path, _0001_one="SELECT 2")
    for check in (False, True):
        changed = outcome(module(arguments(postgresql, empty, path), check=check))
        assert changed["msg"].startswith("0001_one.sql: changed after it was applied")
