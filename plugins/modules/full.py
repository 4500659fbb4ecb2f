#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells who is over or near what he may use."""

from __future__ import annotations

DOCUMENTATION = r"""
module: full
short_description: Tell who is over or near what he may use
version_added: "0.1.0"
description:
  - Reads from the directory which people, customers and resellers have reached a warning of a limit, or the limit.
  - A mailbox counts from the lowest C(warn_at) of C(mail_storage) at the person, customer or reseller; 80 without any.
options:
  resellers:
    description: Names of the resellers to look at.
    type: list
    elements: str
    required: true
attributes:
  check_mode: {support: full, description: It only reads.}
extends_documentation_fragment: [bouwsteen.hosting.directory]
author:
  - The authors of Bouwsteen (@bouwsteen)
"""

EXAMPLES = r"""
- name: See who is full
  bouwsteen.hosting.full:
    resellers: [noorderict]
"""

RETURN = r"""
full:
  description: A line for each limit and mailbox, by reseller; a reseller without any has an empty list.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory, full
from ansible_collections.bouwsteen.hosting.plugins.module_utils.directory_module import CONNECTION, connect, rows


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"resellers": {"type": "list", "elements": "str", "required": True}, **CONNECTION},
        supports_check_mode=True,
    )
    names = module.params["resellers"]
    connection = connect(module, "full", role=None)
    try:
        found = rows(connection, full.QUERY, (names,))
    except directory.psycopg2.Error as error:
        module.fail_json(msg=str(directory.explain(error)))
    module.exit_json(changed=False, full=full.report(found, names))


if __name__ == "__main__":
    main()
