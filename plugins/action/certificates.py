# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's part of module certificates: keeps the site CA and signs what the machine asks for.

The machine is asked once what it needs; only if it needs a signature is there a second call. The CA's key and
passphrase stay here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.bouwsteen.hosting.plugins.module_utils.certificates import CertificatesError
from ansible_collections.bouwsteen.hosting.plugins.module_utils.certificates_machine import Settings

MODULE = "bouwsteen.hosting.certificates"
# Keys that end with the machine: the caller has no use for them.
INTERNAL = ("requests", "invocation")


class ActionModule(ActionBase):
    """See module certificates."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, values = self.validate_argument_spec(
            argument_spec={
                "state": {"type": "str", "choices": ["present", "read", "checked", "authority"], "default": "present"},
                "settings": {"type": "dict"},
                "authority": {
                    "type": "dict",
                    "options": {
                        "directory": {"type": "path", "required": True},
                        "title": {"type": "str", "required": True},
                        "key_type": {"type": "str", "default": "ec-p256"},
                        "lifetime_days": {"type": "int", "default": 3650},
                        "permitted": {"type": "list", "elements": "str", "default": []},
                        "passphrase": {"type": "str", "no_log": True},
                    },
                },
                "renew": {"type": "list", "elements": "str", "default": []},
                "new_key": {"type": "list", "elements": "str", "default": [], "no_log": False},
                "on_failure": {"type": "str", "choices": ["warn", "fail"], "default": "warn"},
            }
        )
        try:
            if values["state"] == "checked":
                Settings.of(values["settings"] or {"machine": ""}).parsed()
                return {**result, "changed": False}
            result.update(self._work(values, task_vars))
        except CertificatesError as error:
            raise AnsibleActionFail(str(error)) from error
        if values["state"] == "present" and not self._task.check_mode:
            self._judge(result, values["on_failure"], (task_vars or {}).get("inventory_hostname", ""))
        for key in INTERNAL:
            result.pop(key, None)
        return result

    def _call(self, task_vars: dict[str, Any] | None, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        return answer

    def _authority(self, values: dict[str, Any]) -> tuple[Any, Any, list[dict[str, str]]]:
        """The site CA's settings, its roots (None before it exists), and the difference if it is made now."""
        # Imported here: a site without a CA of its own does not need the library.
        from ansible_collections.bouwsteen.hosting.plugins.module_utils import (  # noqa: PLC0415
            certificates_authority as ca,
        )

        authority = ca.AuthoritySettings(
            directory=Path(values["directory"]),
            title=values["title"],
            key_type=values["key_type"],
            lifetime_days=values["lifetime_days"],
            permitted=tuple(values["permitted"]),
            passphrase=values.get("passphrase") or None,
        )
        if self._task.check_mode:
            found, fresh = ca.read(authority), False
        else:
            found, fresh = ca.ensure(authority, datetime.now(UTC))
        if found and not fresh:
            return authority, found, []
        header = "site CA on the control node"
        text = f"{authority.title} in {authority.directory / 'ca.pem'}\n"
        return authority, found, [{"before_header": header, "after_header": header, "before": "", "after": text}]

    def _work(self, values: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        settings = values["settings"]
        if values["state"] == "read":
            return self._call(task_vars, state="read", **({"settings": settings} if settings else {}))
        authority, found, made = self._authority(values["authority"]) if values["authority"] else (None, None, [])
        if values["state"] == "authority":
            if authority is None:
                raise CertificatesError("authority is missing")
            return {"changed": bool(made), "diff": made, "root": str(authority.directory / "ca.pem")}
        if not settings:
            raise CertificatesError("settings are missing")
        answer = self._call(
            task_vars,
            state="present",
            settings=settings,
            roots=list(found.trusted) if found else [],
            issuer_id=found.identifier if found else "to be made" if authority else "",
            renew=values["renew"],
            new_key=values["new_key"],
        )
        requests = answer.get("requests") or {}
        if made:
            answer["changed"] = True
            answer["diff"] = made + answer.get("diff", [])
        if answer.get("failed") or not requests:
            return answer
        if authority is None:
            names = ", ".join(sorted(requests))
            raise CertificatesError(f"certificates of issuer site_ca are wanted, but there is no site CA: {names}")
        from ansible_collections.bouwsteen.hosting.plugins.module_utils import (  # noqa: PLC0415
            certificates_authority as ca,
        )

        wanted = {item.name: item for item in Settings.of(settings).parsed()}
        # What is signed is what the inventory says; of the machine's answer only the key is used.
        orders = {
            name: {"request": request["request"], "names": wanted[name].names, "usage": wanted[name].usage}
            for name, request in requests.items()
            if name in wanted
        }
        lifetime = timedelta(days=int(settings.get("lifetime_days") or 365))
        signed = ca.sign(authority, str(settings["machine"]), orders, lifetime)
        second = self._call(
            task_vars,
            state="signed",
            settings=settings,
            signed=signed,
            issuer_id=found.identifier,
            reasons={name: request["reasons"] for name, request in requests.items()},
        )
        second["changed"] = True
        second["diff"] = answer.get("diff", []) + second.get("diff", [])
        return second

    def _judge(self, result: dict[str, Any], on_failure: str, machine: str) -> None:
        """Certificates that could not be had end the task or warn; the machine's own check fails in either case."""
        lines = [
            f"{one['subject']}: {one['found']}; wanted: {one['wanted']}; look: {one['look']}"
            for one in result.get("problems", [])
        ]
        if not lines or result.get("failed"):
            return
        if on_failure == "fail":
            result.update(failed=True, msg="\n".join(lines))
            return
        for line in lines:
            self._display.warning(f"{machine}: {line}")
