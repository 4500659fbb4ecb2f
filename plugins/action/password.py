# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes passwords on the control node, has them hashed and set on the directory machine, and tells them once.

A password travels as an argument that Ansible masks, over the connection's standard input. With `show` it is written on
the operator's screen and nowhere else: not in the result, which callbacks print and store, and not in Ansible's log.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.bouwsteen.hosting.plugins.module_utils.directory_module import CONNECTION
from ansible_collections.bouwsteen.hosting.plugins.module_utils.passwords import generate

MODULE = "bouwsteen.hosting.password"


class ActionModule(ActionBase):
    """See module password."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, values = self.validate_argument_spec(
            argument_spec={
                "users": {"type": "list", "elements": "str", "required": True},
                "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                "passwords": {"type": "dict", "default": {}, "no_log": True},
                "show": {"type": "bool", "default": False},
                **CONNECTION,
            }
        )
        arguments = {key: value for key, value in values.items() if value is not None}
        users = [login.strip().lower() for login in arguments["users"]]
        arguments["users"] = users
        unknown = sorted(set(arguments["passwords"]) - set(users))
        if unknown:
            raise AnsibleActionFail(f"passwords for people who are not in users: {', '.join(unknown)}")
        if arguments["state"] == "present":
            arguments["passwords"] = {
                login: str(arguments["passwords"].get(login) or generate()) for login in dict.fromkeys(users)
            }
        result |= self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        if result.get("changed") and arguments["state"] == "present" and not self._task.check_mode:
            for login, password in arguments["passwords"].items():
                if arguments["show"]:
                    self._display.display(f"{login}: {password}", screen_only=True)
                else:
                    result["accounts"].append({"login": login, "password": password})
        return result
