# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter with which dns.yml makes facts of hosts' variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import dns_records


def dns_machine(variables: Mapping[str, Any]) -> Any:
    """What DNS says of a machine; see dns_machine.yml."""
    return dns_records.machine_facts(variables)


class FilterModule:
    """Ansible's way to find the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"dns_machine": dns_machine}
