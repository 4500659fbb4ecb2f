# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters with which playbooks wire resellers to machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.bouwsteen.hosting.plugins.module_utils import placement


def resellers_placed(
    hostvars: Mapping[str, Mapping[str, Any]], resellers: list[str], function: str, machine: str
) -> Any:
    """Resellers whose function is on this machine; see resellers_placed.yml."""
    return placement.placed({name: hostvars[name] for name in resellers}, function, machine)


def machine_certificates(resellers: list[dict[str, str]], machine: str, functions: list[str]) -> Any:
    """Certificates that this machine needs; see machine_certificates.yml."""
    return placement.certificates(machine, functions, resellers)


def directory_clients(hostvars: Mapping[str, Mapping[str, Any]], mail: list[str], directory: list[str]) -> Any:
    """Mail machines that log in at a directory elsewhere; see directory_clients.yml."""
    try:
        return placement.directory_clients({name: hostvars[name] for name in mail}, directory)
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
            "resellers_placed": resellers_placed,
        }
