# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits as people meet them: full mailboxes, full pools, too much mail in an hour. And nothing is ever bounced for it.

Limits are lowered to what is in use for a moment, in the directory, as contracts and files would: to fill a mailbox of
a gigabyte takes too long.
"""

from __future__ import annotations

import contextlib
import email
import email.policy
import time
from collections.abc import Iterator
from typing import Any

import pytest

from_people = pytest.mark.parametrize("asks", ["a person", "outside"])
EVA, SJAAK, BJORN, KEES = (f"{name}@degraaf.example" for name in ("eva", "sjaak", "bjorn", "kees"))
KEES = "kees@vandermeer.example"
WORKSHOP = "werkplaats@vandermeer.example"


@contextlib.contextmanager
def quota(mail: Any, login: str, size: str) -> Iterator[None]:
    """The person's own quota for a moment."""
    [[before]] = mail.machine.sql(
        f"SELECT coalesce(mail_quota::text, 'NULL') FROM directory.users WHERE login = '{login}'"
    )
    mail.machine.sql(f"UPDATE directory.users SET mail_quota = {size} WHERE login = '{login}'")
    try:
        yield
    finally:
        mail.machine.sql(f"UPDATE directory.users SET mail_quota = {before} WHERE login = '{login}'")


@contextlib.contextmanager
def pool(mail: Any, level: str, name: str, size: str) -> Iterator[None]:
    """A customer's or reseller's pool of mail storage for a moment."""
    customer = "customer_id" if level == "customer" else "NULL::uuid AS customer_id"
    owner = f"SELECT reseller_id, {level}_id AS owner_id, {customer} FROM directory.{level}s WHERE name = '{name}'"
    mail.machine.sql(
        f"""CREATE TABLE public.limits_before AS
              SELECT l.* FROM directory.limits l JOIN ({owner}) o USING (reseller_id, owner_id)
              WHERE l.name = 'mail_storage';
            DELETE FROM directory.limits l USING public.limits_before b
              WHERE (l.reseller_id, l.owner_id, l.name) = (b.reseller_id, b.owner_id, b.name);
            INSERT INTO directory.limits (reseller_id, owner_id, customer_id, name, max, basis)
              SELECT reseller_id, owner_id, customer_id, 'mail_storage', {size}, 'used' FROM ({owner}) o"""
    )
    columns = "reseller_id, owner_id, name, customer_id, user_id, max, basis, enforce, warn_at"
    try:
        yield
    finally:
        mail.machine.sql(
            f"""DELETE FROM directory.limits l USING ({owner}) o
                  WHERE (l.reseller_id, l.owner_id, l.name) = (o.reseller_id, o.owner_id, 'mail_storage');
                INSERT INTO directory.limits ({columns}) SELECT {columns} FROM public.limits_before;
                DROP TABLE public.limits_before"""
        )


def used(mail: Any, login: str) -> int:
    """What the directory knows of a mailbox; at least something, so that a quota of it is full."""
    message = mail.message(KEES, login)
    mail.send(KEES, message)
    mail.arrived(login, message)
    [[size]] = mail.machine.sql(
        f"""SELECT m.bytes FROM directory.mail_usage m JOIN directory.users u USING (reseller_id, user_id)
            WHERE u.login = '{login}'"""
    )
    assert int(size) > 0
    return int(size)


def answer(mail: Any, asks: str, recipient: str) -> tuple[int, str]:
    """What the server says to a recipient."""
    if asks == "outside":
        with mail.smtp() as client:
            client.mail("dirk@buiten.example")
            code, text = client.rcpt(recipient)
            client.rset()
    else:
        with mail.submission(KEES) as client:
            client.mail(KEES)
            code, text = client.rcpt(recipient)
            client.rset()
    return code, text.decode()


def full(recipient: str) -> tuple[int, str]:
    return 452, f"4.2.2 <{recipient}>: Recipient address rejected: <{recipient}>: mailbox is full"


WAYS = [BJORN, "bjorn@bakkerijdegraaf.example", "bjorn+map@degraaf.example"]


@from_people
@pytest.mark.parametrize("level", ["user", "customer", "reseller"])
def test_a_full_mailbox_is_refused_at_the_door(mail: Any, outside: Any, level: str, asks: str) -> None:
    """Whichever ceiling it is, and whichever way the address leads there."""
    size = used(mail, BJORN)
    ceiling = {
        "user": lambda: quota(mail, BJORN, str(size)),
        "customer": lambda: pool(mail, "customer", "bakkerij-de-graaf", str(size)),
        "reseller": lambda: pool(mail, "reseller", "noorderict", str(size)),
    }[level]
    with ceiling():
        for recipient in WAYS:
            assert answer(mail, asks, recipient) == full(recipient)
        neighbour = {"user": SJAAK, "customer": "balie1@delinde.example", "reseller": "ines@vandermeer.example"}[level]
        assert answer(mail, asks, neighbour)[0] == 250, "who is not above that ceiling gets his mail"
    assert answer(mail, asks, BJORN)[0] == 250


def test_an_alias_of_a_full_mailbox_is_refused_at_the_door(mail: Any) -> None:
    person = "z.yilmaz@delinde.example"
    with quota(mail, person, str(used(mail, person))):
        assert answer(mail, "outside", "zeynep@delinde.example") == full("zeynep@delinde.example")


def test_a_full_member_of_a_list_costs_the_others_nothing(mail: Any) -> None:
    """The list takes the mail, the others have it at once, the full one has it as soon as there is room. No bounce."""
    size = used(mail, BJORN)
    message = mail.message(EVA, "bakkers@degraaf.example")
    with quota(mail, BJORN, str(size)):
        assert answer(mail, "outside", "bakkers@degraaf.example")[0] == 250
        mail.send(EVA, message)
        for member in (SJAAK, "jan@degraaf.example"):
            wait(lambda member=member: mail.found(member, message["Message-ID"]))
        waiting = wait(
            lambda: [
                r
                for item in mail.machine.queue()
                for r in item["recipients"]
                if r["address"] == BJORN and "delay_reason" in r
            ]
        )
        assert "452 4.2.2" in waiting[0]["delay_reason"]
        bounces = [item for item in mail.machine.queue() if item["sender"] == "MAILER-DAEMON"]
        print(f"bounces: {len(bounces)}")
        assert not bounces
    mail.machine.run("postqueue", "-f")
    mail.arrived(BJORN, message)
    assert not mail.found(EVA, "mailb")


def test_a_list_of_full_mailboxes_only_is_refused_at_the_door(mail: Any) -> None:
    members = [BJORN, SJAAK, "jan@degraaf.example"]
    with contextlib.ExitStack() as stack:
        for member in members:
            stack.enter_context(quota(mail, member, str(used(mail, member))))
        assert answer(mail, "outside", "bakkers@degraaf.example") == full("bakkers@degraaf.example")


def test_none_at_all_means_none(mail: Any) -> None:
    with quota(mail, BJORN, "0"):
        assert answer(mail, "a person", BJORN) == full(BJORN)


def test_a_full_mailbox_takes_no_uploads_either(mail: Any) -> None:
    size = used(mail, BJORN)
    with quota(mail, BJORN, str(size)), mail.mailbox(BJORN) as client:
        status, text = client.append("INBOX", None, None, b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" * 6_000_000)  # type: ignore[arg-type]
    assert status == "NO"
    assert b"[OVERQUOTA] Mailbox is full" in text[0]


def test_a_full_customers_pool_takes_no_uploads_either(mail: Any) -> None:
    size = used(mail, BJORN)
    with pool(mail, "customer", "bakkerij-de-graaf", str(size)), mail.mailbox(BJORN) as client:
        status, text = client.append("INBOX", None, None, b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" * 6_000_000)  # type: ignore[arg-type]
    assert status == "NO"
    assert b"[OVERQUOTA] Mailbox is full" in text[0]


def test_a_person_sees_his_quota(mail: Any) -> None:
    with mail.mailbox(BJORN) as client:
        _, (_, lines) = client.getquotaroot("INBOX")
    assert f"STORAGE {used(mail, BJORN) // 1024}".encode().split()[0] in lines[0]
    assert lines[0].rstrip(b")").split()[-1] == str(500 * 1024).encode()


def test_a_mailbox_that_fills_up_says_so_in_the_resellers_name(mail: Any) -> None:
    size = used(mail, BJORN)
    with quota(mail, BJORN, str(size + 200_000)):
        message = mail.message(KEES, BJORN)
        message.add_attachment(b"x" * 125_000, maintype="application", subtype="octet-stream", filename="groot.bin")
        mail.send(KEES, message)
        mail.arrived(BJORN, message)
        found = wait(lambda: headers(mail, BJORN, "Uw mailbox is voor 80% vol"))
    assert "beheer@noorderict.example" in found["From"]
    assert "Noorder ICT" in found["From"]
    assert mail.machine.name not in str(found["From"])
    assert found["Auto-Submitted"] == "auto-generated"
    assert BJORN in found.get_content()


# --------------------------------------------------------------------------------------------------------- rate


def test_who_sends_too_much_waits_and_others_do_not(mail: Any, sending_afresh: None) -> None:
    """The workshop may send 50 an hour."""
    taken, last = 0, (0, b"")
    with mail.submission(WORKSHOP) as client:
        client.mail(WORKSHOP)
        for _ in range(60):
            last = client.rcpt(EVA)
            if last[0] != 250:
                break
            taken += 1
        client.rset()
    print(f"taken: {taken}")
    assert taken == 50
    assert last == (
        450,
        f"4.7.1 <{WORKSHOP}>: SASL login name rejected: Sending limit of this account reached: 50 per hour".encode(),
    )
    assert answer(mail, "a person", EVA)[0] == 250, "a colleague is not stopped"


def test_a_customers_and_a_resellers_rate_hold_for_all_his_people(mail: Any, sending_afresh: None) -> None:
    for level, name, limit in (("customer", "bouwbedrijf-van-der-meer", 1000), ("reseller", "zuidwest", 4000)):
        mail.machine.sql("DELETE FROM directory.mail_sent")
        owner = f"SELECT reseller_id, {level}_id FROM directory.{level}s WHERE name = '{name}'"
        mail.machine.sql(
            f"""INSERT INTO directory.mail_sent (reseller_id, owner_id, hour, sent, before)
                SELECT o.*, (extract(epoch FROM clock_timestamp())::bigint) / 3600, {limit - 1}, 0 FROM ({owner}) o"""
        )
        assert answer(mail, "a person", EVA)[0] == 250
        assert answer(mail, "a person", EVA) == (
            450,
            f"4.7.1 <{KEES}>: SASL login name rejected: Sending limit of this organisation reached: {limit} per hour",
        )


# ------------------------------------------------------------------------------------------------------- helpers


def wait(look: Any) -> Any:
    deadline = time.monotonic() + 40
    while not (seen := look()):
        assert time.monotonic() < deadline, "not within 40 s"
        time.sleep(0.1)
    return seen


def headers(mail: Any, login: str, subject: str) -> Any:
    """The newest mail with this subject."""
    client = mail.box(login)
    client.select("INBOX", readonly=True)
    numbers = client.search(None, "SUBJECT", f'"{subject}"')[1][0].split()
    if not numbers:
        return None
    raw = client.fetch(numbers[-1].decode(), "(BODY.PEEK[])")[1][0][1]
    return email.message_from_bytes(raw, policy=email.policy.default)


@pytest.fixture(autouse=True)
def _room(mail: Any) -> Iterator[None]:
    """Every test begins without the mails of earlier ones in Björn's mailbox, and leaves no queue behind."""
    mail.machine.run("doveadm", "expunge", "-u", BJORN, "mailbox", "*", "all")
    mail.machine.run("postqueue", "-f")
    yield
    mail.machine.settled()
    assert not mail.machine.queue()
