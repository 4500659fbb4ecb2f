# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of both issuers, as clients of the services see them, and what happens to them over the years."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import certificates_x509 as x509
from cryptography import x509 as crypto
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

TOP = Path(__file__).resolve().parents[3]
SCENARIO = TOP / ".cache/molecule/certificates"
LIBRARY = "ansible_collections.bouwsteen.hosting.plugins.module_utils"
CERTCA, ACMESRV, ACME1, ACME2 = (f"{name}.molecule.example" for name in ("certca", "acmesrv", "acme1", "acme2"))
ADDRESS = {CERTCA: "10.213.0.40", ACMESRV: "10.213.0.41", ACME1: "10.213.0.42", ACME2: "10.213.0.43"}
WANTED_CERTCA = [
    {"name": CERTCA, "names": [CERTCA, "10.213.0.40"], "services": ["nginx"]},
    {"name": "old", "names": ["old.molecule.example"], "key_type": "rsa-2048"},
]


@dataclass
class Applied:
    """What a run of the role gave: counts, the result of its last task, everything that was printed."""

    changed: int
    failed: int
    result: dict[str, Any]
    text: str

    @property
    def diff(self) -> str:
        return "".join(part["after"] for part in self.result.get("diff", []))


def apply(machine: str, *arguments: str, **variables: Any) -> Applied:
    """Applies the role to one machine, with variables in the place of the inventory's."""
    command = ["ansible-playbook", f"--inventory={TOP / 'molecule/inventory'}", f"--limit={machine}", *arguments]
    command += [f"--extra-vars={json.dumps(variables)}", str(TOP / "molecule/certificates/role.yml")]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_COLLECTIONS_PATH": str(TOP / ".collections"),
    }
    done = subprocess.run(command, cwd=TOP, env=environment, capture_output=True, text=True, timeout=300, check=False)
    try:
        printed = json.loads(done.stdout[done.stdout.index("{") :])
    except ValueError:
        pytest.fail(f"{done.stdout}\n{done.stderr}")
    stats = printed["stats"][machine]
    last = printed["plays"][-1]["tasks"][-1]["hosts"].get(machine, {})
    return Applied(stats["changed"], stats["failures"] + stats["unreachable"], last, done.stdout + done.stderr)


@dataclass
class Machine:
    """A machine of the scenario."""

    name: str

    def run(self, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        ssh = ["ssh", "-F", "/var/lib/bouwsteen-lab/ssh/config", self.name, command]
        return subprocess.run(ssh, input=stdin, capture_output=True, text=True, timeout=200, check=False)

    def ok(self, command: str, stdin: str = "") -> str:
        done = self.run(command, stdin)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def python(self, code: str) -> str:
        """Runs code on the machine with the library that the role put there."""
        head = "import sys\nsys.path.insert(0, '/usr/local/lib/bouwsteen')\n"
        return self.ok("/usr/bin/python3 -B -", f"{head}from {LIBRARY} import certificates_machine as m\n{code}")

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ok("cat /var/lib/bouwsteen/certificates/status.json"))
        return found

    def certificate(self, name: str) -> dict[str, Any]:
        return next(one for one in self.status()["certificates"] if one["name"] == name)

    def unit(self, name: str = "nginx") -> str:
        """What tells one life of a service from another."""
        return self.ok(f"systemctl show -p InvocationID -p MainPID {name}")

    def check(self) -> subprocess.CompletedProcess[str]:
        """The machine's own check, as the timer starts it."""
        return self.run("systemctl start bouwsteen-certificates.service")


def served(machine: str, name: str) -> crypto.Certificate:
    """The certificate that a client gets for a name, unverified."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((ADDRESS[machine], 443), timeout=10) as connection,
        context.wrap_socket(connection, server_hostname=name) as secured,
    ):
        return crypto.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")


def spki(certificate: crypto.Certificate) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(certificate.public_key().public_bytes(serialization.Encoding.DER, form)).hexdigest()


def serial(machine: str, name: str) -> int:
    return served(machine, name).serial_number


def eventually(machine: str, name: str, unwanted: int) -> None:
    """Old worker processes answer until a reload is through: waits for another certificate than `unwanted`."""
    end = datetime.now(UTC) + timedelta(seconds=15)
    while serial(machine, name) == unwanted:
        assert datetime.now(UTC) < end, f"{machine} still serves the old certificate of {name}"


@pytest.fixture
def certca() -> Machine:
    """The machine of the site CA. What a test changed is put right by the next one that applies the role."""
    return Machine(CERTCA)


@pytest.fixture
def acme1() -> Machine:
    """The machine that proves its names by http-01."""
    return Machine(ACME1)


@pytest.fixture
def acme2() -> Machine:
    """The machine that proves its names by dns-01."""
    return Machine(ACME2)


def make_old(machine: Machine, name: str, days_ago: int, lifetime: int) -> int:
    """Puts a certificate in service as it would look after some time; returns its serial number.

    It is the one in service with other dates, signed by the site CA; what an ACME server signed is signed by a
    stranger, which nothing here looks at.
    """
    then = datetime.now(UTC).replace(microsecond=0) - timedelta(days=days_ago)
    own = machine.certificate(name)
    pem = machine.ok(f"cat /etc/ssl/bouwsteen/{name}/fullchain.pem")
    current = crypto.load_pem_x509_certificate(pem.encode())
    builder = crypto.CertificateBuilder(
        current.issuer, current.subject, current.public_key(), crypto.random_serial_number()
    )
    builder = builder.not_valid_before(then).not_valid_after(then + timedelta(days=lifetime))
    for extension in current.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    about = json.loads(machine.ok(f"cat /etc/ssl/bouwsteen/{name}/about.json"))
    if own["issuer"] == "site_ca":
        passphrase = (SCENARIO / "passphrase").read_text().split()[0]
        key = x509.load_key((SCENARIO / "ca/ca.key").read_text(), passphrase)
    else:
        key = x509.load_key(x509.make_key("ec-p256"))
    old = builder.sign(key, hashes.SHA256())
    text = old.public_bytes(serialization.Encoding.PEM).decode()
    machine.python(
        "import datetime as d\n"
        "k = m.Keeper(m.Paths(), m.load_settings(m.Paths()))\n"
        f"w = next(one for one in k.wanted if one.name == {name!r})\n"
        f"k.store.install(w, {text!r}, {own['issuer']!r}, {about['issuer_id']!r}, d.datetime.now(d.UTC))"
    )
    machine.ok("systemctl reload nginx")
    end = datetime.now(UTC) + timedelta(seconds=15)
    while serial(machine.name, own["names"][0]) != old.serial_number:
        assert datetime.now(UTC) < end, "nginx does not serve the old certificate that was put there"
    return old.serial_number


# --- what is there after the playbook -------------------------------------------------------------------------------


def test_boots_without_a_failed_unit(host: Any) -> None:
    failed = host.run("systemctl list-units --state=failed --plain --no-legend").stdout
    # One name on this machine leads nowhere, on purpose.
    assert failed == "" or (
        "bouwsteen-certificates.service" in failed and host.check_output("hostname --fqdn") == ACME1
    )


@pytest.mark.parametrize(
    ("machine", "name"), [(CERTCA, CERTCA), (ACME1, "one.certs.example"), (ACME2, "two.certs.example")]
)
def test_keys_are_read_by_root_and_the_group_alone(machine: str, name: str) -> None:
    folder = f"/etc/ssl/bouwsteen/{name}"
    shown = Machine(machine).ok(
        f"stat -L -c '%a %U:%G' {folder} {folder}/privkey.pem {folder}/fullchain.pem {folder}/about.json"
    )
    assert shown.splitlines() == ["750 root:ssl-cert", *["640 root:ssl-cert"] * 3]
    denied = Machine(machine).run(f"runuser -u www-data -- cat {folder}/privkey.pem")
    assert "Permission denied" in denied.stderr
    assert Machine(machine).run("find /etc/ssl/bouwsteen/.store -perm /007 ! -type l -print").stdout == ""


def test_the_site_cas_root_verifies_from_outside() -> None:
    context = ssl.create_default_context(cafile=str(SCENARIO / "ca/ca.pem"))
    for name in (CERTCA, ADDRESS[CERTCA]):
        with (
            socket.create_connection((ADDRESS[CERTCA], 443), timeout=10) as connection,
            context.wrap_socket(connection, server_hostname=name) as secured,
        ):
            assert secured.version() == "TLSv1.3"
    verify = [
        "openssl",
        "s_client",
        "-connect",
        f"{ADDRESS[CERTCA]}:443",
        "-servername",
        CERTCA,
        "-verify_return_error",
    ]
    verify += ["-verify_hostname", CERTCA]
    with_root = subprocess.run(
        [*verify, "-CAfile", str(SCENARIO / "ca/ca.pem")], input="", capture_output=True, text=True, check=False
    )
    assert "Verify return code: 0 (ok)" in with_root.stdout
    without = subprocess.run(verify, input="", capture_output=True, text=True, check=False)
    assert without.returncode != 0


def test_the_sites_machines_trust_its_ca() -> None:
    for machine in (ACMESRV, ACME1, ACME2):
        Machine(machine).ok(
            f"openssl s_client -connect {CERTCA}:443 -verify_return_error -verify_hostname {CERTCA} </dev/null"
        )
        assert Machine(machine).ok("cat /etc/ssl/bouwsteen/site-ca.pem") == (SCENARIO / "ca/ca.pem").read_text()


def test_a_machines_own_certificate_is_for_logging_in() -> None:
    machine = Machine(CERTCA)
    pem = crypto.load_pem_x509_certificate(machine.ok("cat /etc/ssl/bouwsteen/machine/fullchain.pem").encode())
    assert pem.subject.rfc4514_string() == f"CN={CERTCA}"
    uses = pem.extensions.get_extension_for_class(crypto.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    machine.ok("openssl verify -purpose sslclient /etc/ssl/bouwsteen/machine/fullchain.pem")
    assert machine.run("openssl verify -purpose sslserver /etc/ssl/bouwsteen/machine/fullchain.pem").returncode != 0


def test_the_ca_is_guarded() -> None:
    assert (SCENARIO / "ca/ca.key").stat().st_mode & 0o777 == 0o600
    assert (SCENARIO / "ca").stat().st_mode & 0o777 == 0o700
    assert "ENCRYPTED" in (SCENARIO / "ca/ca.key").read_text()
    names = [json.loads(line)["name"] for line in (SCENARIO / "ca/issued.jsonl").read_text().splitlines()]
    assert {CERTCA, ACMESRV, "machine", "old"} <= set(names)


def test_the_timer_is_set() -> None:
    for machine in ADDRESS:
        assert Machine(machine).ok("systemctl is-enabled bouwsteen-certificates.timer").strip() == "enabled"
        assert Machine(machine).ok("systemctl is-active bouwsteen-certificates.timer").strip() == "active"


def test_a_wildcard_and_its_kind_of_key() -> None:
    certificate = served(ACME2, "anything.two.certs.example")
    names = certificate.extensions.get_extension_for_class(crypto.SubjectAlternativeName).value
    assert set(names.get_values_for_type(crypto.DNSName)) == {"two.certs.example", "*.two.certs.example"}
    assert Machine(ACME2).certificate("two.certs.example")["key_type"] == "rsa-2048"


def test_tlsa_data_is_that_of_the_served_key() -> None:
    for machine, name in ((CERTCA, CERTCA), (ACME1, "one.certs.example"), (ACME2, "two.certs.example")):
        assert Machine(machine).certificate(name)["tlsa"] == [f"3 1 1 {spki(served(machine, name))}"]


def test_port_80_is_closed_again(acme1: Machine) -> None:
    assert acme1.ok("ss -Hltn 'sport = :80'") == ""
    assert acme1.ok("ls -A /var/lib/bouwsteen/acme/.well-known/acme-challenge") == ""


def test_no_secret_is_shown() -> None:
    eab = (SCENARIO / "eab").read_text().split()[0]
    tsig = (SCENARIO / "tsig").read_text().split()[0]
    for machine in (ACME1, ACME2):
        journal = Machine(machine).ok("journalctl --no-pager; cat /var/lib/bouwsteen/certificates/*.log")
        assert eab not in journal
        assert tsig not in journal
        assert "PRIVATE KEY" not in journal
        assert Machine(machine).ok("stat -c %a /etc/bouwsteen/acme /etc/bouwsteen/acme/dehydrated.conf").split() == [
            "700",
            "600",
        ]


# --- a certificate's life, issuer site_ca ----------------------------------------------------------------------------


def test_more_names_and_the_same_key(certca: Machine) -> None:
    before, life, key = serial(CERTCA, CERTCA), certca.unit(), spki(served(CERTCA, CERTCA))
    more = [{**WANTED_CERTCA[0], "names": [CERTCA, "10.213.0.40", "extra.molecule.example"]}, WANTED_CERTCA[1]]

    foreseen = apply(CERTCA, "--check", "--diff", certificates_wanted=more)
    assert foreseen.changed > 0
    assert "because: names differ: +extra.molecule.example\n" in foreseen.diff
    assert f"spki {key}" in foreseen.diff
    assert "PRIVATE" not in foreseen.text
    assert serial(CERTCA, CERTCA) == before

    done = apply(CERTCA, "--diff", certificates_wanted=more)
    assert "because: names differ: +extra.molecule.example\n" in done.diff
    assert [one["action"] for one in done.result["actions"]] == ["reload"]
    eventually(CERTCA, CERTCA, before)
    now = served(CERTCA, "extra.molecule.example")
    names = now.extensions.get_extension_for_class(crypto.SubjectAlternativeName).value
    assert "extra.molecule.example" in names.get_values_for_type(crypto.DNSName)
    assert spki(now) == key
    assert certca.unit() == life, "nginx was restarted"
    again = apply(CERTCA, "--check", "--diff", certificates_wanted=more)
    assert (again.changed, again.diff) == (0, "")


def test_near_its_end(certca: Machine) -> None:
    key = certca.certificate(CERTCA)["spki_sha256"]
    old = make_old(certca, CERTCA, 350, 365)
    life = certca.unit()

    assert certca.check().returncode != 0
    assert certca.ok("systemctl is-failed bouwsteen-certificates.service").strip() == "failed"
    (problem,) = certca.status()["problems"]
    assert re.fullmatch(r"1[45] days left, until \d{4}-\d\d-\d\d", problem["found"])
    assert problem["subject"] == f"certificate {CERTCA}"
    assert problem["wanted"] == "renewed below 33 % (run playbooks/certificates.yml)"
    assert f"PROBLEM certificate {CERTCA}: {problem['found']}" in certca.ok(
        "journalctl -u bouwsteen-certificates --no-pager"
    )
    assert serial(CERTCA, CERTCA) == old, "the machine cannot renew what the site CA signs"

    done = apply(CERTCA, "--diff")
    assert re.search(r"because: 1[45] of 365 days left, renewed below 33 %\n", done.diff)
    eventually(CERTCA, CERTCA, old)
    assert spki(served(CERTCA, CERTCA)) == key
    assert certca.unit() == life, "nginx was restarted"
    assert certca.status()["problems"] == []
    assert certca.run("systemctl is-failed bouwsteen-certificates.service").returncode != 0


def test_a_run_killed_before_the_reload_is_healed(certca: Machine) -> None:
    """The new certificate is in its place, its service was never told; besides, an earlier run left its rubbish."""
    old = serial(CERTCA, CERTCA)
    make_old(certca, CERTCA, 1, 365)
    store = "/etc/ssl/bouwsteen/.store"
    certca.ok(
        f"mkdir {store}/{CERTCA}/.new-left && touch {store}/{CERTCA}/.new-left/privkey.pem"
        f" && ln -s nowhere /etc/ssl/bouwsteen/.{CERTCA}.new"
    )
    # As if the service had been reloaded with another certificate than the one on disk.
    certca.ok('sed -i \'s/"[0-9a-f]\\{64\\}"/"other"/\' /run/bouwsteen/certificates/nginx.service.json')
    done = apply(CERTCA)
    assert done.result["actions"] == [
        {"service": "nginx", "action": "reload", "because": f"it runs with an older certificate: {CERTCA}"}
    ]
    assert certca.run(f"ls -A {store}/{CERTCA}").stdout.count(".new-left") == 0
    assert serial(CERTCA, CERTCA) != old


def test_a_run_killed_while_it_made_a_certificate_is_healed(certca: Machine) -> None:
    """The key was made, the signature never came; then a certificate lost its file."""
    certca.ok("rm /etc/ssl/bouwsteen/old && rm -r /etc/ssl/bouwsteen/.store/old/*")
    certca.ok("install -m 600 /etc/ssl/bouwsteen/machine/privkey.pem /etc/ssl/bouwsteen/.store/old/next-1.pem")
    certca.ok("truncate -s 0 /etc/ssl/bouwsteen/machine/fullchain.pem")
    key = certca.certificate("machine")["spki_sha256"]
    done = apply(CERTCA, "--diff")
    assert "because: there is no certificate yet\n" in done.diff
    assert "because: the certificate is unusable (the certificate cannot be read)\n" in done.diff
    assert certca.certificate("machine")["spki_sha256"] == key
    assert apply(CERTCA).changed == 0


def test_another_key_in_two_steps(certca: Machine) -> None:
    old = spki(served(CERTCA, CERTCA))
    before = serial(CERTCA, CERTCA)
    generation = certca.certificate(CERTCA)["key_generation"] + 1
    want = [{**WANTED_CERTCA[0], "key_generation": generation}, WANTED_CERTCA[1]]

    first = apply(CERTCA, "--diff", certificates_wanted=want)
    assert f"because: key generation {generation - 1}, wanted {generation}\n" in first.diff
    shown = certca.certificate(CERTCA)
    following = shown["next_spki_sha256"]
    assert shown["tlsa"] == [f"3 1 1 {old}", f"3 1 1 {following}"]
    assert serial(CERTCA, CERTCA) == before
    assert apply(CERTCA, certificates_wanted=want).changed == 0, "the next key has to wait for the DNS"

    certca.ok(f"touch --date='3 days ago' /etc/ssl/bouwsteen/.store/{CERTCA}/next-{generation}.pem")
    assert apply(CERTCA, certificates_wanted=want).changed > 0
    eventually(CERTCA, CERTCA, before)
    assert spki(served(CERTCA, CERTCA)) == following
    assert certca.certificate(CERTCA)["tlsa"] == [f"3 1 1 {following}"]


def test_a_key_that_became_known_is_replaced_at_once(certca: Machine) -> None:
    old = spki(served(CERTCA, CERTCA))
    before = serial(CERTCA, CERTCA)
    assert apply(CERTCA, certificates_new_key=[CERTCA]).changed > 0
    eventually(CERTCA, CERTCA, before)
    assert spki(served(CERTCA, CERTCA)) != old
    wrong = apply(CERTCA, certificates_renew=["certac.molecule.example"])
    assert wrong.result["msg"] == (
        "certificates_renew or certificates_new_key names what this machine does not have: certac.molecule.example;"
        f" it has: {CERTCA}, machine, old"
    )


def test_what_is_not_wanted_any_more_goes_later(certca: Machine) -> None:
    done = apply(CERTCA, "--diff", certificates_wanted=WANTED_CERTCA[:1])
    assert "not wanted, removed after 1 days\n" in done.diff
    certca.ok("test -s /etc/ssl/bouwsteen/old/privkey.pem")
    assert apply(CERTCA, certificates_wanted=WANTED_CERTCA[:1]).changed == 0
    certca.ok("touch --date='2 days ago' /etc/ssl/bouwsteen/.store/old/retired")
    assert apply(CERTCA, certificates_wanted=WANTED_CERTCA[:1]).changed > 0
    assert certca.ok("ls -A /etc/ssl/bouwsteen /etc/ssl/bouwsteen/.store").split().count("old") == 0


def test_names_that_the_ca_may_not_sign(certca: Machine) -> None:
    want = [*WANTED_CERTCA, {"name": "bank", "names": ["www.bank.example"]}]
    done = apply(CERTCA, certificates_wanted=want)
    assert done.failed == 1
    assert done.result["msg"].endswith(
        f"{CERTCA}, certificate bank:"
        " the site CA may not sign www.bank.example: its name constraints do not permit them"
    )


def test_the_wrong_passphrase(certca: Machine) -> None:
    done = apply(CERTCA, certificates_ca_passphrase="not-this-one", certificates_renew=[CERTCA])
    assert done.failed == 1
    assert done.result["msg"].endswith(
        "/ca/ca.key: the passphrase is wrong or the key is damaged (certificates_ca_passphrase)"
    )
    assert "not-this-one" not in done.text.replace("-vv", "")


def test_what_is_wanted_is_checked_first(certca: Machine) -> None:
    before = certca.ok("cat /etc/bouwsteen/certificates.json")
    done = apply(CERTCA, certificates_wanted=[{"name": "a", "names": ["Mail.molecule.example"]}])
    assert done.failed == 1
    assert certca.ok("cat /etc/bouwsteen/certificates.json") == before
    assert done.result["msg"] == (
        "certificates_wanted: a: names: 'Mail.molecule.example' has capitals; host names are written in small letters"
    )


# --- a certificate's life, issuer acme --------------------------------------------------------------------------------


def test_a_refused_name_gets_a_placeholder_and_a_clear_word(acme1: Machine) -> None:
    own = acme1.certificate("away.certs.example")
    assert (own["issuer"], own["placeholder"], own["tlsa"]) == ("placeholder", True, [])
    assert served(ACME1, "away.certs.example").issuer.rfc4514_string() == "CN=placeholder until the first certificate"
    problem = next(one for one in acme1.status()["problems"] if one["subject"] == "certificate away.certs.example")
    assert re.search(
        r"^a self-signed placeholder until \S+; the ACME server refused: .*127\.0\.0\.1:80.*\(connection\)",
        problem["found"],
    )
    # Others are not hurt by it, and trying again does not change anything.
    assert acme1.certificate("one.certs.example")["issuer"] == "acme"
    again = apply(ACME1)
    assert (again.changed, again.failed) == (0, 0)
    assert "away.certs.example: a self-signed placeholder" in again.text
    strict = apply(ACME1, certificates_on_failure="fail")
    assert strict.failed == 1
    assert strict.result["msg"].startswith("certificate away.certs.example: a self-signed placeholder until")


def verifies(machine: str, name: str, folder: Path) -> None:
    """A client that trusts the ACME server's root, which is another one after each start of it, accepts the chain."""
    root = folder / "root.pem"
    root.write_text(Machine(ACMESRV).ok("curl --silent --insecure https://127.0.0.1:15000/roots/0"))
    context = ssl.create_default_context(cafile=str(root))
    with (
        socket.create_connection((ADDRESS[machine], 443), timeout=10) as connection,
        context.wrap_socket(connection, server_hostname=name) as secured,
    ):
        assert secured.version() == "TLSv1.3"


@pytest.mark.parametrize(("machine", "name"), [(ACME1, "one.certs.example"), (ACME2, "two.certs.example")])
def test_the_machine_renews_by_itself(machine: str, name: str, tmp_path: Path) -> None:
    """http-01 on the first machine, dns-01 on the second."""
    there = Machine(machine)
    old = make_old(there, name, 70, 90)
    life, key = there.unit(), there.certificate(name)["spki_sha256"]
    there.check()
    eventually(machine, name, old)
    now = served(machine, name)
    assert "Pebble" in now.issuer.rfc4514_string()
    assert spki(now) == key
    verifies(machine, name, tmp_path)
    assert there.unit() == life, "nginx was restarted"
    assert there.certificate(name)["tlsa"] == [f"3 1 1 {key}"]
    assert there.ok("systemctl show -p ActiveState --value bouwsteen-acme-responder.service").strip() == "inactive"
    if machine == ACME2:
        assert there.status()["problems"] == []
        assert there.run("systemctl is-failed --quiet bouwsteen-certificates.service").returncode != 0
    else:
        # The name that leads nowhere keeps the check failing, so that verify sees it.
        assert there.ok("systemctl is-failed bouwsteen-certificates.service").strip() == "failed"


def test_a_server_that_is_away_and_comes_back_without_memory(acme2: Machine) -> None:
    name = "two.certs.example"
    old = make_old(acme2, name, 70, 90)
    Machine(ACMESRV).ok("systemctl stop pebble")
    try:
        assert acme2.check().returncode != 0
        (problem,) = acme2.status()["problems"]
        assert problem["found"].startswith(
            "not renewed: nothing answers at the ACME server's address; the whole story:"
            " /var/lib/bouwsteen/certificates/two.certs.example.log; the old one is in service until"
        )
        assert serial(ACME2, name) == old
    finally:
        Machine(ACMESRV).ok("systemctl start pebble")
    wait = (
        "for i in $(seq 100); do curl --silent --insecure https://127.0.0.1:14000/dir >/dev/null && exit; done; exit 1"
    )
    Machine(ACMESRV).ok(wait)
    # The account is gone there; the machine registers again.
    assert acme2.check().returncode == 0
    eventually(ACME2, name, old)
    assert acme2.status()["problems"] == []


def test_a_name_server_that_refuses(acme2: Machine) -> None:
    name = "two.certs.example"
    old = serial(ACME2, name)
    acme2.ok('sed -i \'s/secret ".*"/secret "bm90IHRoaXMgb25l"/\' /etc/bouwsteen/acme/tsig.key')
    done = acme2.run(f"bouwsteen-certificates renew {name}")
    assert done.returncode == 1
    assert (
        "the DNS server acmesrv.molecule.example refused the update of _acme-challenge.two.certs.example" in done.stdout
    )
    assert "update failed: NOTAUTH(BADSIG)" in done.stdout
    assert serial(ACME2, name) == old
    assert apply(ACME2).changed > 0, "the key file is put right"
    assert acme2.status()["problems"] == []


def test_who_has_port_80_answers_from_the_webroot(acme1: Machine) -> None:
    """As a web gateway will: the role's own responder stays away."""
    old = serial(ACME1, "one.certs.example")
    acme1.ok(
        "cat > /etc/nginx/conf.d/port80.conf && systemctl reload nginx",
        "server { listen 80; listen [::]:80; location /.well-known/acme-challenge/ { root /var/lib/bouwsteen/acme; } }",
    )
    since = acme1.ok("date +%s").strip()
    try:
        done = acme1.run("bouwsteen-certificates renew one.certs.example")
        assert "certificate one.certs.example: names: one.certs.example www.one.certs.example" in done.stdout
        eventually(ACME1, "one.certs.example", old)
        assert "Started" not in acme1.ok(f"journalctl -u bouwsteen-acme-responder --since=@{since} --no-pager")
    finally:
        acme1.ok("rm /etc/nginx/conf.d/port80.conf && systemctl reload nginx")


def test_what_the_command_says_to_wrong_use(certca: Machine) -> None:
    assert certca.run("bouwsteen-certificates").returncode == 2
    site_ca = certca.run(f"bouwsteen-certificates renew {CERTCA}")
    assert site_ca.stderr.startswith(f"{CERTCA}: the site CA signs from the control node; there: ansible-playbook")
    assert Machine(ACME2).run("bouwsteen-certificates renew x").stderr == (
        "certificates_renew or certificates_new_key names what this machine does not have: x;"
        " it has: two.certs.example\n"
    )


def test_terms_are_not_agreed_to_by_default(acme2: Machine) -> None:
    done = apply(ACME2, certificates_acme_terms_agreed=False, certificates_renew=["two.certs.example"])
    assert (
        "not renewed: the ACME server's terms of service are not agreed to: read them and set"
        " certificates_acme_terms_agreed: true; the old one is in service" in done.text
    )


# --- another issuer, another CA ---------------------------------------------------------------------------------------


def test_changing_the_issuer_and_back(acme2: Machine) -> None:
    name = "two.certs.example"
    before = serial(ACME2, name)
    want = [{"name": name, "names": ["two.molecule.example"], "services": ["nginx"]}]
    done = apply(ACME2, "--diff", certificates_issuer="site_ca", certificates_wanted=want)
    assert "because: issued by acme, wanted site_ca\n" in done.diff
    eventually(ACME2, name, before)
    acme2.ok("test ! -e /etc/bouwsteen/acme/dehydrated.conf && test ! -e /etc/bouwsteen/acme/tsig.key")
    assert apply(ACME2, certificates_issuer="site_ca", certificates_wanted=want).changed == 0
    assert apply(ACME2).changed > 0
    assert acme2.certificate(name)["issuer"] == "acme"


def test_one_ca_takes_over_from_another(certca: Machine) -> None:
    """The steps of docs/certificates.md, Replacing the site CA; a client is never left without trust."""
    apply(CERTCA)
    key = spki(served(CERTCA, CERTCA))
    folder, following, old = (SCENARIO / name for name in ("ca", "ca-next", "ca-old"))
    for left in (following, old):
        shutil.rmtree(left, ignore_errors=True)

    def accepted(by: Path) -> bool:
        command = [
            "openssl",
            "s_client",
            "-connect",
            f"{ADDRESS[CERTCA]}:443",
            "-verify_return_error",
            "-CAfile",
            str(by),
        ]
        return subprocess.run(command, input="", capture_output=True, text=True, check=False).returncode == 0

    made = ["ansible-playbook", f"--inventory={TOP / 'molecule/inventory'}", f"--limit={CERTCA}"]
    made += ["-e", f"certificates_ca_dir={following}", str(TOP / "playbooks/site_ca.yml")]
    said = subprocess.run(made, cwd=TOP, capture_output=True, text=True, timeout=120, check=False).stdout
    assert f"Clients that should trust this site need {following}/ca.pem" in said

    (folder / "trusted").mkdir(exist_ok=True)
    shutil.copy(following / "ca.pem", folder / "trusted/next.pem")
    assert apply(CERTCA).changed > 0
    assert certca.ok("grep -c BEGIN /etc/ssl/bouwsteen/site-ca.pem").strip() == "2"
    assert accepted(folder / "ca.pem")

    folder.rename(old)
    following.rename(folder)
    (folder / "trusted").mkdir()
    shutil.copy(old / "ca.pem", folder / "trusted/previous.pem")
    before = serial(CERTCA, CERTCA)
    done = apply(CERTCA, "--diff")
    assert "because: the issuer changed from " in done.diff
    eventually(CERTCA, CERTCA, before)
    assert accepted(folder / "ca.pem")
    assert not accepted(old / "ca.pem")
    assert spki(served(CERTCA, CERTCA)) == key
    assert apply(CERTCA).changed == 0

    (folder / "trusted/previous.pem").unlink()
    assert apply(CERTCA).changed > 0
    assert certca.ok("cat /etc/ssl/bouwsteen/site-ca.pem") == (folder / "ca.pem").read_text()
    assert len(certca.ok("ls /usr/local/share/ca-certificates/bouwsteen-molecule-*.crt").split()) == 1
    # The others of this scenario follow.
    assert apply(ACMESRV).changed > 0
