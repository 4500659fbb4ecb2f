-- SPDX-License-Identifier: GPL-3.0-or-later
-- Removals by machine, a catch-all of an alias domain's own, and an end to queries that nobody waits for any more.

-- Postfix and Dovecot have given up long before.
ALTER ROLE postfix SET statement_timeout = '30s';
ALTER ROLE dovecot SET statement_timeout = '30s';
ALTER ROLE _rspamd SET statement_timeout = '30s';
ALTER ROLE verify SET statement_timeout = '30s';

SET LOCAL ROLE directory_owner;

-- A machine removes what it holds: another one would find nothing there and call it done.
CREATE OR REPLACE VIEW mail.removals AS
    SELECT x.owner_id, x.kind, x.removed_at,
           format('/var/vmail/%s/%s', x.reseller_name, x.customer_id) || CASE x.kind WHEN 'customer' THEN '' ELSE '/' || x.owner_id END AS home,
           r.placement ->> 'mail' AS machine
    FROM directory.removals x LEFT JOIN directory.resellers r USING (reseller_id)
    WHERE x.mail_done_at IS NULL AND x.kind <> 'group';

-- As before, but an alias domain may have a catch-all for what its target does not know.
CREATE OR REPLACE FUNCTION mail.find(p_address text, p_machine text, p_depth integer DEFAULT 0)
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
            RETURN;
        END IF;
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

RESET ROLE;
