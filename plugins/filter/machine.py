# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of role ``machine``; what they decide is in module_utils/machine.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import machine


def machine_connection(text: str) -> dict[str, Any]:
    """How this run came in."""
    return asdict(machine.connection(text))


def machine_refusals(
    facts: dict[str, Any],
    wanted: dict[str, Any],
    came: dict[str, Any],
    names: list[str],
    known: list[str],
    *,
    password: bool = False,
) -> list[str]:
    """Why the role must not go on."""
    return machine.refusals(facts, wanted, machine.Connection(**came), names, known, password=password)


class FilterModule:
    """Filters of role ``machine``."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {
            "machine_connection": machine_connection,
            "machine_refusals": machine_refusals,
            "machine_floors": machine.floors,
            "machine_kernel": machine.kernel,
            "machine_networks": machine.by_family,
        }
