#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: port_probe
short_description: Tell whether a machine answers on the ports that it should, and on no others
version_added: 0.1.0
description:
  - Connects to the TCP ports that a machine publishes and to those on which something listens there.
  - Meant to run on the control node (C(delegate_to=localhost)).
options:
  name: {description: Name of the machine in messages., type: str, required: true}
  address: {description: Address or name to connect to., type: str, required: true}
  exposed: {description: Ports on which something listens., type: list, elements: int, default: []}
  open: {description: Ports that the machine publishes., type: list, elements: int, default: []}
  timeout: {description: Seconds to wait for an answer., type: float, default: 2.0}
attributes:
  check_mode: {support: full, description: It changes nothing.}
author: Bouwsteen (@bouwsteen)
"""

EXAMPLES = r"""
- name: Look at the ports from outside
  bouwsteen.hosting.port_probe:
    name: "{{ inventory_hostname }}"
    address: "{{ ansible_host }}"
    exposed: "{{ health.exposed_ports }}"
    open: [22, 25, 465, 587]
  delegate_to: localhost
"""

RETURN = r"""
problems:
  description: What is not as it should be.
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import probe


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "exposed": {"type": "list", "elements": "int", "default": []},
            "open": {"type": "list", "elements": "int", "default": []},
            "timeout": {"type": "float", "default": 2.0},
        },
        supports_check_mode=True,
    )
    values = module.params
    problems = probe.port_problems(
        values["name"], values["address"], values["exposed"], values["open"], values["timeout"]
    )
    module.exit_json(changed=False, problems=[problem.as_dict() for problem in problems])


if __name__ == "__main__":
    main()
