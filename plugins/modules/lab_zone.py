#!/usr/bin/python
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records in the lab's DNS zone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_zone
short_description: Publish DNS records in the lab's zone
version_added: 0.1.0
description:
  - The lab's zone is its machines' names and all fragments, files C(dns/zone.d/NAME.zone) of the state directory.
  - A zone that would not load is refused with fragment and line; the old one stays in service.
  - Called without fragments, brings what lies in C(dns/zone.d) into service.
author: Bouwsteen (@bouwsteen)
options:
  fragments:
    description:
      - Fragments to have. Those that are not listed stay.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the fragment, the file's name without C(.zone).
        type: str
        required: true
      content:
        description:
          - Records in zone file syntax. A name that does not end in a dot is relative to the lab's zone.
        type: str
        default: ""
      state:
        description: Whether the fragment is there.
        type: str
        choices: [present, absent]
        default: present
extends_documentation_fragment:
  - bouwsteen.hosting.lab
"""

EXAMPLES = r"""
- name: Publish the mail records of a domain
  bouwsteen.hosting.lab_zone:
    fragments:
      - name: noorderict
        content: |
          noorderict MX 10 mail.noorderict
          mail.noorderict A 10.213.0.10
"""

RETURN = r"""
changes:
  description: What was done, or in check mode would be done, one line each.
  returned: always
  type: list
  elements: str
  sample: [zone example written]
trust_anchor:
  description: The DS record of the zone's key, for validating resolvers; also in C(dns/trust-anchor).
  returned: not in check mode
  type: str
  sample: "example. DS 33880 13 2 1A2B..."
"""

import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab import LabError
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab_host import Lab, write_file
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab_module import SETTINGS_ARGUMENT, execute


def publish(lab: Lab, parameters: dict[str, Any]) -> dict[str, Any]:
    """Check the zone with the wanted fragments, write them and bring them into service."""
    with lab.locked():
        if not lab.running("authority") and not lab.check_mode:
            raise LabError("the lab's name service does not run; run the lab's playbook first")
        wanted = lab.fragments()
        for item in parameters["fragments"]:
            if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,60}", item["name"]):
                allowed = "a-z, 0-9, dot, dash, underscore"
                raise LabError(f"fragments: not a name (found {item['name']!r}); allowed: {allowed}")
            wanted.pop(f"{item['name']}.zone", None)
            if item["state"] == "present":
                wanted[f"{item['name']}.zone"] = item["content"]
        directory = lab.state / "dns/zone.d"
        lab.zone_check(wanted)
        for name, text in wanted.items():
            if not lab.check_mode:
                write_file(directory / name, text)
        for path in directory.glob("*.zone"):
            if path.name not in wanted and not lab.check_mode:
                path.unlink()
        lab.zone_up(wanted)
    anchor = lab.state / "dns/trust-anchor"
    return {"trust_anchor": anchor.read_text().strip()} if anchor.exists() and not lab.check_mode else {}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "settings": SETTINGS_ARGUMENT,
            "fragments": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "content": {"type": "str", "default": ""},
                    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                },
            },
        },
        supports_check_mode=True,
    )
    execute(module, lambda lab: publish(lab, module.params))


if __name__ == "__main__":
    main()
