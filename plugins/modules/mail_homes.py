#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes the mail of people and customers that are gone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mail_homes
short_description: Remove the mail of people and customers that are gone
version_added: "0.1.0"
description:
  - Removes folders below O(root) that are the home of a customer or of one person. Anything else in O(absent) is an
    error that names it, and nothing is removed.
options:
  root:
    description: Where the homes are.
    type: path
    default: /var/vmail
  absent:
    description: Homes that must not be there, as module M(bouwsteen.hosting.removals) names them.
    type: list
    elements: str
    required: true
attributes:
  check_mode: {support: full, description: Says what it would remove.}
  diff_mode: {support: full, description: Names the homes.}
author:
  - The authors of Bouwsteen (@bouwsteen)
"""

EXAMPLES = r"""
- name: Remove the mail of who is gone
  bouwsteen.hosting.mail_homes:
    absent: "{{ removals.homes }}"
"""

RETURN = r"""
removed:
  description: Homes that were there.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import mail_homes


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/var/vmail"},
            "absent": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        homes = mail_homes.checked(module.params["absent"], module.params["root"])
        removed = mail_homes.remove(homes, check_mode=module.check_mode)
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    diff = {"prepared": "".join(f"remove {home}\n" for home in removed)}
    module.exit_json(changed=bool(removed), removed=removed, diff=diff if removed else {})


if __name__ == "__main__":
    main()
