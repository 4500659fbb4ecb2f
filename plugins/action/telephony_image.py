# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of ``telephony_image``: keeps archives on the control node and sends them where they are missing.

One call of the module when the image is there already. A machine that builds is copied from once for each image; a
machine that does not build gets the manifest first, and the archive only if it says that it needs it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.bouwsteen.hosting.plugins.module_utils import telephony_image as pure
from ansible_collections.bouwsteen.hosting.plugins.module_utils.telephony_image_machine import file_sha256, write

MODULE = "bouwsteen.hosting.telephony_image"


class ActionModule(ActionBase):
    """Action plugin of task ``telephony_image``."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Have the image, and have its archive where the next machine finds it."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, values = self.validate_argument_spec(argument_spec=pure.ARGUMENTS)
        options = {key: value for key, value in values.items() if value is not None}
        for own in ("manifest", "archive"):
            options.pop(own, None)
        try:
            name = str(pure.parse_name(options["name"]))
            if options["source"] == "build":
                answer = self._build(name, options, task_vars)
            else:
                answer = self._receive(name, options, task_vars)
        except (OSError, pure.ImageError) as error:
            raise AnsibleActionFail(str(error)) from error
        answer.pop("invocation", None)
        return result | answer

    def _module(self, options: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=options, task_vars=task_vars)
        return answer

    def _receive(self, name: str, options: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        place = self._archives(options)
        manifest = place / f"{name}.json"
        if not manifest.is_file():
            raise pure.ImageError(
                f"image {name} is not in {place} on the control node: run this role first on a machine with"
                " telephony_image_source: build"
            )
        found = pure.parse_manifest(manifest.read_text(encoding="utf-8"), name)
        problem = pure.pin_problem(found, options["archive_sha256"])
        if problem:
            raise pure.ImageError(problem)
        options["manifest"] = found
        answer = self._module(options, task_vars)
        if answer.get("wanted"):
            local = place / pure.archive_name(name)
            if not local.is_file():
                raise pure.ImageError(f"the archive of image {name} is not in {place} on the control node")
            self._make_tmp_path()
            remote = self._connection._shell.join_path(self._connection._shell.tmpdir, local.name)
            self._transfer_file(str(local), remote)
            self._fixup_perms2((self._connection._shell.tmpdir, remote))
            answer = self._module({**options, "archive": remote}, task_vars)
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return answer

    def _build(self, name: str, options: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        place = self._archives(options) if options["publish"] else None
        answer = self._module(options, task_vars)
        if place is None or answer.get("failed"):
            return answer
        manifest, archive = place / f"{name}.json", place / pure.archive_name(name)
        there = pure.parse_manifest(manifest.read_text(encoding="utf-8"), name) if manifest.is_file() else None
        wanted = answer["image"].get("archive", {}).get("sha256")
        if there and wanted and there["archive"]["sha256"] != wanted:
            raise pure.ImageError(
                f"{manifest} on the control node is of another build of image {name} than the one on this machine:"
                " give one of the two a name of its own"
            )
        if there and archive.is_file():
            return answer
        line = f"archive of image {name} copied to {place}"
        if not self._task.check_mode:
            self._copy(name, options, place)
        answer["actions"].append(line)
        answer["changed"] = True
        if self._task.diff:
            answer["diff"] = {"prepared": "".join(f"{action}\n" for action in answer["actions"])}
        return answer

    def _copy(self, name: str, options: dict[str, Any], place: Path) -> None:
        """Bring archive and manifest to the control node; the manifest comes last and makes it an image."""
        place.mkdir(parents=True, exist_ok=True)
        remote = Path(options["directory"])
        arriving = place / f".{name}.{os.getpid()}"
        try:
            self._connection.fetch_file(str(remote / "images" / f"{name}.json"), str(arriving))
            found = pure.parse_manifest(arriving.read_text(encoding="utf-8"), name)
            self._connection.fetch_file(str(remote / "archives" / pure.archive_name(name)), str(arriving))
            problem = pure.archive_problem(found, file_sha256(arriving))
            if problem:
                raise pure.ImageError(problem)
            arriving.replace(place / pure.archive_name(name))
            write(place / f"{name}.json", pure.manifest_text(found))
        finally:
            with contextlib.suppress(FileNotFoundError):
                arriving.unlink()

    def _archives(self, options: dict[str, Any]) -> Path:
        if not options.get("archives"):
            raise pure.ImageError("archives: needed, a directory on the control node")
        return Path(options["archives"]).expanduser()
