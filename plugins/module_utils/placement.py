# SPDX-License-Identifier: GPL-3.0-or-later
"""Which resellers a machine serves, and which certificates it needs for that."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import brand

# What logs in at the directory from a machine with a function.
DIRECTORY_ROLES = {"mail": ["postfix", "dovecot", "_rspamd"], "groupware": ["sogo", "portal"]}
# Functions that work through each other on one machine: the gateway speaks HTTP for the other two, and a login that the
# portal lets pass goes to the groupware beside it.
TOGETHER = {"groupware": ("web_gateway", "portal")}
# What a reseller's people reach through the gateway, each with a name below his domain.
SITES = ("webmail", "account", "autodiscover", "autoconfig")


def placed(contracts: Mapping[str, Mapping[str, Any]], function: str, machine: str) -> list[dict[str, str]]:
    """Resellers whose `function` is on `machine`, as `{"name", "domain"}`, sorted by name.

    A contract that names no machine for a function is served by every machine that has it: with one machine there is
    nothing to write, and check.yml refuses a contract without placement where there are several.
    """
    result = []
    for name in sorted(contracts):
        contract = contracts[name]
        machines = contract.get("reseller_machines") or {}
        if machines.get(function, machine) == machine:
            result.append({"name": name, "domain": str(contract["reseller_domain"])})
    return result


def branded(contracts: Mapping[str, Mapping[str, Any]], function: str, machine: str) -> list[dict[str, Any]]:
    """As `placed`, with `title` and `brand` besides: what pages that carry the reseller's name need to know."""
    return [
        {
            **reseller,
            "title": str(contracts[reseller["name"]].get("reseller_title", reseller["name"])),
            "brand": brand.normal(reseller["name"], contracts[reseller["name"]].get("reseller_brand")),
        }
        for reseller in placed(contracts, function, machine)
    ]


def incomplete(groups: Mapping[str, Iterable[str]]) -> list[tuple[str, str, str]]:
    """Machines that lack a function which one of theirs cannot work without, as (machine, function, what it lacks)."""
    return [
        (machine, function, other)
        for function, others in TOGETHER.items()
        for machine in sorted(groups.get(function, ()))
        for other in others
        if machine not in groups.get(other, ())
    ]


def certificates(
    machine: str, functions: Iterable[str], contracts: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What role certificates has to hold on a machine with these functions, in the form of `certificates_wanted`.

    The machine's own name is neutral; each reseller's names have a certificate of their own, so that none of them can
    be read from another's. `contracts`: all resellers' variables by name. Raises ValueError for a machine that lacks a
    function which another of its functions cannot work without.
    """
    functions = list(functions)
    for _, function, other in incomplete({function: [machine] for function in functions}):
        raise ValueError(
            f"{machine}: is in group {function}, and not in {other}, which {function} works through; "
            f"put it in {' and '.join(TOGETHER[function])} as well"
        )
    present = set(functions)
    wanted: list[dict[str, Any]] = []
    if "directory" in present:
        # Its clients are the site's own machines, which trust the site's own CA for it.
        services = ["postgresql@17-main"]
        wanted.append({"name": "directory", "names": [machine], "services": services, "issuer": "site_ca"})
    if "mail" in present:
        wanted.append({"name": machine, "names": [machine], "services": ["postfix", "dovecot"]})
        for reseller in placed(contracts, "mail", machine):
            name = f"mail.{reseller['domain']}"
            wanted.append({"name": name, "names": [name], "services": ["postfix", "dovecot"]})
    if "groupware" in present:
        for reseller in placed(contracts, "groupware", machine):
            names = [f"{site}.{reseller['domain']}" for site in SITES]
            wanted.append({"name": names[0], "names": names, "services": ["nginx"]})
    return wanted


def addresses(variables: Mapping[str, Any]) -> list[str]:
    """A machine's IP addresses: `machine_addresses`, else `ansible_host` where that is one; none when unknown."""
    found = []
    for address in variables.get("machine_addresses") or [variables.get("ansible_host", "")]:
        try:
            found.append(str(ipaddress.ip_interface(str(address)).ip))
        except ValueError:
            continue
    return found


def directory_clients(
    hosts: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Iterable[str]]
) -> list[dict[str, Any]]:
    """Machines that log in at a directory elsewhere, in the form of `directory_clients`: one item an address.

    `hosts` is each machine to its variables, `groups` the inventory's. Raises ValueError for a machine whose address is
    not known as one: PostgreSQL admits addresses, and a name would be looked up at the wrong moment.
    """
    roles: dict[str, list[str]] = {}
    for function, names in DIRECTORY_ROLES.items():
        for machine in set(groups.get(function, ())) - set(groups.get("directory", ())):
            roles.setdefault(machine, []).extend(names)
    result = []
    for machine in sorted(roles):
        found = addresses(hosts[machine])
        if not found:
            raise ValueError(f"{machine}: no IP address is known; set its addresses in machine_addresses")
        for address in found:
            network = ipaddress.ip_network(address)
            result.append({"certificate": machine, "address": str(network), "roles": roles[machine]})
    return result
