# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory from Python: how to connect to it, and what its errors mean.

The database refuses with SQLSTATEs of its own (roles/directory/files/migrations/0002_rules.sql) and with the names of
its constraints; `explain` turns either into one line that an operator can act on. It never passes on a DETAIL that
holds a row: rows hold password hashes.

Runs on the machines (psycopg2 of Debian 13) and on the controller (tests).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

try:
    import psycopg2
except ImportError:  # on a machine before its packages are installed
    psycopg2 = None

DATABASE = "directory"
SOCKET = "/run/postgresql"
USER = "postgres"
ROLE = "directory_admin"

LIMIT = "BW001"
NOT_AVAILABLE = "BW002"
IN_USE = "BW003"
NO_QUOTA = "BW004"

# Over in a moment: somebody else was writing, or the server is starting.
TEMPORARY = {"40001", "40P01", "55P03", "57P01", "57P02", "57P03"}

# Unique constraints, and what to say of the value that is there already. Names that are unique over the whole site are
# "not available", whoever has them.
_TAKEN = {
    "users_login_key": "login {} is already in use",
    "addresses_address_key": "address {} is already in use",
    "addresses_pkey": "address {} is already in use",
    "domains_name_key": "domain {} is not available; prove control with a DNS TXT record",
    "claims_domain_key": "domain {} is not available; prove control with a DNS TXT record",
    "resellers_name_key": "reseller {} exists already",
    "resellers_domain_key": "domain {} is not available; prove control with a DNS TXT record",
    "customers_reseller_id_name_key": "customer {} exists already",
    "customers_unix_id_key": "UNIX id {} is already in use",
    "groups_reseller_id_customer_id_name_key": "group {} exists already",
    "resources_reseller_id_customer_id_name_key": "resource {} exists already",
    "numbers_number_key": "number {} is not available",
    "numbers_pkey": "number {} is not available",
    "extensions_pkey": "extension {} is already in use at this customer",
    "products_pkey": "product {} exists already",
    "app_passwords_reseller_id_user_id_label_key": "app password {} exists already",
    "password_links_digest_key": "this link exists already",
}

# Foreign keys: what the row points at.
_MISSING = {
    "domain": "the domain is not one of this customer",
    "alias_of": "an alias domain points at another domain of the same customer that is no alias itself",
    "product": "the product is not one of this reseller",
    "user_id": "the user is not one of this customer",
    "group_id": "the group is not one of this customer",
    "resource_id": "the resource is not one of this customer",
    "name": "there is no limit of this name",
    "customer_id": "the customer is not one of this reseller",
    "reseller_id": "there is no such reseller",
}

# Checks of columns and rows.
_WRONG = {
    "label": "a name is 1 to 63 of a-z, 0-9 and hyphens inside",
    "domain_name": "a domain name is lower-case labels (A-labels for other letters) with a dot between",
    "address": "an address is lower case: letters, digits and . _ - + ' & = ~ before the @, a domain name after it",
    "any_address": "an address to forward to is lower case: something, @, a domain name",
    "title": "a name is 1 to 200 characters without control characters or spaces around it",
    "size": "a size is 0 or more bytes",
    "state": "a state is active, suspended or removed-pending",
    "because": "the reason of a suspension is file or absent",
    "password_hash": "a password hash is {ARGON2ID}$argon2id$... or {BLF-CRYPT}$2y$...",
    "limits_max_check": "a limit is 0 or more",
    "limits_whole": "a limit is a whole number (money excepted)",
    "limits_level": "this limit does not exist at this level",
    "limits_basis": "only storage has a basis",
    "limits_pool_basis": "a pool of storage needs a basis: used or allocated",
    "limits_always_hard": "calls, rates and people's own quotas cannot be soft",
    "limits_owner": "a limit's owner is the user, else the customer, else the reseller",
    "addresses_owner": "an address has one owner, of the kind it says",
    "addresses_catch_all": "only a catch-all has nothing before the @",
    "extensions_extension_check": "an extension is 2 to 6 digits and not 112",
    "numbers_number_check": "a number is + and 7 to 15 digits (E.164)",
    "users_login_check": "a login has something before the @",
}


@dataclass
class DirectoryError(Exception):
    """The directory refused. `detail` is what BW errors carry for programs (limit, level, max, in_use, wanted, ...)."""

    sqlstate: str
    message: str
    hint: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def temporary(self) -> bool:
        """Whether the same thing may pass a moment later."""
        return self.sqlstate in TEMPORARY

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


def explain(error: BaseException) -> DirectoryError:
    """What an exception of psycopg2 means. Shape of the result: `DirectoryError`; one line, no secrets."""
    if isinstance(error, DirectoryError):
        return error
    state = getattr(error, "pgcode", None) or ""
    diag = getattr(error, "diag", None)
    primary = _one_line(getattr(diag, "message_primary", None) or str(error))
    hint = _one_line(getattr(diag, "message_hint", None) or "")
    constraint = getattr(diag, "constraint_name", None) or ""
    detail = getattr(diag, "message_detail", None) or ""
    table = getattr(diag, "table_name", None) or ""
    if state.startswith("BW"):
        return DirectoryError(state, primary, hint, _json(detail))
    if state == "23505":
        return DirectoryError(state, _taken(constraint, detail, table))
    if state == "23503":
        return DirectoryError(state, _missing(constraint, primary, table))
    if state == "23514":
        rule = _WRONG.get(constraint)
        return DirectoryError(state, f"{table or 'value'} refused: {rule}" if rule else primary)
    if not state:
        return DirectoryError(
            "08000",
            f"cannot reach the directory: {primary}",
            "Look at `systemctl status postgresql@17-main` on the directory machine.",
        )
    if state == "25006":
        hint = "The database takes no changes now: a standby, or a reseller that is being moved."
    if state in TEMPORARY:
        hint = hint or "Run it again."
    return DirectoryError(state, primary, hint)


def connect(
    *,
    actor: str,
    database: str = DATABASE,
    host: str = SOCKET,
    port: int | None = None,
    user: str = USER,
    role: str | None = ROLE,
    parameters: Mapping[str, Any] | None = None,
    patience: float = 0,
) -> Any:
    """A psycopg2 connection that acts as `role` and notes `actor` (who or what changes things) in the audit.

    `parameters`: further ones of libpq (sslmode, sslcert, ...). `patience`: seconds to go on trying while the server is
    starting. The session stays at READ COMMITTED, which the limits need. Raises `DirectoryError`.
    """
    if psycopg2 is None:
        raise DirectoryError("08000", "the package python3-psycopg2 is not installed here")
    arguments: dict[str, Any] = {
        "dbname": database, "host": host, "user": user, "connect_timeout": 10, "application_name": "bouwsteen",
        **(parameters or {}),
    }  # fmt: skip
    if port is not None:
        arguments["port"] = port
    deadline = time.monotonic() + patience
    while True:
        try:
            connection = psycopg2.connect(**arguments)
            break
        except psycopg2.Error as error:
            if time.monotonic() >= deadline:
                raise explain(error) from error
            time.sleep(0.2)
    try:
        with connection.cursor() as cursor:
            # A session's own settings: not undone by the roll-back of a transaction, so set outside of one.
            connection.autocommit = True
            if role:
                cursor.execute(f'SET ROLE "{role.replace(chr(34), chr(34) * 2)}"')
            cursor.execute("SELECT set_config('bouwsteen.actor', %s, false)", (actor,))
            connection.autocommit = False
    except psycopg2.Error as error:
        connection.close()
        raise explain(error) from error
    return connection


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _json(detail: str) -> dict[str, Any]:
    try:
        value = json.loads(detail)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _taken(constraint: str, detail: str, table: str) -> str:
    """DETAIL is `Key (a, b)=(1, 2) already exists.`: the last value is the name; ids come first in our keys."""
    found = re.match(r"Key \((?P<columns>.*)\)=\((?P<values>.*)\) already exists", detail, re.DOTALL)
    value = found["values"].split(", ")[-1] if found else "this"
    return _TAKEN.get(constraint, f"{table}: {{}} exists already").format(_one_line(value))


def _missing(constraint: str, primary: str, table: str) -> str:
    if primary.startswith("update or delete on table"):
        return _one_line(primary)
    column = constraint.removesuffix("_fkey")
    for ending, text in _MISSING.items():
        if column.endswith(ending):
            return f"{table} refused: {text}"
    return _one_line(primary)
