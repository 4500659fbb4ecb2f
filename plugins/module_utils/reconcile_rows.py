# SPDX-License-Identifier: GPL-3.0-or-later
"""The wanted state of one reseller (see estate.py) as rows for PostgreSQL's COPY, named by what people wrote.

Rows here carry names, not ids: reconcile.py finds or makes the ids in the database. Nothing is decided in this file.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

Row = tuple[Any, ...]

# One hidden person per reseller that verify.yml uses; never counted, never billed.
PROBE_CUSTOMER = "verify"
PROBE_LOGIN = "probe@verify.{domain}"
PROBE_QUOTA = 64 * 2**20

# Table -> columns with their SQL types, in the order of the rows that `flatten` gives.
STAGES: Mapping[str, Mapping[str, str]] = {
    "products": {"name": "text", "definition": "jsonb"},
    "customers": {"name": "text", "title": "text", "kind": "text", "telephony": "jsonb", "state": "text"},
    "domains": {"customer": "text", "name": "text", "kind": "text", "alias_of": "text"},
    "users": {
        "customer": "text", "login": "text", "name": "text", "kind": "text", "product": "text", "language": "text",
        "password": "text", "mail": "boolean", "mail_quota": "bigint", "keep_copy": "boolean", "phone": "jsonb",
        "files": "boolean", "file_quota": "bigint", "file_settings": "jsonb", "invite": "text", "state": "text",
    },
    "groups": {
        "customer": "text", "name": "text", "title": "text", "mail_kind": "text", "mail_quota": "bigint",
        "phone": "jsonb", "files": "jsonb", "file_quota": "bigint", "address": "text",
    },
    "resources": {"customer": "text", "name": "text", "address": "text"},
    "aliases": {"customer": "text", "login": "text", "address": "text", "kind": "text"},
    "forwards": {"customer": "text", "login": "text", "target": "text"},
    "members": {"customer": "text", "group": "text", "login": "text"},
    "extensions": {"customer": "text", "extension": "text", "login": "text", "group": "text"},
    "numbers": {"customer": "text", "number": "text"},
    "limits": {
        "customer": "text", "login": "text", "name": "text", "max": "numeric", "basis": "text", "enforce": "text",
        "warn_at": "integer[]",
    },
    # What the files say is to be removed: kind is customer, user, group or resource; name as in the files.
    "removals": {"kind": "text", "customer": "text", "name": "text"},
}  # fmt: skip


def flatten(wanted: Mapping[str, Any]) -> dict[str, list[Row]]:
    """The rows of every stage of `STAGES`, with the reseller's probe among them."""
    rows: dict[str, list[Row]] = {name: [] for name in STAGES}
    reseller = wanted["reseller"]
    rows["products"] += [(name, definition) for name, definition in (reseller.get("products") or {}).items()]
    rows["limits"] += _limits(None, None, reseller.get("limits"))
    for customer in wanted["customers"]:
        _customer(rows, customer)
    _removals(rows["removals"], wanted.get("remove") or {})
    _probe(rows, reseller["domain"])
    return rows


def reseller_row(reseller: Mapping[str, Any]) -> dict[str, Any]:
    """The reseller's own columns. What has no column of its own is kept in `settings`."""
    own = {"name", "title", "engineer", "domain", "retention_days", "limits", "products", "prices", "placement"}
    return {
        "name": reseller["name"],
        "title": reseller["title"],
        "engineer": reseller["engineer"],
        "domain": reseller["domain"],
        "retention_days": int(reseller["retention_days"]),
        "placement": reseller.get("placement") or {},
        "prices": reseller.get("prices") or {},
        "settings": {key: value for key, value in reseller.items() if key not in own},
    }


def copy_text(rows: Iterable[Row]) -> io.StringIO:
    """Rows in COPY's text format (PostgreSQL manual, COPY, "Text Format"), at the start of the stream."""
    stream = io.StringIO()
    for row in rows:
        stream.write("\t".join(map(_field, row)))
        stream.write("\n")
    stream.seek(0)
    return stream


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _field(value: Any) -> str:
    if value is None:
        return "\\N"
    if value is True:
        return "t"
    if value is False:
        return "f"
    if isinstance(value, str):
        return value.translate(_ESCAPES)
    if isinstance(value, list | tuple):  # only warn_at: an array of whole numbers
        return "{" + ",".join(str(int(item)) for item in value) + "}"
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False, sort_keys=True).translate(_ESCAPES)
    return str(value)


def _limits(customer: str | None, login: str | None, limits: Mapping[str, Any] | None) -> list[Row]:
    return [
        (
            customer,
            login,
            name,
            limit["max"],
            limit.get("basis"),
            limit.get("enforce") or "hard",
            list(limit.get("warn_at") or ()),
        )
        for name, limit in (limits or {}).items()
    ]


def _customer(rows: dict[str, list[Row]], customer: Mapping[str, Any]) -> None:
    name = customer["name"]
    telephony = customer.get("telephony") or {}
    rows["customers"].append((name, customer["title"], "customer", telephony, customer.get("state") or "active"))
    rows["limits"] += _limits(name, None, customer.get("limits"))
    rows["domains"] += [
        (name, domain["name"], "customer", domain.get("alias_of")) for domain in customer.get("domains") or ()
    ]
    rows["numbers"] += [(name, number) for number in telephony.get("numbers") or ()]
    for user in customer.get("users") or ():
        _user(rows, name, user)
    for group in customer.get("groups") or ():
        _group(rows, name, group)
    rows["resources"] += [(name, resource["name"], resource["address"]) for resource in customer.get("resources") or ()]


def _user(rows: dict[str, list[Row]], customer: str, user: Mapping[str, Any]) -> None:
    login, mail, phone, files = user["login"], user.get("mail"), user.get("phone"), user.get("files")
    rows["users"].append(
        (
            customer,
            login,
            user["name"],
            "person",
            user.get("product"),
            user.get("language"),
            user.get("password_hash"),
            mail is not None,
            mail.get("quota") if mail else None,
            mail.get("keep_copy", True) if mail else True,
            phone,
            files is not None,
            files.get("quota") if files else None,
            _without(files, "quota"),
            user.get("invite"),
            user.get("state") or "active",
        )
    )
    rows["limits"] += _limits(customer, login, user.get("limits"))
    if mail:
        rows["aliases"] += [
            (customer, login, address, "catch_all" if address.startswith("@") else "alias")
            for address in mail.get("aliases") or ()
        ]
        # A forward that is written twice is one forward.
        rows["forwards"] += [(customer, login, target) for target in dict.fromkeys(mail.get("forward") or ())]
    if phone and phone.get("extension"):
        rows["extensions"].append((customer, phone["extension"], login, None))


def _group(rows: dict[str, list[Row]], customer: str, group: Mapping[str, Any]) -> None:
    name, mail, phone, files = group["name"], group.get("mail"), group.get("phone"), group.get("files")
    rows["groups"].append(
        (
            customer,
            name,
            group.get("title"),
            mail["kind"] if mail else None,
            mail.get("quota") if mail else None,
            phone,
            files,
            files.get("quota") if files else None,
            mail["address"] if mail else None,
        )
    )
    rows["members"] += [(customer, name, login) for login in dict.fromkeys(group.get("members") or ())]
    if phone and phone.get("extension"):
        rows["extensions"].append((customer, phone["extension"], None, name))


def _removals(rows: list[Row], remove: Mapping[str, Any]) -> None:
    rows += [("customer", name, name) for name in remove.get("customers") or ()]
    rows += [("user", item["customer"], item["login"]) for item in remove.get("users") or ()]
    rows += [("group", item["customer"], item["name"]) for item in remove.get("groups") or ()]
    rows += [("resource", item["customer"], item["address"]) for item in remove.get("resources") or ()]


def _probe(rows: dict[str, list[Row]], domain: str) -> None:
    rows["customers"].append((PROBE_CUSTOMER, "Verify", "probe", {}, "active"))
    rows["domains"].append((PROBE_CUSTOMER, f"verify.{domain}", "probe", None))
    login = PROBE_LOGIN.format(domain=domain)
    rows["users"].append(
        (
            PROBE_CUSTOMER, login, "Probe", "probe", None, "en", None, True, PROBE_QUOTA, True, None, False, None,
            {}, None, "active",
        )
    )  # fmt: skip


def _without(mapping: Mapping[str, Any] | None, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in (mapping or {}).items() if key not in keys}
