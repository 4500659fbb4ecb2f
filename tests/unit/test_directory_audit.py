# SPDX-License-Identifier: GPL-3.0-or-later
"""Every change leaves a row: who, when, before, after; no secrets; nobody can take it back."""

from __future__ import annotations

import json
from typing import Any

import psycopg2
import pytest

FIRST = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$Zmlyc3RmaXJzdA"
SECOND = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$c2Vjb25kc2Vj"
MASKED = "(secret)"
# Not accounts: what services measure, what the audit is made of, and lists that migrations write.
NOT_AUDITED = {
    "audit", "claim_requests", "file_usage", "last_logins", "limit_names", "mail_sent", "mail_totals", "mail_usage",
    "migrations", "removals", "usage",
}  # fmt: skip


@pytest.fixture
def jan(accounts: Any) -> dict[str, str]:
    reseller = accounts.reseller()
    customer = accounts.customer(reseller)
    accounts.domain(reseller, customer)
    user = accounts.user(reseller, customer, "jan@degraaf.example", password_hash=FIRST, password_first=FIRST)
    return {"reseller": reseller, "customer": customer, "user": user}


def noted(accounts: Any, label: str, table: str = "users") -> list[tuple[Any, ...]]:
    return accounts.execute(
        "SELECT operation, before, after FROM directory.audit WHERE label = %s AND table_name = %s ORDER BY audit_id",
        (label, table),
    )


def test_who_and_when(database: Any, jan: dict[str, str]) -> None:
    connection = database.admin(actor="maarten: resellers.yml")
    with connection, connection.cursor() as cursor:
        cursor.execute("UPDATE directory.users SET name = 'Johan' RETURNING clock_timestamp()")
        at = cursor.fetchone()[0]
    row = database.rows(
        "SELECT actor, db_user, abs(extract(epoch FROM at - %s)) < 5, key, reseller_id::text, customer_id::text"
        " FROM directory.audit WHERE operation = 'update' AND table_name = 'users'",
        (at,),
    )
    assert row == [
        ("maarten: resellers.yml", "postgres", True, {"user_id": jan["user"]}, jan["reseller"], jan["customer"])
    ]


def test_an_insert_an_update_and_a_delete(accounts: Any, jan: dict[str, str]) -> None:
    accounts.execute("UPDATE directory.users SET name = 'Johan', mail_quota = 5, login = login")
    accounts.execute("DELETE FROM directory.users")
    made, changed, gone = noted(accounts, "jan@degraaf.example")
    assert made[:2] == ("insert", None)
    assert {name: made[2][name] for name in ("login", "name", "mail")} == {
        "login": "jan@degraaf.example", "name": "Jan", "mail": True,
    }  # fmt: skip
    assert changed == ("update", {"name": "Jan", "mail_quota": None}, {"name": "Johan", "mail_quota": 5})
    assert gone[0] == "delete"
    assert gone[1]["name"] == "Johan"
    assert gone[2] is None


def test_what_does_not_change_is_not_noted(accounts: Any, jan: dict[str, str]) -> None:
    accounts.execute("UPDATE directory.users SET name = name, mail = mail")
    accounts.execute("INSERT INTO directory.products (reseller_id, name) VALUES (%s, 'p')", (jan["reseller"],))
    accounts.execute("UPDATE directory.products SET definition = '{}'")
    assert [row[0] for row in noted(accounts, "jan@degraaf.example")] == ["insert"]
    assert [row[0] for row in noted(accounts, "p", "products")] == ["insert"]


def test_a_refused_change_leaves_nothing(accounts: Any, jan: dict[str, str]) -> None:
    before = accounts.execute("SELECT count(*) FROM directory.audit")
    accounts.limit(jan["reseller"], "users", 0)
    accounts.refusal(
        "INSERT INTO directory.users (reseller_id, customer_id, login, name)"
        " SELECT reseller_id, customer_id, 'x@degraaf.example', 'X' FROM directory.customers"
    )
    assert accounts.execute("SELECT count(*) - 1 FROM directory.audit") == before


def test_a_bulk_change_is_noted_per_row(accounts: Any, jan: dict[str, str]) -> None:
    accounts.users(jan["reseller"], jan["customer"], 500)
    accounts.execute("UPDATE directory.users SET language = 'nl' WHERE login LIKE 'u%'")
    assert accounts.execute(
        "SELECT operation, count(*), count(DISTINCT label) FROM directory.audit"
        " WHERE label LIKE 'u%' AND table_name = 'users' GROUP BY 1 ORDER BY 1"
    ) == [("insert", 500, 500), ("update", 500, 500)]


def test_passwords_are_never_in_it(accounts: Any, database: Any, jan: dict[str, str]) -> None:
    accounts.execute("UPDATE directory.users SET password_hash = %s", (SECOND,))
    accounts.execute("UPDATE directory.users SET password_hash = NULL")
    _made, changed, cleared = noted(accounts, "jan@degraaf.example")
    assert changed == ("update", {"password_hash": MASKED}, {"password_hash": MASKED})
    assert cleared == ("update", {"password_hash": MASKED}, {"password_hash": None})
    assert database.value("SELECT count(*) FROM directory.audit a WHERE a::text LIKE '%argon2%'") == 0


def test_no_secret_of_any_table_is_in_it(accounts: Any, database: Any, jan: dict[str, str]) -> None:
    """Something recognisable in every place that can hold a secret, written, changed and removed."""
    ids = {"reseller_id": jan["reseller"], "customer_id": jan["customer"]}
    accounts.insert("dkim_keys", **ids, domain="degraaf.example", selector="s1", public_key="AAAA",
                    private_key="-----BEGIN GEHEIM")  # fmt: skip
    accounts.insert("app_passwords", **ids, user_id=jan["user"], label="phone", protocols=["imap"],
                    hash="$2a$08$" + "GEHEIM".ljust(53, "."))  # fmt: skip
    secrets = json.dumps({
        "devices": [{"mac": "00:15", "secret": "GEHEIM", "sip": {"password": "GEHEIM"}}],
        "pin": "GEHEIM", "api_token": "GEHEIM",
    })  # fmt: skip
    accounts.execute("UPDATE directory.users SET phone = %s", (secrets,))
    accounts.execute("UPDATE directory.customers SET telephony = %s", (secrets,))
    accounts.execute('UPDATE directory.users SET phone = phone || \'{"extension": "101"}\'')
    accounts.execute("UPDATE directory.dkim_keys SET private_key = private_key || 'x', state = 'retired'")
    accounts.execute("UPDATE directory.app_passwords SET hash = '$2a$08$' || rpad('GEHEIM', 53, '/')")
    accounts.execute("DELETE FROM directory.customers")
    assert database.value("SELECT count(*) FROM directory.audit a WHERE a::text LIKE '%GEHEIM%'") == 0
    phone = [row[2]["phone"] for row in noted(accounts, "jan@degraaf.example") if row[0] == "update"]
    assert phone[1] == {
        "devices": [{"mac": "00:15", "secret": MASKED, "sip": {"password": MASKED}}],
        "pin": MASKED, "api_token": MASKED, "extension": "101",
    }  # fmt: skip
    key = noted(accounts, "degraaf.example", "dkim_keys")[1]
    assert key == ("update", {"private_key": MASKED, "state": "active"}, {"private_key": MASKED, "state": "retired"})


def test_every_table_of_accounts_is_audited(database: Any) -> None:
    tables = {row[0] for row in database.rows(
        "SELECT relname FROM pg_class WHERE relnamespace = 'directory'::regnamespace AND relkind = 'r'")}  # fmt: skip
    audited = {row[0]: row[1] for row in database.rows(
        "SELECT c.relname, count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
        " WHERE t.tgname IN ('audit_insert', 'audit_update', 'audit_delete') AND t.tgenabled = 'O'"
        " GROUP BY 1")}  # fmt: skip
    assert set(audited) == tables - NOT_AUDITED
    assert set(audited.values()) == {3}


def test_audits_know_all_columns_of_their_table(database: Any) -> None:
    """A column that a later migration adds must be added to the audit (directory.audit_table again)."""
    missing = database.rows(
        "SELECT c.relname, a.attname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''"
        " JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgname = 'audit_update'"
        " AND p.prosrc NOT LIKE '%IS DISTINCT FROM n.' || quote_ident(a.attname) || ' %'"
    )
    assert missing == []


@pytest.mark.parametrize("user", ["postfix", "dovecot", "_rspamd", "verify", "directory_admin"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE directory.audit SET actor = 'somebody else'",
        "DELETE FROM directory.audit",
        "TRUNCATE directory.audit",
        (
            "INSERT INTO directory.audit (reseller_id, table_name, operation, label, key)"
            " VALUES (gen_random_uuid(), 'users', 'delete', 'x', '{}')"
        ),
        "ALTER TABLE directory.users DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "TRUNCATE directory.users CASCADE",
    ],
)
def test_nobody_can_change_or_avoid_it(module_database: Any, user: str, statement: str) -> None:
    connection = module_database.connect()
    with connection.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute(f"SET LOCAL ROLE {user}; {statement}")
    connection.close()


def test_the_actor_is_of_the_session_alone(database: Any, jan: dict[str, str]) -> None:
    """A connection that says nothing leaves none, also after one that did."""
    one = database.admin(actor="eva")
    with one, one.cursor() as cursor:
        cursor.execute("UPDATE directory.users SET name = 'A'")
    two = database.connect()
    with two, two.cursor() as cursor:
        cursor.execute("UPDATE directory.users SET name = 'B'")
    rows = database.rows("SELECT actor FROM directory.audit WHERE operation = 'update' ORDER BY audit_id")
    assert rows == [("eva",), (None,)]
