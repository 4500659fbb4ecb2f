-- SPDX-License-Identifier: GPL-3.0-or-later
-- Every change of the accounts leaves a row in directory.audit: who, when, before, after.
--
-- Statement triggers with transition tables, one INSERT .. SELECT a statement: a bulk change of a thousand people costs
-- one more statement, not a thousand. An update is noted with the columns that differ; a row that was written without a
-- difference is not noted. Secrets are replaced: that a password changed is in the audit, what it is is not.
-- The functions run as directory_owner; nobody else may write the table.
-- Not audited: what services measure (mail_usage, file_usage, last_logins, usage).

SET LOCAL ROLE directory_owner;

-- Replaces values under keys that hold secrets, at any depth.
CREATE FUNCTION directory.masked(value jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = directory, pg_temp AS $$
BEGIN
    RETURN CASE jsonb_typeof(value)
        WHEN 'object' THEN (SELECT coalesce(jsonb_object_agg(e.key,
            CASE WHEN e.key ~* '(password|passwd|secret|token|private|pin$|_key$)' AND jsonb_typeof(e.value) <> 'null'
                 THEN '"(secret)"' ELSE masked(e.value) END), '{}') FROM jsonb_each(value) AS e)
        WHEN 'array' THEN (SELECT coalesce(jsonb_agg(masked(e) ORDER BY i), '[]')
                           FROM jsonb_array_elements(value) WITH ORDINALITY AS a (e, i))
        ELSE value END;
END $$;

-- Puts a table under audit.
--   p_keys: the primary key after reseller_id, and what else names the row
--   p_label: an expression over the row r, what a person would search for
--   p_secrets: columns that are replaced as a whole
--   p_where: rows r that are noted; others follow from something else that is
-- Columns of type jsonb are searched for secrets; generated columns are left out.
CREATE FUNCTION directory.audit_table(p_table text, p_keys text[], p_label text, p_secrets text[] DEFAULT '{}',
                                     p_where text DEFAULT 'true')
    RETURNS void LANGUAGE plpgsql SET search_path = directory, pg_temp AS $$
DECLARE
    op text;
    columns text[];
    row_json text;      -- masked row as jsonb, of alias %1$s
    key_json text;
    differs text;
    body text;
BEGIN
    SELECT array_agg(a.attname ORDER BY a.attnum) INTO columns
        FROM pg_attribute a
        WHERE a.attrelid = format('directory.%I', p_table)::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '';
    SELECT 'jsonb_build_object(' || string_agg(format('%L, %s', c.name,
            CASE WHEN c.name = ANY (p_secrets) THEN format('CASE WHEN %%1$s.%1$I IS NOT NULL THEN ''(secret)'' END', c.name)
                 WHEN c.type = 'jsonb'::regtype THEN format('CASE WHEN %%1$s.%1$I = ''{}'' THEN %%1$s.%1$I ELSE masked(%%1$s.%1$I) END', c.name)
                 ELSE format('%%1$s.%I', c.name) END), ', ' ORDER BY c.position) || ')'
        INTO row_json
        FROM (SELECT a.attname AS name, a.atttypid AS type, a.attnum AS position FROM pg_attribute a
              WHERE a.attrelid = format('directory.%I', p_table)::regclass AND a.attname = ANY (columns)) AS c;
    SELECT format('jsonb_build_object(%s)', string_agg(format('%L, r.%I', k, k), ', ')) INTO key_json FROM unnest(p_keys) AS k;

    FOREACH op IN ARRAY ARRAY['insert', 'update', 'delete'] LOOP
        IF op = 'update' THEN
            -- Compared before masking, so that a changed secret shows as changed.
            SELECT string_agg(format('CASE WHEN o.%1$I IS DISTINCT FROM n.%1$I THEN ARRAY[%1$L] ELSE ''{}'' END', c), ' || ')
                INTO differs FROM unnest(columns) AS c;
            body := format($q$
                SELECT r.reseller_id, r.customer_id, r.label, r.key,
                       (SELECT jsonb_object_agg(c, r.before -> c) FROM unnest(r.changed) AS c),
                       (SELECT jsonb_object_agg(c, r.after -> c) FROM unnest(r.changed) AS c)
                FROM (SELECT r.reseller_id, %1$s AS customer_id, %2$s AS label, %3$s AS key, r.changed,
                             %4$s AS before, %5$s AS after
                      FROM (SELECT n.*, o AS was, n AS now, (%6$s)::text[] AS changed
                            FROM old_rows o JOIN new_rows n USING (%7$s)) AS r
                      WHERE r.changed <> '{}' AND (%8$s)) AS r $q$,
                CASE WHEN 'customer_id' = ANY (columns) THEN 'r.customer_id' ELSE 'NULL::uuid' END, p_label, key_json,
                format(row_json, '(r.was)'), format(row_json, '(r.now)'), differs,
                (SELECT string_agg(quote_ident(k), ', ') FROM unnest(ARRAY['reseller_id'] || p_keys) AS k
                 WHERE k = 'reseller_id' OR EXISTS (SELECT FROM pg_index i JOIN pg_attribute a
                     ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
                     WHERE i.indrelid = format('directory.%I', p_table)::regclass AND i.indisprimary AND a.attname = k)),
                p_where);
        ELSE
            body := format('SELECT r.reseller_id, %s, %s, %s, %s, %s FROM %s AS r WHERE %s',
                CASE WHEN 'customer_id' = ANY (columns) THEN 'r.customer_id' ELSE 'NULL::uuid' END, p_label, key_json,
                CASE op WHEN 'delete' THEN 'jsonb_strip_nulls(' || format(row_json, 'r') || ')' ELSE 'NULL::jsonb' END,
                CASE op WHEN 'insert' THEN 'jsonb_strip_nulls(' || format(row_json, 'r') || ')' ELSE 'NULL::jsonb' END,
                CASE op WHEN 'delete' THEN 'old_rows' ELSE 'new_rows' END, p_where);
        END IF;
        EXECUTE format($q$
            CREATE OR REPLACE FUNCTION directory.%1$I() RETURNS trigger
                LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $f$
            BEGIN
                INSERT INTO audit (reseller_id, actor, table_name, operation, customer_id, label, key, before, after)
                SELECT a.reseller_id, left(nullif(current_setting('bouwsteen.actor', true), ''), 200), %2$L, %3$L,
                       a.customer_id, coalesce(a.label, ''), a.key, a.before, a.after
                FROM (%4$s) AS a (reseller_id, customer_id, label, key, before, after);
                RETURN NULL;
            END $f$ $q$, format('audit_%s_%s', p_table, op), p_table, op, body);
        EXECUTE format('CREATE OR REPLACE TRIGGER audit_%1$s AFTER %1$s ON directory.%2$I REFERENCING %3$s'
                       ' FOR EACH STATEMENT EXECUTE FUNCTION directory.%4$I()', op, p_table,
                       CASE op WHEN 'insert' THEN 'NEW TABLE AS new_rows' WHEN 'delete' THEN 'OLD TABLE AS old_rows'
                               ELSE 'OLD TABLE AS old_rows NEW TABLE AS new_rows' END, format('audit_%s_%s', p_table, op));
    END LOOP;
END $$;

DO $$
DECLARE
    login_of constant text := '(SELECT u.login FROM users u WHERE u.reseller_id = r.reseller_id AND u.user_id = r.user_id)';
BEGIN
    PERFORM directory.audit_table('resellers', ARRAY[]::text[], 'r.name');
    PERFORM directory.audit_table('products', ARRAY['name'], 'r.name');
    PERFORM directory.audit_table('customers', ARRAY['customer_id'], 'r.name');
    PERFORM directory.audit_table('claims', ARRAY['domain'], 'r.domain');
    PERFORM directory.audit_table('domains', ARRAY['domain_id'], 'r.name');
    PERFORM directory.audit_table('users', ARRAY['user_id'], 'r.login', ARRAY['password_hash', 'password_first']);
    PERFORM directory.audit_table('groups', ARRAY['group_id'], 'r.name');
    PERFORM directory.audit_table('group_members', ARRAY['group_id', 'user_id'], format('coalesce(%s, r.user_id::text)', login_of));
    PERFORM directory.audit_table('resources', ARRAY['resource_id'], 'r.name');
    -- Logins among the addresses follow from the users.
    PERFORM directory.audit_table('addresses', ARRAY['address'], 'r.address', p_where => 'r.kind <> ''user''');
    PERFORM directory.audit_table('forwards', ARRAY['user_id', 'target'], format('coalesce(%s, r.user_id::text)', login_of));
    PERFORM directory.audit_table('extensions', ARRAY['customer_id', 'extension'], 'r.extension');
    PERFORM directory.audit_table('numbers', ARRAY['number'], 'r.number');
    PERFORM directory.audit_table('limits', ARRAY['owner_id', 'name'], 'r.name');
    PERFORM directory.audit_table('app_passwords', ARRAY['app_password_id'], format('coalesce(%s, r.user_id::text)', login_of), ARRAY['hash']);
    PERFORM directory.audit_table('dkim_keys', ARRAY['domain', 'selector'], 'r.domain', ARRAY['private_key']);
END $$;

RESET ROLE;
