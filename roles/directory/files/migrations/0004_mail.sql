-- SPDX-License-Identifier: GPL-3.0-or-later
-- What Postfix, Dovecot and rspamd ask of the directory: functions and views of schema mail, each granted to the one
-- role that needs it. The roles see no table.
--
--  * Addresses may arrive as people type them; everything is compared in lower case.
--  * "machine" is the inventory name of the machine that asks. A reseller is served by the machine of its placement, or
--    by any machine if it has none; elsewhere its names are as if they did not exist. NULL asks for the whole site.
--  * A suspended user (or one of a suspended customer or reseller) keeps receiving mail, cannot log in and cannot send;
--    his forwards rest, so that what arrives waits in his mailbox. removed-pending is as good as gone.
--  * plpgsql throughout: its plans are kept for the life of a connection, and the services keep their connections.

SET LOCAL ROLE directory_owner;

-- Where and whether a customer's mail is served here. Joined by everything below.
CREATE VIEW mail.tenants AS
    SELECT r.reseller_id, c.customer_id, r.name AS reseller_name, r.title AS reseller_title, r.engineer, r.domain AS reseller_domain,
           c.unix_id, r.placement ->> 'mail' AS machine,
           r.state = 'active' AND c.state = 'active' AS active
    FROM directory.resellers r JOIN directory.customers c USING (reseller_id)
    WHERE r.state <> 'removed-pending' AND c.state <> 'removed-pending';

-- The tightest of two ceilings; NULL is none.
CREATE FUNCTION mail.quota(own bigint, user_limit numeric) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT least(own, user_limit::bigint) $$;

-- Every mailbox: users with mail, and resources, so that nothing sent to a room is lost.
CREATE VIEW mail.mailboxes AS
    SELECT u.login AS username, u.reseller_id, u.customer_id, u.user_id AS owner_id, u.user_id, u.name, u.language,
           mail.quota(u.mail_quota, l.max) AS quota, u.keep_copy, u.password_hash,
           t.active AND u.state = 'active' AS active, t.machine, t.reseller_name, t.unix_id
    FROM directory.users u
        JOIN mail.tenants t USING (reseller_id, customer_id)
        LEFT JOIN directory.limits l ON l.reseller_id = u.reseller_id AND l.owner_id = u.user_id AND l.name = 'mail_storage'
    WHERE u.mail AND u.state <> 'removed-pending'
    UNION ALL
    SELECT a.address, s.reseller_id, s.customer_id, s.resource_id, NULL, s.name, NULL,
           NULL, true, NULL, t.active AND s.state = 'active', t.machine, t.reseller_name, t.unix_id
    FROM directory.addresses a
        JOIN directory.resources s ON s.reseller_id = a.reseller_id AND s.customer_id = a.customer_id AND s.resource_id = a.resource_id
        JOIN mail.tenants t ON t.reseller_id = a.reseller_id AND t.customer_id = a.customer_id
    WHERE a.kind = 'resource' AND s.state <> 'removed-pending';

-- ------------------------------------------------------------------------------------------------- addresses

-- What an address stands for. Looked for in this order: the address itself; without its +extension; in the domain that
-- its domain is an alias of; postmaster and abuse, which every domain has (RFC 5321 4.5.1, RFC 2142); the catch-all.
--   kind: user, alias, catch_all, group, resource; alias_domain (login = the same in the other domain);
--         engineer (login = the reseller's engineer)
--   login: of the owner, or the resource's address. extension: '' or '+something'.
-- No row: nobody here.
CREATE FUNCTION mail.find(p_address text, p_machine text, p_depth integer DEFAULT 0)
    RETURNS TABLE (kind text, reseller_id uuid, customer_id uuid, user_id uuid, group_id uuid, login text, extension text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mail, pg_temp AS $$
DECLARE
    p_domain text := substring(lower(p_address) FROM '[^@]*$');
    p_local text := substring(lower(p_address) FROM '^(.*)@');
    plain text := split_part(p_local, '+', 1);
    d record;
    candidate text;
BEGIN
    IF coalesce(p_local, '') = '' OR p_domain = '' OR length(p_address) > 320 THEN
        RETURN;
    END IF;
    SELECT o.reseller_id, o.customer_id, o.alias_of, t.engineer INTO d
        FROM directory.domains o JOIN tenants t USING (reseller_id, customer_id)
        WHERE o.name = p_domain AND o.state <> 'removed-pending' AND coalesce(t.machine, p_machine, '') = coalesce(p_machine, t.machine, '');
    IF NOT FOUND THEN
        RETURN;
    END IF;
    FOREACH candidate IN ARRAY CASE WHEN plain <> p_local AND plain <> '' THEN ARRAY[p_local, plain] ELSE ARRAY[p_local] END LOOP
        RETURN QUERY
            SELECT a.kind, a.reseller_id, a.customer_id, a.user_id, a.group_id, coalesce(u.login, a.address)::text,
                   CASE WHEN candidate = p_local THEN '' ELSE substr(p_local, length(plain) + 1) END
            FROM directory.addresses a
                LEFT JOIN directory.users u ON u.reseller_id = a.reseller_id AND u.customer_id = a.customer_id AND u.user_id = a.user_id
                LEFT JOIN directory.groups g ON g.reseller_id = a.reseller_id AND g.customer_id = a.customer_id AND g.group_id = a.group_id
                LEFT JOIN directory.resources s ON s.reseller_id = a.reseller_id AND s.customer_id = a.customer_id
                    AND s.resource_id = a.resource_id
            WHERE a.address = candidate || '@' || p_domain
              AND CASE a.kind WHEN 'group' THEN g.mail_kind IS NOT NULL AND g.state <> 'removed-pending'
                              WHEN 'resource' THEN s.state <> 'removed-pending'
                              ELSE u.mail AND u.state <> 'removed-pending' END;
        IF FOUND THEN
            RETURN;
        END IF;
    END LOOP;
    IF d.alias_of IS NOT NULL AND p_depth = 0 THEN
        IF EXISTS (SELECT FROM find(p_local || '@' || d.alias_of, p_machine, 1)) THEN
            RETURN QUERY SELECT 'alias_domain', d.reseller_id, d.customer_id, NULL::uuid, NULL::uuid,
                                p_local || '@' || d.alias_of, '';
        END IF;
        RETURN;
    END IF;
    IF plain IN ('postmaster', 'abuse') THEN
        IF d.engineer <> plain || '@' || p_domain THEN
            RETURN QUERY SELECT 'engineer', d.reseller_id, d.customer_id, NULL::uuid, NULL::uuid, d.engineer::text, '';
        END IF;
        RETURN;
    END IF;
    RETURN QUERY
        SELECT a.kind, a.reseller_id, a.customer_id, a.user_id, a.group_id, u.login::text, ''
        FROM directory.addresses a JOIN directory.users u USING (reseller_id, customer_id, user_id)
        WHERE a.address = '@' || p_domain AND u.mail AND u.state <> 'removed-pending';
END $$;

-- The domain if mail for it is taken in here, else NULL.
CREATE FUNCTION mail.domain(p_name text, p_machine text) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mail, pg_temp AS $$
BEGIN
    RETURN (SELECT d.name FROM directory.domains d JOIN tenants t USING (reseller_id, customer_id)
            WHERE d.name = lower(p_name) AND d.state <> 'removed-pending'
              AND coalesce(t.machine, p_machine, '') = coalesce(p_machine, t.machine, ''));
END $$;

-- The name of the mailbox if the address (with or without +extension) is one, else NULL.
CREATE FUNCTION mail.mailbox(p_address text, p_machine text) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mail, pg_temp AS $$
BEGIN
    RETURN (SELECT f.login FROM find(p_address, p_machine) f WHERE f.kind IN ('user', 'resource'));
END $$;

-- One level of expansion for virtual_alias_maps; no rows if the address stands for itself or for nobody.
-- The +extension goes along to logins and into the other domain, not to lists and forwards.
CREATE FUNCTION mail.targets(p_address text, p_machine text) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mail, pg_temp AS $$
DECLARE
    f record;
    own text;
BEGIN
    SELECT * INTO f FROM find(p_address, p_machine);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    CASE
        WHEN f.kind = 'user' THEN
            IF EXISTS (SELECT FROM mailboxes m WHERE m.username = f.login AND m.active) THEN
                RETURN QUERY SELECT w.target::text FROM directory.forwards w
                    WHERE w.reseller_id = f.reseller_id AND w.customer_id = f.customer_id AND w.user_id = f.user_id ORDER BY 1;
                IF FOUND THEN
                    own := split_part(f.login, '@', 1) || f.extension || '@' || split_part(f.login, '@', 2);
                    RETURN QUERY SELECT own FROM directory.users u
                        WHERE u.reseller_id = f.reseller_id AND u.user_id = f.user_id AND u.keep_copy;
                END IF;
            END IF;
        WHEN f.kind IN ('alias', 'catch_all') THEN
            RETURN NEXT split_part(f.login, '@', 1) || f.extension || '@' || split_part(f.login, '@', 2);
        WHEN f.kind = 'group' THEN
            RETURN QUERY SELECT u.login::text
                FROM directory.group_members g JOIN directory.users u USING (reseller_id, customer_id, user_id)
                WHERE g.reseller_id = f.reseller_id AND g.group_id = f.group_id AND u.mail AND u.state <> 'removed-pending'
                ORDER BY 1;
        WHEN f.kind IN ('alias_domain', 'engineer') THEN
            RETURN NEXT f.login;
        ELSE
            NULL;
    END CASE;
END $$;

-- Who may send with this address as sender: its owner, also through an alias domain, and the members of a shared
-- mailbox (not of a list). Active people only.
CREATE FUNCTION mail.senders(p_address text) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mail, pg_temp AS $$
DECLARE
    f record;
BEGIN
    SELECT * INTO f FROM find(p_address, NULL);
    IF f.kind = 'alias_domain' THEN
        SELECT * INTO f FROM find(f.login, NULL);
    END IF;
    IF f.kind IN ('user', 'alias') THEN
        RETURN QUERY SELECT m.username::text FROM mailboxes m WHERE m.username = f.login AND m.active;
    ELSIF f.kind = 'group' THEN
        RETURN QUERY SELECT u.login::text
            FROM directory.groups g
                JOIN directory.group_members gm USING (reseller_id, customer_id, group_id)
                JOIN directory.users u USING (reseller_id, customer_id, user_id)
                JOIN tenants t USING (reseller_id, customer_id)
            WHERE g.reseller_id = f.reseller_id AND g.group_id = f.group_id AND g.mail_kind = 'shared_mailbox'
              AND u.mail AND u.state = 'active' AND t.active
            ORDER BY 1;
    END IF;
END $$;

-- ------------------------------------------------------------------------------------------------------ room

-- Free bytes in the customer's and the reseller's pool of mail storage, whatever they count by: what is in use may not
-- pass the ceiling. NULL: no hard limit above the mailbox.
CREATE FUNCTION mail.pool_free(p_reseller uuid, p_customer uuid) RETURNS bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mail, pg_temp AS $$
BEGIN
    RETURN (SELECT min(l.max - directory.in_use('mail_storage', 'used', p_reseller, l.customer_id, NULL))
            FROM directory.limits l
            WHERE l.reseller_id = p_reseller AND l.owner_id IN (p_customer, p_reseller)
              AND l.name = 'mail_storage' AND l.enforce = 'hard')::bigint;
END $$;

-- NULL: take the mail. Otherwise the answer for Postfix's check_recipient_access.
-- Follows everything the address leads to. One place with room (or elsewhere) is enough to take it, so that a full
-- member of a list does not cost the others their mail; only if every mailbox at the end is full it is refused. The
-- answer goes to strangers: it names nobody but the address they asked for.
CREATE FUNCTION mail.recipient_status(p_address text, p_machine text) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mail, pg_temp AS $$
DECLARE
    queue text[] := ARRAY[lower(p_address)];
    seen text[] := queue;
    next text;
    target text;
    names text[];
    f record;
    box record;
    pool bigint;
    pool_of uuid;
    full_found boolean := false;
BEGIN
    WHILE cardinality(queue) > 0 LOOP
        next := queue[1];
        queue := queue[2:];
        SELECT * INTO f FROM find(next, p_machine);
        IF NOT FOUND THEN
            IF domain(substring(next FROM '[^@]*$'), p_machine) IS NULL THEN
                RETURN NULL;                                    -- leads elsewhere
            END IF;
            CONTINUE;                                           -- nobody: Postfix says so itself
        END IF;
        IF f.kind = 'engineer' OR f.kind = 'alias_domain' THEN
            IF f.login <> ALL (seen) THEN
                queue := queue || f.login;
                seen := seen || f.login;
            END IF;
            CONTINUE;
        END IF;
        names := ARRAY[f.login];
        IF f.kind = 'group' THEN
            names := ARRAY(SELECT u.login::text FROM directory.group_members g JOIN directory.users u USING (reseller_id, customer_id, user_id)
                           WHERE g.reseller_id = f.reseller_id AND g.group_id = f.group_id);
        END IF;
        -- The mailboxes behind it, those without forwards first: most often the first one has room. Asked for by a list of
        -- names, which the planner carries into both halves of the view; a join would read every mailbox of the site.
        FOR box IN
            SELECT m.username, m.reseller_id, m.customer_id, m.quota, m.keep_copy, m.active,
                   coalesce(us.bytes, 0) AS used, w.targets
            FROM mailboxes m
                LEFT JOIN directory.mail_usage us ON us.reseller_id = m.reseller_id AND us.owner_id = m.owner_id
                LEFT JOIN LATERAL (
                    SELECT array_agg(w.target::text) AS targets FROM directory.forwards w
                    WHERE w.reseller_id = m.reseller_id AND w.customer_id = m.customer_id AND w.user_id = m.user_id AND m.active) w ON true
            WHERE m.username = ANY (names)
            ORDER BY w.targets IS NOT NULL
        LOOP
            IF box.targets IS NULL OR box.keep_copy THEN
                IF pool_of IS DISTINCT FROM box.customer_id THEN
                    pool := pool_free(box.reseller_id, box.customer_id);
                    pool_of := box.customer_id;
                END IF;
                IF box.used < coalesce(box.quota, box.used + 1) AND coalesce(pool, 1) > 0 THEN
                    RETURN NULL;
                END IF;
                full_found := true;
            END IF;
            FOREACH target IN ARRAY coalesce(box.targets, '{}') LOOP
                IF target <> ALL (seen) THEN
                    queue := queue || target;
                    seen := seen || target;
                END IF;
            END LOOP;
        END LOOP;
        IF cardinality(seen) > 1000 THEN
            RETURN NULL;                                        -- Postfix has the same ceiling and says so itself
        END IF;
    END LOOP;
    IF full_found THEN
        RETURN '452 4.2.2 <' || regexp_replace(p_address, '[^[:graph:]]', '?', 'g') || '>: mailbox is full';
    END IF;
    RETURN NULL;
END $$;

-- --------------------------------------------------------------------------------------------- sending limits

-- Recipients in this hour and the one before, per user, customer and reseller. Only a rate: may be lost in a crash.
CREATE UNLOGGED TABLE directory.mail_sent (
    reseller_id uuid NOT NULL,
    owner_id    uuid NOT NULL,
    hour        bigint NOT NULL,            -- hours since 1970
    sent        bigint NOT NULL,            -- in that hour
    before      bigint NOT NULL,            -- in the hour before it
    PRIMARY KEY (reseller_id, owner_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);

-- Counts one recipient for a login. NULL: may be sent. Otherwise the answer for Postfix.
-- The last 60 minutes are estimated as this hour plus the part of the hour before that is still within them. Rows are
-- locked reseller, customer, user; what is refused is not counted.
CREATE FUNCTION mail.may_send(p_login text, p_fallback integer) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = mail, pg_temp AS $$
DECLARE
    seconds bigint := extract(epoch FROM clock_timestamp());
    this_hour bigint := seconds / 3600;
    u record;
    scope record;
    so_far numeric;
    owners uuid[] := '{}';
BEGIN
    SELECT reseller_id, customer_id, user_id INTO u FROM directory.users WHERE login = lower(p_login);
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    FOR scope IN
        SELECT o.position, o.owner_id, coalesce(l.max, CASE WHEN o.position = 3 AND p_fallback > 0 THEN p_fallback END) AS max
        FROM (VALUES (1, u.reseller_id), (2, u.customer_id), (3, u.user_id)) AS o (position, owner_id)
            LEFT JOIN directory.limits l ON l.reseller_id = u.reseller_id AND l.owner_id = o.owner_id AND l.name = 'mail_sent_per_hour'
        ORDER BY o.position
    LOOP
        CONTINUE WHEN scope.max IS NULL;
        INSERT INTO directory.mail_sent AS m (reseller_id, owner_id, hour, sent, before)
            VALUES (u.reseller_id, scope.owner_id, this_hour, 0, 0)
            ON CONFLICT (reseller_id, owner_id) DO UPDATE SET
                hour = this_hour,
                before = CASE m.hour WHEN this_hour THEN m.before WHEN this_hour - 1 THEN m.sent ELSE 0 END,
                sent = CASE m.hour WHEN this_hour THEN m.sent ELSE 0 END
            RETURNING m.sent + m.before * (3600 - seconds % 3600) / 3600.0 INTO so_far;
        IF so_far + 1 > scope.max THEN
            RETURN format('450 4.7.1 Sending limit of this %s reached: %s per hour',
                          CASE scope.position WHEN 3 THEN 'account' ELSE 'organisation' END, trim_scale(scope.max));
        END IF;
        owners := owners || scope.owner_id;
    END LOOP;
    UPDATE directory.mail_sent SET sent = sent + 1 WHERE reseller_id = u.reseller_id AND owner_id = ANY (owners);
    RETURN NULL;
END $$;

-- --------------------------------------------------------------------------------------------------- Dovecot

-- Always exactly one row, so that an unknown login costs as much time as a known one: a hash to compare with, which for
-- whoever may not log in is one that no password has (random salt and digest; parameters as in our own hashes).
CREATE FUNCTION mail.dovecot_password(p_login text, p_machine text, OUT login text, OUT password text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mail, pg_temp AS $$
BEGIN
    SELECT m.username, m.password_hash INTO login, password
        FROM mailboxes m
        WHERE m.username = lower(p_login) AND m.active AND m.password_hash IS NOT NULL
          AND coalesce(m.machine, p_machine, '') = coalesce(p_machine, m.machine, '');
    IF NOT FOUND THEN
        login := p_login;
        password := '{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$IDyqDjaEXz3PH/IF2P4aDQ$6n2DJ2JNe0kZbNYyliDhN5S9iLmQelzjYUbCcVgVP8g';
    END IF;
END $$;

-- The login if an app password of an active user fits this protocol. Checked here, so that the hashes stay here; the
-- services send the password in the query, so statements must not be logged. At least one hash is always computed.
CREATE FUNCTION mail.app_password(p_login text, p_password text, p_protocol text, p_machine text) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mail, pg_temp AS $$
DECLARE
    a record;
    found_login text;
    tried integer := 0;
BEGIN
    FOR a IN
        SELECT m.username, p.hash
        FROM mailboxes m JOIN directory.app_passwords p USING (reseller_id, customer_id, user_id)
        WHERE m.username = lower(p_login) AND m.active
          AND coalesce(m.machine, p_machine, '') = coalesce(p_machine, m.machine, '')
          AND lower(p_protocol) = ANY (p.protocols) AND (p.expires_at IS NULL OR p.expires_at > now())
        ORDER BY p.created_at LIMIT 20
    LOOP
        tried := tried + 1;
        IF found_login IS NULL AND directory.crypt(p_password, a.hash) = a.hash THEN
            found_login := a.username;
        END IF;
    END LOOP;
    IF tried = 0 THEN
        PERFORM directory.crypt(p_password, '$2a$08$HJhIHVlusFXs81GOQAigg.lqZlr.CXXxsBQZZiFvbx9Zm1mLQ3tV5');
    END IF;
    RETURN found_login;
END $$;

-- Where a mailbox is and how large it may grow: the tightest of its own quota and what is free in the pools above it.
-- Dovecot reads 0B as unlimited, so a full one has 1B.
CREATE FUNCTION mail.dovecot_user(p_login text, p_machine text)
    RETURNS TABLE (login text, home text, uid integer, gid integer, quota_storage_size text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mail, pg_temp AS $$
BEGIN
    RETURN QUERY
        SELECT m.username::text, format('/var/vmail/%s/%s/%s', m.reseller_name, m.customer_id, m.owner_id), m.unix_id, m.unix_id,
               CASE WHEN c.ceiling IS NULL THEN '0B' ELSE greatest(1, c.ceiling) || 'B' END
        FROM mailboxes m
            LEFT JOIN directory.mail_usage us ON us.reseller_id = m.reseller_id AND us.owner_id = m.owner_id
            CROSS JOIN LATERAL (SELECT pool_free(m.reseller_id, m.customer_id) AS free) p
            -- least() passes over NULL, greatest() does too: no pool must stay no pool.
            CROSS JOIN LATERAL (SELECT least(m.quota, CASE WHEN p.free IS NOT NULL
                                                      THEN coalesce(us.bytes, 0) + greatest(0, p.free) END) AS ceiling) c
        WHERE m.username = lower(p_login) AND coalesce(m.machine, p_machine, '') = coalesce(p_machine, m.machine, '');
END $$;

CREATE FUNCTION mail.dovecot_users(p_machine text) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mail, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT m.username::text FROM mailboxes m
        WHERE coalesce(m.machine, p_machine, '') = coalesce(p_machine, m.machine, '') ORDER BY 1;
END $$;

-- Dovecot writes here as its sql dict does: INSERT INTO t (value, .., key, ..) VALUES (..) ON CONFLICT (key, ..) DO
-- UPDATE SET value = .. (that needs a table with this key). The trigger keeps the figure under the owner's id and drops
-- the row: these two tables stay empty, and a renamed login keeps its figures.
CREATE TABLE mail.quota_usage (
    username text PRIMARY KEY,
    bytes    bigint,
    messages bigint
);
CREATE TABLE mail.last_login (
    username    text,
    protocol    text,
    last_access bigint,
    PRIMARY KEY (username, protocol)
);
CREATE FUNCTION mail.take_quota_usage() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = mail, pg_temp AS $$
BEGIN
    INSERT INTO directory.mail_usage AS u (reseller_id, owner_id, customer_id, user_id, resource_id, bytes, messages)
        SELECT a.reseller_id, coalesce(a.user_id, a.resource_id), a.customer_id, a.user_id, a.resource_id,
               greatest(0, coalesce(NEW.bytes, 0)), greatest(0, coalesce(NEW.messages, 0))
        FROM directory.addresses a
            LEFT JOIN directory.users p ON p.reseller_id = a.reseller_id AND p.user_id = a.user_id
        WHERE a.address = lower(NEW.username) AND a.kind IN ('user', 'resource')
          AND p.kind IS DISTINCT FROM 'probe'                   -- not counted in anybody's pool
    ON CONFLICT (reseller_id, owner_id) DO UPDATE SET
        bytes = greatest(0, coalesce(NEW.bytes, u.bytes)), messages = greatest(0, coalesce(NEW.messages, u.messages)), measured_at = now();
    RETURN NULL;
END $$;
CREATE TRIGGER take BEFORE INSERT ON mail.quota_usage FOR EACH ROW EXECUTE FUNCTION mail.take_quota_usage();

CREATE FUNCTION mail.take_last_login() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = mail, pg_temp AS $$
BEGIN
    INSERT INTO directory.last_logins (reseller_id, user_id, protocol, customer_id, last_access)
        SELECT reseller_id, user_id, left(lower(NEW.protocol), 20), customer_id, NEW.last_access
        FROM directory.users WHERE login = lower(NEW.username)
    ON CONFLICT (reseller_id, user_id, protocol) DO UPDATE SET last_access = excluded.last_access;
    RETURN NULL;
END $$;
CREATE TRIGGER take BEFORE INSERT ON mail.last_login FOR EACH ROW EXECUTE FUNCTION mail.take_last_login();

-- For the mail that warns of a full mailbox, which goes out in the reseller's name.
CREATE FUNCTION mail.person(p_login text)
    RETURNS TABLE (login text, name text, language text, reseller_title text, reseller_engineer text, reseller_domain text,
                   used bigint, quota bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mail, pg_temp AS $$
BEGIN
    RETURN QUERY
        SELECT m.username::text, m.name::text, m.language::text, t.reseller_title::text, t.engineer::text, t.reseller_domain::text,
               coalesce(us.bytes, 0), m.quota
        FROM mailboxes m JOIN tenants t USING (reseller_id, customer_id)
            LEFT JOIN directory.mail_usage us ON us.reseller_id = m.reseller_id AND us.owner_id = m.owner_id
        WHERE m.username = lower(p_login);
END $$;

-- --------------------------------------------------------------------------------------------- rspamd and DNS

CREATE VIEW mail.dkim_public AS
    SELECT t.reseller_name, k.domain, k.selector, k.algorithm, k.state, k.public_key
    FROM directory.dkim_keys k JOIN mail.tenants t USING (reseller_id, customer_id);

CREATE VIEW mail.dkim_keys AS
    SELECT t.reseller_name, t.machine, k.domain, k.selector, k.algorithm, k.state, k.private_key
    FROM directory.dkim_keys k JOIN mail.tenants t USING (reseller_id, customer_id)
    WHERE k.state IN ('next', 'active');

-- Whose a domain is, for limits and reports by customer and reseller.
CREATE VIEW mail.domain_owners AS
    SELECT d.name AS domain, d.customer_id, d.reseller_id, t.machine
    FROM directory.domains d JOIN mail.tenants t USING (reseller_id, customer_id)
    WHERE d.state <> 'removed-pending';

-- ----------------------------------------------------------------------------------------------------- removal

-- Directories of people and customers that are gone from the directory and may go from the disk.
CREATE VIEW mail.removals AS
    SELECT x.owner_id, x.kind, x.removed_at,
           format('/var/vmail/%s/%s', x.reseller_name, x.customer_id) || CASE x.kind WHEN 'customer' THEN '' ELSE '/' || x.owner_id END AS home
    FROM directory.removals x
    WHERE x.mail_done_at IS NULL AND x.kind <> 'group';

CREATE FUNCTION mail.removal_done(p_owner uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = mail, pg_temp AS $$
BEGIN
    UPDATE directory.removals SET mail_done_at = now() WHERE owner_id = p_owner AND mail_done_at IS NULL;
END $$;

-- ------------------------------------------------------------------------------------------------- privileges

GRANT EXECUTE ON FUNCTION mail.domain(text, text), mail.mailbox(text, text), mail.targets(text, text),
    mail.recipient_status(text, text), mail.senders(text), mail.may_send(text, integer) TO postfix;
GRANT EXECUTE ON FUNCTION mail.dovecot_password(text, text), mail.app_password(text, text, text, text),
    mail.dovecot_user(text, text), mail.dovecot_users(text), mail.person(text), mail.removal_done(uuid) TO dovecot;
GRANT SELECT ON mail.removals TO dovecot;
GRANT SELECT, INSERT, UPDATE, DELETE ON mail.quota_usage, mail.last_login TO dovecot;
GRANT SELECT ON mail.dkim_keys, mail.domain_owners TO _rspamd;
GRANT SELECT ON mail.dkim_public TO verify, directory_admin;
-- The modules write keys and look at what the services see.
GRANT SELECT ON mail.tenants, mail.mailboxes, mail.dkim_keys, mail.domain_owners, directory.mail_sent TO directory_admin;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA mail TO directory_admin;

RESET ROLE;
