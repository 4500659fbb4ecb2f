# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the modules that use a site as its people do; module_utils/probe.py reads them."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  resellers:
    description: Name of each reseller to his domain (free form); his people use the names below it.
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
"""
