-- SPDX-License-Identifier: GPL-3.0-or-later
-- Who has no password is told so by nobody: without one, the groupware refuses at once, and the time would say who exists.

SET LOCAL ROLE directory_owner;

-- The name of the reseller at whose webmail this login may be tried, else NULL.
CREATE OR REPLACE FUNCTION portal.login_reseller(p_login text) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = portal, pg_temp AS $$
BEGIN
    RETURN (SELECT p.reseller FROM people p JOIN directory.users u USING (reseller_id, user_id)
            WHERE p.login = lower(p_login) AND p.mail AND u.password_hash IS NOT NULL);
END $$;

RESET ROLE;
