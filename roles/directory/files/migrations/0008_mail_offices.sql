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

RESET ROLE;
