# SPDX-License-Identifier: GPL-3.0-or-later
"""The statements of the reconcile (reconcile.py says in which order and why).

Parameters of all: reseller (uuid), name (of the reseller), now, retention (days), confirmed (names typed for removal).
Temporary tables: stage_* what the files say, by name; id_* the same with ids; fate_* what is in the directory and not
in the files; want_* what each table should hold.
"""

from __future__ import annotations

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
    RESOURCES,
    STATE,
    USERS,
    Table,
    counted,
)

# ruff: noqa: S608  (statements are put together from constants; values are parameters)

IDENTITIES = (
    """
    CREATE TEMPORARY TABLE id_customers ON COMMIT DROP AS
    SELECT s.*, coalesce(p.customer_id, gen_random_uuid()) AS id
    FROM stage_customers s
        LEFT JOIN directory.customers p ON p.reseller_id = %(reseller)s::uuid AND p.name = s.name""",
    """
    CREATE TEMPORARY TABLE id_domains ON COMMIT DROP AS
    SELECT s.*, c.id AS customer_id, coalesce(p.domain_id, gen_random_uuid()) AS id
    FROM stage_domains s JOIN id_customers c ON c.name = s.customer
        LEFT JOIN directory.domains p
            ON p.reseller_id = %(reseller)s::uuid AND p.customer_id = c.id AND p.name = s.name""",
    """
    CREATE TEMPORARY TABLE id_users ON COMMIT DROP AS
    SELECT s.*, c.id AS customer_id, coalesce(p.user_id, gen_random_uuid()) AS id
    FROM stage_users s JOIN id_customers c ON c.name = s.customer
        LEFT JOIN directory.users p
            ON p.reseller_id = %(reseller)s::uuid AND p.customer_id = c.id AND p.login = s.login""",
    # By name, else by the address: a group that is renamed keeps its folder, one that moves keeps its people.
    """
    CREATE TEMPORARY TABLE id_groups ON COMMIT DROP AS
    SELECT s.*, c.id AS customer_id, coalesce(p.group_id, a.group_id, gen_random_uuid()) AS id
    FROM stage_groups s JOIN id_customers c ON c.name = s.customer
        LEFT JOIN directory.groups p
            ON p.reseller_id = %(reseller)s::uuid AND p.customer_id = c.id AND p.name = s.name
        LEFT JOIN LATERAL (
            SELECT g.group_id FROM directory.addresses g JOIN directory.groups o USING (reseller_id, group_id)
            WHERE g.reseller_id = %(reseller)s::uuid AND g.customer_id = c.id AND g.address = s.address
              AND NOT EXISTS (SELECT FROM stage_groups n WHERE n.customer = s.customer AND n.name = o.name)
        ) a ON p.group_id IS NULL""",
    """
    CREATE TEMPORARY TABLE id_resources ON COMMIT DROP AS
    SELECT s.*, c.id AS customer_id, coalesce(p.resource_id, a.resource_id, gen_random_uuid()) AS id
    FROM stage_resources s JOIN id_customers c ON c.name = s.customer
        LEFT JOIN directory.resources p
            ON p.reseller_id = %(reseller)s::uuid AND p.customer_id = c.id AND p.name = s.name
        LEFT JOIN LATERAL (
            SELECT g.resource_id FROM directory.addresses g JOIN directory.resources o USING (reseller_id, resource_id)
            WHERE g.reseller_id = %(reseller)s::uuid AND g.customer_id = c.id AND g.address = s.address
              AND NOT EXISTS (SELECT FROM stage_resources n WHERE n.customer = s.customer AND n.name = o.name)
        ) a ON p.resource_id IS NULL""",
    "ANALYZE id_customers",
    "ANALYZE id_domains",
    "ANALYZE id_users",
    "ANALYZE id_groups",
    "ANALYZE id_resources",
)


def _fate(kind: str, label: str, data: str, *, joins: str = "", name: str = "p.name") -> str:
    """The rows of a table that are not wanted, and what becomes of each: keep, remove, or unconfirmed.

    label: what an operator types to confirm. data: what would go with the row, NULL when nothing would.
    name: what `state: absent` in the files names it by.
    """
    one = kind.removesuffix("s")
    is_customer = kind == "customers"
    probe = "p.kind = 'probe'" if kind in ("customers", "domains", "users") else "FALSE"
    customer = "p" if is_customer else "c"
    owner_goes = "FALSE" if is_customer else "coalesce(o.fate = 'remove', FALSE)"
    owner = (
        ""
        if is_customer
        else """
        JOIN directory.customers c USING (reseller_id, customer_id)
        LEFT JOIN fate_customers o ON o.id = p.customer_id"""
    )
    return f"""
    CREATE TEMPORARY TABLE fate_{kind} ON COMMIT DROP AS
    SELECT id, customer_id, customer, label, data, vanishes, probe,
           CASE WHEN owner_goes OR probe OR due OR confirmed OR (requested AND data IS NULL) THEN 'remove'
                WHEN requested THEN 'unconfirmed' ELSE 'keep' END AS fate, confirmed
    FROM (
        SELECT p.{one}_id AS id, p.customer_id, {customer}.name AS customer, {label} AS label, {data} AS data,
               p.suspended_because IS DISTINCT FROM 'absent' AS vanishes, {probe} AS probe, {owner_goes} AS owner_goes,
               (p.suspended_because = 'absent' OR p.state = 'removed-pending')
                   AND coalesce(p.remove_after, '-infinity') <= %(now)s::timestamptz AS due,
               p.{one}_id::text = ANY (%(confirmed)s) OR coalesce({label} = ANY (%(confirmed)s), FALSE) AS confirmed,
               EXISTS (SELECT FROM stage_removals r
                       WHERE r.kind = '{one}' AND r.customer = {customer}.name AND r.name = {name}) AS requested
        FROM directory.{kind} p{owner}{joins}
        WHERE p.reseller_id = %(reseller)s::uuid AND NOT EXISTS (SELECT FROM id_{kind} i WHERE i.id = p.{one}_id)
    ) AS gone"""


def _number(count: str, word: str) -> str:
    return f"CASE ({count}) WHEN 0 THEN NULL WHEN 1 THEN '1 {word}' ELSE ({count}) || ' {word}s' END"


def _in_customer(table: str) -> str:
    return (
        f"SELECT count(*) FROM directory.{table} n"
        " WHERE n.reseller_id = p.reseller_id AND n.customer_id = p.customer_id"
    )


_FATE_CUSTOMERS = _fate(
    "customers",
    "p.name::text",
    f"""nullif(concat_ws(', ', {_number(_in_customer("users"), "user")}, {_number(_in_customer("groups"), "group")},
        {_number(_in_customer("resources"), "resource")}), '')""",
)
_FATE_USERS = _fate(
    "users",
    "p.login::text",
    """nullif(concat_ws(' and ', CASE WHEN p.mail THEN 'mailbox' END, CASE WHEN p.files THEN 'files' END), '')""",
    name="p.login",
)
_FATE_GROUPS = _fate(
    "groups",
    "c.name || '/' || p.name",
    """nullif(concat_ws(' and ', CASE WHEN p.mail_kind = 'shared_mailbox' THEN 'mailbox' END,
        CASE WHEN p.files IS NOT NULL THEN 'files' END), '')""",
)
_FATE_RESOURCES = _fate(
    "resources",
    "coalesce(a.address::text, c.name || '/' || p.name)",
    "'calendar'",
    joins="""
        LEFT JOIN directory.addresses a ON a.reseller_id = p.reseller_id AND a.resource_id = p.resource_id""",
    name="a.address",
)
# A domain goes after the last person and address in it; its claim goes with it.
_FATE_DOMAINS = _fate("domains", "p.name::text", "NULL::text")
_HOLDS = """(EXISTS (SELECT FROM want_users u
                   WHERE u.customer_id = d.customer_id AND split_part(u.login, '@', 2) = d.label)
      OR EXISTS (SELECT FROM want_addresses a
                 WHERE a.customer_id = d.customer_id AND split_part(a.address, '@', 2) = d.label))"""
_DOMAIN_STAYS = f"""
    UPDATE fate_domains d SET fate = 'keep'
    WHERE d.fate = 'remove' AND NOT d.probe AND {_HOLDS}"""

# A kept domain stands for another one as long as that one is there and stands for itself.
_ALIAS_ENDS = """
    UPDATE want_domains k SET alias_of = NULL
    WHERE k.suspended_because = 'absent' AND k.alias_of IS NOT NULL
      AND NOT EXISTS (SELECT FROM want_domains t
                      WHERE t.customer_id = k.customer_id AND t.name = k.alias_of AND t.alias_of IS NULL)"""

# The state of a wanted row (s) that may be there already (p), and of one that is kept although nobody wants it.
_WANTED_STATE = """s.state, CASE WHEN s.state = 'suspended' THEN 'file' END,
    CASE WHEN s.state = 'active' THEN NULL WHEN p.state <> 'active' THEN coalesce(p.suspended_at, %(now)s::timestamptz)
         ELSE %(now)s::timestamptz END, NULL"""
_KEPT_STATE = """CASE WHEN p.state = 'removed-pending' THEN p.state ELSE 'suspended' END, 'absent',
    CASE WHEN p.state = 'active' THEN %(now)s::timestamptz ELSE coalesce(p.suspended_at, %(now)s::timestamptz) END,
    CASE WHEN p.suspended_because = 'absent' AND p.remove_after IS NOT NULL THEN p.remove_after
         ELSE %(now)s::timestamptz + make_interval(days => %(retention)s) END"""


def _insert(table: Table, select: str) -> str:
    return f"INSERT INTO {table.want} ({', '.join(table.columns)}) {select}"


def _kept(table: Table) -> str:
    """The rows of a table with states that are kept: as they are, suspended because absent."""
    stay = ", ".join(f"p.{column}" for column in table.columns if column not in STATE)
    return _insert(
        table,
        f"""SELECT {stay}, {_KEPT_STATE} FROM directory.{table.name} p
            JOIN fate_{table.name} f ON f.id = p.{table.key[0]} AND f.fate <> 'remove'
            WHERE p.reseller_id = %(reseller)s::uuid""",
    )


_KEPT_USER = "EXISTS (SELECT FROM fate_users f WHERE f.id = p.user_id AND f.fate <> 'remove')"
_KEPT_GROUP = "EXISTS (SELECT FROM fate_groups f WHERE f.id = p.group_id AND f.fate <> 'remove')"
_KEPT_RESOURCE = "EXISTS (SELECT FROM fate_resources f WHERE f.id = p.resource_id AND f.fate <> 'remove')"
_KEPT_CUSTOMER = "EXISTS (SELECT FROM fate_customers f WHERE f.id = p.customer_id AND f.fate <> 'remove')"


def _kept_with(table: Table, condition: str) -> str:
    """Rows that stay because their owner is kept, unless the same key is wanted for somebody else."""
    columns = ", ".join(f"p.{column}" for column in table.columns)
    return _insert(
        table,
        f"""SELECT {columns} FROM directory.{table.name} p
            WHERE p.reseller_id = %(reseller)s::uuid AND {table.scope} AND ({condition})
              AND NOT EXISTS (SELECT FROM {table.want} w WHERE {table.same_key("w", "p")})""",
    )


WANTED = (
    _FATE_CUSTOMERS,
    _insert(
        CUSTOMERS,
        f"""SELECT %(reseller)s::uuid, s.id, s.name, s.title, s.kind, s.telephony, {_WANTED_STATE}
            FROM id_customers s
                LEFT JOIN directory.customers p ON p.reseller_id = %(reseller)s::uuid AND p.customer_id = s.id""",
    ),
    _kept(CUSTOMERS),
    _FATE_USERS,
    _insert(
        USERS,
        f"""SELECT %(reseller)s::uuid, s.id, s.customer_id, s.login, s.name, s.kind, s.product, s.language,
                CASE WHEN s.password IS NULL THEN p.password_hash
                     WHEN p.password_hash IS NULL OR p.password_hash IS NOT DISTINCT FROM p.password_first
                     THEN s.password
                     ELSE p.password_hash END,
                coalesce(s.password, p.password_first),
                s.mail, s.mail_quota, s.keep_copy, s.phone, s.files, s.file_quota, s.file_settings, s.invite,
                {_WANTED_STATE}
            FROM id_users s LEFT JOIN directory.users p ON p.reseller_id = %(reseller)s::uuid AND p.user_id = s.id""",
    ),
    _kept(USERS),
    _FATE_GROUPS,
    _insert(
        GROUPS,
        f"""SELECT %(reseller)s::uuid, s.id, s.customer_id, s.name, s.title, s.mail_kind, s.mail_quota, s.phone,
                s.files, s.file_quota, {_WANTED_STATE.replace("s.state", "'active'")}
            FROM id_groups s
                LEFT JOIN directory.groups p ON p.reseller_id = %(reseller)s::uuid AND p.group_id = s.id""",
    ),
    _kept(GROUPS),
    _FATE_RESOURCES,
    _insert(
        RESOURCES,
        f"""SELECT %(reseller)s::uuid, s.id, s.customer_id, s.name, {_WANTED_STATE.replace("s.state", "'active'")}
            FROM id_resources s
                LEFT JOIN directory.resources p ON p.reseller_id = %(reseller)s::uuid AND p.resource_id = s.id""",
    ),
    _kept(RESOURCES),
    _insert(
        ADDRESSES,
        """SELECT %(reseller)s::uuid, a.address, u.customer_id, a.kind, u.id, NULL::uuid, NULL::uuid
               FROM stage_aliases a JOIN id_users u ON u.customer = a.customer AND u.login = a.login
           UNION ALL SELECT %(reseller)s::uuid, address, customer_id, 'group', NULL, id, NULL
               FROM id_groups WHERE address IS NOT NULL
           UNION ALL SELECT %(reseller)s::uuid, address, customer_id, 'resource', NULL, NULL, id FROM id_resources""",
    ),
    _kept_with(
        ADDRESSES,
        f"""({_KEPT_USER} OR {_KEPT_GROUP} OR {_KEPT_RESOURCE})
            AND NOT EXISTS (SELECT FROM id_users u WHERE u.login = p.address)""",
    ),
    _FATE_DOMAINS,
    _DOMAIN_STAYS,
    _insert(
        DOMAINS,
        f"""SELECT %(reseller)s::uuid, s.id, s.customer_id, s.name, s.kind, s.alias_of,
                {_WANTED_STATE.replace("s.state", "'active'")}
            FROM id_domains s
                LEFT JOIN directory.domains p ON p.reseller_id = %(reseller)s::uuid AND p.domain_id = s.id""",
    ),
    _kept(DOMAINS),
    _ALIAS_ENDS,
    _insert(
        FORWARDS,
        """SELECT %(reseller)s::uuid, u.id, f.target, u.customer_id
           FROM stage_forwards f JOIN id_users u ON u.customer = f.customer AND u.login = f.login""",
    ),
    _kept_with(FORWARDS, _KEPT_USER),
    _insert(
        MEMBERS,
        """SELECT %(reseller)s::uuid, g.id, u.id, g.customer_id
           FROM stage_members m JOIN id_groups g ON g.customer = m.customer AND g.name = m."group"
               JOIN id_users u ON u.customer = m.customer AND u.login = m.login""",
    ),
    # A kept group keeps those of its people who are kept or wanted themselves.
    _kept_with(MEMBERS, f"{_KEPT_GROUP} AND EXISTS (SELECT FROM want_users u WHERE u.user_id = p.user_id)"),
    _insert(
        EXTENSIONS,
        """SELECT %(reseller)s::uuid, c.id, e.extension, u.id, g.id
           FROM stage_extensions e JOIN id_customers c ON c.name = e.customer
               LEFT JOIN id_users u ON u.customer = e.customer AND u.login = e.login
               LEFT JOIN id_groups g ON g.customer = e.customer AND g.name = e."group" """,
    ),
    _kept_with(
        EXTENSIONS,
        f"{_KEPT_USER} OR {_KEPT_GROUP} OR (p.user_id IS NULL AND p.group_id IS NULL AND {_KEPT_CUSTOMER})",
    ),
    _insert(
        NUMBERS,
        """SELECT %(reseller)s::uuid, n.number, c.id FROM stage_numbers n JOIN id_customers c ON c.name = n.customer""",
    ),
    _kept_with(NUMBERS, _KEPT_CUSTOMER),
    _insert(
        LIMITS,
        """SELECT %(reseller)s::uuid, coalesce(u.id, c.id, %(reseller)s::uuid), l.name, c.id, u.id, l.max, l.basis,
               l.enforce, l.warn_at
           FROM stage_limits l LEFT JOIN id_customers c ON c.name = l.customer
               LEFT JOIN id_users u ON u.customer = l.customer AND u.login = l.login""",
    ),
    _kept_with(LIMITS, f"{_KEPT_USER} OR (p.user_id IS NULL AND {_KEPT_CUSTOMER})"),
    _insert(PRODUCTS, "SELECT %(reseller)s::uuid, name, definition FROM stage_products"),
    # A product that left the contract stays as long as somebody who is kept has it.
    _kept_with(PRODUCTS, "EXISTS (SELECT FROM want_users u WHERE u.product = p.name)"),
)

# Held by another reseller: the domain itself, or a reseller's own domain above it. Names nobody.
UNAVAILABLE = """
    WITH wanted AS (
        SELECT name, FALSE AS own FROM stage_domains WHERE kind <> 'probe'
        UNION ALL SELECT domain, TRUE FROM want_resellers
    ), suffixes AS (
        SELECT name, i, array_to_string((string_to_array(name, '.'))[i:], '.') AS suffix
        FROM wanted CROSS JOIN LATERAL generate_series(1, cardinality(string_to_array(name, '.'))) AS i
    )
    SELECT s.name FROM suffixes s JOIN directory.claims c ON c.domain = s.suffix
    WHERE c.reseller_id <> %(reseller)s::uuid AND (s.i = 1 OR c.kind = 'reseller')
    UNION
    SELECT w.name FROM wanted w JOIN directory.claims c ON right(c.domain, length(w.name) + 1) = '.' || w.name
    WHERE w.own AND c.reseller_id <> %(reseller)s::uuid
    ORDER BY 1"""

_UNTIL = "to_char({row}.remove_after, 'YYYY-MM-DD')"
# Each gives one text per problem.
PROBLEMS = (
    """SELECT 'number ' || n.number || ' is not available' FROM stage_numbers n
       JOIN directory.numbers p ON p.number = n.number WHERE p.reseller_id <> %(reseller)s::uuid""",
    f"""SELECT 'domain ' || d.name || ' is already at customer ' || c.name || coalesce(
               ', whose files no longer have it; it is kept until ' || {_UNTIL.format(row="k")}
               || ', to release it now: --extra-vars confirm_removal=' || d.name, '')
        FROM id_domains d JOIN directory.domains p ON p.name = d.name AND p.reseller_id = %(reseller)s::uuid
            JOIN directory.customers c ON c.reseller_id = p.reseller_id AND c.customer_id = p.customer_id
            LEFT JOIN fate_domains f ON f.id = p.domain_id
            LEFT JOIN want_domains k ON k.domain_id = p.domain_id AND k.suspended_because = 'absent'
        WHERE p.customer_id <> d.customer_id AND f.fate IS DISTINCT FROM 'remove'""",
    f"""SELECT 'domain ' || d.label || ' cannot be removed yet: people or addresses in it are kept'
        FROM fate_domains d WHERE d.confirmed AND d.fate = 'keep'
          AND {_HOLDS}""",
    f"""SELECT 'address ' || w.address || CASE WHEN u.suspended_because = 'absent'
               THEN ' is still the login of a user who is kept until ' || {_UNTIL.format(row="u")}
                   || '; to remove that user now: --extra-vars confirm_removal=' || u.login
               ELSE ' is already the login of a user' END
        FROM want_addresses w JOIN want_users u ON u.login = w.address""",
    """SELECT 'address ' || address || ' is wanted ' || count(*) || ' times' FROM want_addresses
       GROUP BY address HAVING count(*) > 1""",
    """SELECT 'extension ' || w.extension || ' of customer ' || c.name || ' is wanted ' || count(*) || ' times'
       FROM want_extensions w JOIN want_customers c USING (customer_id)
       GROUP BY w.extension, c.name HAVING count(*) > 1""",
    f"""SELECT 'group name ' || w.name || ' of customer ' || c.name || ' is still that of a group that is kept until '
               || {_UNTIL.format(row="k")}
        FROM want_groups w JOIN want_groups k USING (customer_id, name) JOIN want_customers c USING (customer_id)
        WHERE k.suspended_because = 'absent' AND w.group_id <> k.group_id""",
    f"""SELECT 'resource name ' || w.name || ' of customer ' || c.name
               || ' is still that of a resource that is kept until ' || {_UNTIL.format(row="k")}
        FROM want_resources w JOIN want_resources k USING (customer_id, name) JOIN want_customers c USING (customer_id)
        WHERE k.suspended_because = 'absent' AND w.resource_id <> k.resource_id""",
    """SELECT 'user ' || u.login || ' (customer ' || u.customer || ') has product ' || u.product
               || ', which the contract does not have'
       FROM id_users u WHERE u.product IS NOT NULL
         AND NOT EXISTS (SELECT FROM stage_products p WHERE p.name = u.product)""",
)

UNCONFIRMED = " UNION ALL ".join(
    f"""SELECT '{kind}', f.label, f.id::text, f.customer, f.data
        FROM fate_{kind}s f{" LEFT JOIN fate_customers o ON o.id = f.customer_id" if kind != "customer" else ""}
        WHERE f.fate = 'unconfirmed'{" AND o.fate IS DISTINCT FROM 'unconfirmed'" if kind != "customer" else ""}"""
    for kind in ("customer", "user", "group", "resource")
)

# Customers that vanish as a whole, with people in them.
VANISHED_CUSTOMERS = """
    SELECT c.label, count(*) FROM fate_customers c JOIN fate_users u ON u.customer_id = c.id
    WHERE c.fate = 'keep' AND c.vanishes AND u.vanishes GROUP BY c.label"""
# Per customer: how many people vanish, of how many that count.
VANISHED_USERS = """
    SELECT c.name, count(f.id), count(*)
    FROM directory.users p JOIN directory.customers c USING (reseller_id, customer_id)
        LEFT JOIN fate_users f ON f.id = p.user_id AND f.vanishes AND f.fate = 'keep'
    WHERE p.reseller_id = %(reseller)s::uuid AND p.counted GROUP BY c.name ORDER BY c.name"""


def _things() -> list[tuple[str, str, str, str, str, str]]:
    """Every counted thing: (limit, table, amount, user column, condition on wanted rows, condition on present rows)."""
    nobody, one, alias = "NULL::uuid", "1::numeric", "w.kind = 'alias'"
    things = [
        ("customers", "customers", one, nobody, f"w.kind = 'customer' AND {counted('w')}", "w.counted"),
        ("domains", "domains", one, nobody, f"w.kind = 'customer' AND {counted('w')}", "w.counted"),
        ("users", "users", one, nobody, f"w.kind = 'person' AND {counted('w')}", "w.counted"),
        ("groups", "groups", one, nobody, counted("w"), "w.counted"),
        ("aliases", "addresses", one, "w.user_id", alias, alias),
        ("extensions", "extensions", one, nobody, "TRUE", "TRUE"),
        ("numbers", "numbers", one, nobody, "TRUE", "TRUE"),
    ]
    for limit, quota, flag in (("mail_storage", "mail_quota", "mail"), ("file_storage", "file_quota", "files")):
        amount, given = f"w.{quota}::numeric", f"w.{quota} IS NOT NULL"
        person = f"w.kind = 'person' AND w.{flag} AND {given}"
        things += [
            (limit, "users", amount, nobody, person, person),
            (limit, "groups", amount, nobody, given, given),
        ]
    return things


def _amounts(reseller: str, *, wanted: bool) -> str:
    """Rows (name, customer_id, user_id, wanted, present) of every counted thing, before they are added up."""
    parts = []
    for limit, table, amount, user, when_wanted, when_present in _things():
        customer = "NULL::uuid" if limit == "customers" else "w.customer_id"
        head = f"SELECT '{limit}' AS name, {customer} AS customer_id, {user} AS user_id"
        parts.append(
            f"{head}, 0::numeric AS wanted, {amount} AS present FROM directory.{table} w"
            f" WHERE w.reseller_id = {reseller} AND {when_present}"
        )
        if wanted:
            parts.append(f"{head}, {amount}, 0::numeric FROM want_{table} w WHERE {when_wanted}")
    return " UNION ALL ".join(parts)


_OWNERS = """
        SELECT name, user_id AS owner_id, sum(wanted) AS wanted, sum(present) AS present
            FROM amounts WHERE user_id IS NOT NULL GROUP BY 1, 2
        UNION ALL SELECT name, customer_id, sum(wanted), sum(present)
            FROM amounts WHERE customer_id IS NOT NULL GROUP BY 1, 2
        UNION ALL SELECT name, {reseller}, sum(wanted), sum(present) FROM amounts GROUP BY 1"""

OVER_LIMITS = f"""
    WITH amounts AS ({_amounts("%(reseller)s::uuid", wanted=True)}),
        owners AS ({_OWNERS.format(reseller="%(reseller)s::uuid")})
    SELECT l.name, n.unit,
           CASE WHEN l.user_id IS NOT NULL THEN 'user' WHEN l.customer_id IS NOT NULL THEN 'customer'
                ELSE 'reseller' END,
           coalesce(u.login, c.name, %(name)s), l.max, l.enforce = 'hard', l.warn_at, o.present, o.wanted
    FROM want_limits l JOIN owners o USING (name, owner_id) JOIN directory.limit_names n ON n.name = l.name
        LEFT JOIN want_customers c ON c.customer_id = l.customer_id
        LEFT JOIN want_users u ON u.user_id = l.user_id
    WHERE (n.unit <> 'bytes' OR l.basis = 'allocated')
      AND (o.wanted > l.max OR o.wanted * 100 >= l.max * (SELECT min(x) FROM unnest(l.warn_at) AS x))
    ORDER BY 3, 4, 1"""

# Parameter: name (of the reseller).
_RESELLER = "(SELECT reseller_id FROM directory.resellers WHERE name = %(name)s)"
IN_USE = f"""
    WITH amounts AS ({_amounts(_RESELLER, wanted=False)}),
        owners AS ({_OWNERS.format(reseller=_RESELLER)})
    SELECT CASE WHEN u.login IS NOT NULL THEN 'user' WHEN c.name IS NOT NULL THEN 'customer' ELSE 'reseller' END,
           coalesce(u.login, c.name, ''), o.name, o.present
    FROM owners o
        LEFT JOIN directory.customers c ON c.reseller_id = {_RESELLER} AND c.customer_id = o.owner_id
        LEFT JOIN directory.users u ON u.reseller_id = {_RESELLER} AND u.user_id = o.owner_id
    WHERE {_RESELLER} IS NOT NULL ORDER BY 1, 2, 3"""
