# SPDX-License-Identifier: GPL-3.0-or-later
"""The one list of limits: what each counts, at which levels it may be written, and where it holds.

A limit is a ceiling at one of three levels: the provider gives it to a reseller (contract), the reseller to a customer
and to a user (customers' files). Absent means: no limit of its own at this level. 0 means: none at all. The effective
ceiling is the tightest over the levels. The schemas, the check, the tables in docs/data.md and the directory's seed
come from here; a new limit is a new line in `LIMITS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import units

RESELLER, CUSTOMER, USER = "reseller", "customer", "user"
LEVELS = (RESELLER, CUSTOMER, USER)
COUNT, BYTES, MONEY, PER_HOUR = "count", "bytes", "money", "per_hour"
USED, ALLOCATED = "used", "allocated"
HARD, SOFT = "hard", "soft"

type Ceilings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Limit:
    """One limit. `enforced`: where it holds besides check: in the directory's constraints, in which running service."""

    name: str
    unit: str
    levels: tuple[str, ...]
    description: str
    enforced: tuple[str, ...]
    bases: tuple[str, ...] = ()
    always_hard: bool = False
    # What a product may include of it, per person.
    in_products: bool = False

    def hard_at(self, level: str) -> bool:
        """Whether `enforce: soft` is refused there: rates, calls, money, and every person's own quota."""
        return self.always_hard or (level == USER and self.unit == BYTES)


_ALL = (RESELLER, CUSTOMER, USER)
_POOLS = (RESELLER, CUSTOMER)
LIMITS: Mapping[str, Limit] = {
    limit.name: limit
    for limit in (
        Limit("customers", COUNT, (RESELLER,), "Customers of the reseller.", ("directory",)),
        Limit("domains", COUNT, _POOLS, "Mail domains, alias domains included.", ("directory",)),
        Limit("users", COUNT, _POOLS, "People: one login each, also when suspended.", ("directory",)),
        Limit("groups", COUNT, _POOLS, "Lists of people: for mail, calls or files.", ("directory",)),
        Limit("aliases", COUNT, _ALL, "Further addresses of people.", ("directory",)),
        Limit(
            "mail_storage",
            BYTES,
            _ALL,
            "Room for mail. For a user the same as `mail: {quota: ...}`.",
            ("directory", "mail"),
            bases=(USED, ALLOCATED),
            in_products=True,
        ),
        Limit(
            "file_storage",
            BYTES,
            _ALL,
            "Room for files. For a user the same as `files: {quota: ...}`.",
            ("directory", "files"),
            bases=(USED, ALLOCATED),
            in_products=True,
        ),
        Limit("extensions", COUNT, _POOLS, "Internal telephone numbers of people and groups.", ("directory",)),
        Limit("numbers", COUNT, _POOLS, "Public telephone numbers.", ("directory",)),
        Limit(
            "concurrent_calls",
            COUNT,
            _ALL,
            "Calls at one moment, in and out. 112 is never counted.",
            ("exchange",),
            always_hard=True,
        ),
        Limit(
            "call_spend_per_day",
            MONEY,
            _ALL,
            "What outgoing calls may cost in a day. 112 is never refused.",
            ("exchange",),
            always_hard=True,
        ),
        Limit(
            "mail_sent_per_hour",
            PER_HOUR,
            _ALL,
            "Recipients of mail sent in an hour.",
            ("mail",),
            always_hard=True,
        ),
    )
}

# What a reseller can be billed for; prices are given per meter, products name the meter that a person counts for.
METERS: Mapping[str, str] = {
    "user": "a person, a month",
    "mail_storage_gib": "a GiB of mail, a month",
    "file_storage_gib": "a GiB of files, a month",
    "extension": "an extension, a month",
    "number": "a public telephone number, a month",
    "domain": "a mail domain, a month",
    "customer": "a customer, a month",
}
STORAGE_METERS: Mapping[str, str] = {"mail_storage": "mail_storage_gib", "file_storage": "file_storage_gib"}


def at_level(level: str) -> list[Limit]:
    """The limits that may be written at a level, in the order of the list."""
    return [limit for limit in LIMITS.values() if level in limit.levels]


def normal(name: str, written: Mapping[str, Any]) -> dict[str, Any]:
    """A limit in the form of the wanted state: `{"max", "basis", "enforce", "warn_at"}`, all present.

    `written` has passed the schema. `max` is a number, for money a decimal string; `basis` is None for what has none.
    """
    limit = LIMITS[name]
    return {
        "max": amount(name, written["max"]),
        "basis": (written.get("basis") or limit.bases[0]) if limit.bases else None,
        "enforce": written.get("enforce") or HARD,
        "warn_at": sorted(int(step) for step in written.get("warn_at") or () if step is not None),
    }


def amount(name: str, value: object) -> int | str:
    """A ceiling's value in its unit: bytes, a decimal string for money, else a whole number. Raises `Invalid`."""
    unit = LIMITS[name].unit
    if unit == BYTES:
        return units.size(value)
    return units.money(value) if unit == MONEY else int(value)  # type: ignore[call-overload]


def comparable(value: int | str) -> Decimal:
    return Decimal(value)


def text(name: str, value: int | str) -> str:
    """A ceiling's value for people."""
    return units.human_size(int(value)) if LIMITS[name].unit == BYTES else str(value)


def merged(limits: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """`reseller_limits` with `reseller_limits_override` on top, per limit and per field of it; neither is changed.

    A field that is not a mapping (a mistake that the schema reports) replaces what was there.
    """
    result = dict(limits)
    for name, fields in override.items():
        if isinstance(fields, Mapping) and isinstance(result.get(name), Mapping):
            result[name] = {**result[name], **fields}
        else:
            result[name] = fields
    return result


@dataclass(frozen=True)
class Ceiling:
    """What holds for one limit: its value and the level that it comes from."""

    max: int | str
    level: str
    enforce: str


def effective(name: str, *levels: tuple[str, Ceilings]) -> Ceiling | None:
    """The tightest ceiling over some levels, each given as (level, its limits); None when no level has one.

    Of equal ceilings the first given counts, and a hard one before a soft one.
    """
    found = [Ceiling(limits[name]["max"], level, limits[name]["enforce"]) for level, limits in levels if name in limits]
    return min(found, key=lambda ceiling: (comparable(ceiling.max), ceiling.enforce != HARD), default=None)


def above(name: str, value: int | str, parents: Sequence[tuple[str, Ceilings]]) -> Ceiling | None:
    """The tightest ceiling of the levels above that `value` is over, if there is one."""
    ceiling = effective(name, *parents)
    return ceiling if ceiling and comparable(value) > comparable(ceiling.max) else None


def warned(count: int, ceiling: Mapping[str, Any]) -> int | None:
    """The highest percentage of `warn_at` that `count` has reached; None when none has been."""
    maximum = int(ceiling["max"])
    reached = [step for step in ceiling["warn_at"] if maximum and count * 100 >= step * maximum]
    return max(reached, default=None)


def table(level_titles: Mapping[str, str]) -> str:
    """The list as a Markdown table, for docs/data.md. `level_titles`: the heading of each level's column."""
    unit_names = {COUNT: "number", BYTES: "size", MONEY: "money", PER_HOUR: "number an hour"}
    lines = [
        f"| limit | unit | {' | '.join(level_titles[level] for level in LEVELS)} | basis | soft | what it limits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for limit in LIMITS.values():
        marks = " | ".join("yes" if level in limit.levels else "" for level in LEVELS)
        bases = " or ".join(limit.bases)
        soft = "no" if limit.always_hard else "yes"
        lines.append(
            f"| `{limit.name}` | {unit_names[limit.unit]} | {marks} | {bases} | {soft} | {limit.description} |"
        )
    return "\n".join(lines)
