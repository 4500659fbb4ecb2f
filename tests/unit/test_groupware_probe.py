# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe of groupware against a small site of its own that can be made to go wrong in one way at a time."""

from __future__ import annotations

import datetime as dt
import json
import ssl
import threading
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from unittest import mock
from urllib.parse import urlsplit

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import groupware_probe, probe, wbxml, web_client
from ansible_collections.bouwsteen.hosting.plugins.module_utils.wbxml import element
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

LOGIN, PASSWORD = "probe@verify.noorderict.example", "geheim-é"
ACCOUNT = probe.Account("noorderict", "mail.noorderict.example", LOGIN, PASSWORD)
NAMES = [f"{site}.noorderict.example" for site in groupware_probe.SITES]
DAV = '<D:multistatus xmlns:D="DAV:"><D:response><D:propstat><D:prop>{}</D:prop></D:propstat></D:response>'


def folders(*kinds: int, status: int = 1) -> bytes:
    added = [element("FolderHierarchy:Add", element("FolderHierarchy:Type", kind)) for kind in kinds]
    parts = [element("FolderHierarchy:Status", status), element("FolderHierarchy:Changes", *added)]
    return wbxml.encode(element("FolderHierarchy:FolderSync", *parts))


class Site(BaseHTTPRequestHandler):
    """What SOGo and the portal answer, in small. `wrong` replaces the answer to one question."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    kept: ClassVar[dict[str, bytes]] = {}
    wrong: ClassVar[dict[str, tuple[int, bytes]]] = {}

    def log_request(self, *args: object) -> None:
        """Quiet."""

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, verb = urlsplit(self.path).path, self.command
        if (key := f"{verb} {path.rpartition('/')[0] or '/'}/") in self.wrong:
            return self.say(*self.wrong[key])
        if (key := f"{verb} {path}") in self.wrong:
            return self.say(*self.wrong[key])
        if path == "/SOGo/connect":
            right = json.loads(body) | {"domain": None} == {
                "userName": LOGIN, "password": PASSWORD, "domain": None, "rememberLogin": 0
            }  # fmt: skip
            if right:
                return self.say(200, b'{"username": "u-1"}', Set_Cookie="0xHIGHFLYxSOGo=abc; path=/SOGo/; httponly")
            return self.say(403, b'{"LoginErrorCode": 1}')
        if path.startswith("/SOGo/so/u-1/"):
            if "0xHIGHFLYxSOGo=abc" not in self.headers.get("Cookie", ""):
                return self.say(302, Location="/SOGo/")
            return self.say(200, b'{"mailboxes": [{"path": "INBOX"}]}')
        if path == "/autodiscover/autodiscover.xml":
            kind = "outlook" if b"/outlook/" in body else "mobilesync"
            sign = {"outlook": b"mail.noorderict.example", "mobilesync": b"https://webmail.noorderict.example/"}[kind]
            return self.say(200, b"<Server>" + sign + b"</Server>")
        if path == "/mail/config-v1.1.xml":
            return self.say(200, b"<hostname>mail.noorderict.example</hostname>")
        if path in {"/setup", "/SOGo/"}:
            return self.say(200, b"page")
        if self.headers.get("Authorization") != web_client.basic(LOGIN, PASSWORD):
            return self.say(401, WWW_Authenticate='Basic realm="Noorder ICT"')
        if path.startswith("/.well-known/"):
            return self.say(301, Location="https://webmail.noorderict.example/SOGo/dav/")
        if verb == "PROPFIND" and path == "/SOGo/dav/":
            return self.say(207, DAV.format("<D:current-user-principal><D:href>/SOGo/dav/u-1/</D:href>").encode())
        if verb == "PROPFIND":
            kind = "Calendar" if b"calendar-home-set" in body else "Contacts"
            prop = "calendar-home-set" if kind == "Calendar" else "addressbook-home-set"
            href = f'<n1:{prop} xmlns:n1="x"><D:href xmlns:D="DAV:">/SOGo/dav/u-1/{kind}/</D:href>'
            return self.say(207, DAV.format(href).encode())
        if verb == "PUT":
            self.kept[path] = body
            return self.say(201)
        if verb == "DELETE":
            return self.say(204 if self.kept.pop(path, None) else 404)
        if verb == "OPTIONS":
            return self.say(200, MS_ASProtocolVersions="2.5,12.0,12.1,14.0,14.1")
        if path == "/Microsoft-Server-ActiveSync":
            return self.say(200, folders(2, 7, 8, 9))
        return self.say(200, self.kept[path]) if path in self.kept else self.say(404)

    do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PROPFIND = answer  # noqa: N815


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[probe.Target]:
    """The site on loopback, with a certificate of all four names."""
    file = tmp_path_factory.mktemp("site") / "site.pem"
    certificate(file, NAMES)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    with (
        mock.patch.object(web_client.Web.__init__, "__defaults__", tuple(
            port if value == web_client.HTTPS else value for value in web_client.Web.__init__.__defaults__ or ()
        )),
        mock.patch.object(groupware_probe, "HTTPS", port),
    ):  # fmt: skip
        yield probe.Target(address="127.0.0.1", ca_file=str(file), timeout=5)
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    Site.wrong.clear()
    assert not Site.kept, "something stayed behind"


def certificate(path: Path, names: list[str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=60))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def test_a_site_that_works_has_no_problems(site: probe.Target) -> None:
    assert groupware_probe.groupware_problems([ACCOUNT], site) == []


@pytest.mark.parametrize(
    ("question", "answer", "subject", "found"),
    [
        ("GET /SOGo/", (502, b"bad"), "webmail", "login page: 502 'bad'"),
        ("POST /SOGo/connect", (403, b"no"), "webmail", "login: 403 'no'"),
        ("POST /SOGo/connect", (200, b"{}"), "webmail", "login: '{}'"),
        ("POST /SOGo/connect", (200, b'{"username": "u-1"}'), "webmail", "mail folders: 302 ''"),
        ("GET /SOGo/so/u-1/Mail/0/view", (200, b'{"mailboxes": []}'), "webmail", "mail folders: '{\"mailboxes\": []}'"),
        ("PROPFIND /SOGo/dav/", (501, b"x"), "calendar over CalDAV", "PROPFIND /SOGo/dav/: 501 'x'"),
        (
            "PROPFIND /SOGo/dav/",
            (207, b"<x/>"),
            "contacts over CardDAV",
            "PROPFIND /SOGo/dav/: no current-user-principal in '<x/>'",
        ),
        (
            "PROPFIND /SOGo/dav/u-1/",
            (207, b"<x/>"),
            "calendar over CalDAV",
            "PROPFIND /SOGo/dav/u-1/: no calendar-home-set",
        ),
        ("PUT /SOGo/dav/u-1/Calendar/personal/", (507, b"full"), "calendar over CalDAV", "PUT: 507 'full'"),
        (
            "GET /SOGo/dav/u-1/Contacts/personal/",
            (200, b"x"),
            "contacts over CardDAV",
            "what came back is not what was put: 'x'",
        ),
        ("OPTIONS /Microsoft-Server-ActiveSync", (200, b""), "phones over ActiveSync", "OPTIONS: versions ''"),
        ("POST /Microsoft-Server-ActiveSync", (200, b"<html>"), "phones over ActiveSync", "WbxmlError: not WBXML 1.3"),
        (
            "POST /Microsoft-Server-ActiveSync",
            (200, folders(2)),
            "phones over ActiveSync",
            "FolderSync: <FolderHierarchy:FolderSync>",
        ),
        (
            "POST /autodiscover/autodiscover.xml",
            (200, b"<Server>mail.zuidwest.example</Server>"),
            "settings found from the address",
            "outlook: mail.noorderict.example is not in '<Server>mail.zuidwest.example</Server>'",
        ),
        (
            "GET /mail/config-v1.1.xml",
            (200, b"mail.noorderict.example"),
            "settings found from the address",
            "autoconfig: mail.noorderict.example is not in 'mail.noorderict.example'",
        ),
        ("GET /setup", (500, b"oops"), "account pages", "set-up page: 500 'oops'"),
    ],
)
def test_each_thing_that_is_wrong_is_said(
    site: probe.Target, question: str, answer: tuple[int, bytes], subject: str, found: str
) -> None:
    Site.wrong[question] = answer
    problems = groupware_probe.groupware_problems([ACCOUNT], site)
    mine = [
        problem for problem in problems if problem.subject == f"noorderict: {subject} at webmail.noorderict.example"
    ]
    assert len(mine) == 1
    assert mine[0].found.startswith(found)
    assert PASSWORD not in str(problems)
    Site.kept.clear()


def test_a_wrong_password_has_to_be_refused(site: probe.Target) -> None:
    good = probe.Account("noorderict", "webmail.noorderict.example", LOGIN, PASSWORD)
    with mock.patch.object(groupware_probe.uuid, "uuid4", return_value=mock.Mock(hex=PASSWORD)):
        problems = groupware_probe.step_problems(good, site, "webmail", groupware_probe.webmail)
    assert [problem.found for problem in problems] == ['a wrong password: 200 \'{"username": "u-1"}\'']


def test_a_certificate_of_another_name_is_a_problem(site: probe.Target) -> None:
    other = probe.Account("zuidwest", "mail.zuidwest.example", "probe@verify.zuidwest.example", PASSWORD)
    problems = groupware_probe.groupware_problems([other], site)
    assert {problem.subject.split(" at ")[0] for problem in problems} >= {
        "zuidwest: webmail",
        "zuidwest: phones over ActiveSync",
    }
    certificates = [problem for problem in problems if "certificate of" in problem.subject]
    assert len(certificates) == 4
    assert all("Hostname mismatch" in problem.found for problem in problems)


def test_a_site_that_is_down_gives_problems_and_no_traceback(site: probe.Target) -> None:
    down = probe.Target(address="127.0.0.2", ca_file=site.ca_file, timeout=2)
    problems = groupware_probe.groupware_problems([ACCOUNT], down)
    assert len(problems) == 10
    assert all("refused" in problem.found for problem in problems)


def test_a_kept_connection_that_ended_is_made_anew(site: probe.Target) -> None:
    with web_client.Web(NAMES[0], site) as web:
        assert web.ask("GET", "/SOGo/").status == 200
        assert web._connection is not None
        web._connection.sock.shutdown(2)
        assert web.ask("GET", "/SOGo/").text == "page"


def test_cookies_come_and_go() -> None:
    web = web_client.Web("x.example", probe.Target())
    headers = Message()
    headers["Set-Cookie"] = "a=1; path=/; secure"
    headers["Set-Cookie"] = "b=2; httponly"
    web._remember(web_client.Answer(200, headers, b"", 0.0))
    assert web.cookies == {"a": "1", "b": "2"}
    headers = Message()
    headers["Set-Cookie"] = "a=discard; expires=Thu, 01 Jan 1970 00:00:00 GMT"
    web._remember(web_client.Answer(200, headers, b"", 0.0))
    assert web.cookies == {"b": "2"}


def test_an_answer_is_read_in_the_way_that_is_needed() -> None:
    headers = Message()
    headers["Content-Type"] = "text/html"
    answer = web_client.Answer(200, headers, "é".encode(), 0.1)
    assert (answer.text, answer.json, answer.header("content-type"), answer.header("x")) == ("é", None, "text/html", "")
