#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives a person deleted mail back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mail_restore
short_description: Give a person deleted mail back
version_added: "0.1.0"
description:
  - What a person deletes for good waits for the period of the contract (C(reseller_expunged_days)) where he does not
    see it. This moves it into a folder of his. Nobody else's mail is touched.
options:
  user:
    description: Login of the person, for example V(jan@degraaf.example).
    type: str
    required: true
  since:
    description: >-
      Only what was deleted after this moment, such as V(2026-11-20) or V(2026-11-20 14:30) in the machine's time, or
      within this age, such as V(3 days). Without it, all that is still there.
    type: str
  folder:
    description: Where it comes, a folder of the person; it is made if it is not there.
    type: str
    default: Restored
attributes:
  check_mode: {support: full, description: Says what would come back.}
  diff_mode: {support: full, description: Names the mails.}
author:
  - The authors of Bouwsteen (@bouwsteen)
"""

EXAMPLES = r"""
- name: Give Jan back what he deleted yesterday
  bouwsteen.hosting.mail_restore:
    user: jan@degraaf.example
    since: 1 day
"""

RETURN = r"""
known:
  description: Whether the person has a mailbox on this machine.
  returned: success
  type: bool
mails:
  description: What came back, in the order in which it was deleted.
  returned: success
  type: list
  elements: dict
  contains:
    from: {description: Its From header., type: str}
    subject: {description: Its subject., type: str}
    message_id: {description: Its Message-ID., type: str}
    deleted: {description: When it was deleted., type: str}
    bytes: {description: Its size., type: int}
"""

from datetime import datetime

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import mail_restore


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "user": {"type": "str", "required": True},
            "since": {"type": "str"},
            "folder": {"type": "str", "default": "Restored"},
        },
        supports_check_mode=True,
    )
    folder = module.params["folder"]

    def run(words):  # type: ignore[no-untyped-def]
        return mail_restore.Done(*module.run_command(list(words)))

    mails = []
    try:
        user = mail_restore.checked(module.params["user"], folder)
        since = mail_restore.moment(module.params["since"], datetime.now()) if module.params["since"] else None
        known = mail_restore.known(run, user)
        if known:
            mails = mail_restore.waiting(run, user, since)
        if mails and not module.check_mode:
            mail_restore.restore(run, user, since, folder)
    except mail_restore.RestoreError as error:
        module.fail_json(msg=str(error))
    diff = {"prepared": "".join(f"{mail['deleted']} {mail['subject']}\n" for mail in mails)} if mails else {}
    module.exit_json(changed=bool(mails), known=known, mails=mails, diff=diff)


if __name__ == "__main__":
    main()
