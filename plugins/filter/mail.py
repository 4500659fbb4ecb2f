# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of roles ``mail`` and ``resolver``; what they decide is in module_utils/mail_settings.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import mail_settings


class FilterModule:
    """Ansible's way to find the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"mail_refusals": mail_settings.mail, "resolver_refusals": mail_settings.resolver}
