#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: machine_health
short_description: Tell what is wrong on a machine
version_added: 0.1.0
description:
  - Reads systemd, the listening sockets and the file systems of a machine and names each problem with the
    place to look.
  - Changes nothing and does not fail on a problem; the caller decides.
options:
  published:
    description:
      - Folder in which each role says what it runs, as C(ROLE.json) with the keys C(units) (with their suffix) and
        C(ports) (TCP ports for others). The units have to be active.
    type: path
    default: /etc/bouwsteen/health.d
  highest_disk_use:
    description: Percentage of a file system's bytes or inodes above which it is a problem.
    type: int
    default: 90
  file_systems:
    description: Mount points or directories whose file systems are looked at.
    type: list
    elements: path
    default: [/]
attributes:
  check_mode: {support: full, description: It only reads.}
author: Bouwsteen (@bouwsteen)
"""

EXAMPLES = r"""
- name: Look at the machine
  bouwsteen.hosting.machine_health:
    file_systems: [/, /var]
  register: health
"""

RETURN = r"""
problems:
  description: What is not as it should be.
  returned: always
  type: list
  elements: dict
  sample: [{subject: unit x.service, found: failed, wanted: no failed unit, look: systemctl status x.service}]
published_ports:
  description: TCP ports that the machine's roles publish.
  returned: always
  type: list
  elements: int
exposed_ports:
  description: TCP ports on which something listens on more than the loopback addresses.
  returned: always
  type: list
  elements: int
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import health


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "published": {"type": "path", "default": "/etc/bouwsteen/health.d"},
            "highest_disk_use": {"type": "int", "default": 90},
            "file_systems": {"type": "list", "elements": "path", "default": ["/"]},
        },
        supports_check_mode=True,
    )

    def output(*command: str) -> str:
        return str(module.run_command(list(command), check_rc=True)[1])

    failed = health.failed_units(output("systemctl", "list-units", "--state=failed", "--output=json"))
    folder = Path(module.params["published"])
    published, problems = health.read_published({str(path): path.read_text() for path in sorted(folder.glob("*.json"))})
    units = published.units
    states = health.parse_states(output("systemctl", "show", "--property=Id,ActiveState", *units)) if units else {}
    usage = {}
    for mount in module.params["file_systems"]:
        figures = os.statvfs(mount)
        usage[mount] = ((figures.f_blocks - figures.f_bavail) * figures.f_frsize, figures.f_blocks * figures.f_frsize)
        usage[f"{mount} (inodes)"] = (figures.f_files - figures.f_favail, figures.f_files)
    problems += health.unit_problems(failed, states, units)
    problems += health.disk_problems(usage, module.params["highest_disk_use"])
    module.exit_json(
        changed=False,
        problems=[problem.as_dict() for problem in sorted(problems)],
        published_ports=published.ports,
        exposed_ports=health.exposed_ports(health.parse_listeners(output("ss", "-Hltun"))),
    )


if __name__ == "__main__":
    main()
