#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Brings the directory's database to the newest version of its schema."""

from __future__ import annotations

DOCUMENTATION = r"""
module: directory_migration
short_description: Bring the directory's database to the newest version of its schema
version_added: "0.1.0"
description:
  - Creates the database if it is not there, and applies the migrations that it does not have yet, in order.
  - Each migration is one transaction. Runs at the same time wait for each other, a run that is killed leaves whole
    migrations only, and a migration that cannot get its locks under load gives way and tries again.
  - A migration that was changed after it had been applied is an error that names the file. So is a database that has
    migrations that this version of the collection does not know.
author:
  - The authors of Bouwsteen (@bouwsteen)
attributes:
  check_mode:
    description: Lists what is pending. On a machine without the database that is all of O(names).
    support: full
  diff_mode:
    description: Shows the names of the migrations that the database has, before and after.
    support: full
  platform:
    description: Machines that it works on.
    support: full
    platforms: posix
options:
  path:
    description: Directory on the machine with the migrations, files C(NNNN_name.sql).
    type: path
    required: true
  names:
    description:
      - Names of the files that are wanted in O(path); a different set there is an error.
      - In check mode a file that is not there yet counts as pending.
    type: list
    elements: str
    required: true
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
    description: A superuser of the server.
    type: str
    default: postgres
  lock_timeout:
    description: How many seconds a migration waits for a lock, while everybody else waits behind it.
    type: float
    default: 5
  attempts:
    description: How many times a migration tries to get its locks.
    type: int
    default: 24
  start_timeout:
    description: How many seconds to wait for a server that is starting.
    type: int
    default: 60
notes:
  - Needs psycopg2 on the machine (Debian package python3-psycopg2).
"""

EXAMPLES = r"""
- name: Bring the directory to the newest version
  bouwsteen.hosting.directory_migration:
    path: /usr/share/bouwsteen/directory/migrations
    names: [0001_accounts.sql, 0002_rules.sql]
"""

RETURN = r"""
applied:
  description: Migrations that were applied, in order.
  returned: success
  type: list
  elements: str
  sample: ["0002_rules.sql"]
pending:
  description: Migrations that are still to be applied; empty but in check mode.
  returned: success
  type: list
  elements: str
  sample: []
version:
  description: The newest migration that the database has, 0 for none.
  returned: success
  type: int
  sample: 2
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory, migrations


def connection_to(module: AnsibleModule, database: str, patience: float) -> Any:
    """A connection as the superuser: migrations create roles, and set their own role for the rest."""
    return directory.connect(
        actor="directory_migration",
        database=database,
        host=module.params["login_host"],
        port=module.params["login_port"],
        user=module.params["login_user"],
        role=None,
        patience=patience,
    )


def present(module: AnsibleModule, *, create: bool) -> bool:
    """Whether the database is there, after creating it if `create`."""
    name = module.params["database"]
    server = connection_to(module, "postgres", module.params["start_timeout"] if create else 0)
    try:
        there = migrations.database_exists(server, name)
        server.rollback()
        if create and not there:
            migrations.create_database(server, name)
            there = True
    finally:
        server.close()
    return there


def known(module: AnsibleModule) -> list[migrations.Applied]:
    """What the database has; nothing if there is no database."""
    connection = connection_to(module, module.params["database"], 0)
    try:
        with connection.cursor() as cursor:
            return migrations.applied(cursor)
    finally:
        connection.close()


def preview(module: AnsibleModule, names: list[str]) -> dict[str, Any]:
    """What check mode can say, also on a machine where nothing is installed yet."""
    try:
        before = known(module) if present(module, create=False) else []
    except directory.DirectoryError as error:
        module.warn(f"{error.message}: all migrations count as pending")
        before = []
    path = Path(module.params["path"])
    if {entry.name for entry in path.glob("*.sql")} == set(names):
        rest = [migration.name for migration in migrations.pending(migrations.read(path), before)]
    else:
        rest = migrations.pending_names(names, before)
    return {"before": before, "applied": [], "pending": rest}


def bring_up(module: AnsibleModule, names: list[str]) -> dict[str, Any]:
    """Create and apply."""
    wanted = migrations.read(Path(module.params["path"]))
    if [migration.name for migration in wanted] != names:
        raise migrations.MigrationError(
            f"{module.params['path']}: has {', '.join(migration.name for migration in wanted) or 'nothing'}; "
            f"wanted: {', '.join(names)}"
        )
    present(module, create=True)
    connection = connection_to(module, module.params["database"], module.params["start_timeout"])
    try:
        done = migrations.apply(
            connection,
            wanted,
            lock_timeout=module.params["lock_timeout"],
            attempts=module.params["attempts"],
            report=module.log,
        )
        # Another run may have applied some of them meanwhile: those are not this run's change.
        with connection.cursor() as cursor:
            before = [row for row in migrations.applied(cursor) if row.name not in done]
    finally:
        connection.close()
    return {"before": before, "applied": done, "pending": []}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
            "database": {"type": "str", "default": directory.DATABASE},
            "login_host": {"type": "str", "default": directory.SOCKET},
            "login_port": {"type": "int"},
            "login_user": {"type": "str", "default": directory.USER},
            "lock_timeout": {"type": "float", "default": 5},
            "attempts": {"type": "int", "default": 24},
            "start_timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        names = migrations.in_order(module.params["names"])
        result = preview(module, names) if module.check_mode else bring_up(module, names)
    except (migrations.MigrationError, directory.DirectoryError) as error:
        module.fail_json(msg=str(error))
    before = [row.name for row in result["before"]]
    after = sorted(before + result["applied"] + result["pending"])
    module.exit_json(
        changed=after != before,
        applied=result["applied"],
        pending=result["pending"],
        version=migrations.number(after[-1]) if after else 0,
        diff={"before": "".join(f"{name}\n" for name in before), "after": "".join(f"{name}\n" for name in after)},
    )


if __name__ == "__main__":
    main()
