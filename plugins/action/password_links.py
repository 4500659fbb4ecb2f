# SPDX-License-Identifier: GPL-3.0-or-later
"""Has links made on the directory machine; with `show`, tells them once on the operator's screen and nowhere else."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

MODULE = "bouwsteen.hosting.password_links"


class ActionModule(ActionBase):
    """See module password_links."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        result |= self._execute_module(module_name=MODULE, module_args=self._task.args, task_vars=task_vars)
        if self._task.args.get("show") and not result.get("failed"):
            for link in result["links"]:
                text = link["url"] or "would get a link"
                self._display.display(f"{link['login']}: {text}", screen_only=True)
            result["links"] = []
        return result
