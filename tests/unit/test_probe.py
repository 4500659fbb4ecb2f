# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the mail probe that decide; the conversation itself is what verify.yml does with a real site."""

from __future__ import annotations

import datetime as dt
import imaplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import probe
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ACCOUNT = probe.Account("noorderict", "mail.noorderict.example", "probe@verify.noorderict.example", "secret")
Serve = Callable[[Callable[[socket.socket], None]], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a TCP server on loopback that handles every connection with the given function; returns its port."""
    listeners: list[socket.socket] = []

    def start(handle: Callable[[socket.socket], None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        handle(connection)
                    except (OSError, ssl.SSLError):
                        continue

        threading.Thread(target=run, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def certificate(folder: Path, name: str, days: int) -> Path:
    """A self-signed certificate and its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=days, hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}-{days}.pem"
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.mark.parametrize(
    ("name", "days", "found"),
    [
        ("mail.noorderict.example", 30, None),
        ("mail.noorderict.example", 3, "ends in 3 days"),
        ("mail.zuidwest.example", 30, "Hostname mismatch, certificate is not valid for 'mail.noorderict.example'"),
    ],
)
def test_certificates_are_checked_as_clients_do(
    tmp_path: Path, serve: Serve, name: str, days: int, found: str | None
) -> None:
    file = certificate(tmp_path, name, days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    def handle(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(1)

    port = serve(handle)
    target = probe.Target(address="127.0.0.1", ca_file=str(file), timeout=5)
    problems = probe.certificate_problems(ACCOUNT, port, target)
    assert bool(problems) is (found is not None)
    if found:
        assert found in problems[0].found
        assert problems[0].subject == f"noorderict: certificate of mail.noorderict.example:{port}"


def test_a_port_that_answers_without_being_published_is_a_problem(serve: Serve) -> None:
    unwanted, published = serve(lambda connection: None), serve(lambda connection: None)
    with socket.create_server(("127.0.0.1", 0)) as free:
        silent = free.getsockname()[1]
    problems = probe.port_problems("m1", "127.0.0.1", [unwanted, published], [published, silent], 2)
    assert {(problem.subject, problem.found) for problem in problems} == {
        (f"port {unwanted}", "open to the world"),
        (f"port {silent}", "closed"),
    }


@pytest.mark.parametrize(
    ("greeting", "found"),
    [
        (b'"IMPLEMENTATION" "x"\r\n"STARTTLS"\r\nOK "ready"\r\n', None),
        (b'"IMPLEMENTATION" "x"\r\nOK "ready"\r\n', "no STARTTLS offered"),
        (b"", "no STARTTLS offered"),
    ],
)
def test_sieve_has_to_offer_tls(serve: Serve, greeting: bytes, found: str | None) -> None:
    port = serve(lambda connection: connection.sendall(greeting))
    with mock.patch.object(probe, "SIEVE", port):
        problems = probe.sieve_problems(ACCOUNT, probe.Target(address="127.0.0.1", timeout=5))
    assert [problem.found for problem in problems] == ([found] if found else [])


def test_a_site_that_is_down_gives_problems_and_no_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    target = probe.Target(address="127.0.0.1", timeout=2)
    with mock.patch.multiple(probe, IMAPS=port, SUBMISSIONS=port, SUBMISSION=port, SMTP=port, SIEVE=port):
        problems = probe.mail_problems([ACCOUNT], target)
    subjects = {problem.subject for problem in problems}
    assert "noorderict: relay for strangers" in subjects
    assert all("refused" in problem.found for problem in problems)
    assert "secret" not in "".join(map(str, problems))


def test_what_comes_back_has_to_be_signed_and_whole() -> None:
    sent = probe.message(ACCOUNT.login, ACCOUNT.login, "token")
    plain = sent.as_bytes()
    assert [problem.found for problem in probe.received_problems("x", plain, sent)] == [
        "no DKIM signature of the sender's domain"
    ]
    signed = b"DKIM-Signature: v=1; d=verify.noorderict.example; s=a; b=x\r\n" + plain
    assert probe.received_problems("x", signed, sent) == []
    foreign = b"DKIM-Signature: v=1; d=noorderict.example; s=a; b=x\r\n" + plain
    assert len(probe.received_problems("x", foreign, sent)) == 1
    cut = probe.message(ACCOUNT.login, ACCOUNT.login, "other")
    for part in cut.iter_attachments():
        part.set_payload("AAAA")
    found = [problem.found for problem in probe.received_problems("x", cut.as_bytes(), sent)]
    assert "the attachment came back changed" in found


def test_days_left_are_whole_days() -> None:
    now = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
    assert probe.days_left("Nov 25 11:59:59 2026 GMT", now) == 1
    assert probe.days_left("Nov 22 12:00:00 2026 GMT", now) == -1


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [([b'"User quota" (STORAGE 12 1048576)'], (12, 1048576)), ([None], None)],
)
def test_quota_is_read_from_the_answer(lines: list[bytes | None], wanted: tuple[int, int] | None) -> None:
    client = mock.Mock(spec=imaplib.IMAP4)
    client.getquotaroot.return_value = ("OK", [[b"INBOX"], lines])
    assert probe.quota(client) == wanted


def test_waiting_ends_with_the_time() -> None:
    assert probe.wait_for(list, 0.3) == []
    assert probe.wait_for(lambda: [b"mail"], 30) == [b"mail"]


def test_a_reseller_whose_probe_has_no_password_is_a_problem() -> None:
    found, problems = probe.accounts(
        {"zuid": "zuid.example", "noorderict": "noorderict.example"}, {ACCOUNT.login: ACCOUNT.password}
    )
    assert found == [ACCOUNT]
    assert [problem.subject for problem in problems] == ["zuid: probe@verify.zuid.example"]


def test_a_modules_options_say_whom_to_be_and_how_to_reach_the_site() -> None:
    options = {
        "resellers": {"noord": "noord.example", "zuid": "zuid.example"},
        "accounts": [{"login": "probe@verify.noord.example", "password": "eenmalig"}],
        "address": "192.0.2.1",
        "ca_file": None,
        "timeout": 5,
        "certificate_days": 3,
    }
    assert set(options) == set(probe.ARGUMENTS)
    accounts, target, problems = probe.asked(options)
    assert accounts == [probe.Account("noord", "mail.noord.example", "probe@verify.noord.example", "eenmalig")]
    assert target == probe.Target("192.0.2.1", None, 5, 3)
    assert [problem.subject for problem in problems] == ["zuid: probe@verify.zuid.example"]
