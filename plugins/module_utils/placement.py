# SPDX-License-Identifier: GPL-3.0-or-later
"""Which resellers a machine serves, and which certificates it needs for that."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

# What logs in at the directory from a mail machine.
MAIL_ROLES = ["postfix", "dovecot", "_rspamd"]


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


def certificates(machine: str, functions: Iterable[str], resellers: list[dict[str, str]]) -> list[dict[str, Any]]:
    """What role certificates has to hold on a machine with these functions, in the form of `certificates_wanted`.

    The machine's own name is neutral; each reseller's name has a certificate of its own, so that none of them can be
    read from another's.
    """
    present = set(functions)
    wanted: list[dict[str, Any]] = []
    if "directory" in present:
        # Its clients are the site's own machines, which trust the site's own CA for it.
        services = ["postgresql@17-main"]
        wanted.append({"name": "directory", "names": [machine], "services": services, "issuer": "site_ca"})
    if "mail" in present:
        wanted.append({"name": machine, "names": [machine], "services": ["postfix", "dovecot"]})
        for reseller in resellers:
            name = f"mail.{reseller['domain']}"
            wanted.append({"name": name, "names": [name], "services": ["postfix", "dovecot"]})
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


def directory_clients(hosts: Mapping[str, Mapping[str, Any]], directory: Iterable[str]) -> list[dict[str, Any]]:
    """Mail machines that are not a directory themselves, in the form of `directory_clients`: one item an address.

    `hosts` is each mail machine to its variables. Raises ValueError for a machine whose address is not known as one:
    PostgreSQL admits addresses, and a name would be looked up at the wrong moment.
    """
    result = []
    own = set(directory)
    for machine in sorted(set(hosts) - own):
        found = addresses(hosts[machine])
        if not found:
            raise ValueError(f"{machine}: no IP address is known; set its addresses in machine_addresses")
        for address in found:
            network = ipaddress.ip_network(address)
            result.append({"certificate": machine, "address": str(network), "roles": MAIL_ROLES})
    return result
