# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may write in whose name, and who may not log in at all."""

from __future__ import annotations

import imaplib
import smtplib
import statistics
import time
import uuid
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import probe

EVA, JAN, KEES = "eva@degraaf.example", "jan@degraaf.example", "kees@vandermeer.example"
SUSPENDED = "piet@degraaf.example"


def refusal(mail: Any, login: str, message: Any, envelope: str, recipient: str = KEES) -> tuple[int, str]:
    with pytest.raises(smtplib.SMTPException) as error:
        mail.send(login, message, [recipient], envelope=envelope)
    found = error.value
    if isinstance(found, smtplib.SMTPRecipientsRefused):
        code, text = next(iter(found.recipients.values()))
    else:
        code, text = found.smtp_code, found.smtp_error  # type: ignore[attr-defined]
    return code, text.decode()


@pytest.mark.parametrize(
    "sender", [EVA, "administratie@degraaf.example", "eva@bakkerijdegraaf.example", "eva+nieuwsbrief@degraaf.example"]
)
def test_people_write_as_any_address_of_their_own(mail: Any, sender: str) -> None:
    message = mail.message(sender, KEES)
    mail.send(EVA, message, envelope=sender)
    assert mail.arrived(KEES, message)["From"] == sender


def test_members_of_a_shared_mailbox_write_in_its_name(mail: Any) -> None:
    sender = "offertes@vandermeer.example"
    message = mail.message(sender, EVA)
    mail.send(KEES, message, envelope=sender)
    mail.arrived(EVA, message)


@pytest.mark.parametrize(
    "sender",
    [
        JAN,  # a colleague
        "bakkers@degraaf.example",  # a list
        KEES,  # somebody else's customer
        "m.thooft@thooft.example",
        "niemand@degraaf.example",
        "iemand@buiten.example",  # not even here
    ],
)
def test_nobody_writes_in_anothers_name(mail: Any, sender: str) -> None:
    """Neither on the envelope nor in the header that people see."""
    message = mail.message(sender, KEES)
    assert refusal(mail, EVA, message, sender) == (
        553,
        f"5.7.1 <{sender}>: Sender address rejected: not owned by user {EVA}",
    )
    assert refusal(mail, EVA, message, EVA) == (554, f"5.7.1 The sender {sender} in the From header is not yours")


@pytest.mark.parametrize(
    ("header", "value", "blamed"),
    [
        ("From", f"{EVA}, {KEES}", KEES),
        ("From", f'"{KEES}" <{EVA}>', KEES),
        ("From", f"Kees van der Meer <{KEES}>", KEES),
        ("Sender", KEES, KEES),
    ],
)
def test_headers_that_show_somebody_else_are_refused(mail: Any, header: str, value: str, blamed: str) -> None:
    lines = [f"From: {EVA}", f"To: {KEES}", "Subject: x", "Message-ID: <kop@degraaf.example>", "Date: Mon, 23 Nov 2026 12:00:00 +0100"]
    lines = [line for line in lines if not line.startswith(f"{header}:")] + [f"{header}: {value}", "", "x", ""]
    expected = (554, f"5.7.1 The sender {blamed} in the {header} header is not yours")
    assert refusal(mail, EVA, "\r\n".join(lines).encode(), EVA) == expected


@pytest.mark.parametrize(
    "froms", [[f"From: {EVA}", f"From: {EVA}"], ["From: "], ["From: <>"]], ids=["two", "empty", "no address"]
)
def test_a_mail_has_one_from_header(mail: Any, froms: list[str]) -> None:
    lines = [*froms, f"To: {KEES}", "Subject: x", "Message-ID: <kop@degraaf.example>", "Date: Mon, 23 Nov 2026 12:00:00 +0100", "", "x", ""]
    assert refusal(mail, EVA, "\r\n".join(lines).encode(), EVA) == (
        554,
        "5.7.1 A mail has exactly one From header, with an address",
    )


def test_a_mail_without_from_header_gets_the_senders_own(mail: Any) -> None:
    """Scanners and the like leave it out."""
    identity = f"<{uuid.uuid4().hex}@degraaf.example>"
    lines = [f"To: {KEES}", "Subject: scan", f"Message-ID: {identity}", "", "x", ""]
    mail.send(EVA, "\r\n".join(lines).encode(), [KEES])
    assert mail.arrived(KEES, {"Message-ID": identity})["From"] == EVA


def test_a_read_receipt_has_no_envelope_sender_and_still_only_an_own_from(mail: Any) -> None:
    message = mail.message(EVA, KEES)
    mail.send(EVA, message, envelope="")
    mail.arrived(KEES, message)
    forged = mail.message(KEES, EVA)
    assert refusal(mail, EVA, forged, "") == (554, f"5.7.1 The sender {KEES} in the From header is not yours")


def test_a_refused_mail_reached_nobody(mail: Any) -> None:
    message = mail.message(JAN, KEES)
    refusal(mail, EVA, message, EVA)
    mail.machine.settled()
    assert not mail.found(KEES, message["Message-ID"])
    assert not mail.found(KEES, message["Message-ID"], "Junk")


# ------------------------------------------------------------------------------------------------- suspended


@pytest.fixture
def suspended_with_password(mail: Any) -> Any:
    """Piet, suspended in the files, as somebody who knows his password."""
    digest = mail.machine.sql(f"SELECT password_hash FROM directory.users WHERE login = '{EVA}'")[0][0]
    mail.machine.sql(f"UPDATE directory.users SET password_hash = '{digest}' WHERE login = '{SUSPENDED}'")
    yield probe.Account("", mail[EVA].host, SUSPENDED, mail[EVA].password)
    mail.machine.sql(f"UPDATE directory.users SET password_hash = NULL WHERE login = '{SUSPENDED}'")


def test_a_suspended_person_cannot_log_in_but_receives(mail: Any, suspended_with_password: Any) -> None:
    with pytest.raises(smtplib.SMTPAuthenticationError), probe.submission(suspended_with_password, 465, mail.target):
        pass
    with pytest.raises(imaplib.IMAP4.error), probe.mailbox(suspended_with_password, mail.target):
        pass
    message = mail.message(EVA, SUSPENDED)
    mail.send(EVA, message)
    mail.machine.settled()
    identity = message["Message-ID"]
    kept = mail.machine.run("doveadm", "search", "-u", SUSPENDED, "HEADER", "Message-ID", identity)
    assert len(kept.splitlines()) == 1, "what arrives is kept for the day that he comes back"


def test_a_suspended_customers_people_cannot_log_in_but_receive(mail: Any) -> None:
    mail.machine.sql(
        "UPDATE directory.customers SET state = 'suspended', suspended_because = 'file', suspended_at = now() WHERE name = 'hooft-advocaten'"
    )
    person = "l.nguyen@thooft.example"
    try:
        with pytest.raises(smtplib.SMTPAuthenticationError), mail.submission(person):
            pass
        with pytest.raises(imaplib.IMAP4.error), mail.mailbox(person):
            pass
        message = mail.message(EVA, person)
        mail.send(EVA, message)
    finally:
        mail.machine.sql(
            "UPDATE directory.customers SET state = 'active', suspended_because = NULL, suspended_at = NULL WHERE name = 'hooft-advocaten'"
        )
    mail.arrived(person, message)


# ------------------------------------------------------------------------------------------- who there is


def attempt(mail: Any, login: str) -> float:
    """Seconds that a failed login takes, from a session of its own."""
    client = imaplib.IMAP4_SSL(mail.machine.address, 993, ssl_context=probe.context_for(mail[EVA].host, mail.target))
    try:
        began = time.perf_counter()
        with pytest.raises(imaplib.IMAP4.error) as error:
            client.login(login, "verkeerd")
        took = time.perf_counter() - began
    finally:
        client.shutdown()
    assert error.value.args[0] == b"[AUTHENTICATIONFAILED] Authentication failed."
    return took


def test_a_failed_login_takes_as_long_for_a_person_as_for_nobody(mail: Any) -> None:
    """Side by side, in turn. The delay after a failure is the same for both, so what differs is the work before it."""
    mail.machine.run("doveadm", "penalty", check=False)
    known, unknown = [], []
    for number in range(6):
        mail.machine.run("systemctl", "restart", "dovecot")  # the address of a test that fails on purpose earns a penalty
        wait_ready(mail)
        known.append(attempt(mail, EVA))
        unknown.append(attempt(mail, f"niemand{number}@degraaf.example"))
        mail.machine.run("systemctl", "restart", "dovecot")
        wait_ready(mail)
        unknown.append(attempt(mail, f"nooit{number}@degraaf.example"))
        known.append(attempt(mail, JAN))
    mail.close()
    ours, theirs = statistics.median(known), statistics.median(unknown)
    print(f"median seconds of a failed login: person {ours:.3f}, nobody {theirs:.3f}, difference {abs(ours - theirs):.3f}")
    assert abs(ours - theirs) < 0.5 * max(statistics.stdev(known), statistics.stdev(unknown), 0.1)


def wait_ready(mail: Any) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            imaplib.IMAP4_SSL(
                mail.machine.address, 993, ssl_context=probe.context_for(mail[EVA].host, mail.target), timeout=5
            ).shutdown()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("Dovecot did not come up within 20 s")
