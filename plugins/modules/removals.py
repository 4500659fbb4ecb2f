#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells whose data has to go from the machines, and notes what is gone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: removals
short_description: Tell whose mail has to go from the machines, and note what is gone
version_added: "0.1.0"
description:
  - The directory notes everybody who was removed from it. Without O(done) this tells whose mail is still to be removed.
  - With O(done) it notes that all machines have removed it.
options:
  done:
    description: Ids whose mail is gone from every machine.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full, description: Notes nothing.}
extends_documentation_fragment: [bouwsteen.hosting.directory]
author:
  - The authors of Bouwsteen (@bouwsteen)
"""

EXAMPLES = r"""
- name: Ask whose mail has to go
  bouwsteen.hosting.removals:
  register: removals
"""

RETURN = r"""
homes:
  description: Homes of mail that have to go.
  returned: success
  type: list
  elements: str
ids:
  description: Ids of their owners, for O(done).
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory
from ansible_collections.bouwsteen.hosting.plugins.module_utils.directory_module import CONNECTION, connect, rows


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"done": {"type": "list", "elements": "str", "default": []}, **CONNECTION},
        supports_check_mode=True,
    )
    connection = connect(module, "removals", role=None)
    try:
        if module.params["done"] and not module.check_mode:
            with connection.cursor() as cursor:
                cursor.execute("SELECT mail.removal_done(id::uuid) FROM unnest(%s) AS id", (module.params["done"],))
            connection.commit()
        found = rows(connection, "SELECT owner_id::text AS id, home FROM mail.removals ORDER BY home")
    except directory.psycopg2.Error as error:
        module.fail_json(msg=str(directory.explain(error)))
    module.exit_json(changed=False, homes=[row["home"] for row in found], ids=[row["id"] for row in found])


if __name__ == "__main__":
    main()
