#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: groupware_probe
short_description: Use resellers' groupware as their people do and tell what is wrong
version_added: 0.1.0
description:
  - Logs in to webmail, writes, reads and deletes over CalDAV and CardDAV, asks what phones ask over ActiveSync, asks
    for the settings of an address, checks the certificates, and checks that a wrong password is refused.
  - Everything that it makes is removed again.
  - Meant to run on the control node (C(delegate_to=localhost)), from where the site looks as it does to its users.
options:
  resellers:
    description: Name of each reseller to his domain (free form); his people use C(webmail.DOMAIN) and its like.
    type: dict
    required: true
  accounts:
    description: The resellers' probes, C(probe@verify.DOMAIN), with their one-time passwords.
    type: list
    elements: dict
    required: true
    suboptions:
      login: {description: Login of the probe., type: str, required: true}
      password: {description: Its one-time password., type: str, required: true}
  address:
    description: Connect to this address instead of what the names resolve to.
    type: str
  ca_file:
    description: File with the CA certificate of a closed site.
    type: path
  timeout:
    description: Seconds that each step may take.
    type: int
    default: 30
  certificate_days:
    description: A certificate that ends sooner than this many days is a problem.
    type: int
    default: 14
attributes:
  check_mode: {support: none, description: Check mode skips it because it writes into the probes' calendars.}
author: Bouwsteen (@bouwsteen)
"""

EXAMPLES = r"""
- name: Use the groupware of every reseller
  bouwsteen.hosting.groupware_probe:
    resellers: {noorderict: noorderict.example}
    accounts: "{{ passwords.accounts }}"
    ca_file: /etc/ssl/bouwsteen/site-ca.pem
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
from ansible_collections.bouwsteen.hosting.plugins.module_utils import groupware_probe, probe


def main() -> None:
    account = {
        "login": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={
            "resellers": {"type": "dict", "required": True},
            "accounts": {"type": "list", "elements": "dict", "required": True, "options": account},
            "address": {"type": "str"},
            "ca_file": {"type": "path"},
            "timeout": {"type": "int", "default": 30},
            "certificate_days": {"type": "int", "default": 14},
        },
    )
    options = dict(module.params)
    passwords = {account["login"]: account["password"] for account in options.pop("accounts")}
    accounts, problems = probe.accounts(options.pop("resellers"), passwords)
    problems += groupware_probe.groupware_problems(accounts, probe.Target(**options))
    module.exit_json(changed=False, problems=[problem.as_dict() for problem in problems])


if __name__ == "__main__":
    main()
