# SPDX-License-Identifier: GPL-3.0-or-later
"""What the portal may ask of the directory: one-time links for passwords, whose login and whose domain something is."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import psycopg2
import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import reconcile

FIRST = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$Zmlyc3Q$Zmlyc3Q"
OWN = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$b3du$b3duIHdhY2h0d29vcmQ"
LOGIN, OTHER = "jan@degraaf.example", "kees@smid.example"


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def make_link(accounts: Any, login: str, token: str, lives: str = "1 hour") -> None:
    accounts.execute(
        "INSERT INTO directory.password_links (reseller_id, customer_id, user_id, digest, expires_at)"
        " SELECT reseller_id, customer_id, user_id, %s, now() + %s::interval FROM directory.users WHERE login = %s",
        (digest(token), lives, login),
    )


@pytest.fixture
def two(accounts: Any) -> dict[str, str]:
    """Two resellers with a customer and a person each."""
    ids = {}
    for reseller, customer, domain, login in (
        ("noorderict", "bakkerij", "degraaf.example", LOGIN),
        ("zuidwest", "smederij", "smid.example", OTHER),
    ):
        ids[reseller] = accounts.reseller(reseller)
        ids[customer] = accounts.customer(ids[reseller], customer)
        accounts.domain(ids[reseller], ids[customer], domain)
        ids[login] = accounts.user(ids[reseller], ids[customer], login, password_first=FIRST, language="nl")
    accounts.domain(ids["noorderict"], ids["bakkerij"], "graaf.example", alias_of="degraaf.example")
    return ids


def ask(database: Any, function: str, *values: Any) -> Any:
    """The rows of a function of schema portal, as the portal's role gets them."""
    places = ", ".join(["%s"] * len(values))
    return database.rows(f"SELECT * FROM portal.{function}({places})", values, "portal")


def use(database: Any, token: str, reseller: str = "noorderict", value: str = OWN) -> str | None:
    found: str | None = ask(database, "use_link", digest(token), reseller, value)[0][0]
    return found


def hash_of(database: Any, login: str = LOGIN) -> Any:
    return database.value("SELECT password_hash FROM directory.users WHERE login = %s", (login,))


def test_a_link_sets_the_persons_own_password_once(database: Any, accounts: Any, two: dict[str, str]) -> None:
    make_link(accounts, LOGIN, "een")
    assert ask(database, "link", digest("een"), "noorderict") == [(LOGIN, "Jan", "nl", True)]
    # Looking does not use it up.
    assert ask(database, "link", digest("een"), "noorderict") == [(LOGIN, "Jan", "nl", True)]
    assert use(database, "een") == LOGIN
    assert database.rows(
        "SELECT password_hash, password_first, password_changed_at IS NOT NULL FROM directory.users WHERE login = %s",
        (LOGIN,),
    ) == [(OWN, FIRST, True)]
    assert ask(database, "link", digest("een"), "noorderict") == []
    assert use(database, "een", value=FIRST) is None
    assert hash_of(database) == OWN


@pytest.mark.parametrize(
    ("reason", "statement"),
    [
        ("expired", "UPDATE directory.password_links SET expires_at = now() - interval '1 second'"),
        ("suspended", "UPDATE directory.users SET state = 'suspended', suspended_because = 'file'"),
        ("customer suspended", "UPDATE directory.customers SET state = 'suspended', suspended_because = 'file'"),
        ("reseller suspended", "UPDATE directory.resellers SET state = 'suspended', suspended_because = 'file'"),
        ("waits for removal", "UPDATE directory.users SET state = 'removed-pending', suspended_because = 'absent'"),
        ("removed", f"DELETE FROM directory.users WHERE login = '{LOGIN}'"),
        ("used", "UPDATE directory.password_links SET used_at = now()"),
    ],
)
def test_a_link_that_cannot_be_used(
    database: Any, accounts: Any, two: dict[str, str], reason: str, statement: str
) -> None:
    make_link(accounts, LOGIN, "een")
    accounts.execute(statement)
    assert ask(database, "link", digest("een"), "noorderict") == [], reason
    assert use(database, "een") is None, reason
    assert database.rows("SELECT password_hash FROM directory.users WHERE password_hash IS NOT NULL") == []


def test_a_link_works_on_its_own_resellers_page_alone(database: Any, accounts: Any, two: dict[str, str]) -> None:
    make_link(accounts, LOGIN, "een")
    for reseller in ("zuidwest", "", "niemand", None):
        assert ask(database, "link", digest("een"), reseller) == []
        assert use(database, "een", reseller) is None
    assert use(database, "een") == LOGIN


def race(database: Any, tokens: list[str]) -> tuple[list[str], list[BaseException]]:
    """Uses all of them at the same moment, each with a hash of its own; the hashes that won, and what went wrong."""
    connections = [database.connect("portal") for _ in tokens]
    barrier = threading.Barrier(len(tokens))
    won: list[str] = []
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            with connections[number] as connection, connection.cursor() as cursor:
                barrier.wait(10)
                value = f"{OWN}{number}"
                cursor.execute("SELECT portal.use_link(%s, 'noorderict', %s)", (digest(tokens[number]), value))
                if cursor.fetchone()[0]:
                    won.append(value)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(tokens))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return won, failed


def test_of_many_at_once_exactly_one_wins(database: Any, accounts: Any, two: dict[str, str]) -> None:
    """The same link eight times, and eight links of the same person: no error, and one password."""
    for number in range(8):
        make_link(accounts, LOGIN, f"link{number}")
    for tokens in (["link0"] * 8, [f"link{number}" for number in range(8)]):
        accounts.execute("UPDATE directory.password_links SET used_at = NULL, expires_at = now() + interval '1 hour'")
        won, failed = race(database, tokens)
        assert failed == []
        assert len(won) == 1
        assert hash_of(database) == won[0]


def test_only_hashes_that_are_slow_to_guess(database: Any, accounts: Any, two: dict[str, str]) -> None:
    make_link(accounts, LOGIN, "een")
    with pytest.raises(psycopg2.errors.CheckViolation):
        use(database, "een", value="{PLAIN}geheim")
    assert use(database, "een") == LOGIN


def test_the_audit_knows_who_and_when_and_no_secret(database: Any, accounts: Any, two: dict[str, str]) -> None:
    make_link(accounts, LOGIN, "een")
    assert use(database, "een") == LOGIN
    rows = database.rows(
        "SELECT actor, table_name, operation, label FROM directory.audit"
        " WHERE table_name = 'password_links' OR actor LIKE 'portal%%' ORDER BY audit_id"
    )
    assert rows == [
        ("test", "password_links", "insert", LOGIN),
        ("portal: one-time link", "password_links", "update", LOGIN),
        ("portal: one-time link", "users", "update", LOGIN),
    ]
    text = database.value("SELECT string_agg(a::text, '') FROM directory.audit a")
    assert "argon2id" not in text
    assert digest("een").hex() not in text
    assert "(secret)" in text


def test_the_files_do_not_take_the_persons_password_back(database: Any) -> None:
    mail = {"aliases": [], "forward": [], "keep_copy": True, "quota": None}
    user = {
        "login": LOGIN, "name": "Jan", "state": "active", "product": None, "language": "nl", "password_hash": FIRST,
        "limits": {}, "mail": mail, "phone": None, "files": None, "invite": None,
    }  # fmt: skip
    reseller = {
        "name": "noorderict", "title": "Noorder ICT", "engineer": "beheer@noorderict.example",
        "domain": "noorderict.example", "retention_days": 30,
    }  # fmt: skip
    customer = {
        "name": "bakkerij", "title": "Bakkerij", "state": "active", "limits": {},
        "domains": [{"name": "degraaf.example", "alias_of": None}], "users": [user],
    }  # fmt: skip
    wanted = {"format": 1, "reseller": reseller, "customers": [customer]}
    admin = database.admin()
    reconcile.reconcile(admin, wanted, reconcile.Options())
    with admin.cursor() as cursor:
        cursor.execute(
            "INSERT INTO directory.password_links (reseller_id, customer_id, user_id, digest, expires_at)"
            " SELECT reseller_id, customer_id, user_id, %s, now() + interval '1 hour' FROM directory.users"
            " WHERE login = %s",
            (digest("een"), LOGIN),
        )
    admin.commit()
    assert use(database, "een") == LOGIN
    user["password_hash"] = FIRST.replace("Zmlyc3Q", "dHdlZWRl")
    reconcile.reconcile(admin, wanted, reconcile.Options())
    assert hash_of(database) == OWN


@pytest.mark.parametrize(
    ("login", "reseller"),
    [
        (LOGIN, "noorderict"),
        (LOGIN.upper(), "noorderict"),
        (OTHER, "zuidwest"),
        ("niemand@degraaf.example", None),
        ("jan@graaf.example", None),
        ("jan", None),
        ("", None),
        ("' OR true --", None),
    ],
)
def test_whose_login_it_is(database: Any, accounts: Any, two: dict[str, str], login: str, reseller: str | None) -> None:
    accounts.execute("UPDATE directory.users SET password_hash = %s", (OWN,))
    assert ask(database, "login_reseller", login) == [(reseller,)]


@pytest.mark.parametrize("table", ["users", "customers", "resellers"])
def test_who_is_suspended_logs_in_nowhere(database: Any, accounts: Any, two: dict[str, str], table: str) -> None:
    accounts.execute("UPDATE directory.users SET password_hash = %s", (OWN,))
    assert ask(database, "login_reseller", LOGIN) == [("noorderict",)]
    accounts.execute(f"UPDATE directory.{table} SET state = 'suspended', suspended_because = 'file'")
    assert ask(database, "login_reseller", LOGIN) == [(None,)]


def test_who_has_no_password_is_as_nobody(database: Any, accounts: Any, two: dict[str, str]) -> None:
    """Or the time of a refusal would tell who is there."""
    accounts.execute("UPDATE directory.users SET password_hash = NULL")
    assert ask(database, "login_reseller", LOGIN) == [(None,)]


def test_without_mail_there_is_no_webmail(database: Any, accounts: Any, two: dict[str, str]) -> None:
    accounts.execute("UPDATE directory.users SET mail = false, password_hash = %s", (OWN,))
    assert ask(database, "login_reseller", LOGIN) == [(None,)]


def test_whose_domain_it_is(database: Any, accounts: Any, two: dict[str, str]) -> None:
    noorder = [("noorderict", "Noorderict", "noorderict.example")]
    assert ask(database, "domain", "DeGraaf.example") == noorder
    assert ask(database, "domain", "graaf.example") == noorder
    assert ask(database, "domain", "smid.example") == [("zuidwest", "Zuidwest", "zuidwest.example")]
    assert ask(database, "domain", "elders.example") == []
    # Suspended people keep their devices' settings.
    accounts.execute("UPDATE directory.customers SET state = 'suspended', suspended_because = 'file'")
    assert ask(database, "domain", "degraaf.example") == noorder
    accounts.execute("UPDATE directory.resellers SET state = 'suspended', suspended_because = 'file'")
    assert ask(database, "domain", "degraaf.example") == []
    assert ask(database, "reseller", "noorderict") == []


def test_the_portal_reads_no_table(database: Any, two: dict[str, str]) -> None:
    for relation in ("directory.users", "directory.password_links", "portal.people", "mail.mailboxes"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            database.rows(f"SELECT * FROM {relation}", user="portal")
