# SPDX-License-Identifier: GPL-3.0-or-later
"""The site CA in a folder of the control node.

    ca.key        0600  the private key, under a passphrase if one is given
    ca.pem        0644  its certificate
    trusted/*.pem 0644  further roots that machines trust: the next one before it signs, the previous one after it did
    issued.jsonl  0600  what was signed: one JSON object a line
    lock                machines are handled in parallel; making the CA and writing the list happen one at a time

There is no counter and no index that could get lost: serial numbers are random (RFC 5280 4.1.2.2).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import certificates_x509 as x509
from ansible_collections.bouwsteen.hosting.plugins.module_utils.certificates import CertificatesError, stamp_text


@dataclass(frozen=True)
class AuthoritySettings:
    """How the site CA is made, once, and where it is kept on the control node.

    `permitted`: domains whose names it may sign; none means any.
    """

    directory: Path
    title: str
    key_type: str = "ec-p256"
    lifetime_days: int = 3650
    permitted: tuple[str, ...] = ()
    passphrase: str | None = None


@dataclass(frozen=True)
class Roots:
    """The certificate that signs now (PEM), its key identifier (hex), and all roots to be trusted.

    In `trusted` the one that signs comes first.
    """

    certificate: str
    identifier: str
    trusted: tuple[str, ...]


def _put(path: Path, text: str, mode: int) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(temporary).replace(path)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read(settings: AuthoritySettings) -> Roots | None:
    """The roots, or None when the CA has not been made."""
    directory = settings.directory
    certificate, key = directory / "ca.pem", directory / "ca.key"
    if not certificate.exists() and not key.exists():
        return None
    if not key.exists() or not certificate.exists():
        missing = key if not key.exists() else certificate
        raise CertificatesError(f"the site CA is incomplete: {missing} is missing; restore it from your backup")
    if key.stat().st_mode & 0o077:
        raise CertificatesError(f"{key} may be read by others; chmod 0600 it, and replace the CA if somebody did")
    try:
        signing = x509.split_bundle(certificate.read_text())[0]
        others = [
            one for path in sorted((directory / "trusted").glob("*.pem")) for one in x509.split_bundle(path.read_text())
        ]
    except CertificatesError as error:
        raise CertificatesError(f"{directory}: {error}") from None
    facts = x509.certificate_facts(signing)
    if not facts.is_authority:
        raise CertificatesError(f"{certificate} is not a CA's certificate")
    return Roots(signing, facts.subject_key, tuple(dict.fromkeys([signing, *others])))


def ensure(settings: AuthoritySettings, now: datetime) -> tuple[Roots, bool]:
    """The roots; the CA is made if there is none. The second value tells whether it was."""
    settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(settings.directory):
        waiting = settings.directory / "ca.key.new"
        if (
            (settings.directory / "ca.pem").exists()
            and not (settings.directory / "ca.key").exists()
            and waiting.exists()
        ):
            # A run was killed between the last two steps below.
            waiting.replace(settings.directory / "ca.key")
        if found := read(settings):
            return found, False
        lifetime = timedelta(days=settings.lifetime_days)
        key, certificate = x509.make_authority(
            settings.title,
            settings.key_type,
            lifetime,
            permitted=settings.permitted,
            passphrase=settings.passphrase,
            now=now,
        )
        _put(settings.directory / "ca.key.new", key, 0o600)
        _put(settings.directory / "ca.pem.new", certificate, 0o644)
        (settings.directory / "ca.pem.new").replace(settings.directory / "ca.pem")
        (settings.directory / "ca.key.new").replace(settings.directory / "ca.key")
    made = read(settings)
    if made is None:
        raise CertificatesError(f"the site CA cannot be read back from {settings.directory}")
    return made, True


def sign(
    settings: AuthoritySettings,
    machine: str,
    requests: Mapping[str, Mapping[str, Any]],
    lifetime: timedelta,
    now: datetime | None = None,
) -> dict[str, str]:
    """Certificates (PEM) for a machine's requests: {name: {"request": PEM, "names": [...], "usage": ...}}.

    `names` and `usage` must come from the inventory, never from the machine.
    """
    moment = now or datetime.now(UTC)
    roots = read(settings)
    if roots is None:
        raise CertificatesError(f"there is no site CA in {settings.directory}")
    file = settings.directory / "ca.key"
    try:
        key = x509.load_key(file.read_text(), settings.passphrase)
    except CertificatesError as error:
        raise CertificatesError(f"{file}: {error} (certificates_ca_passphrase)") from None
    signed: dict[str, str] = {}
    for name, request in requests.items():
        names: Sequence[str] = request["names"]
        try:
            signed[name] = x509.sign_request(
                request["request"],
                names,
                request["usage"],
                ca_pem=roots.certificate,
                ca_key=key,
                lifetime=lifetime,
                now=moment,
            )
        except CertificatesError as error:
            raise CertificatesError(f"{machine}, certificate {name}: {error}") from None
    lines = []
    for name, pem in signed.items():
        facts = x509.certificate_facts(pem)
        record = {
            "signed": stamp_text(moment),
            "machine": machine,
            "name": name,
            "names": list(facts.names),
            "usage": facts.usage,
            "not_after": stamp_text(facts.not_after),
            "fingerprint": facts.fingerprint,
            "spki_sha256": facts.spki,
        }
        lines.append(json.dumps(record))
    with _locked(settings.directory), (settings.directory / "issued.jsonl").open("a") as file_out:
        os.fchmod(file_out.fileno(), 0o600)
        file_out.write("".join(f"{line}\n" for line in lines))
    return signed
