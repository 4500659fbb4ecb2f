# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits hold in the database: at the boundary, in bulk, against fifty writers at once; and they block growth only."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory, limits

GIB = 2**30


@pytest.fixture
def tenant(accounts: Any) -> dict[str, str]:
    """A reseller with a customer that has a domain, and one person."""
    reseller = accounts.reseller()
    customer = accounts.customer(reseller)
    accounts.domain(reseller, customer)
    user = accounts.user(reseller, customer, "jan@degraaf.example", mail_quota=0)
    return {"reseller": reseller, "customer": customer, "user": user}


def add(accounts: Any, tenant: dict[str, str], limit: str, number: int) -> None:
    """One more of what a limit counts."""
    reseller, customer = tenant["reseller"], tenant["customer"]
    match limit:
        case "customers":
            accounts.customer(reseller, f"klant{number}")
        case "domains":
            accounts.domain(reseller, customer, f"d{number}.example")
        case "users":
            accounts.user(reseller, customer, f"p{number}@degraaf.example")
        case "groups":
            accounts.insert("groups", reseller_id=reseller, customer_id=customer, name=f"groep{number}")
        case "aliases":
            accounts.alias(reseller, customer, tenant["user"], f"a{number}@degraaf.example")
        case "extensions":
            accounts.insert("extensions", reseller_id=reseller, customer_id=customer, extension=f"{100 + number}")
        case "numbers":
            accounts.insert("numbers", reseller_id=reseller, customer_id=customer, number=f"+3131800{number:04d}")
        case "mail_storage":
            accounts.user(reseller, customer, f"p{number}@degraaf.example", mail_quota=GIB)
        case "file_storage":
            accounts.user(reseller, customer, f"p{number}@degraaf.example", mail_quota=0, files=True, file_quota=GIB)


# What is there besides, from the fixture: (limit, already in use, step).
COUNTED = {
    "customers": 1, "domains": 1, "users": 1, "groups": 0, "aliases": 0, "extensions": 0, "numbers": 0,
    "mail_storage": 0, "file_storage": 0,
}  # fmt: skip
CASES = [
    (name, level)
    for name in COUNTED
    for level in ("reseller", "customer")
    if (name, level) != ("customers", "customer")
]


@pytest.mark.parametrize(("name", "level"), CASES)
def test_exactly_the_limit_and_one_more(accounts: Any, tenant: dict[str, str], name: str, level: str) -> None:
    storage = name.endswith("_storage")
    step = GIB if storage else 1
    maximum = (COUNTED[name] + 2) * step if not storage else 2 * GIB
    accounts.limit(
        tenant["reseller"], name, maximum, customer=tenant["customer"] if level == "customer" else None,
        **({"basis": "allocated"} if storage else {}),
    )  # fmt: skip
    add(accounts, tenant, name, 1)
    add(accounts, tenant, name, 2)
    with pytest.raises(psycopg2.Error) as refused:
        add(accounts, tenant, name, 3)
    error = directory.explain(refused.value)
    owner = "noorderict" if level == "reseller" else "bakkerij"
    figures = ("2 GiB", "2 GiB", "1 GiB") if storage else (str(maximum), str(maximum), "1")
    assert error.message == "limit {} of {} {}: max {}, in use {}, wanted {} more".format(name, level, owner, *figures)
    assert error.sqlstate == directory.LIMIT
    detail = {
        "limit": name,
        "level": level,
        "reseller": "noorderict",
        "max": maximum,
        "in_use": maximum,
        "wanted": step,
    }
    detail |= {"customer": "bakkerij"} if level == "customer" else {}
    detail |= {"basis": "allocated"} if storage else {}
    assert error.detail == detail
    assert name in error.hint


def test_a_person_alias_limit(accounts: Any, tenant: dict[str, str]) -> None:
    reseller, customer, user = tenant.values()
    other = accounts.user(reseller, customer, "eva@degraaf.example")
    accounts.limit(reseller, "aliases", 1, customer=customer, user=user)
    accounts.alias(reseller, customer, user, "a@degraaf.example")
    accounts.alias(reseller, customer, other, "b@degraaf.example")
    with pytest.raises(psycopg2.Error) as refused:
        accounts.alias(reseller, customer, user, "c@degraaf.example")
    message = "limit aliases of user jan@degraaf.example: max 1, in use 1, wanted 1 more"
    assert directory.explain(refused.value).message == message
    # Given to him by somebody else: no growth for the customer, growth for him.
    refusal = accounts.refusal(
        "UPDATE directory.addresses SET user_id = %s WHERE address = 'b@degraaf.example'", (user,)
    )
    assert refusal.message == message
    accounts.execute("UPDATE directory.addresses SET user_id = %s WHERE address = 'a@degraaf.example'", (other,))


@pytest.mark.parametrize("level", ["reseller", "customer"])
def test_in_bulk_all_or_nothing(accounts: Any, tenant: dict[str, str], level: str) -> None:
    reseller, customer, _user = tenant.values()
    accounts.limit(reseller, "users", 1001, customer=customer if level == "customer" else None)
    with pytest.raises(psycopg2.Error) as refused:
        accounts.users(reseller, customer, 1001)
    assert directory.explain(refused.value).message.endswith("max 1001, in use 1, wanted 1001 more")
    assert accounts.execute("SELECT count(*) FROM directory.users") == [(1,)]
    accounts.users(reseller, customer, 1000)


def test_the_tightest_level_counts(accounts: Any, tenant: dict[str, str]) -> None:
    reseller, customer, _user = tenant.values()
    other = accounts.customer(reseller, "ander")
    accounts.domain(reseller, other, "ander.example")
    accounts.limit(reseller, "users", 4)
    accounts.limit(reseller, "users", 3, customer=customer)
    accounts.users(reseller, customer, 2)
    with pytest.raises(psycopg2.Error, match="limit users of customer bakkerij: max 3, in use 3, wanted 1 more"):
        accounts.user(reseller, customer, "x@degraaf.example")
    accounts.user(reseller, other, "x@ander.example")
    with pytest.raises(psycopg2.Error, match="limit users of reseller noorderict: max 4, in use 4, wanted 1 more"):
        accounts.user(reseller, other, "y@ander.example")


def test_one_statement_over_several_customers(accounts: Any, tenant: dict[str, str]) -> None:
    """A bulk insert that fits the reseller and not one of the customers."""
    reseller = tenant["reseller"]
    other = accounts.customer(reseller, "ander")
    accounts.domain(reseller, other, "ander.example")
    accounts.limit(reseller, "users", 100)
    accounts.limit(reseller, "users", 1, customer=other)
    query = (
        "INSERT INTO directory.users (reseller_id, customer_id, login, name)"
        " SELECT reseller_id, customer_id, 'n' || i || '@' || name, 'N'"
        " FROM directory.domains, generate_series(1, 2) AS i"
    )
    assert accounts.refusal(query).message == "limit users of customer ander: max 1, in use 0, wanted 2 more"


def test_absent_is_no_limit_and_zero_is_none(accounts: Any, tenant: dict[str, str]) -> None:
    reseller, customer, _user = tenant.values()
    accounts.users(reseller, customer, 50)
    accounts.limit(reseller, "groups", 0)
    with pytest.raises(psycopg2.Error, match="limit groups of reseller noorderict: max 0, in use 0, wanted 1 more"):
        add(accounts, tenant, "groups", 1)


def test_lowered_below_use_blocks_growth_only(accounts: Any, tenant: dict[str, str]) -> None:
    reseller, customer, _user = tenant.values()
    accounts.users(reseller, customer, 9)
    accounts.limit(reseller, "users", 10, customer=customer)
    accounts.execute("UPDATE directory.limits SET max = 5")
    accounts.execute("UPDATE directory.users SET name = 'Nieuwe naam'")
    status = accounts.execute('SELECT max, in_use, "over" FROM directory.limit_status')
    assert status == [(5, 10, True)]
    with pytest.raises(psycopg2.Error, match="limit users of customer bakkerij: max 5, in use 10, wanted 1 more"):
        accounts.user(reseller, customer, "x@degraaf.example")
    accounts.execute("DELETE FROM directory.users WHERE login LIKE 'u%'")
    accounts.users(reseller, customer, 4)
    assert accounts.execute('SELECT max, in_use, "over" FROM directory.limit_status') == [(5, 5, False)]


def test_soft_lets_through_and_shows(accounts: Any, tenant: dict[str, str]) -> None:
    reseller, customer, _user = tenant.values()
    accounts.limit(reseller, "users", 4, enforce="soft", warn_at=[80, 95])
    columns = 'in_use, percent, "over", warned, enforce'
    accounts.users(reseller, customer, 2)
    assert accounts.execute(f"SELECT {columns} FROM directory.limit_status") == [(3, 75, False, None, "soft")]
    accounts.users(reseller, customer, 2, prefix="v")
    assert accounts.execute(f"SELECT {columns} FROM directory.limit_status") == [(5, 125, True, 95, "soft")]


def test_a_soft_level_does_not_open_a_hard_one(accounts: Any, tenant: dict[str, str]) -> None:
    reseller, customer, _user = tenant.values()
    accounts.limit(reseller, "users", 1, enforce="soft")
    accounts.limit(reseller, "users", 2, customer=customer)
    accounts.users(reseller, customer, 1)
    with pytest.raises(psycopg2.Error, match="limit users of customer bakkerij: max 2, in use 2, wanted 1 more"):
        accounts.users(reseller, customer, 1, prefix="v")


# ---------------------------------------------------------------------------------------------------------- states


def test_suspended_by_the_file_counts_absent_does_not_and_back_is_growth(accounts: Any, tenant: dict[str, str]) -> None:
    reseller, customer, _user = tenant.values()
    accounts.limit(reseller, "users", 3)
    accounts.users(reseller, customer, 2)
    jan = "UPDATE directory.users SET state = %s, suspended_because = %s WHERE login = 'jan@degraaf.example'"
    accounts.execute(jan, ("suspended", "file"))
    with pytest.raises(psycopg2.Error, match="max 3, in use 3, wanted 1 more"):
        accounts.users(reseller, customer, 1, prefix="v")
    accounts.execute(jan, ("active", None))
    accounts.execute(jan, ("suspended", "absent"))
    accounts.users(reseller, customer, 1, prefix="v")
    for state in (("active", None), ("suspended", "file")):
        assert (
            accounts.refusal(jan, state).message == "limit users of reseller noorderict: max 3, in use 3, wanted 1 more"
        )
    # One goes while the other comes back: no growth.
    accounts.execute(
        "UPDATE directory.users SET state = CASE login WHEN 'v1@degraaf.example' THEN 'suspended' ELSE 'active' END,"
        " suspended_because = CASE login WHEN 'v1@degraaf.example' THEN 'absent' END"
        " WHERE login IN ('v1@degraaf.example', 'jan@degraaf.example')"
    )


@pytest.mark.parametrize("table", ["customers", "domains", "groups"])
def test_the_same_for_other_things_with_a_state(accounts: Any, tenant: dict[str, str], table: str) -> None:
    add(accounts, tenant, table, 1)
    maximum = COUNTED[table] + 1
    accounts.limit(tenant["reseller"], table, maximum)
    accounts.execute(f"UPDATE directory.{table} SET state = 'suspended', suspended_because = 'absent'")
    add(accounts, tenant, table, 2)
    assert accounts.execute("SELECT in_use FROM directory.limit_status") == [(1,)]
    refused = accounts.refusal(f"UPDATE directory.{table} SET state = 'active', suspended_because = NULL")
    assert refused.message == f"limit {table} of reseller noorderict: max {maximum}, in use 1, wanted {maximum} more"


def test_storage_of_who_is_absent_still_counts(accounts: Any, tenant: dict[str, str]) -> None:
    reseller = tenant["reseller"]
    accounts.limit(reseller, "mail_storage", 3 * GIB, basis="allocated")
    add(accounts, tenant, "mail_storage", 1)
    add(accounts, tenant, "mail_storage", 2)
    accounts.execute("UPDATE directory.users SET state = 'suspended', suspended_because = 'absent'")
    add(accounts, tenant, "mail_storage", 3)
    with pytest.raises(psycopg2.Error, match="max 3 GiB, in use 3 GiB, wanted 1 GiB more"):
        add(accounts, tenant, "mail_storage", 4)


def test_the_probe_does_not_count(accounts: Any, tenant: dict[str, str]) -> None:
    reseller = tenant["reseller"]
    for name, maximum in (("customers", 1), ("domains", 1), ("users", 1)):
        accounts.limit(reseller, name, maximum)
    accounts.limit(reseller, "mail_storage", 0, basis="allocated")
    hidden = accounts.customer(reseller, "verify", kind="probe")
    accounts.domain(reseller, hidden, "verify.noorderict.example", kind="probe")
    accounts.user(reseller, hidden, "probe@verify.noorderict.example", kind="probe", mail_quota=GIB)
    assert {row[0]: row[1] for row in accounts.execute('SELECT "limit", in_use FROM directory.limit_status')} == {
        "customers": 1, "domains": 1, "users": 1, "mail_storage": 0,
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------- storage


def test_handed_out_storage(accounts: Any, tenant: dict[str, str]) -> None:
    reseller, customer, user = tenant.values()
    accounts.limit(reseller, "mail_storage", 10 * GIB, customer=customer, basis="allocated")
    accounts.execute("UPDATE directory.users SET mail_quota = %s", (6 * GIB,))
    group = accounts.group(reseller, customer, "alles@degraaf.example", [user], kind="shared_mailbox")
    accounts.execute("UPDATE directory.groups SET mail_quota = %s", (3 * GIB,))
    message = "limit mail_storage of customer bakkerij: max 10 GiB, in use 9 GiB, wanted 1.5 GiB more"
    assert accounts.refusal("UPDATE directory.users SET mail_quota = %s", (7 * GIB + GIB // 2,)).message == message
    assert (
        accounts.refusal(
            "UPDATE directory.groups SET mail_quota = %s WHERE group_id = %s", (4 * GIB + GIB // 2, group)
        ).message
        == message
    )
    accounts.execute("UPDATE directory.users SET mail_quota = %s", (7 * GIB,))
    # Without mail it hands out nothing.
    accounts.execute("UPDATE directory.users SET mail = false")
    assert accounts.execute("SELECT in_use FROM directory.limit_status") == [(3 * GIB,)]


def test_a_person_without_quota_would_escape_a_pool_that_is_handed_out(accounts: Any, tenant: dict[str, str]) -> None:
    reseller, customer, _user = tenant.values()
    accounts.user(reseller, customer, "oud@degraaf.example")
    accounts.limit(reseller, "mail_storage", 10 * GIB, basis="allocated")
    with pytest.raises(psycopg2.Error) as refused:
        accounts.user(reseller, customer, "eva@degraaf.example")
    error = directory.explain(refused.value)
    assert (error.sqlstate, error.message) == (
        directory.NO_QUOTA,
        (
            "user eva@degraaf.example has no mail quota,"
            " but mail_storage of reseller noorderict is handed out (basis allocated)"
        ),
    )
    assert error.detail == {
        "limit": "mail_storage", "level": "reseller", "reseller": "noorderict", "user": "eva@degraaf.example",
    }  # fmt: skip
    refusal = accounts.refusal("UPDATE directory.users SET mail_quota = NULL WHERE login = 'jan@degraaf.example'")
    assert refusal.sqlstate == directory.NO_QUOTA
    # Who had none before the limit came is left alone.
    accounts.execute("UPDATE directory.users SET name = 'Oud' WHERE login = 'oud@degraaf.example'")
    accounts.user(reseller, customer, "bel@degraaf.example", mail=False)


def test_used_storage_is_reported_and_never_refused_here(accounts: Any, tenant: dict[str, str]) -> None:
    """Mail that is there is there; the mail service refuses the next one (test_directory_mail.py)."""
    reseller, customer, _user = tenant.values()
    accounts.limit(reseller, "mail_storage", GIB)
    accounts.use("jan@degraaf.example", 2 * GIB)
    accounts.user(reseller, customer, "eva@degraaf.example", mail_quota=100 * GIB)
    assert accounts.execute('SELECT in_use, percent, "over" FROM directory.limit_status') == [(2 * GIB, 200, True)]


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0"), (1, "1 bytes"), (1024, "1 KiB"), (1025, "1025 bytes"), (1536, "1.5 KiB"), (10 * GIB, "10 GiB"),
        (2**40, "1 TiB"), (2**40 + GIB, "1025 GiB"), (1000**3, "976562.5 KiB"), (1000**3 + 1, "1000000001 bytes"),
        (2 * 2**40, "2 TiB"),
    ],
)  # fmt: skip
def test_sizes_for_people_are_exact(module_database: Any, amount: int, text: str) -> None:
    assert module_database.value("SELECT directory.amount_text(%s, 'bytes')", (amount,)) == text


# ------------------------------------------------------------------------------------------------------ definition


def test_the_database_knows_the_limits_of_the_registry(module_database: Any) -> None:
    rows = module_database.rows("SELECT name, unit, levels, always_hard FROM directory.limit_names")
    assert {row[0]: row[1:] for row in rows} == {
        limit.name: (limit.unit, list(limit.levels), limit.always_hard) for limit in limits.LIMITS.values()
    }


@pytest.mark.parametrize("name", limits.LIMITS)
@pytest.mark.parametrize("level", limits.LEVELS)
@pytest.mark.parametrize("enforce", ["hard", "soft"])
def test_limits_exist_where_the_registry_says(
    accounts: Any, tenant: dict[str, str], name: str, level: str, enforce: str
) -> None:
    limit = limits.LIMITS[name]
    owner = {
        "reseller": {}, "customer": {"customer": tenant["customer"]},
        "user": {"customer": tenant["customer"], "user": tenant["user"]},
    }[level]  # fmt: skip
    allowed = level in limit.levels and not (enforce == "soft" and limit.hard_at(level))
    with contextlib.nullcontext() if allowed else pytest.raises(psycopg2.errors.CheckViolation):
        accounts.limit(tenant["reseller"], name, 1, enforce=enforce, **owner)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": "usres", "maximum": 1}, "limits refused: there is no limit of this name"),
        ({"name": "users", "maximum": -1}, "limits refused: a limit is 0 or more"),
        ({"name": "users", "maximum": "1.5"}, "limits refused: a limit is a whole number (money excepted)"),
        ({"name": "users", "maximum": 1, "basis": "used"}, "limits refused: only storage has a basis"),
        ({"name": "mail_storage", "maximum": 1, "basis": None},
         "limits refused: a pool of storage needs a basis: used or allocated"),
        ({"name": "concurrent_calls", "maximum": 1, "enforce": "soft"},
         "limits refused: calls, rates and people's own quotas cannot be soft"),
    ],
)  # fmt: skip
def test_a_wrong_limit(accounts: Any, tenant: dict[str, str], columns: dict[str, Any], message: str) -> None:
    with pytest.raises(psycopg2.Error) as refused:
        accounts.limit(tenant["reseller"], **columns)
    assert directory.explain(refused.value).message == message


def test_money_has_cents(accounts: Any, tenant: dict[str, str]) -> None:
    accounts.limit(tenant["reseller"], "call_spend_per_day", "250.50")
    assert accounts.execute("SELECT max::text, in_use FROM directory.limit_status") == [("250.50", None)]


# ----------------------------------------------------------------------------------------------------- concurrency


def attack(database: Any, work: list[Callable[[Any], None]]) -> list[str]:
    """Every piece of work on a connection of its own, started together; the refusals, "" for what passed."""
    start = threading.Barrier(len(work))
    answers = []

    def run(piece: Callable[[Any], None]) -> None:
        connection = database.connect()
        start.wait()
        try:
            with connection, connection.cursor() as cursor:
                piece(cursor)
            answers.append("")
        except psycopg2.Error as error:
            answers.append(directory.explain(error).message)

    threads = [threading.Thread(target=run, args=(piece,)) for piece in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def inserting(tenant: dict[str, str], number: int, count: int = 1, **columns: Any) -> Callable[[Any], None]:
    def run(cursor: Any) -> None:
        for step in range(count):
            cursor.execute(
                "INSERT INTO directory.users (reseller_id, customer_id, login, name, mail, mail_quota)"
                " VALUES (%s, %s, %s, 'X', true, %s)",
                (
                    tenant["reseller"],
                    tenant["customer"],
                    f"p{number}x{step}@degraaf.example",
                    columns.get("mail_quota", 0),
                ),
            )

    return run


@pytest.mark.parametrize("level", ["reseller", "customer"])
def test_fifty_writers_at_once(database: Any, accounts: Any, tenant: dict[str, str], level: str) -> None:
    free = 17
    accounts.limit(tenant["reseller"], "users", 1 + free, customer=tenant["customer"] if level == "customer" else None)
    answers = attack(database, [inserting(tenant, number) for number in range(50)])
    in_use = accounts.execute("SELECT in_use FROM directory.limit_status")[0][0]
    print(f"{level}: writers {len(answers)}, allowed {free}, passed {answers.count('')}, in use {in_use}")
    assert answers.count("") == free
    assert in_use == 1 + free
    owner = "customer bakkerij" if level == "customer" else "reseller noorderict"
    assert set(answers) == {"", f"limit users of {owner}: max 18, in use 18, wanted 1 more"}


def test_fifty_transactions_of_several_statements(database: Any, accounts: Any, tenant: dict[str, str]) -> None:
    accounts.limit(tenant["reseller"], "users", 31)
    answers = attack(database, [inserting(tenant, number, count=3) for number in range(50)])
    in_use = accounts.execute("SELECT in_use FROM directory.limit_status")[0][0]
    print(f"allowed 10 transactions of 3, passed {answers.count('')}, in use {in_use}")
    assert (answers.count(""), in_use) == (10, 31)


def test_fifty_writers_of_storage(database: Any, accounts: Any, tenant: dict[str, str]) -> None:
    accounts.limit(tenant["reseller"], "mail_storage", 13 * GIB, basis="allocated")
    answers = attack(database, [inserting(tenant, number, mail_quota=GIB) for number in range(50)])
    in_use = accounts.execute("SELECT in_use FROM directory.limit_status")[0][0]
    print(f"allowed 13 GiB, passed {answers.count('')}, in use {in_use / GIB} GiB")
    assert (answers.count(""), in_use) == (13, 13 * GIB)


def test_fifty_people_come_back_at_once(database: Any, accounts: Any, tenant: dict[str, str]) -> None:
    accounts.users(tenant["reseller"], tenant["customer"], 50)
    accounts.execute(
        "UPDATE directory.users SET state = 'suspended', suspended_because = 'absent' WHERE login LIKE 'u%'"
    )
    accounts.limit(tenant["reseller"], "users", 11, customer=tenant["customer"])

    def resuming(number: int) -> Callable[[Any], None]:
        return lambda cursor: cursor.execute(
            "UPDATE directory.users SET state = 'active', suspended_because = NULL WHERE login = %s",
            (f"u{number}@degraaf.example",),
        )

    answers = attack(database, [resuming(number) for number in range(1, 51)])
    print(f"allowed 10, passed {answers.count('')}")
    assert answers.count("") == 10


def test_writers_of_two_customers_under_one_reseller(database: Any, accounts: Any, tenant: dict[str, str]) -> None:
    """Each customer's limit has room, the reseller's has not; no deadlock whatever the order."""
    reseller, customer, _user = tenant.values()
    other = accounts.customer(reseller, "ander")
    accounts.domain(reseller, other, "ander.example")
    accounts.limit(reseller, "users", 11)
    accounts.limit(reseller, "users", 20, customer=customer)
    accounts.limit(reseller, "users", 20, customer=other)

    def both(number: int) -> Callable[[Any], None]:
        pairs = [(customer, "degraaf.example"), (other, "ander.example")]

        def run(cursor: Any) -> None:
            for owner, domain in pairs if number % 2 else reversed(pairs):
                cursor.execute(
                    "INSERT INTO directory.users (reseller_id, customer_id, login, name) VALUES (%s, %s, %s, 'X')",
                    (reseller, owner, f"p{number}@{domain}"),
                )

        return run

    answers = attack(database, [both(number) for number in range(40)])
    print(f"allowed 5 pairs, passed {answers.count('')}")
    assert answers.count("") == 5
    assert all(answer == "" or answer.startswith("limit users of reseller noorderict") for answer in answers)


def test_other_resellers_do_not_wait(database: Any, accounts: Any, tenant: dict[str, str]) -> None:
    second = accounts.reseller("zuidwest")
    klant = accounts.customer(second, "klant")
    accounts.domain(second, klant, "klant.example")
    for reseller in (tenant["reseller"], second):
        accounts.limit(reseller, "users", 10)
    busy = database.connect()
    inserting(tenant, 1)(busy.cursor())
    accounts.execute("SET lock_timeout = '1s'")
    accounts.user(second, klant, "eva@klant.example")
    accounts.execute("UPDATE directory.users SET password_hash = NULL WHERE login = 'jan@degraaf.example'")
    assert accounts.refusal(
        "INSERT INTO directory.users (reseller_id, customer_id, login, name) VALUES (%s, %s, 'y@degraaf.example', 'Y')",
        (tenant["reseller"], tenant["customer"]),
    ).temporary


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_transaction_that_cannot_see_others_is_turned_away(
    database: Any, accounts: Any, tenant: dict[str, str], level: str
) -> None:
    accounts.limit(tenant["reseller"], "users", 10)
    connection = database.connect()
    connection.set_session(isolation_level=level)
    with pytest.raises(
        psycopg2.errors.FeatureNotSupported, match="changes of accounts need isolation level read committed"
    ):
        inserting(tenant, 1)(connection.cursor())


def test_it_is_the_lock_that_holds(fresh_database: Any, fresh_accounts: Any) -> None:
    """Control: without it two writers pass where there is room for one, so the tests above can fail."""
    accounts = fresh_accounts
    reseller = accounts.reseller()
    customer = accounts.customer(reseller)
    accounts.domain(reseller, customer)
    accounts.limit(reseller, "users", 1)
    source = fresh_database.value(
        "SELECT pg_get_functiondef(oid) FROM pg_proc"
        " WHERE proname = 'check_limit' AND prosrc LIKE '%FOR NO KEY UPDATE%'"
    )
    fresh_database.rows(source.replace("FOR NO KEY UPDATE", ""))
    first, second = fresh_database.connect(), fresh_database.connect()
    for number, connection in enumerate((first, second)):
        inserting({"reseller": reseller, "customer": customer}, number)(connection.cursor())
    first.commit()
    second.commit()
    assert accounts.execute('SELECT max, in_use, "over" FROM directory.limit_status') == [(1, 2, True)]


def test_merge_swaps_at_exactly_the_limit(accounts: Any, tenant: dict[str, str]) -> None:
    reseller, customer, _user = tenant.values()
    accounts.users(reseller, customer, 3)
    accounts.limit(reseller, "users", 4)
    accounts.execute(
        "MERGE INTO directory.users u"
        " USING (SELECT %(reseller)s::uuid AS reseller_id, %(customer)s::uuid AS customer_id,"
        "   name || '@degraaf.example' AS login FROM unnest(ARRAY['jan', 'u1', 'u2', 'nieuw']) AS name) AS w"
        " ON u.reseller_id = w.reseller_id AND u.login = w.login"
        " WHEN NOT MATCHED THEN INSERT (reseller_id, customer_id, login, name)"
        "   VALUES (w.reseller_id, w.customer_id, w.login, 'X')"
        " WHEN NOT MATCHED BY SOURCE AND u.reseller_id = %(reseller)s THEN DELETE",
        {"reseller": reseller, "customer": customer},
    )
    logins = [row[0].split("@")[0] for row in accounts.execute("SELECT login FROM directory.users ORDER BY 1")]
    assert logins == ["jan", "nieuw", "u1", "u2"]
