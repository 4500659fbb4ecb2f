# SPDX-License-Identifier: GPL-3.0-or-later
"""What a reconcile changes, for people: which operation it is, which fields, secrets masked, and how many of each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import printable

CREATED, CHANGED, SUSPENDED, RESUMED, REMOVED = "created", "changed", "suspended", "resumed", "removed"
OPERATIONS = (CREATED, CHANGED, SUSPENDED, RESUMED, REMOVED)
# In the order of the diff: from the contract down to what a person has.
KINDS = (
    "reseller", "products", "limits", "customers", "domains", "users", "groups", "resources", "addresses", "forwards",
    "members", "extensions", "numbers", "probe",
)  # fmt: skip

SECRET_COLUMNS = {"password_hash": "password", "password_first": "first password"}
# Part of a row, but no news to a person: ids (the name says who it is) and times that follow from the state.
HIDDEN_COLUMNS = {
    "reseller_id", "customer_id", "user_id", "group_id", "resource_id", "domain_id", "owner_id", "kind", "suspended_at",
}  # fmt: skip
# What a new row has unless somebody wrote otherwise: not worth a line.
USUAL = {"state": "active", "keep_copy": True, "enforce": "hard"}
SIZE_COLUMNS = {"mail_quota", "file_quota"}
# Keys inside phone and other free structures whose value is nobody's business.
SECRET_WORDS = ("password", "secret", "pin", "token")


@dataclass(frozen=True)
class Change:
    """One row that differs. `fields`: column -> (before, after), each in JSON's types and already masked."""

    kind: str
    name: str
    operation: str
    customer: str | None = None
    fields: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "customer": self.customer,
            "operation": self.operation,
            "fields": {name: list(pair) for name, pair in self.fields.items()},
        }


def fields_of(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, columns: Iterable[str]
) -> dict[str, tuple[Any, Any]]:
    """The fields that a person wants to read, in the order of `columns`: what differs; of a new row all that it has
    besides the usual; of a removed one nothing."""
    if after is None:
        return {}
    result: dict[str, tuple[Any, Any]] = {}
    for column in columns:
        value, old = after[column], before[column] if before is not None else None
        if column in HIDDEN_COLUMNS or value == old:
            continue
        if before is None and (_nothing(value) or value == USUAL.get(column) or column == "password_first"):
            continue
        if column in SECRET_COLUMNS:
            result[SECRET_COLUMNS[column]] = _secret(old, value)
        else:
            result[column] = (_human(column, old), _human(column, value))
    return result


def amount_text(amount: Decimal | int, unit: str) -> str:
    """An amount as the directory's own errors write it: bytes in the largest unit that needs at most two decimals."""
    number = Decimal(amount)
    if unit == "bytes" and number:
        for size, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            part = number / size
            if part >= 1 and part == round(part, 2):
                return f"{_plain(part)} {name}"
        return f"{_plain(number)} bytes"
    return _plain(number)


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _human(column: str, value: Any) -> Any:
    if column in SIZE_COLUMNS and value is not None:
        return amount_text(value, "bytes")
    return mask(value)


def _nothing(value: Any) -> bool:
    """Whether a field of a new row says nothing. A limit of 0 does say something."""
    return value is None or value is False or value in ("", {}, [])


def _secret(old: Any, new: Any) -> tuple[str | None, str | None]:
    if old is None:
        return None, "set"
    return "set", None if new is None else "changed"


def mask(value: Any) -> Any:
    """A value without what is secret in it: telephone passwords, PINs, tokens, at any depth."""
    if isinstance(value, Mapping):
        return {
            key: "***" if any(word in str(key).lower() for word in SECRET_WORDS) else mask(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [mask(item) for item in value]
    return value


def empty_counts() -> dict[str, dict[str, int]]:
    return {kind: dict.fromkeys((*OPERATIONS, "unchanged"), 0) for kind in KINDS}


def summary(counts: Mapping[str, Mapping[str, int]]) -> str:
    """One line for the recap: `users 2 created, 1 suspended; addresses 3 created` or `nothing to do (31 users)`."""
    parts = []
    for kind, numbers in counts.items():
        done = [f"{numbers[operation]} {operation}" for operation in OPERATIONS if numbers[operation]]
        if done:
            parts.append(f"{kind} {', '.join(done)}")
    return "; ".join(parts) or f"nothing to do ({counts['users']['unchanged']} users)"


def render(changes: Sequence[Change], counts: Mapping[str, Mapping[str, int]]) -> str:
    """The text that --diff shows. What is longer than the list of changes is told as a number per kind."""
    lines: list[str] = []
    for kind in KINDS:
        mine = sorted((change for change in changes if change.kind == kind), key=lambda change: change.name)
        for change in mine:
            lines += _lines(change)
        more = sum(counts[kind][operation] for operation in OPERATIONS) - len(mine)
        if more > 0:
            lines.append(f"{kind}: ... and {more} more")
    return "".join(f"{line}\n" for line in lines)


def _lines(change: Change) -> Iterable[str]:
    where = f" (customer {change.customer})" if change.customer and change.kind != "customers" else ""
    yield f"{change.kind} {printable(change.name)}{where}: {change.operation}"
    for name, (old, new) in change.fields.items():
        if old not in (None, {}):
            yield f"-  {name}: {_text(old)}"
        if new not in (None, {}):
            yield f"+  {name}: {_text(new)}"


def _text(value: Any) -> str:
    return printable(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
