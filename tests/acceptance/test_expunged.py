# SPDX-License-Identifier: GPL-3.0-or-later
"""Deleted too much: what a person removed for good comes back, for him alone, as long as the contract says."""

from __future__ import annotations

import contextlib
import imaplib
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import ansible, quoted

EVA, JAN = "eva@degraaf.example", "jan@degraaf.example"
HIDDEN = ".EXPUNGED/mail"


def put(client: imaplib.IMAP4, folder: str, subject: str) -> str:
    """A mail in a folder; its Message-ID."""
    token = f"<{uuid.uuid4().hex}@buiten.example>"
    data = f"From: dirk@buiten.example\r\nSubject: {subject}\r\nMessage-ID: {token}\r\n\r\nHallo\r\n".encode()
    assert client.append(f'"{folder}"', "", "", data)[0] == "OK"
    return token


def expunge(client: imaplib.IMAP4, folder: str, token: str) -> None:
    client.select(f'"{folder}"')
    for number in client.search(None, "HEADER", "Message-ID", token)[1][0].split():
        client.store(number.decode(), "+FLAGS", "\\Deleted")
    client.expunge()
    client.select("INBOX")


def used(mail: Any, login: str) -> list[str]:
    lines = mail.machine.run("doveadm", "-f", "tab", "quota", "get", "-u", login).splitlines()[1:]
    return [line.split("\t")[2] for line in lines]


def waits(mail: Any, login: str, token: str) -> bool:
    """Whether a mail is kept where the person does not see it."""
    words = ["doveadm", "-o", "acl_ignore=yes", "search", "-u", login, "mailbox", HIDDEN, "header", "message-id", token]
    return bool(mail.machine.run(*words, check=False).strip())


def restore(**values: str) -> None:
    ansible("ansible-playbook", "playbooks/restore_mail.yml", "-e", json.dumps(values))


@pytest.fixture
def folder(mail: Any) -> Iterator[str]:
    name = f"Terug {uuid.uuid4().hex[:8]}"
    yield name
    for login in (EVA, JAN):
        with contextlib.suppress(imaplib.IMAP4.error):
            mail.box(login).select("INBOX")
            mail.box(login).delete(f'"{name}"')


@pytest.fixture
def period(mail: Any) -> Iterator[Callable[[int], None]]:
    """Sets the period of Eva's reseller; the contract's is back afterwards."""
    which = f"reseller_id = (SELECT reseller_id FROM directory.users WHERE login = {quoted(EVA)})"
    before = mail.machine.sql(f"SELECT settings::text FROM directory.resellers WHERE {which}")[0][0]

    def give(days: int) -> None:
        mail.machine.sql(
            f"UPDATE directory.resellers SET settings = settings || '{{\"expunged_days\": {days}}}' WHERE {which}"
        )

    yield give
    mail.machine.sql(f"UPDATE directory.resellers SET settings = {quoted(before)} WHERE {which}")


def test_deleted_mail_comes_back_to_its_owner_alone(mail: Any, folder: str) -> None:
    eva, jan = mail.box(EVA), mail.box(JAN)
    before = used(mail, EVA)
    token, others = put(eva, "INBOX", "Factuur 17"), put(jan, "INBOX", "Van Jan")
    assert used(mail, EVA) != before
    expunge(eva, "INBOX", token)
    expunge(jan, "INBOX", others)
    assert used(mail, EVA) == before, "deleted mail is not counted"
    assert mail.found(EVA, token) == []
    restore(user=EVA, folder=folder, since="5 minutes")
    assert len(mail.found(EVA, token, folder)) == 1
    assert mail.found(JAN, others, folder) == []
    assert mail.found(EVA, others, folder) == []
    assert (waits(mail, EVA, token), waits(mail, JAN, others)) == (False, True)
    assert used(mail, EVA) != before


def test_a_folder_that_was_deleted_comes_back_with_its_mail(mail: Any, folder: str) -> None:
    eva = mail.box(EVA)
    eva.create('"Weg ermee"')
    token = put(eva, "Weg ermee", "In een map")
    assert eva.delete('"Weg ermee"')[0] == "OK"
    restore(user=EVA, folder=folder)
    assert len(mail.found(EVA, token, folder)) == 1


def test_moving_a_mail_keeps_no_second_copy(mail: Any) -> None:
    eva = mail.box(EVA)
    token = put(eva, "INBOX", "Naar de prullenbak")
    eva.select("INBOX")
    number = eva.search(None, "HEADER", "Message-ID", token)[1][0].decode()
    assert eva.copy(number, "Trash")[0] == "OK"
    expunge(eva, "INBOX", token)
    assert not waits(mail, EVA, token)
    expunge(eva, "Trash", token)
    assert waits(mail, EVA, token)


def test_nobody_sees_it_or_fills_it(mail: Any) -> None:
    eva = mail.box(EVA)
    token = put(eva, "INBOX", "Onzichtbaar")
    expunge(eva, "INBOX", token)
    for pattern in ("*", ".EXPUNGED/*", "%"):
        listed = b" ".join(line for line in eva.list('""', f'"{pattern}"')[1] if isinstance(line, bytes))
        assert b"mail" not in listed, listed
    assert eva.select(f'"{HIDDEN}"')[0] == "NO"
    eva.select("INBOX")
    # Otherwise it would be room that no quota knows.
    assert eva.append(f'"{HIDDEN}"', "", "", b"Subject: gratis ruimte\r\n\r\nx\r\n")[0] == "NO"
    number = eva.search(None, "ALL")[1][0].split()
    if not number:
        put(eva, "INBOX", "Om te kopieren")
        eva.select("INBOX")
    assert eva.copy("1", f'"{HIDDEN}"')[0] == "NO"
    assert eva.rename(f'"{HIDDEN}"', '"Buit"')[0] == "NO"
    assert eva.delete(f'"{HIDDEN}"')[0] == "NO"
    assert waits(mail, EVA, token)


def test_the_contract_says_how_long(mail: Any, period: Callable[[int], None]) -> None:
    eva = mail.box(EVA)
    token = put(eva, "INBOX", "Bijna voorbij")
    expunge(eva, "INBOX", token)
    mail.machine.run("systemctl", "start", "expunged-mail.service")
    assert waits(mail, EVA, token), "the period is not over"
    period(0)
    mail.machine.run("systemctl", "start", "expunged-mail.service")
    assert not waits(mail, EVA, token)
    eva.logout()
    gone = put(mail.box(EVA), "INBOX", "Meteen weg")
    expunge(mail.box(EVA), "INBOX", gone)
    assert not waits(mail, EVA, gone)
    mail.box(EVA).logout()


def test_nobody_of_that_name(mail: Any) -> None:
    with pytest.raises(AssertionError, match=r"Nobody here has a mailbox niemand@degraaf.example"):
        restore(user="niemand@degraaf.example")
    with pytest.raises(AssertionError, match=r"is no login; allowed: one address, such as jan@degraaf.example"):
        restore(user="*@degraaf.example")
