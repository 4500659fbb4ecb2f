#!/usr/bin/python
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throwaway machines of the lab, a list per call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_machine
short_description: Make, break and remove throwaway Debian machines
version_added: 0.1.0
description:
  - Has systemd-nspawn machines of the lab in a state. Machines of the lab that are not listed are left alone.
  - The host must have been prepared by M(bouwsteen.hosting.lab_host).
author: Bouwsteen (@bouwsteen)
options:
  machines:
    description:
      - The machines that are meant. Without it, and with O(state) V(absent) or V(listed), all of the lab.
    type: list
    elements: dict
    suboptions:
      name:
        description: Fully qualified host name below the lab's zone.
        type: str
        required: true
      address:
        description: IPv4 address in the lab's network. Needed to make a machine.
        type: str
      address6:
        description: IPv6 address in the lab's network. Without it, the one with the digits of the IPv4 address.
        type: str
      memory:
        description: Most memory that all processes of the machine together get, like C(2G). Without it, no limit.
        type: str
      image:
        description: The image that a new machine starts from.
        type: str
        default: machine
      options:
        description: More options for systemd-nspawn, such as C(--bind=/dev/fuse).
        type: list
        elements: str
        default: []
  state:
    description:
      - V(present) makes what is missing, starts what is stopped, thaws what is frozen, plugs in what is unplugged,
        and waits until all answer.
      - V(absent) removes machines with everything in them.
      - V(stopped) shuts down in order; V(killed) ends all processes at once, as when the power goes.
      - V(frozen) stops all processes where they stand, connections stay open; V(thawed) lets them go on.
      - V(unplugged) takes the network cable out; V(plugged) puts it back.
      - V(listed) changes nothing and returns all machines of the lab.
    type: str
    choices: [present, absent, stopped, killed, frozen, thawed, unplugged, plugged, listed]
    default: present
extends_documentation_fragment:
  - bouwsteen.hosting.lab
seealso:
  - module: bouwsteen.hosting.lab_host
"""

EXAMPLES = r"""
- name: Have a machine
  bouwsteen.hosting.lab_machine:
    machines: [{name: m1.bouwsteen.example, address: 10.213.0.10}]

- name: Pull the plug
  bouwsteen.hosting.lab_machine:
    machines: [{name: m1.bouwsteen.example}]
    state: killed
"""

RETURN = r"""
changes:
  description: What was done, or in check mode would be done, one line each.
  returned: always
  type: list
  elements: str
  sample: [m1.bouwsteen.example started]
lines:
  description: All machines of the lab afterwards, a line each.
  returned: always
  type: list
  elements: str
  sample: ["m1.bouwsteen.example  10.213.0.10  fd00:b5::10  running"]
machines:
  description: All machines of the lab afterwards.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: Fully qualified host name., type: str}
    short: {description: Name for systemd-nspawn and control groups., type: str}
    address: {description: IPv4 address., type: str}
    address6: {description: IPv6 address., type: str}
    state: {description: "One of running, frozen, not answering, stopped.", type: str}
    interface: {description: The host's end of the machine's network cable., type: str}
    root: {description: The machine's file tree as mounted on the host., type: str}
    pid: {description: Process that keeps the machine running., type: int}
    group: {description: Control group of all its processes., type: str}
    log: {description: File with what the machine's console said., type: str}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab import LabError, parse_machines, table
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab_host import Lab
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab_module import (
    MACHINE_ARGUMENTS,
    SETTINGS_ARGUMENT,
    execute,
)

STATES = ["present", "absent", "stopped", "killed", "frozen", "thawed", "unplugged", "plugged", "listed"]


def manage(lab: Lab, parameters: dict[str, Any]) -> dict[str, Any]:
    """Bring the named machines to the wanted state; returns the listing."""
    state, items = parameters["state"], parameters["machines"]
    names = [item["name"] for item in items or []]
    if items is None and state not in {"absent", "listed"}:
        raise LabError(f"machines: needed with state {state}")
    if state == "present":
        missing = [item["name"] for item in items if not item["address"]]
        if missing:
            raise LabError(f"machines: address is needed to make {', '.join(missing)}")
        lab.machines_up(parse_machines(items, lab.settings))
    elif state == "absent":
        everything = [path.name for path in (lab.state / "machines").glob("*")]
        lab.machines_down(everything if items is None else names)
    elif state in {"stopped", "killed"}:
        lab.machines_stop(names, hard=state == "killed")
    elif state in {"frozen", "thawed"}:
        lab.machines_freeze(names, frozen=state == "frozen")
    elif state in {"unplugged", "plugged"}:
        lab.machines_link(names, up=state == "plugged")
    listing = lab.listing()
    return {"machines": listing, "lines": table(listing)}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "settings": SETTINGS_ARGUMENT,
            "machines": {"type": "list", "elements": "dict", "options": MACHINE_ARGUMENTS},
            "state": {"type": "str", "choices": STATES, "default": "present"},
        },
        supports_check_mode=True,
    )
    execute(module, lambda lab: manage(lab, module.params))


if __name__ == "__main__":
    main()
