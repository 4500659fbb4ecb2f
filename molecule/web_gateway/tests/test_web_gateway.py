# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway from outside: whose certificate and face a name has, what the unknown get, what holds."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra

HERE = Path(__file__).resolve().parents[1]
TOP = HERE.parents[1]
INVENTORY = TOP / "molecule" / "inventory"
CA = TOP / ".cache" / "molecule" / "web_gateway" / "ca" / "ca.pem"
ADDRESS, ADDRESS6 = "10.213.0.51", "fd00:b5::51"
MACHINE = "gateway1.molecule.example"
SITES = ("webmail", "account", "autodiscover", "autoconfig")
NOORD, ZUID = "noord.example", "zuid.example"
TITLE = "Zuid'$uri ${x}; } <script>alert(1)</script> & Zn; é"


@pytest.fixture(scope="module")
def gateway() -> Any:
    return testinfra.get_host(f"ssh://{MACHINE}?controlpersist=60", ssh_config="/var/lib/bouwsteen-lab/ssh/config")


def play(**variables: Any) -> subprocess.CompletedProcess[str]:
    """Run this scenario's playbook; variable `words`: more of its command line."""
    words = variables.pop("words", [])
    command = ["ansible-playbook", f"--inventory={INVENTORY}", str(HERE / "converge.yml")]
    environment = os.environ | {"ANSIBLE_CONFIG": str(TOP / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    environment.pop("ANSIBLE_FORCE_COLOR", None)
    return subprocess.run(
        [*command, f"--extra-vars={json.dumps(variables)}", *words],
        capture_output=True, text=True, env=environment, cwd=TOP, check=False,
    )  # fmt: skip


def changed(result: subprocess.CompletedProcess[str]) -> int:
    assert result.returncode == 0, result.stdout + result.stderr
    return int(re.search(r"changed=(\d+)", result.stdout)[1])


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.1)


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=CA)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Client(http.client.HTTPSConnection):
    """A browser that goes to the gateway for whatever name; `old` speaks HTTP without TLS."""

    def __init__(self, name: str, *, old: bool = False, address: str = ADDRESS) -> None:
        super().__init__(name, timeout=20)
        self.old, self.address = old, address

    def connect(self) -> None:
        raw = socket.create_connection((self.address, 80 if self.old else 443), timeout=20)
        self.sock = raw if self.old else trusting().wrap_socket(raw, server_hostname=self.host)

    def ask(self, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
        self.request("GET", path, headers={key.replace("_", "-"): value for key, value in headers.items()})
        answer = self.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read().decode()


def ask(name: str, path: str, *, old: bool = False, address: str = ADDRESS, **headers: str) -> Any:
    client = Client(name, old=old, address=address)
    try:
        return client.ask(path, **headers)
    finally:
        client.close()


def handshake(name: str | None, alpn: list[str] | None = None) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=CA)
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(alpn)
    return context.wrap_socket(socket.create_connection((ADDRESS, 443), timeout=20), server_hostname=name)


# ------------------------------------------------------------------------------------------------------- the whole


def test_nothing_has_failed(host: Any) -> None:
    assert host.run("systemctl --failed --no-legend").stdout == ""
    assert host.service("nginx").is_enabled


def test_a_dry_run_on_a_machine_that_is_as_it_should_be_says_nothing() -> None:
    result = play(words=["--check", "--diff"])
    assert changed(result) == 0
    assert "+++" not in result.stdout


def test_nothing_listens_for_others_but_the_gateway_and_ssh(gateway: Any) -> None:
    sockets = gateway.check_output("ss -Hltn").splitlines()
    ports = {line.split()[3].rpartition(":")[2] for line in sockets if not line.split()[3].startswith("127.")}
    assert ports == {"22", "80", "443"}


def test_the_health_file_says_what_verify_has_to_look_for(gateway: Any) -> None:
    said = json.loads(gateway.file("/etc/bouwsteen/health.d/web_gateway.json").content_string)
    assert said == {"units": ["nginx.service", "logrotate.timer"], "ports": [80, 443]}


# ----------------------------------------------------------------------------------------------- names and certificates


@pytest.mark.parametrize("domain", [NOORD, ZUID])
@pytest.mark.parametrize("site", SITES)
def test_each_name_has_its_resellers_certificate(site: str, domain: str) -> None:
    with handshake(f"{site}.{domain}") as connection:
        names = {value for kind, value in connection.getpeercert()["subjectAltName"] if kind == "DNS"}
    assert names == {f"{one}.{domain}" for one in SITES}


@pytest.mark.parametrize("name", ["onbekend.example", f"mail.{NOORD}", NOORD, MACHINE, None])
def test_an_unknown_name_gets_no_handshake(name: str | None) -> None:
    with pytest.raises(ssl.SSLError, match=r"UNRECOGNIZED_NAME|unrecognized name"):
        handshake(name)


def test_a_connection_for_one_reseller_carries_no_others_requests() -> None:
    assert ask(f"webmail.{NOORD}", "/title")[0] == 200
    assert ask(f"webmail.{NOORD}", "/title", Host=f"account.{NOORD}")[0] == 404
    assert ask(f"webmail.{NOORD}", "/title", Host=f"webmail.{ZUID}")[0] == 421


def test_http_2_and_current_tls() -> None:
    with handshake(f"webmail.{NOORD}", ["h2", "http/1.1"]) as connection:
        assert connection.selected_alpn_protocol() == "h2"
        assert connection.version() == "TLSv1.3"
    offered = ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA:AES256-GCM-SHA384:@SECLEVEL=0"]
    command = ["openssl", "s_client", "-connect", f"{ADDRESS}:443", "-servername", f"webmail.{NOORD}"]
    assert subprocess.run([*command, *offered], input=b"", capture_output=True, check=False).returncode != 0
    assert subprocess.run([*command, "-tls1_2"], input=b"", capture_output=True, check=False).returncode == 0


# ----------------------------------------------------------------------------------------------------- what people see


@pytest.mark.parametrize("path", ["/title", "/told", "/nowhere", "/brand/logo", "/brand/style.css"])
def test_every_answer_has_the_headers_of_a_safe_site(path: str) -> None:
    _, headers, _ = ask(f"webmail.{NOORD}", path)
    assert headers["strict-transport-security"] == "max-age=63072000"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["server"] == "nginx"


def test_each_reseller_has_a_face_of_his_own() -> None:
    seen = {}
    for domain in (NOORD, ZUID):
        for site in SITES:
            status, headers, style = ask(f"{site}.{domain}", "/brand/style.css")
            assert (status, headers["content-type"]) == (200, "text/css")
            seen.setdefault(domain, set()).add(style)
    assert len(seen[NOORD]) == len(seen[ZUID]) == 1
    assert seen[NOORD] != seen[ZUID]
    assert "--brand: #0b5394;" in seen[NOORD].pop()
    logos = [ask(f"webmail.{domain}", "/brand/logo") for domain in (NOORD, ZUID)]
    assert logos[0][2] == (TOP / "brands" / "noorderict.svg").read_text()
    assert ">ZU</text>" in logos[1][2]
    for status, headers, _ in logos:
        assert (status, headers["content-type"]) == (200, "image/svg+xml")
        assert headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'; sandbox"


def test_a_hostile_title_is_a_title_and_nothing_else() -> None:
    status, _, body = ask(f"webmail.{ZUID}", "/title")
    assert status == 200
    assert "<script" not in body
    number = re.compile(r"&#(\d+);")
    assert number.sub(lambda found: chr(int(found[1])), body) == f"<b>{TITLE}</b>"


def test_a_service_that_is_away_is_said_in_the_resellers_look() -> None:
    status, headers, body = ask(f"webmail.{NOORD}", "/away")
    assert status == 502
    assert headers["retry-after"] == "60"
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert "Kom over een minuut terug." in body
    assert "Noorder ICT" in body
    assert "#0b5394" in body
    missing, _, nowhere = ask(f"webmail.{NOORD}", "/nowhere")
    assert missing == 404
    for page in (nowhere, body):
        assert not re.search("nginx|sogo|bouwsteen|debian", page, re.I)
        assert "hulp&#46;noord&#46;example" in page


def test_a_service_is_told_whose_request_it_is_and_no_client_can_say_otherwise() -> None:
    forged = {"X_Bouwsteen_Reseller": "noord", "X_Forwarded_For": "192.0.2.1", "X_Forwarded_Proto": "gopher"}
    _, _, body = ask(f"webmail.{ZUID}", "/told", **forged)
    assert body == f"zuid webmail 10.213.0.1 https webmail.{ZUID}\n"


def test_a_guards_refusal_asks_for_a_password() -> None:
    status, headers, body = ask(f"webmail.{NOORD}", "/guarded")
    assert (status, headers["www-authenticate"]) == (401, 'Basic realm="Noord"')
    assert "webmail" not in body


# ------------------------------------------------------------------------------------------------------------- port 80


def test_known_names_are_sent_to_https() -> None:
    status, headers, _ = ask(f"account.{NOORD}", "/a/b?c=d", old=True)
    assert (status, headers["location"]) == (301, f"https://account.{NOORD}/a/b?c=d")


@pytest.mark.parametrize("name", ["onbekend.example", f"mail.{NOORD}", MACHINE])
def test_an_unknown_name_is_not_answered(name: str) -> None:
    for path in ("/", "/health", "/.well-known/acme-challenge/nothing"):
        with pytest.raises(http.client.RemoteDisconnected):
            ask(name, path, old=True)


def test_load_balancers_ask_an_address() -> None:
    assert ask(ADDRESS, "/health", old=True)[::2] == (200, "ok\n")
    assert ask(f"[{ADDRESS6}]", "/health", old=True, address=ADDRESS6)[::2] == (200, "ok\n")


def test_programs_find_their_settings_under_a_customers_name() -> None:
    _, _, body = ask("autodiscover.klant.example", "/told", old=True)
    assert body == " http 10.213.0.1 http autodiscover.klant.example\n"
    with pytest.raises(http.client.RemoteDisconnected):
        ask("autoconfig.klant.example", "/", old=True)


def test_an_acme_server_gets_its_answers_for_every_name(gateway: Any) -> None:
    folder = "/var/lib/bouwsteen/acme/.well-known/acme-challenge"
    gateway.check_output(f"mkdir -p {folder} && echo token.thumbprint > {folder}/token")
    try:
        for name in (f"webmail.{NOORD}", f"mail.{NOORD}", MACHINE, "autoconfig.klant.example"):
            status, headers, body = ask(name, "/.well-known/acme-challenge/token", old=True)
            assert (status, body) == (200, "token.thumbprint\n")
            assert headers["content-type"] == "application/octet-stream"
    finally:
        gateway.check_output("rm -r /var/lib/bouwsteen/acme")
    look = "from ansible_collections.bouwsteen.hosting.plugins.module_utils import certificates_machine as c;"
    code = f"import sys; sys.path.insert(0, '/usr/local/lib/bouwsteen'); {look} print(c.port_is_free())"
    # So role certificates leaves the answering to the gateway.
    assert gateway.check_output(f'python3 -c "{code}"') == "False"


# ---------------------------------------------------------------------------------------------- limits, logs, accidents


def test_who_asks_too_much_is_told_to_wait_and_nobody_else() -> None:
    client = Client(f"webmail.{NOORD}", address=ADDRESS6)
    statuses = []
    for _ in range(600):
        status, headers, body = client.ask("/told")
        statuses.append(status)
        if status != 200:
            break
    client.close()
    assert statuses[-1] == 429
    assert len(statuses) > 50
    assert headers["retry-after"] == "60"
    assert "Probeer het over een minuut opnieuw." in body
    assert ask(f"webmail.{NOORD}", "/title")[0] == 200


def test_passwords_are_tried_slowly() -> None:
    client = Client(f"webmail.{ZUID}")
    statuses = [client.ask("/login")[0] for _ in range(40)]
    client.close()
    assert statuses[:25] == [200] * 25
    assert 429 in statuses


def test_secrets_in_links_are_nowhere_in_the_logs(gateway: Any) -> None:
    secret = "Geheim" + os.urandom(8).hex()
    for name in (f"account.{NOORD}", f"webmail.{NOORD}"):
        assert ask(name, f"/nowhere?token={secret}")[0] == 404
    assert ask(f"account.{NOORD}", f"/start/{secret}")[0] == 404
    assert ask(f"account.{NOORD}", f"/start/{secret}", old=True)[0] == 301
    assert ask(f"account.{NOORD}", f"/{secret}")[0] == 404
    log = gateway.file("/var/log/nginx/access.log")
    until(lambda: log.content_string.rstrip().splitlines()[-1].count('"GET /*** '))
    assert gateway.run(f"grep -r {secret} /var/log/nginx").rc == 1
    assert gateway.run("grep -c 'GET /start/[*]* ' /var/log/nginx/access.log").stdout.strip() != "0"


def test_logs_are_rotated_and_written_on(gateway: Any) -> None:
    gateway.check_output("logrotate --force /etc/logrotate.d/nginx")
    assert gateway.file("/var/log/nginx/access.log.1").exists
    assert ask(f"webmail.{NOORD}", "/title")[0] == 200
    until(lambda: "/title" in gateway.file("/var/log/nginx/access.log").content_string)


def test_it_comes_back_from_a_crash(gateway: Any) -> None:
    before = gateway.check_output("systemctl show --value --property=MainPID nginx")
    gateway.check_output(f"kill -KILL {before}")
    until(lambda: gateway.check_output("systemctl show --value --property=MainPID nginx") not in (before, "0"))
    until(lambda: gateway.run("systemctl is-active nginx").stdout.strip() == "active")
    assert ask(f"webmail.{NOORD}", "/title")[0] == 200


def test_it_may_little(gateway: Any) -> None:
    assert gateway.check_output("systemctl show --value --property=LimitNOFILE nginx") == "20000"
    pid = gateway.check_output("systemctl show --value --property=MainPID nginx")
    status = gateway.check_output(f"grep -E 'NoNewPrivs|Seccomp:' /proc/{pid}/status").split()
    assert status == ["NoNewPrivs:", "1", "Seccomp:", "2"]
    assert gateway.run(f"nsenter --mount --target {pid} touch /etc/nginx/nginx.conf").rc != 0
    workers = gateway.check_output(f"ps -o user= --ppid {pid}").split()
    assert set(workers) == {"www-data"}


# ------------------------------------------------------------------------------------------------------------ refusals


def test_what_is_wrong_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    logo = tmp_path / "logo.svg"
    logo.write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    hostile = {"name": "noord", "domain": NOORD, "title": 'a"; }', "brand": {"logo": str(logo)}}
    result = play(web_gateway_resellers=[hostile], web_gateway_bodymib=1)
    assert result.returncode != 0
    said = " ".join(result.stdout.split())
    assert "role web_gateway does not know web_gateway_bodymib" in said
    assert "has a double quote; allowed: 1 to 120 characters" in said
    assert "is an SVG with an element script; allowed: an SVG drawing" in said
    assert "Configure the web gateway" not in said
    assert ask(f"webmail.{NOORD}", "/title")[2] == "<b>Noorder ICT</b>"


def test_a_reseller_who_left_is_gone(gateway: Any) -> None:
    stays = {"name": "noord", "domain": NOORD, "title": "Noorder ICT"}
    assert changed(play(web_gateway_resellers=[stays])) == 1
    try:
        with pytest.raises(ssl.SSLError, match=r"UNRECOGNIZED_NAME|unrecognized name"):
            handshake(f"webmail.{ZUID}")
        assert ask(f"webmail.{NOORD}", "/title")[0] == 200
        assert gateway.run("ls /etc/nginx/bouwsteen/resellers /var/lib/bouwsteen/brand | grep zuid").rc == 1
    finally:
        assert changed(play()) == 1
    assert ask(f"webmail.{ZUID}", "/title")[0] == 200
