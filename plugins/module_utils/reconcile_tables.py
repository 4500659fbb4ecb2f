# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory's tables as the reconcile sees them: what names a row, what is compared, what frees something.

The tables themselves are in roles/directory/files/migrations; names here are names there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """A base table as the reconcile sees it; reseller_id is in every key and left out here.

    scope: which present rows are ours to compare, as a condition on `p`.
    grows_less: which changed rows free something, as a condition on present `p` and wanted `w`.
    written: columns that are written besides or otherwise than `values`: column -> expression on `w` and, in an
    update, the present row `t`.
    """

    name: str
    kind: str
    key: tuple[str, ...]
    values: tuple[str, ...]
    order: str
    scope: str = "TRUE"
    grows_less: str = "FALSE"
    written: Mapping[str, str] = field(default_factory=dict)
    on_insert: Mapping[str, str] = field(default_factory=dict)
    lifecycle: bool = False
    probes: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return ("reseller_id", *self.key, *self.values)

    @property
    def want(self) -> str:
        return f"want_{self.name}"

    @property
    def diff(self) -> str:
        return f"diff_{self.name}"

    def same_key(self, left: str, right: str) -> str:
        return " AND ".join(f"{left}.{column} = {right}.{column}" for column in ("reseller_id", *self.key))


STATE = ("state", "suspended_because", "suspended_at", "remove_after")


def counted(alias: str) -> str:
    """Whether a row counts for a limit: what vanished from the files does not (the tables' column `counted`)."""
    return f"({alias}.state <> 'removed-pending' AND {alias}.suspended_because IS DISTINCT FROM 'absent')"


_LEAVES = f"({counted('p')} AND NOT {counted('w')})"


def _smaller(*quotas: str) -> str:
    """Whether quotas go down and none goes up. No quota counts as nothing handed out, as it does for the limits."""
    pairs = [(f"coalesce(w.{quota}, 0)", f"coalesce(p.{quota}, 0)") for quota in quotas]
    down = " OR ".join(f"{new} < {old}" for new, old in pairs)
    not_up = " AND ".join(f"{new} <= {old}" for new, old in pairs)
    return f"(({down}) AND {not_up} AND ({counted('p')} OR NOT {counted('w')}))"


# The file's password is used while a person has none or still has the file's previous one. Judged on the row as it is
# at the moment of writing, so that a person who changes it during the run keeps the change.
_HASH = (
    "CASE WHEN t.password_hash IS NULL OR t.password_hash IS NOT DISTINCT FROM t.password_first"
    " THEN w.password_hash ELSE t.password_hash END"
)
_HASH_CHANGED = (
    f"CASE WHEN ({_HASH}) IS DISTINCT FROM t.password_hash THEN statement_timestamp() ELSE t.password_changed_at END"
)

RESELLERS = Table(
    "resellers", "reseller", (),
    ("name", "title", "engineer", "domain", "retention_days", "placement", "prices", "settings"), "name",
)  # fmt: skip
PRODUCTS = Table("products", "products", ("name",), ("definition",), "name")
CUSTOMERS = Table(
    "customers", "customers", ("customer_id",), ("name", "title", "kind", "telephony", *STATE), "name",
    grows_less=_LEAVES, lifecycle=True, probes=True,
)  # fmt: skip
DOMAINS = Table(
    "domains", "domains", ("domain_id",), ("customer_id", "name", "kind", "alias_of", *STATE), "name",
    grows_less=_LEAVES, lifecycle=True, probes=True,
)  # fmt: skip
USERS = Table(
    "users", "users", ("user_id",),
    (
        "customer_id", "login", "name", "kind", "product", "language", "password_hash", "password_first", "mail",
        "mail_quota", "keep_copy", "phone", "files", "file_quota", "file_settings", "invite", *STATE,
    ),
    "login", grows_less=f"({_LEAVES} OR {_smaller('mail_quota', 'file_quota')})",
    written={"password_hash": _HASH, "password_changed_at": _HASH_CHANGED},
    on_insert={"password_changed_at": "CASE WHEN w.password_hash IS NOT NULL THEN statement_timestamp() END"},
    lifecycle=True, probes=True,
)  # fmt: skip
GROUPS = Table(
    "groups", "groups", ("group_id",),
    ("customer_id", "name", "title", "mail_kind", "mail_quota", "phone", "files", "file_quota", *STATE), "name",
    grows_less=f"({_LEAVES} OR {_smaller('mail_quota', 'file_quota')})", lifecycle=True,
)  # fmt: skip
RESOURCES = Table("resources", "resources", ("resource_id",), ("customer_id", "name", *STATE), "name", lifecycle=True)
ADDRESSES = Table(
    "addresses", "addresses", ("address",), ("customer_id", "kind", "user_id", "group_id", "resource_id"), "address",
    scope="p.kind <> 'user'",
)  # fmt: skip
FORWARDS = Table("forwards", "forwards", ("user_id", "target"), ("customer_id",), "target")
MEMBERS = Table("group_members", "members", ("group_id", "user_id"), ("customer_id",), "user_id")
EXTENSIONS = Table("extensions", "extensions", ("customer_id", "extension"), ("user_id", "group_id"), "extension")
NUMBERS = Table("numbers", "numbers", ("number",), ("customer_id",), "number")
LIMITS = Table(
    "limits", "limits", ("owner_id", "name"), ("customer_id", "user_id", "max", "basis", "enforce", "warn_at"), "name"
)
TABLES = (
    RESELLERS, PRODUCTS, LIMITS, CUSTOMERS, DOMAINS, USERS, GROUPS, RESOURCES, ADDRESSES, FORWARDS, MEMBERS,
    EXTENSIONS, NUMBERS,
)  # fmt: skip
