# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that talk to the directory share: how to get there, and how to end when it says no."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory

# Documented in plugins/doc_fragments/directory.py.
CONNECTION: dict[str, dict[str, Any]] = {
    "database": {"type": "str", "default": directory.DATABASE},
    "login_host": {"type": "str", "default": directory.SOCKET},
    "login_port": {"type": "int"},
    "login_user": {"type": "str", "default": directory.USER},
}


def connect(module: Any, actor: str, **more: Any) -> Any:
    """A connection as the module's options say; ends the module with the reason when there is none."""
    try:
        return directory.connect(
            actor=actor,
            database=module.params["database"],
            host=module.params["login_host"],
            port=module.params["login_port"],
            user=module.params["login_user"],
            **more,
        )
    except directory.DirectoryError as error:
        module.fail_json(msg=str(error))


def rows(connection: Any, query: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """The rows of a query by column name."""
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
