# SPDX-License-Identifier: GPL-3.0-or-later
"""What roles mail and resolver refuse before they touch a machine: settings that cannot be meant. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

# Numbers that may be 0: no limit, at once.
MAY_BE_ZERO = {"mail_sent_per_hour", "mail_login_failure_delay"}
SCORES = ("mail_spam_greylist_score", "mail_spam_junk_score", "mail_spam_refuse_score")
# `name DS 12345 13 2 hex` or `name DNSKEY 257 3 13 base64`, with or without TTL and class.
ANCHOR = re.compile(
    r"\S+\s+(\d+\s+)?(IN\s+)?(DS\s+\d+\s+\d+\s+\d+\s+[0-9A-Fa-f ]+|DNSKEY\s+257\s+3\s+\d+\s+[A-Za-z0-9+/= ]+)", re.I
)


def unknown(role: str, names: Iterable[str], known: Iterable[str]) -> list[str]:
    """A misspelt variable is a setting that would silently not be made."""
    strange = sorted(set(names) - set(known))
    if not strange:
        return []
    return [f"role {role} does not know {', '.join(strange)}; its variables are listed in roles/{role}/README.md"]


def mail(values: Mapping[str, Any], names: Iterable[str], known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why role mail must not go on, one line each, every reason.

    `values`: its variables; `names`: variables of the host that begin with its prefix; `known`: its specification.
    """
    lines = unknown("mail", names, known)
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", str(values["mail_engineer"])):
        lines.append(f"mail_engineer: {values['mail_engineer']} is no mail address")
    for name, option in known.items():
        if option.get("type") == "int":
            least = 0 if name in MAY_BE_ZERO else 1
            if int(values[name]) < least:
                lines.append(f"{name}: {values[name]} is below {least}")
    scores = [int(values[name]) for name in SCORES]
    if sorted(set(scores)) != scores:
        lines.append(f"{', '.join(SCORES)} must grow in this order (found {', '.join(map(str, scores))})")
    wrong = [str(percent) for percent in values["mail_quota_warnings"] if not 0 < int(percent) < 100]
    if wrong:
        lines.append(f"mail_quota_warnings: {', '.join(wrong)} is no percentage from 1 to 99")
    for key in ("name", "domain"):
        several = [reseller[key] for reseller in values["mail_resellers"]]
        lines += [
            f"mail_resellers: {key} {value} is there twice"
            for value in sorted({v for v in several if several.count(v) > 1})
        ]
    return lines


def _address(value: str) -> bool:
    """Whether this is an IP address, with or without @port and #name."""
    host, _, port = value.partition("#")[0].partition("@")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return not port or (port.isdigit() and 0 < int(port) < 65536)


def resolver(values: Mapping[str, Any], names: Iterable[str], known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why role resolver must not go on; parameters as for `mail`."""
    lines = unknown("resolver", names, known)
    servers = list(values["resolver_forwarders"])
    for zone in values["resolver_zones"]:
        servers += zone["addresses"]
        if not zone["addresses"]:
            lines.append(f"resolver_zones: {zone['name']} has no addresses")
    lines += [f"{server} is no address of a DNS server" for server in servers if not _address(server)]
    if values["resolver_forwarders_tls"]:
        lines += [
            f"resolver_forwarders: {server} has no #name, which the certificate is checked with"
            for server in values["resolver_forwarders"]
            if "#" not in server
        ]
    anchors = [line.partition(";")[0].strip() for line in values["resolver_trust_anchors"]]
    lines += [
        f"resolver_trust_anchors: {line} is no DS or DNSKEY record"
        for line in anchors
        if line and not ANCHOR.fullmatch(line)
    ]
    if int(values["resolver_cache_mib"]) < 1:
        lines.append(f"resolver_cache_mib: {values['resolver_cache_mib']} is below 1")
    return lines
