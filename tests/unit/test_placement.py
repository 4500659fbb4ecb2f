# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines serve the resellers that are placed on them, and hold those certificates only."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.bouwsteen.hosting.plugins.filter.placement import FilterModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import brand
from ansible_collections.bouwsteen.hosting.plugins.module_utils.placement import incomplete

CONTRACTS: dict[str, dict[str, Any]] = {
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


def test_every_reseller_has_certificates_of_his_own() -> None:
    def certificates(machine: str, functions: list[str]) -> object:
        return FILTERS["machine_certificates"](CONTRACTS, ["noord"], machine, functions)

    assert certificates("mail1", ["machines", "mail", "directory"]) == [
        {"name": "directory", "names": ["mail1"], "services": ["postgresql@17-main"], "issuer": "site_ca"},
        {"name": "mail1", "names": ["mail1"], "services": ["postfix", "dovecot"]},
        {"name": "mail.noord.example", "names": ["mail.noord.example"], "services": ["postfix", "dovecot"]},
    ]
    assert certificates("mail2", ["mail"]) == [
        {"name": "mail2", "names": ["mail2"], "services": ["postfix", "dovecot"]}
    ]
    assert certificates("db1", ["machines", "directory"]) == [
        {"name": "directory", "names": ["db1"], "services": ["postgresql@17-main"], "issuer": "site_ca"}
    ]
    assert certificates("x1", ["machines"]) == []
    assert certificates("web1", ["groupware", "web_gateway", "portal"]) == [
        {
            "name": "webmail.noord.example",
            "names": [
                "webmail.noord.example",
                "account.noord.example",
                "autodiscover.noord.example",
                "autoconfig.noord.example",
            ],
            "services": ["nginx"],
        }
    ]


def test_certificates_follow_the_function_that_a_reseller_is_placed_for() -> None:
    contracts = {"noord": {"reseller_domain": "n.example", "reseller_machines": {"mail": "a", "groupware": "b"}}}
    functions = ["mail", "groupware", "web_gateway", "portal"]
    found = {
        machine: [one["name"] for one in FILTERS["machine_certificates"](contracts, ["noord"], machine, functions)]
        for machine in ("a", "b")
    }
    assert found == {"a": ["a", "mail.n.example"], "b": ["b", "webmail.n.example"]}


def test_groupware_without_what_it_works_through_is_refused() -> None:
    expected = (
        "^m1: is in group groupware, and not in portal, which groupware works through; "
        "put it in web_gateway and portal as well$"
    )
    with pytest.raises(AnsibleFilterError, match=expected):
        FILTERS["machine_certificates"]({}, [], "m1", ["groupware", "web_gateway"])
    assert incomplete({"groupware": ["m1", "m2"], "web_gateway": ["m1"], "portal": ["m1", "m2"]}) == [
        ("m2", "groupware", "web_gateway")
    ]


def test_machines_log_in_at_a_directory_elsewhere_from_their_addresses() -> None:
    hosts = {
        "m1": {"ansible_host": "192.0.2.1"},
        "m2": {"ansible_host": "192.0.2.2", "machine_addresses": ["192.0.2.2", "2001:db8::2/64"]},
        "m3.example": {},
        "m4": {"ansible_host": "192.0.2.4"},
    }
    clients = FILTERS["directory_clients"]
    roles = ["postfix", "dovecot", "_rspamd"]
    assert clients(hosts, {"mail": ["m2", "m1"], "directory": ["m1"]}) == [
        {"certificate": "m2", "address": "192.0.2.2/32", "roles": roles},
        {"certificate": "m2", "address": "2001:db8::2/128", "roles": roles},
    ]
    assert clients(hosts, {"mail": ["m2"], "groupware": ["m4", "m2", "m1"], "directory": ["m1"]}) == [
        {"certificate": "m2", "address": "192.0.2.2/32", "roles": [*roles, "sogo", "portal"]},
        {"certificate": "m2", "address": "2001:db8::2/128", "roles": [*roles, "sogo", "portal"]},
        {"certificate": "m4", "address": "192.0.2.4/32", "roles": ["sogo", "portal"]},
    ]
    assert clients(hosts, {"mail": ["m1"], "groupware": ["m1"], "directory": ["m1"]}) == []
    with pytest.raises(AnsibleFilterError, match=r"m3\.example: no IP address is known; set its addresses"):
        clients(hosts, {"mail": ["m3.example"], "directory": ["m1"]})


def test_pages_know_titles_and_brands() -> None:
    contracts: dict[str, dict[str, Any]] = {
        "noord": {
            "reseller_domain": "noord.example",
            "reseller_title": "Noord",
            "reseller_brand": {"logo": "/srv/noord.svg", "colour": "#0B5394"},
        },
        "zuid": {"reseller_domain": "zuid.example", "reseller_title": "Zuid"},
    }
    branded = FILTERS["resellers_branded"]
    assert branded(contracts, ["noord", "zuid"], "groupware", "m1") == [
        {
            "name": "noord",
            "domain": "noord.example",
            "title": "Noord",
            "brand": {"logo": "/srv/noord.svg", "colour": "#0b5394", "support": ""},
        },
        {
            "name": "zuid",
            "domain": "zuid.example",
            "title": "Zuid",
            "brand": {"logo": "", "colour": brand.derived_colour("zuid"), "support": ""},
        },
    ]
    contracts["zuid"]["reseller_brand"] = {"colour": "red; }"}
    with pytest.raises(AnsibleFilterError, match=r"^reseller_brand: is no colour; allowed: six hexadecimal digits"):
        branded(contracts, ["zuid"], "groupware", "m1")


def test_a_machine_is_reached_by_its_first_address() -> None:
    address = FILTERS["machine_address"]
    assert (
        address({"ansible_host": "db1.example", "machine_addresses": ["2001:db8::1/64", "192.0.2.1"]}) == "2001:db8::1"
    )
    assert address({"ansible_host": "192.0.2.1"}) == "192.0.2.1"
    assert address({"ansible_host": "db1.example"}) == ""
