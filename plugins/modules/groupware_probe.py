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
extends_documentation_fragment: bouwsteen.hosting.probe
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
    module = AnsibleModule(argument_spec=probe.ARGUMENTS)
    accounts, target, problems = probe.asked(module.params)
    problems += groupware_probe.groupware_problems(accounts, target)
    module.exit_json(changed=False, problems=[problem.as_dict() for problem in problems])


if __name__ == "__main__":
    main()
