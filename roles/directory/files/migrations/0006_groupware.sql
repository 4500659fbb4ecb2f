-- SPDX-License-Identifier: GPL-3.0-or-later
-- What SOGo reads and writes: its own tables, and the people it serves as one view. Schema groupware, role sogo.
--
--  * SOGo knows everybody by the uuid that never changes (c_uid). People log in with their login; who is renamed keeps his
--    calendar, and an address that comes back never shows the old one's.
--  * A customer is what SOGo calls a domain: its address book and its searches end there. Its grants end there too, because
--    the trigger on sogo_acl refuses the others. Other customers' rows are in the view all the same: SOGo asks for one
--    login among all of them, and does not say who wants to know.
--  * The columns of SOGo's tables are SOGo's; what is added here are keys, indexes and triggers.
--  * A machine may say its inventory name in the setting bouwsteen.machine and then sees the resellers placed there.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sogo') THEN
        CREATE ROLE sogo LOGIN;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO sogo', current_database());
END $$;
-- SOGo names its tables without a schema.
ALTER ROLE sogo SET search_path = groupware, pg_catalog;
ALTER ROLE sogo SET statement_timeout = '60s';
ALTER ROLE sogo SET lock_timeout = '30s';

CREATE SCHEMA groupware AUTHORIZATION directory_owner;
GRANT USAGE ON SCHEMA groupware TO sogo, directory_admin;

SET LOCAL ROLE directory_owner;

-- ------------------------------------------------------------------------------------------------ SOGo's tables

CREATE TABLE groupware.sogo_user_profile (
    c_uid      varchar(255) PRIMARY KEY,
    c_defaults text,
    c_settings text
);

CREATE TABLE groupware.sogo_folder_info (
    c_folder_id      serial NOT NULL UNIQUE,
    c_path           varchar(255) PRIMARY KEY,      -- /Users/UID/Calendar/personal
    c_path1          varchar(255) NOT NULL,
    c_path2          varchar(255),                  -- the owner
    c_path3          varchar(255),
    c_path4          varchar(255),
    c_foldername     varchar(255) NOT NULL,
    c_location       varchar(2048),
    c_quick_location varchar(2048),
    c_acl_location   varchar(2048),
    c_folder_type    varchar(255) NOT NULL
);
CREATE INDEX sogo_folder_info_owner ON groupware.sogo_folder_info (c_path2);

CREATE TABLE groupware.sogo_store (
    c_folder_id    integer NOT NULL,
    c_name         varchar(255) NOT NULL,
    c_content      text NOT NULL,
    c_creationdate integer NOT NULL,
    c_lastmodified integer NOT NULL,
    c_version      integer NOT NULL,
    c_deleted      integer,
    PRIMARY KEY (c_folder_id, c_name)
);

CREATE TABLE groupware.sogo_acl (
    c_folder_id integer NOT NULL,
    c_object    varchar(255) NOT NULL,
    c_uid       varchar(255) NOT NULL,
    c_role      varchar(80) NOT NULL
);
CREATE INDEX sogo_acl_c_folder_id_idx ON groupware.sogo_acl (c_folder_id);
CREATE INDEX sogo_acl_c_uid_idx ON groupware.sogo_acl (c_uid);

CREATE TABLE groupware.sogo_quick_appointment (
    c_folder_id      integer NOT NULL,
    c_name           varchar(255) NOT NULL,
    c_uid            varchar(255) NOT NULL,
    c_startdate      integer,
    c_enddate        integer,
    c_cycleenddate   integer,
    c_title          varchar(1000) NOT NULL,
    c_participants   text,
    c_isallday       integer,
    c_iscycle        integer,
    c_cycleinfo      text,
    c_classification integer NOT NULL,
    c_isopaque       integer NOT NULL,
    c_status         integer NOT NULL,
    c_priority       integer,
    c_location       varchar(255),
    c_orgmail        varchar(255),
    c_partmails      text,
    c_partstates     text,
    c_category       varchar(255),
    c_sequence       integer,
    c_component      varchar(10) NOT NULL,
    c_nextalarm      integer,
    c_description    text,
    PRIMARY KEY (c_folder_id, c_name)
);

CREATE TABLE groupware.sogo_quick_contact (
    c_folder_id       integer NOT NULL,
    c_name            varchar(255) NOT NULL,
    c_givenname       varchar(255),
    c_cn              varchar(255),
    c_sn              varchar(255),
    c_screenname      varchar(255),
    c_l               varchar(255),
    c_mail            text,
    c_o               varchar(255),
    c_ou              varchar(255),
    c_telephonenumber varchar(255),
    c_categories      varchar(255),
    c_component       varchar(10) NOT NULL,
    c_hascertificate  integer,
    PRIMARY KEY (c_folder_id, c_name)
);

CREATE TABLE groupware.sogo_sessions_folder (
    c_id           varchar(255) PRIMARY KEY,
    c_value        varchar(4096) NOT NULL,
    c_creationdate integer NOT NULL,
    c_lastseen     integer NOT NULL
);

CREATE TABLE groupware.sogo_alarms_folder (
    c_path          varchar(255) NOT NULL,
    c_name          varchar(255) NOT NULL,
    c_uid           varchar(255) NOT NULL,
    c_recurrence_id integer,
    c_alarm_number  integer NOT NULL,
    c_alarm_date    integer NOT NULL
);
CREATE INDEX sogo_alarms_folder_path ON groupware.sogo_alarms_folder (c_path, c_name);
CREATE INDEX sogo_alarms_folder_date ON groupware.sogo_alarms_folder (c_alarm_date);

CREATE TABLE groupware.sogo_cache_folder (
    c_uid          varchar(255) NOT NULL,
    c_path         varchar(255) NOT NULL,
    c_parent_path  varchar(255),
    c_type         smallint NOT NULL,
    c_creationdate integer NOT NULL,
    c_lastmodified integer NOT NULL,
    c_version      integer NOT NULL DEFAULT 0,
    c_deleted      smallint NOT NULL DEFAULT 0,
    c_content      text,
    PRIMARY KEY (c_uid, c_path)
);

CREATE TABLE groupware.sogo_admin (
    c_key     varchar(255) NOT NULL,
    c_content text NOT NULL
);

-- ------------------------------------------------------------------------------------------------------- people

-- Everything that has an address, one row each, with the columns that SOGo looks for in one table: it asks for
-- "c_uid = x OR login = x OR mail = x OR aliases = x", which takes indexes on one table to answer. Kept by the trigger on
-- directory.addresses below.
CREATE COLLATION groupware.without_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE groupware.identities (
    reseller_id uuid NOT NULL,
    owner_id    uuid NOT NULL,              -- the user, else the group, else the resource
    customer_id uuid NOT NULL,
    user_id     uuid,
    group_id    uuid,
    resource_id uuid,
    mail        text NOT NULL,
    aliases     text,                       -- separated by spaces
    -- People type their login as they like.
    login       text COLLATE groupware.without_case GENERATED ALWAYS AS (CASE WHEN user_id IS NOT NULL THEN mail END) STORED,
    c_uid       text NOT NULL GENERATED ALWAYS AS (owner_id::text) STORED,
    customer    text NOT NULL GENERATED ALWAYS AS (customer_id::text) STORED,
    PRIMARY KEY (reseller_id, owner_id),
    FOREIGN KEY (reseller_id, customer_id, user_id)
        REFERENCES directory.users (reseller_id, customer_id, user_id) ON DELETE CASCADE DEFERRABLE,
    FOREIGN KEY (reseller_id, customer_id, group_id)
        REFERENCES directory.groups (reseller_id, customer_id, group_id) ON DELETE CASCADE DEFERRABLE,
    FOREIGN KEY (reseller_id, customer_id, resource_id)
        REFERENCES directory.resources (reseller_id, customer_id, resource_id) ON DELETE CASCADE DEFERRABLE,
    CONSTRAINT identities_owner CHECK (owner_id = coalesce(user_id, group_id, resource_id)
        AND num_nonnulls(user_id, group_id, resource_id) = 1)
);
CREATE INDEX identities_c_uid ON groupware.identities (c_uid);
CREATE INDEX identities_login ON groupware.identities (login);
CREATE INDEX identities_mail ON groupware.identities (mail);
CREATE INDEX identities_aliases ON groupware.identities USING hash (aliases);
CREATE INDEX identities_customer ON groupware.identities (customer);
CREATE INDEX identities_user ON groupware.identities (reseller_id, customer_id, user_id);
CREATE INDEX identities_group ON groupware.identities (reseller_id, customer_id, group_id) WHERE group_id IS NOT NULL;
CREATE INDEX identities_resource ON groupware.identities (reseller_id, customer_id, resource_id) WHERE resource_id IS NOT NULL;

-- What these owners are called now.
CREATE FUNCTION groupware.identify(p_resellers uuid[], p_owners uuid[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = groupware, pg_temp AS $$
BEGIN
    INSERT INTO identities AS i (reseller_id, owner_id, customer_id, user_id, group_id, resource_id, mail, aliases)
        SELECT o.reseller_id, o.owner_id, a.customer_id, a.user_id, a.group_id, a.resource_id, a.address,
               CASE WHEN a.user_id IS NOT NULL THEN
                   (SELECT string_agg(x.address, ' ' ORDER BY x.address) FROM directory.addresses x
                    WHERE x.reseller_id = a.reseller_id AND x.customer_id = a.customer_id AND x.user_id = a.user_id
                      AND x.kind = 'alias') END
        FROM (SELECT DISTINCT * FROM unnest(p_resellers, p_owners) AS o (reseller_id, owner_id)) AS o
            -- The first address of a group or resource; a person's is the login.
            CROSS JOIN LATERAL (
                (SELECT a.* FROM directory.users u JOIN directory.addresses a USING (reseller_id, customer_id, user_id)
                 WHERE u.reseller_id = o.reseller_id AND u.user_id = o.owner_id AND a.kind = 'user')
                UNION ALL
                (SELECT a.* FROM directory.groups g JOIN directory.addresses a USING (reseller_id, customer_id, group_id)
                 WHERE g.reseller_id = o.reseller_id AND g.group_id = o.owner_id ORDER BY a.address LIMIT 1)
                UNION ALL
                (SELECT a.* FROM directory.resources r JOIN directory.addresses a USING (reseller_id, customer_id, resource_id)
                 WHERE r.reseller_id = o.reseller_id AND r.resource_id = o.owner_id ORDER BY a.address LIMIT 1)
                LIMIT 1) AS a
    ON CONFLICT (reseller_id, owner_id) DO UPDATE SET mail = excluded.mail, aliases = excluded.aliases
        WHERE (i.mail, i.aliases) IS DISTINCT FROM (excluded.mail, excluded.aliases);
END $$;

CREATE FUNCTION groupware.addresses_written() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = groupware, pg_temp AS $$
BEGIN
    PERFORM identify(array_agg(n.reseller_id), array_agg(coalesce(n.user_id, n.group_id, n.resource_id)))
        FROM new_rows n WHERE n.kind <> 'catch_all';
    RETURN NULL;
END $$;
CREATE FUNCTION groupware.addresses_gone() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = groupware, pg_temp AS $$
BEGIN
    -- Whose only address it was has none to be found by.
    DELETE FROM identities i USING old_rows o
        WHERE i.reseller_id = o.reseller_id AND i.owner_id = coalesce(o.user_id, o.group_id, o.resource_id)
          AND o.address = i.mail AND NOT EXISTS (SELECT FROM directory.addresses a
              WHERE a.reseller_id = i.reseller_id AND a.customer_id = i.customer_id
                AND CASE WHEN i.user_id IS NOT NULL THEN a.user_id = i.user_id AND a.kind = 'user'
                         WHEN i.group_id IS NOT NULL THEN a.group_id = i.group_id ELSE a.resource_id = i.resource_id END);
    PERFORM identify(array_agg(o.reseller_id), array_agg(coalesce(o.user_id, o.group_id, o.resource_id)))
        FROM old_rows o WHERE o.kind <> 'catch_all';
    RETURN NULL;
END $$;
CREATE TRIGGER groupware_insert AFTER INSERT ON directory.addresses REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION groupware.addresses_written();
CREATE TRIGGER groupware_update_old AFTER UPDATE ON directory.addresses REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION groupware.addresses_gone();
CREATE TRIGGER groupware_update_new AFTER UPDATE ON directory.addresses REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION groupware.addresses_written();
CREATE TRIGGER groupware_delete AFTER DELETE ON directory.addresses REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION groupware.addresses_gone();

SELECT groupware.identify(array_agg(reseller_id), array_agg(coalesce(user_id, group_id, resource_id)))
    FROM directory.addresses WHERE kind <> 'catch_all';

-- SOGo's user source. Who may not log in has a password that nothing matches, and stays in the address book.
--   kind, multiple_bookings: a room or thing takes as many bookings at once as its settings say, else one.
--   imap_host, sieve_host: the mail machine of the reseller's placement; NULL is the one in SOGo's configuration.
CREATE VIEW groupware.people AS
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
      AND coalesce(u.mail, g.mail_kind IS NOT NULL, s.resource_id IS NOT NULL)
      AND coalesce(r.placement ->> 'groupware', current_setting('bouwsteen.machine', true), '')
        = coalesce(nullif(current_setting('bouwsteen.machine', true), ''), r.placement ->> 'groupware', '');

-- A person's own password, chosen in webmail. SOGo writes the scheme in lower case.
CREATE FUNCTION groupware.change_password() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = groupware, pg_temp AS $$
BEGIN
    IF NEW.c_password IS NOT DISTINCT FROM OLD.c_password THEN
        RETURN NEW;
    END IF;
    PERFORM set_config('bouwsteen.actor', OLD.mail, true);
    UPDATE directory.users u
        SET password_hash = regexp_replace(NEW.c_password, '^\{argon2id\}', '{ARGON2ID}', 'i'), password_changed_at = now()
        FROM identities i
        WHERE i.c_uid = OLD.c_uid AND u.reseller_id = i.reseller_id AND u.user_id = i.user_id AND OLD.c_password <> '!';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no password to change' USING ERRCODE = 'BW005';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER change_password INSTEAD OF UPDATE ON groupware.people
    FOR EACH ROW EXECUTE FUNCTION groupware.change_password();

-- --------------------------------------------------------------------------------------------------- isolation

-- A grant goes to a person of the owner's own customer, and to nobody else: not to everybody who is logged in
-- (<default>: that is all customers), not to the public (anonymous).
CREATE FUNCTION groupware.check_grant() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = groupware, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM sogo_folder_info f
                       JOIN identities o ON o.c_uid = f.c_path2
                       JOIN identities p ON p.reseller_id = o.reseller_id AND p.customer_id = o.customer_id
                   WHERE f.c_folder_id = NEW.c_folder_id AND p.c_uid = NEW.c_uid AND p.group_id IS NULL) THEN
        RAISE EXCEPTION 'a folder can be shared within its own organisation only' USING ERRCODE = 'BW006';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER check_grant BEFORE INSERT OR UPDATE ON groupware.sogo_acl
    FOR EACH ROW EXECUTE FUNCTION groupware.check_grant();

-- ----------------------------------------------------------------------------------------------------- removal

CREATE FUNCTION groupware.remove_data() RETURNS trigger
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
    DELETE FROM sogo_acl WHERE c_folder_id = ANY (folders) OR c_uid = ANY (gone);
    DELETE FROM sogo_quick_appointment WHERE c_folder_id = ANY (folders);
    DELETE FROM sogo_quick_contact WHERE c_folder_id = ANY (folders);
    DELETE FROM sogo_store WHERE c_folder_id = ANY (folders);
    DELETE FROM sogo_folder_info WHERE c_folder_id = ANY (folders);
    DELETE FROM sogo_cache_folder WHERE c_uid = ANY (gone);
    DELETE FROM sogo_user_profile WHERE c_uid = ANY (gone);
    RETURN NULL;
END $$;
CREATE TRIGGER groupware_removal AFTER DELETE ON directory.users REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION groupware.remove_data('user_id');
CREATE TRIGGER groupware_removal AFTER DELETE ON directory.resources REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION groupware.remove_data('resource_id');

-- -------------------------------------------------------------------------------------------------- privileges

GRANT SELECT ON groupware.people TO sogo, directory_admin;
GRANT UPDATE (c_password) ON groupware.people TO sogo;
GRANT SELECT, INSERT, UPDATE, DELETE ON groupware.sogo_user_profile, groupware.sogo_folder_info, groupware.sogo_store,
    groupware.sogo_acl, groupware.sogo_quick_appointment, groupware.sogo_quick_contact, groupware.sogo_sessions_folder,
    groupware.sogo_alarms_folder, groupware.sogo_cache_folder, groupware.sogo_admin TO sogo;
GRANT USAGE ON SEQUENCE groupware.sogo_folder_info_c_folder_id_seq TO sogo;

RESET ROLE;
