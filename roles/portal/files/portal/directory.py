# SPDX-License-Identifier: GPL-3.0-or-later
"""What the portal asks of the directory: functions of schema portal, on one kept connection for each thread."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg2


class UnreachableError(Exception):
    """The directory does not answer; the page says to try again later."""


@dataclass(frozen=True)
class Reseller:
    """`domain` is his own, below which webmail., account. and so on live."""

    name: str
    title: str
    domain: str


@dataclass(frozen=True)
class Person:
    """Whose link it is. `language` may be None; `mail`: whether there is a mailbox."""

    login: str
    name: str
    language: str | None
    mail: bool


def digest(token: str) -> bytes:
    """How the directory knows a link."""
    return hashlib.sha256(token.encode()).digest()


class Directory:
    """Each call is one statement and one transaction. A connection that broke is made anew once."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = dict(parameters)
        self._local = threading.local()

    def reseller(self, name: str) -> Reseller | None:
        """An active reseller."""
        row = self._row("SELECT * FROM portal.reseller(%s)", name)
        return Reseller(*row) if row else None

    def login_reseller(self, login: str) -> str | None:
        """The name of the reseller whose webmail takes this login."""
        row = self._row("SELECT portal.login_reseller(%s)", login)
        return str(row[0]) if row and row[0] is not None else None

    def domain(self, domain: str) -> Reseller | None:
        """Whose people have their addresses in a domain."""
        row = self._row("SELECT * FROM portal.domain(%s)", domain)
        return Reseller(*row) if row else None

    def link(self, token: str, reseller: str) -> Person | None:
        """The person of a link that can be used now. Looking does not use it up."""
        row = self._row("SELECT * FROM portal.link(%s, %s)", digest(token), reseller)
        return Person(*row) if row else None

    def use_link(self, token: str, reseller: str, password_hash: str) -> str | None:
        """Sets the password; the login, or None when the link cannot be used (any more)."""
        row = self._row("SELECT portal.use_link(%s, %s, %s)", digest(token), reseller, password_hash)
        return str(row[0]) if row and row[0] is not None else None

    def _row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        if any(isinstance(value, str) and "\0" in value for value in values):
            return None
        for attempt in (1, 2):
            try:
                with self._connection().cursor() as cursor:
                    cursor.execute(query, values)
                    found: tuple[Any, ...] | None = cursor.fetchone()
                    return found
            except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
                self._forget()
                # A statement that was cancelled, or a failed connection that was just made, fails again.
                if attempt == 2 or isinstance(error, psycopg2.errors.QueryCanceled):
                    raise UnreachableError from error
        return None

    def _connection(self) -> Any:
        if getattr(self._local, "connection", None) is None:
            connection = psycopg2.connect(**{"connect_timeout": 5, "application_name": "portal", **self._parameters})
            connection.autocommit = True
            self._local.connection = connection
        return self._local.connection

    def _forget(self) -> None:
        connection = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is not None:
            connection.close()
