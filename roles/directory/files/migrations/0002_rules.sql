-- SPDX-License-Identifier: GPL-3.0-or-later
-- What the database refuses, whoever asks: a domain that another reseller holds, and growth over a limit.
--
-- Errors that are meant for people have a class of their own:
--   BW001 limit   BW002 name not available   BW003 name in use at another customer of the same reseller
--   BW004 no quota where storage is handed out
-- DETAIL is JSON for programs, HINT says what to do. plugins/module_utils/directory.py reads them.

SET LOCAL ROLE directory_owner;

-- ---------------------------------------------------------------------------------------------------- claims

-- The domain itself and every domain above it: {a.b.c, b.c, c}.
CREATE FUNCTION directory.domain_and_parents(name text) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT array_agg(array_to_string(labels[i:], '.') ORDER BY i)
    FROM (SELECT string_to_array(name, '.') AS labels) s, generate_subscripts(labels, 1) AS i
$$;

CREATE FUNCTION directory.domain_not_available(name text) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    -- The same words whoever holds it: a reseller must not learn who else is a customer here.
    RAISE EXCEPTION 'domain % is not available; prove control with a DNS TXT record', name
        USING ERRCODE = 'BW002', DETAIL = jsonb_build_object('domain', name)::text,
              HINT = 'Whoever controls the domain decides where it is served.';
END $$;

-- Before the row, so that a domain held elsewhere gets the neutral answer and not a duplicate key. The unique
-- claim makes two resellers that want one name at once wait for each other.
CREATE FUNCTION directory.claim_domain() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
DECLARE
    other text;
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.name = OLD.name THEN
        RETURN NEW;
    END IF;
    IF EXISTS (SELECT FROM claims c WHERE c.domain = ANY (domain_and_parents(NEW.name))
               AND c.kind = 'reseller' AND c.reseller_id <> NEW.reseller_id) THEN
        PERFORM domain_not_available(NEW.name);
    END IF;
    INSERT INTO claims (reseller_id, domain, kind) VALUES (NEW.reseller_id, NEW.name, 'customer')
        ON CONFLICT (domain) DO NOTHING;
    IF NOT EXISTS (SELECT FROM claims c WHERE c.domain = NEW.name AND c.reseller_id = NEW.reseller_id) THEN
        PERFORM domain_not_available(NEW.name);
    END IF;
    SELECT c.name INTO other
        FROM domains d JOIN customers c USING (reseller_id, customer_id)
        WHERE d.name = NEW.name AND d.customer_id <> NEW.customer_id;
    IF FOUND THEN
        RAISE EXCEPTION 'domain % is already at customer %', NEW.name, other
            USING ERRCODE = 'BW003', DETAIL = jsonb_build_object('domain', NEW.name, 'customer', other)::text,
                  HINT = 'A domain belongs to one customer: remove it there first.';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER claim BEFORE INSERT OR UPDATE OF name ON directory.domains
    FOR EACH ROW EXECUTE FUNCTION directory.claim_domain();

CREATE FUNCTION directory.release_domains() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
BEGIN
    DELETE FROM claims c USING (SELECT DISTINCT reseller_id, name FROM old_rows) o
        WHERE c.reseller_id = o.reseller_id AND c.domain = o.name AND c.kind = 'customer'
          AND NOT EXISTS (SELECT FROM domains d WHERE d.name = c.domain);
    RETURN NULL;
END $$;
CREATE TRIGGER release_delete AFTER DELETE ON directory.domains REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION directory.release_domains();
CREATE TRIGGER release_update AFTER UPDATE ON directory.domains REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION directory.release_domains();

-- A reseller's own domain, with everything under it. Contracts change seldom, so the lock on all claims is cheap;
-- it keeps another reseller from claiming a name under it at the same moment.
CREATE FUNCTION directory.claim_reseller_domain() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.domain = OLD.domain THEN
            RETURN NULL;
        END IF;
        DELETE FROM claims c WHERE c.reseller_id = OLD.reseller_id AND c.domain = OLD.domain
            AND NOT EXISTS (SELECT FROM domains d WHERE d.name = c.domain);
        UPDATE claims c SET kind = 'customer' WHERE c.reseller_id = OLD.reseller_id AND c.domain = OLD.domain;
    END IF;
    LOCK TABLE claims IN SHARE ROW EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM claims c WHERE c.reseller_id <> NEW.reseller_id
               AND (c.domain LIKE '%.' || NEW.domain OR c.domain = NEW.domain
                    OR (c.kind = 'reseller' AND c.domain = ANY (domain_and_parents(NEW.domain))))) THEN
        PERFORM domain_not_available(NEW.domain);
    END IF;
    INSERT INTO claims (reseller_id, domain, kind) VALUES (NEW.reseller_id, NEW.domain, 'reseller')
        ON CONFLICT (domain) DO UPDATE SET kind = 'reseller';
    RETURN NULL;
END $$;
CREATE TRIGGER claim AFTER INSERT OR UPDATE OF domain ON directory.resellers
    FOR EACH ROW EXECUTE FUNCTION directory.claim_reseller_domain();

-- ------------------------------------------------------------------------------------- logins are addresses

CREATE FUNCTION directory.login_addresses() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
BEGIN
    INSERT INTO addresses (reseller_id, address, customer_id, kind, user_id)
        SELECT reseller_id, login, customer_id, 'user', user_id FROM new_rows;
    RETURN NULL;
END $$;
CREATE FUNCTION directory.changed_login_addresses() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM new_rows n JOIN old_rows o USING (reseller_id, user_id) WHERE n.login <> o.login) THEN
        RETURN NULL;
    END IF;
    -- Two statements: people who swap logins must both be gone before either comes back.
    DELETE FROM addresses a USING old_rows o JOIN new_rows n USING (reseller_id, user_id)
        WHERE n.login <> o.login AND a.reseller_id = o.reseller_id AND a.address = o.login;
    INSERT INTO addresses (reseller_id, address, customer_id, kind, user_id)
        SELECT n.reseller_id, n.login, n.customer_id, 'user', n.user_id
        FROM old_rows o JOIN new_rows n USING (reseller_id, user_id) WHERE n.login <> o.login;
    RETURN NULL;
END $$;
CREATE TRIGGER login_addresses_insert AFTER INSERT ON directory.users REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION directory.login_addresses();
CREATE TRIGGER login_addresses_update AFTER UPDATE ON directory.users
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION directory.changed_login_addresses();

-- ------------------------------------------------------------------------------ data that must go from disks

CREATE FUNCTION directory.note_removals() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
BEGIN
    EXECUTE format($q$
        INSERT INTO removals (reseller_id, owner_id, kind, customer_id, reseller_name, label, unix_id)
        SELECT o.reseller_id, o.%1$s_id, %1$L, o.customer_id, r.name, o.%2$I, %3$s
        FROM old_rows o JOIN resellers r USING (reseller_id)
        %4$s ON CONFLICT (reseller_id, owner_id) DO NOTHING $q$,
        TG_ARGV[0], TG_ARGV[1],
        CASE TG_ARGV[0] WHEN 'customer' THEN 'o.unix_id' ELSE 'c.unix_id' END,
        CASE TG_ARGV[0] WHEN 'customer' THEN '' ELSE 'LEFT JOIN customers c USING (reseller_id, customer_id)' END);
    RETURN NULL;
END $$;
CREATE TRIGGER removals AFTER DELETE ON directory.users REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION directory.note_removals('user', 'login');
CREATE TRIGGER removals AFTER DELETE ON directory.resources REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION directory.note_removals('resource', 'name');
CREATE TRIGGER removals AFTER DELETE ON directory.groups REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION directory.note_removals('group', 'name');
CREATE TRIGGER removals AFTER DELETE ON directory.customers REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION directory.note_removals('customer', 'name');

-- ------------------------------------------------------------------------------------------------ totals of mail

CREATE FUNCTION directory.add_mail_usage() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
BEGIN
    -- By customer: two writers of many mailboxes wait for each other and do not block each other for ever.
    INSERT INTO mail_totals AS t (reseller_id, customer_id, bytes, messages)
        SELECT reseller_id, customer_id, sum(bytes), sum(messages) FROM new_rows GROUP BY 1, 2 ORDER BY 2
        ON CONFLICT (reseller_id, customer_id) DO UPDATE SET bytes = t.bytes + excluded.bytes, messages = t.messages + excluded.messages;
    RETURN NULL;
END $$;
CREATE FUNCTION directory.change_mail_usage() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
DECLARE
    d record;
BEGIN
    FOR d IN
        SELECT reseller_id, customer_id, sum(bytes) AS bytes, sum(messages) AS messages
        FROM (SELECT reseller_id, customer_id, bytes, messages FROM new_rows
              UNION ALL SELECT reseller_id, customer_id, -bytes, -messages FROM old_rows) AS moved
        GROUP BY 1, 2 HAVING sum(bytes) <> 0 OR sum(messages) <> 0 ORDER BY 2
    LOOP
        UPDATE mail_totals t SET bytes = t.bytes + d.bytes, messages = t.messages + d.messages
            WHERE t.reseller_id = d.reseller_id AND t.customer_id = d.customer_id;
    END LOOP;
    RETURN NULL;
END $$;
CREATE FUNCTION directory.drop_mail_usage() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
DECLARE
    d record;
BEGIN
    -- Of a customer that goes as a whole the total may be gone already.
    FOR d IN
        SELECT reseller_id, customer_id, sum(bytes) AS bytes, sum(messages) AS messages FROM old_rows GROUP BY 1, 2 ORDER BY 2
    LOOP
        UPDATE mail_totals t SET bytes = t.bytes - d.bytes, messages = t.messages - d.messages
            WHERE t.reseller_id = d.reseller_id AND t.customer_id = d.customer_id;
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER totals_insert AFTER INSERT ON directory.mail_usage REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION directory.add_mail_usage();
CREATE TRIGGER totals_update AFTER UPDATE ON directory.mail_usage REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION directory.change_mail_usage();
CREATE TRIGGER totals_delete AFTER DELETE ON directory.mail_usage REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION directory.drop_mail_usage();

-- ---------------------------------------------------------------------------------------------------- limits

-- 1610612736 -> '1.5 GiB': the largest unit that needs at most two decimals, otherwise bytes.
CREATE FUNCTION directory.amount_text(amount numeric, unit text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN unit <> 'bytes' THEN trim_scale(amount)::text
        WHEN amount = 0 THEN '0'
        ELSE coalesce(
            (SELECT trim_scale(amount / u.size)::text || ' ' || u.name
             FROM (VALUES (1099511627776.0, 'TiB'), (1073741824.0, 'GiB'), (1048576.0, 'MiB'), (1024.0, 'KiB')) AS u (size, name)
             WHERE amount >= u.size AND trunc(amount / u.size, 2) * u.size = amount
             ORDER BY u.size DESC LIMIT 1),
            trim_scale(amount)::text || ' bytes')
        END
$$;

-- What is in use under a limit: of the reseller, of one customer (p_customer) or of one user. NULL: not counted here.
-- The only place that knows how; limit_status reports with it and the triggers refuse with it.
CREATE FUNCTION directory.in_use(p_limit text, p_basis text, p_reseller uuid, p_customer uuid, p_user uuid)
    RETURNS numeric LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = directory, pg_temp AS $$
DECLARE
    scope text := CASE WHEN p_customer IS NULL THEN '' ELSE ' AND customer_id = $2' END;
    result numeric;
    query text;
BEGIN
    -- Asked for with every mail: as fixed queries, whose plans are kept.
    IF p_limit = 'mail_storage' AND p_basis = 'used' AND p_user IS NULL THEN
        IF p_customer IS NULL THEN
            SELECT coalesce(sum(bytes), 0) INTO result FROM mail_totals WHERE reseller_id = p_reseller;
        ELSE
            SELECT coalesce(sum(bytes), 0) INTO result FROM mail_totals WHERE reseller_id = p_reseller AND customer_id = p_customer;
        END IF;
        RETURN result;
    END IF;
    IF p_user IS NOT NULL THEN
        query := CASE p_limit
            WHEN 'aliases' THEN 'SELECT count(*) FROM addresses WHERE reseller_id = $1 AND customer_id = $2 AND user_id = $3 AND kind = ''alias'''
            WHEN 'mail_storage' THEN 'SELECT coalesce(sum(bytes), 0) FROM mail_usage WHERE reseller_id = $1 AND owner_id = $3'
            WHEN 'file_storage' THEN 'SELECT coalesce(sum(bytes), 0) FROM file_usage WHERE reseller_id = $1 AND owner_id = $3'
        END;
    ELSIF p_limit IN ('customers', 'domains', 'users', 'groups') THEN
        query := format('SELECT count(*) FROM %I WHERE reseller_id = $1 AND counted', p_limit) || scope;
    ELSIF p_limit IN ('extensions', 'numbers') THEN
        query := format('SELECT count(*) FROM %I WHERE reseller_id = $1', p_limit) || scope;
    ELSIF p_limit = 'aliases' THEN
        query := 'SELECT count(*) FROM addresses WHERE reseller_id = $1 AND kind = ''alias''' || scope;
    ELSIF p_limit IN ('mail_storage', 'file_storage') THEN
        IF p_basis = 'used' THEN
            query := 'SELECT coalesce(sum(bytes), 0) FROM file_usage WHERE reseller_id = $1' || scope;
        ELSE
            query := format('SELECT (SELECT coalesce(sum(%1$s_quota), 0) FROM users WHERE reseller_id = $1 AND kind = ''person'' AND %2$s %3$s)'
                            ' + (SELECT coalesce(sum(%1$s_quota), 0) FROM groups WHERE reseller_id = $1 %3$s)',
                            CASE p_limit WHEN 'mail_storage' THEN 'mail' ELSE 'file' END,
                            CASE p_limit WHEN 'mail_storage' THEN 'mail' ELSE 'files' END, scope);
        END IF;
    END IF;
    IF query IS NOT NULL THEN
        EXECUTE query INTO result USING p_reseller, p_customer, p_user;
    END IF;
    RETURN result;
END $$;

-- Refuses growth over a hard limit. The arrays say who grew by how much in the statement that has just run.
--
-- Two writers at once: whoever grows under any limit of a reseller locks that reseller's row until it commits, and
-- counts after it has the lock. Each statement of a function sees what is committed by then, so of two writers that
-- each fit alone the second sees the first and is refused. That holds for READ COMMITTED only (the default); a
-- transaction with an older picture of the database could not see what it waited for, so it is turned away.
-- FOR NO KEY UPDATE does not conflict with foreign keys' locks, so those cannot make a deadlock of it.
CREATE FUNCTION directory.check_limit(p_limit text, p_reseller uuid[], p_customer uuid[], p_user uuid[], p_growth numeric[])
    RETURNS void LANGUAGE plpgsql SET search_path = directory, pg_temp AS $$
DECLARE
    hit record;
    now_in_use numeric;
    detail jsonb;
    holders uuid[];
BEGIN
    IF NOT EXISTS (SELECT FROM limits WHERE name = p_limit AND reseller_id = ANY (p_reseller)) THEN
        RETURN;
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'changes of accounts need isolation level read committed, not %', current_setting('transaction_isolation')
            USING ERRCODE = '0A000';
    END IF;
    SELECT array_agg(reseller_id) INTO holders FROM (
        SELECT r.reseller_id FROM resellers r WHERE r.reseller_id = ANY (p_reseller)
        ORDER BY r.reseller_id FOR NO KEY UPDATE) locked;
    FOR hit IN
        WITH growth AS (
            SELECT * FROM unnest(p_reseller, p_customer, p_user, p_growth) AS g (reseller_id, customer_id, user_id, growth)
        ), owners AS (
            SELECT reseller_id, user_id AS owner_id, sum(growth) AS growth FROM growth WHERE user_id IS NOT NULL GROUP BY 1, 2
            UNION ALL SELECT reseller_id, customer_id, sum(growth) FROM growth GROUP BY 1, 2
            UNION ALL SELECT reseller_id, reseller_id, sum(growth) FROM growth GROUP BY 1
        )
        SELECT l.*, o.growth, n.unit, r.name AS reseller, c.name AS customer, u.login
        FROM owners o JOIN limits l USING (reseller_id, owner_id)
            JOIN limit_names n ON n.name = l.name
            JOIN resellers r USING (reseller_id)
            LEFT JOIN customers c ON c.reseller_id = l.reseller_id AND c.customer_id = l.customer_id
            LEFT JOIN users u ON u.reseller_id = l.reseller_id AND u.user_id = l.user_id
        WHERE o.growth > 0 AND l.name = p_limit AND l.enforce = 'hard'
          AND (n.unit <> 'bytes' OR l.basis = 'allocated')
        ORDER BY array_position(ARRAY['user', 'customer', 'reseller'], l.level), r.name, c.name, u.login
    LOOP
        now_in_use := in_use(p_limit, hit.basis, hit.reseller_id, hit.customer_id, hit.user_id);
        IF now_in_use > hit.max THEN
            RAISE EXCEPTION 'limit % of % %: max %, in use %, wanted % more', p_limit, hit.level,
                CASE hit.level WHEN 'user' THEN hit.login WHEN 'customer' THEN hit.customer ELSE hit.reseller END,
                amount_text(hit.max, hit.unit), amount_text(now_in_use - hit.growth, hit.unit), amount_text(hit.growth, hit.unit)
                USING ERRCODE = 'BW001',
                      DETAIL = jsonb_strip_nulls(jsonb_build_object('limit', p_limit, 'level', hit.level, 'reseller', hit.reseller,
                          'customer', hit.customer, 'user', hit.login, 'basis', hit.basis, 'max', trim_scale(hit.max),
                          'in_use', now_in_use - hit.growth, 'wanted', hit.growth))::text,
                      HINT = CASE hit.level
                          WHEN 'reseller' THEN format('The contract decides: reseller_limits.%s.', p_limit)
                          WHEN 'customer' THEN format('Raise limits.%s in the file of customer %s, or remove something there first.', p_limit, hit.customer)
                          ELSE format('Raise limits.%s of %s in the file of customer %s.', p_limit, hit.login, hit.customer) END;
        END IF;
    END LOOP;
END $$;

-- Puts a table under a limit: p_amount says what one row r counts for, p_user whose it is below the customer.
CREATE FUNCTION directory.limit_table(p_table text, p_limit text, p_amount text, p_user text DEFAULT 'NULL::uuid')
    RETURNS void LANGUAGE plpgsql SET search_path = directory, pg_temp AS $$
DECLARE
    op text;
    rows_of text := format('SELECT reseller_id, customer_id, %s AS user_id, (%s)::numeric AS amount FROM new_rows r', p_user, p_amount);
BEGIN
    FOREACH op IN ARRAY ARRAY['insert', 'update'] LOOP
        IF op = 'update' THEN
            rows_of := rows_of || format(' UNION ALL SELECT reseller_id, customer_id, %s, -(%s)::numeric FROM old_rows r', p_user, p_amount);
        END IF;
        EXECUTE format($q$
            CREATE FUNCTION directory.%1$I() RETURNS trigger
                LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $f$
            DECLARE
                r uuid[]; c uuid[]; u uuid[]; g numeric[];
            BEGIN
                SELECT array_agg(reseller_id), array_agg(customer_id), array_agg(user_id), array_agg(growth)
                    INTO r, c, u, g
                    FROM (SELECT reseller_id, customer_id, user_id, sum(amount) AS growth
                          FROM (%2$s) AS moved GROUP BY 1, 2, 3 HAVING sum(amount) <> 0) AS grown;
                IF 0 < ANY (g) THEN
                    PERFORM check_limit(%3$L, r, c, u, g);
                END IF;
                RETURN NULL;
            END $f$ $q$, format('limit_%s_%s_%s', p_table, p_limit, op), rows_of, p_limit);
        EXECUTE format('CREATE TRIGGER %I AFTER %s ON directory.%I REFERENCING NEW TABLE AS new_rows %s'
                       ' FOR EACH STATEMENT EXECUTE FUNCTION directory.%I()',
                       format('limit_%s_%s', p_limit, op), op, p_table,
                       CASE op WHEN 'update' THEN 'OLD TABLE AS old_rows' ELSE '' END,
                       format('limit_%s_%s_%s', p_table, p_limit, op));
    END LOOP;
END $$;

DO $$ BEGIN
PERFORM directory.limit_table('customers', 'customers', 'counted::integer'),
       directory.limit_table('domains', 'domains', 'counted::integer'),
       directory.limit_table('users', 'users', 'counted::integer'),
       directory.limit_table('groups', 'groups', 'counted::integer'),
       -- Of whom only matters for people with a limit of their own.
       directory.limit_table('addresses', 'aliases', '(kind = ''alias'')::integer',
           '(SELECT l.user_id FROM limits l WHERE l.reseller_id = r.reseller_id AND l.owner_id = r.user_id AND l.name = ''aliases'')'),
       directory.limit_table('extensions', 'extensions', '1'),
       directory.limit_table('numbers', 'numbers', '1'),
       directory.limit_table('users', 'mail_storage', 'CASE WHEN kind = ''person'' AND mail THEN coalesce(mail_quota, 0) ELSE 0 END'),
       directory.limit_table('users', 'file_storage', 'CASE WHEN kind = ''person'' AND files THEN coalesce(file_quota, 0) ELSE 0 END'),
       directory.limit_table('groups', 'mail_storage', 'coalesce(mail_quota, 0)'),
       directory.limit_table('groups', 'file_storage', 'coalesce(file_quota, 0)');
END $$;

-- Storage that is handed out from a pool has a size: somebody without a quota would escape the pool.
CREATE FUNCTION directory.check_quotas() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
DECLARE
    found record;
    what text;
BEGIN
    FOREACH what IN ARRAY ARRAY['mail', 'file'] LOOP
        EXECUTE format($q$
            SELECT n.login, l.level, CASE l.level WHEN 'customer' THEN c.name ELSE r.name END AS owner
            FROM new_rows n
                JOIN limits l ON l.reseller_id = n.reseller_id AND l.owner_id IN (n.customer_id, n.reseller_id)
                    AND l.name = %1$L AND l.basis = 'allocated' AND l.enforce = 'hard'
                JOIN resellers r ON r.reseller_id = n.reseller_id
                JOIN customers c ON c.reseller_id = n.reseller_id AND c.customer_id = n.customer_id
            WHERE n.%2$I AND n.%3$I IS NULL AND n.kind = 'person' %4$s
            ORDER BY n.login, l.level LIMIT 1 $q$,
            what || '_storage', CASE what WHEN 'mail' THEN 'mail' ELSE 'files' END, what || '_quota',
            CASE TG_OP WHEN 'UPDATE' THEN format(
                'AND NOT EXISTS (SELECT FROM old_rows o WHERE o.reseller_id = n.reseller_id AND o.user_id = n.user_id AND o.%1$I AND o.%2$I IS NULL)',
                CASE what WHEN 'mail' THEN 'mail' ELSE 'files' END, what || '_quota') ELSE '' END)
            INTO found;
        IF found.login IS NOT NULL THEN
            RAISE EXCEPTION 'user % has no % quota, but %_storage of % % is handed out (basis allocated)',
                found.login, what, what, found.level, found.owner
                USING ERRCODE = 'BW004',
                      DETAIL = jsonb_build_object('limit', what || '_storage', 'level', found.level, found.level, found.owner,
                                                  'user', found.login)::text,
                      HINT = 'Give the user a quota, or count what is used (basis: used).';
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER quotas_insert AFTER INSERT ON directory.users REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION directory.check_quotas();
CREATE TRIGGER quotas_update AFTER UPDATE ON directory.users REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION directory.check_quotas();

-- Every limit with what is in use under it. in_use is NULL for what the running services count (calls, rates).
-- warned: the highest of warn_at that is reached.
CREATE VIEW directory.limit_status AS
    SELECT l.reseller_id, l.customer_id, l.user_id,
           r.name AS reseller, c.name AS customer, u.login AS "user",
           l.level, l.name AS "limit", n.unit, l.max, i.in_use, l.basis, l.enforce,
           CASE WHEN l.max > 0 THEN round(i.in_use * 100 / l.max, 1) END AS percent,
           i.in_use > l.max AS over,
           (SELECT max(w) FROM unnest(l.warn_at) AS w WHERE i.in_use * 100 >= l.max * w AND l.max > 0) AS warned
    FROM directory.limits l
        JOIN directory.limit_names n ON n.name = l.name
        JOIN directory.resellers r USING (reseller_id)
        LEFT JOIN directory.customers c ON c.reseller_id = l.reseller_id AND c.customer_id = l.customer_id
        LEFT JOIN directory.users u ON u.reseller_id = l.reseller_id AND u.user_id = l.user_id
        CROSS JOIN LATERAL (SELECT directory.in_use(l.name, l.basis, l.reseller_id, l.customer_id, l.user_id) AS in_use) i;
GRANT SELECT ON directory.limit_status TO directory_admin, verify;
GRANT SELECT ON directory.migrations TO verify;
GRANT EXECUTE ON FUNCTION directory.in_use(text, text, uuid, uuid, uuid) TO directory_admin, verify;

RESET ROLE;
