# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, signing requests and certificates, with python-cryptography (43 on Debian 13, newer on the control node).

Everything is PEM text in and out. The profile of what the site CA signs follows RFC 5280 and, for names, RFC 6125:
host names stand in subjectAltName; the common name repeats the first one for people and for certificate log-ins.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ansible_collections.bouwsteen.hosting.plugins.module_utils.certificates import CertificatesError, is_address
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPrivateKeyTypes,
    CertificateIssuerPublicKeyTypes,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# A certificate is good from a little before it was made, for clocks that run behind.
BACKDATE = timedelta(hours=1)
# RFC 5280, ub-common-name.
COMMON_NAME_MAX = 64
_CURVES: dict[str, type[ec.EllipticCurve]] = {"ec-p256": ec.SECP256R1, "ec-p384": ec.SECP384R1}
_USAGES = {
    "server": (ExtendedKeyUsageOID.SERVER_AUTH,),
    "client": (ExtendedKeyUsageOID.CLIENT_AUTH,),
    "both": (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
}


@dataclass(frozen=True)
class Facts:
    """What a certificate says. `authority`: key identifier of who signed it (hex), empty when it does not say."""

    names: tuple[str, ...]
    common_name: str
    not_before: datetime
    not_after: datetime
    usage: str
    key_type: str
    spki: str
    fingerprint: str
    authority: str
    subject_key: str
    is_authority: bool


def _spki(public: CertificateIssuerPublicKeyTypes) -> str:
    data = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(data).hexdigest()


def _kind(public: object) -> str:
    if isinstance(public, rsa.RSAPublicKey):
        return f"rsa-{public.key_size}"
    if isinstance(public, ec.EllipticCurvePublicKey):
        return {"secp256r1": "ec-p256", "secp384r1": "ec-p384", "secp521r1": "ec-p521"}.get(
            public.curve.name, public.curve.name
        )
    return type(public).__name__.removesuffix("PublicKey").lstrip("_").lower()


def make_key(key_type: str) -> str:
    """A new private key: PKCS 8, PEM, unencrypted (its file's mode guards it)."""
    if key_type in _CURVES:
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = ec.generate_private_key(_CURVES[key_type]())
    elif key_type.startswith("rsa-") and int(key_type[4:]) >= 2048:
        key = rsa.generate_private_key(65537, int(key_type[4:]))
    else:
        raise CertificatesError(f"keys of type {key_type} are not made")
    return _private_pem(key, None)


def _private_pem(key: CertificateIssuerPrivateKeyTypes, passphrase: str | None) -> str:
    guard: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, guard).decode()


def load_key(pem: str, passphrase: str | None = None) -> CertificateIssuerPrivateKeyTypes:
    """A private key out of PEM text, or a CertificatesError."""
    try:
        key = serialization.load_pem_private_key(pem.encode(), passphrase.encode() if passphrase else None)
    except TypeError:
        raise CertificatesError(
            "the key is protected by a passphrase and none was given"
            if not passphrase
            else "the key has no passphrase but one was given"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        wrong = "the passphrase is wrong or the key is damaged" if passphrase else "the key is damaged"
        raise CertificatesError(wrong) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise CertificatesError(f"keys of type {type(key).__name__} are not used here")
    return key


def key_facts(pem: str) -> tuple[str, str]:
    """Type and SPKI SHA-256 (hex) of a private key."""
    public = load_key(pem).public_key()
    return _kind(public), _spki(public)


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    return [x509.IPAddress(ipaddress.ip_address(name)) if is_address(name) else x509.DNSName(name) for name in names]


def _subject(names: Sequence[str]) -> x509.Name:
    first = names[0] if names else ""
    if not first or len(first) > COMMON_NAME_MAX:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, first)])


def make_request(key_pem: str, names: Sequence[str]) -> str:
    """A signing request (PKCS 10, PEM) for names, with proof that whoever asks holds the key."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(names))
    builder = builder.add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
    return builder.sign(load_key(key_pem), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _read(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem.encode())[0]
    except ValueError:
        raise CertificatesError("the certificate cannot be read") from None


def certificate_facts(pem: str) -> Facts:
    """What the first certificate in PEM text says."""
    certificate = _read(pem)
    try:
        names = tuple(
            str(name.value)
            for name in certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        )
    except x509.ExtensionNotFound:
        names = ()
    try:
        uses = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        uses = {ExtendedKeyUsageOID.SERVER_AUTH}
    server, client = ExtendedKeyUsageOID.SERVER_AUTH in uses, ExtendedKeyUsageOID.CLIENT_AUTH in uses
    try:
        authority = (
            certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
        )
    except x509.ExtensionNotFound:
        authority = b""
    try:
        own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        own = b""
    try:
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    public = certificate.public_key()
    return Facts(
        names=names,
        common_name=str(common[0].value) if common else "",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        usage="both" if server and client else "client" if client else "server",
        key_type=_kind(public),
        spki=_spki(public),  # type: ignore[arg-type]
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        authority=authority.hex(),
        subject_key=own.hex(),
        is_authority=is_authority,
    )


def split_bundle(pem: str) -> list[str]:
    """The certificates of a bundle, each as PEM text in one normal form."""
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise CertificatesError("the bundle holds no certificate that can be read") from None
    return [certificate.public_bytes(serialization.Encoding.PEM).decode() for certificate in found]


def _seconds(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


def self_signed(key_pem: str, names: Sequence[str], lifetime: timedelta, now: datetime) -> str:
    """A certificate that a key signs for itself: what a service starts with when its issuer has not answered yet."""
    key = load_key(key_pem)
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(names))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "placeholder until the first certificate")]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_seconds(now - BACKDATE))
        .not_valid_after(_seconds(now + lifetime))
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=not list(_subject(names)))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def make_authority(
    title: str,
    key_type: str,
    lifetime: timedelta,
    *,
    permitted: Sequence[str],
    passphrase: str | None,
    now: datetime,
) -> tuple[str, str]:
    """A new site CA: (private key PEM, certificate PEM).

    `permitted`: domains that it may sign names in; none means any.
    """
    key = load_key(make_key(key_type))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title[:COMMON_NAME_MAX])])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_seconds(now - BACKDATE))
        .not_valid_after(_seconds(now + lifetime))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(identifier.digest, None, None), critical=False)
    )
    if permitted:
        trees = [x509.DNSName(domain.removeprefix(".")) for domain in permitted]
        builder = builder.add_extension(
            x509.NameConstraints(permitted_subtrees=trees, excluded_subtrees=None), critical=True
        )
    certificate = builder.sign(key, hashes.SHA256())
    return _private_pem(key, passphrase), certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_usage(authority: bool, encipherment: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def outside_constraints(ca_pem: str, names: Sequence[str]) -> list[str]:
    """Those of the names that a CA's name constraints do not permit (RFC 5280 4.2.1.10)."""
    try:
        constraints = _read(ca_pem).extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return []
    trees = [str(tree.value) for tree in constraints.permitted_subtrees or () if isinstance(tree, x509.DNSName)]
    bare = {name: name.removeprefix("*.") for name in names if not is_address(name)}
    return [name for name, host in bare.items() if not any(host == tree or host.endswith(f".{tree}") for tree in trees)]


def sign_request(
    request_pem: str,
    names: Sequence[str],
    usage: str,
    *,
    ca_pem: str,
    ca_key: CertificateIssuerPrivateKeyTypes,
    lifetime: timedelta,
    now: datetime,
) -> str:
    """A certificate (PEM) for the key of a request.

    Only the key is taken from the request, after its proof of possession was checked; names, use and dates come from
    the control node. A certificate never outlives its CA.
    """
    try:
        request = x509.load_pem_x509_csr(request_pem.encode())
        proven = request.is_signature_valid
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        raise CertificatesError("the machine's signing request cannot be read") from None
    if not proven:
        raise CertificatesError("the machine's signing request is not signed by its own key")
    authority = _read(ca_pem)
    if authority.public_key() != ca_key.public_key():
        raise CertificatesError("the site CA's key does not belong to its certificate")
    if outside := outside_constraints(ca_pem, names):
        raise CertificatesError(
            f"the site CA may not sign {', '.join(outside)}: its name constraints do not permit them"
        )
    end = min(_seconds(now + lifetime), authority.not_valid_after_utc)
    if end <= now:
        raise CertificatesError(f"the site CA expired on {authority.not_valid_after_utc:%Y-%m-%d}")
    public = request.public_key()
    subject = _subject(names)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(_seconds(now - BACKDATE), authority.not_valid_before_utc))
        .not_valid_after(end)
        # RFC 5280 4.1.2.6: without a subject the names must be critical.
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=not list(subject))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False, encipherment=isinstance(public, rsa.RSAPublicKey)), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USAGES[usage]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
    )
    return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
