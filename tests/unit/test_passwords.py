# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords: made, hashed as the mail service reads them, set for all or for none, taken away."""

from __future__ import annotations

import re
from typing import Any

import argon2
import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import passwords, reconcile
from ansible_collections.bouwsteen.hosting.plugins.module_utils.passwords import PasswordError

FIRST = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$Zmlyc3Q$Zmlyc3Q"
JAN, EVA, PIET = "jan@degraaf.example", "eva@degraaf.example", "piet@fietsen.example"
PROBE = "probe@verify.noorderict.example"


def person(login: str, state: str = "active") -> dict[str, Any]:
    mail = {"aliases": [], "forward": [], "keep_copy": True, "quota": None}
    return {
        "login": login, "name": "Iemand", "state": state, "product": None, "language": "nl", "password_hash": FIRST,
        "limits": {}, "mail": mail, "phone": None, "files": None,
    }  # fmt: skip


def estate() -> dict[str, Any]:
    def customer(name: str, state: str, *users: dict[str, Any]) -> dict[str, Any]:
        domains = [{"name": f"{name}.example", "alias_of": None}]
        return {"name": name, "title": name, "state": state, "limits": {}, "domains": domains, "users": list(users)}

    return {
        "format": 1,
        "reseller": {
            "name": "noorderict", "title": "Noorder ICT", "engineer": "beheer@noorderict.example",
            "domain": "noorderict.example", "retention_days": 30,
        },
        "customers": [
            customer("degraaf", "active", person(JAN), person(EVA, "suspended")),
            customer("fietsen", "suspended", person(PIET)),
        ],
    }  # fmt: skip


@pytest.fixture
def admin(database: Any) -> Any:
    connection = database.admin("test_passwords")
    reconcile.reconcile(connection, estate(), reconcile.Options())
    return connection


def hash_of(database: Any, login: str) -> str | None:
    value = database.value("SELECT password_hash FROM directory.users WHERE login = %s", [login])
    return None if value is None else str(value)


def test_fresh_passwords_are_long_readable_and_different() -> None:
    made = {passwords.generate() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"([a-km-np-z2-9]{5}-){3}[a-km-np-z2-9]{5}", one) for one in made)


def test_the_hash_has_the_cost_of_the_directorys_dummy() -> None:
    one = passwords.hashed("een-lang-wachtwoord")
    assert one.startswith("{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$")
    assert argon2.PasswordHasher().verify(one.removeprefix("{ARGON2ID}"), "een-lang-wachtwoord")
    assert passwords.hashed("een-lang-wachtwoord") != one


def test_set_for_several_people_and_the_probe(admin: Any, database: Any) -> None:
    given = {JAN: "wachtwoord van jan", PROBE: passwords.generate()}
    assert passwords.set_passwords(admin, given, check_mode=False) == [JAN, PROBE]
    for login, password in given.items():
        argon2.PasswordHasher().verify(str(hash_of(database, login)).removeprefix("{ARGON2ID}"), password)
    # The files do not take it back.
    assert not reconcile.reconcile(admin, estate(), reconcile.Options()).changed
    audit = database.value("SELECT string_agg(a::text, '') FROM directory.audit a")
    assert "argon2id" not in audit
    assert "wachtwoord van jan" not in audit


def test_check_mode_looks_and_sets_nothing(admin: Any, database: Any) -> None:
    assert passwords.set_passwords(admin, {JAN: "wachtwoord van jan"}, check_mode=True) == [JAN]
    assert hash_of(database, JAN) == FIRST


def test_all_or_none_and_every_reason_at_once(admin: Any, database: Any) -> None:
    given = dict.fromkeys((JAN, EVA, PIET, "nobody@degraaf.example"), "wachtwoord van jan")
    with pytest.raises(PasswordError) as error:
        passwords.set_passwords(admin, given, check_mode=False)
    assert error.value.problems == [
        "user eva@degraaf.example cannot log in: the user is suspended",
        "user nobody@degraaf.example is not known",
        "user piet@fietsen.example cannot log in: customer fietsen is suspended",
    ]
    assert hash_of(database, JAN) == FIRST


@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("te kort", "password of user jan@degraaf.example has 7 characters; allowed: 12 to 256"),
        ("x" * 257, "password of user jan@degraaf.example has 257 characters; allowed: 12 to 256"),
        (
            "met een\nregeleinde",
            ("password of user jan@degraaf.example has a control character; allowed: letters, digits, signs, spaces"),
        ),
    ],
)
def test_a_password_that_is_unfit_is_not_repeated(password: str, problem: str, admin: Any, database: Any) -> None:
    with pytest.raises(PasswordError) as error:
        passwords.set_passwords(admin, {JAN: password}, check_mode=False)
    assert error.value.problems == [problem]
    assert hash_of(database, JAN) == FIRST


def test_taken_away_once_and_from_the_suspended_too(admin: Any, database: Any) -> None:
    logins = [JAN, PIET, PROBE, "nobody@degraaf.example"]
    assert passwords.take_passwords(admin, logins, check_mode=True) == [JAN, PIET]
    assert hash_of(database, JAN) == FIRST
    assert passwords.take_passwords(admin, logins, check_mode=False) == [JAN, PIET]
    assert hash_of(database, JAN) is None
    assert passwords.take_passwords(admin, logins, check_mode=False) == []


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "argon2", None)
    with pytest.raises(PasswordError, match=r"^the package python3-argon2 is not installed on the directory machine$"):
        passwords.hashed("een-lang-wachtwoord")
