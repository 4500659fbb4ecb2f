# SPDX-License-Identifier: GPL-3.0-or-later
"""People's passwords: make one, hash one, set or take away those of many people at once.

The hash is Argon2id (RFC 9106) with Dovecot's default cost, so that an unknown login (which the directory answers with
a hash of the same cost) takes as long to refuse as a wrong password.
"""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

try:
    import argon2
except ImportError:  # on the control node, and on a machine before its packages are installed
    argon2 = None  # type: ignore[assignment]

# 20 characters of 32: 100 bits. Without 0, 1, l, o and capitals, as they are read out over the telephone.
ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
GROUPS, GROUP_LENGTH = 4, 5
SHORTEST, LONGEST = 12, 256

TIME_COST, MEMORY_KIB, LANES = 3, 65536, 1


class PasswordError(Exception):
    """Why no password was set, one line per person. Nothing was changed."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


def generate() -> str:
    """A fresh password that a person can type: `k7mqz-3xw9a-...`."""
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(GROUP_LENGTH)) for _ in range(GROUPS))


def unfit(password: str) -> str | None:
    """What is wrong with a password that somebody chose; None when nothing is."""
    if not SHORTEST <= len(password) <= LONGEST:
        return f"has {len(password)} characters; allowed: {SHORTEST} to {LONGEST}"
    if any(unicodedata.category(char) == "Cc" for char in password):
        return "has a control character; allowed: letters, digits, signs, spaces"
    return None


def hashed(password: str) -> str:
    """The hash as the directory holds it: `{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$SALT$HASH`."""
    if argon2 is None:
        raise PasswordError(["the package python3-argon2 is not installed on the directory machine"])
    hasher = argon2.PasswordHasher(
        time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=LANES, hash_len=32, salt_len=16
    )
    return "{ARGON2ID}" + str(hasher.hash(password))


def problems_of(users: Iterable[str], found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why these people cannot get a password, one line each. `found`: login -> row of `_PEOPLE`."""
    problems = []
    for login in users:
        row = found.get(login)
        if row is None:
            problems.append(f"user {login} is not known")
        elif row["reseller_state"] != "active":
            problems.append(f"user {login} cannot log in: reseller {row['reseller']} is {row['reseller_state']}")
        elif row["customer_state"] != "active":
            problems.append(f"user {login} cannot log in: customer {row['customer']} is {row['customer_state']}")
        elif row["state"] != "active":
            problems.append(f"user {login} cannot log in: the user is {row['state']}")
    return problems


def set_passwords(connection: Any, passwords: Mapping[str, str], *, check_mode: bool) -> list[str]:
    """Give each login its password, all or none; the logins that got one. Raises `PasswordError`.

    In check mode nothing is hashed or written.
    """
    found = _people(connection, passwords)
    problems = problems_of(passwords, found)
    problems += [f"password of user {login} {wrong}" for login, one in passwords.items() if (wrong := unfit(one))]
    if problems:
        connection.rollback()
        raise PasswordError(sorted(problems))
    if not check_mode:
        hashes = {login: hashed(password) for login, password in passwords.items()}
        _write(connection, hashes, found)
    connection.rollback()
    return sorted(passwords)


def take_passwords(connection: Any, logins: Sequence[str], *, check_mode: bool) -> list[str]:
    """Take away the passwords of these people, suspended or not; the logins that had one. Unknown ones have none."""
    found = _people(connection, logins)
    taken: dict[str, str | None] = {login: None for login, row in sorted(found.items()) if row["has_password"]}
    if taken and not check_mode:
        _write(connection, taken, found)
    connection.rollback()
    return list(taken)


_PEOPLE = """
    SELECT u.login, u.reseller_id, u.user_id, u.state, c.name AS customer, c.state AS customer_state,
           r.name AS reseller, r.state AS reseller_state, u.password_hash IS NOT NULL AS has_password
    FROM directory.users u JOIN directory.customers c USING (reseller_id, customer_id)
        JOIN directory.resellers r USING (reseller_id)
    WHERE u.login = ANY (%(logins)s)"""


def _people(connection: Any, logins: Iterable[str]) -> dict[str, dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(_PEOPLE, {"logins": list(logins)})
        names = [column[0] for column in cursor.description]
        return {row[0]: dict(zip(names, row, strict=True)) for row in cursor.fetchall()}


def _write(connection: Any, hashes: Mapping[str, str | None], found: Mapping[str, Mapping[str, Any]]) -> None:
    """Only the current hash: the first one stays as the files had it, so they do not overwrite what is set here."""
    with connection.cursor() as cursor:
        for login, value in hashes.items():
            cursor.execute(
                "UPDATE directory.users SET password_hash = %s, password_changed_at = now()"
                " WHERE reseller_id = %s AND user_id = %s",
                (value, found[login]["reseller_id"], found[login]["user_id"]),
            )
    connection.commit()
