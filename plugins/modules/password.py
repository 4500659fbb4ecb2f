#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets or takes away people's passwords in the directory."""

from __future__ import annotations

DOCUMENTATION = r"""
module: password
short_description: Set or take away people's passwords
version_added: "0.1.0"
description:
  - Gives each of the people a password, fresh unless O(passwords) has one, or takes their passwords away.
  - Each task gives a new password, so a task with O(state=present) always changes something.
  - All or none. Unknown people, and people who could not log in because they or their customer are suspended, are an
    error that names them all.
  - The password itself is never written down. The directory gets its hash, made on the directory machine.
  - A password that is set here is the person's own from then on; the reseller's files do not overwrite it.
options:
  users:
    description: Logins.
    type: list
    elements: str
    required: true
  state:
    description: C(present) sets passwords, C(absent) takes them away (nobody can log in without one).
    type: str
    choices: [present, absent]
    default: present
  passwords:
    description: Passwords to set, by login (free form); people without one here get a fresh one.
    type: dict
    default: {}
  show:
    description:
      - Show the passwords on the operator's screen, once, and leave them out of the result (and of Ansible's log).
      - Without it they are in RV(accounts), and the task needs C(no_log=true).
    type: bool
    default: false
attributes:
  check_mode:
    description: Looks whether it could be done.
    support: full
  diff_mode:
    description: Names the people, never a password.
    support: full
  platform:
    description: Machines that it works on.
    support: full
    platforms: posix
extends_documentation_fragment: [bouwsteen.hosting.directory]
notes:
  - Needs python3-argon2 on the machine.
author:
  - The authors of Bouwsteen (@bouwsteen)
"""

EXAMPLES = r"""
- name: Give Jan a fresh password and show it
  bouwsteen.hosting.password:
    users: [jan@degraaf.example]
    show: true
  delegate_to: m1.bouwsteen.example

- name: Give a probe a password for a test
  bouwsteen.hosting.password:
    users: [probe@verify.noorderict.example]
  delegate_to: m1.bouwsteen.example
  register: probe
  no_log: true
"""

RETURN = r"""
accounts:
  description: The people and their passwords. Empty in check mode, with O(show) and with O(state=absent).
  returned: success
  type: list
  elements: dict
  contains:
    login: {description: The login., returned: always, type: str}
    password: {description: The password., returned: always, type: str}
problems:
  description: Why nothing was done, one line each.
  returned: failure
  type: list
  elements: str
  sample: ["user jan@degraaf.example is not known"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory, passwords
from ansible_collections.bouwsteen.hosting.plugins.module_utils.directory_module import CONNECTION, connect


def main() -> None:
    """Run the module. The action plugin has put a password for each of the people into `passwords`."""
    module = AnsibleModule(
        argument_spec={
            "users": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "passwords": {"type": "dict", "default": {}, "no_log": True},
            "show": {"type": "bool", "default": False},
            **CONNECTION,
        },
        supports_check_mode=True,
    )
    given = {login: str(module.params["passwords"].get(login) or "") for login in module.params["users"]}
    connection = connect(module, "password")
    try:
        if module.params["state"] == "present":
            done = passwords.set_passwords(connection, given, check_mode=module.check_mode)
        else:
            done = passwords.take_passwords(connection, list(given), check_mode=module.check_mode)
    except passwords.PasswordError as error:
        lines = "".join(f"\n- {problem}" for problem in error.problems)
        module.fail_json(msg=f"no password was changed:{lines}", problems=error.problems)
    except directory.psycopg2.Error as error:
        module.fail_json(msg=f"no password was changed: {directory.explain(error)}")
    word = "set" if module.params["state"] == "present" else "taken away"
    diff = {"prepared": "".join(f"password of {login}: {word}\n" for login in done)} if done else {}
    module.exit_json(changed=bool(done), accounts=[], diff=diff)


if __name__ == "__main__":
    main()
