# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of what people write, as JSON Schema (2020-12): one truth for this code and for everybody's editor.

`CUSTOMER` describes a customer's file, `CONTRACT` the contract variables of a reseller. `schemas/*.schema.json` are
these, written by `scripts/schemas` (through `make documents`); editors find them by a file's first line,
`# yaml-language-server: $schema=...`. `faults` validates with the same objects and says what is wrong in words; it
yields every fault, not the first.

Two keywords are our own, which validators pass over: `x-kind` names the function that explains a refused text, and
`x-item` what an unknown key should have been.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import brand, limits, names, units
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import (
    Invalid,
    KeyPath,
    did_you_mean,
    listing,
    shown,
)

try:
    import jsonschema_rs
except ImportError:
    # Only the control node validates; `validator` says what to install.
    jsonschema_rs = None  # type: ignore[assignment]

LANGUAGES = ("de", "en", "fr", "nl")
MANY = 1_000_000_000

type Schema = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A sort of text: its pattern for editors, what is allowed in words, the function that decides and explains."""

    pattern: str
    allowed: str
    explain: Callable[[Any], object]


KINDS: Mapping[str, Kind] = {
    "name": Kind(names.NAME_PATTERN, names.NAME_ALLOWED, names.display_name),
    "folder": Kind(names.FOLDER_PATTERN, names.FOLDER_ALLOWED, lambda value: names.display_name(value, folder=True)),
    "slug": Kind(names.SLUG_PATTERN, names.SLUG_ALLOWED, names.slug),
    "product": Kind(names.PRODUCT_PATTERN, names.PRODUCT_ALLOWED, str),
    "domain": Kind(names.DOMAIN_PATTERN, names.DOMAIN_ALLOWED, names.domain),
    "address": Kind(names.ADDRESS_PATTERN, names.ADDRESS_ALLOWED, names.address),
    "forward": Kind(names.FORWARD_PATTERN, names.ADDRESS_ALLOWED, lambda value: names.address(value, outside=True)),
    "hash": Kind(names.HASH_PATTERN, names.HASH_ALLOWED, names.password_hash),
    "target": Kind(names.TARGET_PATTERN, names.TARGET_ALLOWED, names.target),
    "host": Kind(names.HOST_PATTERN, names.HOST_ALLOWED, str),
    "image": Kind(names.IMAGE_PATTERN, names.IMAGE_ALLOWED, str),
    "path": Kind(names.PATH_PATTERN, names.PATH_ALLOWED, str),
    "size": Kind(units.SIZE_PATTERN, units.SIZE_ALLOWED, units.size),
    "money": Kind(units.MONEY_PATTERN, units.MONEY_ALLOWED, units.money),
    "hours": Kind(units.HOURS_PATTERN, units.HOURS_ALLOWED, units.hours),
    "date": Kind(units.DATE_PATTERN, units.DATE_ALLOWED, units.date),
    "extension": Kind(units.EXTENSION_PATTERN, units.EXTENSION_ALLOWED, units.extension),
    "number": Kind(units.NUMBER_PATTERN, units.NUMBER_ALLOWED, units.phone_number),
    "colour": Kind(brand.COLOUR_PATTERN, brand.COLOUR_ALLOWED, brand.colour),
    "support": Kind(brand.SUPPORT_PATTERN, brand.SUPPORT_ALLOWED, brand.support),
    "logo": Kind(names.PATH_PATTERN, brand.LOGO_ALLOWED, str),
    "mac": Kind(units.MAC_PATTERN, units.MAC_ALLOWED, units.mac),
}


def _titled(title: str) -> Schema:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}


def text(kind: str, description: str, **more: Any) -> Schema:
    """Text of a kind."""
    what = KINDS[kind]
    return {
        "type": "string",
        "pattern": what.pattern,
        "maxLength": 4096,
        "x-kind": kind,
        "patternErrorMessage": f"Allowed: {what.allowed}",
        "description": description,
        **more,
    }


def text_or_zero(kind: str, description: str, **more: Any) -> Schema:
    """Text of a kind, or the number 0."""
    return text(kind, description, minimum=0, maximum=0, **more) | {"type": ["string", "integer"]}


def whole(description: str, least: int, most: int, **more: Any) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most, "description": description, **more}


def switch(description: str, default: bool) -> Schema:
    return {"type": "boolean", "default": default, "description": description}


def one_of(description: str, *values: str, **more: Any) -> Schema:
    return {"enum": list(values), "description": description, **more}


def several(item: Schema, description: str, *, most: int = 100_000, **more: Any) -> Schema:
    return {"type": "array", "items": item, "maxItems": most, "description": description, **more}


def mapping(description: str, properties: Schema, required: tuple[str, ...] = (), **more: Any) -> Schema:
    schema = {
        "type": "object",
        "description": description,
        "properties": properties,
        "additionalProperties": False,
        **more,
    }
    return schema | ({"required": list(required)} if required else {})


def unless_absent(schema: Schema, *required: str) -> Schema:
    """Requires some keys, but not of what is only written down to be removed."""
    absent = {"properties": {"state": {"const": "absent"}}, "required": ["state"]}
    return schema | {"if": absent, "then": {}, "else": {"required": list(required)}}


def limit(what: limits.Limit, level: str, *, override: bool = False) -> Schema:
    """One limit, as it may be written at a level."""
    ceiling = {
        limits.COUNT: whole("The ceiling. 0 = none at all.", 0, MANY),
        limits.PER_HOUR: whole("The ceiling for an hour. 0 = none at all.", 0, MANY),
        limits.BYTES: text_or_zero("size", "The ceiling, with its unit. 0 = none at all.", examples=["10 GiB"]),
        limits.MONEY: text_or_zero("money", "The ceiling, between quotes. 0 = none at all.", examples=["25.00"]),
    }[what.unit]
    fields: Schema = {"max": ceiling}
    if what.bases and level != limits.USER:
        fields["basis"] = one_of(
            "used: counts what is in use. allocated: counts what was handed out as quota.",
            *what.bases,
            default=what.bases[0],
        )
    if what.hard_at(level):
        fields["enforce"] = one_of("This limit is always hard: it refuses.", limits.HARD, default=limits.HARD)
    else:
        fields["enforce"] = one_of(
            "hard: refuses what goes over. soft: lets it through, warns and reports.",
            limits.HARD,
            limits.SOFT,
            default=limits.HARD,
        )
    fields["warn_at"] = several(
        whole("A percentage of max.", 1, 100),
        "Percentages of max at which to warn, such as [80, 95].",
        most=10,
        uniqueItems=True,
    )
    written: Schema = {"minProperties": 1} if override else {"required": ["max"]}
    return mapping(what.description, fields, **written) | {"x-allowed": "a mapping such as {max: 10}"}


def limits_at(level: str, description: str, *, override: bool = False) -> Schema:
    properties = {what.name: limit(what, level, override=override) for what in limits.at_level(level)}
    return mapping(description, properties) | {"x-item": "limit"}


def _address(description: str, **more: Any) -> Schema:
    return text("address", description, maxLength=254, **more)


def _size(description: str) -> Schema:
    return text_or_zero("size", description, examples=["10 GiB", "500 MB", 0])


def _state(*others: str, removed: str) -> Schema:
    return one_of(
        f"active, suspended (kept, but no log-in and no service) or absent ({removed}; asks for confirm_removal).",
        "active",
        *others,
        "absent",
        default="active",
    )


_USER = unless_absent(
    mapping(
        "A person: one login, one password, any of mail, phone and files.",
        {
            "login": _address(
                "What the person logs in with, and the address of the mailbox.", examples=["jan@degraaf.example"]
            ),
            "name": text("name", "The person's name as people write it.", maxLength=120, examples=["Jan de Graaf"]),
            "state": _state("suspended", removed="removed with mail and files"),
            "product": text(
                "product", "One of the contract's reseller_products; required when the contract has any.", maxLength=63
            ),
            "language": one_of("Language of mails and pages; the reseller's when absent.", *LANGUAGES),
            "password_hash": text(
                "hash",
                "Hash of a first password, used until the person sets one. Never a password. Left out, a link to set "
                "one is handed over instead.",
                maxLength=300,
            ),
            "invite": text(
                "forward",
                "An address elsewhere that a new person's one-time link for the first password is mailed to, once, in "
                "the reseller's name. Left out, playbook invite.yml makes the link.",
                maxLength=254,
                examples=["jan@elders.example"],
            ),
            "limits": limits_at(
                limits.USER, "Ceilings for this person, at or under the customer's and the reseller's."
            ),
            "mail": mapping(
                "A mailbox with calendar, tasks and contacts. {} for one without anything special.",
                {
                    "aliases": several(
                        _address("A further address, in one of the customer's domains."),
                        "Further addresses that arrive here, and that the person may send from.",
                        most=500,
                    ),
                    "forward": several(
                        text("forward", "An address, here or elsewhere.", maxLength=254),
                        "Where mail is sent on to.",
                        most=50,
                    ),
                    "keep_copy": switch("Whether mail that is sent on is kept in the mailbox too.", default=True),
                    "quota": _size("Room for this person's mail. Absent: what the product and the customer allow."),
                },
            ),
            "phone": mapping(
                "An extension at the customer's exchange.",
                {
                    "extension": text(
                        "extension", "Internal number, between quotes. Each customer has its own.", examples=["101"]
                    ),
                    "devices": several(
                        mapping(
                            "A telephone on a desk.",
                            {
                                "mac": text("mac", "Hardware address, between quotes.", examples=["00:15:65:aa:bb:cc"]),
                                "model": text("product", "Make and model.", maxLength=63, examples=["yealink-t54w"]),
                            },
                            ("mac", "model"),
                        ),
                        "Telephones that fetch their settings by themselves.",
                        most=20,
                    ),
                    "voicemail": mapping(
                        "Voicemail.",
                        {
                            "enabled": switch("Whether callers can leave a message.", default=True),
                            "to_mail": switch("Whether messages are mailed too.", default=False),
                        },
                    ),
                },
                ("extension",),
            ),
            "files": mapping("A folder of one's own.", {"quota": _size("Room for this person's files.")}),
        },
        ("login",),
    ),
    "name",
)

_GROUP = unless_absent(
    mapping(
        "A list of people: distribution list, shared mailbox, ring group, shared folder.",
        {
            "name": text(
                "slug", "Short name, for references such as group:bakkers.", maxLength=63, examples=["bakkers"]
            ),
            "title": text("name", "Name for people; the short name when absent.", maxLength=120),
            "state": _state(removed="removed with its mail and files"),
            "members": several(
                _address("A user's login."), "Logins of this customer's users.", most=10_000, uniqueItems=True
            ),
            "mail": mapping(
                "Mail to the group.",
                {
                    "address": _address("The group's address, in one of the customer's domains."),
                    "kind": one_of(
                        "list: every member gets each mail. shared_mailbox: one mailbox that the members open.",
                        "list",
                        "shared_mailbox",
                        default="list",
                    ),
                    "quota": _size("Room for a shared mailbox."),
                },
                ("address",),
            ),
            "phone": mapping(
                "Calls to the group.",
                {
                    "extension": text("extension", "Internal number, between quotes.", examples=["200"]),
                    "strategy": one_of(
                        "ring_all: all at once. in_order: one by one as listed. longest_idle: who waits longest.",
                        "ring_all",
                        "in_order",
                        "longest_idle",
                        default="ring_all",
                    ),
                },
                ("extension",),
            ),
            "files": mapping(
                "A folder that the members share.",
                {
                    "folder": text("folder", "The folder's name.", maxLength=120, examples=["Bakkers"]),
                    "quota": _size("Room for the folder."),
                },
                ("folder",),
            ),
        },
        ("name",),
    ),
    "members",
)

_DAY = "(mon|tue|wed|thu|fri|sat|sun)"
_HOURS = text("hours", "From and to, between quotes; several as a list.") | {
    "type": ["string", "array"],
    "items": text("hours", "From and to, between quotes."),
    "maxItems": 10,
}
_TARGET = text("target", f"Where the call goes: {names.TARGET_ALLOWED}.", maxLength=300, examples=["group:bakkers"])

CUSTOMER: Schema = _titled("Bouwsteen customer") | unless_absent(
    mapping(
        "One customer of a reseller: domains, people, groups, rooms, telephony.",
        {
            "customer": text(
                "slug",
                "Short name that never changes, unique at the reseller.",
                maxLength=63,
                examples=["bakkerij-de-graaf"],
            ),
            "title": text("name", "Name for people.", maxLength=120, examples=["Bakkerij De Graaf"]),
            "state": _state("suspended", removed="removed with all people and their mail and files"),
            "language": one_of("Language of mails and pages for its people; the reseller's when absent.", *LANGUAGES),
            "domains": several(
                text("domain", "A mail domain, or one that is an alias of another.", maxLength=253)
                | {
                    "type": ["string", "object"],
                    "properties": {
                        "name": text("domain", "The domain.", maxLength=253),
                        "alias_of": text(
                            "domain", "The domain of this customer whose addresses it has too.", maxLength=253
                        ),
                    },
                    "required": ["name"],
                    "additionalProperties": False,
                    "x-allowed": f"{names.DOMAIN_ALLOWED}, or {{name: DOMAIN, alias_of: DOMAIN}}",
                },
                "Domains whose mail arrives here.",
                most=1000,
            ),
            "limits": limits_at(limits.CUSTOMER, "Ceilings for this customer, at or under the reseller's."),
            "users": several(_USER, "The customer's people."),
            "groups": several(_GROUP, "Lists of people.", most=10_000),
            "resources": several(
                unless_absent(
                    mapping(
                        "A room or thing with a calendar.",
                        {
                            "name": text("name", "Name for people.", maxLength=120, examples=["Vergaderkamer"]),
                            "address": _address("Its address, in one of the customer's domains."),
                            "state": _state(removed="removed with its calendar"),
                        },
                        ("address",),
                    ),
                    "name",
                ),
                "Rooms and things with a calendar.",
                most=10_000,
            ),
            "telephony": mapping(
                "Public numbers and where their calls go.",
                {
                    "numbers": several(
                        text("number", "A public telephone number, between quotes."),
                        "Public numbers of this customer.",
                        most=10_000,
                    ),
                    "opening_hours": {
                        "type": "object",
                        "description": "When calls go to `open`; otherwise they go to `closed`.",
                        "properties": {
                            "closed": several(
                                text("date", "A day.", examples=["2026-12-25"]),
                                "Days on which it is closed.",
                                most=1000,
                            ),
                        },
                        "patternProperties": {f"^{_DAY}(-{_DAY})?$": _HOURS},
                        "additionalProperties": False,
                        "x-more": "days such as sat or mon-fri",
                    },
                    "incoming": several(
                        mapping(
                            "Where calls to a number go.",
                            {
                                "number": text("number", "One of `numbers`."),
                                "open": _TARGET,
                                "closed": _TARGET,
                            },
                            ("number", "open"),
                        ),
                        "Where calls to each number go.",
                        most=10_000,
                    ),
                },
            ),
        },
        ("customer",),
    ),
    "title",
)

_TIER = mapping(
    "One step.",
    {
        "from": whole("The first unit at this price.", 0, MANY),
        "price": text_or_zero("money", "Price of a unit, between quotes.", examples=["1.50"]),
    },
    ("from", "price"),
)

CONTRACT: Schema = (
    _titled("Bouwsteen contract")
    | mapping(
        "What the provider agreed with a reseller: variables of the reseller's host and of its plan groups.",
        {
            "reseller_title": text("name", "Name for people.", maxLength=120),
            "reseller_engineer": text(
                "forward", "The technical contact; the only person whom the provider mails.", maxLength=254
            ),
            "reseller_domain": text(
                "domain", "White label: webmail., sip., files., mail. live under it.", maxLength=253
            ),
            "reseller_customers": text("path", "Folder with the customers' files, outside every inventory."),
            "reseller_language": one_of(
                "Language of mails and pages where nothing else is said.", *LANGUAGES, default="nl"
            ),
            "reseller_retention_days": whole(
                "How long to keep, suspended, what disappears from the files.", 0, 3650, default=30
            ),
            "reseller_expunged_days": whole(
                "How long deleted mail can be had back (restore_mail.yml); 0: not at all.", 0, 365, default=14
            ),
            "reseller_machines": mapping(
                "Which machine does what for this reseller; absent: the only machine with that function.",
                {
                    function: text("host", f"The machine for {what}.", maxLength=253)
                    for function, what in (
                        ("mail", "mail"),
                        ("groupware", "webmail, calendars and the pages of accounts"),
                        ("exchange", "telephony"),
                        ("files", "files"),
                    )
                },
            ),
            "reseller_brand": mapping(
                "What his people see; what is absent is derived from his name and title.",
                {
                    "logo": text("logo", "File on the control node; absent: a monogram of the title."),
                    "colour": text("colour", "Colour of bars and buttons, between quotes.", examples=["#0b5394"]),
                    "support": text("support", "Where his people find help: an address, or a URL.", maxLength=254),
                },
            ),
            "reseller_telephony_image": text("image", "Version of the telephony image; absent: the site's."),
            "reseller_limits": limits_at(limits.RESELLER, "Ceilings for this reseller, over all customers together."),
            "reseller_limits_override": limits_at(
                limits.RESELLER,
                "Merged on top of reseller_limits, field by field: the exception to a plan.",
                override=True,
            ),
            "reseller_products": {
                "type": "object",
                "description": "What the reseller may hand out, by name.",
                "propertyNames": {"pattern": names.PRODUCT_PATTERN},
                "additionalProperties": mapping(
                    "A product.",
                    {
                        "title": text("name", "Name for people.", maxLength=120),
                        "meter": one_of("What a person with this product counts for.", *limits.METERS),
                        "included": mapping(
                            "What is in it, per person.",
                            {what.name: _size(what.description) for what in limits.LIMITS.values() if what.in_products},
                        )
                        | {"x-item": "limit"},
                        "beyond": one_of(
                            "Beyond `included`: blocked, or metered and billed.",
                            "blocked",
                            "metered",
                            default="blocked",
                        ),
                    },
                    ("meter",),
                ),
            },
            "reseller_prices": mapping(
                "The provider's price to the reseller, per meter, over all customers together.",
                {
                    meter: mapping(
                        f"Price of {what}.",
                        {
                            "mode": one_of(
                                "volume: the step reached prices all. graduated: each step has its price.",
                                "volume",
                                "graduated",
                                default="volume",
                            ),
                            "sample": one_of(
                                "What of the month counts: the highest moment, or the average of each day's highest.",
                                "monthly_max",
                                "daily_max_average",
                                default="monthly_max",
                            ),
                            "tiers": several(_TIER, "Steps, from low to high.", most=50, minItems=1),
                        },
                        ("tiers",),
                    )
                    for meter, what in limits.METERS.items()
                },
            )
            | {"x-item": "meter"},
        },
    )
    | {"x-item": "variable"}
)

# What a contract must have once its groups' and host's variables are put together.
CONTRACT_REQUIRED = ("reseller_title", "reseller_engineer", "reseller_domain", "reseller_customers")
FILES: Mapping[str, Schema] = {"customer.schema.json": CUSTOMER, "contract.schema.json": CONTRACT}


@dataclass(frozen=True)
class Fault:
    """Something that does not fit the schema, at a path; `spoils`: the path of the value that is no use therefore."""

    path: KeyPath
    problem: str
    allowed: str
    spoils: KeyPath | None
    is_missing: bool = False


@cache
def _validator(which: str) -> Any:
    if jsonschema_rs is None:
        raise RuntimeError("the Python package jsonschema-rs is missing on the control node: run `make env`")
    return jsonschema_rs.Draft202012Validator(CUSTOMER if which == "customer" else CONTRACT)


def faults(which: str, data: object) -> Iterator[Fault]:
    """Everything in `data` that does not fit the schema `which` (customer or contract), one fault a value."""
    schema = CUSTOMER if which == "customer" else CONTRACT
    seen: set[tuple[KeyPath, str]] = set()
    for error in _validator(which).iter_errors(data):
        for fault in _explained(error, schema, data):
            about = (fault.path, fault.allowed if fault.is_missing else "")
            if about not in seen:
                seen.add(about)
                yield fault


def _explained(error: Any, schema: Any, data: Any) -> Iterator[Fault]:
    """One error of the validator in our words; unknown keys are a fault each."""
    path, value = _at(data, error.instance_path)
    keyword = error.schema_path[-1]
    # The part of the schema that holds the keyword which failed, and the part around that.
    node = around = schema
    for part in error.schema_path[:-1]:
        node, around = node[part], node
    if keyword == "additionalProperties":
        known = list(node["properties"])
        item = node.get("x-item", "key")
        allowed = listing([*known, *([node["x-more"]] if "x-more" in node else [])])
        for key in error.kind.unexpected:
            yield Fault((*path, key), f"unknown {item}{_hint(key, known, item)}", allowed, (*path, key))
    elif keyword == "required":
        key = error.kind.property
        wanted = (node.get("properties") or around["properties"])[key]
        yield Fault(path, f"lacks the key {key}", f"{key} with {_allowed(wanted)}", None, is_missing=True)
    elif "propertyNames" in error.schema_path:
        for key in value:
            if not re.fullmatch(node["pattern"], key):
                yield Fault((*path, key), "has a name that is not allowed", names.PRODUCT_ALLOWED, (*path, key))
    elif keyword == "type":
        yield Fault(path, _type_problem(node, value), _allowed(node), path)
    elif keyword == "enum":
        options = [str(option) for option in node["enum"]]
        problem = "is always hard" if options == [limits.HARD] else f"unknown value{did_you_mean(value, options)}"
        yield Fault(path, problem, listing(options), path)
    elif keyword in ("minimum", "maximum") and "x-kind" not in node:
        yield Fault(path, f"is too {'small' if keyword == 'minimum' else 'large'}", _allowed(node), path)
    elif keyword == "uniqueItems":
        twice = next(item for at, item in enumerate(value) if item in value[:at])
        yield Fault(path, f"has {shown(twice)} twice", "each value once", None)
    elif keyword in ("maxItems", "minItems", "minProperties"):
        problem = "has too many entries" if keyword == "maxItems" else "is empty"
        yield Fault(path, problem, f"at {'most' if keyword == 'maxItems' else 'least'} {node[keyword]}", path)
    elif keyword == "maxLength":
        yield Fault(path, "is too long", f"at most {node[keyword]} characters", path)
    else:
        yield Fault(path, *_why(node["x-kind"], value), path)


def _at(data: Any, path: list[str | int]) -> tuple[KeyPath, Any]:
    """A path in the validator's words and the value there. A key like "007" reaches us as the number 7."""
    parts: list[str | int] = []
    for part in path:
        if isinstance(part, int) and isinstance(data, dict):
            key: str | int = next(
                key for key in (str(part), *data) if key in data and key.isdecimal() and int(key) == part
            )
        else:
            key = part
        parts.append(key)
        data = data[key]
    return tuple(parts), data


def _hint(key: str, known: list[str], item: str) -> str:
    """What the writer of an unknown key may have meant."""
    if item == "limit" and key in limits.LIMITS:
        levels = " or ".join(f"a {level}" for level in limits.LIMITS[key].levels)
        return f": it is a limit of {levels}"
    if re.search("pass(word|wd)?$|wachtwoord", key, re.IGNORECASE):
        return ": a password never stands in a file; password_hash may"
    return did_you_mean(key, known)


def _type_problem(node: Schema, value: object) -> str:
    wanted = node["type"] if isinstance(node["type"], list) else [node["type"]]
    if value is None:
        return "is empty"
    if "string" in wanted and isinstance(value, bool | int | float):
        kind = node.get("x-kind", "")
        if kind == "money" and isinstance(value, float):
            return "is a number that loses cents: put quotes around it"
        if kind == "size":
            return "is no size"
        return (
            "is read by YAML as no text: put quotes around it"
            if isinstance(value, bool)
            else "is a number: put quotes around it"
        )
    if wanted == ["integer"] and isinstance(value, str) and re.fullmatch("[0-9]+", value):
        return "is text: leave the quotes out"
    article = {
        "string": "no text",
        "integer": "no whole number",
        "boolean": "neither true nor false",
        "array": "no list",
        "object": "no mapping",
    }
    return f"is {article[wanted[-1]]}"


def _allowed(node: Schema) -> str:
    """What may stand at a place of the schema, in words."""
    if "x-allowed" in node:
        return str(node["x-allowed"])
    if "x-kind" in node:
        return KINDS[node["x-kind"]].allowed
    if "enum" in node:
        return listing(node["enum"])
    kind = node["type"]
    if kind == "integer":
        return f"a whole number from {node['minimum']} to {node['maximum']}"
    if kind == "array":
        return "a list such as [a, b]"
    if kind == "boolean":
        return "true or false"
    return f"a mapping with {listing(node.get('properties', {}), nothing='keys')}"


def _why(kind: str, value: object) -> tuple[str, str]:
    """Why a value was refused, and what is allowed."""
    try:
        KINDS[kind].explain(value)
    except Invalid as invalid:
        return invalid.problem, invalid.allowed
    return "is not allowed", KINDS[kind].allowed


def rendered(schema: Schema) -> str:
    """A schema as the text of its file, for editors."""
    return json.dumps(schema, indent=1, ensure_ascii=True) + "\n"
