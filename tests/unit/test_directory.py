# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection of the modules, and what the directory's errors say to people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory

HASH = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$GEHEIMGEHEIM"


def test_a_connection_acts_as_the_modules_role_and_names_its_actor(database: Any) -> None:
    connection = database.admin(actor="eva 'x' \"y\"")
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user::text, session_user::text, current_setting('bouwsteen.actor')")
        assert cursor.fetchone() == ("directory_admin", "postgres", "eva 'x' \"y\"")
    # A roll-back takes neither away.
    connection.rollback()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_user::text, current_setting('bouwsteen.actor'), current_setting('transaction_isolation')"
        )
        assert cursor.fetchone() == ("directory_admin", "eva 'x' \"y\"", "read committed")


def test_an_unknown_role_is_an_error_and_leaves_no_connection(database: Any) -> None:
    with pytest.raises(directory.DirectoryError, match='role "nobody" does not exist'):
        directory.connect(actor="x", database=database.name, host=database.server.host, role="nobody")
    assert database.value("SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = 'bouwsteen'",
                          (database.name,)) == 0  # fmt: skip


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(directory.DirectoryError) as refused:
        directory.connect(actor="x", host=str(tmp_path), port=1, patience=0.3)
    assert refused.value.sqlstate == "08000"
    assert str(refused.value).startswith(
        f'cannot reach the directory: connection to server on socket "{tmp_path}/.s.PGSQL.1"'
    )
    assert str(refused.value).endswith(". Look at `systemctl status postgresql@17-main` on the directory machine.")


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "psycopg2", None)
    with pytest.raises(directory.DirectoryError, match="the package python3-psycopg2 is not installed here"):
        directory.connect(actor="x")


def test_a_row_that_is_refused_is_never_shown(accounts: Any) -> None:
    """PostgreSQL's DETAIL of a refused row is the whole row, password hash included."""
    reseller = accounts.reseller()
    customer = accounts.customer(reseller)
    accounts.domain(reseller, customer)
    with pytest.raises(psycopg2.errors.CheckViolation) as refused:
        accounts.user(reseller, customer, "jan@degraaf.example", password_hash=HASH, state="suspended")
    assert "GEHEIM" in str(refused.value)
    error = directory.explain(refused.value)
    assert "GEHEIM" not in f"{error} {error!r}"
    with pytest.raises(psycopg2.errors.NotNullViolation) as refused_too:
        accounts.user(reseller, customer, "jan@degraaf.example", password_hash=HASH, name=None)
    error = directory.explain(refused_too.value)
    assert "GEHEIM" in str(refused_too.value)
    assert "GEHEIM" not in f"{error} {error!r}"
    assert error.message == 'null value in column "name" of relation "users" violates not-null constraint'


def test_the_servers_log_has_no_values(accounts: Any, database: Any) -> None:
    """The server of the tests logs what role directory lets it log."""
    reseller = accounts.reseller()
    with pytest.raises(psycopg2.errors.NotNullViolation):
        accounts.insert("customers", reseller_id=reseller, name="geheim-1", title=None)
    accounts.insert("products", reseller_id=reseller, name="geheim-2")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        accounts.insert("products", reseller_id=reseller, name="geheim-2")
    with pytest.raises(psycopg2.errors.SyntaxError):
        database.rows("SELECT mail.app_password('jan@degraaf.example', 'geheim-3', 'imap' nonsense", user="dovecot")
    with pytest.raises(psycopg2.errors.QueryCanceled):
        database.rows("SET statement_timeout = '10ms'; SELECT pg_sleep(1), 'geheim-4'")
    log = database.server.log.read_text(encoding="utf-8")
    assert 'null value in column "title" of relation "customers" violates not-null constraint' in log
    assert "canceling statement due to statement timeout" in log
    assert "geheim" not in log


def test_what_is_temporary(accounts: Any, database: Any) -> None:
    reseller = accounts.reseller()
    other = database.connect()
    other.cursor().execute("UPDATE directory.resellers SET title = 'x'")
    accounts.execute("SET lock_timeout = '10ms'")
    error = accounts.refusal("UPDATE directory.resellers SET title = 'y' WHERE reseller_id = %s", (reseller,))
    assert (error.sqlstate, error.temporary) == ("55P03", True)
    assert str(error) == "canceling statement due to lock timeout. Run it again."


def test_other_errors_stay_one_line(accounts: Any) -> None:
    error = accounts.refusal("SELECT\n1 / 0")
    assert str(error) == "division by zero"
    assert not error.temporary
    error = accounts.refusal("SET TRANSACTION READ ONLY; DELETE FROM directory.users")
    assert error.sqlstate == "25006"
    assert str(error).endswith("The database takes no changes now: a standby, or a reseller that is being moved.")
    assert directory.explain(error) is error


def test_every_constraint_that_people_can_meet_has_words(module_database: Any) -> None:
    """A unique constraint, or a check of a column, without an entry would speak SQL to an operator."""
    unique = module_database.rows(
        "SELECT conname FROM pg_constraint WHERE contype = 'u' AND connamespace = 'directory'::regnamespace"
        " AND NOT conname ~ '_id_key[0-9]*$|_is_alias_key$'")  # fmt: skip
    # The same name twice: (reseller, customer, name) serves as a target of foreign keys.
    unspoken = {row[0] for row in unique} - set(directory._TAKEN) - {"domains_reseller_id_customer_id_name_key"}
    assert unspoken == set()
    domains = module_database.rows(
        "SELECT conname FROM pg_constraint WHERE contypid <> 0 AND connamespace = 'directory'::regnamespace"
    )
    assert {row[0] for row in domains} - set(directory._WRONG) == set()
    known = {row[0] for row in module_database.rows("SELECT conname FROM pg_constraint WHERE contype = 'c'")}
    assert set(directory._WRONG) <= known
