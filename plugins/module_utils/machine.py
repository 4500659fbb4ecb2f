# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions of role ``machine``: what it refuses before it touches anything, and lists that it puts together."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import packages


@dataclass(frozen=True, slots=True)
class Connection:
    """How a run came in: the control node's address, the port of sshd, the user. Empty and 0 without ssh."""

    address: str = ""
    port: int = 0
    user: str = ""


def connection(text: str) -> Connection:
    """Read `$SSH_CONNECTION` and the user, as the role prints them: `192.0.2.1 50000 192.0.2.10 22 root`.

    Without ssh only the user is there.
    """
    words = text.split()
    if len(words) != 5:
        return Connection(user=words[0] if len(words) == 1 else "")
    return Connection(words[0].partition("%")[0], int(words[3]), words[4])


def inside(address: str, networks: Iterable[str]) -> bool:
    """Whether an address lies in one of the networks; an IPv4 address in IPv6 form counts as IPv4."""
    found = ipaddress.ip_address(address)
    plain = getattr(found, "ipv4_mapped", None) or found
    return any(plain in ipaddress.ip_network(network, strict=False) for network in networks)


def by_family(networks: Iterable[str]) -> dict[str, list[str]]:
    """Split addresses and networks into `ip` and `ip6`, as nftables calls them."""
    result: dict[str, list[str]] = {"ip": [], "ip6": []}
    for network in networks:
        result["ip" if ipaddress.ip_network(network, strict=False).version == 4 else "ip6"].append(network)
    return result


def _bad_networks(name: str, networks: Iterable[str]) -> list[str]:
    problems = []
    for network in networks:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            problems.append(f"{name}: {network!r} is neither an address nor a network such as 192.0.2.0/24")
    return problems


def refusals(
    facts: Mapping[str, Any],
    wanted: Mapping[str, Any],
    came: Connection,
    names: Iterable[str],
    known: Iterable[str],
    *,
    password: bool,
) -> list[str]:
    """Why the role must not go on, one line each; every reason, not only the first.

    `facts`: ansible_facts, `wanted`: the role's variables without their prefix, `names`: variables of the host that
    begin with the role's prefix, `known`: those that the role has. `password`: the run logs in with one.
    """
    lines: list[str] = []
    system = f"{facts.get('distribution', 'unknown')} {facts.get('distribution_version', '')}".strip()
    if facts.get("distribution") != "Debian" or str(facts.get("distribution_major_version")) != "13":
        lines.append(f"this machine runs {system}; the product is made for Debian 13 (trixie)")
    unknown = sorted(set(names) - set(known))
    if unknown:
        lines.append(
            f"role machine does not know {', '.join(unknown)}; its variables are listed in roles/machine/README.md"
        )
    if wanted["locale"] not in {line.split(" ")[0] for line in wanted["locales"]} | {"C.UTF-8"}:
        lines.append(f"machine_locale: {wanted['locale']} is not one of machine_locales")
    networks = _bad_networks("machine_ssh_sources", wanted["ssh_sources"])
    networks += _bad_networks("machine_ssh_control_addresses", wanted["ssh_control_addresses"])
    networks += _bad_networks("machine_addresses", wanted["addresses"])
    lines += networks
    if password:
        lines.append(
            "this run logs in with a password, and sshd is about to allow keys only: put a key on the machine first"
        )
    if came.address and not networks and wanted["ssh_sources"] and not inside(came.address, wanted["ssh_sources"]):
        lines.append(
            f"machine_ssh_sources does not contain {came.address}, where this run comes from: it would shut itself out"
        )
    users = {user.partition("@")[0] for user in wanted["ssh_users"]}
    if came.user and users and came.user not in users:
        lines.append(
            f"machine_ssh_users does not contain {came.user}, as whom this run logs in: it would shut itself out"
        )
    return lines


def floors(tested: Iterable[Mapping[str, str]], wanted: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Name -> lowest version, of two lists of floors; the higher one counts."""
    result: dict[str, str] = {}
    for floor in [*tested, *wanted]:
        name, version = str(floor["name"]), str(floor["version"])
        if name not in result or packages.compare_versions(version, result[name]) > 0:
            result[name] = version
    return dict(sorted(result.items()))


def kernel(own: Iterable[Mapping[str, str]], wanted: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Name -> value of kernel settings; what the operator wants beats what the role has."""
    return {str(setting["name"]): str(setting["value"]) for setting in [*own, *wanted]}
