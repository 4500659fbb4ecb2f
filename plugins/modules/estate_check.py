#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: estate_check
short_description: Check all contracts and customers' files without a machine
version_added: 0.1.0
description:
  - Reads the contract of every reseller (inventory variables C(reseller_*)) and the files of his customers, and checks
    schema, references, duplicates, limits over three levels, addresses, numbers and claims between resellers.
  - Fails with all findings at once, each with file, line, key, value and what is allowed.
  - Runs on the control node alone. No machine is asked anything, and nothing that a reseller wrote becomes a template.
options:
  resellers:
    description: Names of the resellers to check. All hosts of group C(resellers) when left out.
    type: list
    elements: str
  show:
    description: How many findings and how many warnings to print; all are counted.
    type: int
    default: 200
attributes:
  action: {support: full, description: It runs on the control node.}
  check_mode: {support: full, description: It never changes anything.}
author: Bouwsteen (@bouwsteen)
"""

EXAMPLES = r"""
- name: Check contracts and customers
  bouwsteen.hosting.estate_check:

- name: Check one reseller by himself
  bouwsteen.hosting.estate_check:
    resellers: [noorderict]
"""

RETURN = r"""
counts:
  description: How much was read, and how much is wrong with it.
  returned: always
  type: dict
  contains:
    resellers: {description: Resellers., returned: always, type: int}
    customers: {description: Customers that are not written as absent., returned: always, type: int}
    users: {description: Users that are not written as absent., returned: always, type: int}
    domains: {description: Domains., returned: always, type: int}
    findings: {description: Errors., returned: always, type: int}
    warnings: {description: Warnings., returned: always, type: int}
msg:
  description: All findings, one a line, or that nothing is wrong.
  returned: always
  type: str
"""
