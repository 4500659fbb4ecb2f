-- SPDX-License-Identifier: GPL-3.0-or-later
-- What the portal asks: links with which people set their password once, who may log in where, whose domain it is.
--
--  * The portal faces the internet, so its role sees functions of schema portal and nothing else: no table, no hash.
--  * p_reseller is the name of the reseller whose site asks; the web gateway fills it in, clients cannot. Another
--    reseller's people and links do not exist for it.
--  * A link is known by the SHA-256 of its token. The token itself is in the link alone.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal') THEN
        CREATE ROLE portal LOGIN;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO portal', current_database());
END $$;
-- The gateway has given up long before.
ALTER ROLE portal SET statement_timeout = '10s';

CREATE SCHEMA portal AUTHORIZATION directory_owner;
GRANT USAGE ON SCHEMA portal TO portal, directory_admin;

SET LOCAL ROLE directory_owner;

-- Where a new person's first link is mailed to. An address elsewhere: the own mailbox cannot be opened yet.
ALTER TABLE directory.users ADD COLUMN invite directory.any_address;
SELECT directory.audit_table('users', ARRAY['user_id'], 'r.login', ARRAY['password_hash', 'password_first']);

CREATE TABLE directory.password_links (
    reseller_id uuid NOT NULL,
    link_id     uuid NOT NULL DEFAULT gen_random_uuid(),
    customer_id uuid NOT NULL,
    user_id     uuid NOT NULL,
    digest      bytea NOT NULL UNIQUE CHECK (length(digest) = 32),   -- SHA-256 of the token
    purpose     text NOT NULL DEFAULT 'password' CHECK (purpose IN ('password', 'invitation')),
    made_at     timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    used_at     timestamptz,
    sent_to     directory.any_address,      -- of an invitation: where it went, once the mail service has taken it
    sent_at     timestamptz,
    PRIMARY KEY (reseller_id, link_id),
    FOREIGN KEY (reseller_id, customer_id, user_id)
        REFERENCES directory.users (reseller_id, customer_id, user_id) ON DELETE CASCADE DEFERRABLE,
    CONSTRAINT password_links_sent CHECK ((sent_to IS NULL) = (sent_at IS NULL))
);
CREATE INDEX password_links_user ON directory.password_links (reseller_id, customer_id, user_id);
GRANT SELECT, INSERT, UPDATE, DELETE ON directory.password_links TO directory_admin;
SELECT directory.audit_table('password_links', ARRAY['link_id'],
    'coalesce((SELECT u.login FROM users u WHERE u.reseller_id = r.reseller_id AND u.user_id = r.user_id), r.user_id::text)',
    ARRAY['digest']);

-- The people who can log in: active, of an active customer of an active reseller.
CREATE VIEW portal.people AS
    SELECT u.reseller_id, u.customer_id, u.user_id, u.login, u.name, u.language, u.mail,
           r.name AS reseller, r.title AS reseller_title, r.domain AS reseller_domain
    FROM directory.users u
        JOIN directory.customers c USING (reseller_id, customer_id)
        JOIN directory.resellers r USING (reseller_id)
    WHERE u.state = 'active' AND c.state = 'active' AND r.state = 'active';

-- What a reseller's pages say of him. No row: no such reseller, or not an active one.
CREATE FUNCTION portal.reseller(p_name text) RETURNS TABLE (name text, title text, domain text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = portal, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT r.name::text, r.title::text, r.domain::text
        FROM directory.resellers r WHERE r.name = p_name AND r.state = 'active';
END $$;

-- The name of the reseller at whose webmail this login may be tried, else NULL.
CREATE FUNCTION portal.login_reseller(p_login text) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = portal, pg_temp AS $$
BEGIN
    RETURN (SELECT p.reseller FROM people p WHERE p.login = lower(p_login) AND p.mail);
END $$;

-- Whose people have their addresses in a domain. Says nothing of who there is.
CREATE FUNCTION portal.domain(p_domain text) RETURNS TABLE (reseller text, title text, domain text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = portal, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT r.name::text, r.title::text, r.domain::text
        FROM directory.domains d
            JOIN directory.customers c USING (reseller_id, customer_id)
            JOIN directory.resellers r USING (reseller_id)
        WHERE d.name = lower(p_domain) AND d.state <> 'removed-pending' AND c.state <> 'removed-pending' AND r.state = 'active';
END $$;

-- The person of a link that can be used now, else no row. Looking does not use it up: mail scanners look.
CREATE FUNCTION portal.link(p_digest bytea, p_reseller text) RETURNS TABLE (login text, name text, language text, mail boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = portal, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT p.login::text, p.name::text, p.language::text, p.mail
        FROM directory.password_links l JOIN people p USING (reseller_id, customer_id, user_id)
        WHERE l.digest = p_digest AND l.used_at IS NULL AND l.expires_at > now() AND p.reseller = p_reseller;
END $$;

-- Uses a link: sets the person's own password and returns the login; NULL, and nothing is changed, if it cannot be used.
-- Of several at once one wins: the others wait for the person's row, and find the link used. password_first stays as it is, so that
-- the reseller's files do not overwrite what the person chose.
CREATE FUNCTION portal.use_link(p_digest bytea, p_reseller text, p_hash text) RETURNS text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = portal, pg_temp AS $$
DECLARE
    used record;
    found_login text;
BEGIN
    SELECT l.reseller_id, l.user_id INTO used FROM directory.password_links l WHERE l.digest = p_digest;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM set_config('bouwsteen.actor', 'portal: one-time link', true);
    -- First, so that two links of one person wait for each other in one order.
    PERFORM FROM directory.users u WHERE u.reseller_id = used.reseller_id AND u.user_id = used.user_id FOR UPDATE;
    -- The clock, not now(): what was waited for has happened since this transaction began.
    UPDATE directory.password_links AS l SET used_at = clock_timestamp()
        FROM people p
        WHERE l.digest = p_digest AND l.used_at IS NULL AND l.expires_at > clock_timestamp() AND p.reseller = p_reseller
          AND p.reseller_id = l.reseller_id AND p.customer_id = l.customer_id AND p.user_id = l.user_id
        RETURNING l.reseller_id, l.customer_id, l.user_id INTO used;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE directory.users u SET password_hash = p_hash, password_changed_at = clock_timestamp()
        WHERE u.reseller_id = used.reseller_id AND u.user_id = used.user_id
        RETURNING u.login INTO found_login;
    UPDATE directory.password_links l SET expires_at = clock_timestamp()
        WHERE l.reseller_id = used.reseller_id AND l.customer_id = used.customer_id AND l.user_id = used.user_id
          AND l.used_at IS NULL AND l.expires_at > clock_timestamp();
    RETURN found_login;
END $$;

GRANT EXECUTE ON FUNCTION portal.reseller(text), portal.login_reseller(text), portal.domain(text), portal.link(bytea, text),
    portal.use_link(bytea, text, text) TO portal;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA portal TO directory_admin;

RESET ROLE;
