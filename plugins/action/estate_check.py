# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks contracts and customers' files on the control node; no machine is asked anything.

The files are read here and not through variables, so nothing that a reseller writes is ever a template.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.bouwsteen.hosting.plugins.module_utils.estate import load_site
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import PRINTED_AT_MOST, report

GROUP = "resellers"


class ActionModule(ActionBase):
    """See module estate_check."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, values = self.validate_argument_spec(
            argument_spec={
                "resellers": {"type": "list", "elements": "str"},
                "show": {"type": "int", "default": PRINTED_AT_MOST},
            }
        )
        groups = {str(name): [str(host) for host in hosts] for name, hosts in task_vars["groups"].items()}
        names = values["resellers"] if values["resellers"] is not None else groups.get(GROUP, [])
        unknown = sorted(set(names) - set(groups.get(GROUP, [])))
        if unknown:
            raise AnsibleActionFail(f"not in group {GROUP}: {', '.join(unknown)}")
        if not names:
            raise AnsibleActionFail(f"the inventory has no host in group {GROUP}: there is nothing to check")
        hostvars = task_vars["hostvars"]
        site = load_site(
            {name: hostvars[name] for name in names},
            groups=groups,
            decrypt=decryptor(self._loader),
            inventories=[source for source in task_vars.get("ansible_inventory_sources", ()) if Path(source).is_dir()],
        )
        counts = site.counts
        shown = [str(warning) for warning in site.warnings]
        result |= {"changed": False, "counts": counts, "warnings": shown[: values["show"]]}
        if len(shown) > values["show"]:
            result["warnings"].append(f"... and {len(shown) - values['show']} more warnings")
        if site.errors:
            result |= {"failed": True, "msg": report(site.errors, values["show"])}
        else:
            result["msg"] = (
                f"{many(counts, 'reseller')} with {many(counts, 'customer')}, {many(counts, 'user')} "
                f"and {many(counts, 'domain')}: nothing is wrong."
            )
        return result


def many(counts: Mapping[str, int], what: str) -> str:
    """`1 reseller`, `2 resellers`."""
    number = counts[f"{what}s"]
    return f"{number} {what}{'' if number == 1 else 's'}"


def decryptor(loader: Any) -> Any:
    """How to read a vaulted value with the vault passwords that Ansible was given; None when there are none.

    `loader`: an action plugin's `self._loader`.
    """
    vault = getattr(loader, "_vault", None)
    return vault.decrypt if vault is not None and vault.secrets else None
