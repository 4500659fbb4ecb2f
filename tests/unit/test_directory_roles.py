# SPDX-License-Identifier: GPL-3.0-or-later
"""Each service's database role may do what is listed here, and nothing else at all."""

from __future__ import annotations

from typing import Any

import psycopg2
import pytest

# Relation -> privileges; function -> call. All else of the whole database must be closed.
ALLOWED: dict[str, set[str]] = {
    "postfix": {
        "mail.domain(text,text)", "mail.mailbox(text,text)", "mail.targets(text,text)",
        "mail.recipient_status(text,text)", "mail.senders(text)", "mail.may_send(text,integer)",
        "mail.sender_is_foreign(text,text,text[])",
    },
    "dovecot": {
        "mail.dovecot_password(text,text)", "mail.app_password(text,text,text,text)", "mail.dovecot_user(text,text)",
        "mail.dovecot_users(text)", "mail.person(text)", "mail.removal_done(uuid)",
        "mail.expunged_mailbox(text)", "mail.expunged_periods(text)",
        "SELECT mail.removals",
        *(f"{verb} mail.quota_usage" for verb in ("SELECT", "INSERT", "UPDATE", "DELETE")),
        *(f"{verb} mail.last_login" for verb in ("SELECT", "INSERT", "UPDATE", "DELETE")),
    },
    "_rspamd": {"SELECT mail.dkim_keys", "SELECT mail.domain_owners"},
    "sogo": {
        "SELECT groupware.people", "UPDATE groupware.people", "groupware.same_customer(text[])",
        "sequence groupware.sogo_folder_info_c_folder_id_seq",
        *(f"{verb} groupware.sogo_acl" for verb in ("SELECT", "INSERT", "DELETE")),
        *(f"{verb} groupware.sogo_{table}" for verb in ("SELECT", "INSERT", "UPDATE", "DELETE")
          for table in ("user_profile", "folder_info", "store", "quick_appointment", "quick_contact",
                        "sessions_folder", "alarms_folder", "cache_folder", "admin")),
    },
    "portal": {
        "portal.reseller(text)", "portal.login_reseller(text)", "portal.domain(text)", "portal.link(bytea,text)",
        "portal.use_link(bytea,text,text)",
    },
    "verify": {
        "SELECT mail.dkim_public", "SELECT directory.limit_status", "SELECT directory.migrations",
        "SELECT directory.full_status", "directory.in_use(text,text,uuid,uuid,uuid)", "mail.quota(bigint,numeric)",
    },
}  # fmt: skip

RELATIONS = """
    SELECT p.verb || ' ' || n.nspname || '.' || c.relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN'])
            AS p (verb)
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND c.relkind IN ('r', 'v', 'm', 'p', 'f')
      AND (has_table_privilege(%(role)s, c.oid, p.verb)
           OR p.verb IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
              AND has_any_column_privilege(%(role)s, c.oid, p.verb))
"""
SEQUENCES = """
    SELECT 'sequence ' || c.oid::regclass FROM pg_class c
    WHERE CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(%(role)s, c.oid, 'USAGE, SELECT, UPDATE') END
"""
FUNCTIONS = """
    SELECT n.nspname || '.' || p.proname || '(' || array_to_string(array(SELECT format_type(t, NULL)
               FROM unnest(p.proargtypes) WITH ORDINALITY AS a (t, i) ORDER BY i), ',') || ')'
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND has_function_privilege(%(role)s, p.oid, 'EXECUTE')
"""


@pytest.mark.parametrize("role", ALLOWED)
def test_exactly_what_is_listed(module_database: Any, role: str) -> None:
    found = {row[0] for row in module_database.rows(RELATIONS, {"role": role})}
    found |= {row[0] for row in module_database.rows(SEQUENCES, {"role": role})}
    found |= {row[0] for row in module_database.rows(FUNCTIONS, {"role": role})}
    assert found == ALLOWED[role]


@pytest.mark.parametrize("role", ALLOWED)
def test_no_powers(module_database: Any, role: str) -> None:
    rows = module_database.rows(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolpassword IS NOT NULL"
        " FROM pg_authid WHERE rolname = %s", (role,))  # fmt: skip
    assert rows == [(False, False, False, False, False, False)]
    assert module_database.rows(
        "SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid"
        " JOIN pg_roles u ON u.oid = m.member WHERE u.rolname = %s", (role,)) == []  # fmt: skip
    for kind in ("CREATE", "TEMPORARY"):
        assert not module_database.value("SELECT has_database_privilege(%s, current_database(), %s)", (role, kind))
    for schema in ("public", "directory", "mail", "groupware", "portal"):
        assert not module_database.value("SELECT has_schema_privilege(%s, %s, 'CREATE')", (role, schema))


@pytest.mark.parametrize("role", ALLOWED)
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT password_hash FROM directory.users",
        "SELECT private_key FROM directory.dkim_keys",
        "SELECT hash FROM directory.app_passwords",
        "SELECT * FROM directory.audit",
        "SELECT * FROM mail.mailboxes",
        "UPDATE directory.users SET state = 'active'",
        "SELECT directory.check_limit('users', '{}', '{}', '{}', '{}')",
        "CREATE TABLE mail.x (a int)",
        "CREATE TEMPORARY TABLE x (a int)",
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SET ROLE postgres",
        "SET ROLE directory_owner",
        "SET ROLE directory_admin",
        "COPY (SELECT 1) TO PROGRAM 'id'",
        "SELECT pg_read_file('/etc/passwd')",
    ],
)
def test_closed(module_database: Any, role: str, statement: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        module_database.rows(statement, user=role)


def test_the_modules_role_cannot_log_in_and_owns_nothing(module_database: Any) -> None:
    rows = module_database.rows(
        "SELECT rolname, rolcanlogin, rolsuper FROM pg_roles WHERE rolname LIKE 'directory%' ORDER BY 1"
    )
    assert rows == [("directory_admin", False, False), ("directory_owner", False, False)]
    owners = module_database.rows(
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class"
        " WHERE relnamespace IN ('directory'::regnamespace, 'mail'::regnamespace, 'groupware'::regnamespace,"
        " 'portal'::regnamespace)"
    )
    assert owners == [("directory_owner",)]


def test_functions_that_act_as_the_owner_have_a_search_path(module_database: Any) -> None:
    """Or who calls them could put own objects in the way."""
    open_ones = module_database.rows(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE prosecdef AND (proconfig IS NULL"
        " OR NOT EXISTS (SELECT FROM unnest(proconfig) AS c WHERE c LIKE 'search_path=%%, pg_temp'))"
    )
    assert open_ones == []


def test_public_has_nothing(module_database: Any) -> None:
    for query in (RELATIONS, SEQUENCES, FUNCTIONS):
        assert module_database.rows(query, {"role": "public"}) == []
    assert module_database.value(
        "SELECT NOT has_database_privilege('public', current_database(), 'CONNECT, TEMPORARY')"
    )
