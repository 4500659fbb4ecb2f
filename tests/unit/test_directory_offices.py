# SPDX-License-Identifier: GPL-3.0-or-later
"""How long deleted mail waits, whose mail is forwarded under another sender, and who is full."""

from __future__ import annotations

from typing import Any

import pytest

JAN, EVA = "jan@degraaf.example", "eva@degraaf.example"


@pytest.fixture
def bakery(accounts: Any) -> dict[str, str]:
    """Two people with a mailbox of 1000 bytes, at a reseller placed on mail1."""
    reseller = accounts.reseller(placement='{"mail": "mail1"}')
    customer = accounts.customer(reseller)
    accounts.domain(reseller, customer)
    people = {login: accounts.user(reseller, customer, login, mail_quota=1000) for login in (JAN, EVA)}
    return {"reseller": reseller, "customer": customer, **people}


def settings(accounts: Any, days: int) -> None:
    accounts.execute("UPDATE directory.resellers SET settings = jsonb_build_object('expunged_days', %s::int)", (days,))


def kept(database: Any, login: str) -> Any:
    return database.value("SELECT mail.expunged_mailbox(%s)", (login,), user="dovecot")


def periods(database: Any, machine: str) -> list[Any]:
    query = "SELECT login, days FROM mail.expunged_periods(%s)"
    return database.rows(query, (machine,), user="dovecot")


@pytest.mark.usefixtures("bakery")
def test_deleted_mail_waits_as_long_as_the_contract_says(accounts: Any, database: Any) -> None:
    assert kept(database, JAN) == ".EXPUNGED/mail"
    assert periods(database, "mail1") == [(EVA, 14), (JAN, 14)]
    settings(accounts, 30)
    assert kept(database, JAN.upper()) == ".EXPUNGED/mail"
    assert periods(database, "mail1") == [(EVA, 30), (JAN, 30)]
    settings(accounts, 0)
    assert kept(database, JAN) == ""
    assert periods(database, "mail1") == [(EVA, 0), (JAN, 0)]
    assert periods(database, "mail2") == []


def test_of_a_stranger_nothing_is_kept(database: Any) -> None:
    assert kept(database, "niemand@elders.example") == ""


@pytest.mark.parametrize(
    ("sender", "foreign"),
    [
        ("dirk@buiten.example", True),
        ('"a b"@buiten.example', True),
        (JAN, False),
        ("Wie.Ook@DeGraaf.example", False),
        ("root@mail1.example", False),
        ("SRS0=x=y=buiten.example=dirk@srs.mail1.example", False),
        ("<>", False),
        ("", False),
        ("root", False),
        ("@buiten.example", False),
        ("x' OR '1'='1@buiten.example", True),
    ],
)
@pytest.mark.usefixtures("bakery")
def test_which_senders_are_foreign(database: Any, sender: str, foreign: bool) -> None:
    query = "SELECT mail.sender_is_foreign(%s, 'mail1', ARRAY['mail1.example', 'srs.mail1.example'])"
    assert database.value(query, (sender,), user="postfix") is foreign


@pytest.mark.usefixtures("bakery")
def test_a_domain_of_another_machine_is_foreign(database: Any) -> None:
    query = "SELECT mail.sender_is_foreign(%s, 'mail2', ARRAY['mail2.example'])"
    assert database.value(query, (JAN,), user="postfix") is True


def full(database: Any) -> list[tuple[Any, ...]]:
    query = 'SELECT customer, "user", level, "limit", percent::float, over FROM directory.full_status ORDER BY 3, 2'
    return database.rows(query, user="verify")


def test_who_is_full(accounts: Any, database: Any, bakery: dict[str, str]) -> None:
    assert full(database) == []
    accounts.use(JAN, 799)
    accounts.use(EVA, 800)
    assert full(database) == [("bakkerij", EVA, "user", "mail_storage", 80.0, False)]
    accounts.use(EVA, 1001)
    assert full(database) == [("bakkerij", EVA, "user", "mail_storage", 100.1, True)]
    accounts.limit(bakery["reseller"], "mail_storage", 3600, basis="used", warn_at=[50])
    assert full(database) == [
        (None, None, "reseller", "mail_storage", 50.0, False),
        ("bakkerij", EVA, "user", "mail_storage", 100.1, True),
        ("bakkerij", JAN, "user", "mail_storage", 79.9, False),
    ]
