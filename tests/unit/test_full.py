# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines about who is full."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import full

ROW: dict[str, Any] = {
    "reseller": "noorderict", "customer": "bakkerij", "user": None, "level": "customer", "limit": "users",
    "unit": "count",
    "max": Decimal("12.00"), "in_use": Decimal(10), "percent": Decimal("83.3"), "over": False, "enforce": "hard",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "customer bakkerij: users 10 of 12 (83.3 %)"),
        (
            {"in_use": Decimal(12), "percent": Decimal("100.0")},
            "customer bakkerij: users 12 of 12 (100 %), refuses more",
        ),
        (
            {"level": "reseller", "in_use": Decimal(13), "percent": Decimal("108.3"), "enforce": "soft"},
            "all customers together: users 13 of 12 (108.3 %), lets more through",
        ),
        (
            {"max": Decimal(0), "in_use": Decimal(1), "percent": None},
            "customer bakkerij: users 1 of 0 (none allowed), refuses more",
        ),
        (
            {
                "level": "user", "user": "jan@degraaf.example", "limit": "mail_storage", "unit": "bytes",
                "max": 2**30, "in_use": 2**29, "percent": Decimal("50.0"),
            },
            "jan@degraaf.example: mail_storage 512 MiB of 1 GiB (50 %)",
        ),
    ],
)  # fmt: skip
def test_a_line(changes: dict[str, Any], line: str) -> None:
    assert full.line(ROW | changes) == line


def test_every_reseller_has_a_list_of_his_own() -> None:
    found = full.report([ROW], ["noorderict", "zuidwest"])
    assert found == {"noorderict": ["customer bakkerij: users 10 of 12 (83.3 %)"], "zuidwest": []}


def test_the_view_answers_the_query(accounts: Any, database: Any) -> None:
    reseller = accounts.reseller()
    accounts.customer(reseller)
    accounts.limit(reseller, "customers", 1, warn_at=[80])
    assert database.rows(full.QUERY, (["zuidwest"],)) == []
    [row] = database.rows(full.QUERY, (["noorderict"],))
    assert row[:5] == ("noorderict", None, None, "reseller", "customers")
