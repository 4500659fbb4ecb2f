# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the modules that talk to the directory."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  database:
    description: Name of the database.
    type: str
    default: directory
  login_host:
    description: Directory of the server's socket, or its host name.
    type: str
    default: /run/postgresql
  login_port:
    description: The server's port.
    type: int
  login_user:
    description: The database role to log in as.
    type: str
    default: postgres
notes:
  - Needs psycopg2 on the machine (Debian package python3-psycopg2).
  - The directory lets C(root) and C(postgres) in over its socket without a password.
"""
