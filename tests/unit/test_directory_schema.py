# SPDX-License-Identifier: GPL-3.0-or-later
"""What the directory refuses whoever writes it: wrong values, other tenants' rows, names that somebody else holds."""

from __future__ import annotations

import threading
from typing import Any

import psycopg2
import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory

HASH = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$ZGlnZXN0ZGlnZXN0"


def fill(accounts: Any) -> dict[str, str]:
    """Two resellers with a customer, a domain, a user and an empty group each: r1, c1, u1, g1, r2, ..."""
    found = {}
    for number, name in ((1, "noorderict"), (2, "zuidwest")):
        reseller = accounts.reseller(name)
        customer = accounts.customer(reseller, f"klant{number}")
        accounts.domain(reseller, customer, f"klant{number}.example")
        user = accounts.user(reseller, customer, f"jan@klant{number}.example")
        group = accounts.group(reseller, customer, f"groep{number}@klant{number}.example", [])
        found |= {f"r{number}": reseller, f"c{number}": customer, f"u{number}": user, f"g{number}": group}
    return found


@pytest.fixture
def two(accounts: Any) -> dict[str, str]:
    return fill(accounts)


@pytest.fixture(scope="module")
def unchanged(module_accounts: Any) -> dict[str, str]:
    """The same for tests in which everything is refused."""
    return fill(module_accounts)


@pytest.mark.parametrize(
    "case",
    [
        ("users", "login", "Jan@klant1.example", directory._WRONG["address"]),
        ("users", "login", "jan", directory._WRONG["address"]),
        ("users", "login", "jan@@klant1.example", directory._WRONG["address"]),
        ("users", "login", "jan..x@klant1.example", directory._WRONG["address"]),
        ("users", "login", "jan%x@klant1.example", directory._WRONG["address"]),
        ("users", "login", "jan|x@klant1.example", directory._WRONG["address"]),
        ("users", "login", "jan x@klant1.example", directory._WRONG["address"]),
        ("users", "login", "jan\n@klant1.example", directory._WRONG["address"]),
        ("users", "login", "jan@klant1.example\n", directory._WRONG["address"]),
        ("users", "login", "ján@klant1.example", directory._WRONG["address"]),
        ("users", "login", "j" * 65 + "@klant1.example", directory._WRONG["address"]),
        ("users", "login", "@klant1.example", directory._WRONG["users_login_check"]),
        ("users", "name", "Jan\nde Graaf", directory._WRONG["title"]),
        ("users", "name", "", directory._WRONG["title"]),
        ("users", "name", " Jan", directory._WRONG["title"]),
        ("users", "name", "J" * 201, directory._WRONG["title"]),
        ("users", "mail_quota", -1, directory._WRONG["size"]),
        ("users", "file_quota", -1, directory._WRONG["size"]),
        ("users", "state", "locked", directory._WRONG["state"]),
        ("users", "password_hash", "geheim", directory._WRONG["password_hash"]),
        ("users", "password_hash", "{PLAIN}geheim", directory._WRONG["password_hash"]),
        ("users", "password_hash", "{ARGON2ID}geheim", directory._WRONG["password_hash"]),
        ("customers", "name", "Bakkerij", directory._WRONG["label"]),
        ("customers", "name", "-x", directory._WRONG["label"]),
        ("customers", "name", "../x", directory._WRONG["label"]),
        ("domains", "name", "Klant.example", directory._WRONG["domain_name"]),
        ("domains", "name", "example", directory._WRONG["domain_name"]),
        ("domains", "name", "klant..example", directory._WRONG["domain_name"]),
        ("domains", "name", "klánt.example", directory._WRONG["domain_name"]),
        ("domains", "name", "x" * 64 + ".example", directory._WRONG["domain_name"]),
        ("domains", "name", ".".join(["abcdefgh"] * 32), directory._WRONG["domain_name"]),
        ("forwards", "target", "piet@Ver.example", directory._WRONG["any_address"]),
        ("forwards", "target", "a@ver.example, b@ver.example", directory._WRONG["any_address"]),
        ("forwards", "target", "|cat", directory._WRONG["any_address"]),
        ("extensions", "extension", "112", directory._WRONG["extensions_extension_check"]),
        ("extensions", "extension", "1", directory._WRONG["extensions_extension_check"]),
        ("extensions", "extension", "10a", directory._WRONG["extensions_extension_check"]),
        ("numbers", "number", "0318000101", directory._WRONG["numbers_number_check"]),
        ("numbers", "number", "+031318000101", directory._WRONG["numbers_number_check"]),
    ],
)
def test_wrong_values(module_accounts: Any, unchanged: dict[str, str], case: tuple[str, str, Any, str]) -> None:
    table, column, value, message = case
    others: dict[str, Any] = {
        "users": {"login": "piet@klant1.example", "name": "Piet"},
        "customers": {"name": "ander", "title": "Ander"},
        "domains": {"name": "ander.example"},
        "forwards": {"user_id": unchanged["u1"]},
        "extensions": {},
        "numbers": {},
    }[table]
    row = {"reseller_id": unchanged["r1"], **others, column: value}
    if table != "customers":
        row["customer_id"] = unchanged["c1"]
    with pytest.raises(psycopg2.Error) as refused:
        module_accounts.insert(table, **row)
    assert directory.explain(refused.value).message.endswith(message)


def test_names_as_people_have_them(accounts: Any, two: dict[str, str]) -> None:
    for number, name in enumerate(
        ["Zoë van der Meer", "François d'Été", "IJsbrand IJzerman", "李 雷", 'O\'Brien "Bob"', "{{ x }}"]
    ):
        accounts.user(two["r1"], two["c1"], f"p{number}@klant1.example", name=name)
    assert accounts.execute("SELECT name FROM directory.users WHERE login = 'p2@klant1.example'") == [
        ("IJsbrand IJzerman",)
    ]


def test_addresses_that_are_right(accounts: Any, two: dict[str, str]) -> None:
    for address in ("jan.de-graaf_1", "o'brien", "a+b", "x"):
        accounts.alias(two["r1"], two["c1"], two["u1"], f"{address}@klant1.example")
    accounts.alias(two["r1"], two["c1"], two["u1"], "@klant1.example", kind="catch_all")


def test_states_say_why(accounts: Any, two: dict[str, str]) -> None:
    assert (
        accounts.refusal("UPDATE directory.users SET state = 'suspended' WHERE login = 'jan@klant1.example'").sqlstate
        == "23514"
    )
    assert accounts.refusal("UPDATE directory.users SET remove_after = now()").sqlstate == "23514"
    accounts.execute(
        "UPDATE directory.users SET state = 'suspended', suspended_because = 'absent', remove_after = now()"
    )


ONE = {"reseller_id": "r1", "customer_id": "c1"}


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("customers", {"reseller_id": "00000000-0000-4000-8000-000000000000", "name": "x", "title": "x"}),
        ("domains", {"reseller_id": "r1", "customer_id": "c2", "name": "x.example"}),
        ("domains", {**ONE, "name": "x.example", "alias_of": "klant2.example"}),
        ("users", {**ONE, "login": "piet@klant2.example", "name": "x"}),
        ("users", {"reseller_id": "r1", "customer_id": "c2", "login": "piet@klant2.example", "name": "x"}),
        ("addresses", {**ONE, "address": "info@klant2.example", "kind": "alias", "user_id": "u1"}),
        ("addresses", {**ONE, "address": "info@klant1.example", "kind": "alias", "user_id": "u2"}),
        ("forwards", {**ONE, "user_id": "u2", "target": "a@b.example"}),
        ("group_members", {**ONE, "group_id": "g1", "user_id": "u2"}),
        ("group_members", {"reseller_id": "r2", "customer_id": "c2", "group_id": "g1", "user_id": "u2"}),
        ("limits", {"reseller_id": "r1", "owner_id": "c2", "customer_id": "c2", "name": "users", "max": 9}),
        ("limits", {**ONE, "owner_id": "u2", "user_id": "u2", "name": "aliases", "max": 9}),
        ("extensions", {**ONE, "extension": "101", "user_id": "u2"}),
        ("extensions", {**ONE, "extension": "101", "group_id": "g2"}),
        ("mail_usage", {**ONE, "owner_id": "u2", "user_id": "u2"}),
        ("file_usage", {**ONE, "owner_id": "u2", "user_id": "u2"}),
        ("last_logins", {**ONE, "user_id": "u2", "protocol": "imap"}),
        ("app_passwords", {**ONE, "user_id": "u2", "label": "x", "hash": f"$2a$08${'a' * 53}", "protocols": ["imap"]}),
        (
            "dkim_keys",
            {**ONE, "domain": "klant2.example", "selector": "s1", "private_key": "-----BEGIN x", "public_key": "AA"},
        ),
    ],
)
def test_rows_never_point_into_another_reseller(
    module_accounts: Any, unchanged: dict[str, str], table: str, row: dict[str, Any]
) -> None:
    ids = {name: unchanged.get(value, value) if isinstance(value, str) else value for name, value in row.items()}
    with pytest.raises(psycopg2.errors.ForeignKeyViolation):
        module_accounts.insert(table, **ids)


@pytest.mark.parametrize(
    "query",
    [
        "UPDATE directory.addresses SET user_id = %(u2)s WHERE address = 'jan@klant1.example'",
        "UPDATE directory.users SET reseller_id = %(r2)s, customer_id = %(c2)s WHERE user_id = %(u1)s",
        "UPDATE directory.users SET customer_id = %(c2)s WHERE user_id = %(u1)s",
        "UPDATE directory.domains SET reseller_id = %(r2)s, customer_id = %(c2)s WHERE name = 'klant1.example'",
        "UPDATE directory.groups SET reseller_id = %(r2)s, customer_id = %(c2)s WHERE group_id = %(g1)s",
    ],
)
def test_rows_never_move_into_another_reseller(module_accounts: Any, unchanged: dict[str, str], query: str) -> None:
    assert module_accounts.refusal(query, unchanged).sqlstate == "23503"


def test_two_customers_of_one_reseller_are_apart(accounts: Any) -> None:
    reseller = accounts.reseller()
    first, second = accounts.customer(reseller, "een"), accounts.customer(reseller, "twee")
    accounts.domain(reseller, first, "een.example")
    accounts.domain(reseller, second, "twee.example")
    user = accounts.user(reseller, second, "eva@twee.example")
    with pytest.raises(psycopg2.errors.ForeignKeyViolation):
        accounts.group(reseller, first, "alles@een.example", [user])
    with pytest.raises(psycopg2.errors.ForeignKeyViolation):
        accounts.alias(reseller, first, user, "info@een.example")


def test_an_alias_domain_points_at_a_real_one(accounts: Any, two: dict[str, str]) -> None:
    accounts.domain(two["r1"], two["c1"], "tweede.example", alias_of="klant1.example")
    for name, target in (("derde.example", "tweede.example"), ("vierde.example", "vierde.example")):
        with pytest.raises(psycopg2.errors.ForeignKeyViolation) as refused:
            accounts.domain(two["r1"], two["c1"], name, alias_of=target)
        assert directory.explain(refused.value).message == (
            "domains refused: an alias domain points at another domain of the same customer that is no alias itself"
        )
    refused = accounts.refusal("UPDATE directory.domains SET alias_of = 'tweede.example' WHERE name = 'klant1.example'")
    assert refused.sqlstate == "23503"


@pytest.mark.parametrize(
    ("table", "row", "message"),
    [
        ("customers", {"reseller_id": "r1", "name": "klant1", "title": "x"}, "customer klant1 exists already"),
        ("users", {**ONE, "login": "jan@klant1.example", "name": "x"}, "login jan@klant1.example is already in use"),
        (
            "addresses",
            {**ONE, "address": "jan@klant1.example", "kind": "alias", "user_id": "u1"},
            "address jan@klant1.example is already in use",
        ),
        ("groups", {**ONE, "name": "groep1"}, "group groep1 exists already"),
        ("resellers", {"name": "noorderict", "title": "x", "engineer": "a@b.example", "domain": "y.example"},
         "reseller noorderict exists already"),
        ("domains", {**ONE, "name": "klant1.example"},
         "domain klant1.example is not available; prove control with a DNS TXT record"),
    ],
)  # fmt: skip
def test_what_is_there_already(
    module_accounts: Any, unchanged: dict[str, str], table: str, row: dict[str, str], message: str
) -> None:
    with pytest.raises(psycopg2.errors.UniqueViolation) as refused:
        module_accounts.insert(table, **{name: unchanged.get(value, value) for name, value in row.items()})
    assert directory.explain(refused.value).message == message


def test_a_telephone_number_is_at_one_customer(accounts: Any, two: dict[str, str]) -> None:
    accounts.insert("numbers", reseller_id=two["r2"], customer_id=two["c2"], number="+31318000101")
    with pytest.raises(psycopg2.errors.UniqueViolation) as refused:
        accounts.insert("numbers", reseller_id=two["r1"], customer_id=two["c1"], number="+31318000101")
    assert directory.explain(refused.value).message == "number +31318000101 is not available"


# ---------------------------------------------------------------------------------------------------------- claims


def neutral(name: str) -> str:
    return f"domain {name} is not available; prove control with a DNS TXT record"


def test_a_domain_of_another_reseller_gets_the_neutral_answer(accounts: Any, two: dict[str, str]) -> None:
    with pytest.raises(psycopg2.Error) as refused:
        accounts.domain(two["r2"], two["c2"], "klant1.example")
    error = directory.explain(refused.value)
    assert (error.sqlstate, error.message) == (directory.NOT_AVAILABLE, neutral("klant1.example"))
    assert error.detail == {"domain": "klant1.example"}
    assert "noorderict" not in str(refused.value)
    assert two["r1"] not in str(refused.value)


def test_a_domain_of_another_customer_of_the_same_reseller_is_named(accounts: Any, two: dict[str, str]) -> None:
    other = accounts.customer(two["r1"], "ander")
    with pytest.raises(psycopg2.Error) as refused:
        accounts.domain(two["r1"], other, "klant1.example")
    error = directory.explain(refused.value)
    assert (error.sqlstate, error.message) == (directory.IN_USE, "domain klant1.example is already at customer klant1")


@pytest.mark.parametrize("name", ["noorderict.example", "verify.noorderict.example", "a.b.noorderict.example"])
def test_a_reseller_own_domain_is_his_with_all_below(accounts: Any, two: dict[str, str], name: str) -> None:
    with pytest.raises(psycopg2.Error) as refused:
        accounts.domain(two["r2"], two["c2"], name)
    assert directory.explain(refused.value).message == neutral(name)
    accounts.domain(two["r1"], two["c1"], name)


@pytest.mark.parametrize("name", ["klant1.example", "zuidwest.example", "x.zuidwest.example"])
def test_a_new_reseller_gets_no_domain_that_is_held(accounts: Any, two: dict[str, str], name: str) -> None:
    with pytest.raises(psycopg2.Error) as refused:
        accounts.reseller("derde", domain=name)
    assert directory.explain(refused.value).message == neutral(name)


def test_a_new_reseller_gets_no_domain_above_one_that_is_held(accounts: Any, two: dict[str, str]) -> None:
    accounts.domain(two["r1"], two["c1"], "winkel.groot.example")
    with pytest.raises(psycopg2.Error) as refused:
        accounts.reseller("derde", domain="groot.example")
    assert directory.explain(refused.value).message == neutral("groot.example")


def test_claims_come_and_go_with_the_names(accounts: Any, two: dict[str, str]) -> None:
    def held() -> set[tuple[str, str]]:
        return set(
            accounts.execute("SELECT domain::text, kind FROM directory.claims WHERE reseller_id = %s", (two["r1"],))
        )

    assert held() == {("noorderict.example", "reseller"), ("klant1.example", "customer")}
    accounts.domain(two["r1"], two["c1"], "noorderict.example")
    accounts.domain(two["r1"], two["c1"], "los.example")
    accounts.execute("DELETE FROM directory.domains WHERE name IN ('los.example', 'noorderict.example')")
    assert held() == {("noorderict.example", "reseller"), ("klant1.example", "customer")}
    accounts.domain(two["r1"], two["c1"], "noorderict.example")
    accounts.execute("UPDATE directory.resellers SET domain = 'nieuw.example' WHERE name = 'noorderict'")
    assert held() == {("nieuw.example", "reseller"), ("noorderict.example", "customer"), ("klant1.example", "customer")}
    accounts.domain(two["r2"], two["c2"], "los.example")


def test_many_resellers_want_one_domain_at_once(database: Any, accounts: Any) -> None:
    """One of them has it afterwards; all others got the neutral answer."""
    count = 20
    tenants = []
    for number in range(count):
        reseller = accounts.reseller(f"r{number}")
        tenants.append((reseller, accounts.customer(reseller, "klant")))
    start = threading.Barrier(count)
    answers = []

    def claim(reseller: str, customer: str) -> None:
        connection = database.connect()
        start.wait()
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO directory.domains (reseller_id, customer_id, name) VALUES (%s, %s, 'gewild.example')",
                    (reseller, customer),
                )
            answers.append("")
        except psycopg2.Error as error:
            answers.append(directory.explain(error).message)

    threads = [threading.Thread(target=claim, args=tenant) for tenant in tenants]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"resellers that got the domain: {answers.count('')} of {count}")
    assert sorted(answers) == ["", *[neutral("gewild.example")] * (count - 1)]


# ------------------------------------------------------------------------------------------------- logins, removals


def test_every_login_is_an_address(accounts: Any, two: dict[str, str]) -> None:
    accounts.user(two["r1"], two["c1"], "bel@klant1.example", mail=False)
    query = "SELECT address::text FROM directory.addresses WHERE kind = 'user' AND reseller_id = %s ORDER BY 1"
    assert accounts.execute(query, (two["r1"],)) == [("bel@klant1.example",), ("jan@klant1.example",)]
    accounts.execute("UPDATE directory.users SET login = 'johan@klant1.example' WHERE user_id = %s", (two["u1"],))
    assert accounts.execute(query, (two["r1"],)) == [("bel@klant1.example",), ("johan@klant1.example",)]
    accounts.execute("DELETE FROM directory.users WHERE user_id = %s", (two["u1"],))
    assert accounts.execute(query, (two["r1"],)) == [("bel@klant1.example",)]


def test_an_alias_cannot_take_the_login_of_somebody_without_mail(accounts: Any, two: dict[str, str]) -> None:
    accounts.user(two["r1"], two["c1"], "bel@klant1.example", mail=False)
    with pytest.raises(psycopg2.errors.UniqueViolation):
        accounts.alias(two["r1"], two["c1"], two["u1"], "bel@klant1.example")


def test_removing_a_customer_removes_all_of_it_and_notes_what_is_on_disk(
    database: Any, accounts: Any, two: dict[str, str]
) -> None:
    reseller, customer, user = two["r1"], two["c1"], two["u1"]
    accounts.alias(reseller, customer, user, "info@klant1.example")
    accounts.forward(reseller, customer, user, "a@ver.example")
    accounts.group(reseller, customer, "alles@klant1.example", [user])
    resource = accounts.resource(reseller, customer, "kamer@klant1.example")
    accounts.domain(reseller, customer, "tweede.example", alias_of="klant1.example")
    accounts.limit(reseller, "users", 5, customer=customer)
    accounts.limit(reseller, "aliases", 5, customer=customer, user=user)
    accounts.use("jan@klant1.example", 100)
    accounts.execute('UPDATE directory.resellers SET placement = \'{"mail": "mail2"}\'')
    accounts.execute("DELETE FROM directory.customers WHERE customer_id = %s", (customer,))
    for table in ("users", "domains", "addresses", "forwards", "groups", "group_members", "resources", "mail_usage"):
        assert accounts.execute(f"SELECT count(*) FROM directory.{table} WHERE reseller_id = %s", (reseller,)) == [
            (0,)
        ], table
    assert accounts.execute("SELECT count(*) FROM directory.limits WHERE reseller_id = %s", (reseller,)) == [(0,)]
    noted = dict(accounts.execute("SELECT owner_id, kind FROM directory.removals WHERE reseller_id = %s", (reseller,)))
    assert (noted[customer], noted[user], noted[resource]) == ("customer", "user", "resource")
    homes = dict(database.rows("SELECT owner_id, home FROM mail.removals", user="dovecot"))
    assert homes[user] == f"/var/vmail/noorderict/{customer}/{user}"
    assert homes[customer] == f"/var/vmail/noorderict/{customer}"
    assert database.rows("SELECT DISTINCT machine FROM mail.removals", user="dovecot") == [("mail2",)]
    database.rows("SELECT mail.removal_done(%s)", (user,), user="dovecot")
    assert user not in dict(database.rows("SELECT owner_id, home FROM mail.removals", user="dovecot"))


def test_a_domain_with_people_stays(accounts: Any, two: dict[str, str]) -> None:
    assert accounts.refusal("DELETE FROM directory.domains WHERE name = 'klant1.example'").sqlstate == "23503"


def test_a_reseller_is_not_removed_by_accident(accounts: Any, two: dict[str, str]) -> None:
    assert accounts.refusal("DELETE FROM directory.resellers").sqlstate == "23503"


def test_unix_ids_are_never_used_twice(accounts: Any) -> None:
    reseller = accounts.reseller()
    seen = []
    for _ in range(3):
        accounts.customer(reseller, "klant")
        seen += accounts.execute("DELETE FROM directory.customers RETURNING unix_id")
    assert [row[0] for row in seen] == [200000, 200001, 200002]


def test_every_table_can_be_moved_by_reseller(accounts: Any) -> None:
    """reseller_id in the primary key of every table of a reseller, by real columns: what a row filter needs."""
    tables = accounts.execute(
        "SELECT c.relname, bool_or(a.attname = 'reseller_id'), bool_or(a.attgenerated <> '')"
        " FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)"
        " WHERE c.relnamespace = 'directory'::regnamespace AND c.relkind = 'r' GROUP BY 1"
    )
    for name, by_reseller, generated in tables:
        # The list of limits and the migrations are the site's; a claim's request has no reseller yet.
        if name not in {"limit_names", "migrations", "claim_requests"}:
            assert by_reseller, name
        assert not generated, name
    assert len(tables) > 20


def test_foreign_keys_have_an_index(accounts: Any) -> None:
    """Or removing a row reads the whole of every table that points at it. Two leading columns of the key will do."""
    missing = accounts.execute(
        "SELECT conrelid::regclass::text, conname FROM pg_constraint k WHERE contype = 'f'"
        " AND connamespace = 'directory'::regnamespace AND cardinality(conkey) > 1"
        " AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = k.conrelid AND i.indnatts > 1"
        "   AND k.conkey @> (i.indkey::smallint[])[0:1])"
    )
    # Products are few and go seldom; the people of one reseller are looked through then.
    assert missing == [("directory.users", "users_reseller_id_product_fkey")]
