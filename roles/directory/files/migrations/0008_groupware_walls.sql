-- SPDX-License-Identifier: GPL-3.0-or-later
-- Rooms among the people of groupware, and walls that SOGo itself does not have.

SET LOCAL ROLE directory_owner;

-- As before, with the rooms and things.
CREATE OR REPLACE VIEW groupware.people AS
    SELECT i.c_uid, i.c_uid AS c_name, i.login, i.mail, i.aliases, i.customer,
           coalesce(u.name, g.title, g.name, s.name)::text AS c_cn,
           CASE WHEN u.state = 'active' AND c.state = 'active' AND r.state = 'active' THEN u.password_hash::text ELSE '!' END AS c_password,
           s.kind,
           CASE WHEN s.resource_id IS NULL THEN 0
                WHEN s.settings ->> 'bookings' ~ '^[0-9]{1,4}$' THEN (s.settings ->> 'bookings')::integer ELSE 1 END AS multiple_bookings,
           i.login COLLATE "default" AS imap_login,
           'imaps://' || (r.placement ->> 'mail') || ':993' AS imap_host,
           'sieve://' || (r.placement ->> 'mail') || ':4190/?tls=YES' AS sieve_host,
           c.title::text AS c_o,
           u.language
    FROM groupware.identities i
        JOIN directory.customers c USING (reseller_id, customer_id)
        JOIN directory.resellers r USING (reseller_id)
        LEFT JOIN directory.users u ON u.reseller_id = i.reseller_id AND u.user_id = i.user_id
        LEFT JOIN directory.groups g ON g.reseller_id = i.reseller_id AND g.group_id = i.group_id
        LEFT JOIN directory.resources s ON s.reseller_id = i.reseller_id AND s.resource_id = i.resource_id
    WHERE r.state <> 'removed-pending' AND c.state <> 'removed-pending'
      AND coalesce(u.state, g.state, s.state) <> 'removed-pending'
      AND CASE WHEN u.user_id IS NOT NULL THEN u.mail WHEN g.group_id IS NOT NULL THEN g.mail_kind IS NOT NULL ELSE true END
      AND coalesce(r.placement ->> 'groupware', current_setting('bouwsteen.machine', true), '')
        = coalesce(nullif(current_setting('bouwsteen.machine', true), ''), r.placement ->> 'groupware', '');

-- Whether these (uids, logins or addresses) are known, and all of one customer: asked before SOGo sees a grant, because it
-- believes a grant before it has written it.
CREATE FUNCTION groupware.same_customer(p_names text[]) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = groupware, pg_temp AS $$
DECLARE
    name text;
    found_customer uuid;
    customer uuid;
BEGIN
    FOREACH name IN ARRAY p_names LOOP
        SELECT i.customer_id INTO found_customer FROM identities i WHERE i.c_uid = lower(name) OR i.mail = lower(name);
        IF NOT FOUND OR found_customer <> customer THEN
            RETURN false;
        END IF;
        customer := found_customer;
    END LOOP;
    RETURN customer IS NOT NULL;
END $$;

-- SOGo writes an invitation into the calendars of all attendees that it knows, of whatever customer. Into somebody else's
-- it goes by mail, as from anywhere: he takes it from there, and then it is no longer waiting for his answer. A room is
-- booked from within its own organisation.
CREATE FUNCTION groupware.check_invitation() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = groupware, pg_temp AS $$
DECLARE
    o identities;
    organizer uuid;
    states text[] := string_to_array(NEW.c_partstates, E'\n');
    mine text[];
BEGIN
    IF coalesce(NEW.c_orgmail, '') = '' THEN
        RETURN NEW;
    END IF;
    SELECT i.* INTO o FROM sogo_folder_info f JOIN identities i ON i.c_uid = f.c_path2 WHERE f.c_folder_id = NEW.c_folder_id;
    SELECT a.customer_id INTO organizer FROM directory.addresses a WHERE a.address = lower(NEW.c_orgmail);
    IF organizer = o.customer_id OR organizer IS NULL AND o.resource_id IS NULL THEN
        RETURN NEW;
    END IF;
    SELECT array_agg(states[a.position::integer]) INTO mine
        FROM unnest(string_to_array(lower(NEW.c_partmails), E'\n')) WITH ORDINALITY AS a (address, position)
        WHERE a.address = o.mail OR a.address = ANY (string_to_array(o.aliases, ' '));
    IF o.resource_id IS NOT NULL OR '0' = ANY (mine) THEN
        RAISE EXCEPTION 'an invitation from another organisation comes by mail' USING ERRCODE = 'BW006';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER check_invitation BEFORE INSERT ON groupware.sogo_quick_appointment
    FOR EACH ROW EXECUTE FUNCTION groupware.check_invitation();

GRANT EXECUTE ON FUNCTION groupware.same_customer(text[]) TO sogo;

RESET ROLE;
