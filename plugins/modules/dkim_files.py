#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the DKIM keys of a mail machine's domains from the directory into files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dkim_files
short_description: Bring DKIM keys from the directory to a mail machine
version_added: "0.1.0"
description:
  - Makes O(path) hold a file C(DOMAIN.SELECTOR.key) for each key of the domains that are served here, and the map
    C(selectors.map) with the selector that each domain signs with. Keys of domains that are gone go too.
  - The mail service reads both by itself; nothing is reloaded.
options:
  path:
    description: Directory of the keys; it exists already.
    type: path
    default: /var/lib/rspamd/dkim
  machine:
    description: Name of the mail machine, to pick the resellers that are placed on it. All resellers when left out.
    type: str
  owner:
    description: The user that signs, who owns the files.
    type: str
    default: _rspamd
  login_user:
    description: The database role to log in as.
    type: str
    default: _rspamd
  login_address:
    description: Address of O(login_host), where its name is not to be looked up. Not used when that is a socket.
    type: str
  certificate:
    description:
      - Directory with C(fullchain.pem) and C(privkey.pem), the client certificate for a directory on another machine.
      - Not used when O(login_host) is a socket.
    type: path
  ca:
    description: CA that the other machine's certificate is checked with.
    type: path
    default: /etc/ssl/bouwsteen/site-ca.pem
attributes:
  check_mode:
    description: Compares, changes nothing.
    support: full
  diff_mode:
    description: Names the files, never what is in them.
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
- name: Bring the keys to the mail machine
  bouwsteen.hosting.dkim_files:
    machine: m1.bouwsteen.example
  delegate_to: m1.bouwsteen.example
"""

RETURN = r"""
created:
  description: Names of new files.
  returned: success
  type: list
  elements: str
  sample: [degraaf.example.dkim1.key]
removed:
  description: Names of files that went.
  returned: success
  type: list
  elements: str
"""

import pwd
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory, dkim
from ansible_collections.bouwsteen.hosting.plugins.module_utils.directory_module import CONNECTION, connect, rows

KEYS = """
SELECT domain, selector, algorithm, state, private_key FROM mail.dkim_keys
WHERE %(machine)s::text IS NULL OR machine IS NULL OR machine = %(machine)s
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/var/lib/rspamd/dkim"},
            "machine": {"type": "str"},
            "owner": {"type": "str", "default": "_rspamd"},
            "login_address": {"type": "str"},
            "certificate": {"type": "path"},
            "ca": {"type": "path", "default": "/etc/ssl/bouwsteen/site-ca.pem"},
            **CONNECTION,
            "login_user": {"type": "str", "default": "_rspamd"},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    if not path.is_dir():
        if module.check_mode:  # a machine that is not set up yet
            module.exit_json(changed=False, created=[], removed=[])
        module.fail_json(msg=f"{path} does not exist: set up the mail machine first (playbooks/machines.yml)")
    try:
        user = pwd.getpwnam(module.params["owner"])
    except KeyError:
        module.fail_json(msg=f"there is no user {module.params['owner']} on this machine")
    tls = {}
    if module.params["certificate"] and not module.params["login_host"].startswith("/"):
        tls = {
            "sslmode": "verify-full",
            "sslcert": f"{module.params['certificate']}/fullchain.pem",
            "sslkey": f"{module.params['certificate']}/privkey.pem",
            "sslrootcert": module.params["ca"],
        }
        if module.params["login_address"]:
            tls["hostaddr"] = module.params["login_address"]
    connection = connect(module, "dkim_files", role=None, parameters=tls)
    try:
        found = rows(connection, KEYS, {"machine": module.params["machine"]})
    except directory.psycopg2.Error as error:
        module.fail_json(msg=str(directory.explain(error)))
    done = dkim.sync(path, dkim.wanted_files(found), (user.pw_uid, user.pw_gid), check_mode=module.check_mode)
    text = done.text
    module.exit_json(
        changed=bool(text), created=done.created, removed=done.removed, diff={"prepared": text} if text else {}
    )


if __name__ == "__main__":
    main()
