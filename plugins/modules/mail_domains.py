#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: mail_domains
short_description: Read resellers, their mail domains and public signing keys from the directory
version_added: 0.1.0
description:
  - Reads what DNS records are made of. Changes nothing and reads no secret.
  - Runs on the directory's machine as a user that PostgreSQL lets in over its socket, usually C(postgres).
options:
  database: {description: Name of the database., type: str, default: directory}
  login_host: {description: Socket directory or host of the server., type: str, default: /run/postgresql}
  login_user: {description: Role to log in as., type: str, default: postgres}
attributes:
  check_mode: {support: full, description: It never changes anything.}
notes:
  - Needs psycopg2 on the machine (Debian package python3-psycopg2).
author: Bouwsteen (@bouwsteen)
"""

EXAMPLES = r"""
- name: Read domains and keys
  bouwsteen.hosting.mail_domains:
  become: true
  become_user: postgres
"""

RETURN = r"""
resellers:
  description: Resellers, as option O(bouwsteen.hosting.dns#module:resellers) of module dns wants them.
  returned: success
  type: list
  elements: dict
  sample:
    - name: noorderict
      domain: noorderict.example
      engineer: beheer@noorderict.example
      machine: null
      groupware: null
domains:
  description: Customers' domains, as option O(bouwsteen.hosting.dns#module:domains) of module dns wants them.
  returned: success
  type: list
  elements: dict
  sample:
    - name: degraaf.example
      kind: customer
      alias_of: null
      customer: bakkerij-de-graaf
      reseller: noorderict
      reseller_domain: noorderict.example
      engineer: beheer@noorderict.example
      machine: null
      keys: []
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory

RESELLERS = """
SELECT json_build_object('name', r.name, 'domain', r.domain, 'engineer', r.engineer,
                         'machine', r.placement ->> 'mail', 'groupware', r.placement ->> 'groupware')
FROM directory.resellers r WHERE r.state <> 'removed-pending' ORDER BY r.name
"""
DOMAINS = """
SELECT json_build_object(
    'name', d.name, 'kind', d.kind, 'alias_of', d.alias_of, 'customer', c.name, 'reseller', r.name,
    'reseller_domain', r.domain, 'engineer', r.engineer, 'machine', r.placement ->> 'mail',
    'keys', coalesce((
        SELECT json_agg(json_build_object('selector', k.selector, 'algorithm', k.algorithm, 'state', k.state,
                                          'public_key', k.public_key) ORDER BY k.selector)
        FROM mail.dkim_public k WHERE k.domain = d.name), '[]'))
FROM directory.domains d
    JOIN directory.customers c USING (reseller_id, customer_id)
    JOIN directory.resellers r USING (reseller_id)
WHERE 'removed-pending' NOT IN (d.state, c.state, r.state) ORDER BY d.name
"""


def rows(connection: Any, query: str) -> list[Any]:
    """The one column of a query."""
    with connection.cursor() as cursor:
        cursor.execute(query)
        return [row[0] for row in cursor.fetchall()]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "database": {"type": "str", "default": "directory"},
            "login_host": {"type": "str", "default": "/run/postgresql"},
            "login_user": {"type": "str", "default": "postgres"},
        },
        supports_check_mode=True,
    )
    try:
        connection = directory.connect(
            actor="mail_domains",
            database=module.params["database"],
            host=module.params["login_host"],
            user=module.params["login_user"],
        )
        try:
            found = {"resellers": rows(connection, RESELLERS), "domains": rows(connection, DOMAINS)}
        finally:
            connection.close()
    except Exception as error:
        module.fail_json(msg=str(directory.explain(error)))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
