#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings one reseller's customers and users in the directory to the wanted state."""

from __future__ import annotations

DOCUMENTATION = r"""
module: reseller
short_description: Bring a reseller's customers and users to the wanted state
version_added: "0.1.0"
description:
  - Reads a reseller's contract (inventory variables C(reseller_*)) and his customers' files on the control node, and
    brings the directory to what they say, in one transaction.
  - What is wrong in the files, and what the directory would refuse, is told all at once. A refused reseller changes
    nothing.
  - Who or what disappears from the files is suspended, kept for the contract's retention period and then removed by the
    first run after it. What is written as C(state=absent) is removed at once, after a confirmation if data would go.
  - Two runs at once are safe. The second waits, and then finds nothing to do.
  - Delegate it to a machine with the directory. The files are data all the way and never become templates.
options:
  name:
    description: Name of the reseller, a host of the inventory. The host that the task runs for when left out.
    type: str
  confirm_removal:
    description:
      - Names of what may be removed with its data. A customer's name, a login, a resource's address,
        C(customer/group), a domain, or the id that an error message told.
      - Also removes at once what has already disappeared from the files and waits for the end of its retention.
    type: list
    elements: str
    default: []
  confirm_suspension:
    description:
      - Names of customers, or of the reseller, of whom many people may disappear from the files at once.
    type: list
    elements: str
    default: []
  suspend_more_than:
    description:
      - How many people may disappear from a customer's files in one run without O(confirm_suspension).
      - A customer with people in it that disappears as a whole is always asked about.
    type: int
    default: 10
  suspend_share:
    description: The same as a share of the customer's (or the reseller's) people. Both must be exceeded to be asked.
    type: float
    default: 0.2
  diff_limit:
    description: How many rows of each kind the diff names. The counts are always complete.
    type: int
    default: 100
  wanted:
    description: File on the machine with the wanted state. The action plugin makes it, and removes it.
    type: path
  actor:
    description: Who changes things, for the audit. The action plugin fills it in.
    type: str
    default: reseller
attributes:
  check_mode:
    description: Compares, changes nothing.
    support: full
  diff_mode:
    description: Names each person and field, secrets masked.
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
- name: Bring the reseller to the wanted state
  bouwsteen.hosting.reseller:
    confirm_removal: "{{ confirm_removal | default([]) }}"
  delegate_to: m1.bouwsteen.example
"""

RETURN = r"""
counts:
  description:
    - What was done, by kind (C(customers), C(users), C(addresses), ...) and operation (C(created), C(changed),
      C(suspended), C(resumed), C(removed), C(unchanged)).
  returned: success
  type: dict
  sample: {"users": {"created": 2, "changed": 0, "suspended": 1, "resumed": 0, "removed": 0, "unchanged": 31}}
changes:
  description: The rows that differ, at most O(diff_limit) a kind, with fields before and after, secrets masked.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: users
      name: jan@degraaf.example
      customer: bakkerij-de-graaf
      operation: changed
      fields: {"name": ["Jan", "Jan de Graaf"]}
notices:
  description: Limits that are exceeded without being refused, and those that have reached a percentage to warn at.
  returned: success
  type: list
  elements: str
  sample: ["limit users of reseller noorderict: max 500, in use 480 (96 %)"]
problems:
  description: Why the reseller was refused, one line each.
  returned: failure
  type: list
  elements: str
  sample: ["limit users of customer bakkerij-de-graaf: max 12, in use 12, wanted 1 more"]
in_use:
  description: What the directory counts now, as lists of level, owner, limit and number; without O(wanted) only.
  returned: when there is no O(wanted)
  type: list
  elements: list
  sample: [["customer", "bakkerij-de-graaf", "users", 12]]
msg:
  description: What was done in one line, or why it was refused.
  returned: always
  type: str
  sample: users 2 created; addresses 3 created
"""

import gzip
import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory, reconcile
from ansible_collections.bouwsteen.hosting.plugins.module_utils.directory_module import CONNECTION, connect
from ansible_collections.bouwsteen.hosting.plugins.module_utils.reconcile_changes import summary


def take(path: Path) -> dict[str, Any]:
    """The wanted state, off the disk before anything else happens: it holds password hashes."""
    try:
        return dict(json.loads(gzip.decompress(path.read_bytes())))
    finally:
        path.unlink()


def refuse(module: AnsibleModule, connection: Any, name: str, problems: list[str], unavailable: list[str]) -> None:
    """End with every problem, and with the TXT records for the domains that somebody else holds."""
    if unavailable:
        tokens = reconcile.request_claims(connection, name, unavailable, record=not module.check_mode)
        problems = [*problems, *reconcile.claim_instructions(tokens, unavailable)]
    lines = "".join(f"\n- {problem}" for problem in problems)
    module.fail_json(msg=f"reseller {name} is refused, nothing was changed:{lines}", problems=problems)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "confirm_removal": {"type": "list", "elements": "str", "default": []},
            "confirm_suspension": {"type": "list", "elements": "str", "default": []},
            "suspend_more_than": {"type": "int", "default": 10},
            "suspend_share": {"type": "float", "default": 0.2},
            "diff_limit": {"type": "int", "default": 100},
            "wanted": {"type": "path"},
            "actor": {"type": "str", "default": "reseller"},
            **CONNECTION,
        },
        supports_check_mode=True,
    )
    options = reconcile.Options(
        check_mode=module.check_mode,
        **{
            name: module.params[name]
            for name in ("confirm_removal", "confirm_suspension", "suspend_more_than", "suspend_share", "diff_limit")
        },
    )
    name = module.params["name"]
    connection = connect(module, module.params["actor"])
    try:
        if module.params["wanted"] is None:
            module.exit_json(changed=False, msg="", in_use=reconcile.in_use(connection, name))
        wanted = take(Path(module.params["wanted"]))
        outcome = reconcile.reconcile(connection, wanted, options)
    except reconcile.RefusedError as error:
        refuse(module, connection, name, error.problems, error.unavailable)
    except directory.psycopg2.Error as error:
        reason = directory.explain(error)
        taken = [reason.detail["domain"]] if reason.sqlstate == directory.NOT_AVAILABLE and reason.detail else []
        refuse(module, connection, name, [str(reason)], taken)
    result: dict[str, Any] = {
        "changed": outcome.changed,
        "counts": outcome.counts,
        "changes": [change.as_dict() for change in outcome.changes],
        "notices": outcome.notices,
        "msg": summary(outcome.counts),
    }
    if outcome.changed:
        result["diff"] = {"prepared": outcome.diff}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
