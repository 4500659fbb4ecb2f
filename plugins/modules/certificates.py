#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: certificates
short_description: Bring a machine's TLS certificates to the wanted state
version_added: 0.1.0
description:
  - Compares the certificates on a machine with those that are wanted, gets what is missing, due or different, puts
    each in service together with its key in one step, and reloads the services that still run with an older one.
  - Certificates of issuer V(site_ca) are signed on the control node by the action part of this module; private keys
    never leave the machine. Those of issuer V(acme) are got by the machine itself, with the ACME client that role
    C(bouwsteen.hosting.certificates) sets up.
  - A machine for which nothing is due costs one call.
  - Paths, files and what other blocks may rely on are described in C(docs/certificates.md).
options:
  state:
    description:
      - V(present) brings about; V(read) only reports.
      - V(checked) looks at O(settings) on the control node and touches no machine.
      - V(authority) makes the site CA if there is none, on the control node, and touches no machine.
      - V(signed) is used by the action part alone.
    type: str
    choices: [present, read, checked, authority, signed]
    default: present
  settings:
    description:
      - What the role decided, the same that it leaves in C(/etc/bouwsteen/certificates.json).
      - With O(state=read) and no settings, that file is read.
    type: dict
  authority:
    description: The site CA on the control node. Without it nothing is signed and no root is installed.
    type: dict
    suboptions:
      directory: {description: Folder of the CA on the control node., type: path, required: true}
      title: {description: Common name of a CA that is made., type: str, required: true}
      key_type: {description: Key of a CA that is made., type: str, default: ec-p256}
      lifetime_days: {description: Days that a CA that is made lasts., type: int, default: 3650}
      permitted:
        description: Domains whose names a CA that is made may sign; none means any.
        type: list
        elements: str
        default: []
      passphrase: {description: Passphrase of the CA's key., type: str}
  renew: {description: Certificates to get anew although they are not due., type: list, elements: str, default: []}
  new_key: {description: Certificates to get anew with another key at once., type: list, elements: str, default: []}
  on_failure:
    description:
      - What a certificate that could not be had does to the task. The machine's own check fails in either case.
    type: str
    choices: [warn, fail]
    default: warn
  roots: {description: Used by the action part alone., type: list, elements: str, default: []}
  issuer_id: {description: Used by the action part alone., type: str, default: ""}
  signed: {description: Used by the action part alone., type: dict, default: {}}
  reasons: {description: Used by the action part alone., type: dict, default: {}}
attributes:
  check_mode: {support: full, description: Says what would be got and why; makes no key and asks nobody.}
  diff_mode:
    support: full
    description: Names, issuer, end, key identity and reason of each certificate; no key material.
author: Bouwsteen (@bouwsteen)
"""

EXAMPLES = r"""
- name: Bring the certificates to the wanted state
  bouwsteen.hosting.certificates:
    settings:
      machine: m1.bouwsteen.example
      issuer: site_ca
      wanted:
        - {name: mail.noorderict.example, names: [mail.noorderict.example], services: [postfix, dovecot]}
    authority: {directory: /srv/ca, title: Bouwsteen demo}

- name: Read what TLSA records need
  bouwsteen.hosting.certificates:
    state: read
  register: certificates
"""

RETURN = r"""
certificates:
  description: What may be known of each certificate that is wanted.
  returned: always
  type: list
  elements: dict
  sample:
    - name: mail.noorderict.example
      names: [mail.noorderict.example]
      services: [postfix, dovecot]
      issuer: site_ca
      not_before: "2026-11-23T15:00:00Z"
      not_after: "2027-11-23T16:00:00Z"
      placeholder: false
      key_type: ec-p256
      key_generation: 1
      spki_sha256: 5f1c
      next_spki_sha256: null
      fingerprint: a3b0
      tlsa: [3 1 1 5f1c]
problems:
  description: What is not as it should be, with subject, found, wanted and look.
  returned: always
  type: list
  elements: dict
root:
  description: File on the control node with the site CA's certificate, for clients that should trust the site.
  returned: when state is authority
  type: str
actions:
  description: Services that were reloaded, and why.
  returned: when state is present
  type: list
  elements: dict
"""

import contextlib

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import certificates_machine as machine
from ansible_collections.bouwsteen.hosting.plugins.module_utils.certificates import CertificatesError

ARGUMENTS = {
    "state": {"type": "str", "choices": ["present", "read", "checked", "authority", "signed"], "default": "present"},
    "settings": {"type": "dict"},
    "authority": {
        "type": "dict",
        "options": {
            "directory": {"type": "path", "required": True},
            "title": {"type": "str", "required": True},
            "key_type": {"type": "str", "default": "ec-p256"},
            "lifetime_days": {"type": "int", "default": 3650},
            "permitted": {"type": "list", "elements": "str", "default": []},
            "passphrase": {"type": "str", "no_log": True},
        },
    },
    "renew": {"type": "list", "elements": "str", "default": []},
    "new_key": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "on_failure": {"type": "str", "choices": ["warn", "fail"], "default": "warn"},
    "roots": {"type": "list", "elements": "str", "default": []},
    "issuer_id": {"type": "str", "default": ""},
    "signed": {"type": "dict", "default": {}},
    "reasons": {"type": "dict", "default": {}},
}


def work(values: dict[str, object], check: bool) -> dict[str, object]:
    """One call on the machine, as the module's result."""
    paths = machine.Paths()
    settings = machine.Settings.of(values["settings"]) if values["settings"] else machine.load_settings(paths)
    keeper = machine.Keeper(paths, settings)
    if values["state"] == "read":
        certificates, problems = keeper.report()
        return {"changed": False, "certificates": certificates, "problems": problems}
    with contextlib.nullcontext() if check else machine.locked(paths):
        if values["state"] == "signed":
            result = machine.Result(changes=keeper.accept(values["signed"], values["issuer_id"], values["reasons"]))
        else:
            roots = machine.trust(paths, settings.site, values["roots"], machine.run_command, check)
            ids = {"acme": settings.directory}
            if values["roots"] or values["issuer_id"]:
                ids["site_ca"] = values["issuer_id"]
            result = keeper.apply(ids, renew=values["renew"], new_key=values["new_key"], dry=check)
            result.changes[:0] = roots
        failed = [] if result.requests else keeper.finish(result, dry=check)
        if not check and not result.requests:
            keeper.absolve(result.problems)
    answer: dict[str, object] = {
        "changed": result.changed,
        "diff": [change.as_diff() for change in result.changes],
        "actions": result.actions,
        "certificates": result.certificates,
        "problems": result.problems,
        "requests": result.requests,
    }
    if failed:
        answer.update(failed=True, msg="; ".join(failed))
    return answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        answer = work(module.params, module.check_mode)
    except CertificatesError as error:
        module.fail_json(msg=str(error))
    if answer.pop("failed", False):
        module.fail_json(**answer)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
