# SPDX-License-Identifier: GPL-3.0-or-later
"""Mail that goes on to elsewhere: SPF passes, ARC holds, bounces find the sender, and nobody can relay by it.

The verifiers are libraries that have nothing to do with the programs under test: pyspf and dkimpy.
"""

from __future__ import annotations

import base64
import email.message
import hmac
import json
import re
import smtplib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import dkim
import dns.resolver
import pytest
from conftest import BRIDGE, ansible, submit, wait_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore", SyntaxWarning)
    import spf

EVA, KOWALCZYK = "eva@degraaf.example", "s.kowalczyk@delinde.example"
DIRK, STAN = "dirk@buiten.example", "stan@buiten.example"
ABROAD = "stan.kowalczyk@elsewhere.example"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@pytest.fixture(scope="module", autouse=True)
def _forward(machine: Any, outside: Any) -> Iterator[None]:
    """Kowalczyk's forward goes to the outside world of the tests, and the machine's own names are in its DNS."""
    assert outside
    name = machine.name.removesuffix(".example")
    records = f'srs.{name} MX 10 {name}\nsrs.{name} TXT "v=spf1 a:{machine.name} -all"\n'

    def publish(state: str) -> None:
        fragment = {"name": "acceptance-srs", "state": state, **({"content": records} if state == "present" else {})}
        words = ["localhost", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"]
        ansible("ansible", *words, "-m", "bouwsteen.hosting.lab_zone", "-a", json.dumps({"fragments": [fragment]}))

    def send_on(before: str, after: str) -> None:
        machine.sql(f"UPDATE directory.forwards SET target = '{after}' WHERE target = '{before}'")

    send_on(ABROAD, STAN)
    publish("present")
    machine.run("unbound-control", "flush_zone", "example")
    try:
        yield
    finally:
        publish("absent")
        send_on(STAN, ABROAD)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dns.resolver.Resolver:
    """The lab's DNS for the verifiers too."""
    lab = dns.resolver.Resolver(configure=False)
    lab.nameservers = [BRIDGE]
    monkeypatch.setattr(dns.resolver, "default_resolver", lab)
    return lab


def forwarded(mail: Any, outside: Any, sender: str = DIRK, who: str = KOWALCZYK) -> tuple[str, bytes]:
    """A mail from outside to who forwards to outside: envelope sender and content as they come out."""
    message = outside.message(who)
    mail.deliver(outside.signed(message), sender, [who])
    [(line, recipients, data, _)] = wait_for("the forward", lambda: outside.got(message["Message-ID"]))
    assert [recipient.split(" ")[1] for recipient in recipients] == [f"TO:<{STAN}>"]
    found = re.match(r"MAIL FROM:<([^>]*)>", line)
    assert found, line
    return found[1], re.sub(rb"(?m)^\.\.", b".", data.removesuffix(b"\r\n.\r\n") + b"\r\n")


def srs(mail: Any, sender: str = DIRK, days: int = 0) -> str:
    """The address that the machine itself would give to a sender, some days ago (the key never leaves this test)."""
    secret = mail.machine.run("cat", "/etc/postsrsd.secret").strip().encode()
    local, domain = sender.split("@")
    day = (int(time.time()) // 86400 - days) % 1024
    stamp = LETTERS[day >> 5] + LETTERS[day & 31]
    digest = hmac.new(secret, f"{stamp}{domain}{local}".lower().encode(), "sha1").digest()
    return f"SRS0={base64.b64encode(digest).decode()[:8]}={stamp}={domain}={local}@srs.{mail.machine.name}"


def refused(mail: Any, recipient: str, sender: str = "") -> tuple[int, str]:
    with pytest.raises(smtplib.SMTPRecipientsRefused) as error:
        mail.deliver(b"Subject: x\r\nFrom: a@buiten.example\r\n\r\nx\r\n", sender, [recipient])
    code, text = error.value.recipients[recipient]
    return code, text.decode()


@pytest.mark.usefixtures("resolver")
def test_a_forward_passes_spf_and_arc(mail: Any, outside: Any) -> None:
    sender, data = forwarded(mail, outside)
    assert sender.endswith(f"@srs.{mail.machine.name}")
    assert "noorder" not in sender, "the envelope names no reseller"
    address = mail.machine.address
    assert spf.check2(i=address, s=DIRK, h=mail.machine.name)[0] == "fail", "the test would prove nothing"
    assert spf.check2(i=address, s=sender, h=mail.machine.name)[0] == "pass"

    keys = {
        f"{selector}._domainkey.{domain}.": f"v=DKIM1; k={kind}; p={public}"
        for domain, selector, kind, public in mail.machine.sql(
            "SELECT domain, selector, algorithm, public_key FROM mail.dkim_public"
        )
    }
    key = outside.dkim_key
    assert key

    def text(name: bytes, timeout: int = 5) -> bytes | None:
        del timeout
        found = keys.get(name.decode())
        return found.encode() if found else dkim.get_txt(name)

    chain, results, reason = dkim.arc_verify(data, dnsfunc=text)
    assert (chain, len(results)) == (b"pass", 1), reason
    assert dkim.verify(data, dnsfunc=text), "the sender's own signature survived"
    found = email.message_from_bytes(data)
    assert (found["From"], found["Return-Path"]) == ("Dirk Buiten <dirk@buiten.example>", None)


def test_who_sends_from_here_keeps_his_name(mail: Any, outside: Any, sending_afresh: None) -> None:
    del sending_afresh
    message = mail.message(EVA, DIRK)
    mail.send(EVA, message)
    [(line, _, _, _)] = wait_for("the mail", lambda: outside.got(message["Message-ID"]))
    assert line.startswith(f"MAIL FROM:<{EVA}>")


def test_the_copy_that_stays_has_the_first_sender(mail: Any, outside: Any) -> None:
    message = outside.message(KOWALCZYK)
    mail.deliver(outside.signed(message), DIRK, [KOWALCZYK])
    assert mail.arrived(KOWALCZYK, message)["Return-Path"] == f"<{DIRK}>"


def test_a_bounce_of_a_forward_reaches_the_sender(mail: Any, outside: Any) -> None:
    sender, _ = forwarded(mail, outside)
    bounce = outside.message(sender, "MAILER-DAEMON@buiten.example")
    mail.deliver(outside.signed(bounce), "", [sender])
    [(line, recipients, _, _)] = wait_for("the bounce", lambda: outside.got(bounce["Message-ID"]))
    assert line.startswith("MAIL FROM:<>")
    assert recipients[0].startswith(f"RCPT TO:<{DIRK}>")


def test_our_own_bounce_of_a_forward_reaches_the_sender(mail: Any, outside: Any) -> None:
    """The receiver says no for good: Postfix itself tells the first sender, through its own SRS address."""
    outside.refuse_to = STAN
    try:
        message = outside.message(KOWALCZYK)
        mail.deliver(outside.signed(message), DIRK, [KOWALCZYK])
        [(line, recipients, _, _)] = wait_for("the bounce", lambda: outside.got(message["Message-ID"]))
    finally:
        outside.refuse_to = None
    assert line.startswith("MAIL FROM:<>")
    assert recipients[0].startswith(f"RCPT TO:<{DIRK}>")


TAMPERED: dict[str, Callable[[str], str]] = {
    "another domain": lambda a: a.replace("=buiten.example=", "=slachtoffer.example="),
    "another person": lambda a: a.replace("=dirk@", "=directie@"),
    "another hash": lambda a: "SRS0=AAAAAAAA" + a[13:],
    "a short hash": lambda a: "SRS0=" + a[5:9] + a[13:],
    "no hash": lambda a: "SRS0==" + a[14:],
    "a foreign second hop": lambda a: a.replace("SRS0=", "SRS1=AAAAAAAA=elders.example=="),
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_nobody_relays_by_an_address_of_his_own_making(mail: Any, change: Callable[[str], str]) -> None:
    address = change(srs(mail))
    unknown = f"5.1.1 <{address}>: Recipient address rejected: User unknown"
    assert refused(mail, address) == (550, unknown)


def test_an_old_address_is_dead(mail: Any, outside: Any) -> None:
    assert outside
    code, text = refused(mail, srs(mail, days=30))
    assert (code, "User unknown" in text) == (550, True)
    code, text = refused(mail, srs(mail, days=-5))
    assert (code, "User unknown" in text) == (550, True)
    with mail.smtp() as client:
        submit(client, outside.signed(outside.message(srs(mail, days=20))), [srs(mail, days=20)], "")


def test_a_right_address_takes_bounces_only(mail: Any) -> None:
    address = srs(mail)
    code, text = refused(mail, address, sender=DIRK)
    assert (code, "This address takes bounces only" in text) == (550, True)
    assert refused(mail, f"wie@srs.{mail.machine.name}")[0] == 550


def test_the_second_passage_is_not_open_to_others(mail: Any) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - refused or unreachable, as the firewall does it
        smtplib.SMTP(mail.machine.address, 10026, timeout=3)
