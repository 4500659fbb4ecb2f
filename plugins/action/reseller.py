# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a reseller's contract and files on the control node, and hands the wanted state to the directory machine.

What the reseller wrote goes from his files into one compressed file and from there into the database: it is never a
task's argument, never a variable and never a template. The file holds password hashes, so it is readable by its owner
alone and gone when the task ends, however it ends.
"""

from __future__ import annotations

import getpass
import gzip
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.bouwsteen.hosting.plugins.action.estate_check import decryptor
from ansible_collections.bouwsteen.hosting.plugins.module_utils.directory_module import CONNECTION
from ansible_collections.bouwsteen.hosting.plugins.module_utils.estate import Loaded, load_reseller
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import report

MODULE = "bouwsteen.hosting.reseller"
GROUP = "resellers"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "name": {"type": "str"},
    "confirm_removal": {"type": "list", "elements": "str", "default": []},
    "confirm_suspension": {"type": "list", "elements": "str", "default": []},
    "suspend_more_than": {"type": "int", "default": 10},
    "suspend_share": {"type": "float", "default": 0.2},
    "diff_limit": {"type": "int", "default": 100},
    **CONNECTION,
}


class ActionModule(ActionBase):
    """See module reseller."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, values = self.validate_argument_spec(argument_spec=ARGUMENTS)
        arguments = {key: value for key, value in values.items() if value is not None}
        name = arguments.setdefault("name", task_vars["inventory_hostname"])
        if name not in task_vars["groups"].get(GROUP, []):
            raise AnsibleActionFail(f"{name} is no host of group {GROUP}")
        loaded = self._load(name, arguments, task_vars)
        if loaded.errors:
            return {**result, "failed": True, "msg": f"reseller {name}: {report(loaded.errors)}"}
        result |= self._apply(loaded.estate, arguments, task_vars)
        # Nothing new on a run that changes nothing: check.yml and the reports tell these as well.
        if result.get("changed"):
            told = [*map(str, loaded.warnings), *result.get("notices", [])]
            result["warnings"] = [*result.get("warnings", []), *told]
        if not result.get("failed"):
            would = "would be " if self._task.check_mode and result.get("changed") else ""
            self._display.display(f"{name}: {would}{result['msg']}")
        return result

    def _load(self, name: str, arguments: Mapping[str, Any], task_vars: dict[str, Any]) -> Loaded:
        """The wanted state. A limit that was lowered below what is in use is an error only for who grows, so when there
        are errors the directory is asked what is in use."""
        known: dict[str, Any] = {
            "groups": {str(group): [str(host) for host in hosts] for group, hosts in task_vars["groups"].items()},
            "decrypt": decryptor(self._loader),
        }
        variables = task_vars["hostvars"][name]
        loaded = load_reseller(name, variables, **known)
        if loaded.errors:
            answer = self._execute_module(module_name=MODULE, module_args=dict(arguments), task_vars=task_vars)
            if not answer.get("failed"):
                in_use = {(level, owner, limit): number for level, owner, limit, number in answer["in_use"]}
                loaded = load_reseller(name, variables, in_use=in_use, **known)
        return loaded

    def _apply(
        self, estate: Mapping[str, Any], arguments: Mapping[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        handle, local = tempfile.mkstemp(prefix="reseller-", dir=constants.DEFAULT_LOCAL_TMP)  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(gzip.compress(json.dumps(estate, ensure_ascii=False).encode(), compresslevel=1))
            shell = self._connection._shell
            if shell.tmpdir is None:
                self._make_tmp_path()  # mode 0700, removed by Ansible after the task
            remote = shell.join_path(shell.tmpdir, "wanted.json.gz")
            self._transfer_file(local, remote)
            self._fixup_perms2([shell.tmpdir, remote])
            return dict(
                self._execute_module(
                    module_name=MODULE,
                    module_args={
                        **arguments,
                        "wanted": remote,
                        "actor": f"reseller {arguments['name']}, by {getpass.getuser()} on {platform.node()}",
                    },
                    task_vars=task_vars,
                )
            )
        finally:
            Path(local).unlink()
