# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration profiles for Apple's devices, signed with the reseller's own certificate.

https://developer.apple.com/documentation/devicemanagement (payloads com.apple.mail.managed, caldav, carddav, eas).
"""

from __future__ import annotations

import plistlib
import uuid
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from portal.directory import Reseller

# Ids are made of names, so that a profile that is installed again replaces the one before.
NAMESPACE = uuid.UUID("6f0a7b62-2f4e-4a5c-9a6e-3a4f3d1c8b57")


def document(kind: str, address: str, reseller: Reseller) -> dict[str, Any]:
    """A profile without any password. `kind`: `dav` (IMAP, SMTP, CalDAV, CardDAV) or `activesync`."""
    reverse = ".".join(reversed(reseller.domain.split(".")))
    webmail, mail = f"webmail.{reseller.domain}", f"mail.{reseller.domain}"

    def payload(name: str, what: str, **values: Any) -> dict[str, Any]:
        identifier = f"{reverse}.{kind}.{name}.{address}"
        return {
            "PayloadType": what,
            "PayloadVersion": 1,
            "PayloadIdentifier": identifier,
            "PayloadUUID": str(uuid.uuid5(NAMESPACE, identifier)).upper(),
            "PayloadDisplayName": f"{reseller.title} ({address})",
            **values,
        }

    def dav(name: str) -> dict[str, Any]:
        prefix = "CalDAV" if name == "caldav" else "CardDAV"
        values = {"HostName": webmail, "Port": 443, "UseSSL": True, "Username": address,
                  "AccountDescription": f"{reseller.title} ({address})"}  # fmt: skip
        return payload(name, f"com.apple.{name}.account", **{prefix + key: value for key, value in values.items()})

    def server(direction: str, port: int) -> dict[str, Any]:
        values = {"HostName": mail, "PortNumber": port, "UseSSL": True, "Username": address,
                  "Authentication": "EmailAuthPassword"}  # fmt: skip
        return {f"{direction}MailServer{key}": value for key, value in values.items()}

    if kind == "activesync":
        content = [
            payload(
                "eas", "com.apple.eas.account", Host=webmail, SSL=True, EmailAddress=address, UserName=address,
                MailNumberOfPastDaysToSync=0,
            )
        ]  # fmt: skip
    else:
        content = [
            payload(
                "mail", "com.apple.mail.managed", EmailAccountType="EmailTypeIMAP", EmailAddress=address,
                EmailAccountDescription=f"{reseller.title} ({address})", OutgoingPasswordSameAsIncomingPassword=True,
                SMIMEEnabled=False, **server("Incoming", 993), **server("Outgoing", 465),
            ),
            dav("caldav"),
            dav("carddav"),
        ]  # fmt: skip
    return {
        **payload("profile", "Configuration"),
        "PayloadOrganization": reseller.title,
        "PayloadDescription": f"{reseller.title}: {address}",
        "PayloadContent": content,
    }


def signed(profile: dict[str, Any], certificates: str, reseller: Reseller) -> bytes:
    """The profile as CMS (RFC 5652) in DER, with the whole chain, as devices want it."""
    folder = Path(certificates) / f"webmail.{reseller.domain}"
    chain = x509.load_pem_x509_certificates((folder / "fullchain.pem").read_bytes())
    key = serialization.load_pem_private_key((folder / "privkey.pem").read_bytes(), None)
    builder = pkcs7.PKCS7SignatureBuilder().set_data(plistlib.dumps(profile))
    builder = builder.add_signer(chain[0], key, hashes.SHA256())  # type: ignore[arg-type]
    for certificate in chain[1:]:
        builder = builder.add_certificate(certificate)
    return builder.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])
