# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines serve the resellers that are placed on them, and hold those certificates only."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
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
        {"name": "directory", "names": ["m1"], "services": ["postgresql@17-main"], "issuer": "site_ca"},
        {"name": "m1", "names": ["m1"], "services": ["postfix", "dovecot"]},
        {"name": "mail.noord.example", "names": ["mail.noord.example"], "services": ["postfix", "dovecot"]},
    ]
    assert certificates(resellers, "db1", ["machines", "directory"]) == [
        {"name": "directory", "names": ["db1"], "services": ["postgresql@17-main"], "issuer": "site_ca"}
    ]
    assert certificates(resellers, "x1", ["machines"]) == []


def test_mail_machines_log_in_at_a_directory_elsewhere_from_their_addresses() -> None:
    hosts = {
        "m1": {"ansible_host": "192.0.2.1"},
        "m2": {"ansible_host": "192.0.2.2", "machine_addresses": ["192.0.2.2", "2001:db8::2/64"]},
        "m3.example": {},
    }
    clients = FILTERS["directory_clients"]
    roles = ["postfix", "dovecot", "_rspamd"]
    assert clients(hosts, ["m2", "m1"], ["m1"]) == [
        {"certificate": "m2", "address": "192.0.2.2/32", "roles": roles},
        {"certificate": "m2", "address": "2001:db8::2/128", "roles": roles},
    ]
    assert clients(hosts, ["m1"], ["m1"]) == []
    with pytest.raises(AnsibleFilterError, match=r"m3\.example: no IP address is known; set its addresses"):
        clients(hosts, ["m3.example"], ["m1"])


def test_a_machine_is_reached_by_its_first_address() -> None:
    address = FILTERS["machine_address"]
    assert (
        address({"ansible_host": "db1.example", "machine_addresses": ["2001:db8::1/64", "192.0.2.1"]}) == "2001:db8::1"
    )
    assert address({"ansible_host": "192.0.2.1"}) == "192.0.2.1"
    assert address({"ansible_host": "db1.example"}) == ""
