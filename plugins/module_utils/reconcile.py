# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring one reseller in the directory to the wanted state: one transaction, all problems at once, nothing by halves.

How it works, in order:

1. Lock: one run per reseller at a time; a second one waits and then compares with what the first has left.
2. Stage: the wanted rows, by name, by COPY into temporary tables (reconcile_rows.py).
3. Identity: every wanted row finds the row that it means (customer name, login, domain name; groups and resources by
   name, else by address) and keeps its id, or gets a new one.
4. Fate: what is in the directory and no longer in the files is kept, suspended, until its retention is over, or is
   removed: because the retention is over, or because the files or the operator say so.
5. Want: for each table a temporary one with the same columns and exactly the rows that should be there.
6. Problems: names held elsewhere, limits, removals that nobody confirmed. Any problem ends the run here.
7. Diff: one FULL JOIN per table. Check mode ends here.
8. Apply: what shrinks or frees a name before what grows or takes one, because limits hold after every statement.
   The number of rows written is compared with the diff; a difference undoes everything.

The database refuses what step 6 would refuse (roles/directory/files/migrations); it is the wall, this is the manners.
Everything here works on ids and names that are parameters or staged rows, never on text pasted into a statement.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from ansible_collections.bouwsteen.hosting.plugins.module_utils import reconcile_changes as report
from ansible_collections.bouwsteen.hosting.plugins.module_utils import reconcile_rows as staged
from ansible_collections.bouwsteen.hosting.plugins.module_utils import reconcile_statements as sql
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import printable
from ansible_collections.bouwsteen.hosting.plugins.module_utils.reconcile_tables import (
    ADDRESSES,
    CUSTOMERS,
    DOMAINS,
    EXTENSIONS,
    FORWARDS,
    GROUPS,
    LIMITS,
    MEMBERS,
    NUMBERS,
    PRODUCTS,
    RESELLERS,
    RESOURCES,
    TABLES,
    USERS,
    Table,
)

# ruff: noqa: S608  (statements are put together from the constants of this file; values are parameters)

DEADLOCK = "40P01"
ATTEMPTS = 3


class RefusedError(Exception):
    """The reseller cannot be brought to the wanted state. Nothing was changed. `problems`: one line each."""

    def __init__(self, problems: Sequence[str], unavailable: Sequence[str] = ()) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)
        self.unavailable = list(unavailable)


@dataclass(frozen=True)
class Options:
    """How to reconcile.

    now: the moment that retention is counted from, an ISO 8601 text; None is the database's clock.
    confirm_removal, confirm_suspension: the names that the operator has typed.
    suspend_more_than, suspend_share: more vanished people than this many and this share of a customer (or of the
    reseller) ask for a confirmation: an emptied file must not lock out a company.
    diff_limit: how many changed rows of each table are named in the diff; the counts are always complete.
    """

    check_mode: bool = False
    now: str | None = None
    confirm_removal: Collection[str] = ()
    confirm_suspension: Collection[str] = ()
    suspend_more_than: int = 10
    suspend_share: float = 0.2
    diff_limit: int = 100


@dataclass(frozen=True)
class Outcome:
    """What was (in check mode: would be) done. `counts`: kind -> operation -> number. `notices`: limits to look at."""

    changed: bool
    counts: dict[str, dict[str, int]]
    changes: list[report.Change] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def diff(self) -> str:
        return report.render(self.changes, self.counts)


def reconcile(connection: Any, wanted: Mapping[str, Any], options: Options) -> Outcome:
    """Bring the directory to `wanted` (the normalised state of estate.py, format 1) and commit; or roll back and raise.

    connection: a psycopg2 connection with nothing under way. Raises `RefusedError` with every problem that was found,
    or the driver's error (which module_utils/directory.py puts in words) when the database itself refused.
    """
    if wanted.get("format") != 1:
        raise RefusedError([f"wanted state has format {wanted.get('format')!r}, this module knows 1"])
    rows = staged.flatten(wanted)
    own = staged.reseller_row(wanted["reseller"])
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with connection.cursor() as cursor:
                outcome = _Run(cursor, own, rows, options).run()
            if options.check_mode or not outcome.changed:
                connection.rollback()
            else:
                connection.commit()
        except Exception as error:
            connection.rollback()
            # Two resellers that claim each other's names in opposite order; the other one has gone on.
            if getattr(error, "pgcode", None) != DEADLOCK or attempt == ATTEMPTS:
                raise
        else:
            return outcome
    raise AssertionError("unreachable")


def request_claims(connection: Any, reseller: str, domains: Iterable[str], *, record: bool) -> dict[str, str]:
    """Remember that `reseller` wants domains that are not available: domain -> token for the TXT record that proves it.

    A transaction of its own: the refused run has changed nothing. With `record` false only what is known is told.
    """
    names = sorted(set(domains))
    with connection.cursor() as cursor:
        if record:
            cursor.execute(
                "INSERT INTO directory.claim_requests (reseller_name, domain)"
                " SELECT %s, unnest(%s) ON CONFLICT DO NOTHING",
                (reseller, names),
            )
        cursor.execute(
            "SELECT domain, token FROM directory.claim_requests WHERE reseller_name = %s AND domain = ANY (%s)",
            (reseller, names),
        )
        tokens = dict(cursor.fetchall())
    connection.commit()
    return tokens


def in_use(connection: Any, reseller: str) -> list[tuple[str, str, str, int]]:
    """What the directory counts now: (level, customer or login or "", limit, amount), for estate.load_reseller."""
    with connection.cursor() as cursor:
        cursor.execute(sql.IN_USE, {"name": reseller})
        rows = [(level, owner, limit, int(amount)) for level, owner, limit, amount in cursor.fetchall()]
    connection.rollback()
    return rows


def claim_instructions(tokens: Mapping[str, str], domains: Iterable[str]) -> list[str]:
    """What a domain's owner puts in the DNS to choose this reseller, one line per domain."""
    return [
        f'to prove control of {domain}: _bouwsteen-claim.{domain}. TXT "bouwsteen-claim={tokens[domain]}"'
        if domain in tokens
        else f"to prove control of {domain}: a run without --check says which TXT record"
        for domain in sorted(set(domains))
    ]


# A name that can be pasted behind --extra-vars: nothing that a shell or a template would read as more than a name.
_PLAIN = re.compile(r"[A-Za-z0-9@._/+=-]+")


def extra_vars(variable: str, names: Iterable[tuple[str, str]]) -> str:
    """The option to type for names given as (name, id). A name that is not plain is told by its id."""
    return f"--extra-vars {variable}=" + ",".join(
        name if _PLAIN.fullmatch(name) else identity for name, identity in sorted(names)
    )


class _Differs(NamedTuple):
    """One row of a diff with all its columns, for people."""

    operation: str
    probe: bool
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class _Run:
    """One attempt, inside one transaction. Temporary tables go with it."""

    def __init__(
        self, cursor: Any, own: Mapping[str, Any], rows: Mapping[str, Sequence[staged.Row]], options: Options
    ) -> None:
        self.cursor = cursor
        self.own = own
        self.rows = rows
        self.options = options
        self.params: dict[str, Any] = {}
        self.problems: list[str] = []
        self.notices: list[str] = []
        self.unavailable: list[str] = []
        self.written = dict.fromkeys((table.name for table in TABLES), 0)

    def run(self) -> Outcome:
        self._begin()
        self._stage()
        self._identify()
        self._want()
        self._look_for_problems()
        if self.problems:
            raise RefusedError(sorted(self.problems), self.unavailable)
        for table in TABLES:
            self._diff(table)
        counts = self._count()
        changed = any(kind[operation] for kind in counts.values() for operation in report.OPERATIONS)
        changes = self._changes() if changed else []
        if changed and not self.options.check_mode:
            self._apply()
        return Outcome(changed, counts, changes, self.notices)

    # ---------------------------------------------------------------------------------------------- statements

    def _do(self, statement: str, **more: Any) -> int:
        self.cursor.execute(statement, {**self.params, **more})
        return int(self.cursor.rowcount)

    def _rows(self, statement: str, **more: Any) -> list[tuple[Any, ...]]:
        self._do(statement, **more)
        return list(self.cursor.fetchall())

    # -------------------------------------------------------------------------------------------- 1, 2: stage

    def _begin(self) -> None:
        name = self.own["name"]
        # A statement of its own: what follows must see what the run before us has committed.
        self._do("SELECT pg_advisory_xact_lock(hashtextextended('bouwsteen.reseller:' || %(name)s, 0))", name=name)
        self._do("SET CONSTRAINTS ALL DEFERRED")
        found = self._rows("SELECT reseller_id::text FROM directory.resellers WHERE name = %(name)s", name=name)
        now = self._rows("SELECT coalesce(%(now)s::timestamptz, now())::text", now=self.options.now)[0][0]
        self.params = {
            "reseller": found[0][0] if found else str(uuid.uuid4()),
            "name": name,
            "now": now,
            "retention": self.own["retention_days"],
            "confirmed": list(self.options.confirm_removal),
        }

    def _stage(self) -> None:
        for name, columns in staged.STAGES.items():
            definition = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
            self._do(f"CREATE TEMPORARY TABLE stage_{name} ({definition}) ON COMMIT DROP")
            if self.rows[name]:
                names = ", ".join(f'"{column}"' for column in columns)
                self.cursor.copy_expert(f"COPY stage_{name} ({names}) FROM STDIN", staged.copy_text(self.rows[name]))
            self._do(f"ANALYZE stage_{name}")

    # ------------------------------------------------------------------------------------ 3: who is meant

    def _identify(self) -> None:
        for statement in sql.IDENTITIES:
            self._do(statement)

    # --------------------------------------------------------------------------- 4, 5: what should be there

    def _want(self) -> None:
        for table in TABLES:
            self._do(
                f"CREATE TEMPORARY TABLE {table.want} ON COMMIT DROP AS"
                f" SELECT {', '.join(table.columns)} FROM directory.{table.name} WITH NO DATA"
            )
        json_columns = ("placement", "prices", "settings")
        self._do(
            f"INSERT INTO want_resellers ({', '.join(RESELLERS.columns)}) VALUES (%(reseller)s::uuid, "
            + ", ".join(f"%({column})s" for column in RESELLERS.values)
            + ")",
            **{
                column: json.dumps(self.own[column]) if column in json_columns else self.own[column]
                for column in RESELLERS.values
            },
        )
        for statement in sql.WANTED:
            self._do(statement)
        for table in TABLES:
            self._do(f"ANALYZE {table.want}")

    # ------------------------------------------------------------------------------------------- 6: problems

    def _look_for_problems(self) -> None:
        self.unavailable = [row[0] for row in self._rows(sql.UNAVAILABLE)]
        self.problems += [
            f"domain {domain} is not available; prove control with a DNS TXT record" for domain in self.unavailable
        ]
        self.problems += [row[0] for statement in sql.PROBLEMS for row in self._rows(statement)]
        self._unconfirmed()
        self._vanished()
        self._limits()

    def _unconfirmed(self) -> None:
        waiting = self._rows(sql.UNCONFIRMED)
        for kind, label, identity, customer, data in waiting:
            where = "" if kind == "customer" else f" (customer {customer})"
            self.problems.append(
                f"{kind} {printable(label)}{where} is to be removed with {data}; to confirm: "
                + extra_vars("confirm_removal", [(label, identity)])
            )
        if len(waiting) > 1:
            names = [(label, identity) for _kind, label, identity, _customer, _data in waiting]
            self.problems.append(f"to confirm all removals: {extra_vars('confirm_removal', names)}")

    def _vanished(self) -> None:
        """Many people gone at once is a typing error until somebody says otherwise."""
        confirmed = set(self.options.confirm_suspension)
        reseller = self.own["name"]
        if reseller in confirmed:
            return
        told = len(self.problems)
        whole = dict(self._rows(sql.VANISHED_CUSTOMERS))
        gone_all = before_all = 0
        for customer, gone, before in self._rows(sql.VANISHED_USERS):
            gone_all += 0 if customer in confirmed else gone
            before_all += before
            if customer in confirmed or not gone:
                continue
            if customer in whole:
                problem = f"customer {customer} is no longer in the files: {gone} users would be suspended"
            elif self._many(gone, before):
                problem = f"{gone} of {before} users of customer {customer} are no longer in the files"
            else:
                continue
            self.problems.append(f"{problem}; to confirm: {extra_vars('confirm_suspension', [(customer, customer)])}")
        if len(self.problems) == told and self._many(gone_all, before_all):
            self.problems.append(
                f"{gone_all} of {before_all} users of reseller {reseller} are no longer in the files;"
                f" to confirm: {extra_vars('confirm_suspension', [(reseller, reseller)])}"
            )

    def _many(self, gone: int, before: int) -> bool:
        return gone > self.options.suspend_more_than and gone > before * self.options.suspend_share

    def _limits(self) -> None:
        """The same arithmetic as the tables' triggers, over all limits at once, so that all problems are told."""
        for name, unit, level, owner, most, hard, warn_at, present, wanted in self._rows(sql.OVER_LIMITS):
            what = f"limit {name} of {level} {owner}: max {report.amount_text(most, unit)}"
            grows = wanted > present
            if hard and grows and wanted > most:
                more = report.amount_text(wanted - present, unit)
                self.problems.append(f"{what}, in use {report.amount_text(present, unit)}, wanted {more} more")
            elif wanted > most:
                end = "nothing more can be added" if hard else "let through, as the limit is soft"
                self.notices.append(f"{what}, in use {report.amount_text(wanted, unit)}: {end}")
            elif most > 0 and warn_at and wanted * 100 >= most * min(warn_at):
                self.notices.append(f"{what}, in use {report.amount_text(wanted, unit)} ({int(wanted * 100 / most)} %)")

    # ----------------------------------------------------------------------------------------------- 7: diff

    def _diff(self, table: Table) -> None:
        differs = " OR ".join(f"w.{column} IS DISTINCT FROM p.{column}" for column in table.values)
        change = "'changed'"
        if table.lifecycle:
            change = (
                "CASE WHEN w.state = 'active' AND p.state <> 'active' THEN 'resumed'"
                " WHEN (w.state, w.suspended_because) IS DISTINCT FROM (p.state, p.suspended_because)"
                " AND (w.suspended_because, p.suspended_because) IS DISTINCT FROM ('file', 'absent')"
                " THEN 'suspended' ELSE 'changed' END"
            )
        probe = "coalesce(w.kind, p.kind) = 'probe'" if table.probes else "FALSE"
        keys = "".join(f", coalesce(w.{column}, p.{column}) AS {column}" for column in table.key)
        self._do(f"""
            CREATE TEMPORARY TABLE {table.diff} ON COMMIT DROP AS
            SELECT coalesce(w.reseller_id, p.reseller_id) AS reseller_id{keys},
                   CASE WHEN p.reseller_id IS NULL THEN 'created' WHEN w.reseller_id IS NULL THEN 'removed'
                        ELSE {change} END AS operation,
                   coalesce({table.grows_less}, FALSE) AS grows_less,
                   {probe} AS probe
            FROM {table.want} w FULL JOIN
                (SELECT * FROM directory.{table.name} p WHERE p.reseller_id = %(reseller)s::uuid AND {table.scope}) p
                ON {table.same_key("w", "p")}
            WHERE p.reseller_id IS NULL OR w.reseller_id IS NULL OR {differs}""")

    def _count(self) -> dict[str, dict[str, int]]:
        counts = report.empty_counts()
        for table in TABLES:
            touched = dict.fromkeys((False, True), 0)
            for operation, probe, number in self._rows(
                f"SELECT operation, probe, count(*) FROM {table.diff} GROUP BY 1, 2"
            ):
                counts["probe" if probe else table.kind][operation] += number
                touched[probe] += 0 if operation == report.REMOVED else number
            is_probe = "w.kind = 'probe'" if table.probes else "FALSE"
            for probe, number in self._rows(f"SELECT {is_probe}, count(*) FROM {table.want} w GROUP BY 1"):
                counts["probe" if probe else table.kind]["unchanged"] += number - touched[probe]
        return counts

    def _changes(self) -> list[report.Change]:
        found: list[tuple[Table, _Differs]] = []
        for table in TABLES:
            columns = ", ".join(table.columns)
            found += [
                (table, _Differs(*row))
                for row in self._rows(
                    f"""
                    SELECT d.operation, d.probe, to_jsonb(p), to_jsonb(w)
                    FROM {table.diff} d
                        LEFT JOIN {table.want} w ON {table.same_key("w", "d")}
                        LEFT JOIN (SELECT {columns} FROM directory.{table.name}) p ON {table.same_key("p", "d")}
                    ORDER BY d.probe, coalesce(w.{table.order}, p.{table.order}), d.operation LIMIT %(limit)s""",
                    limit=self.options.diff_limit,
                )
            ]
        names = self._names([row for _table, one in found for row in (one.before, one.after) if row])
        return [_change(table, one, names, self.own["name"]) for table, one in found]

    def _names(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        """What people call the owners that the rows name by id: id -> name."""
        names: dict[str, str] = {}
        wanted: dict[str, set[str]] = {column: set() for column in _NAMED}
        for row in rows:
            for column, ids in wanted.items():
                if row.get(column):
                    ids.add(row[column])
        for column, (table, label) in _NAMED.items():
            if wanted[column]:
                # The wanted name wins over the present one: the diff speaks of the state that it leads to.
                for source in (f"directory.{table}", f"want_{table}"):
                    names.update(
                        self._rows(
                            f"SELECT {column}::text, {label} FROM {source}"
                            f" WHERE reseller_id = %(reseller)s::uuid AND {column} = ANY (%(ids)s::uuid[])",
                            ids=sorted(wanted[column]),
                        )
                    )
        return names

    # ---------------------------------------------------------------------------------------------- 8: apply

    def _apply(self) -> None:
        for table in (RESELLERS, PRODUCTS):
            self._change(table)
            self._create(table)
        # Limits as they will be, before anything is measured by them; their owners may come later in the transaction.
        self._remove(LIMITS)
        self._change(LIMITS)
        self._create(LIMITS)
        # What shrinks or frees a name, from what people have up to the customer. What moves to another owner does so
        # before the old owner goes, and takes everything along.
        owned = (ADDRESSES, FORWARDS, MEMBERS, EXTENSIONS, NUMBERS)
        for table in owned:
            self._remove(table)
            self._change(table)
        people = (USERS, GROUPS, RESOURCES, DOMAINS)
        for table in people:
            self._change(table, "d.grows_less")
        for table in people:
            self._remove(table)
        self._change(CUSTOMERS, "d.grows_less")
        self._remove(CUSTOMERS)
        # What grows or takes a name, from the customer down.
        for table in (CUSTOMERS, DOMAINS, USERS, GROUPS, RESOURCES):
            if table in (GROUPS, RESOURCES):
                self._step_aside(table)
            self._change(table, "NOT d.grows_less")
            self._create(table)
        for table in owned:
            self._create(table)
        self._remove(PRODUCTS)
        self._written_all()
        # Foreign keys are looked at now, so that their errors come from here and not from the commit.
        self._do("SET CONSTRAINTS ALL IMMEDIATE")

    def _step_aside(self, table: Table) -> None:
        """Names that move from one row to another: the holders let go first, as each name is unique at every moment."""
        (identity,) = table.key
        self._do(f"""
            UPDATE directory.{table.name} t SET name = t.{identity}::text
            FROM {table.diff} d JOIN {table.want} w ON {table.same_key("w", "d")}
            WHERE {table.same_key("t", "d")} AND t.name <> w.name
              AND EXISTS (SELECT FROM {table.want} o WHERE o.customer_id = t.customer_id AND o.name = t.name
                          AND o.{identity} <> t.{identity})""")

    def _create(self, table: Table) -> None:
        extra = table.on_insert
        columns = ", ".join((*table.columns, *extra))
        values = ", ".join((*(f"w.{column}" for column in table.columns), *extra.values()))
        order = ", ".join(f"w.{column}" for column in dict.fromkeys((table.order, *table.key)))
        self._write(
            table,
            f"""INSERT INTO directory.{table.name} ({columns})
                SELECT {values} FROM {table.diff} d JOIN {table.want} w ON {table.same_key("w", "d")}
                WHERE d.operation = 'created' ORDER BY {order}""",
        )

    def _change(self, table: Table, condition: str = "TRUE") -> None:
        new = {**{column: f"w.{column}" for column in table.values}, **table.written}
        self._write(
            table,
            f"""UPDATE directory.{table.name} t SET {", ".join(f"{column} = {value}" for column, value in new.items())}
                FROM {table.diff} d JOIN {table.want} w ON {table.same_key("w", "d")}
                WHERE d.operation NOT IN ('created', 'removed') AND {table.same_key("t", "d")} AND {condition}""",
        )

    def _remove(self, table: Table) -> None:
        self._write(
            table,
            f"""DELETE FROM directory.{table.name} t USING {table.diff} d
                WHERE d.operation = 'removed' AND {table.same_key("t", "d")}""",
        )

    def _write(self, table: Table, statement: str) -> None:
        self.written[table.name] += self._do(statement)

    def _written_all(self) -> None:
        for table in TABLES:
            ((expected,),) = self._rows(f"SELECT count(*) FROM {table.diff}")
            if self.written[table.name] != expected:
                problem = (
                    f"the directory changed during the run: of {expected} rows of {table.name} that differ"
                    f" {self.written[table.name]} were written; run again"
                )
                raise RefusedError([problem])


_NAMED = {
    "customer_id": ("customers", "name"),
    "user_id": ("users", "login"),
    "group_id": ("groups", "name"),
    "resource_id": ("resources", "name"),
}


def _change(table: Table, found: _Differs, names: Mapping[str, str], reseller: str) -> report.Change:
    operation, probe, before, after = found
    row = after or before or {}
    customer = names.get(row.get("customer_id") or "")
    name = str(row.get(table.order))
    # What a row is called by is in its name already, unless it changes.
    columns = [column for column in table.columns if before is not None or column != table.order]
    if table is LIMITS:
        unit = "bytes" if row["name"].endswith("_storage") else ""
        for one in (before, after):
            if one is not None:
                one["max"] = report.amount_text(Decimal(str(one["max"])), unit)
        level = "user" if row["user_id"] else "customer" if row["customer_id"] else "reseller"
        owner = names.get(row["user_id"] or row["customer_id"] or "", reseller)
        name = f"{row['name']} of {level} {owner}"
    elif table is FORWARDS:
        name = f"{names[row['user_id']]} to {row['target']}"
    elif table is MEMBERS:
        name = f"{names[row['user_id']]} in {names[row['group_id']]}"
    fields = report.fields_of(before, after, columns)
    if table in (ADDRESSES, EXTENSIONS) and after is not None:
        pair = tuple(_owner(one, names) for one in (before, after))
        fields = {"of": (pair[0], pair[1]), **fields}
    # A probe is told as what it is, whatever table a part of it is in.
    kind = "probe" if probe else table.kind
    if probe:
        name, fields, customer = f"{table.name} {name}", {}, None
    return report.Change(kind, name, operation, customer, fields)


def _owner(row: Mapping[str, Any] | None, names: Mapping[str, str]) -> str | None:
    for column in ("user_id", "group_id", "resource_id"):
        if row and row.get(column):
            return f"{column.removesuffix('_id')} {names[row[column]]}"
    return None
