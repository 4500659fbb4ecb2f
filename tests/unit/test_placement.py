# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines serve the resellers that are placed on them, and hold those certificates only."""

from __future__ import annotations

from ansible_collections.bouwsteen.hosting.plugins.filter.placement import FilterModule

CONTRACTS = {
    "zuid": {"reseller_domain": "zuid.example", "reseller_machines": {"mail": "mail2", "exchange": "mail1"}},
    "noord": {"reseller_domain": "noord.example", "reseller_machines": {"mail": "mail1"}},
    "overal": {"reseller_domain": "overal.example", "reseller_machines": None},
    "m1": {},
}
RESELLERS = ["zuid", "noord", "overal"]
FILTERS = FilterModule().filters()


def test_a_reseller_is_served_where_he_is_placed() -> None:
    placed = FILTERS["resellers_placed"]
    assert [reseller["name"] for reseller in placed(CONTRACTS, RESELLERS, "mail", "mail1")] == ["noord", "overal"]
    assert placed(CONTRACTS, RESELLERS, "mail", "mail2") == [
        {"name": "overal", "domain": "overal.example"},
        {"name": "zuid", "domain": "zuid.example"},
    ]


def test_every_reseller_has_a_certificate_of_his_own() -> None:
    resellers = [{"name": "noord", "domain": "noord.example"}]
    certificates = FILTERS["machine_certificates"]
    assert certificates(resellers, "m1", ["machines", "mail", "directory"]) == [
        {"name": "m1", "names": ["m1"], "services": ["postfix", "dovecot", "postgresql@17-main"]},
        {"name": "mail.noord.example", "names": ["mail.noord.example"], "services": ["postfix", "dovecot"]},
    ]
    assert certificates(resellers, "db1", ["machines", "directory"]) == [
        {"name": "db1", "names": ["db1"], "services": ["postgresql@17-main"]}
    ]
    assert certificates(resellers, "x1", ["machines"]) == []
