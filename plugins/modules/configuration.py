#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Brings the configuration of a machine's services to the wanted state in one task."""

from __future__ import annotations

DOCUMENTATION = r"""
module: configuration
short_description: Bring a service's files, checks, derived files and units to the wanted state in one task
version_added: "0.1.0"
description:
  - Renders all files of a role on the controller and compares them with the machine in one call. The service's own
    checkers see the new files under their real paths before anything is installed, which then is all of them or none.
  - Rebuilds derived files, and starts, reloads or restarts services only where what runs is not what should run.
  - Nothing depends on what an earlier task or run called changed. What a service has loaded is written down in
    C(/run/bouwsteen), so a run that was killed at any moment is made good by the next one.
author:
  - The authors of Bouwsteen (@bouwsteen)
attributes:
  check_mode:
    description:
      - Says what it would do and changes nothing. Checks run on the new files in a private view of the file system.
    support: full
  diff_mode:
    description: Shows each file before and after. Secret and binary files are masked.
    support: full
  platform:
    description: Machines that it works on.
    support: full
    platforms: debian
options:
  files:
    description: Files with their whole content.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where it goes, absolute.
        type: str
        required: true
      template:
        description:
          - Template to render, looked up in C(templates/) of the role.
          - Without O(files[].template), O(files[].content) and O(files[].source) it is O(files[].path) with C(.j2)
            behind it, so C(/etc/postfix/main.cf) comes from C(templates/etc/postfix/main.cf.j2).
        type: str
      content:
        description: The content itself, written exactly as given.
        type: str
      source:
        description: File of the role's C(files/) that is sent as it is.
        type: str
      vars:
        description: Variables for this template alone, on top of all others.
        type: dict
        default: {}
      mode:
        description: Permissions, octal digits in quotes with a leading 0.
        type: str
        default: "0644"
      owner:
        description: Name or number of the owner.
        type: str
        default: root
      group:
        description: Name or number of the group.
        type: str
        default: root
      secret:
        description: Masks the content in differences, and what it holds in the output of checkers and in journal lines.
        type: bool
        default: false
      replace:
        description: Allows the file to take the place of a symbolic link. Without it a link is an error.
        type: bool
        default: false
  directories:
    description:
      - Directories. Missing parents of anything that is asked for are made too, for root with mode 0755.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where it is, absolute.
        type: str
        required: true
      mode:
        description: Permissions, octal digits in quotes with a leading 0.
        type: str
        default: "0755"
      owner:
        description: Name or number of the owner.
        type: str
        default: root
      group:
        description: Name or number of the group.
        type: str
        default: root
      purge:
        description: Removes files and links directly in it that the task does not name. Directories in it stay.
        type: bool
        default: false
      keep:
        description: Patterns of names that O(directories[].purge) leaves alone.
        type: list
        elements: str
        default: []
  links:
    description: Symbolic links.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where the link is, absolute.
        type: str
        required: true
      target:
        description: Where it leads.
        type: str
        required: true
      replace:
        description: Allows the link to take the place of a file.
        type: bool
        default: false
  absent:
    description: Paths that must not exist. Directories go with all that is in them.
    type: list
    elements: str
    default: []
  checks:
    description:
      - Commands, each a list of words, that must succeed before anything is installed. They see the new files under
        their real paths, in a view of the file system that is theirs alone. They run only if something differs.
    type: list
    elements: list
    default: []
  commands:
    description: Commands that make derived files. They run when their target is not what their sources give.
    type: list
    elements: dict
    default: []
    suboptions:
      command:
        description: The command as a list of words.
        type: list
        elements: str
        required: true
      source:
        description: Files, or directories with all below them, that it is made from.
        type: list
        elements: str
        required: true
      target:
        description:
          - The file that it makes. Without one, the command runs when its sources are not those of its last success.
        type: str
  kernel:
    description:
      - Kernel settings by name, as sysctl(8) writes them, compared with the running kernel. What makes them last over a
        reboot is a file in C(/etc/sysctl.d). What a container cannot change is listed in RV(skipped_kernel).
    type: dict
    default: {}
  services:
    description: Units that should run with what is on disk.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The unit. C(.service) may be left out.
        type: str
        required: true
      state:
        description: V(unmanaged) leaves it to others whether it runs.
        type: str
        choices: [started, stopped, unmanaged]
        default: started
      enabled:
        description: Whether it starts with the machine.
        type: bool
        default: true
      masked:
        description: Whether nothing may start it. Needs O(services[].state=stopped) and O(services[].enabled=false).
        type: bool
        default: false
      reload_on:
        description: Files, or directories with all below them, that it reads again on a reload.
        type: list
        elements: str
        default: []
      restart_on:
        description:
          - Files, or directories with all below them, that it reads only when it starts. A restart beats a reload.
        type: list
        elements: str
        default: []
  _digests:
    description: Not for tasks. The controller puts the digests of the rendered files here.
    type: dict
    default: {}
  _packed:
    description: Not for tasks. The controller puts the content of files that differ here.
    type: str
  _packed_file:
    description: Not for tasks. File on the machine with the content of files that differ, if that is secret or large.
    type: str
notes:
  - Has to run as root on the machine.
  - Waits until each service that it started is up. If one is not, the error holds the last lines of its journal.
"""

EXAMPLES = r"""
- name: Configure nftables
  bouwsteen.hosting.configuration:
    files:
      - {path: /etc/nftables.conf}
    directories:
      - {path: /etc/nftables.d}
    checks:
      - [nft, -c, -f, /etc/nftables.conf]
    services:
      - {name: nftables, reload_on: [/etc/nftables.conf, /etc/nftables.d/]}

- name: Configure Postfix
  bouwsteen.hosting.configuration:
    files:
      - {path: /etc/postfix/main.cf}
      - {path: /etc/postfix/sni, mode: "0640"}
      - {path: /etc/postfix/directory.cf, mode: "0640", group: postfix, secret: true}
      - {path: /etc/systemd/system/postfix.service.d/bouwsteen.conf}
    checks:
      - [postfix, check]
    commands:
      - {command: [postmap, -F, "lmdb:/etc/postfix/sni"], source: [/etc/postfix/sni], target: /etc/postfix/sni.lmdb}
    services:
      - name: postfix
        reload_on: [/etc/postfix/]
        restart_on: [/etc/systemd/system/postfix.service.d/]
"""

RETURN = r"""
actions:
  description: What was done to services, or would be, in order.
  returned: success
  type: list
  elements: dict
  sample: [{"service": "postfix.service", "action": "reload", "because": "/etc/postfix/main.cf changed"}]
  contains:
    service:
      description: The unit.
      type: str
    action:
      description: One of start, stop, restart, reload, enable, disable, mask, unmask, daemon-reload.
      type: str
    because:
      description: Why.
      type: str
commands:
  description: Commands for derived files that ran, or would run.
  returned: success
  type: list
  elements: dict
  sample: [{"command": ["locale-gen"], "because": "/etc/locale.gen changed"}]
files:
  description: Paths that differed.
  returned: success
  type: list
  elements: str
  sample: [/etc/postfix/main.cf]
skipped_services:
  description: Services that do not run because a condition in their unit says that this machine does not need them.
  returned: success
  type: list
  elements: dict
  sample: [{"service": "systemd-timesyncd.service", "because": "a condition in its unit says that ..."}]
kernel:
  description: Kernel settings that were changed, or would be.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "net.core.somaxconn", "before": "4096", "after": "8192"}]
skipped_kernel:
  description: Kernel settings that this machine cannot change, and why.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "vm.overcommit_memory", "because": "it is 0 and belongs to the host of this container"}]
failed_checks:
  description: Checks that refused the new files, with exit status and output.
  returned: when a check failed
  type: list
  elements: dict
  sample: [{"command": ["postfix", "check"], "status": 1, "output": "fatal: bad numerical configuration"}]
"""

import base64
import json
import os
import zlib
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils.configuration import ARGUMENTS, RequestError
from ansible_collections.bouwsteen.hosting.plugins.module_utils.configuration_machine import (
    MachineError,
    configure,
)


def contents_of(packed: str | None, path: str | None) -> dict[str, bytes] | None:
    """The bytes that the controller sent: packed into a parameter, or in a file that is read once and removed."""
    if path:
        place = Path(path)
        try:
            raw = place.read_bytes()
        finally:
            place.unlink(missing_ok=True)
    elif packed:
        raw = base64.b64decode(packed)
    else:
        return None
    return {name: base64.b64decode(data) for name, data in json.loads(zlib.decompress(raw)).items()}


def main() -> None:
    """Run the module."""
    internal: dict[str, Any] = {
        "_digests": {"type": "dict", "default": {}},
        "_packed": {"type": "str"},
        "_packed_file": {"type": "str"},
    }
    module = AnsibleModule(
        argument_spec=ARGUMENTS | internal,
        supports_check_mode=True,
        # Nothing of the parameters goes to the machine's journal: digests of secrets are among them.
        no_log=True,
    )
    contents = contents_of(module.params["_packed"], module.params["_packed_file"])
    # Nothing of the parameters is handed back either.
    quiet: dict[str, Any] = {"invocation": {}}
    if os.geteuid() != 0:
        module.fail_json(msg="configuration needs root on the machine: set become for this play", **quiet)
    try:
        result = configure(
            module.params, module.params["_digests"], contents, check_mode=module.check_mode, want_before=module._diff
        )
    except RequestError as error:
        module.fail_json(msg="\n".join(error.problems), **quiet)
    except MachineError as error:
        module.fail_json(msg=str(error), **error.details, **quiet)
    module.exit_json(**result, **quiet)


if __name__ == "__main__":
    main()
