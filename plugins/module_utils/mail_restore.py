# SPDX-License-Identifier: GPL-3.0-or-later
"""Give a person deleted mail back: what was deleted waits in a mailbox that he does not see, for the contract's period.

Dovecot's doveadm does the work: it moves mails within one person's storage, so that nothing can come from elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

MAILBOX = ".EXPUNGED/mail"
DOVEADM = ["doveadm", "-o", "acl_ignore=yes"]
# A login and nothing that doveadm would read as a pattern for several people.
LOGIN = re.compile(r"[A-Za-z0-9._&'=~-][A-Za-z0-9._&'=~+-]*@[A-Za-z0-9.-]+")
AGE = re.compile(r"(\d{1,4}) ?(minute|hour|day|week)s?")
# sysexits.h: EX_NOUSER, doveadm's answer for whom the directory does not know.
NO_USER = 67
FIELDS = "uid hdr.from hdr.subject hdr.message-id date.saved size.physical"


class RestoreError(Exception):
    """What went wrong, for people."""


class Done(NamedTuple):
    """What a program said."""

    status: int
    out: str
    err: str


type Run = Callable[[Sequence[str]], Done]


def checked(user: str, folder: str) -> str:
    """The login in lower case. Raises `RestoreError` for what doveadm would understand in another way."""
    if not LOGIN.fullmatch(user):
        raise RestoreError(f"{user} is no login; allowed: one address, such as jan@degraaf.example")
    first, *rest = folder.split("/")
    if (
        not first
        or first.upper() == ".EXPUNGED"
        or not all(rest)
        or set(folder) & set('*%\\"')
        or not folder.isprintable()
    ):
        raise RestoreError(f"{folder!r} is no folder; allowed: a name, with / between a folder and one in it")
    return user.lower()


def moment(since: str, now: datetime) -> int:
    """A moment in time as people write it (of the machine's clock, or an age), in seconds since 1970.

    Raises `RestoreError`.
    """
    try:
        if age := AGE.fullmatch(since):
            return int((now - timedelta(**{age[2] + "s": int(age[1])})).timestamp())
        if re.match(r"\d{4}-\d{2}-\d{2}($| \d{2}:\d{2})", since):
            return int(datetime.fromisoformat(since).timestamp())
    except (ValueError, OverflowError):
        pass
    allowed = "a moment, such as 2026-11-20 or 2026-11-20 14:30, or an age, such as 3 days or 2 hours"
    raise RestoreError(f"since: {since!r} is no moment; allowed: {allowed}")


def query(since: int | None) -> list[str]:
    """doveadm's search for what was deleted since a moment. A mail's date of saving there is when it was deleted."""
    return ["mailbox", MAILBOX, *(["all"] if since is None else ["savedsince", str(since)])]


def known(run: Run, user: str) -> bool:
    """Whether the person has a mailbox on this machine."""
    done = run(["doveadm", "user", "-f", "home", user])
    if done.status not in {0, NO_USER}:
        raise RestoreError(f"doveadm user {user}: {done.err.strip() or done.status}")
    return done.status == 0 and bool(done.out.strip())


def waiting(run: Run, user: str, since: int | None) -> list[dict[str, Any]]:
    """What can come back: `{"from", "subject", "message_id", "deleted", "bytes"}` of each mail, by deletion."""
    done = run([*DOVEADM, "-f", "json", "fetch", "-u", user, FIELDS, *query(since)])
    if done.status == NO_USER or "Mailbox doesn't exist" in done.err:
        return []
    if done.status != 0:
        raise RestoreError(f"cannot look at the deleted mail of {user}: {done.err.strip() or done.status}")
    mails = [
        {
            "from": mail.get("hdr.from", ""),
            "subject": mail.get("hdr.subject", ""),
            "message_id": mail.get("hdr.message-id", ""),
            "deleted": mail["date.saved"],
            "bytes": int(mail["size.physical"]),
        }
        for mail in (json.loads(done.out) if done.out.strip() else [])
    ]
    return sorted(mails, key=lambda mail: (mail["deleted"], mail["message_id"]))


def restore(run: Run, user: str, since: int | None, folder: str) -> None:
    """Move the mails into a folder of the person, which is made and subscribed if it is not there."""
    if run(["doveadm", "mailbox", "status", "-u", user, "messages", folder]).status != 0:
        done = run(["doveadm", "mailbox", "create", "-s", "-u", user, folder])
        if done.status != 0:
            raise RestoreError(f"cannot make folder {folder} of {user}: {done.err.strip() or done.status}")
    done = run([*DOVEADM, "move", "-u", user, folder, *query(since)])
    if done.status != 0:
        if "quota" in done.err.lower() or "mailbox is full" in done.err.lower():
            raise RestoreError(
                f"the mailbox of {user} has no room for it: give him more, or name a later moment with since"
            )
        raise RestoreError(f"cannot give {user} his mail back: {done.err.strip() or done.status}")
