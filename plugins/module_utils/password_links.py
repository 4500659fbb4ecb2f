# SPDX-License-Identifier: GPL-3.0-or-later
"""One-time links with which people set their password, and the mail that brings a new person the first one.

A token has 256 random bits. The directory keeps its SHA-256 alone, so a link that is lost is made anew and never looked
up. A new link ends the person's earlier ones.
"""

from __future__ import annotations

import hashlib
import secrets
import subprocess
from collections.abc import Callable, Mapping, Sequence
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils.passwords import PasswordError, problems_of

PURPOSE_PASSWORD, PURPOSE_INVITATION = "password", "invitation"
HOURS_MAX = 30 * 24
SENDMAIL = "/usr/sbin/sendmail"

_COLUMNS = """
    SELECT u.login, u.reseller_id::text, u.customer_id::text, u.user_id::text, u.name, u.language, u.invite, u.state,
           u.password_hash IS NOT NULL AS has_password, c.name AS customer, c.state AS customer_state,
           r.name AS reseller, r.state AS reseller_state, r.title, r.engineer, r.domain
    FROM directory.users u JOIN directory.customers c USING (reseller_id, customer_id)
        JOIN directory.resellers r USING (reseller_id)"""
_ACTIVE = "u.kind = 'person' AND u.state = 'active' AND c.state = 'active' AND r.state = 'active'"
_NAMED = f"{_COLUMNS} WHERE u.login = ANY (%(names)s)"
_WITHOUT = f"{_COLUMNS} WHERE {_ACTIVE} AND u.password_hash IS NULL AND r.name = ANY (%(names)s) ORDER BY u.login"
# Once to an address: who was mailed there already, and let the link lapse, asks for another.
_INVITED = f"""{_COLUMNS} WHERE {_ACTIVE} AND u.password_hash IS NULL AND u.invite IS NOT NULL
    AND r.name = ANY (%(names)s)
    AND NOT EXISTS (SELECT FROM directory.password_links l WHERE l.reseller_id = u.reseller_id
        AND l.customer_id = u.customer_id AND l.user_id = u.user_id AND l.sent_to = u.invite)
    ORDER BY u.login"""

TEXTS = {
    "nl": (
        "Kies uw wachtwoord voor {login}",
        (
            "Dag {name},\n\nEr is een account voor u gemaakt: {login}. Kies hier uw wachtwoord:\n\n{url}\n\n"
            "De link werkt één keer, tot {hours} uur na dit bericht. Geef hem aan niemand anders.\n"
            "Verwachtte u dit bericht niet? Dan kunt u het weggooien; er gebeurt niets.\n\n{title}\n"
        ),
    ),
    "en": (
        "Choose your password for {login}",
        (
            "Hello {name},\n\nAn account has been made for you: {login}. Choose your password here:\n\n{url}\n\n"
            "The link works once, until {hours} hours after this message. Give it to nobody else.\n"
            "Did you not expect this message? Then you can throw it away; nothing happens.\n\n{title}\n"
        ),
    ),
}


def for_users(connection: Any, users: Sequence[str], *, hours: int, check_mode: bool) -> list[dict[str, Any]]:
    """Links for people by their logins, all or none. Raises `PasswordError`. Shape: see `_make`."""
    found = {row["login"]: row for row in _rows(connection, _NAMED, users)}
    problems = problems_of(users, found)
    if problems:
        connection.rollback()
        raise PasswordError(sorted(problems))
    return _make(connection, [found[login] for login in users], PURPOSE_PASSWORD, hours, check_mode=check_mode)


def for_resellers(connection: Any, resellers: Sequence[str], *, hours: int, check_mode: bool) -> list[dict[str, Any]]:
    """Links for everybody of these resellers who can log in but for having no password."""
    return _make(connection, _rows(connection, _WITHOUT, resellers), PURPOSE_PASSWORD, hours, check_mode=check_mode)


def for_invited(connection: Any, resellers: Sequence[str], *, hours: int, check_mode: bool) -> list[dict[str, Any]]:
    """Links for people of these resellers who are to get one by mail, and were not mailed yet."""
    return _make(connection, _rows(connection, _INVITED, resellers), PURPOSE_INVITATION, hours, check_mode=check_mode)


def _make(
    connection: Any, people: Sequence[Mapping[str, Any]], purpose: str, hours: int, *, check_mode: bool
) -> list[dict[str, Any]]:
    """A link each: `{"id", "login", "name", "language", "invite", "title", "engineer", "hours", "url"}`. In check mode
    `id` and `url` are empty and nothing is written."""
    links = []
    with connection.cursor() as cursor:
        for person in people:
            token = secrets.token_urlsafe(32)
            link = {key: person[key] for key in ("login", "name", "language", "invite", "title", "engineer")}
            link |= {"id": "", "url": "", "hours": hours}
            links.append(link)
            if check_mode:
                continue
            ids = {key: person[key] for key in ("reseller_id", "customer_id", "user_id")}
            cursor.execute(
                "UPDATE directory.password_links SET expires_at = now() WHERE reseller_id = %(reseller_id)s"
                " AND customer_id = %(customer_id)s AND user_id = %(user_id)s AND used_at IS NULL"
                " AND expires_at > now()",
                ids,
            )
            cursor.execute(
                "INSERT INTO directory.password_links"
                " (reseller_id, customer_id, user_id, digest, purpose, expires_at)"
                " VALUES (%(reseller_id)s, %(customer_id)s, %(user_id)s, %(digest)s, %(purpose)s,"
                " now() + make_interval(hours => %(hours)s)) RETURNING link_id::text",
                {**ids, "digest": hashlib.sha256(token.encode()).digest(), "purpose": purpose, "hours": hours},
            )
            link["id"] = cursor.fetchone()[0]
            link["url"] = f"https://account.{person['domain']}/password/{token}"
    if check_mode:
        connection.rollback()
    else:
        connection.commit()
    return links


def note_sent(connection: Any, ids: Sequence[str], *, check_mode: bool) -> int:
    """Remembers that these links were mailed to their people's addresses; how many were not noted before."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE directory.password_links l SET sent_to = u.invite, sent_at = now() FROM directory.users u"
            " WHERE l.link_id = ANY (%(ids)s::uuid[]) AND l.sent_at IS NULL AND u.invite IS NOT NULL"
            " AND u.reseller_id = l.reseller_id AND u.customer_id = l.customer_id AND u.user_id = l.user_id",
            {"ids": list(ids)},
        )
        count = int(cursor.rowcount)
    if check_mode:
        connection.rollback()
    else:
        connection.commit()
    return count


def message(link: Mapping[str, Any]) -> EmailMessage:
    """The mail that brings a link to its person, in the reseller's name."""
    language = str(link["language"] or "").split("-")[0]
    subject, text = TEXTS.get(language, TEXTS["en"])
    facts = {key: link[key] for key in ("login", "name", "url", "hours", "title")}
    mail = EmailMessage(policy=SMTP)
    mail["From"] = Address(display_name=link["title"], addr_spec=link["engineer"])
    mail["To"] = Address(display_name=link["name"], addr_spec=link["invite"])
    mail["Subject"] = subject.format(**facts)
    mail["Date"] = formatdate()
    mail["Message-ID"] = make_msgid(domain=link["engineer"].rpartition("@")[2])
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text.format(**facts))
    return mail


def hand_over(link: Mapping[str, Any]) -> None:
    """Gives a link's mail to the mail service of this machine. Raises OSError or subprocess's errors."""
    subprocess.run(
        [SENDMAIL, "-i", "-f", link["engineer"], "--", link["invite"]],
        input=message(link).as_bytes(), capture_output=True, check=True, timeout=60,
    )  # fmt: skip


def send(
    links: Sequence[Mapping[str, Any]], deliver: Callable[[Mapping[str, Any]], None] | None = None
) -> tuple[list[str], list[str]]:
    """Mails each link; ids of those that were taken, a line for each that was not. One failure stops nobody."""
    sent, problems = [], []
    for link in links:
        try:
            (deliver or hand_over)(link)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            # Not the error's text: it may hold the mail.
            problems.append(f"the mail with the first link of {link['login']} was not taken ({type(error).__name__})")
        else:
            sent.append(str(link["id"]))
    return sent, problems


def _rows(connection: Any, query: str, names: Sequence[str]) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(query, {"names": list(names)})
        columns = [column[0] for column in cursor.description]
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
