# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of limits, and what holds when several levels have one."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import limits
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import Invalid
from hypothesis import given
from hypothesis import strategies as st


def ceiling(maximum: int | str, enforce: str = "hard") -> dict[str, Any]:
    return {"max": maximum, "basis": None, "enforce": enforce, "warn_at": []}


def test_every_limit_is_complete() -> None:
    for limit in limits.LIMITS.values():
        assert limit.levels, limit
        assert set(limit.levels) <= set(limits.LEVELS)
        assert limit.enforced, limit
        assert limit.description.endswith("."), limit
        assert bool(limit.bases) == (limit.unit == limits.BYTES)


@pytest.mark.parametrize("name", ["concurrent_calls", "call_spend_per_day", "mail_sent_per_hour"])
def test_calls_money_and_rates_are_always_hard(name: str) -> None:
    assert all(limits.LIMITS[name].hard_at(level) for level in limits.LEVELS)


def test_storage_of_a_person_is_always_hard() -> None:
    assert limits.LIMITS["mail_storage"].hard_at(limits.USER)
    assert not limits.LIMITS["mail_storage"].hard_at(limits.CUSTOMER)


def test_normal_form() -> None:
    assert limits.normal("users", {"max": 5}) == ceiling(5)
    assert limits.normal("users", {"max": 5.0, "enforce": "soft", "warn_at": [95, 80]}) == {
        "max": 5, "basis": None, "enforce": "soft", "warn_at": [80, 95],
    }  # fmt: skip
    assert limits.normal("mail_storage", {"max": "1 GiB"})["basis"] == "used"
    assert limits.normal("mail_storage", {"max": "1 GiB", "basis": "allocated"})["basis"] == "allocated"
    assert limits.normal("call_spend_per_day", {"max": "250"})["max"] == "250.00"
    with pytest.raises(Invalid, match="has no unit"):
        limits.normal("mail_storage", {"max": 5})


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([], None),
        ([("user", {}), ("customer", {}), ("reseller", {})], None),
        ([("user", {}), ("customer", {"users": ceiling(5)}), ("reseller", {"users": ceiling(9)})], (5, "customer")),
        ([("user", {"users": ceiling(7)}), ("customer", {"users": ceiling(5)})], (5, "customer")),
        ([("user", {"users": ceiling(0)}), ("customer", {"users": ceiling(5)})], (0, "user")),
        ([("customer", {"users": ceiling(5, "soft")}), ("reseller", {"users": ceiling(5)})], (5, "reseller")),
        ([("customer", {"users": ceiling(5)}), ("reseller", {"users": ceiling(5)})], (5, "customer")),
    ],
)
def test_the_tightest_holds(levels: list[tuple[str, Any]], expected: tuple[int, str] | None) -> None:
    found = limits.effective("users", *levels)
    assert (found and (found.max, found.level)) == expected


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=3))
def test_the_tightest_is_the_smallest(values: list[int]) -> None:
    levels = [(level, {"users": ceiling(value)}) for level, value in zip(limits.LEVELS, values, strict=False)]
    found = limits.effective("users", *levels)
    assert found is not None
    assert found.max == min(values)
    assert (limits.above("users", min(values) + 1, levels)) == found
    assert limits.above("users", min(values), levels) is None


def test_money_is_compared_as_money() -> None:
    parents = [("reseller", {"call_spend_per_day": ceiling("9.99")})]
    assert limits.above("call_spend_per_day", "10.00", parents) is not None
    assert limits.above("call_spend_per_day", "9.990", parents) is None
    assert limits.text("call_spend_per_day", "9.99") == "9.99"
    assert limits.text("mail_storage", 2**30) == "1 GiB"


def test_override_is_merged_field_by_field() -> None:
    plan = {"users": {"max": 50, "enforce": "soft", "warn_at": [80]}, "domains": {"max": 5}}
    override = {"users": {"max": 60}, "customers": {"max": 1}, "domains": None}
    assert limits.merged(plan, override) == {
        "users": {"max": 60, "enforce": "soft", "warn_at": [80]},
        "domains": None,
        "customers": {"max": 1},
    }
    assert plan == {"users": {"max": 50, "enforce": "soft", "warn_at": [80]}, "domains": {"max": 5}}


@pytest.mark.parametrize(("count", "expected"), [(7, None), (8, 80), (9, 80), (10, 95)])
def test_warned(count: int, expected: int | None) -> None:
    assert limits.warned(count, {"max": 10, "warn_at": [80, 95]}) == expected


def test_nothing_warns_at_a_limit_of_none() -> None:
    assert limits.warned(0, {"max": 0, "warn_at": [80]}) is None


def test_table_has_every_limit() -> None:
    table = limits.table(dict.fromkeys(limits.LEVELS, "x"))
    assert table.count("\n") == len(limits.LIMITS) + 1
    assert "| `concurrent_calls` | number | yes | yes | yes |  | no |" in table
