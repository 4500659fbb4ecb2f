# SPDX-License-Identifier: GPL-3.0-or-later
"""Searching mail, attachments included, and attachments that were made to do harm."""

from __future__ import annotations

import contextlib
import email.policy
import imaplib
import io
import time
import uuid
import zipfile
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest

JAN = "jan@degraaf.example"
DOCX = "vnd.openxmlformats-officedocument.wordprocessingml.document"


def pdf(text: str) -> bytes:
    """A PDF of one page with a line of text; its index is left out, which readers forgive."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    return (
        b"%%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R"
        b"/Resources<</Font<</F1<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>endobj\n"
        b"4 0 obj<</Length %d>>stream\n%s\nendstream endobj\ntrailer<</Root 1 0 R>>\n" % (len(stream), stream)
    )


def archive(part: str, content: bytes) -> bytes:
    """An office document that has one part."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(part, content)
    return file.getvalue()


def paper(subject: str, *attachments: tuple[bytes, str, str]) -> EmailMessage:
    """A mail with attachments: content, subtype of application, file name."""
    mail = EmailMessage(policy=email.policy.SMTP)
    mail["From"], mail["To"], mail["Subject"] = "Dirk <dirk@buiten.example>", JAN, subject
    mail["Message-ID"] = f"<{uuid.uuid4().hex}@buiten.example>"
    mail.set_content("Beste Jan, hierbij de ontbijtkoeken en de crème brûlée.\n")
    for content, subtype, name in attachments:
        mail.add_attachment(content, maintype="application", subtype=subtype, filename=name)
    return mail


@pytest.fixture
def folder(mail: Any) -> Iterator[tuple[imaplib.IMAP4, str]]:
    """A folder of Jan's that is there for one test."""
    client, name = mail.box(JAN), f"Proef {uuid.uuid4().hex[:8]}"
    assert client.create(f'"{name}"')[0] == "OK"
    try:
        yield client, name
    finally:
        with contextlib.suppress(imaplib.IMAP4.error):
            client.select("INBOX")
            client.delete(f'"{name}"')


def put(folder: tuple[imaplib.IMAP4, str], *mails: EmailMessage) -> imaplib.IMAP4:
    """The folder with mails in it, selected."""
    client, name = folder
    for one in mails:
        assert client.append(f'"{name}"', "", "", one.as_bytes())[0] == "OK"
    assert client.select(f'"{name}"')[0] == "OK"
    return client


def search(client: imaplib.IMAP4, key: str, word: str) -> list[bytes]:
    client.literal = word.encode()  # type: ignore[attr-defined]
    answer: list[bytes] = client.search("UTF-8", key)[1][0].split()
    return answer


def test_words_are_found_in_mails_and_attachments(folder: Any) -> None:
    text = "<w:p><w:r><w:t>Roggebrood</w:t></w:r><w:r><w:t>je</w:t></w:r></w:p><w:p>Krentenwegge &amp; roomboter</w:p>"
    client = put(
        folder,
        paper("Offerte", (pdf("Speculaasmolen nummer zeven"), "pdf", "offerte.pdf")),
        paper("Recept", (archive("word/document.xml", text.encode()), DOCX, "recept.docx")),
        paper("Lijst", (archive("content.xml", b"<text:p>Bakplaatjes</text:p>"), "octet-stream", "lijst.odt")),
    )
    found = {
        word: search(client, "TEXT", word)
        for word in (
            "speculaasmolen",
            "roggebroodje",
            "roomboter",
            "bakplaatjes",
            "ontbijtkoek",
            "creme",
            "crème",
            "Krentenwe",
            "rozijnen",
        )
    }
    every = [b"1", b"2", b"3"]
    assert found == {
        "speculaasmolen": [b"1"], "roggebroodje": [b"2"], "roomboter": [b"2"], "bakplaatjes": [b"3"],
        "ontbijtkoek": every, "creme": every, "crème": every, "Krentenwe": [b"2"], "rozijnen": [],
    }  # fmt: skip
    assert search(client, "SUBJECT", "recept") == [b"2"]


def test_the_index_lies_with_the_mail_and_is_not_counted(mail: Any, folder: Any) -> None:
    def used() -> int:
        lines = mail.machine.run("doveadm", "-f", "tab", "quota", "get", "-u", JAN).splitlines()[1:]
        return next(int(line.split("\t")[2]) for line in lines if "STORAGE" in line)

    before, one = used(), paper("Meetlat", (pdf("Deegroller"), "pdf", "a.pdf"))
    client = put(folder, one)
    assert search(client, "TEXT", "deegroller") == [b"1"]
    assert abs(used() - before - len(one.as_bytes()) / 1024) <= 1
    home = mail.machine.run("doveadm", "user", "-f", "home", JAN).strip()
    indexes = mail.machine.run("find", home, "-name", "fts-flatcurve", "-path", f"*{folder[1]}*").split("\n")
    assert [path for path in indexes if path], home


def test_attachments_that_were_made_to_do_harm_cost_their_own_words_only(mail: Any, folder: Any) -> None:
    bomb = archive("word/document.xml", b"<w:t>" + b"a" * (300 << 20) + b"</w:t>")
    deep = archive(
        "word/document.xml",
        b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + b"<w:p>" * 400000 + b"&a; diepzee",
    )
    loop = pdf("rondje").replace(b"/Kids[3 0 R]", b"/Kids[2 0 R]")
    client = put(
        folder,
        paper("Bom", (bomb, DOCX, "bom.docx")),
        paper("Diep", (deep, DOCX, "diep.docx")),
        paper("Rondje", (loop, "pdf", "rondje.pdf")),
        paper(
            "Ruis",
            (bytes(range(256)) * 4000, "pdf", "ruis.pdf"),
            (b"\xd0\xcf\x11\xe0" + b"\xff" * 200000, "msword", "ruis.doc"),
        ),
        paper("Naam", (pdf("Puddingvorm"), "octet-stream", "$(touch /tmp/x);`id`.pdf")),
    )
    began = time.monotonic()
    assert search(client, "TEXT", "puddingvorm") == [b"5"]
    assert search(client, "SUBJECT", "bom") == [b"1"]
    assert search(client, "TEXT", "ontbijtkoeken") == [b"1", b"2", b"3", b"4", b"5"]
    seconds = time.monotonic() - began
    print(f"five hostile attachments indexed and searched in {seconds:.1f} s")
    assert seconds < 120
    assert search(client, "TEXT", "diepzee") == [b"2"]
    assert search(client, "TEXT", "root:x:0:0") == []
    assert mail.machine.run("systemctl", "list-units", "--state=failed", "--no-legend", "attachment-text*") == ""


def test_what_reads_attachments_can_reach_nothing(mail: Any) -> None:
    """The same unit with another program: what would a stranger find who has broken out of a reader?"""
    look = (
        "import os, socket, subprocess\n"
        "def can(what):\n"
        "    try:\n"
        "        what()\n"
        "        return True\n"
        "    except Exception:\n"
        "        return False\n"
        "print(os.getuid() == 0, can(lambda: os.listdir('/var/vmail')), can(lambda: open('/etc/passwd').read()),\n"
        "      can(lambda: os.listdir('/run/postgresql')), can(lambda: open('/usr/probe', 'w')),\n"
        "      can(lambda: socket.create_connection(('127.0.0.1', 25), 2)),\n"
        "      can(lambda: open('/proc/1/environ').read()),\n"
        "      can(lambda: open('/tmp/own', 'w').write('x')), can(lambda: b'x' * (2 << 30)))\n"
    )
    machine, unit = mail.machine, "/run/systemd/system/attachment-probe.service"
    text = machine.run("cat", "/etc/systemd/system/attachment-text@.service")
    text = text.replace(
        "ExecStart=/usr/local/lib/bouwsteen/attachment-text\n",
        "ExecStart=/usr/bin/python3 -I -c \"exec(bytes.fromhex('" + look.encode().hex() + "'))\"\n",
    )
    text = text.replace(
        "StandardInput=socket\nStandardOutput=socket\n", "Type=oneshot\nStandardOutput=journal\n"
    ).replace("RuntimeMaxSec=30\n", "")
    machine.run("sh", "-c", f"cat >{unit}", stdin=text)
    try:
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", "attachment-probe.service", check=False)
        said = machine.run(
            "journalctl", "-q", "-o", "cat", "-u", "attachment-probe.service", "-t", "python3", "-n", "1", "--no-pager"
        )
    finally:
        machine.run("rm", unit)
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "reset-failed", "attachment-probe.service", check=False)
    assert said.split() == ["False"] * 7 + ["True", "False"]
