# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of role ``web_gateway``; what they decide is in module_utils/web_gateway.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.bouwsteen.hosting.plugins.module_utils import brand, web_gateway
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import Invalid


def web_gateway_faces(resellers: Sequence[Mapping[str, Any]], directory: str) -> Any:
    """Files of resellers' brands; see web_gateway_faces.yml."""
    return web_gateway.faces(resellers, directory)


def web_gateway_logo_type(reseller: Mapping[str, Any]) -> str:
    """Media type of a reseller's logo; see web_gateway_logo_type.yml."""
    try:
        return web_gateway.logo_type(reseller)
    except Invalid as invalid:
        raise AnsibleFilterError(f"logo of {reseller['name']}: {invalid}") from invalid


class FilterModule:
    """Ansible's way to find the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "brand_escaped": brand.escaped,
            "web_gateway_faces": web_gateway_faces,
            "web_gateway_logo_type": web_gateway_logo_type,
            "web_gateway_refusals": web_gateway.refusals,
            "web_gateway_servers": web_gateway.servers,
        }
