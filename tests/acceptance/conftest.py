# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo site from outside, as people use it: the control node is their computer, and the rest of the world as well.

BOUWSTEEN_INVENTORY names another site of the lab with the demo's customers; the default is inventories/demo. People get
passwords for the run; afterwards everybody has the one that he had before. A failing test shows the services' journals.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import email
import email.policy
import hashlib
import imaplib
import json
import os
import shlex
import smtplib
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import dkim
import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import probe
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from groupware_clients import Groupware, names_lead_to

TOP = Path(__file__).resolve().parents[2]
INVENTORY = os.environ.get("BOUWSTEEN_INVENTORY", str(TOP / "inventories/demo"))
SSH = ["ssh", "-F", "/var/lib/bouwsteen-lab/ssh/config", "-o", "ControlMaster=auto", "-o", "ControlPersist=60"]
SSH += ["-o", "ControlPath=/var/lib/bouwsteen-lab/run/ssh-%C"]
UNITS = ("postfix", "dovecot", "rspamd", "redis-server@rspamd", "unbound", "postgresql@17-main")
UNITS += ("nginx", "portal", "sogo", "groupware-cache", "groupware-wall")
TOKEN = "X-Bouwsteen-Test"


def ansible(program: str, *words: str) -> str:
    """Run a program of Ansible's and return what it says."""
    done = subprocess.run([program, "-i", INVENTORY, *words], capture_output=True, text=True, cwd=TOP, check=False)
    assert done.returncode == 0, f"{program} {' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def wait_for[T](what: str, look: Callable[[], T], *, seconds: float = 40.0) -> T:
    """Look until there is something; fail with `what` and the last sight when the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s (last seen: {seen!r})"
        time.sleep(0.1)


@dataclass
class Machine:
    """The machine of the site, to look behind the curtain and to prepare what would take a person hours."""

    name: str
    address: str

    def run(self, *words: str, stdin: str | bytes | None = None, check: bool = True) -> str:
        """A command as root; its standard output."""
        done = subprocess.run(
            [*SSH, self.name, shlex.join(words)],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            check=False,
        )
        out = done.stdout.decode(errors="replace")
        assert not check or done.returncode == 0, f"{words}: {out}{done.stderr.decode(errors='replace')}"
        return out

    def sql(self, statement: str) -> list[list[str]]:
        """Rows of a statement in the directory, values as text."""
        words = ["runuser", "-u", "postgres", "--", "psql", "-X", "-q", "-A", "-t", "-F", "\x1f", "-R", "\x1e"]
        out = self.run(*words, "-v", "ON_ERROR_STOP=1", "directory", stdin=statement).rstrip("\n\x1e")
        return [row.split("\x1f") for row in out.split("\x1e")] if out else []

    def journal(self, since: datetime, *units: str, lines: int = 150) -> str:
        """The end of services' journals since a moment."""
        chosen = [f"--unit={unit}" for unit in units or UNITS]
        moment = since.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return self.run("journalctl", "--no-pager", f"--since={moment}", f"--lines={lines}", *chosen, check=False)

    def queue(self) -> list[dict[str, Any]]:
        """What Postfix has under way."""
        return [json.loads(line) for line in self.run("postqueue", "-j").splitlines()]

    def settled(self, *, seconds: float = 60.0) -> None:
        """Wait until nothing is under way any more."""
        wait_for("the mail queue is empty", lambda: not self.queue() or None, seconds=seconds)


@dataclass
class Person:
    """Somebody of the demo."""

    login: str
    password: str = field(repr=False)
    host: str


@dataclass
class Mail:
    """Mail programs of people, and the outside world's mail server."""

    machine: Machine
    target: probe.Target
    people: dict[str, Person]
    boxes: dict[str, imaplib.IMAP4] = field(default_factory=dict)

    def __getitem__(self, login: str) -> Person:
        return self.people[login]

    def account(self, login: str) -> probe.Account:
        person = self.people[login]
        return probe.Account(reseller="", host=person.host, login=login, password=person.password)

    def submission(self, login: str, port: int = 465) -> contextlib.AbstractContextManager[smtplib.SMTP]:
        """A session that has logged in."""
        return probe.submission(self.account(login), port, self.target)

    def mailbox(self, login: str) -> contextlib.AbstractContextManager[imaplib.IMAP4]:
        """An IMAP session that has logged in, inbox selected."""
        return selected(self, login)

    def smtp(self, helo: str = "mx.buiten.example") -> smtplib.SMTP:
        """A session on port 25, as any mail server of the world has."""
        client = smtplib.SMTP(self.machine.address, 25, local_hostname=helo, timeout=60)
        client.ehlo()
        return client

    def message(
        self, sender: str, recipient: str, *, subject: str = "Offerte – één, twee, ĳ", **headers: str
    ) -> EmailMessage:
        """A mail with a token of its own; `token()` finds it again."""
        mail = EmailMessage(policy=email.policy.SMTP)
        mail["From"], mail["To"], mail["Subject"] = sender, recipient, subject
        mail["Date"] = datetime.now(UTC)
        mail["Message-ID"] = f"<{uuid.uuid4().hex}@{sender.rpartition('@')[2].rstrip('>')}>"
        for name, value in headers.items():
            mail[name.replace("_", "-")] = value
        mail.set_content("Goedemiddag,\n\nHierbij de offerte. Groet, Zoë\n")
        return mail

    def send(
        self,
        login: str,
        mail: EmailMessage,
        recipients: Sequence[str] = (),
        *,
        envelope: str | None = None,
        port: int = 465,
    ) -> None:
        """Submit as a person. Raises what smtplib raises when the server refuses any of it."""
        with self.submission(login, port) as client:
            submit(client, mail, recipients or [mail["To"]], login if envelope is None else envelope)

    def deliver(self, mail: EmailMessage | bytes, sender: str, recipients: Sequence[str]) -> None:
        """Bring a mail to port 25 from outside. Raises what smtplib raises when the server refuses any of it."""
        with self.smtp() as client:
            submit(client, mail, recipients, sender)

    def box(self, login: str) -> imaplib.IMAP4:
        """An IMAP session of the person that stays open over tests; a lost one is made anew."""
        client = self.boxes.get(login)
        try:
            if client and client.noop()[0] == "OK":
                return client
        except (OSError, imaplib.IMAP4.error):
            pass
        person = self.people[login]
        client = imaplib.IMAP4_SSL(
            self.machine.address, 993, ssl_context=probe.context_for(person.host, self.target), timeout=120
        )
        client.login(login, person.password)
        self.boxes[login] = client
        return client

    def found(self, login: str, token: str, folder: str = "INBOX") -> list[bytes]:
        """Mails with this Message-ID in a folder."""
        client = self.box(login)
        status, _ = client.select(f'"{folder}"', readonly=True)
        if status != "OK":
            return []
        numbers = client.search(None, "HEADER", "Message-ID", token)[1][0].split()
        return [client.fetch(number.decode(), "(BODY.PEEK[])")[1][0][1] for number in numbers]  # type: ignore[index]

    def close(self) -> None:
        """End all sessions."""
        for client in self.boxes.values():
            with contextlib.suppress(OSError, imaplib.IMAP4.error):
                client.logout()
        self.boxes.clear()

    def arrived(self, login: str, mail: EmailMessage, folder: str = "INBOX", *, seconds: float = 90.0) -> EmailMessage:
        """The one copy of a mail that came, as the person sees it; fails when there is none, or another."""
        wait_for(f"mail in {folder} of {login}", lambda: self.found(login, mail["Message-ID"], folder), seconds=seconds)
        self.machine.settled(seconds=seconds)
        copies = self.found(login, mail["Message-ID"], folder)
        assert len(copies) == 1, f"{len(copies)} copies in {folder} of {login}"
        return email.message_from_bytes(copies[0], policy=email.policy.default)  # type: ignore[return-value]


def submit(client: smtplib.SMTP, mail: EmailMessage | bytes, recipients: Sequence[str], sender: str) -> None:
    """Send, and take one refused recipient for what it is: a refusal."""
    data = mail if isinstance(mail, bytes) else mail.as_bytes(policy=email.policy.SMTP)
    refused = client.sendmail(sender, list(recipients), data)
    if refused:
        raise smtplib.SMTPRecipientsRefused(refused)


@contextlib.contextmanager
def selected(mail: Mail, login: str) -> Iterator[imaplib.IMAP4]:
    with probe.mailbox(mail.account(login), mail.target) as client:
        client.select("INBOX")
        yield client


@pytest.fixture(scope="session")
def inventory() -> dict[str, Any]:
    """The inventory as Ansible sees it."""
    result: dict[str, Any] = json.loads(ansible("ansible-inventory", "--list"))
    return result


@pytest.fixture(scope="session")
def machine(inventory: dict[str, Any]) -> Machine:
    """The machine with mail and directory."""
    name = inventory["mail"]["hosts"][0]
    return Machine(name, inventory["_meta"]["hostvars"][name]["lab_address"])


@pytest.fixture(scope="session")
def target(inventory: dict[str, Any], machine: Machine) -> probe.Target:
    """Where the site is, and the CA that its people's computers trust."""
    authority = Path(inventory["_meta"]["hostvars"][machine.name]["certificates_ca_dir"]) / "ca.pem"
    return probe.Target(address=machine.address, ca_file=str(authority), timeout=60.0)


@pytest.fixture(scope="session")
def mail(inventory: dict[str, Any], machine: Machine, target: probe.Target) -> Iterator[Mail]:
    """Everybody who can log in, with a password for this run; the hashes from before come back afterwards."""
    rows = machine.sql(
        """SELECT u.login, r.domain, coalesce(u.password_hash, '') FROM directory.users u
           JOIN directory.customers c USING (reseller_id, customer_id) JOIN directory.resellers r USING (reseller_id)
           WHERE u.kind = 'person' AND u.mail AND u.state = 'active' AND c.state = 'active' ORDER BY 1"""
    )
    directory = inventory["directory"]["hosts"][0]
    given = {login: f"proef-{uuid.uuid4().hex}" for login, _, _ in rows}
    arguments = json.dumps({"users": list(given), "passwords": given})
    try:
        ansible("ansible", directory, "-m", "bouwsteen.hosting.password", "-a", arguments)
        people = {login: Person(login, given[login], f"mail.{domain}") for login, domain, _ in rows}
        with contextlib.closing(Mail(machine, target, people)) as programs:
            yield programs
    finally:
        values = ", ".join(f"({quoted(login)}, {quoted(digest) if digest else 'NULL'})" for login, _, digest in rows)
        machine.sql(
            f"""UPDATE directory.users u SET password_hash = v.digest::text FROM (VALUES {values}) AS v (login, digest)
                WHERE u.login = v.login"""
        )


def quoted(value: str) -> str:
    """A string in SQL."""
    return "'" + value.replace("'", "''") + "'"


@pytest.fixture(scope="session")
def waiting() -> Callable[..., Any]:
    """`wait_for`, for tests beside this file."""
    return wait_for


@pytest.fixture(scope="session")
def groupware(mail: Mail, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Groupware]:
    """Everybody's browsers, calendar programs and phones, at the site's names."""
    domains = {person.host.removeprefix("mail.") for person in mail.people.values()}
    web_target = replace(mail.target, timeout=60.0)
    with (
        names_lead_to(machine.address, domains),
        contextlib.closing(Groupware(mail, web_target, tmp_path_factory.mktemp("groupware"))) as programs,
    ):
        yield programs


@pytest.fixture
def sending_afresh(machine: Machine) -> Iterator[None]:
    """Nobody has sent anything this hour yet, also for the tests that follow."""
    machine.sql("DELETE FROM directory.mail_sent")
    yield
    machine.sql("DELETE FROM directory.mail_sent")


# ------------------------------------------------------------------------------------ journals of failing tests


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the journals of the services to the report of a failed test."""
    report = yield
    machine = getattr(item, "funcargs", {}).get("machine")
    if report.when == "call" and report.failed and isinstance(machine, Machine):
        since = datetime.fromtimestamp(call.start - 5, UTC)
        report.sections.append((f"journals of {machine.name}", machine.journal(since)))
        report.sections.append(("mail queue", machine.run("postqueue", "-p", check=False)))
    return report


@pytest.fixture(autouse=True)
def _machine_for_reports(machine: Machine) -> None:
    """Every test has the machine among its fixtures, for the journals."""


@pytest.fixture(scope="session")
def context() -> ssl.SSLContext:
    """TLS without looking at certificates, for tests of something else."""
    loose = ssl.create_default_context()
    loose.check_hostname = False
    loose.verify_mode = ssl.CERT_NONE
    return loose


# ------------------------------------------------------------------------------------------- the rest of the world


@dataclass
class Outside:
    """A mail server of somebody else, on the lab's bridge, with domains of its own in DNS.

    buiten.example     right in every way: SPF, DKIM, DMARC that asks for refusal, DANE
    streng.example     nobody may send for it, and who pretends to is to be refused
    zacht.example      the same, but is to be kept apart
    dane-fout.example  announces another certificate than it has
    geen-tls.example   offers no TLS at all
    """

    machine: Machine
    selector: str
    dkim_key: str = field(repr=False)
    context: ssl.SSLContext
    received: list[tuple[str, list[str], bytes, bool]] = field(default_factory=list)
    # An address that it refuses for good.
    refuse_to: str | None = None

    def message(
        self, recipient: str, sender: str = "Dirk Buiten <dirk@buiten.example>", **headers: str
    ) -> EmailMessage:
        """A mail that nobody could object to."""
        mail = EmailMessage(policy=email.policy.SMTP)
        mail["From"], mail["To"], mail["Subject"] = sender, recipient, "Vraag over uw openingstijden"
        mail["Date"] = datetime.now(UTC)
        mail["Message-ID"] = f"<{uuid.uuid4().hex}@buiten.example>"
        for name, value in headers.items():
            mail[name.replace("_", "-")] = value
        mail.set_content("Goedemiddag,\n\nBent u zaterdag open? Met vriendelijke groet,\nDirk Buiten\n")
        return mail

    def signed(self, mail: EmailMessage, domain: str = "buiten.example") -> bytes:
        """The mail with a DKIM signature."""
        data = mail.as_bytes(policy=email.policy.SMTP)
        names = [name.encode() for name in ("from", "to", "subject", "date", "message-id")]
        signature: bytes = dkim.sign(
            data, self.selector.encode(), domain.encode(), self.dkim_key.encode(), include_headers=names
        )
        return signature + data

    def got(self, token: str) -> list[tuple[str, list[str], bytes, bool]]:
        """What arrived with this Message-ID: envelope sender, recipients, content, whether over TLS."""
        return [item for item in self.received if token.encode() in item[2]]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One SMTP session."""
        tls, sender, recipients = False, "", [""]

        async def say(line: str) -> None:
            writer.write(line.encode() + b"\r\n")
            await writer.drain()

        await say("220 mx.buiten.example ESMTP")
        while line := (await reader.readline()).decode(errors="replace").strip():
            verb = line.split(" ")[0].upper()
            local = writer.get_extra_info("sockname")[0]
            if verb in {"EHLO", "HELO"}:
                offers_tls = not tls and local not in PLAIN_ADDRESSES
                await say(
                    "250-mx.buiten.example\r\n250-8BITMIME\r\n250-SMTPUTF8"
                    + ("\r\n250 STARTTLS" if offers_tls else "\r\n250 OK")
                )
            elif verb == "STARTTLS":
                await say("220 go")
                await writer.start_tls(self.context)
                tls = True
            elif verb == "MAIL":
                sender, recipients = line, []
                await say("250 ok")
            elif verb == "RCPT" and self.refuse_to and f"<{self.refuse_to}>" in line:
                await say("550 5.1.1 nobody of that name")
            elif verb == "RCPT":
                recipients.append(line)
                await say("250 ok")
            elif verb == "DATA":
                await say("354 go")
                data = await reader.readuntil(b"\r\n.\r\n")
                self.received.append((sender, recipients, data, tls))
                await say("250 taken")
            elif verb == "QUIT":
                await say("221 bye")
                break
            else:
                await say("250 ok")
        writer.close()


# The bridge has a second address for the server without TLS.
BRIDGE, PLAIN = "10.213.0.1", "10.213.0.229"
PLAIN_ADDRESSES = (PLAIN,)
ZONE = """
mx.buiten A {bridge}
mx.geen-tls A {plain}
_25._tcp.mx.buiten TLSA 3 1 1 {digest}
_25._tcp.mx.dane-fout TLSA 3 1 1 {wrong}
mx.dane-fout A {bridge}
buiten MX 10 mx.buiten
buiten TXT "v=spf1 ip4:{bridge} -all"
_dmarc.buiten TXT "v=DMARC1; p=reject"
{selector}._domainkey.buiten TXT "v=DKIM1; k=rsa; p={public}"
streng MX 10 mx.buiten
streng TXT "v=spf1 -all"
_dmarc.streng TXT "v=DMARC1; p=reject"
zacht MX 10 mx.buiten
zacht TXT "v=spf1 -all"
_dmarc.zacht TXT "v=DMARC1; p=quarantine"
dane-fout MX 10 mx.dane-fout
geen-tls MX 10 mx.geen-tls
"""


def publish(state: str, content: str = "") -> None:
    """Put the domains of the outside world into the lab's DNS, or take them away."""
    fragment = {"name": "acceptance", "state": state} | ({"content": content} if content else {})
    words = ["localhost", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"]
    ansible("ansible", *words, "-m", "bouwsteen.hosting.lab_zone", "-a", json.dumps({"fragments": [fragment]}))


@pytest.fixture(scope="session")
def outside(machine: Machine) -> Iterator[Outside]:
    """The mail server of the outside world, listening, and its domains in DNS."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    public = base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mx.buiten.example")])
    tls_key = ec.generate_private_key(ec.SECP256R1())
    start = datetime.now(UTC) - timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder(
            name, name, tls_key.public_key(), x509.random_serial_number(), start, start + timedelta(days=2)
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("mx.buiten.example")]), critical=False)
        .sign(tls_key, hashes.SHA256())
    )
    digest = hashlib.sha256(
        tls_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()
    world = Outside(machine, f"t{uuid.uuid4().hex[:10]}", pem, ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
    with tempfile.NamedTemporaryFile("wb") as chain:
        chain.write(tls_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        chain.write(certificate.public_bytes(Encoding.PEM))
        chain.flush()
        world.context.load_cert_chain(chain.name)
    zone = ZONE.format(
        bridge=BRIDGE, plain=PLAIN, digest=digest, wrong="ab" * 32, selector=world.selector, public=public
    )
    subprocess.run(["ip", "address", "replace", f"{PLAIN}/24", "dev", "bouwsteen0"], check=True)
    publish("present", zone)
    machine.run("unbound-control", "flush_zone", "example")
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(world.serve, [BRIDGE, PLAIN], 25, limit=2**27))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield world
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        publish("absent")
        subprocess.run(["ip", "address", "delete", f"{PLAIN}/24", "dev", "bouwsteen0"], check=False)
