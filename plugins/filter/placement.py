# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters with which playbooks wire resellers to machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import placement


def resellers_placed(
    hostvars: Mapping[str, Mapping[str, Any]], resellers: list[str], function: str, machine: str
) -> Any:
    """Resellers whose function is on this machine; see resellers_placed.yml."""
    return placement.placed({name: hostvars[name] for name in resellers}, function, machine)


def machine_certificates(resellers: list[dict[str, str]], machine: str, functions: list[str]) -> Any:
    """Certificates that this machine needs; see machine_certificates.yml."""
    return placement.certificates(machine, functions, resellers)


class FilterModule:
    """Ansible's way to find the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"resellers_placed": resellers_placed, "machine_certificates": machine_certificates}
