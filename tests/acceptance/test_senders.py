# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may write in whose name, and who may not log in at all."""

from __future__ import annotations

import imaplib
import json
import smtplib
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
    lines = [
        f"From: {EVA}",
        f"To: {KEES}",
        "Subject: x",
        "Message-ID: <kop@degraaf.example>",
        "Date: Mon, 23 Nov 2026 12:00:00 +0100",
    ]
    lines = [line for line in lines if not line.startswith(f"{header}:")] + [f"{header}: {value}", "", "x", ""]
    expected = (554, f"5.7.1 The sender {blamed} in the {header} header is not yours")
    assert refusal(mail, EVA, "\r\n".join(lines).encode(), EVA) == expected


@pytest.mark.parametrize("froms", [[f"From: {EVA}", f"From: {EVA}"], ["From: "]], ids=["two", "empty"])
def test_a_mail_has_one_from_header(mail: Any, froms: list[str]) -> None:
    lines = [
        *froms,
        f"To: {KEES}",
        "Subject: x",
        "Message-ID: <kop@degraaf.example>",
        "Date: Mon, 23 Nov 2026 12:00:00 +0100",
        "",
        "x",
        "",
    ]
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
        """UPDATE directory.customers SET state = 'suspended', suspended_because = 'file', suspended_at = now()
           WHERE name = 'hooft-advocaten'"""
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
            """UPDATE directory.customers SET state = 'active', suspended_because = NULL, suspended_at = NULL
               WHERE name = 'hooft-advocaten'"""
        )
    mail.arrived(person, message)


# ------------------------------------------------------------------------------------------- who there is

# Run on the machine, where every attempt can come from an address of its own: Dovecot makes an address that fails wait
# longer every time. Attempts begin at random moments, since failures are answered in steps of two seconds.
ATTEMPTS = """
import imaplib, json, random, socket, ssl, sys, threading, time
context, rounds, person = ssl._create_unverified_context(), int(sys.argv[1]), sys.argv[2]
took = {"person": [], "nobody": []}

class Client(imaplib.IMAP4_SSL):
    def _create_socket(self, timeout):
        source = (f"127.{random.randrange(1, 250)}.{random.randrange(250)}.{random.randrange(1, 250)}", 0)
        return context.wrap_socket(socket.create_connection((self.host, self.port), 60, source))

def attempts():
    order = ["person", "nobody"] * rounds
    random.shuffle(order)
    for kind in order:
        login = person if kind == "person" else f"nobody{random.randrange(10**9)}@degraaf.example"
        client = Client("127.0.0.1", 993, ssl_context=context)
        time.sleep(random.random())
        began = time.perf_counter()
        try:
            client.login(login, "verkeerd")
            raise SystemExit("a wrong password was taken")
        except imaplib.IMAP4.error as error:
            took[kind].append(time.perf_counter() - began)
            assert error.args[0] == b"[AUTHENTICATIONFAILED] Authentication failed.", error
        client.shutdown()

threads = [threading.Thread(target=attempts) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(took))
"""


def test_a_failed_login_takes_as_long_for_a_person_as_for_nobody(mail: Any) -> None:
    """Side by side and mixed; the same answer after the same work: one hash of the same cost."""
    took = json.loads(mail.machine.run("python3", "-", "4", EVA, stdin=ATTEMPTS))
    assert {kind: len(values) for kind, values in took.items()} == {"person": 16, "nobody": 16}
    # The quickest of each: other work on the machine makes any of them slow, and none quicker than its own work takes.
    person, nobody = min(took["person"]), min(took["nobody"])
    print(f"quickest failed login in seconds: person {person:.3f}, nobody {nobody:.3f}, ratio {person / nobody:.2f}")
    assert 0.67 < person / nobody < 1.5
    rows = mail.machine.sql(
        f"""SELECT (mail.dovecot_password(l, NULL)).password
            FROM unnest(ARRAY['{EVA}', 'niemand@degraaf.example', '{SUSPENDED}']) AS l"""
    )
    costs = {row[0].rsplit("$", 2)[0] for row in rows}
    assert costs == {"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1"}
