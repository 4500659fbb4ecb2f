# SPDX-License-Identifier: GPL-3.0-or-later
"""People send and read mail with their programs: every port, every way an address can lead to somebody."""

from __future__ import annotations

import re
import smtplib
import ssl
from email.message import EmailMessage
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import probe

JAN, EVA, SJAAK, BJORN = (f"{name}@degraaf.example" for name in ("jan", "eva", "sjaak", "bjorn"))
KEES, MARGOT = "kees@vandermeer.example", "m.thooft@thooft.example"
ONEILL = "k.o'neill@delinde.example"


@pytest.mark.parametrize("port", [465, 587])
def test_mail_goes_from_one_resellers_person_to_anothers(mail: Any, port: int) -> None:
    message = mail.message(f"Eva de Graaf-Jansen <{EVA}>", KEES)
    mail.send(EVA, message, port=port)
    got = mail.arrived(KEES, message)
    assert got["From"] == f"Eva de Graaf-Jansen <{EVA}>"
    assert "Zoë" in got.get_content()


def test_port_25_offers_no_login(mail: Any, context: ssl.SSLContext) -> None:
    with mail.smtp() as client:
        assert not client.has_extn("auth")
        client.starttls(context=context)
        client.ehlo("mx.buiten.example")
        assert not client.has_extn("auth")
        assert client.docmd("AUTH", "PLAIN AGEAYg==")[0] == 503


def test_port_587_wants_tls_before_anything_else(mail: Any) -> None:
    with smtplib.SMTP(mail.machine.address, 587, timeout=30) as client:
        client.ehlo("laptop")
        assert not client.has_extn("auth")
        assert client.docmd("MAIL", "FROM:<jan@degraaf.example>") == (530, b"5.7.0 Must issue a STARTTLS command first")


@pytest.mark.parametrize("port", [465, 587])
def test_a_wrong_password_is_refused(mail: Any, port: int) -> None:
    account = mail.account(EVA)
    wrong = type(account)(account.reseller, account.host, account.login, account.password + "x")
    with pytest.raises(smtplib.SMTPAuthenticationError) as refused, probe.submission(wrong, port, mail.target):
        pass
    assert refused.value.smtp_code == 535


@pytest.mark.parametrize(
    ("address", "person"),
    [
        ("info@degraaf.example", "jan@degraaf.example"),
        ("JAN@DeGraaf.Example", "jan@degraaf.example"),
        ("eva@bakkerijdegraaf.example", EVA),
        ("info@bakkerijdegraaf.example", "jan@degraaf.example"),
        ("administratie+factuur@degraaf.example", EVA),
        ("eva+factuur@bakkerijdegraaf.example", EVA),
        ("info@xn--hooft-elik-t6a.example", "secretariaat@thooft.example"),
        (ONEILL, ONEILL),
        ("kevin@delinde.example", ONEILL),
    ],
    ids=str,
)
def test_an_address_leads_to_its_person(mail: Any, address: str, person: str) -> None:
    message = mail.message(KEES, address)
    mail.send(KEES, message)
    assert mail.arrived(person, message)["To"] == address


def test_a_forward_keeps_a_copy(mail: Any) -> None:
    message = mail.message(KEES, "winkel@degraaf.example")
    mail.send(KEES, message)
    mail.arrived(EVA, message)
    mail.arrived("winkel@degraaf.example", message)


def test_a_list_reaches_every_member_once(mail: Any) -> None:
    """Also the one who is addressed besides."""
    message = mail.message(KEES, f"bakkers@degraaf.example, {SJAAK}")
    mail.send(KEES, message, ["bakkers@degraaf.example", SJAAK])
    for member in ("jan@degraaf.example", SJAAK, BJORN):
        mail.arrived(member, message)
    assert not mail.found(EVA, message["Message-ID"])


def test_what_leaves_says_nothing_of_the_persons_computer(mail: Any) -> None:
    message = mail.message(EVA, KEES)
    mail.send(EVA, message)
    got = mail.arrived(KEES, message)
    text = "\n".join(f"{name}: {value}" for name, value in got.items())
    assert "10.213.0.1" not in text.replace(mail.machine.address, "")
    assert not re.search(r"(?i)authenticated|sasl|with e?smtps?a\b", text)


# ------------------------------------------------------------------------------------------------- real mail


def attachments(message: EmailMessage) -> dict[str, bytes]:
    return {part.get_filename() or "": part.get_payload(decode=True) for part in message.iter_attachments()}  # type: ignore[misc]


@pytest.mark.parametrize("megabytes", [1, 50])
def test_an_attachment_arrives_as_it_left(mail: Any, megabytes: int) -> None:
    content = bytes(range(256)) * (megabytes * 1_000_000 // 256)
    name = "Tekening – kapconstructie 'Ĳsselkade' (définitief) ☑.pdf"
    message = mail.message(KEES, EVA, subject="Tekening voor de Ĳsselkade")
    message.add_attachment(content, maintype="application", subtype="pdf", filename=name)
    mail.send(KEES, message)
    got = mail.arrived(EVA, message, seconds=120)
    assert got["Subject"] == "Tekening voor de Ĳsselkade"
    assert attachments(got) == {name: content}


def test_what_is_larger_than_agreed_is_refused_at_once(mail: Any) -> None:
    with mail.submission(KEES) as client:
        client.ehlo()
        limit = int(client.esmtp_features["size"])
        assert limit == 75 * 1024 * 1024
        assert client.docmd("MAIL", f"FROM:<{KEES}> SIZE={limit + 1}") == (
            552,
            b"5.3.4 Message size exceeds fixed limit",
        )


INVITATION = """BEGIN:VCALENDAR\r
VERSION:2.0\r
PRODID:-//Bouwsteen//Test//NL\r
METHOD:REQUEST\r
BEGIN:VTIMEZONE\r
TZID:Europe/Amsterdam\r
BEGIN:DAYLIGHT\r
DTSTART:19810329T020000\r
RRULE:FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU\r
TZOFFSETFROM:+0100\r
TZOFFSETTO:+0200\r
END:DAYLIGHT\r
BEGIN:STANDARD\r
DTSTART:19961027T030000\r
RRULE:FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU\r
TZOFFSETFROM:+0200\r
TZOFFSETTO:+0100\r
END:STANDARD\r
END:VTIMEZONE\r
BEGIN:VEVENT\r
UID:werkoverleg@vandermeer.example\r
DTSTAMP:20261123T120000Z\r
DTSTART;TZID=Europe/Amsterdam:20261126T083000\r
DTEND;TZID=Europe/Amsterdam:20261126T091500\r
RRULE:FREQ=WEEKLY;BYDAY=TH;COUNT=10\r
SUMMARY:Werkoverleg Ĳsselkade – één keer per week\r
ORGANIZER:mailto:kees@vandermeer.example\r
ATTENDEE;RSVP=TRUE:mailto:eva@degraaf.example\r
END:VEVENT\r
END:VCALENDAR\r
"""


def test_an_invitation_arrives_to_the_letter(mail: Any) -> None:
    message = mail.message(KEES, EVA, subject="Werkoverleg")
    message.add_alternative(INVITATION, subtype="calendar", params={"method": "REQUEST"})
    mail.send(KEES, message)
    got = mail.arrived(EVA, message)
    part = next(part for part in got.walk() if part.get_content_type() == "text/calendar")
    assert part.get_param("method") == "REQUEST"
    assert part.get_payload(decode=True).decode() == INVITATION


def test_a_thread_stays_a_thread(mail: Any) -> None:
    first = mail.message(KEES, EVA)
    mail.send(KEES, first)
    mail.arrived(EVA, first)
    answer = mail.message(EVA, KEES, subject=f"Re: {first['Subject']}", In_Reply_To=first["Message-ID"])
    answer["References"] = first["Message-ID"]
    mail.send(EVA, answer)
    got = mail.arrived(KEES, answer)
    assert got["In-Reply-To"] == got["References"] == first["Message-ID"]
