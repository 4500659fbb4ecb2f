# SPDX-License-Identifier: GPL-3.0-or-later
"""What should happen to a machine's certificates. No input, no output, no cryptography: facts in, decisions out.

Two issuers stand behind one interface: `site_ca`, whose key lies on the control node, and `acme`, a server that asks
the machine to prove its names. A certificate of either sort is a key that stays on the machine, a signing request, and
an answer.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

ISSUERS = ("site_ca", "acme")
PLACEHOLDER = "placeholder"
USAGES = ("server", "client", "both")
KEY_TYPES = ("ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096")
# Days that a placeholder lives: long enough for a weekend, short enough to be noticed.
PLACEHOLDER_DAYS = 7
# A placeholder is made anew before it ends, so that services keep a certificate while its issuer refuses.
PLACEHOLDER_RENEW_DAYS = 2
# A root that ends within this many days should be replaced; clients need the time to learn of the next one.
ROOT_WARN_DAYS = 180
LOOK = "bouwsteen-certificates status; journalctl -u bouwsteen-certificates; docs/certificates.md"

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
_UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.@\\-]*")


class CertificatesError(Exception):
    """A message for the operator: what is wrong and what to do."""


@dataclass(frozen=True)
class Wanted:
    """One certificate as the site wants it.

    `names`: host names in A-label form, or IP addresses; the first is the common name.
    """

    name: str
    names: tuple[str, ...]
    issuer: str
    services: tuple[str, ...] = ()
    usage: str = "server"
    key_type: str = "ec-p256"
    key_generation: int = 1


@dataclass(frozen=True)
class Present:
    """A certificate that is in its place, with a key that fits it.

    `issuer`: site_ca, acme or placeholder; `issuer_id`: key identifier of the CA (hex) or the ACME directory's URL;
    `spki`: SHA-256 of the public key's SubjectPublicKeyInfo (hex, RFC 6698 selector 1); `installed`: when it was put
    there.
    """

    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    usage: str
    key_type: str
    key_generation: int
    spki: str
    fingerprint: str
    issuer: str
    issuer_id: str
    installed: datetime


@dataclass(frozen=True)
class Broken:
    """Something is in the certificate's place, but no service could use it."""

    reason: str
    key_usable: bool


@dataclass(frozen=True)
class NextKey:
    """A key that waits for its turn; its hash is published until then."""

    key_type: str
    key_generation: int
    spki: str
    made: datetime


@dataclass(frozen=True)
class Policy:
    """When to act. Percentages are of a certificate's whole lifetime.

    `rollover_days` is how long a next key's hash is published before the key is used.
    """

    renew_percent: int = 33
    warn_days: int = 30
    rollover_days: int = 2


@dataclass(frozen=True)
class Step:
    """What happens to one certificate. `action`: keep, issue, or publish_key (make the next key, say its hash, wait).

    `key`: which key the request is made with: current, next (made earlier), new (made now).
    `publish`: why a next key is made besides; an issue for another reason does not wait for it.
    `withdraw`: a key that waited is not wanted any more and goes; its hash need not be published.
    """

    wanted: Wanted
    action: str
    reasons: tuple[str, ...] = ()
    key: str = "current"
    publish: tuple[str, ...] = ()
    withdraw: bool = False


# --- what the operator wrote ------------------------------------------------------------------------------------------


def host_name_problem(name: str) -> str | None:
    """What is wrong with a name for a certificate, else None.

    Good are host names (RFC 1123), these with one wildcard label in front, and IP addresses.
    """
    try:
        ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        return None
    if not name.isascii():
        return "has letters outside ASCII; write its A-label form (xn--...)"
    if name != name.lower():
        return "has capitals; host names are written in small letters"
    bare = name.removeprefix("*.")
    if len(bare) > 253 or "." not in bare or not all(_LABEL.fullmatch(label) for label in bare.split(".")):
        return "is not a full host name"
    return None


def is_address(name: str) -> bool:
    """Whether a name in a certificate is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def canonical(name: str) -> str:
    """One spelling of a name, so that what is wanted and what is there can be compared."""
    return str(ipaddress.ip_address(name)) if is_address(name) else name


def parse_wanted(items: Sequence[Mapping[str, Any]], issuer: str, key_type: str, challenge: str) -> list[Wanted]:
    """The role's list as values, or one CertificatesError with everything that is wrong with it.

    `issuer` and `key_type` are the site's defaults; `challenge` is how names are proven to an ACME server.
    """
    problems: list[str] = []
    found: list[Wanted] = []
    seen: set[str] = set()
    for item in items:
        name = str(item["name"])
        where = f"certificates_wanted: {name}"
        names = tuple(dict.fromkeys(canonical(str(one)) for one in item["names"]))
        one = Wanted(
            name=name,
            names=names,
            issuer=str(item.get("issuer") or issuer),
            services=tuple(str(unit) for unit in item.get("services") or ()),
            usage=str(item.get("usage") or "server"),
            key_type=str(item.get("key_type") or key_type),
            key_generation=int(item.get("key_generation") or 1),
        )
        if not _FILE_NAME.fullmatch(name) or name == "site-ca.pem":
            problems.append(f"{where}: the name is also a folder's name: small letters, digits, '.', '_' and '-' only")
        if name in seen:
            problems.append(f"{where}: wanted twice")
        seen.add(name)
        if not names:
            problems.append(f"{where}: names: at least one is needed")
        problems += [f"{where}: names: {bad!r} {why}" for bad in names if (why := host_name_problem(bad))]
        problems += [
            f"{where}: services: {bad!r} is not a unit's name" for bad in one.services if not _UNIT.fullmatch(bad)
        ]
        for key, value, allowed in (
            ("issuer", one.issuer, ISSUERS),
            ("usage", one.usage, USAGES),
            ("key_type", one.key_type, KEY_TYPES),
        ):
            if value not in allowed:
                problems.append(f"{where}: {key}: {value!r} is unknown; allowed: {', '.join(allowed)}")
        if one.key_generation < 1:
            problems.append(f"{where}: key_generation: {one.key_generation} is below 1")
        if one.issuer == "acme":
            problems += [
                f"{where}: names: {bad!r} is an address; ACME is used for names only"
                for bad in names
                if is_address(bad)
            ]
            if challenge != "dns-01":
                problems += [
                    f"{where}: names: {bad!r} needs the challenge dns-01 (certificates_acme_challenge)"
                    for bad in names
                    if bad.startswith("*.")
                ]
            if one.usage != "server":
                problems.append(
                    f"{where}: usage: {one.usage!r} is for issuer site_ca only; public authorities sign servers"
                )
        found.append(one)
    if problems:
        raise CertificatesError("\n".join(sorted(problems)))
    return found


# --- decisions --------------------------------------------------------------------------------------------------------


def weak_key(key_type: str) -> bool:
    """Whether a key must not be used any longer: RSA below 2048 bits, or a curve that clients do not support."""
    kind, _, size = key_type.partition("-")
    if kind == "rsa":
        return not size.isdigit() or int(size) < 2048
    return key_type not in {"ec-p256", "ec-p384", "ec-p521"}


def days(span: timedelta) -> int:
    """Whole days in a span, rounded down."""
    return span // timedelta(days=1)


def percent_left(not_before: datetime, not_after: datetime, now: datetime) -> float:
    """How much of a lifetime is left, 0 to 100."""
    whole = (not_after - not_before).total_seconds()
    return max(0.0, min(100.0, 100 * (not_after - now).total_seconds() / whole)) if whole > 0 else 0.0


def expiry_reason(present: Present, policy: Policy, now: datetime) -> str | None:
    """Why a certificate should be renewed for its age, or None."""
    if present.not_after <= now:
        return f"expired on {present.not_after:%Y-%m-%d}"
    left = percent_left(present.not_before, present.not_after, now)
    if left >= policy.renew_percent:
        return None
    whole = days(present.not_after - present.not_before)
    return f"{days(present.not_after - now)} of {whole} days left, renewed below {policy.renew_percent} %"


def names_reason(wanted: Sequence[str], present: Sequence[str]) -> str | None:
    """How the names differ, or None. Their order does not count."""
    more = sorted(set(wanted) - set(present))
    less = sorted(set(present) - set(wanted))
    if not more and not less:
        return None
    return "names differ: " + ", ".join([f"+{name}" for name in more] + [f"-{name}" for name in less])


def plan_one(
    wanted: Wanted,
    present: Present | Broken | None,
    next_key: NextKey | None,
    issuer_ids: Mapping[str, str],
    policy: Policy,
    *,
    now: datetime,
    renew: bool = False,
    new_key: bool = False,
) -> Step:
    """The step for one certificate.

    `issuer_ids`: identity of each issuer as it is now (see Present.issuer_id). `renew`, `new_key`: the operator asked
    for it by name. A key is kept for as long as possible, because its hash stands in the DNS (TLSA records); a wish for
    another key is met in two steps, the second when the next key's hash has been published for `rollover_days`. A weak
    or lost key is replaced at once.
    """
    fits = next_key is not None and (next_key.key_type, next_key.key_generation) == (
        wanted.key_type,
        wanted.key_generation,
    )
    fresh = "next" if fits else "new"
    if present is None:
        return Step(wanted, "issue", ("there is no certificate yet",), fresh)
    if isinstance(present, Broken):
        return Step(wanted, "issue", (present.reason,), "current" if present.key_usable and not new_key else fresh)

    reasons: list[str] = []
    if present.issuer == PLACEHOLDER:
        reasons.append("a placeholder is in its place")
    elif present.issuer != wanted.issuer:
        reasons.append(f"issued by {present.issuer}, wanted {wanted.issuer}")
    elif present.issuer_id != issuer_ids.get(wanted.issuer, present.issuer_id):
        reasons.append(f"the issuer changed from {present.issuer_id} to {issuer_ids[wanted.issuer]}")
    if differ := names_reason(wanted.names, present.names):
        reasons.append(differ)
    # A public authority decides on its own which uses it signs besides the server's.
    if wanted.issuer == "site_ca" and present.issuer != PLACEHOLDER and present.usage != wanted.usage:
        reasons.append(f"it is for use as {present.usage}, wanted {wanted.usage}")
    if present.issuer != PLACEHOLDER and (old := expiry_reason(present, policy, now)):
        reasons.append(old)
    if renew:
        reasons.append("asked for in certificates_renew")

    if new_key:
        return Step(wanted, "issue", (*reasons, "a new key was asked for in certificates_new_key"), "new")
    if weak_key(present.key_type):
        return Step(wanted, "issue", (*reasons, f"its key is too weak ({present.key_type})"), fresh)
    other_key: list[str] = []
    if present.key_generation < wanted.key_generation:
        other_key.append(f"key generation {present.key_generation}, wanted {wanted.key_generation}")
    if present.key_type != wanted.key_type:
        other_key.append(f"key {present.key_type}, wanted {wanted.key_type}")
    if other_key and (policy.rollover_days == 0 or present.issuer == PLACEHOLDER):
        return Step(wanted, "issue", (*reasons, *other_key), fresh)
    if other_key and next_key is not None and fits and now - next_key.made >= timedelta(days=policy.rollover_days):
        return Step(wanted, "issue", (*reasons, *other_key), "next")
    publish = () if fits else tuple(other_key)
    # The operator thought better of another key.
    withdraw = next_key is not None and not other_key and next_key.spki != present.spki
    if reasons:
        return Step(wanted, "issue", tuple(reasons), "current", publish, withdraw)
    return Step(wanted, "publish_key" if publish else "keep", (), "current", publish, withdraw)


def plan(
    wanted: Iterable[Wanted],
    present: Mapping[str, Present | Broken | None],
    next_keys: Mapping[str, NextKey | None],
    issuer_ids: Mapping[str, str],
    policy: Policy,
    *,
    now: datetime,
    renew: Iterable[str] = (),
    new_key: Iterable[str] = (),
) -> list[Step]:
    """One step for every certificate that is wanted, in the order given.

    Names in `renew` and `new_key` that are not wanted here are an error: they are typed by hand.
    """
    items = list(wanted)
    again, keys = set(renew), set(new_key)
    known = {item.name for item in items}
    if unknown := sorted((again | keys) - known):
        raise CertificatesError(
            f"certificates_renew or certificates_new_key names what this machine does not have: {', '.join(unknown)};"
            f" it has: {', '.join(sorted(known)) or 'none'}"
        )
    return [
        plan_one(
            item,
            present.get(item.name),
            next_keys.get(item.name),
            issuer_ids,
            policy,
            now=now,
            renew=item.name in again,
            new_key=item.name in keys,
        )
        for item in items
    ]


# --- services: what they run with -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """A unit as systemd shows it. `started`: seconds since 1970, 0 when it never was active."""

    name: str
    exists: bool
    active: bool
    can_reload: bool
    invocation: str
    started: int


UNIT_PROPERTIES = "Id,LoadState,ActiveState,CanReload,InvocationID,ActiveEnterTimestamp"


def parse_units(text: str) -> list[Unit]:
    """Units in the output of `systemctl show --timestamp=unix` with the properties UNIT_PROPERTIES."""
    units = []
    for block in text.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" not in values:
            continue
        stamp = values.get("ActiveEnterTimestamp", "").removeprefix("@")
        units.append(
            Unit(
                name=values["Id"],
                exists=values.get("LoadState") == "loaded",
                active=values.get("ActiveState") in {"active", "reloading"},
                can_reload=values.get("CanReload") == "yes",
                invocation=values.get("InvocationID", ""),
                started=int(stamp) if stamp.isdigit() else 0,
            )
        )
    return units


def unit_name(service: str) -> str:
    """A service's full unit name, as systemd writes it in Id."""
    known = (".service", ".socket", ".target", ".timer", ".path", ".mount", ".slice", ".scope")
    return service if service.endswith(known) else f"{service}.service"


def service_action(
    unit: Unit, runs_with: Mapping[str, str], stamp: Mapping[str, Any] | None, changed: float
) -> tuple[str, str] | None:
    """What a service needs in order to run with its certificates: ("reload"|"restart", why), or None.

    `runs_with`: fingerprint of each of its certificates on disk. `stamp`: what was written after the last reload
    ({"invocation", "certificates"}). `changed`: when the newest of them was put there (seconds since 1970).
    A service that started after that has read them, whoever started it; one that is not running reads them when it
    starts.
    """
    if not unit.exists or not unit.active or not runs_with:
        return None
    if stamp and stamp.get("invocation") == unit.invocation:
        loaded = stamp.get("certificates", {})
        stale = sorted(name for name, digest in runs_with.items() if loaded.get(name) != digest)
        if not stale:
            return None
        why = f"it runs with an older certificate: {', '.join(stale)}"
    elif unit.started > changed:
        return None
    else:
        why = "it started before its certificate was put in place"
    return ("reload" if unit.can_reload else "restart", why)


def services_of(wanted: Iterable[Wanted]) -> dict[str, list[str]]:
    """Names of the certificates that each unit serves."""
    found: dict[str, list[str]] = {}
    for item in wanted:
        for service in item.services:
            found.setdefault(unit_name(service), []).append(item.name)
    return found


# --- what is said about it --------------------------------------------------------------------------------------------


def tlsa(spki: str | None) -> str | None:
    """TLSA data for a key: DANE-EE, SubjectPublicKeyInfo, SHA-256 (RFC 6698, RFC 7672 3.1.1)."""
    return f"3 1 1 {spki}" if spki else None


def stamp_text(moment: datetime) -> str:
    """A moment as RFC 3339 text in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_stamp(text: str) -> datetime:
    """The other way round."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def entry(wanted: Wanted, present: Present | Broken | None, next_key: NextKey | None) -> dict[str, Any]:
    """What other blocks and people may know of a certificate. No secrets."""
    real = present if isinstance(present, Present) else None
    placeholder = real is not None and real.issuer == PLACEHOLDER
    # Nobody looks up a client in the DNS, and a placeholder must not be believed.
    published = [real.spki, next_key.spki if next_key else None] if real and not placeholder else []
    if wanted.usage == "client":
        published = []
    return {
        "name": wanted.name,
        "names": list(real.names if real else ()),
        "services": list(wanted.services),
        "issuer": real.issuer if real else None,
        "not_before": stamp_text(real.not_before) if real else None,
        "not_after": stamp_text(real.not_after) if real else None,
        "placeholder": placeholder,
        "key_type": real.key_type if real else None,
        "key_generation": real.key_generation if real else None,
        "spki_sha256": real.spki if real else None,
        "next_spki_sha256": next_key.spki if real and next_key else None,
        "fingerprint": real.fingerprint if real else None,
        "tlsa": [record for key in published if (record := tlsa(key))],
    }


def warn_days(present: Present, policy: Policy) -> float:
    """Days before its end at which a certificate is a problem.

    The policy's, but at most a fifth of its lifetime: there are authorities that issue certificates for six days.
    """
    whole = (present.not_after - present.not_before).total_seconds() / 86400
    return min(float(policy.warn_days), whole / 5)


def problem(subject: str, found: str, wanted: str, look: str = LOOK) -> dict[str, str]:
    """One thing that is not as it should be, in the shape that verify prints."""
    return {"subject": subject, "found": found, "wanted": wanted, "look": look}


def problems_of(
    wanted: Wanted, present: Present | Broken | None, failure: str | None, policy: Policy, now: datetime
) -> list[dict[str, str]]:
    """What is wrong with one certificate now. `failure`: what its issuer said the last time, None when it went well."""
    subject = f"certificate {wanted.name}"
    cause = f"; {failure}" if failure else ""
    remedy = "run playbooks/certificates.yml" if wanted.issuer == "site_ca" else "bouwsteen-certificates run"
    if present is None:
        return [problem(subject, f"missing{cause}", f"a certificate of {wanted.issuer} ({remedy})")]
    if isinstance(present, Broken):
        return [problem(subject, f"{present.reason}{cause}", f"a certificate of {wanted.issuer} ({remedy})")]
    until = f"until {present.not_after:%Y-%m-%d}"
    if present.issuer == PLACEHOLDER:
        return [
            problem(
                subject, f"a self-signed placeholder {until}{cause}", f"a certificate of {wanted.issuer} ({remedy})"
            )
        ]
    left = present.not_after - now
    if left <= timedelta(0):
        return [problem(subject, f"expired on {present.not_after:%Y-%m-%d}{cause}", f"renewed in time ({remedy})")]
    if left < timedelta(days=warn_days(present, policy)):
        return [
            problem(
                subject, f"{days(left)} days left, {until}{cause}", f"renewed below {policy.renew_percent} % ({remedy})"
            )
        ]
    if failure:
        return [problem(subject, f"not renewed: {failure}; the old one is in service {until}", f"renewed ({remedy})")]
    return []


def root_problems(title: str, not_after: datetime, now: datetime) -> list[dict[str, str]]:
    """Whether a root of the site CA should be replaced."""
    if not_after - now >= timedelta(days=ROOT_WARN_DAYS):
        return []
    state = "expired" if not_after <= now else "ends"
    return [
        problem(
            f"site CA {title}",
            f"{state} on {not_after:%Y-%m-%d}",
            f"replaced {ROOT_WARN_DAYS} days before its end",
            "docs/certificates.md, Replacing the site CA",
        )
    ]


@dataclass
class Change:
    """A difference for `--diff`: a thing's name and its description before and after, as lines. No key material."""

    name: str
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    def as_diff(self) -> dict[str, str]:
        return {
            "before_header": self.name,
            "after_header": self.name,
            "before": "".join(f"{line}\n" for line in self.before),
            "after": "".join(f"{line}\n" for line in self.after),
        }


def describe(present: Present | Broken | None) -> list[str]:
    """A certificate that is there, as lines."""
    if present is None:
        return []
    if isinstance(present, Broken):
        return [f"broken: {present.reason}"]
    return [
        f"names: {' '.join(sorted(present.names))}",
        f"issuer: {present.issuer} {present.issuer_id}".rstrip(),
        f"usage: {present.usage}",
        f"ends: {present.not_after:%Y-%m-%d}",
        f"key: {present.key_type} generation {present.key_generation} spki {present.spki}",
    ]


def describe_step(
    step: Step, present: Present | Broken | None, next_key: NextKey | None, issuer_ids: Mapping[str, str], ends: str
) -> list[str]:
    """The certificate that a step will give, as lines. `ends`: its last day, as far as it is known beforehand."""
    wanted = step.wanted
    if step.key == "next" and next_key:
        key = f"key: {next_key.key_type} generation {next_key.key_generation} spki {next_key.spki}"
    elif step.key == "current" and isinstance(present, Present):
        key = f"key: {present.key_type} generation {present.key_generation} spki {present.spki}"
    elif step.key == "current":
        key = "key: the one that is there"
    else:
        key = f"key: {wanted.key_type} generation {wanted.key_generation} (new)"
    return [
        f"names: {' '.join(sorted(wanted.names))}",
        f"issuer: {wanted.issuer} {issuer_ids.get(wanted.issuer, '')}".rstrip(),
        f"usage: {wanted.usage}",
        f"ends: {ends}",
        key,
        *(f"because: {reason}" for reason in step.reasons),
    ]


# --- what an ACME client says -----------------------------------------------------------------------------------------

_CURL = {
    5: "the proxy's name is not known",
    6: "the ACME server's name is not known to the resolver",
    7: "nothing answers at the ACME server's address",
    28: "the ACME server did not answer in time",
    35: "the TLS handshake with the ACME server failed",
    60: "the ACME server's own certificate is not trusted (certificates_acme_ca)",
    77: "the CA bundle for the ACME server cannot be read (certificates_acme_ca)",
}


def acme_failure(output: str) -> str:
    """One line for the operator out of what dehydrated 0.7.2 prints when it fails.

    It knows three forms: the server's problem document (RFC 8555 6.7: type and detail) as JSON or flattened by jsonsh,
    curl's exit status, and dehydrated's own last ERROR line.
    """
    details = re.findall(r'"detail"(?:\]|:)?\s*:?\s*"((?:[^"\\]|\\.)*)"', output)
    kinds = re.findall(r'"(?:urn:ietf:params:acme:error:)(\w+)"', output)
    names = re.findall(r'"identifier","value"\]\s+"([^"]+)"|Challenge is invalid!.*?domain:?\s*([^\s)]+)', output)
    if details:
        kind = f" ({kinds[-1]})" if kinds else ""
        name = next((part for pair in names for part in pair if part), "")
        text = str(details[-1]).replace('\\"', '"')
        return f"the ACME server refused{f' {name}' if name else ''}: {text}{kind}"
    if found := re.search(r"curl returned with (\d+)", output):
        code = int(found.group(1))
        return _CURL.get(code, f"the ACME server cannot be reached (curl: {code})")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # A hook that fails says why before dehydrated says that it failed.
    told = [line for line in lines if "hook returned with non-zero" not in line]
    said = [line for line in told if "ERROR" in line] or [line for line in lines if "error" in line.lower()]
    last = (said or lines or ["the ACME client said nothing"])[-1]
    return re.sub(r"^(\+\s*)?ERROR:\s*", "", last)[:500]
