# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter `lab_machines`: which inventory hosts are machines of the lab."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab import machines_of_inventory


class FilterModule:
    """Filters of the lab."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {"lab_machines": machines_of_inventory}
