# SPDX-License-Identifier: GPL-3.0-or-later
"""The DNS records that a site needs, as zone lines. Pure: facts in, records out.

Facts:

machine   {"name": "m1.bouwsteen.example", "addresses": ["192.0.2.1", "2001:db8::1"], "tlsa": ["3 1 1 HEX", ...]}
          A mail machine. `tlsa` as role certificates gives it; empty for a placeholder certificate.
domain    {"name", "kind": "customer" | "probe", "alias_of": str | None, "customer", "reseller", "reseller_domain",
           "engineer", "machine": str | None, "keys": [{"selector", "algorithm", "public_key", "state"}]}
          One of a customer's domains; without a machine, the only mail machine serves it.
reseller  {"name", "domain", "engineer", "machine", "groupware": str | None}
          `machine` and `groupware` are his machines for mail and groupware; None where there is one of the kind.

Groupware machines are like mail machines; a site without any has no records for groupware.

Sources: RFC 1035 (zone files), 2782 and 6186 and 8314 (SRV), 5804 (sieve), 6376 (DKIM), 6698 and 7672 (TLSA),
6764 (CalDAV and CardDAV), 7208 (SPF), 7489 (DMARC), 8460 (TLS reports), 8461 (MTA-STS), 8659 (CAA); Outlook's own
`_autodiscover._tcp` is in Microsoft's MS-OXDISCO 3.1.5.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TTL = 3600
# What people's programs look for, in the order in which they should take it: TLS from the start before STARTTLS.
SERVICES = (
    ("_imaps._tcp", 0, 993),
    ("_imap._tcp", 10, 143),
    ("_submissions._tcp", 0, 465),
    ("_submission._tcp", 10, 587),
    ("_sieve._tcp", 0, 4190),
)
# The names of a reseller's web sites, and what people's programs look for in the domains of his customers.
WEB_NAMES = ("account", "autoconfig", "autodiscover", "webmail")
WEB_SERVICES = (
    ("_autodiscover._tcp", "autodiscover"),
    ("_caldavs._tcp", "webmail"),
    ("_carddavs._tcp", "webmail"),
)
# Programs that ask no SRV records guess these names below the domain of an address.
GUESSED_NAMES = ("autoconfig", "autodiscover")
DAV_PATH = "/SOGo/dav/"
# A character-string of a TXT record holds 255 bytes (RFC 1035 3.3.14).
TXT_PART = 255
POLICIES = ("none", "quarantine", "reject")
# Selectors whose key has to be in DNS: the one that signs now, the one that will, and the one that mail under way has.
PUBLISHED = ("active", "next", "retired")


class RecordError(ValueError):
    """Facts that no record can be made of."""


@dataclass(frozen=True, order=True)
class Record:
    """One record. `name` and names in `value` are complete and end in a dot; `value` is in zone file form."""

    name: str
    type: str
    value: str
    ttl: int = field(default=TTL, compare=False)

    def __str__(self) -> str:
        return f"{self.name} {self.ttl} IN {self.type} {self.value}"


@dataclass(frozen=True)
class Settings:
    """What a site chooses. `dmarc`: policy of its domains. `caa`: CAs that may issue for service names, () prints none.

    `mta_sts`: print the MTA-STS record, once a web server serves the policy file; `mta_sts_id` changes with the policy.
    """

    ttl: int = TTL
    dmarc: str = "quarantine"
    caa: tuple[str, ...] = ()
    mta_sts: bool = False
    mta_sts_id: str = "1"


def dotted(name: str) -> str:
    """A complete name, as zone files write it."""
    return name.rstrip(".").lower() + "."


def text(value: str) -> str:
    """The value of a TXT record: quoted, in parts of at most 255 bytes.

    >>> text('v=spf1 -all')
    '"v=spf1 -all"'
    """
    raw = value.encode("utf-8")
    parts = [raw[start : start + TXT_PART] for start in range(0, len(raw), TXT_PART)] or [b""]
    return " ".join(f'"{"".join(_escaped(byte) for byte in part)}"' for part in parts)


def _escaped(byte: int) -> str:
    character = chr(byte)
    if character in '"\\':
        return "\\" + character
    return character if 32 <= byte < 127 else f"\\{byte:03d}"


def address(name: str, value: str, ttl: int) -> Record:
    """An A or AAAA record."""
    try:
        parsed = ipaddress.ip_address(value)
    except ValueError as error:
        raise RecordError(f"{name}: {value} is no IP address") from error
    return Record(dotted(name), "A" if parsed.version == 4 else "AAAA", str(parsed), ttl)


def tlsa(value: str) -> str:
    """A TLSA value in one form: `3 1 1 hex`."""
    found = re.fullmatch(r"\s*([0-3])\s+([01])\s+([0-2])\s+([0-9A-Fa-f\s]+)", value)
    if not found:
        raise RecordError(f"{value} is no TLSA value; allowed: 3 1 1 HEX")
    return f"{found[1]} {found[2]} {found[3]} {''.join(found[4].split()).lower()}"


def dkim(key: Mapping[str, Any]) -> str:
    """The text of a key record (RFC 6376 3.6.1)."""
    public = "".join(str(key["public_key"]).split())
    try:
        base64.b64decode(public, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RecordError(f"public key of selector {key['selector']} is no base64") from error
    return f"v=DKIM1; k={key.get('algorithm') or 'rsa'}; p={public}"


def machine_records(machine: Mapping[str, Any], settings: Settings) -> list[Record]:
    """What stands for a mail machine's own, neutral name."""
    name = machine["name"]
    records = [address(name, value, settings.ttl) for value in machine["addresses"]]
    records += [Record(f"_25._tcp.{dotted(name)}", "TLSA", tlsa(value), settings.ttl) for value in machine["tlsa"]]
    # The name says HELO and sends bounces; nobody has an address there.
    records.append(Record(dotted(name), "TXT", text("v=spf1 a -all"), settings.ttl))
    # Envelope senders of what it forwards (SRS): it sends for them, and takes their bounces.
    records.append(Record(f"srs.{dotted(name)}", "MX", f"10 {dotted(name)}", settings.ttl))
    records.append(Record(f"srs.{dotted(name)}", "TXT", text(f"v=spf1 a:{name} -all"), settings.ttl))
    records += [Record(dotted(name), "CAA", f'0 issue "{issuer}"', settings.ttl) for issuer in settings.caa]
    return records


def reseller_records(
    reseller: Mapping[str, Any], machine: Mapping[str, Any], domains: Iterable[str], settings: Settings
) -> list[Record]:
    """What stands in a reseller's own domain: the name that his people's programs use, and who may send for him.

    `domains`: his customers' domains, which report to his engineer's domain (RFC 7489 7.1).
    """
    own, ttl = dotted(reseller["domain"]), settings.ttl
    records = [address(f"mail.{own}", value, ttl) for value in machine["addresses"]]
    records += [Record(f"mail.{own}", "CAA", f'0 issue "{issuer}"', ttl) for issuer in settings.caa]
    senders = [f"ip{ipaddress.ip_address(value).version}:{value}" for value in machine["addresses"]]
    records.append(Record(f"_spf.{own}", "TXT", text(" ".join(["v=spf1", *senders, "-all"])), ttl))
    reports = dotted(str(reseller["engineer"]).rpartition("@")[2])
    records += [
        Record(f"{dotted(domain)}_report._dmarc.{reports}", "TXT", text("v=DMARC1"), ttl)
        for domain in sorted(domains)
        if not f".{dotted(domain)}".endswith(f".{reports}")
    ]
    return records


def domain_records(domain: Mapping[str, Any], machine: Mapping[str, Any], settings: Settings) -> list[Record]:
    """What stands in a customer's domain."""
    own, ttl = dotted(domain["name"]), settings.ttl
    reseller = dotted(domain["reseller_domain"])
    report = f"mailto:{domain['engineer']}"
    records = [
        Record(own, "MX", f"10 {dotted(machine['name'])}", ttl),
        # By way of the reseller's domain: when machines change, his customers' zones stay as they are.
        Record(own, "TXT", text(f"v=spf1 include:_spf.{reseller.rstrip('.')} -all"), ttl),
        Record(f"_dmarc.{own}", "TXT", text(f"v=DMARC1; p={settings.dmarc}; rua={report}"), ttl),
        Record(f"_smtp._tls.{own}", "TXT", text(f"v=TLSRPTv1; rua={report}"), ttl),
    ]
    records += [
        Record(f"{key['selector']}._domainkey.{own}", "TXT", text(dkim(key)), ttl)
        for key in domain["keys"]
        if key.get("state", "active") in PUBLISHED
    ]
    if settings.mta_sts:
        records.append(Record(f"_mta-sts.{own}", "TXT", text(f"v=STSv1; id={settings.mta_sts_id}"), ttl))
    records += [
        Record(f"{service}.{own}", "SRV", f"{priority} 1 {port} mail.{reseller}", ttl)
        for service, priority, port in SERVICES
    ]
    return records


def groupware_machine_records(machine: Mapping[str, Any], settings: Settings) -> list[Record]:
    """What stands for a groupware machine's own, neutral name."""
    name = machine["name"]
    records = [address(name, value, settings.ttl) for value in machine["addresses"]]
    return records + [Record(dotted(name), "CAA", f'0 issue "{issuer}"', settings.ttl) for issuer in settings.caa]


def groupware_reseller_records(
    reseller: Mapping[str, Any], machine: Mapping[str, Any], settings: Settings
) -> list[Record]:
    """The names of a reseller's web sites."""
    records = []
    for site in WEB_NAMES:
        name = f"{site}.{dotted(reseller['domain'])}"
        records += [address(name, value, settings.ttl) for value in machine["addresses"]]
        records += [Record(name, "CAA", f'0 issue "{issuer}"', settings.ttl) for issuer in settings.caa]
    return records


def groupware_domain_records(domain: Mapping[str, Any], settings: Settings) -> list[Record]:
    """With what programs find calendars, contacts and their own settings, in a customer's domain."""
    own, reseller, ttl = dotted(domain["name"]), dotted(domain["reseller_domain"]), settings.ttl
    records = [Record(f"{service}.{own}", "SRV", f"0 1 443 {site}.{reseller}", ttl) for service, site in WEB_SERVICES]
    records += [
        Record(f"{service}.{own}", "TXT", text(f"path={DAV_PATH}"), ttl)
        for service, site in WEB_SERVICES
        if site == "webmail"
    ]
    return records + [Record(f"{guess}.{own}", "CNAME", f"{guess}.{reseller}", ttl) for guess in GUESSED_NAMES]


def machine_facts(variables: Mapping[str, Any]) -> dict[str, Any]:
    """A machine of a host's variables: gathered facts and what module `certificates` read (`__dns_certificates`).

    `dns_addresses` beats the addresses of the default routes; those of a link alone (fe80::) are of no use outside.
    """
    name = variables["inventory_hostname"]
    facts = variables.get("ansible_facts") or {}
    addresses = list(variables.get("dns_addresses") or [])
    if not addresses:
        found = [(facts.get(key) or {}).get("address") for key in ("default_ipv4", "default_ipv6")]
        # A closed network has addresses without a default route.
        found[1] = found[1] or next(iter(sorted(facts.get("all_ipv6_addresses") or [], key=_linked)), None)
        addresses = [value for value in found if value and not _linked(value)]
    if not addresses:
        raise RecordError(f"{name}: no address is known; set dns_addresses")
    read = variables.get("__dns_certificates") or {}
    held = [item for item in read.get("certificates", []) if item["name"] == name]
    return {"name": name, "addresses": addresses, "tlsa": list(held[0]["tlsa"]) if held else []}


def _linked(value: str) -> bool:
    return ipaddress.ip_address(value).is_link_local


def machine_of(
    placed: str | None, machines: Mapping[str, Mapping[str, Any]], who: str, function: str = "mail"
) -> Mapping[str, Any]:
    """The machine of a reseller for a function: the one of his placement, or the only one."""
    if placed and placed in machines:
        return machines[placed]
    if placed:
        raise RecordError(f"{who}: {function} machine {placed} is not among {', '.join(sorted(machines))}")
    if len(machines) == 1:
        return next(iter(machines.values()))
    raise RecordError(
        f"{who}: no {function} machine is named, and there are {len(machines)}; set reseller_machines.{function}"
    )


def fragments(
    machines: Sequence[Mapping[str, Any]],
    resellers: Sequence[Mapping[str, Any]],
    domains: Sequence[Mapping[str, Any]],
    settings: Settings,
    groupware: Sequence[Mapping[str, Any]] = (),
) -> dict[str, list[Record]]:
    """Records by the domain that they belong to: of each machine (by its name), reseller and customer's domain.

    `machines` are those of mail, `groupware` those of groupware; often they are the same.
    """
    if settings.dmarc not in POLICIES:
        raise RecordError(f"DMARC policy {settings.dmarc}; allowed: {', '.join(POLICIES)}")
    by_name = {machine["name"]: machine for machine in machines}
    result: dict[str, list[Record]] = {}
    for machine in machines:
        result[machine["name"]] = machine_records(machine, settings)
    for reseller in resellers:
        mine = [domain["name"] for domain in domains if domain["reseller"] == reseller["name"]]
        place = machine_of(reseller.get("machine"), by_name, reseller["name"])
        result.setdefault(reseller["domain"], []).extend(reseller_records(reseller, place, mine, settings))
    for domain in domains:
        place = machine_of(domain.get("machine"), by_name, domain["name"])
        result.setdefault(domain["name"], []).extend(domain_records(domain, place, settings))
    if groupware:
        web = {machine["name"]: machine for machine in groupware}
        for machine in groupware:
            result.setdefault(machine["name"], []).extend(groupware_machine_records(machine, settings))
        for reseller in resellers:
            place = machine_of(reseller.get("groupware"), web, reseller["name"], "groupware")
            result[reseller["domain"]].extend(groupware_reseller_records(reseller, place, settings))
        for domain in domains:
            result[domain["name"]].extend(groupware_domain_records(domain, settings))
    # Beside an alias there is nothing else (RFC 1034 3.6.2): a reseller who is his own customer has the name itself.
    taken = {record.name for records in result.values() for record in records if record.type != "CNAME"}
    return {
        name: sorted({record for record in records if record.type != "CNAME" or record.name not in taken})
        for name, records in sorted(result.items())
    }


def zone_text(records: Iterable[Record]) -> str:
    """Zone lines, one a record."""
    return "".join(f"{record}\n" for record in records)


# ------------------------------------------------------------------------------------------------ compare


@dataclass(frozen=True, order=True)
class Difference:
    """What DNS answers beside what it should: `state` is ok, missing or wrong."""

    name: str
    type: str
    state: str
    wanted: tuple[str, ...] = ()
    found: tuple[str, ...] = ()

    def __str__(self) -> str:
        line = f"{self.state:7} {self.name} {self.type}"
        if self.state == "wrong":
            return f"{line}: found {' | '.join(self.found)}; wanted {' | '.join(self.wanted)}"
        return line if self.state == "ok" else f"{line}: wanted {' | '.join(self.wanted)}"


def _kind(record_type: str, value: str) -> str:
    """Which records at one name replace each other: of TXT, each `v=` tag has one; another one is somebody else's."""
    if record_type != "TXT":
        return ""
    found = re.match(r'"(path=|v=[A-Za-z0-9]+)', value)
    return found[1].lower() if found else value


def compare(records: Iterable[Record], answers: Mapping[tuple[str, str], Sequence[str]]) -> list[Difference]:
    """What is missing or wrong. `answers`: (name, type) -> values that DNS gives now, in zone file form.

    Values of the same name and type that this site knows nothing of are wrong where they compete (MX, addresses, SRV,
    a second SPF record), and none of our business where they do not (another TXT, a further CAA).
    """
    wanted: dict[tuple[str, str, str], set[str]] = {}
    for record in records:
        wanted.setdefault((record.name, record.type, _kind(record.type, record.value)), set()).add(record.value)
    result = []
    for (name, record_type, kind), values in sorted(wanted.items()):
        given = answers.get((name, record_type), ())
        found = {value for value in given if _kind(record_type, value) == kind}
        if record_type == "CAA":
            found &= values
        if found == values:
            state = "ok"
        elif not found:
            state = "missing"
        else:
            state = "wrong"
        result.append(Difference(name, record_type, state, tuple(sorted(values)), tuple(sorted(found))))
    return result
