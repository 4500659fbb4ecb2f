-- SPDX-License-Identifier: GPL-3.0-or-later
-- Rooms that colleagues may book, and passwords changed by who logged in with his login.

SET LOCAL ROLE directory_owner;

-- SOGo lets nobody book a room whose calendar he may not see, and its defaults for that hold for all customers at once. So
-- grants become a view: those that people gave, and for each room that the people of its customer see when it is taken.
ALTER TABLE groupware.sogo_acl RENAME TO acl;
REVOKE ALL ON groupware.acl FROM sogo;
CREATE VIEW groupware.sogo_acl AS
    SELECT a.c_folder_id, a.c_object, a.c_uid, a.c_role FROM groupware.acl a
    UNION ALL
    SELECT f.c_folder_id, ('/' || f.c_path2 || '/' || f.c_path3 || '/' || f.c_path4)::varchar(255), p.c_uid::varchar(255),
           r.role::varchar(80)
    FROM groupware.sogo_folder_info f
        JOIN groupware.identities o ON o.c_uid = f.c_path2::text AND o.resource_id IS NOT NULL
        JOIN groupware.identities p ON p.customer = o.customer AND p.user_id IS NOT NULL
        CROSS JOIN (VALUES ('PublicDAndTViewer'), ('ConfidentialDAndTViewer'), ('PrivateDAndTViewer')) AS r (role)
    WHERE f.c_path3 = 'Calendar' AND f.c_path4 = 'personal';

CREATE FUNCTION groupware.change_grant() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = groupware, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO acl (c_folder_id, c_object, c_uid, c_role) VALUES (NEW.c_folder_id, NEW.c_object, NEW.c_uid, NEW.c_role);
        RETURN NEW;
    END IF;
    DELETE FROM acl a WHERE a.c_folder_id = OLD.c_folder_id AND a.c_object = OLD.c_object AND a.c_uid = OLD.c_uid
        AND a.c_role = OLD.c_role;
    RETURN OLD;
END $$;
CREATE TRIGGER change_grant INSTEAD OF INSERT OR DELETE ON groupware.sogo_acl
    FOR EACH ROW EXECUTE FUNCTION groupware.change_grant();
GRANT SELECT, INSERT, DELETE ON groupware.sogo_acl TO sogo;

-- As before, of the table that is behind the view now.
CREATE OR REPLACE FUNCTION groupware.remove_data() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = groupware, pg_temp AS $$
DECLARE
    gone text[];
    folders integer[];
BEGIN
    -- The one of users and the one of resources have a column each; the key is what both have second.
    EXECUTE format('SELECT array_agg(%I::text) FROM old_rows', TG_ARGV[0]) INTO gone;
    IF gone IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(c_folder_id) INTO folders FROM sogo_folder_info WHERE c_path2 = ANY (gone);
    DELETE FROM sogo_alarms_folder a USING sogo_folder_info f WHERE f.c_folder_id = ANY (folders) AND a.c_path = f.c_path;
    DELETE FROM acl WHERE c_folder_id = ANY (folders) OR c_uid = ANY (gone);
    DELETE FROM sogo_quick_appointment WHERE c_folder_id = ANY (folders);
    DELETE FROM sogo_quick_contact WHERE c_folder_id = ANY (folders);
    DELETE FROM sogo_store WHERE c_folder_id = ANY (folders);
    DELETE FROM sogo_folder_info WHERE c_folder_id = ANY (folders);
    DELETE FROM sogo_cache_folder WHERE c_uid = ANY (gone);
    DELETE FROM sogo_user_profile WHERE c_uid = ANY (gone);
    RETURN NULL;
END $$;

-- SOGo changes the password of the name that somebody typed when he logged in: "WHERE c_uid = 'jan@degraaf.example'" finds
-- no row, and SOGo takes that for success. A trigger of the statement sees it all the same.
CREATE FUNCTION groupware.change_password_of_login() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = groupware, pg_temp AS $$
DECLARE
    found_words text[] := regexp_match(current_query(),
        $words$^\s*UPDATE people SET c_password = '([^']+)' WHERE c_uid = '((?:[^']|'')*@(?:[^']|'')*)'\s*$words$);
    p_login text := replace(found_words[2], $q$''$q$, $q$'$q$);
BEGIN
    IF found_words IS NULL OR pg_trigger_depth() > 1 THEN
        RETURN NULL;
    END IF;
    UPDATE people SET c_password = found_words[1] WHERE login = p_login;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no password to change' USING ERRCODE = 'BW005';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER change_password_of_login BEFORE UPDATE ON groupware.people
    FOR EACH STATEMENT EXECUTE FUNCTION groupware.change_password_of_login();

RESET ROLE;
