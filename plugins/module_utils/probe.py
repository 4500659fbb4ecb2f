# SPDX-License-Identifier: GPL-3.0-or-later
"""A reseller's mail as his people use it: log in, submit, receive, read back. Standard library only.

Every reseller has one hidden user for this, the probe; the caller gives it a one-time password. The functions talk to
the names that the reseller's people use and check certificates as their programs do.
"""

from __future__ import annotations

import contextlib
import imaplib
import re
import smtplib
import socket
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast

from ansible_collections.bouwsteen.hosting.plugins.module_utils.health import Problem

IMAPS, SUBMISSIONS, SUBMISSION, SMTP, SIEVE = 993, 465, 587, 25, 4190
TRANSPORT = (OSError, smtplib.SMTPException, imaplib.IMAP4.error)
LOOK_MAIL = "journalctl -b -u postfix -u dovecot -u rspamd on the mail machine"


@dataclass(frozen=True)
class Account:
    """One reseller's probe: `host` is the name that his people use, `password` the one-time password."""

    reseller: str
    host: str
    login: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Target:
    """How to reach the site: `address` overrides name resolution, `ca_file` trusts a closed site's CA."""

    address: str | None = None
    ca_file: str | None = None
    timeout: float = 30.0
    certificate_days: int = 14


# The options of modules that use a site; plugins/doc_fragments/probe.py says what each means.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "resellers": {"type": "dict", "required": True},
    "accounts": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "login": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
        },
    },
    "address": {"type": "str"},
    "ca_file": {"type": "path"},
    "timeout": {"type": "int", "default": 30},
    "certificate_days": {"type": "int", "default": 14},
}


def asked(options: Mapping[str, Any]) -> tuple[list[Account], Target, list[Problem]]:
    """Whom to use the site as, how to reach it, and which probes have no password: from a module's options."""
    passwords = {account["login"]: account["password"] for account in options["accounts"]}
    found, problems = accounts(options["resellers"], passwords)
    reach = {name: options[name] for name in ("address", "ca_file", "timeout", "certificate_days")}
    return found, Target(**reach), problems


def accounts(resellers: dict[str, str], passwords: dict[str, str]) -> tuple[list[Account], list[Problem]]:
    """The probes of resellers (name to domain) that have a password (by login); one without is a problem."""
    found, problems = [], []
    for reseller, domain in sorted(resellers.items()):
        login = f"probe@verify.{domain}"
        if login in passwords:
            found.append(Account(reseller, f"mail.{domain}", login, passwords[login]))
        else:
            look = "run resellers.yml; the task that gives the passwords"
            problems.append(Problem(f"{reseller}: {login}", "no password", "a one-time password", look))
    return found, problems


class NamedContext(ssl.SSLContext):
    """Checks the certificate against the service's name, whatever address the connection goes to."""

    name: str

    def wrap_socket(self, sock: socket.socket, *args: Any, **options: Any) -> ssl.SSLSocket:
        return super().wrap_socket(sock, *args, **{**options, "server_hostname": self.name})


def context_for(name: str, target: Target) -> NamedContext:
    context = NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    if target.ca_file:
        context.load_verify_locations(target.ca_file)
    context.name = name
    return context


def days_left(not_after: str, now: datetime) -> int:
    """Whole days until a certificate's end, given as ssl's `notAfter` text, for example `Jun  1 12:00:00 2027 GMT`."""
    end = datetime.fromtimestamp(ssl.cert_time_to_seconds(not_after), UTC)
    return (end - now).days


def certificate_problems(account: Account, port: int, target: Target) -> list[Problem]:
    """A handshake as any client makes it: the chain, the name, and how long it still lasts."""
    subject = f"{account.reseller}: certificate of {account.host}:{port}"
    look = "docs/certificates.md; openssl s_client -connect HOST:PORT -servername NAME"
    try:
        with (
            socket.create_connection((target.address or account.host, port), target.timeout) as plain,
            context_for(account.host, target).wrap_socket(plain) as tls,
        ):
            certificate = cast("dict[str, str]", tls.getpeercert())
    except (OSError, ssl.SSLError) as error:
        return [Problem(subject, str(error), "a certificate that clients accept", look)]
    left = days_left(certificate["notAfter"], datetime.now(UTC))
    if left < target.certificate_days:
        return [Problem(subject, f"ends in {left} days", f"at least {target.certificate_days} days", look)]
    return []


def message(sender: str, recipient: str, token: str) -> EmailMessage:
    """The mail that is sent: not ASCII, with an attachment, found again by `token` in its subject."""
    mail = EmailMessage(policy=policy.SMTP)
    mail["From"], mail["To"] = sender, recipient
    mail["Subject"] = f"Proef {token} – één, twee, ĳ"
    mail["Message-ID"] = f"<{token}@{sender.rpartition('@')[2]}>"
    mail["Date"] = datetime.now(UTC)
    mail.set_content("Deze mail controleert de dienst en wordt vanzelf verwijderd.\n")
    mail.add_attachment(
        bytes(range(256)) * 64, maintype="application", subtype="octet-stream", filename="proef – ë.bin"
    )
    return mail


@contextlib.contextmanager
def submission(account: Account, port: int, target: Target) -> Iterator[smtplib.SMTP]:
    """An authenticated submission session on 465 (TLS from the start) or 587 (STARTTLS)."""
    host, context = target.address or account.host, context_for(account.host, target)
    client: smtplib.SMTP
    if port == SUBMISSIONS:
        client = smtplib.SMTP_SSL(host, port, timeout=target.timeout, context=context)
    else:
        client = smtplib.SMTP(host, port, timeout=target.timeout)
    with client:
        if port != SUBMISSIONS:
            client.starttls(context=context)
        client.login(account.login, account.password)
        yield client


@contextlib.contextmanager
def mailbox(account: Account, target: Target) -> Iterator[imaplib.IMAP4]:
    client = imaplib.IMAP4_SSL(
        target.address or account.host, IMAPS, ssl_context=context_for(account.host, target), timeout=target.timeout
    )
    try:
        client.login(account.login, account.password)
        yield client
    finally:
        with contextlib.suppress(*TRANSPORT):
            client.logout()


def quota(client: imaplib.IMAP4) -> tuple[int, int] | None:
    """Used and allowed KiB of the inbox (RFC 9208), None where the server shows no quota."""
    _, (_, lines) = client.getquotaroot("INBOX")
    found = re.search(rb"STORAGE (\d+) (\d+)", b" ".join(line for line in lines if isinstance(line, bytes)))
    return (int(found[1]), int(found[2])) if found else None


def take(client: imaplib.IMAP4, token: str) -> list[bytes]:
    """Fetch and delete every mail of the inbox whose Message-ID holds the token."""
    client.select("INBOX")
    _, found = client.search(None, "HEADER", "Message-ID", token)
    numbers = found[0].split() if found and found[0] else []
    mails = []
    for number in numbers:
        _, parts = client.fetch(number.decode(), "(RFC822)")
        mails += [part[1] for part in parts if isinstance(part, tuple)]
        client.store(number.decode(), "+FLAGS", r"\Deleted")
    if numbers:
        client.expunge()
    return mails


def wait_for(look: Callable[[], list[bytes]], timeout: float) -> list[bytes]:
    """Ask again until something is there or the time is up."""
    end = time.monotonic() + timeout
    while True:
        found = look()
        if found or time.monotonic() > end:
            return found
        time.sleep(0.2)


def received_problems(subject: str, raw: bytes, sent: EmailMessage) -> list[Problem]:
    """What is wrong with a mail that came back: signature, attachment, duplicates are the caller's business."""
    mail = message_from_bytes(raw, policy=policy.default)
    domain = sent["From"].rpartition("@")[2]
    problems = []
    if not re.search(rf"\bd={re.escape(domain)}\s*;", str(mail.get("DKIM-Signature", ""))):
        problems.append(
            Problem(subject, "no DKIM signature of the sender's domain", f"d={domain}", "docs/mail.md, DKIM")
        )
    wanted = next(sent.iter_attachments()).get_payload(decode=True)
    attachments = [part.get_payload(decode=True) for part in mail.iter_attachments()]
    if wanted not in attachments:
        problems.append(Problem(subject, "the attachment came back changed", "the bytes that were sent", LOOK_MAIL))
    return problems


def delivery_problems(sender: Account, recipient: Account, port: int, target: Target) -> list[Problem]:
    """Submit a mail and read it back at the other end."""
    subject = f"{sender.reseller}: mail from {sender.login} to {recipient.login} over {port}"
    token = uuid.uuid4().hex
    mail = message(sender.login, recipient.login, token)
    try:
        with submission(sender, port, target) as client:
            client.send_message(mail)
        with mailbox(recipient, target) as inbox:
            mails = wait_for(lambda: take(inbox, token), target.timeout)
            shown = quota(inbox)
    except TRANSPORT as error:
        return [Problem(subject, f"{type(error).__name__}: {error}", "delivered", LOOK_MAIL)]
    if not mails:
        return [Problem(subject, f"not there after {target.timeout:.0f} s", "delivered", f"postqueue -p; {LOOK_MAIL}")]
    problems = received_problems(subject, mails[0], mail)
    if len(mails) > 1:
        problems.append(Problem(subject, f"delivered {len(mails)} times", "once", LOOK_MAIL))
    if shown is None:
        problems.append(
            Problem(f"{recipient.reseller}: quota of {recipient.login}", "not shown", "shown over IMAP", LOOK_MAIL)
        )
    return problems


def refusal_problems(account: Account, target: Target) -> list[Problem]:
    """What has to be refused: a wrong password, and mail for strangers from strangers."""
    problems = []
    wrong = Account(account.reseller, account.host, account.login, uuid.uuid4().hex)
    try:
        with submission(wrong, SUBMISSIONS, target):
            problems.append(Problem(f"{account.reseller}: a wrong password", "accepted", "refused", LOOK_MAIL))
    except smtplib.SMTPAuthenticationError:
        pass
    except TRANSPORT as error:
        problems.append(Problem(f"{account.reseller}: a wrong password", str(error), "535", LOOK_MAIL))
    subject = f"{account.reseller}: relay for strangers"
    try:
        with smtplib.SMTP(target.address or account.host, SMTP, timeout=target.timeout) as client:
            client.ehlo("stranger.example")
            # The empty sender has no domain that could be refused first.
            client.mail("")
            code, answer = client.rcpt("someone@elsewhere.example")
        if code < 500:
            problems.append(Problem(subject, f"{code} {answer.decode(errors='replace')}", "554 5.7.1", LOOK_MAIL))
    except TRANSPORT as error:
        problems.append(Problem(subject, str(error), "an answer on port 25", LOOK_MAIL))
    return problems


def sieve_problems(account: Account, target: Target) -> list[Problem]:
    """ManageSieve greets and offers STARTTLS (RFC 5804)."""
    subject = f"{account.reseller}: filters on {account.host}:{SIEVE}"
    try:
        with socket.create_connection((target.address or account.host, SIEVE), target.timeout) as connection:
            greeting = b""
            while not re.search(rb"^(OK|NO|BYE)\b", greeting, re.MULTILINE):
                part = connection.recv(4096)
                if not part:
                    break
                greeting += part
    except OSError as error:
        return [Problem(subject, str(error), "a greeting", LOOK_MAIL)]
    if b'"STARTTLS"' not in greeting:
        return [Problem(subject, "no STARTTLS offered", "STARTTLS", LOOK_MAIL)]
    return []


def mail_problems(accounts: list[Account], target: Target) -> list[Problem]:
    """All of the above for every account, at the same time; each account also writes to the next reseller's."""
    jobs: list[Callable[[], list[Problem]]] = []
    for number, account in enumerate(accounts):
        neighbour = accounts[(number + 1) % len(accounts)]
        jobs += [
            lambda a=account: certificate_problems(a, IMAPS, target),  # type: ignore[misc]
            lambda a=account: certificate_problems(a, SUBMISSIONS, target),  # type: ignore[misc]
            lambda a=account: delivery_problems(a, a, SUBMISSIONS, target),  # type: ignore[misc]
            lambda a=account, b=neighbour: delivery_problems(a, b, SUBMISSION, target),  # type: ignore[misc]
            lambda a=account: refusal_problems(a, target),  # type: ignore[misc]
            lambda a=account: sieve_problems(a, target),  # type: ignore[misc]
        ]
    with ThreadPoolExecutor(max_workers=8) as pool:
        results = list(pool.map(lambda job: job(), jobs))
    return sorted({problem for problems in results for problem in problems})


def port_problems(name: str, address: str, exposed: list[int], open_ports: list[int], timeout: float) -> list[Problem]:
    """Ports on which something listens and that the site does not publish must not answer; published ones must."""

    def answers(port: int) -> bool:
        try:
            socket.create_connection((address, port), timeout).close()
        except OSError:
            return False
        return True

    ports = sorted({*exposed, *open_ports})
    with ThreadPoolExecutor(max_workers=32) as pool:
        state = dict(zip(ports, pool.map(answers, ports), strict=True))
    look = f"nft list ruleset; ss -ltnp on {name}"
    problems = [Problem(f"port {port}", "closed", "open", look) for port in open_ports if not state[port]]
    problems += [
        Problem(f"port {port}", "open to the world", "closed", look)
        for port in ports
        if state[port] and port not in open_ports
    ]
    return problems
