# SPDX-License-Identifier: GPL-3.0-or-later
"""Mail from and to the rest of the world: who may bring what, what is believed, how it travels."""

from __future__ import annotations

import email.message
import re
import smtplib
import time
from typing import Any

import dkim
import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import dns_client

JAN, EVA, KEES = "jan@degraaf.example", "eva@degraaf.example", "kees@vandermeer.example"
KOWALCZYK = "s.kowalczyk@delinde.example"


def refused(mail: Any, data: Any, sender: str, recipients: list[str]) -> tuple[int, str]:
    """What port 25 answers to a mail that it does not take."""
    with pytest.raises(smtplib.SMTPException) as error:
        mail.deliver(data, sender, recipients)
    found = error.value
    if isinstance(found, smtplib.SMTPRecipientsRefused):
        code, text = next(iter(found.recipients.values()))
    else:
        code, text = found.smtp_code, found.smtp_error  # type: ignore[attr-defined]
    return code, text.decode()


# -------------------------------------------------------------------------------------------------- coming in


def test_an_honest_mail_arrives_with_what_was_found(mail: Any, outside: Any) -> None:
    message = outside.message(EVA)
    mail.deliver(outside.signed(message), "dirk@buiten.example", [EVA])
    got = mail.arrived(EVA, message)
    result = " ".join(got.get_all("Authentication-Results"))
    assert result.startswith(f"{mail.machine.name};")
    for verdict in ("dkim=pass", "spf=pass", "dmarc=pass"):
        assert verdict in result


def test_a_mail_that_pretends_is_refused_where_the_domain_asks_for_it(mail: Any, outside: Any) -> None:
    message = outside.message(EVA, "Directie <directie@streng.example>")
    code, text = refused(mail, message, "directie@streng.example", [EVA])
    assert code == 554
    assert "DMARC" in text


def test_a_mail_that_pretends_goes_to_junk_where_the_domain_asks_for_that(mail: Any, outside: Any) -> None:
    message = outside.message(EVA, "Directie <directie@zacht.example>")
    mail.deliver(message, "dirk@buiten.example", [EVA])
    got = mail.arrived(EVA, message, "Junk")
    assert "dmarc=fail" in " ".join(got.get_all("Authentication-Results"))
    assert not mail.found(EVA, message["Message-ID"])


def test_a_changed_mail_has_no_valid_signature(mail: Any, outside: Any) -> None:
    """SPF still holds, so it arrives; but nobody may say that the signature is right."""
    message = outside.message(EVA)
    changed = outside.signed(message).replace(b"zaterdag", b"maandag!")
    mail.deliver(changed, "dirk@buiten.example", [EVA])
    result = " ".join(mail.arrived(EVA, message).get_all("Authentication-Results"))
    assert "dkim=fail" in result
    assert "dkim=pass" not in result


def test_a_verdict_in_our_name_that_came_along_is_gone(mail: Any, outside: Any) -> None:
    message = outside.message(EVA, "Dirk <dirk@zacht.example>")
    forged = f"{mail.machine.name}; dkim=pass header.d=zacht.example; dmarc=pass (forged)"
    message["Authentication-Results"] = forged
    message["X-Spam"] = "No"
    mail.deliver(message, "dirk@buiten.example", [EVA])
    got = mail.arrived(EVA, message, "Junk")
    results = got.get_all("Authentication-Results")
    assert len(results) == 1
    assert "forged" not in results[0]
    assert "dmarc=fail" in results[0]


def test_a_colleagues_name_from_outside_is_not_believed(mail: Any, outside: Any) -> None:
    """Our own domains say who may send for them, too."""
    message = outside.message(EVA, f"Jan de Graaf <{JAN}>")
    mail.deliver(message, "dirk@buiten.example", [EVA])
    got = mail.arrived(EVA, message, "Junk")
    assert "dmarc=fail" in " ".join(got.get_all("Authentication-Results"))


def test_an_unknown_recipient_is_refused_at_once(mail: Any, outside: Any) -> None:
    code, text = refused(
        mail, outside.message("niemand@degraaf.example"), "dirk@buiten.example", ["niemand@degraaf.example"]
    )
    assert (code, text) == (550, "5.1.1 <niemand@degraaf.example>: Recipient address rejected: User unknown")


@pytest.mark.parametrize("local", ["postmaster", "abuse"])
def test_every_domain_has_a_postmaster(mail: Any, local: str) -> None:
    """RFC 5321 4.5.1 and RFC 2142: accepted; where to is the reseller's engineer."""
    with mail.smtp() as client:
        client.mail("dirk@buiten.example")
        assert client.rcpt(f"{local}@degraaf.example")[0] == 250
        client.rset()


# --------------------------------------------------------------------------------------------------- relaying

RELAY = [
    "slachtoffer@buiten.example",
    "slachtoffer%buiten.example@degraaf.example",
    "slachtoffer%buiten.example@[127.0.0.1]",
    "@degraaf.example:slachtoffer@buiten.example",
    "buiten.example!slachtoffer@degraaf.example",
    '"slachtoffer@buiten.example"@degraaf.example',
    '"slachtoffer@buiten.example"',
    "slachtoffer@buiten.example@degraaf.example",
    "slachtoffer@[10.213.0.1]",
    "slachtoffer@mailb1.bouwsteen.example.buiten.example",
    "root@localhost.buiten.example",
]


@pytest.mark.parametrize("sender", ["spam@buiten.example", "jan@degraaf.example", "", "root@localhost.localdomain"])
def test_nobody_sends_through_port_25_to_elsewhere(mail: Any, outside: Any, sender: str) -> None:
    taken = []
    for recipient in RELAY:
        with mail.smtp() as client:
            if client.docmd("MAIL", f"FROM:<{sender}>")[0] == 250:
                code, _ = client.docmd("RCPT", f"TO:<{recipient}>")
                if code < 400:
                    taken.append(recipient)
            client.rset()
    print(f"relay attempts taken: {len(taken)}")
    assert not taken


@pytest.mark.parametrize("port", [465, 587])
def test_nobody_submits_without_a_login(mail: Any, port: int, context: Any) -> None:
    client: smtplib.SMTP
    if port == 465:
        client = smtplib.SMTP_SSL(mail.machine.address, port, context=context, timeout=30)
    else:
        client = smtplib.SMTP(mail.machine.address, port, timeout=30)
        client.starttls(context=context)
    with client:
        client.ehlo("laptop")
        answers = set()
        for sender, recipient in [
            (JAN, EVA),
            (JAN, "niemand@degraaf.example"),
            ("x@buiten.example", "y@buiten.example"),
        ]:
            client.mail(sender)
            code, text = client.rcpt(recipient)
            answers.add((code, re.sub(r"<[^>]*>", "<>", text.decode())))
            client.rset()
    assert answers == {(554, "5.7.1 <>: Client host rejected: Access denied")}, "a stranger learns nothing by asking"


def test_what_a_stranger_may_not_ask(mail: Any) -> None:
    with mail.smtp() as client:
        assert not client.has_extn("vrfy")
        assert client.docmd("VRFY", JAN)[0] == 502
        assert client.docmd("EXPN", "bakkers@degraaf.example")[0] in {500, 502}
        assert client.docmd("ETRN", "degraaf.example")[0] in {458, 459, 502, 503, 554}


# ----------------------------------------------------------------------------------------------------- smuggling


@pytest.mark.parametrize("ending", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\r\n\x00.\r\n"], ids=repr)
def test_no_second_mail_rides_along(mail: Any, outside: Any, ending: bytes) -> None:
    """An end of data that only some understand must not start another mail with a sender of the attacker's choice."""
    first, second = outside.message(EVA), outside.message(EVA, "Jan <jan@degraaf.example>")
    smuggled = (
        first.as_bytes()
        + b"einde"
        + ending
        + f"MAIL FROM:<{JAN}>\r\nRCPT TO:<{EVA}>\r\nDATA\r\n".encode()
        + second.as_bytes()
    )
    with mail.smtp() as client:
        client.mail("dirk@buiten.example")
        client.rcpt(EVA)
        assert client.docmd("DATA")[0] == 354
        client.sock.sendall(smuggled + b"\r\n.\r\n")
        code, text = client.getreply()
        if re.search(rb"(?<!\r)\n", ending):
            assert (code, text.decode()) == (550, f"5.5.2 {mail.machine.name} Error: bare <LF> received")
        else:
            assert code == 250, "one mail with strange content"
    mail.machine.settled()
    for folder in ("INBOX", "Junk"):
        # The second mail's Message-ID may stand inside the first one's text, never in a header of its own.
        assert not mail.found(EVA, second["Message-ID"], folder)


def test_commands_before_the_greeting_and_in_a_heap_are_refused(mail: Any) -> None:
    with mail.smtp() as client:
        heap = [
            "MAIL FROM:<dirk@buiten.example>",
            "RCPT TO:<eva@degraaf.example>",
            "DATA",
            "Subject: x",
            "",
            "x",
            ".",
            "QUIT",
        ]
        client.sock.sendall("".join(f"{line}\r\n" for line in heap).encode())
        answers = []
        while True:
            try:
                answers.append(client.getreply()[0])
            except smtplib.SMTPServerDisconnected:
                break
    assert 250 not in answers[2:], "nothing of a heap was taken"


# ------------------------------------------------------------------------------------------------------ going out


def test_mail_that_leaves_is_signed_and_others_agree(mail: Any, outside: Any) -> None:
    message = mail.message(f"Eva <{EVA}>", "dirk@buiten.example")
    mail.send(EVA, message)
    [(_, _, data, tls)] = wait(lambda: outside.got(message["Message-ID"]))
    assert tls
    found = email.message_from_bytes(data)
    assert "d=degraaf.example" in found["DKIM-Signature"]
    assert dkim.verify(undotted(data), dnsfunc=lambda name, timeout=5: key_record(mail, name.decode()))


def test_mail_from_an_alias_domain_is_signed_for_that_domain(mail: Any, outside: Any) -> None:
    sender = "eva@bakkerijdegraaf.example"
    message = mail.message(sender, "dirk@buiten.example")
    mail.send(EVA, message, envelope=sender)
    [(_, _, data, _)] = wait(lambda: outside.got(message["Message-ID"]))
    assert "d=bakkerijdegraaf.example" in email.message_from_bytes(data)["DKIM-Signature"]


def test_mail_that_leaves_hides_where_it_was_written(mail: Any, outside: Any) -> None:
    message = mail.message(EVA, "dirk@buiten.example")
    mail.send(EVA, message, port=587)
    [(_, _, data, _)] = wait(lambda: outside.got(message["Message-ID"]))
    head = data.partition(b"\r\n\r\n")[0].decode()
    assert "10.213.0.1" not in head.replace(mail.machine.address, "")
    assert not re.search(r"(?i)auth-user|sasl|authenticated sender|x-originating", head)
    assert "Authentication-Results" not in head


def test_a_receiver_whose_certificate_is_not_the_announced_one_gets_nothing(mail: Any, outside: Any) -> None:
    """DANE (RFC 7672): the mail waits rather than going to somebody in between."""
    message = mail.message(EVA, "dirk@dane-fout.example")
    mail.send(EVA, message)
    reason = wait(
        lambda: [
            r["delay_reason"]
            for item in mail.machine.queue()
            for r in item["recipients"]
            if r["address"] == "dirk@dane-fout.example" and "delay_reason" in r
        ]
    )[0]
    try:
        assert "Server certificate not verified" in reason or "TLSA" in reason or "not trusted" in reason, reason
        assert not outside.got(message["Message-ID"])
    finally:
        drop(mail, "dirk@dane-fout.example")


def test_a_receiver_without_tls_still_gets_mail(mail: Any, outside: Any) -> None:
    message = mail.message(EVA, "dirk@geen-tls.example")
    mail.send(EVA, message)
    [(_, _, _, tls)] = wait(lambda: outside.got(message["Message-ID"]))
    assert not tls


def test_a_forward_to_elsewhere_leaves_and_keeps_its_seal(mail: Any, outside: Any) -> None:
    """What came in with a verdict goes on with that verdict, sealed (ARC, RFC 8617)."""
    mail.machine.sql(
        "UPDATE directory.forwards SET target = 'stan@buiten.example' WHERE target = 'stan.kowalczyk@elsewhere.example'"
    )
    try:
        message = outside.message(KOWALCZYK)
        mail.deliver(outside.signed(message), "dirk@buiten.example", [KOWALCZYK])
        [(_, recipients, data, _)] = wait(lambda: outside.got(message["Message-ID"]))
        assert [recipient.split(" ORCPT")[0] for recipient in recipients] == ["RCPT TO:<stan@buiten.example>"]
        found = email.message_from_bytes(data)
        assert "d=delinde.example" in found["ARC-Seal"]
        assert "dmarc=pass" in found["ARC-Authentication-Results"]
        mail.arrived(KOWALCZYK, message)
    finally:
        mail.machine.sql(
            """UPDATE directory.forwards SET target = 'stan.kowalczyk@elsewhere.example'
               WHERE target = 'stan@buiten.example'"""
        )


def wait(look: Any) -> Any:
    deadline = time.monotonic() + 40
    while not (seen := look()):
        assert time.monotonic() < deadline, "nothing came out within 40 s"
        time.sleep(0.1)
    return seen


def undotted(data: bytes) -> bytes:
    """The content of DATA without the dots that SMTP adds and the one that ends it."""
    return data.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")


def key_record(mail: Any, name: str) -> bytes:
    """A TXT record as the machine's validating resolver gives it."""
    values = dns_client.look_up("10.213.0.1", [(name, "TXT")])[name, "TXT"]
    return values[0].replace('" "', "").strip('"').encode() if values else b""


def drop(mail: Any, recipient: str) -> None:
    """Take a mail out of the queue that a test has left there."""
    for item in mail.machine.queue():
        if any(r["address"] == recipient for r in item["recipients"]):
            mail.machine.run("postsuper", "-d", item["queue_id"])
