-- SPDX-License-Identifier: GPL-3.0-or-later
-- Mail that was deleted too early, forwards that pass SPF, and who is over what he may use.

SET LOCAL ROLE directory_owner;

-- How long a reseller's people can have deleted mail back; 0 is not at all. The contract's reseller_expunged_days.
CREATE FUNCTION mail.expunged_days(p_settings jsonb) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT coalesce((p_settings ->> 'expunged_days')::integer, 14) $$;

-- Dovecot's setting lazy_expunge_mailbox of a person: where deleted mail waits. Empty: it is gone at once.
CREATE FUNCTION mail.expunged_mailbox(p_login text) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mail, pg_temp AS $$
BEGIN
    RETURN coalesce((SELECT CASE WHEN expunged_days(r.settings) > 0 THEN '.EXPUNGED/mail' END
                     FROM mailboxes m JOIN directory.resellers r USING (reseller_id)
                     WHERE m.username = lower(p_login)), '');
END $$;

-- For the daily clearing: every mailbox of a machine, where it lies and for how many days it keeps what was deleted.
CREATE FUNCTION mail.expunged_periods(p_machine text) RETURNS TABLE (login text, home text, days integer)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mail, pg_temp AS $$
BEGIN
    RETURN QUERY
        SELECT m.username::text, format('/var/vmail/%s/%s/%s', m.reseller_name, m.customer_id, m.owner_id), expunged_days(r.settings)
        FROM mailboxes m JOIN directory.resellers r USING (reseller_id)
        WHERE coalesce(m.machine, p_machine, '') = coalesce(p_machine, m.machine, '') ORDER BY 1;
END $$;

GRANT EXECUTE ON FUNCTION mail.expunged_mailbox(text), mail.expunged_periods(text) TO dovecot;
GRANT EXECUTE ON FUNCTION mail.expunged_days(jsonb), mail.expunged_mailbox(text), mail.expunged_periods(text) TO directory_admin;

-- Whether a mail that leaves needs another envelope sender (SRS): its domain is not one that this machine sends for, so that
-- the receiver would find this machine missing in the domain's SPF. p_own are names of the machine itself.
CREATE FUNCTION mail.sender_is_foreign(p_sender text, p_machine text, p_own text[]) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mail, pg_temp AS $$
DECLARE
    p_domain text := substring(lower(p_sender) FROM '^.+@([^@]+)$');
BEGIN
    RETURN p_domain IS NOT NULL AND p_domain <> ALL (p_own) AND domain(p_domain, p_machine) IS NULL;
END $$;
GRANT EXECUTE ON FUNCTION mail.sender_is_foreign(text, text, text[]) TO postfix;
GRANT EXECUTE ON FUNCTION mail.sender_is_foreign(text, text, text[]) TO directory_admin;

-- Who is over or near what he may use: every limit that has reached its lowest warning, and every mailbox that has reached
-- the lowest warning of the limits above it, or 80 percent where none has any.
CREATE VIEW directory.full_status AS
    SELECT reseller, customer, "user", level, "limit", unit, max, in_use, percent, over, enforce
    FROM directory.limit_status
    WHERE (over OR warned IS NOT NULL OR percent >= 100) AND NOT (level = 'user' AND "limit" = 'mail_storage')
    UNION ALL
    SELECT m.reseller_name, c.name, m.username, 'user', 'mail_storage', 'bytes', m.quota, u.bytes,
           round(u.bytes * 100.0 / nullif(m.quota, 0), 1), u.bytes > m.quota, 'hard'
    FROM mail.mailboxes m
        JOIN directory.customers c USING (reseller_id, customer_id)
        JOIN directory.mail_usage u ON u.reseller_id = m.reseller_id AND u.owner_id = m.owner_id
        CROSS JOIN LATERAL (
            SELECT coalesce(min(w), 80) AS percent
            FROM directory.limits l CROSS JOIN LATERAL unnest(l.warn_at) AS w
            WHERE l.reseller_id = m.reseller_id AND l.name = 'mail_storage'
              AND l.owner_id IN (m.owner_id, m.customer_id, m.reseller_id)) near
    WHERE u.bytes * 100.0 >= m.quota * near.percent AND u.bytes > 0;
GRANT SELECT ON directory.full_status TO directory_admin, verify;
-- A view asks for functions with the rights of whoever reads it.
GRANT USAGE ON SCHEMA mail TO verify;
GRANT EXECUTE ON FUNCTION mail.quota(bigint, numeric) TO verify;

RESET ROLE;
