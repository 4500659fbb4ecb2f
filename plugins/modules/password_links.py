#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes one-time links with which people set their password."""

from __future__ import annotations

DOCUMENTATION = r"""
module: password_links
short_description: Make one-time links with which people set their password
version_added: "0.1.0"
description:
  - Makes links for people to the page of their reseller where they choose a password, or notes that links were mailed.
  - A link works once and for a limited time. A new one ends the person's earlier ones.
  - The directory keeps a digest of the link, not the link. It is told here and nowhere again.
options:
  users:
    description: Logins to make links for, all or none.
    type: list
    elements: str
  resellers:
    description: Resellers of whom everybody without a password gets a link.
    type: list
    elements: str
  invited:
    description:
      - Resellers of whom everybody who is to get a first link by mail (key C(invite) of the files) and has not got one
        gets a link.
    type: list
    elements: str
  sent:
    description: Ids of links that were mailed. They are not made again.
    type: list
    elements: str
  hours:
    description: How long a link works, in hours, at most 720.
    type: int
    default: 72
  show:
    description:
      - Show the links on the operator's screen, once, and leave them out of the result (and of Ansible's log).
      - Without it they are in RV(links), and the task needs C(no_log=true).
    type: bool
    default: false
attributes:
  check_mode:
    description: Says for whom links would be made.
    support: full
  diff_mode:
    description: Names the people, never a link.
    support: full
  platform:
    description: Machines that it works on.
    support: full
    platforms: posix
extends_documentation_fragment: [bouwsteen.hosting.directory]
author:
  - The authors of Bouwsteen (@bouwsteen)
"""

EXAMPLES = r"""
- name: Make a link for Jan and show it
  bouwsteen.hosting.password_links:
    users: [jan@degraaf.example]
    show: true
  delegate_to: m1.bouwsteen.example
"""

RETURN = r"""
links:
  description: The links. Without addresses in check mode, empty with O(show).
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: Names the link., returned: always, type: str}
    login: {description: Whose it is., returned: always, type: str}
    name: {description: The person's name., returned: always, type: str}
    language: {description: The person's language., returned: always, type: str}
    invite: {description: Where a first link is mailed to., returned: always, type: str}
    title: {description: Name of the reseller., returned: always, type: str}
    engineer: {description: Address of the reseller's engineer., returned: always, type: str}
    hours: {description: How long it works., returned: always, type: int}
    url: {description: The link., returned: always, type: str}
problems:
  description: Why nothing was done, one line each.
  returned: failure
  type: list
  elements: str
  sample: ["user jan@degraaf.example is not known"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory, password_links, passwords
from ansible_collections.bouwsteen.hosting.plugins.module_utils.directory_module import CONNECTION, connect

WHO = ("users", "resellers", "invited", "sent")


def main() -> None:
    """Run the module."""
    spec: dict[str, Any] = {name: {"type": "list", "elements": "str"} for name in WHO}
    module = AnsibleModule(
        argument_spec={
            **spec,
            "hours": {"type": "int", "default": 72},
            "show": {"type": "bool", "default": False},
            **CONNECTION,
        },
        mutually_exclusive=[list(WHO)],
        required_one_of=[list(WHO)],
        supports_check_mode=True,
    )
    if not 1 <= module.params["hours"] <= password_links.HOURS_MAX:
        module.fail_json(
            msg=f"hours is {module.params['hours']}; allowed: 1 to {password_links.HOURS_MAX}", problems=[]
        )
    which = next(name for name in WHO if module.params[name] is not None)
    names = [name.strip().lower() for name in module.params[which]]
    connection = connect(module, "password_links")
    make: Any = {
        "users": password_links.for_users,
        "resellers": password_links.for_resellers,
        "invited": password_links.for_invited,
    }
    try:
        if which == "sent":
            noted = password_links.note_sent(connection, names, check_mode=module.check_mode)
            module.exit_json(changed=bool(noted), links=[])
        names = list(dict.fromkeys(names))
        links = make[which](connection, names, hours=module.params["hours"], check_mode=module.check_mode)
    except passwords.PasswordError as error:
        lines = "".join(f"\n- {problem}" for problem in error.problems)
        module.fail_json(msg=f"no link was made:{lines}", problems=error.problems)
    except directory.psycopg2.Error as error:
        module.fail_json(msg=f"no link was made: {directory.explain(error)}", problems=[])
    diff = {"prepared": "".join(f"link for {link['login']}\n" for link in links)} if links else {}
    module.exit_json(changed=bool(links), links=links, diff=diff)


if __name__ == "__main__":
    main()
