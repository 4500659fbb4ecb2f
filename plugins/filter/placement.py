# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters with which playbooks wire resellers to machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.bouwsteen.hosting.plugins.module_utils import placement
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import Invalid


def resellers_placed(
    hostvars: Mapping[str, Mapping[str, Any]], resellers: list[str], function: str, machine: str
) -> Any:
    """Resellers whose function is on this machine; see resellers_placed.yml."""
    return placement.placed({name: hostvars[name] for name in resellers}, function, machine)


def resellers_branded(
    hostvars: Mapping[str, Mapping[str, Any]], resellers: list[str], function: str, machine: str
) -> Any:
    """The same with their titles and brands; see resellers_branded.yml."""
    try:
        return placement.branded({name: hostvars[name] for name in resellers}, function, machine)
    except Invalid as invalid:
        raise AnsibleFilterError(f"reseller_brand: {invalid}") from invalid


def machine_certificates(
    hostvars: Mapping[str, Mapping[str, Any]], resellers: list[str], machine: str, functions: list[str]
) -> Any:
    """Certificates that this machine needs; see machine_certificates.yml."""
    try:
        return placement.certificates(machine, functions, {name: hostvars[name] for name in resellers})
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def directory_clients(hostvars: Mapping[str, Mapping[str, Any]], groups: Mapping[str, list[str]]) -> Any:
    """Machines that log in at a directory elsewhere; see directory_clients.yml."""
    try:
        return placement.directory_clients(hostvars, groups)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def machine_address(variables: Mapping[str, Any]) -> str:
    """The first IP address of a machine; see machine_address.yml."""
    return next(iter(placement.addresses(variables)), "")


class FilterModule:
    """Ansible's way to find the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "directory_clients": directory_clients,
            "machine_address": machine_address,
            "machine_certificates": machine_certificates,
            "resellers_branded": resellers_branded,
            "resellers_placed": resellers_placed,
        }
