#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mails new people the link with which they choose their first password."""

from __future__ import annotations

DOCUMENTATION = r"""
module: invitations
short_description: Mail new people their first link
version_added: "0.1.0"
description:
  - Hands a mail for each link to the mail service of the machine, in the name of the person's reseller and in the
    person's language.
  - One that is not taken stops none of the others, and does not fail the task. It is in RV(problems), and is tried
    again by the next run, which makes a new link.
options:
  links:
    description: The links, as module P(bouwsteen.hosting.password_links#module) returns them (free form).
    type: list
    elements: dict
    required: true
attributes:
  check_mode:
    description: Sends nothing.
    support: full
  diff_mode:
    description: Shows nothing.
    support: none
  platform:
    description: Machines that it works on.
    support: full
    platforms: posix
author:
  - The authors of Bouwsteen (@bouwsteen)
"""

EXAMPLES = r"""
- name: Mail the links
  bouwsteen.hosting.invitations:
    links: "{{ made.links }}"
  no_log: true
"""

RETURN = r"""
sent:
  description: Ids of the links whose mail was taken.
  returned: success
  type: list
  elements: str
problems:
  description: A line for each link whose mail was not taken.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import password_links


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"links": {"type": "list", "elements": "dict", "required": True, "no_log": True}},
        supports_check_mode=True,
    )
    links = module.params["links"]
    sent, problems = ([], []) if module.check_mode else password_links.send(links)
    module.exit_json(changed=bool(links if module.check_mode else sent), sent=sent, problems=problems)


if __name__ == "__main__":
    main()
