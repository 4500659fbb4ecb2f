# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is over or near what he may use, as lines for people. The rows are those of the directory's view full_status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import limits, units

QUERY = """
SELECT reseller, customer, "user", level, "limit", unit, max, in_use, percent, over, enforce
FROM directory.full_status WHERE reseller = ANY (%s)
ORDER BY reseller, customer NULLS FIRST, "user" NULLS FIRST, "limit"
"""


def amount(unit: str, value: Any) -> str:
    """A limit's value for people: a size, or a number without needless zeros."""
    if unit == limits.BYTES:
        return units.human_size(int(value))
    return f"{Decimal(value).normalize():f}"


def line(row: Mapping[str, Any]) -> str:
    """One who is full or nearly: whose, what, how much of how much, and what happens.

    >>> line({"reseller": "a", "customer": "b", "user": None, "level": "customer", "limit": "users", "unit": "count",
    ...       "max": 10, "in_use": 9, "percent": 90, "over": False, "enforce": "hard"})
    'customer b: users 9 of 10 (90 %)'
    """
    who = {"reseller": "all customers together", "customer": f"customer {row['customer']}", "user": str(row["user"])}
    share = "none allowed" if row["percent"] is None else f"{Decimal(row['percent']).normalize():f} %"
    what = f"{row['limit']} {amount(row['unit'], row['in_use'])} of {amount(row['unit'], row['max'])} ({share})"
    full = row["in_use"] >= row["max"]
    state = "" if not full else ", refuses more" if row["enforce"] == limits.HARD else ", lets more through"
    return f"{who[row['level']]}: {what}{state}"


def report(rows: Iterable[Mapping[str, Any]], resellers: Iterable[str]) -> dict[str, list[str]]:
    """The lines of each reseller, in the order of the rows; empty for who has nothing to report."""
    result: dict[str, list[str]] = {reseller: [] for reseller in resellers}
    for row in rows:
        result[row["reseller"]].append(line(row))
    return result
