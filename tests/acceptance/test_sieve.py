# SPDX-License-Identifier: GPL-3.0-or-later
"""People's own rules, put there with ManageSieve."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import probe

EVA, KEES = "eva@degraaf.example", "kees@vandermeer.example"


class Sieve:
    """A ManageSieve session (RFC 5804)."""

    def __init__(self, mail: Any, login: str) -> None:
        person = mail[login]
        self.sock: Any = socket.create_connection((mail.machine.address, 4190), 30)
        self.stream = self.sock.makefile("rb")
        self.reply()
        self.ask(b"STARTTLS")
        self.sock = probe.context_for(person.host, mail.target).wrap_socket(self.sock)
        self.stream = self.sock.makefile("rb")
        self.capabilities = self.reply()
        plain = base64.b64encode(f"\0{login}\0{person.password}".encode()).decode()
        self.ask(f'AUTHENTICATE "PLAIN" "{plain}"'.encode())

    def reply(self, *, good: bool = True) -> bytes:
        lines = b""
        while True:
            line = self.stream.readline()
            assert line, "the server ended the session"
            lines += line
            if line.startswith((b"OK", b"NO", b"BYE")):
                if literal := re.search(rb"\{(\d+)\}\r\n$", line):
                    lines += self.stream.read(int(literal[1])) + self.stream.readline()
                assert line.startswith(b"OK") == good, lines
                return lines

    def ask(self, command: bytes, *, good: bool = True) -> bytes:
        self.sock.sendall(command + b"\r\n")
        return self.reply(good=good)

    def put(self, text: str, *, good: bool = True) -> bytes:
        data = text.encode()
        return self.ask(f'PUTSCRIPT "proef" {{{len(data)}+}}\r\n'.encode() + data, good=good)


@contextlib.contextmanager
def rules(mail: Any, login: str, text: str) -> Iterator[Sieve]:
    """A script in force for a moment."""
    session = Sieve(mail, login)
    session.put(text)
    session.ask(b'SETACTIVE "proef"')
    try:
        yield session
    finally:
        session.ask(b'SETACTIVE ""')
        session.ask(b'DELETESCRIPT "proef"')
        session.sock.close()


def test_rules_sort_mail_also_by_plus_address(mail: Any) -> None:
    script = """require ["fileinto", "mailbox", "envelope", "subaddress", "variables"];
if envelope :detail "to" "facturen" { fileinto :create "Facturen – één"; stop; }
"""
    with rules(mail, EVA, script):
        message = mail.message(KEES, "eva+facturen@degraaf.example")
        mail.send(KEES, message)
        mail.arrived(EVA, message, "Facturen &IBM- &AOkA6Q-n")
        assert not mail.found(EVA, message["Message-ID"])


def test_an_absence_message_goes_out_once_in_the_persons_name(mail: Any) -> None:
    script = f"""require ["vacation"];
vacation :days 1 :addresses ["{EVA}"] :subject "Afwezig – tot maandag" "Ik ben er maandag weer.";
"""
    with rules(mail, EVA, script):
        for _ in range(2):
            message = mail.message(KEES, EVA)
            mail.send(KEES, message)
            mail.arrived(EVA, message)
        mail.machine.settled()
        client = mail.box(KEES)
        client.select("INBOX", readonly=True)
        found = client.search(None, "HEADER", "In-Reply-To", message["Message-ID"])[1][0].split()
        all_answers = client.search(None, "FROM", EVA, "HEADER", "Auto-Submitted", "auto-replied")[1][0].split()
    assert not found, "the second mail of a day gets no answer"
    assert all_answers


@pytest.mark.parametrize("extension", ["reject", "ereject", "vnd.dovecot.pipe", "vnd.dovecot.execute"])
def test_rules_cannot_bounce_or_run_programs(mail: Any, extension: str) -> None:
    """A refusal after acceptance goes to whoever the sender pretended to be."""
    session = Sieve(mail, EVA)
    assert extension.encode() not in session.capabilities.split(b'"SIEVE"')[1].splitlines()[0].split()
    refused = session.put(f'require ["{extension}"];', good=False)
    assert b"unknown Sieve capability" in refused


def test_a_script_with_a_mistake_is_refused_with_its_line(mail: Any) -> None:
    refused = Sieve(mail, EVA).put("keep;\nfout;\n", good=False)
    assert b"line 2" in refused
