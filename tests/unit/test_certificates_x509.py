# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates as they are made, read with OpenSSL's eyes as well as our own."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import certificates_authority as authority
from ansible_collections.bouwsteen.hosting.plugins.module_utils import certificates_x509 as x509
from ansible_collections.bouwsteen.hosting.plugins.module_utils.certificates import CertificatesError
from cryptography import x509 as crypto
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

NOW = datetime.now(UTC).replace(microsecond=0)
YEAR = timedelta(days=365)


def openssl(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, text=True, check=False)


@pytest.fixture
def ca(tmp_path: Path) -> authority.AuthoritySettings:
    settings = authority.AuthoritySettings(tmp_path / "site/ca", "Bouwsteen demo site CA")
    authority.ensure(settings, NOW)
    return settings


def order(names: list[str], usage: str = "server", key_type: str = "ec-p256") -> dict[str, object]:
    return {"request": x509.make_request(x509.make_key(key_type), names), "names": names, "usage": usage}


def test_what_the_ca_signs_is_what_openssl_accepts(ca: authority.AuthoritySettings, tmp_path: Path) -> None:
    names = ["mail.noorderict.example", "*.noorderict.example", "10.213.0.10", "fd00:b5::10"]
    signed = authority.sign(ca, "m1", {"mail": order(names)}, YEAR, NOW)["mail"]
    file = tmp_path / "mail.pem"
    file.write_text(signed)
    for check in (
        ["-verify_hostname", names[0]],
        ["-verify_hostname", "x.noorderict.example"],
        ["-verify_ip", names[2]],
    ):
        done = openssl(
            "verify",
            "-x509_strict",
            "-purpose",
            "sslserver",
            *check,
            "-CAfile",
            str(ca.directory / "ca.pem"),
            str(file),
        )
        assert done.returncode == 0, done.stdout + done.stderr
    wrong = openssl("verify", "-verify_hostname", "a.example", "-CAfile", str(ca.directory / "ca.pem"), str(file))
    assert "hostname mismatch" in wrong.stderr
    facts = x509.certificate_facts(signed)
    assert set(facts.names) == set(names)
    assert (facts.common_name, facts.usage, facts.key_type, facts.is_authority) == (
        names[0],
        "server",
        "ec-p256",
        False,
    )
    assert facts.not_after == NOW + YEAR
    roots = authority.read(ca)
    assert roots is not None
    assert facts.authority == roots.identifier


@pytest.mark.parametrize("key_type", ["ec-p256", "ec-p384", "rsa-2048", "rsa-3072"])
def test_keys(key_type: str, ca: authority.AuthoritySettings, tmp_path: Path) -> None:
    pem = x509.make_key(key_type)
    kind, spki = x509.key_facts(pem)
    assert kind == key_type
    request = {"request": x509.make_request(pem, ["a.example"]), "names": ["a.example"], "usage": "both"}
    signed = authority.sign(ca, "m1", {"a": request}, YEAR, NOW)["a"]
    facts = x509.certificate_facts(signed)
    assert (facts.key_type, facts.spki, facts.usage) == (key_type, spki, "both")
    # RFC 6698's hash, computed by someone else.
    key = openssl("x509", "-noout", "-pubkey", stdin=signed).stdout
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"], input=key.encode(), capture_output=True, check=True
    )
    digest = subprocess.run(["openssl", "dgst", "-sha256", "-r"], input=der.stdout, capture_output=True, check=True)
    assert digest.stdout.decode().split()[0] == spki
    usage = crypto.load_pem_x509_certificate(signed.encode()).extensions.get_extension_for_class(crypto.KeyUsage).value
    assert usage.key_encipherment == key_type.startswith("rsa")


@pytest.mark.parametrize("key_type", ["rsa-1024", "dsa", "ec-p521"])
def test_keys_that_are_not_made(key_type: str) -> None:
    with pytest.raises(CertificatesError, match=rf"^keys of type {key_type} are not made$"):
        x509.make_key(key_type)


def test_a_client(ca: authority.AuthoritySettings, tmp_path: Path) -> None:
    signed = authority.sign(ca, "m1", {"machine": order(["m1.bouwsteen.example"], "client")}, YEAR, NOW)["machine"]
    (tmp_path / "c.pem").write_text(signed)
    root = str(ca.directory / "ca.pem")
    assert openssl("verify", "-purpose", "sslclient", "-CAfile", root, str(tmp_path / "c.pem")).returncode == 0
    assert openssl("verify", "-purpose", "sslserver", "-CAfile", root, str(tmp_path / "c.pem")).returncode != 0
    assert x509.certificate_facts(signed).usage == "client"


def test_only_the_key_is_taken_from_a_request(ca: authority.AuthoritySettings) -> None:
    """A machine that asks for somebody else's names gets its own."""
    request = x509.make_request(x509.make_key("ec-p256"), ["mail.zuidwest.example"])
    asked = {"a": {"request": request, "names": ["mail.noorderict.example"], "usage": "server"}}
    facts = x509.certificate_facts(authority.sign(ca, "m1", asked, YEAR, NOW)["a"])
    assert (facts.names, facts.common_name) == (("mail.noorderict.example",), "mail.noorderict.example")


def test_a_request_must_prove_its_key(ca: authority.AuthoritySettings) -> None:
    request = x509.make_request(x509.make_key("ec-p256"), ["a.example"])
    der = bytearray(crypto.load_pem_x509_csr(request.encode()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = crypto.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(CertificatesError) as caught:
        authority.sign(ca, "m1", {"a": {"request": forged, "names": ["a.example"], "usage": "server"}}, YEAR, NOW)
    assert str(caught.value) == "m1, certificate a: the machine's signing request is not signed by its own key"
    with pytest.raises(CertificatesError) as caught:
        authority.sign(ca, "m1", {"a": {"request": "rubbish", "names": ["a.example"], "usage": "server"}}, YEAR, NOW)
    assert str(caught.value) == "m1, certificate a: the machine's signing request cannot be read"


def test_a_name_too_long_for_a_common_name(ca: authority.AuthoritySettings) -> None:
    name = f"{'a' * 60}.{'b' * 60}.example"
    signed = authority.sign(ca, "m1", {"a": order([name])}, YEAR, NOW)["a"]
    certificate = crypto.load_pem_x509_certificate(signed.encode())
    assert list(certificate.subject) == []
    assert certificate.extensions.get_extension_for_class(crypto.SubjectAlternativeName).critical
    assert x509.certificate_facts(signed).names == (name,)


def test_a_certificate_does_not_outlive_its_ca(tmp_path: Path) -> None:
    settings = authority.AuthoritySettings(tmp_path, "short", lifetime_days=10)
    authority.ensure(settings, NOW)
    facts = x509.certificate_facts(authority.sign(settings, "m1", {"a": order(["a.example"])}, YEAR, NOW)["a"])
    assert facts.not_after == NOW + timedelta(days=10)
    with pytest.raises(CertificatesError) as caught:
        authority.sign(settings, "m1", {"a": order(["a.example"])}, YEAR, NOW + timedelta(days=11))
    assert str(caught.value) == f"m1, certificate a: the site CA expired on {NOW + timedelta(days=10):%Y-%m-%d}"


def test_name_constraints(tmp_path: Path) -> None:
    settings = authority.AuthoritySettings(tmp_path, "narrow", permitted=("noorderict.example", ".zuidwest.example"))
    authority.ensure(settings, NOW)
    good = ["noorderict.example", "mail.noorderict.example", "*.zuidwest.example", "10.0.0.1"]
    signed = authority.sign(settings, "m1", {"a": order(good)}, YEAR, NOW)["a"]
    (tmp_path / "a.pem").write_text(signed)
    assert openssl("verify", "-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "a.pem")).returncode == 0
    for bad in ("bank.example", "xnoorderict.example", "*.example"):
        with pytest.raises(CertificatesError) as caught:
            authority.sign(settings, "m1", {"a": order([bad])}, YEAR, NOW)
        assert str(caught.value) == (
            f"m1, certificate a: the site CA may not sign {bad}: its name constraints do not permit them"
        )


def test_a_placeholder() -> None:
    pem = x509.make_key("ec-p256")
    facts = x509.certificate_facts(x509.self_signed(pem, ["a.example", "10.0.0.1"], timedelta(days=7), NOW))
    assert (facts.names, facts.spki, facts.authority) == (("a.example", "10.0.0.1"), x509.key_facts(pem)[1], "")
    assert facts.not_after == NOW + timedelta(days=7)


def test_what_cannot_be_read() -> None:
    with pytest.raises(CertificatesError, match=r"^the certificate cannot be read$"):
        x509.certificate_facts("")
    with pytest.raises(CertificatesError, match=r"^the key is damaged$"):
        x509.load_key("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(CertificatesError, match=r"^the bundle holds no certificate that can be read$"):
        x509.split_bundle("nothing")
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(CertificatesError, match=r"^keys of type Ed25519PrivateKey are not used here$"):
        x509.load_key(other.decode())


class TestTheCaOnTheControlNode:
    def test_made_once(self, ca: authority.AuthoritySettings) -> None:
        first, again = authority.read(ca), authority.ensure(ca, NOW)
        assert again == (first, False)
        modes = {path.name: path.stat().st_mode & 0o777 for path in ca.directory.iterdir()}
        assert (modes["ca.key"], modes["ca.pem"]) == (0o600, 0o644)
        assert ca.directory.stat().st_mode & 0o777 == 0o700

    def test_not_made_by_reading(self, tmp_path: Path) -> None:
        settings = authority.AuthoritySettings(tmp_path / "x", "x")
        assert authority.read(settings) is None
        assert not (tmp_path / "x").exists()
        with pytest.raises(CertificatesError, match=r"^there is no site CA in "):
            authority.sign(settings, "m1", {}, YEAR, NOW)

    def test_a_list_of_what_was_signed(self, ca: authority.AuthoritySettings) -> None:
        authority.sign(ca, "m1", {"a": order(["a.example"]), "b": order(["b.example"])}, YEAR, NOW)
        authority.sign(ca, "m2", {"c": order(["c.example"])}, YEAR, NOW)
        file = ca.directory / "issued.jsonl"
        assert file.stat().st_mode & 0o777 == 0o600
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [(one["machine"], one["name"]) for one in lines] == [("m1", "a"), ("m1", "b"), ("m2", "c")]
        assert "PRIVATE" not in file.read_text()

    def test_passphrase(self, tmp_path: Path) -> None:
        settings = authority.AuthoritySettings(tmp_path, "x", passphrase="correct horse")
        authority.ensure(settings, NOW)
        assert "ENCRYPTED PRIVATE KEY" in (tmp_path / "ca.key").read_text()
        authority.sign(settings, "m1", {"a": order(["a.example"])}, YEAR, NOW)
        for given, message in (
            (None, "the key is protected by a passphrase and none was given"),
            ("wrong", "the passphrase is wrong or the key is damaged"),
        ):
            other = authority.AuthoritySettings(tmp_path, "x", passphrase=given)
            with pytest.raises(CertificatesError) as caught:
                authority.sign(other, "m1", {"a": order(["a.example"])}, YEAR, NOW)
            assert str(caught.value) == f"{tmp_path}/ca.key: {message} (certificates_ca_passphrase)"
        plain = authority.AuthoritySettings(tmp_path / "plain", "x")
        authority.ensure(plain, NOW)
        with pytest.raises(CertificatesError, match=r"the key has no passphrase but one was given"):
            x509.load_key((tmp_path / "plain/ca.key").read_text(), "any")

    def test_a_run_killed_while_it_was_made(self, ca: authority.AuthoritySettings) -> None:
        before = authority.read(ca)
        (ca.directory / "ca.key").rename(ca.directory / "ca.key.new")
        assert authority.ensure(ca, NOW) == (before, False)

    def test_half_of_it_lost(self, ca: authority.AuthoritySettings) -> None:
        (ca.directory / "ca.pem").unlink()
        with pytest.raises(CertificatesError) as caught:
            authority.ensure(ca, NOW)
        assert str(caught.value) == (
            f"the site CA is incomplete: {ca.directory}/ca.pem is missing; restore it from your backup"
        )

    def test_a_key_that_others_can_read(self, ca: authority.AuthoritySettings) -> None:
        (ca.directory / "ca.key").chmod(0o644)
        with pytest.raises(
            CertificatesError, match=r"ca.key may be read by others; chmod 0600 it, and replace the CA if"
        ):
            authority.read(ca)

    def test_rubbish_in_its_place(self, ca: authority.AuthoritySettings) -> None:
        leaf = authority.sign(ca, "m1", {"a": order(["a.example"])}, YEAR, NOW)["a"]
        (ca.directory / "ca.pem").write_text(leaf)
        with pytest.raises(CertificatesError, match=r"ca.pem is not a CA's certificate$"):
            authority.read(ca)
        (ca.directory / "ca.pem").write_text("x")
        with pytest.raises(CertificatesError, match=r"the bundle holds no certificate that can be read$"):
            authority.read(ca)

    def test_a_key_of_another_ca(self, ca: authority.AuthoritySettings, tmp_path: Path) -> None:
        other = authority.AuthoritySettings(tmp_path / "other", "other")
        authority.ensure(other, NOW)
        (ca.directory / "ca.key").write_text((tmp_path / "other/ca.key").read_text())
        with pytest.raises(CertificatesError, match=r"the site CA's key does not belong to its certificate$"):
            authority.sign(ca, "m1", {"a": order(["a.example"])}, YEAR, NOW)

    def test_further_roots(self, ca: authority.AuthoritySettings, tmp_path: Path) -> None:
        """While one CA takes over from another, machines trust both; the one that signs comes first."""
        other = authority.AuthoritySettings(tmp_path / "other", "other")
        following, _ = authority.ensure(other, NOW)
        (ca.directory / "trusted").mkdir()
        (ca.directory / "trusted/next.pem").write_text(following.certificate)
        (ca.directory / "trusted/same.pem").write_text((ca.directory / "ca.pem").read_text())
        roots = authority.read(ca)
        assert roots is not None
        assert roots.trusted == (roots.certificate, following.certificate)
