# SPDX-License-Identifier: GPL-3.0-or-later
"""What must not happen: other people's mail, by protocol, by file or by a clever name. And what TLS is spoken."""

from __future__ import annotations

import imaplib
import smtplib
import socket
import ssl
import time
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import probe

EVA, JAN, KEES, MARGOT = (
    "eva@degraaf.example",
    "jan@degraaf.example",
    "kees@vandermeer.example",
    "m.thooft@thooft.example",
)
PEOPLE = (EVA, "balie1@delinde.example", KEES, MARGOT)  # one of each customer

KEYS = [
    "' OR '1'='1",
    "x' OR login='eva@degraaf.example' --",
    "eva@degraaf.example'; DELETE FROM directory.users; --",
    "\\' OR 1=1 --",
    "%s%s%n",
    "$(id)",
    "{{ lookup('pipe','id') }}",
    "eva@degraaf.example\x00",
    "eva@degraaf.example\n",
    "é@degraaf.example",
    "*",
    "x" * 5000,
]


def counts(mail: Any) -> list[list[str]]:
    return mail.machine.sql(
        """SELECT (SELECT count(*) FROM directory.users), (SELECT count(*) FROM directory.addresses),
                  (SELECT count(*) FROM directory.domains)"""
    )


@pytest.mark.parametrize("key", KEYS, ids=lambda key: repr(key)[:30])
def test_a_login_is_a_name_and_never_a_question(mail: Any, key: str) -> None:
    before = counts(mail)
    client = imaplib.IMAP4_SSL(mail.machine.address, 993, ssl_context=probe.context_for(mail[EVA].host, mail.target))
    try:
        with pytest.raises(imaplib.IMAP4.error):
            client.authenticate("PLAIN", lambda _: f"\0{key}\0verkeerd".encode())
    finally:
        client.shutdown()
    assert counts(mail) == before


def test_one_who_mistypes_keeps_nobody_in_the_office_waiting(mail: Any) -> None:
    for number in range(6):
        wrong = probe.Account("", mail[EVA].host, f"niemand{number}@degraaf.example", "verkeerd")
        with pytest.raises(smtplib.SMTPAuthenticationError), probe.submission(wrong, 587, mail.target):
            pass
    began = time.monotonic()
    with mail.submission(EVA):
        took = time.monotonic() - began
    # Dovecot would keep the whole address waiting for 15 s.
    assert took < 8, f"a colleague waited {took:.1f} s"


@pytest.mark.parametrize("key", KEYS, ids=lambda key: repr(key)[:30])
def test_an_address_is_a_name_and_never_a_question(mail: Any, key: str) -> None:
    before = counts(mail)
    local = key.replace("@", "'").replace("\n", "'").replace("\x00", "'")
    for recipient in (f"<{local}@degraaf.example>", f'<"{local}"@degraaf.example>', f"<eva@{local}.example>"):
        client = mail.smtp()
        try:
            client.mail("dirk@buiten.example")
            code, _ = client.docmd("RCPT", f"TO:{recipient}")
        except (smtplib.SMTPException, UnicodeEncodeError):
            continue
        finally:
            client.close()
        assert code >= 400, f"{recipient} was taken"
    with mail.submission(EVA) as client:
        local = local[:300]
        code, _ = client.docmd("MAIL", f"FROM:<{local}@degraaf.example>".encode("ascii", "replace").decode())
        if code == 250 and local != "eva":
            assert client.rcpt(KEES)[0] >= 400, f"{local} was taken as a sender"
    assert counts(mail) == before


def test_mail_of_each_customer_is_closed_to_the_others_in_the_file_system(mail: Any) -> None:
    """A UNIX user per customer, directories for him alone: the kernel holds the wall if a program does not."""
    homes = {}
    for login in PEOPLE:
        message = mail.message(EVA, login)
        mail.send(EVA, message)
        mail.arrived(login, message)
        fields = dict(
            line.split("\t", 1) for line in mail.machine.run("doveadm", "user", login).splitlines() if "\t" in line
        )
        homes[login] = (fields["uid"], fields["home"])
    assert len({uid for uid, _ in homes.values()}) == len(PEOPLE)
    opened = 0
    for login, (uid, _) in homes.items():
        for other, (_, home) in homes.items():
            done = mail.machine.run(
                "setpriv",
                f"--reuid={uid}",
                f"--regid={uid}",
                "--clear-groups",
                "sh",
                "-c",
                f"ls {home}/Maildir && echo seen || echo shut",
                check=False,
            )
            if other == login:
                assert "seen" in done
            else:
                opened += "seen" in done
    print(f"mailboxes of another customer that could be opened: {opened}")
    assert opened == 0
    others = mail.machine.run("find", "/var/vmail", "-mindepth", "2", "-type", "d", "-not", "-perm", "0700")
    assert others == "", "directories that are not their owner's alone"


def test_nobody_can_list_which_customers_there_are(mail: Any) -> None:
    uid = mail.machine.run("doveadm", "user", "-f", "uid", EVA).strip()
    done = mail.machine.run(
        "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "ls", "/var/vmail/noorderict", check=False
    )
    assert done == ""


@pytest.mark.parametrize("folder", ["Shared", "shared", "user", "#shared", "Public"])
def test_no_namespace_leads_to_others(mail: Any, folder: str) -> None:
    with mail.mailbox(EVA) as client:
        assert client.list(f'"{folder}/"', "*")[1] == [None]
        assert client.select(f'"{folder}/{JAN}/INBOX"')[0] == "NO"
        assert client.select(f'"../{JAN}"')[0] == "NO"


# ---------------------------------------------------------------------------------------------------------- TLS

PORTS = [25, 143, 465, 587, 993, 4190]


def greeted(address: str, port: int) -> socket.socket:
    """A connection at the point where TLS begins."""
    sock = socket.create_connection((address, port), 20)
    if port in {465, 993}:
        return sock
    stream = sock.makefile("rb")
    if port in {25, 587}:
        stream.readline()
        sock.sendall(b"EHLO x.example\r\n")
        while stream.readline()[3:4] == b"-":
            pass
        sock.sendall(b"STARTTLS\r\n")
        assert stream.readline().startswith(b"220")
    elif port == 143:
        stream.readline()
        sock.sendall(b"a STARTTLS\r\n")
        assert stream.readline().startswith(b"a OK")
    else:
        while not stream.readline().startswith(b"OK"):
            pass
        sock.sendall(b"STARTTLS\r\n")
        assert stream.readline().startswith(b"OK")
    return sock


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_not_spoken(mail: Any, port: int, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with greeted(mail.machine.address, port) as sock, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(sock, server_hostname=mail[EVA].host)


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_each_port_serves_the_certificate_of_the_name_that_is_asked(
    mail: Any, port: int, version: ssl.TLSVersion
) -> None:
    for name in ("mail.noorderict.example", "mail.zuidwest.example", mail.machine.name):
        context = probe.context_for(name, mail.target)
        context.minimum_version = context.maximum_version = version
        with greeted(mail.machine.address, port) as sock, context.wrap_socket(sock) as tls:
            names = {value for _, value in tls.getpeercert()["subjectAltName"]}
        assert names == {name}, "a reseller's certificate names nobody else"


@pytest.mark.parametrize("port", [143, 4190])
def test_no_password_without_tls(mail: Any, port: int) -> None:
    with socket.create_connection((mail.machine.address, port), 20) as sock:
        stream = sock.makefile("rb")
        if port == 143:
            assert b"LOGINDISABLED" in stream.readline()
            sock.sendall(f"a LOGIN {EVA} x\r\n".encode())
            assert b"cleartext authentication not allowed" in stream.readline()
            assert stream.readline().startswith(b"a NO [PRIVACYREQUIRED]")
        else:
            banner = b""
            while not banner.endswith(b"\r\n") or not banner.splitlines()[-1].startswith(b"OK"):
                banner += stream.readline()
            assert b'"SASL" ""' in banner
            sock.sendall(b'AUTHENTICATE "PLAIN" "AGEAYg=="\r\n')
            assert stream.readline().startswith(b"NO")


def test_nobody_is_told_what_programs_run(mail: Any) -> None:
    for port, secret in ((25, b"Postfix"), (143, b"Dovecot"), (4190, b"Dovecot"), (25, b"Debian")):
        with socket.create_connection((mail.machine.address, port), 20) as sock:
            assert secret.lower() not in sock.recv(2000).lower()
