# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter of role ``telephony_image``; what it decides is in module_utils/telephony_image.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import telephony_image


class FilterModule:
    """Ansible's way to find the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"telephony_image_refusals": telephony_image.refusals}
