# SPDX-License-Identifier: GPL-3.0-or-later
"""The portal from outside, through the gateway: links, devices, autodiscover, and the guard of logins."""

from __future__ import annotations

import base64
import hashlib
import html
import http.client
import json
import re
import secrets
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import testinfra

TOP = Path(__file__).resolve().parents[3]
ADDRESS = "10.213.0.52"
CA = TOP / ".cache/molecule/portal/ca/ca.pem"
NOORD, ZUID = "noord.example", "zuid.example"
LOGIN, OTHER, NOBODY = "jan@degraaf.example", "kees@smid.example", "niemand@degraaf.example"
PASSWORD = "vuurtoren kikker bezem 41"
ACCOUNTS = """
    INSERT INTO directory.resellers (name, title, engineer, domain) VALUES
        ('noord', 'Noorder ICT', 'beheer@noord.example', 'noord.example'),
        ('zuid', 'Zuidwest', 'beheer@zuid.example', 'zuid.example') ON CONFLICT DO NOTHING;
    INSERT INTO directory.customers (reseller_id, name, title)
        SELECT reseller_id, 'klant', 'Klant' FROM directory.resellers ON CONFLICT DO NOTHING;
    INSERT INTO directory.domains (reseller_id, customer_id, name)
        SELECT c.reseller_id, c.customer_id, CASE r.name WHEN 'noord' THEN 'degraaf.example' ELSE 'smid.example' END
        FROM directory.customers c JOIN directory.resellers r USING (reseller_id) ON CONFLICT DO NOTHING;
    INSERT INTO directory.users (reseller_id, customer_id, login, name, language, mail, password_hash)
        SELECT d.reseller_id, d.customer_id,
               CASE d.name WHEN 'degraaf.example' THEN 'jan' ELSE 'kees' END || '@' || d.name, 'Jan & Kees', 'nl', true,
               '{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$ZGlnZXN0ZGlnZXN0'
        FROM directory.domains d ON CONFLICT DO NOTHING;
"""


def query(host: Any, statement: str) -> str:
    done = host.run("psql --username=postgres -qAt --set=ON_ERROR_STOP=1 --command=%s directory", statement)
    assert done.rc == 0, done.stderr
    return str(done.stdout.strip())


@pytest.fixture(scope="module", autouse=True)
def accounts(request: pytest.FixtureRequest) -> None:
    host = testinfra.get_host(request.config.option.hosts.split(",")[0], ssh_config="/var/lib/bouwsteen-lab/ssh/config")
    query(host, ACCOUNTS)


def link(host: Any, login: str = LOGIN, lives: str = "1 hour") -> str:
    token = secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    query(
        host,
        "INSERT INTO directory.password_links (reseller_id, customer_id, user_id, digest, expires_at)"
        f" SELECT reseller_id, customer_id, user_id, '\\x{digest}', now() + interval '{lives}'"
        f" FROM directory.users WHERE login = '{login}'",
    )
    return token


class Answer:
    def __init__(self, found: http.client.HTTPResponse) -> None:
        self.status, self.body = found.status, found.read()
        self.headers = {key.lower(): value for key, value in found.getheaders()}
        self.all = found.getheaders()

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def said(self) -> dict[str, Any]:
        """What the service behind the gateway was told."""
        found: dict[str, Any] = json.loads(self.body)
        return found


def ask(name: str, path: str, method: str = "GET", body: Any = None, *, old: bool = False, **headers: str) -> Answer:
    raw = socket.create_connection((ADDRESS, 80 if old else 443), timeout=30)
    connection = http.client.HTTPConnection(name, timeout=30)
    connection.sock = raw if old else ssl.create_default_context(cafile=CA).wrap_socket(raw, server_hostname=name)
    try:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, path, body, named)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def basic(login: str, password: str = "geheim") -> str:
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()


# -------------------------------------------------------------------------------------------------------- the machine


def test_it_runs_closed_in(host: Any) -> None:
    assert host.run("systemctl --failed --no-legend").stdout == ""
    for unit in ("portal.service", "portal.socket"):
        assert host.service(unit).is_running
        assert host.service(unit).is_enabled
    socket_file = host.file("/run/portal.sock")
    assert (socket_file.user, socket_file.group, socket_file.mode) == ("root", "www-data", 0o660)
    assert host.check_output("ps -o user= -C gunicorn | sort -u") == "portal"
    worst = host.check_output("systemd-analyze security portal.service --no-pager | tail -1")
    assert float(re.search(r"([\d.]+) (OK|SAFE)", worst)[1]) < 2.0
    settings = host.file("/etc/bouwsteen/portal.json")
    assert (settings.user, settings.group, settings.mode) == ("root", "portal", 0o640)


def test_who_comes_while_it_starts_waits_for_it(host: Any) -> None:
    """The socket is there when the portal is not."""
    host.check_output("systemctl stop portal.service")
    assert host.check_output("systemctl show -P ActiveState portal.service") == "inactive"
    assert ask(f"account.{NOORD}", "/setup").status == 200
    assert host.service("portal.service").is_running


# ---------------------------------------------------------------------------------------------------------- passwords


def test_a_person_chooses_a_password_once(host: Any) -> None:
    token = link(host)
    page = ask(f"account.{NOORD}", f"/password/{token}")
    assert page.status == 200
    assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
    assert page.headers["cache-control"] == "no-store"
    assert '<html lang="nl">' in page.text
    assert "Jan &amp; Kees" in page.text
    assert f"kies een wachtwoord voor {LOGIN}" in html.unescape(page.text)
    assert "Noorder ICT" in page.text
    for wrong, why in (
        ("kort", "Het heeft 4 tekens"),
        ("jan@degraaf1", "Er staat uw naam"),
        ("aaaaaaaaaaaaaaa", "Herhalingen maken"),
    ):
        form = urlencode({"token": token, "password": wrong, "again": wrong})
        answer = ask(f"account.{NOORD}", "/password", "POST", form, Content_Type="application/x-www-form-urlencoded")
        assert answer.status == 422
        assert why in html.unescape(answer.text)
    form = urlencode({"token": token, "password": PASSWORD, "again": PASSWORD})
    kind = {"Content_Type": "application/x-www-form-urlencoded"}
    # Another reseller's page knows nothing of it; nor does a form from elsewhere count.
    assert ask(f"account.{ZUID}", "/password", "POST", form, **kind).status == 410
    assert ask(f"account.{NOORD}", "/password", "POST", form, Origin="https://kwaad.example", **kind).status == 403
    done = ask(f"account.{NOORD}", "/password", "POST", form, Origin=f"https://account.{NOORD}", **kind)
    assert done.status == 200
    assert f"https://webmail.{NOORD}/" in done.text
    assert "/setup?address=jan%40degraaf.example" in done.text
    assert ask(f"account.{NOORD}", "/password", "POST", form, **kind).status == 410
    assert ask(f"account.{NOORD}", f"/password/{token}").status == 410
    code = (
        "import argon2, sys; argon2.PasswordHasher().verify(sys.argv[1].removeprefix('{ARGON2ID}'), sys.argv[2]);"
        " print('right')"
    )
    found = query(host, f"SELECT password_hash FROM directory.users WHERE login = '{LOGIN}'")
    assert host.run("/usr/bin/python3 -c %s %s %s", code, found, PASSWORD).stdout == "right\n"
    assert host.run(f"grep -rF {token} /var/log/nginx").rc == 1
    assert host.run(f"journalctl --quiet --output=cat --grep={token}").stdout == ""


def test_every_link_that_does_not_work_gets_the_same_page(host: Any) -> None:
    pages = {
        re.sub(r"\s+", " ", ask(f"account.{NOORD}", f"/password/{token}").text)
        for token in (link(host, OTHER), link(host, LOGIN, "-1 hour"), secrets.token_urlsafe(32), "x", "%20")
    }
    assert len(pages) == 1
    assert "Deze link werkt niet (meer)" in pages.pop()


# ------------------------------------------------------------------------------------------------------------ devices


def test_a_profile_is_signed_with_the_resellers_certificate(host: Any, tmp_path: Path) -> None:
    answer = ask(f"account.{NOORD}", f"/setup/dav.mobileconfig?address={LOGIN}")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-apple-aspen-config"
    signed = tmp_path / "profile.mobileconfig"
    signed.write_bytes(answer.body)
    done = subprocess.run(
        ["openssl", "cms", "-verify", "-inform", "DER", "-in", signed, "-CAfile", CA, "-purpose", "any"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for wanted in (b"mail.noord.example", b"com.apple.caldav.account", b"com.apple.carddav.account", LOGIN.encode()):
        assert wanted in done.stdout
    assert ask(f"account.{NOORD}", f"/setup/dav.mobileconfig?address={OTHER}").status == 404


def test_programs_find_their_settings(host: Any) -> None:
    schema = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"
    body = (
        '<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006">'
        f"<Request><EMailAddress>{LOGIN}</EMailAddress><AcceptableResponseSchema>{schema}</AcceptableResponseSchema>"
        "</Request></Autodiscover>"
    )
    for path in ("/autodiscover/autodiscover.xml", "/AutoDiscover/AutoDiscover.XML"):
        answer = ask(f"autodiscover.{NOORD}", path, "POST", body, Content_Type="text/xml")
        assert (answer.status, b"mail.noord.example" in answer.body) == (200, True)
    version2 = ask(f"autodiscover.{ZUID}", f"/autodiscover/autodiscover.json?Email={OTHER}&Protocol=ActiveSync")
    assert version2.said["Url"] == f"https://webmail.{ZUID}/Microsoft-Server-ActiveSync"
    for path in ("/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml"):
        assert b"mail.zuid.example" in ask(f"autoconfig.{ZUID}", f"{path}?emailaddress={OTHER}").body
    own = ask("autodiscover.degraaf.example", "/autodiscover/autodiscover.xml", old=True)
    assert (own.status, own.headers["location"]) == (302, f"https://autodiscover.{NOORD}/autodiscover/autodiscover.xml")
    assert b"mail.zuid.example" in ask("autoconfig.smid.example", "/mail/config-v1.1.xml", old=True).body
    for name in ("caldav", "carddav"):
        answer = ask(f"webmail.{NOORD}", f"/.well-known/{name}", "PROPFIND")
        assert (answer.status, answer.headers["location"]) == (301, "/SOGo/dav/")


# -------------------------------------------------------------------------------------------------------------- guard


def test_only_own_people_try_a_password(host: Any) -> None:
    for path in ("/SOGo/dav/x/Calendar/", "/Microsoft-Server-ActiveSync", "/SOGo/so/x/Mail/view"):
        own = ask(f"webmail.{NOORD}", path, Authorization=basic(LOGIN))
        assert own.said["authorization"] == basic(LOGIN)
        for login, name in ((OTHER, NOORD), (LOGIN, ZUID), (NOBODY, NOORD)):
            told = ask(f"webmail.{name}", path, Authorization=basic(login)).said["authorization"]
            plain = base64.b64decode(told.removeprefix("Basic ")).decode()
            assert re.fullmatch(r"[0-9a-f]{40}@nobody\.invalid:x", plain)


def test_every_challenge_is_the_resellers(host: Any) -> None:
    answer = ask(f"webmail.{NOORD}", "/SOGo/dav/", "PROPFIND")
    assert answer.status == 401
    challenges = [value for key, value in answer.all if key.lower() == "www-authenticate"]
    assert challenges == ['Basic realm="Noorder ICT", charset="UTF-8"']
    assert "x-bouwsteen-challenge" not in answer.headers


@pytest.mark.parametrize("path", ["/SOGo/connect", "/SOGo/so/connect", "/SOGo//connect", "/SOGo/so/changePassword"])
def test_the_form_goes_on_as_it_came_or_as_nobody(host: Any, path: str) -> None:
    form = json.dumps({"userName": LOGIN, "password": "geheim é", "verificationCode": "123456"})
    said = ask(f"webmail.{NOORD}", path, "POST", form, Content_Type="application/json").said
    assert (said["method"], said["path"], said["body"], said["host"]) == ("POST", path, form, f"webmail.{NOORD}")
    for name, login in ((ZUID, LOGIN), (NOORD, OTHER), (NOORD, NOBODY)):
        form = json.dumps({"userName": login, "password": "geheim"})
        said = ask(f"webmail.{name}", path, "POST", form, Content_Type="application/json").said
        assert (said["method"], said["path"]) == ("POST", path)
        assert re.fullmatch(r"[0-9a-f]{40}@nobody\.invalid", json.loads(said["body"])["userName"])
        assert "geheim" not in said["body"]


@pytest.mark.parametrize("path", ["/SOGo/dav/connect", "/SOGo/so/%63onnect/", "/SOGo/so/connect/x", "/SOGo/x/connect"])
def test_there_is_no_other_road(host: Any, path: str) -> None:
    form = json.dumps({"userName": OTHER, "password": "geheim"})
    for more in ({}, {"Authorization": basic(LOGIN)}):
        assert ask(f"webmail.{NOORD}", path, "POST", form, **more).status == 403


def test_the_guard_is_quick(host: Any) -> None:
    """Asked on the socket, so that nothing but the guard is measured: half of the answers within 5 ms."""
    code = (
        "import http.client, socket, statistics, sys, time\n"
        "def once():\n"
        "    c = http.client.HTTPConnection('x'); c.sock = socket.socket(socket.AF_UNIX)\n"
        "    c.sock.connect('/run/portal.sock')\n"
        "    start = time.perf_counter()\n"
        "    c.request('GET', '/guard', headers={'X-Bouwsteen-Reseller': 'noord', 'Authorization': sys.argv[1]})\n"
        "    assert c.getresponse().status == 204\n"
        "    return time.perf_counter() - start\n"
        "print(1000 * statistics.median(once() for _ in range(200)))"
    )
    taken = float(host.check_output("/usr/bin/python3 -c %s %s", code, basic(LOGIN)))
    assert taken < 5, f"the guard answers in {taken:.1f} ms"


def test_nothing_secret_is_logged(host: Any) -> None:
    assert host.run("journalctl --quiet --output=cat --grep=geheim").stdout == ""
    assert host.run("grep -rF geheim /var/log/nginx").rc == 1
