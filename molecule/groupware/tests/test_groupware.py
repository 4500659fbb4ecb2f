# SPDX-License-Identifier: GPL-3.0-or-later
"""Groupware on a machine of its own, people and mail on another: what the services do, may and survive."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from base64 import b64encode
from pathlib import Path

import pytest
import testinfra

SCENARIO = Path(__file__).resolve().parents[1]
SSH_CONFIG = "/var/lib/bouwsteen-lab/ssh/config"
DIRECTORY, GROUPWARE = "gwmail1.molecule.example", "gw1.molecule.example"
ADDRESS, SITE = "10.213.0.54", "webmail.lemmer.example"
LOGIN, PASSWORD = "tjitske@zeilmakerij.example", "Een-lang-genoeg-1"
UNITS = ("sogo", "groupware-cache", "groupware-wall", "groupware-sessions.timer", "nginx")
HASH = "import argon2; print('{ARGON2ID}' + argon2.PasswordHasher().hash('%s'))"
PRINCIPAL = '<propfind xmlns="DAV:"><prop><current-user-principal/></prop></propfind>'


@pytest.fixture(scope="module")
def machine():
    return testinfra.get_host(f"ssh://{GROUPWARE}?controlpersist=60", ssh_config=SSH_CONFIG)


@pytest.fixture(scope="module")
def person():
    """A person who can log in; the directory is where a first password would be put."""
    directory = testinfra.get_host(f"ssh://{DIRECTORY}?controlpersist=60", ssh_config=SSH_CONFIG)
    hashed = directory.check_output("python3 -c %s", HASH % PASSWORD)
    change = f"UPDATE directory.users SET password_hash = '{hashed}' WHERE login = '{LOGIN}'"
    assert directory.check_output("runuser -u postgres -- psql -At directory -c %s", change) == "UPDATE 1"
    return LOGIN


def ask(method: str, path: str, body: str = "", login: str = "", **headers: str) -> tuple[int, str]:
    """One request at the site, as from outside and with its certificate verified."""
    trust = ssl.create_default_context(cafile=SCENARIO.parents[1] / ".cache/molecule/groupware/ca/ca.pem")
    connection = http.client.HTTPSConnection(SITE, context=trust, timeout=60)
    connection.sock = trust.wrap_socket(socket.create_connection((ADDRESS, 443), 60), server_hostname=SITE)
    if login:
        headers["Authorization"] = "Basic " + b64encode(f"{login}:{PASSWORD}".encode()).decode()
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(errors="replace")


def wait_until(what: str, look, seconds: float = 60):
    end = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)
    return seen


def test_units(machine) -> None:
    for unit in UNITS:
        assert machine.service(unit).is_running, unit
    assert not machine.service("memcached").is_running
    assert machine.check_output("systemctl list-units --state=failed --no-legend") == ""


def test_nothing_listens_to_others_but_the_gateway(machine) -> None:
    listening = machine.check_output("ss -Hltnp")
    assert "127.0.0.1:20000" in listening
    lines = [line for line in listening.splitlines() if "sogod" in line or "memcached" in line]
    assert [line for line in lines if "127.0.0.1:" not in line] == []


@pytest.mark.parametrize("path", ["/etc/sogo/sogo.conf", "/etc/sogo/debconf.conf", "/etc/sogo/directory-client.pem"])
def test_settings_are_private(machine, path: str) -> None:
    found = machine.file(path)
    assert (found.user, found.group, oct(found.mode)) == ("root", "sogo", "0o640")


@pytest.mark.parametrize("user", ["nobody", "www-data", "portal"])
def test_the_cache_is_sogos_own(machine, user: str) -> None:
    assert machine.run(f"runuser -u {user} -- ls /run/groupware-cache").rc != 0
    assert machine.run("runuser -u sogo -- ls /run/groupware-cache/memcached.sock").rc == 0


def test_the_gateway_and_nobody_else_reaches_the_wall(machine) -> None:
    assert machine.run("runuser -u www-data -- ls /run/groupware-wall/wall.sock").rc == 0
    assert machine.run("runuser -u nobody -- ls /run/groupware-wall/wall.sock").rc != 0


def test_a_person_finds_herself(person: str) -> None:
    status, text = ask("PROPFIND", "/SOGo/dav/", PRINCIPAL, person, Depth="0")
    assert status == 207, text
    assert "/SOGo/dav/" in text.split("current-user-principal")[1]
    assert ask("PROPFIND", "/SOGo/dav/", PRINCIPAL, Depth="0")[0] == 401


def test_nobody_shares_by_a_document(person: str) -> None:
    document = '<acl-query xmlns="urn:inverse:params:xml:ns:inverse-dav"><add-user user="x"/></acl-query>'
    assert (
        ask("POST", f"/SOGo/dav/{person}/Calendar/personal/", document, person, **{"Content-Type": "application/xml"})[
            0
        ]
        == 403
    )


def test_an_address_is_told_to_its_own_person(person: str) -> None:
    assert ask("PROPFIND", f"/SOGo/dav/{person}/", login=person, Depth="0")[0] == 207
    for stranger in ("wiebe@zeilmakerij.example", "niemand@elders.example"):
        assert ask("PROPFIND", f"/SOGo/dav/{stranger}/", login=person, Depth="0")[0] == 404


def test_a_calendar_of_20_megabytes_is_refused(person: str) -> None:
    status, text = ask("PUT", f"/SOGo/dav/{person}/Calendar/personal/x.ics", "x" * 20_000_000, person)
    assert (status, text) == (413, "Too large: at most 10 MiB.\n")


def test_the_page_is_the_resellers() -> None:
    status, text = ask("GET", "/SOGo/")
    assert status == 200
    assert '<title sg-default="Lemmer IT">Lemmer IT</title>' in text
    assert "Inverse" not in text
    assert "sogo.nu" not in text


def test_it_comes_back_when_it_was_killed(machine, person: str) -> None:
    before = machine.check_output("systemctl show --property MainPID --value sogo")
    machine.check_output(f"kill -9 {before}")
    wait_until(
        "sogod back",
        lambda: machine.check_output("systemctl show --property MainPID --value sogo") not in ("0", before),
    )
    wait_until("an answer", lambda: ask("PROPFIND", "/SOGo/dav/", PRINCIPAL, person, Depth="0")[0] == 207)


def test_the_secrets_stay(machine) -> None:
    before = machine.file("/etc/sogo/debconf.conf").sha256sum
    machine.check_output("/usr/local/lib/bouwsteen/groupware-secrets /etc/sogo/debconf.conf")
    assert machine.file("/etc/sogo/debconf.conf").sha256sum == before
