#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives every mail domain a DKIM key in the directory."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dkim_keys
short_description: Give every mail domain a DKIM key
version_added: "0.1.0"
description:
  - Makes an RSA key of 2048 bits for each active domain of the resellers that has none, and keeps it in the directory.
  - Domains that have a key keep it. Resellers that the directory does not know (yet) have no domains.
  - Module M(bouwsteen.hosting.dkim_files) brings the keys to the mail machines; the public halves belong in the DNS.
options:
  resellers:
    description: Names of the resellers.
    type: list
    elements: str
    required: true
  selector:
    description: The selector of new keys, the name before C(._domainkey) in the DNS.
    type: str
    default: dkim1
attributes:
  check_mode:
    description: Names the domains without a key.
    support: full
  diff_mode:
    description: Names the domains, never a key.
    support: full
  platform:
    description: Machines that it works on.
    support: full
    platforms: posix
extends_documentation_fragment: [bouwsteen.hosting.directory]
notes:
  - Needs the program openssl on the machine.
author:
  - The authors of Bouwsteen (@bouwsteen)
"""

EXAMPLES = r"""
- name: Give every domain a key
  bouwsteen.hosting.dkim_keys:
    resellers: [noorderict, zuidwest]
  delegate_to: m1.bouwsteen.example
"""

RETURN = r"""
made:
  description: The keys that were made.
  returned: success
  type: list
  elements: dict
  contains:
    reseller: {description: Name of the reseller., returned: always, type: str}
    domain: {description: The domain., returned: always, type: str}
    selector: {description: The selector., returned: always, type: str}
    public_key: {description: The public key as in the DNS., returned: not in check mode, type: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory, dkim
from ansible_collections.bouwsteen.hosting.plugins.module_utils.directory_module import CONNECTION, connect


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "resellers": {"type": "list", "elements": "str", "required": True},
            "selector": {"type": "str", "default": "dkim1"},
            **CONNECTION,
        },
        supports_check_mode=True,
    )
    connection = connect(module, "dkim_keys")
    try:
        made = dkim.add_missing(
            connection, module.params["resellers"], module.params["selector"], check_mode=module.check_mode
        )
    except dkim.KeyMakingError as error:
        module.fail_json(msg=str(error))
    except directory.psycopg2.Error as error:
        module.fail_json(msg=str(directory.explain(error)))
    diff = {"prepared": "".join(f"DKIM key of {key['domain']}: created\n" for key in made)} if made else {}
    module.exit_json(changed=bool(made), made=made, diff=diff)


if __name__ == "__main__":
    main()
