# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of ``configuration``: renders the files and asks the machine what differs.

One call of the module when nothing differs. If content is missing there, exactly that content follows in a second
call. What is secret or large travels in a file that the module removes as soon as it has read it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from ansible_collections.bouwsteen.hosting.plugins.module_utils.configuration import (
    ARGUMENTS,
    RequestError,
    diffs,
    parse,
    prepared,
)

MODULE = "bouwsteen.hosting.configuration"
# What is larger travels in a file rather than among the parameters.
LARGE = 64 * 1024
# Only the controller reads these; the machine gets digests instead.
RENDERING = ("content", "template", "source", "vars")


class ActionModule(ActionBase):
    """Action plugin of task ``configuration``."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Render, compare, send what is missing, and tell what happened."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        try:
            parse(arguments, {})
        except RequestError as error:
            raise AnsibleActionFail("\n".join(error.problems)) from error
        contents = {item["path"]: self._content(item, task_vars) for item in arguments["files"]}
        for item in arguments["files"]:
            for key in RENDERING:
                item.pop(key, None)
        arguments["_digests"] = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}

        answer = self._execute_module(module_name=MODULE, module_args=dict(arguments), task_vars=task_vars)
        if answer.get("needed"):
            wanted = {path: contents[path] for path in answer["needed"]}
            secret = any(item["secret"] and item["path"] in wanted for item in arguments["files"])
            answer = self._send(arguments, wanted, secret=secret, task_vars=task_vars)

        steps = answer.pop("steps", [])
        before = answer.pop("before", {})
        answer.pop("invocation", None)
        if not answer.get("failed"):
            answer["files"] = [step["path"] for step in steps]
            if self._task.diff:
                answer["diff"] = diffs(steps, before, contents)
                told = prepared(
                    answer["commands"], answer["kernel"], answer["actions"], check_mode=self._task.check_mode
                )
                if told:
                    answer["diff"].append({"prepared": told})
        for warning in answer.pop("notes", None) or []:
            self._display.warning(f"{task_vars.get('inventory_hostname', '')}: {warning}")
        result.update(answer)
        return result

    def _content(self, item: Mapping[str, Any], task_vars: dict[str, Any]) -> bytes:
        """Bytes of a file as they should be."""
        path = item["path"]
        given = [key for key in ("content", "template", "source") if item.get(key) is not None]
        if len(given) > 1:
            raise AnsibleActionFail(f"{path}: give one of content, template and source (found {', '.join(given)})")
        if item.get("content") is not None:
            return str(item["content"]).encode()
        try:
            if item.get("source") is not None:
                return Path(self._find_needle("files", item["source"])).read_bytes()
            source = self._find_needle("templates", item.get("template") or f"{path.lstrip('/')}.j2")
            text = trust_as_template(self._loader.get_text_file_contents(source))
            # A template may include others of its role, or ones beside it.
            places = [
                str(place)
                for base in task_vars.get("ansible_search_path", [])
                for place in (Path(base) / "templates", base)
            ]
            variables = ChainMap(dict(item.get("vars") or {}), {"template_path": str(source)}, task_vars)
            templar = self._templar.copy_with_new_env(
                searchpath=[*places, str(Path(source).parent)], available_variables=dict(variables)
            )
            rendered = templar.template(
                text, escape_backslashes=False, overrides={"trim_blocks": True, "lstrip_blocks": False}
            )
        except AnsibleError as error:
            raise AnsibleActionFail(f"{path}: {error}") from error
        return ("" if rendered is None else str(rendered)).encode()

    def _send(
        self, arguments: Mapping[str, Any], contents: Mapping[str, bytes], *, secret: bool, task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """Call the module again with the content that it lacks."""
        encoded = {path: base64.b64encode(content).decode() for path, content in contents.items()}
        packed = zlib.compress(json.dumps(encoded).encode(), 6)
        if not secret and len(packed) <= LARGE:
            extra = {"_packed": base64.b64encode(packed).decode()}
            return self._execute_module(module_name=MODULE, module_args={**arguments, **extra}, task_vars=task_vars)
        if self._connection._shell.tmpdir is None:
            self._make_tmp_path()
        shell = self._connection._shell
        remote = shell.join_path(shell.tmpdir, "contents")
        try:
            self._transfer_data(remote, packed)
            self._fixup_perms2([shell.tmpdir, remote], execute=False)
            return self._execute_module(
                module_name=MODULE, module_args={**arguments, "_packed_file": remote}, task_vars=task_vars
            )
        finally:
            self._remove_tmp_path(shell.tmpdir)
