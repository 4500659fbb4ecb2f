-- SPDX-License-Identifier: GPL-3.0-or-later
-- The accounts of the whole product: who there is, what each has, and who holds which name.
--
-- Rules of this schema:
--  * reseller_id stands in every table and in its primary key: a reseller can be moved to another site by logical
--    replication with a row filter, and a foreign key that carries it cannot point at another reseller's rows.
--  * Rows are named by uuids that never change. People's names, logins and addresses may change or come back;
--    paths on disk are made of the uuids, so an address that comes back never shows old mail.
--  * Foreign keys are deferrable: a reconcile may write in any order with SET CONSTRAINTS ALL DEFERRED.
--  * Sizes are bytes, an absent size or limit is NULL, 0 means none.
--  * Nobody logs in as the owner. Services have a role each and see views only (schema mail and later ones).

-- Roles are shared by all databases of the server, so they may be there already.
DO $$
DECLARE
    r record;
BEGIN
    FOR r IN SELECT * FROM (VALUES
        ('directory_owner', false),    -- owns everything here
        ('directory_admin', false),    -- what the modules act as: reads and writes the accounts, not the audit
        ('postfix', true),
        ('dovecot', true),
        ('_rspamd', true),
        ('verify', true)
    ) AS v (name, login)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r.name) THEN
            EXECUTE format('CREATE ROLE %I %s', r.name, CASE WHEN r.login THEN 'LOGIN' ELSE 'NOLOGIN' END);
        END IF;
    END LOOP;
    -- Usage figures may be lost in a crash: the next delivery or the nightly count writes them again.
    ALTER ROLE dovecot SET synchronous_commit = off;
    ALTER ROLE postfix SET synchronous_commit = off;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO postfix, dovecot, _rspamd, verify, directory_admin', current_database());
    -- The reconcile compares against temporary tables.
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO directory_admin', current_database());
END $$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE directory_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

CREATE SCHEMA IF NOT EXISTS directory;
ALTER SCHEMA directory OWNER TO directory_owner;
ALTER TABLE IF EXISTS directory.migrations OWNER TO directory_owner;
CREATE SCHEMA mail AUTHORIZATION directory_owner;
GRANT USAGE ON SCHEMA directory TO directory_admin, verify;
GRANT USAGE ON SCHEMA mail TO directory_admin, postfix, dovecot, _rspamd, verify;

CREATE EXTENSION pgcrypto SCHEMA directory;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA directory FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA directory TO directory_owner;
GRANT EXECUTE ON FUNCTION directory.gen_random_bytes(integer) TO directory_admin;

SET LOCAL ROLE directory_owner;

-- A name in a contract, a file or a path.
CREATE DOMAIN directory.label AS text
    CONSTRAINT label CHECK (VALUE ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$');
-- A domain name as in DNS: lower case, A-labels, two labels or more (RFC 1035 2.3.4, RFC 5890). Written as what is in it
-- and what is not, which is several times faster than one expression with counted repetitions.
CREATE DOMAIN directory.domain_name AS text
    CONSTRAINT domain_name CHECK (length(VALUE) <= 253
        AND VALUE ~ '^[a-z0-9.-]+\.[a-z0-9.-]+$'
        AND VALUE !~ '^[.-]|\.[.-]|-\.|[.-]$|[^.]{64}');
-- A mail address of ours: lower case, a dot-string (RFC 5321 4.1.2) without the characters that mail
-- systems give a meaning of their own (% ! / | and the like). '@domain' alone is a catch-all.
CREATE DOMAIN directory.address AS text
    CONSTRAINT address CHECK (length(VALUE) <= 254 AND strpos(VALUE, '@') <= 65
        AND VALUE ~ '^[a-z0-9_.+''&=~-]*@[a-z0-9.-]+\.[a-z0-9.-]+$'
        AND VALUE !~ '^[.+''&=~-]|\.\.|\.@|@[.-]|@.*(-\.|\.-|[^.]{64})|[.-]$');
-- An address anywhere, where mail can be forwarded to.
CREATE DOMAIN directory.any_address AS text
    CONSTRAINT any_address CHECK (length(VALUE) <= 254 AND strpos(VALUE, '@') BETWEEN 2 AND 65 AND VALUE = lower(VALUE)
        AND VALUE ~ '^[^@[:space:][:cntrl:],;:<>()"\\\[\]]+@[a-z0-9.-]+\.[a-z0-9.-]+$'
        AND VALUE !~ '@[.-]|@.*(-\.|\.[.-]|[^.]{64})|[.-]$');
-- What people read: any letters, no control characters.
CREATE DOMAIN directory.title AS text
    CONSTRAINT title CHECK (length(VALUE) BETWEEN 1 AND 200 AND VALUE !~ '[[:cntrl:]]' AND VALUE = btrim(VALUE));
CREATE DOMAIN directory.size AS bigint
    CONSTRAINT size CHECK (VALUE >= 0);
-- active: all works. suspended: keeps receiving mail, no login, no sending; because the file says so, or because the
-- entry is absent from the files (then remove_after says until when it is kept). removed-pending: as if it were gone;
-- the row waits for its removal.
CREATE DOMAIN directory.state AS text DEFAULT 'active'
    CONSTRAINT state CHECK (VALUE IN ('active', 'suspended', 'removed-pending'));
CREATE DOMAIN directory.because AS text
    CONSTRAINT because CHECK (VALUE IN ('file', 'absent'));
-- Hashes of schemes that are slow to guess, with the prefix that Dovecot and SOGo read.
CREATE DOMAIN directory.password_hash AS text
    CONSTRAINT password_hash CHECK (length(VALUE) <= 300
        AND VALUE ~* '^\{ARGON2ID\}\$argon2id\$[[:graph:]]+$|^\{BLF-CRYPT\}\$2[aby]\$[[:graph:]]+$');

CREATE TABLE directory.resellers (
    reseller_id    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name           directory.label NOT NULL UNIQUE,
    title          directory.title NOT NULL,
    engineer       directory.any_address NOT NULL,         -- the only person the provider mails
    domain         directory.domain_name NOT NULL UNIQUE,  -- webmail., sip., files. live under it
    retention_days integer NOT NULL DEFAULT 30 CHECK (retention_days >= 0),
    placement      jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(placement) = 'object'),
    prices         jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(prices) = 'object'),
    settings       jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    state          directory.state NOT NULL DEFAULT 'active',
    suspended_because directory.because,
    suspended_at   timestamptz,
    remove_after   timestamptz,
    created_at     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT resellers_state CHECK ((state = 'active') = (suspended_because IS NULL)
        AND (state <> 'active' OR remove_after IS NULL))
);

CREATE TABLE directory.products (
    reseller_id uuid NOT NULL REFERENCES directory.resellers DEFERRABLE,
    name        text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    definition  jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(definition) = 'object'),
    PRIMARY KEY (reseller_id, name)
);

-- The UNIX uid and gid of a customer's mail and files. Ends below the numbers that systemd gives to containers.
-- Never used twice: what an old customer left on a disk can never become readable for a new one.
CREATE SEQUENCE directory.unix_ids AS integer START 200000 MINVALUE 200000 MAXVALUE 524287 NO CYCLE;

CREATE TABLE directory.customers (
    reseller_id  uuid NOT NULL REFERENCES directory.resellers DEFERRABLE,
    customer_id  uuid NOT NULL DEFAULT gen_random_uuid(),
    name         directory.label NOT NULL,
    title        directory.title NOT NULL,
    kind         text NOT NULL DEFAULT 'customer' CHECK (kind IN ('customer', 'probe')),
    unix_id      integer NOT NULL UNIQUE DEFAULT nextval('directory.unix_ids') CHECK (unix_id BETWEEN 200000 AND 524287),
    telephony    jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(telephony) = 'object'),
    settings     jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    state        directory.state NOT NULL DEFAULT 'active',
    suspended_because directory.because,
    suspended_at timestamptz,
    remove_after timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    counted      boolean NOT NULL GENERATED ALWAYS AS
        (kind = 'customer' AND (state = 'active' OR (state = 'suspended' AND suspended_because IS NOT DISTINCT FROM 'file'))) STORED,
    PRIMARY KEY (reseller_id, customer_id),
    UNIQUE (reseller_id, name),
    CONSTRAINT customers_state CHECK ((state = 'active') = (suspended_because IS NULL)
        AND (state <> 'active' OR remove_after IS NULL))
);
CREATE INDEX customers_id ON directory.customers (customer_id);
CREATE INDEX customers_counted ON directory.customers (reseller_id) WHERE counted;

-- Who holds which domain name. One holder over the whole site; rows come and go with resellers and domains, by trigger.
CREATE TABLE directory.claims (
    reseller_id uuid NOT NULL REFERENCES directory.resellers ON DELETE CASCADE DEFERRABLE,
    domain      directory.domain_name NOT NULL UNIQUE,
    kind        text NOT NULL CHECK (kind IN ('reseller', 'customer')),   -- reseller: the names under it are his too
    claimed_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (reseller_id, domain)
);

-- A reseller asked for a domain that another one holds: the proof it needs is a TXT record with this token. By name and
-- without a foreign key, because the request of a reseller that was refused as a whole is all that is left of it.
CREATE TABLE directory.claim_requests (
    reseller_name directory.label NOT NULL,
    domain        directory.domain_name NOT NULL,
    token         text NOT NULL DEFAULT encode(directory.gen_random_bytes(20), 'hex') CHECK (token ~ '^[0-9a-f]{40}$'),
    requested_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (reseller_name, domain)
);

CREATE TABLE directory.domains (
    reseller_id  uuid NOT NULL,
    domain_id    uuid NOT NULL DEFAULT gen_random_uuid(),
    customer_id  uuid NOT NULL,
    name         directory.domain_name NOT NULL UNIQUE,
    kind         text NOT NULL DEFAULT 'customer' CHECK (kind IN ('customer', 'probe')),
    alias_of     text,                       -- name of another domain of the same customer
    state        directory.state NOT NULL DEFAULT 'active',
    suspended_because directory.because,
    suspended_at timestamptz,
    remove_after timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    counted      boolean NOT NULL GENERATED ALWAYS AS
        (kind = 'customer' AND (state = 'active' OR (state = 'suspended' AND suspended_because IS NOT DISTINCT FROM 'file'))) STORED,
    -- Together they keep an alias domain from pointing at another alias domain or at itself.
    is_alias     boolean NOT NULL GENERATED ALWAYS AS (alias_of IS NOT NULL) STORED,
    target_is_alias boolean GENERATED ALWAYS AS (CASE WHEN alias_of IS NOT NULL THEN false END) STORED,
    PRIMARY KEY (reseller_id, domain_id),
    UNIQUE (reseller_id, customer_id, name),
    UNIQUE (reseller_id, customer_id, name, is_alias),
    FOREIGN KEY (reseller_id, customer_id) REFERENCES directory.customers ON DELETE CASCADE DEFERRABLE,
    CONSTRAINT domains_alias_of_fkey FOREIGN KEY (reseller_id, customer_id, alias_of, target_is_alias)
        REFERENCES directory.domains (reseller_id, customer_id, name, is_alias) DEFERRABLE,
    CONSTRAINT domains_state CHECK ((state = 'active') = (suspended_because IS NULL)
        AND (state <> 'active' OR remove_after IS NULL))
);
CREATE INDEX domains_counted ON directory.domains (reseller_id, customer_id) WHERE counted;
CREATE INDEX domains_alias_of ON directory.domains (reseller_id, customer_id, alias_of) WHERE alias_of IS NOT NULL;

CREATE TABLE directory.users (
    reseller_id  uuid NOT NULL,
    user_id      uuid NOT NULL DEFAULT gen_random_uuid(),
    customer_id  uuid NOT NULL,
    login        directory.address NOT NULL UNIQUE CHECK (login NOT LIKE '@%'),
    name         directory.title NOT NULL,
    kind         text NOT NULL DEFAULT 'person' CHECK (kind IN ('person', 'probe')),
    product      text,
    language     text CHECK (language ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$'),
    password_hash  directory.password_hash,  -- the one that holds; the person's own, or the first
    password_first directory.password_hash,  -- the first one as last applied from the file; see directory.md
    password_changed_at timestamptz,
    mail         boolean NOT NULL DEFAULT false,
    mail_quota   directory.size,             -- what the mailbox may hold: the tightest of file, product and own limit
    keep_copy    boolean NOT NULL DEFAULT true,   -- with forwards: the mailbox gets the mail too
    phone        jsonb CHECK (jsonb_typeof(phone) = 'object'),
    files        boolean NOT NULL DEFAULT false,
    file_quota   directory.size,
    file_settings jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(file_settings) = 'object'),
    state        directory.state NOT NULL DEFAULT 'active',
    suspended_because directory.because,
    suspended_at timestamptz,
    remove_after timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    counted      boolean NOT NULL GENERATED ALWAYS AS
        (kind = 'person' AND (state = 'active' OR (state = 'suspended' AND suspended_because IS NOT DISTINCT FROM 'file'))) STORED,
    domain       text NOT NULL GENERATED ALWAYS AS (split_part(login::text, '@', 2)) STORED,
    PRIMARY KEY (reseller_id, user_id),
    UNIQUE (reseller_id, customer_id, user_id),
    FOREIGN KEY (reseller_id, customer_id) REFERENCES directory.customers ON DELETE CASCADE DEFERRABLE,
    FOREIGN KEY (reseller_id, customer_id, domain) REFERENCES directory.domains (reseller_id, customer_id, name) DEFERRABLE,
    FOREIGN KEY (reseller_id, product) REFERENCES directory.products DEFERRABLE,
    CONSTRAINT users_state CHECK ((state = 'active') = (suspended_because IS NULL)
        AND (state <> 'active' OR remove_after IS NULL))
);
-- Foreign keys by domain and by product find their rows through the keys above: few of one customer or reseller.
CREATE INDEX users_counted ON directory.users (reseller_id, customer_id) WHERE counted;

-- A list of people: distribution list, shared mailbox, ring group, shared folder.
CREATE TABLE directory.groups (
    reseller_id  uuid NOT NULL,
    group_id     uuid NOT NULL DEFAULT gen_random_uuid(),
    customer_id  uuid NOT NULL,
    name         directory.title NOT NULL,
    title        directory.title,
    mail_kind    text CHECK (mail_kind IN ('list', 'shared_mailbox')),   -- its address is a row of addresses
    mail_quota   directory.size,
    phone        jsonb CHECK (jsonb_typeof(phone) = 'object'),
    files        jsonb CHECK (jsonb_typeof(files) = 'object'),
    file_quota   directory.size,
    state        directory.state NOT NULL DEFAULT 'active',
    suspended_because directory.because,
    suspended_at timestamptz,
    remove_after timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    counted      boolean NOT NULL GENERATED ALWAYS AS
        (state = 'active' OR (state = 'suspended' AND suspended_because IS NOT DISTINCT FROM 'file')) STORED,
    PRIMARY KEY (reseller_id, group_id),
    UNIQUE (reseller_id, customer_id, group_id),
    UNIQUE (reseller_id, customer_id, name),
    FOREIGN KEY (reseller_id, customer_id) REFERENCES directory.customers ON DELETE CASCADE DEFERRABLE,
    CONSTRAINT groups_state CHECK ((state = 'active') = (suspended_because IS NULL)
        AND (state <> 'active' OR remove_after IS NULL))
);

CREATE TABLE directory.group_members (
    reseller_id uuid NOT NULL,
    group_id    uuid NOT NULL,
    user_id     uuid NOT NULL,
    customer_id uuid NOT NULL,              -- both ends carry it: a group holds people of its own customer only
    PRIMARY KEY (reseller_id, group_id, user_id),
    FOREIGN KEY (reseller_id, customer_id, group_id)
        REFERENCES directory.groups (reseller_id, customer_id, group_id) ON DELETE CASCADE DEFERRABLE,
    FOREIGN KEY (reseller_id, customer_id, user_id)
        REFERENCES directory.users (reseller_id, customer_id, user_id) ON DELETE CASCADE DEFERRABLE
);
CREATE INDEX group_members_user ON directory.group_members (reseller_id, customer_id, user_id);

-- Rooms and things with a calendar.
CREATE TABLE directory.resources (
    reseller_id  uuid NOT NULL,
    resource_id  uuid NOT NULL DEFAULT gen_random_uuid(),
    customer_id  uuid NOT NULL,
    name         directory.title NOT NULL,
    kind         text NOT NULL DEFAULT 'location' CHECK (kind IN ('location', 'thing')),
    settings     jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    state        directory.state NOT NULL DEFAULT 'active',
    suspended_because directory.because,
    suspended_at timestamptz,
    remove_after timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (reseller_id, resource_id),
    UNIQUE (reseller_id, customer_id, resource_id),
    UNIQUE (reseller_id, customer_id, name),
    FOREIGN KEY (reseller_id, customer_id) REFERENCES directory.customers ON DELETE CASCADE DEFERRABLE,
    CONSTRAINT resources_state CHECK ((state = 'active') = (suspended_because IS NULL)
        AND (state <> 'active' OR remove_after IS NULL))
);

-- Every address that mail can arrive at, once over the whole site. A domain belongs to one customer, and so do its
-- addresses. Rows of kind user are the logins and are kept by trigger; the others are written by the reconcile.
CREATE TABLE directory.addresses (
    reseller_id uuid NOT NULL,
    address     directory.address NOT NULL UNIQUE,
    customer_id uuid NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('user', 'alias', 'catch_all', 'group', 'resource')),
    user_id     uuid,
    group_id    uuid,
    resource_id uuid,
    domain      text NOT NULL GENERATED ALWAYS AS (split_part(address::text, '@', 2)) STORED,
    PRIMARY KEY (reseller_id, address),
    FOREIGN KEY (reseller_id, customer_id, domain)
        REFERENCES directory.domains (reseller_id, customer_id, name) ON DELETE CASCADE DEFERRABLE,
    FOREIGN KEY (reseller_id, customer_id, user_id)
        REFERENCES directory.users (reseller_id, customer_id, user_id) ON DELETE CASCADE DEFERRABLE,
    FOREIGN KEY (reseller_id, customer_id, group_id)
        REFERENCES directory.groups (reseller_id, customer_id, group_id) ON DELETE CASCADE DEFERRABLE,
    FOREIGN KEY (reseller_id, customer_id, resource_id)
        REFERENCES directory.resources (reseller_id, customer_id, resource_id) ON DELETE CASCADE DEFERRABLE,
    CONSTRAINT addresses_owner CHECK (num_nonnulls(user_id, group_id, resource_id) = 1
        AND CASE kind WHEN 'group' THEN group_id IS NOT NULL
                      WHEN 'resource' THEN resource_id IS NOT NULL
                      ELSE user_id IS NOT NULL END),
    CONSTRAINT addresses_catch_all CHECK ((kind = 'catch_all') = (address LIKE '@%'))
);
CREATE INDEX addresses_aliases ON directory.addresses (reseller_id, customer_id) WHERE kind = 'alias';
CREATE INDEX addresses_user ON directory.addresses (reseller_id, customer_id, user_id);
CREATE INDEX addresses_group ON directory.addresses (reseller_id, customer_id, group_id) WHERE group_id IS NOT NULL;
CREATE INDEX addresses_resource ON directory.addresses (reseller_id, customer_id, resource_id) WHERE resource_id IS NOT NULL;

CREATE TABLE directory.forwards (
    reseller_id uuid NOT NULL,
    user_id     uuid NOT NULL,
    target      directory.any_address NOT NULL,
    customer_id uuid NOT NULL,
    PRIMARY KEY (reseller_id, user_id, target),
    FOREIGN KEY (reseller_id, customer_id, user_id)
        REFERENCES directory.users (reseller_id, customer_id, user_id) ON DELETE CASCADE DEFERRABLE
);

-- Internal numbers at a customer. What a number does is the exchange's business (settings).
CREATE TABLE directory.extensions (
    reseller_id uuid NOT NULL,
    customer_id uuid NOT NULL,
    extension   text NOT NULL CHECK (extension ~ '^[0-9]{2,6}$' AND extension <> '112'),
    user_id     uuid,
    group_id    uuid,
    settings    jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    PRIMARY KEY (reseller_id, customer_id, extension),
    FOREIGN KEY (reseller_id, customer_id) REFERENCES directory.customers ON DELETE CASCADE DEFERRABLE,
    FOREIGN KEY (reseller_id, customer_id, user_id)
        REFERENCES directory.users (reseller_id, customer_id, user_id) ON DELETE CASCADE DEFERRABLE,
    FOREIGN KEY (reseller_id, customer_id, group_id)
        REFERENCES directory.groups (reseller_id, customer_id, group_id) ON DELETE CASCADE DEFERRABLE,
    CONSTRAINT extensions_owner CHECK (num_nonnulls(user_id, group_id) <= 1)
);
CREATE INDEX extensions_user ON directory.extensions (reseller_id, customer_id, user_id) WHERE user_id IS NOT NULL;
CREATE INDEX extensions_group ON directory.extensions (reseller_id, customer_id, group_id) WHERE group_id IS NOT NULL;

-- Public telephone numbers (E.164), each at one customer of the site.
CREATE TABLE directory.numbers (
    reseller_id uuid NOT NULL,
    number      text NOT NULL UNIQUE CHECK (number ~ '^\+[1-9][0-9]{6,14}$'),
    customer_id uuid NOT NULL,
    settings    jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    PRIMARY KEY (reseller_id, number),
    FOREIGN KEY (reseller_id, customer_id) REFERENCES directory.customers ON DELETE CASCADE DEFERRABLE
);
CREATE INDEX numbers_customer ON directory.numbers (reseller_id, customer_id);

-- The limits there are. The same list as plugins/module_utils/limits.py; a test compares them.
CREATE TABLE directory.limit_names (
    name        text PRIMARY KEY,
    unit        text NOT NULL CHECK (unit IN ('count', 'bytes', 'money', 'per_hour')),
    levels      text[] NOT NULL CHECK (levels <@ ARRAY['reseller', 'customer', 'user']),
    always_hard boolean NOT NULL            -- rates and calls
);
INSERT INTO directory.limit_names (name, unit, levels, always_hard) VALUES
    ('customers', 'count', '{reseller}', false),
    ('domains', 'count', '{reseller,customer}', false),
    ('users', 'count', '{reseller,customer}', false),
    ('groups', 'count', '{reseller,customer}', false),
    ('aliases', 'count', '{reseller,customer,user}', false),
    ('mail_storage', 'bytes', '{reseller,customer,user}', false),
    ('file_storage', 'bytes', '{reseller,customer,user}', false),
    ('extensions', 'count', '{reseller,customer}', false),
    ('numbers', 'count', '{reseller,customer}', false),
    ('concurrent_calls', 'count', '{reseller,customer,user}', true),
    ('call_spend_per_day', 'money', '{reseller,customer,user}', true),
    ('mail_sent_per_hour', 'per_hour', '{reseller,customer,user}', true);

-- No row = no limit of its own at this level. max 0 = none at all.
CREATE TABLE directory.limits (
    reseller_id uuid NOT NULL REFERENCES directory.resellers ON DELETE CASCADE DEFERRABLE,
    owner_id    uuid NOT NULL,              -- the user, else the customer, else the reseller
    name        text NOT NULL REFERENCES directory.limit_names,
    customer_id uuid,
    user_id     uuid,
    max         numeric(20, 2) NOT NULL CHECK (max >= 0),
    basis       text CHECK (basis IN ('used', 'allocated')),
    enforce     text NOT NULL DEFAULT 'hard' CHECK (enforce IN ('hard', 'soft')),
    warn_at     integer[] NOT NULL DEFAULT '{}' CHECK (0 <= ALL (warn_at) AND 100 >= ALL (warn_at)),
    level       text NOT NULL GENERATED ALWAYS AS (CASE WHEN user_id IS NOT NULL THEN 'user'
        WHEN customer_id IS NOT NULL THEN 'customer' ELSE 'reseller' END) STORED,
    PRIMARY KEY (reseller_id, owner_id, name),
    FOREIGN KEY (reseller_id, customer_id) REFERENCES directory.customers ON DELETE CASCADE DEFERRABLE,
    FOREIGN KEY (reseller_id, customer_id, user_id)
        REFERENCES directory.users (reseller_id, customer_id, user_id) ON DELETE CASCADE DEFERRABLE,
    CONSTRAINT limits_owner CHECK (owner_id = coalesce(user_id, customer_id, reseller_id)
        AND (user_id IS NULL OR customer_id IS NOT NULL)),
    -- As limit_names.levels has it.
    CONSTRAINT limits_level CHECK ((customer_id IS NULL OR name <> 'customers')
        AND (user_id IS NULL OR name NOT IN ('customers', 'domains', 'users', 'groups', 'extensions', 'numbers'))),
    CONSTRAINT limits_basis CHECK (basis IS NULL OR name IN ('mail_storage', 'file_storage')),
    -- Pools of storage say what they count; a person's own storage limit is his quota.
    CONSTRAINT limits_pool_basis CHECK (name NOT IN ('mail_storage', 'file_storage') OR user_id IS NOT NULL OR basis IS NOT NULL),
    CONSTRAINT limits_whole CHECK (name = 'call_spend_per_day' OR max = trunc(max)),
    CONSTRAINT limits_always_hard CHECK (enforce = 'hard' OR NOT (
        name IN ('concurrent_calls', 'call_spend_per_day', 'mail_sent_per_hour')
        OR (user_id IS NOT NULL AND name IN ('mail_storage', 'file_storage'))))
);
CREATE INDEX limits_customer ON directory.limits (reseller_id, customer_id) WHERE customer_id IS NOT NULL;
CREATE INDEX limits_user ON directory.limits (reseller_id, customer_id, user_id) WHERE user_id IS NOT NULL;

-- What a mailbox holds now, as the mail service measured it. Measurements are not audited.
CREATE TABLE directory.mail_usage (
    reseller_id uuid NOT NULL,
    owner_id    uuid NOT NULL,              -- the user, else the resource
    customer_id uuid NOT NULL,
    user_id     uuid,
    resource_id uuid,
    bytes       bigint NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    messages    bigint NOT NULL DEFAULT 0 CHECK (messages >= 0),
    measured_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (reseller_id, owner_id),
    FOREIGN KEY (reseller_id, customer_id, user_id)
        REFERENCES directory.users (reseller_id, customer_id, user_id) ON DELETE CASCADE DEFERRABLE,
    FOREIGN KEY (reseller_id, customer_id, resource_id)
        REFERENCES directory.resources (reseller_id, customer_id, resource_id) ON DELETE CASCADE DEFERRABLE,
    CONSTRAINT mail_usage_owner CHECK (owner_id = coalesce(user_id, resource_id) AND num_nonnulls(user_id, resource_id) = 1)
);
CREATE INDEX mail_usage_owner ON directory.mail_usage (reseller_id, customer_id, user_id);

-- The sum of mail_usage per customer, kept by trigger in the transaction that changes it: with every mail the pools above
-- a mailbox are asked for, and adding up twenty thousand mailboxes each time would cost more than the mail.
CREATE TABLE directory.mail_totals (
    reseller_id uuid NOT NULL,
    customer_id uuid NOT NULL,
    bytes       bigint NOT NULL,
    messages    bigint NOT NULL,
    PRIMARY KEY (reseller_id, customer_id),
    FOREIGN KEY (reseller_id, customer_id) REFERENCES directory.customers ON DELETE CASCADE DEFERRABLE
) WITH (fillfactor = 50);

CREATE TABLE directory.file_usage (
    reseller_id uuid NOT NULL,
    owner_id    uuid NOT NULL,              -- the user, else the group
    customer_id uuid NOT NULL,
    user_id     uuid,
    group_id    uuid,
    bytes       bigint NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    measured_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (reseller_id, owner_id),
    FOREIGN KEY (reseller_id, customer_id, user_id)
        REFERENCES directory.users (reseller_id, customer_id, user_id) ON DELETE CASCADE DEFERRABLE,
    FOREIGN KEY (reseller_id, customer_id, group_id)
        REFERENCES directory.groups (reseller_id, customer_id, group_id) ON DELETE CASCADE DEFERRABLE,
    CONSTRAINT file_usage_owner CHECK (owner_id = coalesce(user_id, group_id) AND num_nonnulls(user_id, group_id) = 1)
);
CREATE INDEX file_usage_owner ON directory.file_usage (reseller_id, customer_id, user_id);

-- When somebody last logged in with which protocol (seconds since 1970, as the mail service gives it).
CREATE TABLE directory.last_logins (
    reseller_id uuid NOT NULL,
    user_id     uuid NOT NULL,
    protocol    text NOT NULL CHECK (length(protocol) <= 20),
    customer_id uuid NOT NULL,
    last_access bigint,
    PRIMARY KEY (reseller_id, user_id, protocol),
    FOREIGN KEY (reseller_id, customer_id, user_id)
        REFERENCES directory.users (reseller_id, customer_id, user_id) ON DELETE CASCADE DEFERRABLE
);

-- Use over time, for reports and bills: one figure a day per customer and metric. Outlives the customer.
CREATE TABLE directory.usage (
    reseller_id uuid NOT NULL,
    customer_id uuid NOT NULL,
    metric      text NOT NULL CHECK (metric ~ '^[a-z][a-z0-9_]{0,62}$'),
    day         date NOT NULL,
    value       numeric NOT NULL CHECK (value >= 0),
    details     jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(details) = 'object'),
    PRIMARY KEY (reseller_id, customer_id, metric, day)
);

CREATE TABLE directory.app_passwords (
    reseller_id     uuid NOT NULL,
    app_password_id uuid NOT NULL DEFAULT gen_random_uuid(),
    customer_id     uuid NOT NULL,
    user_id         uuid NOT NULL,
    label           directory.title NOT NULL,
    hash            text NOT NULL CHECK (hash ~ '^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$'),   -- bcrypt: checked by mail.app_password()
    protocols       text[] NOT NULL CHECK (protocols <@ ARRAY['imap', 'pop3', 'smtp', 'submission', 'sieve', 'dav', 'eas', 'files']
                        AND cardinality(protocols) > 0),
    expires_at      timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (reseller_id, app_password_id),
    UNIQUE (reseller_id, user_id, label),
    FOREIGN KEY (reseller_id, customer_id, user_id)
        REFERENCES directory.users (reseller_id, customer_id, user_id) ON DELETE CASCADE DEFERRABLE
);

CREATE TABLE directory.dkim_keys (
    reseller_id uuid NOT NULL,
    domain      text NOT NULL,
    selector    directory.label NOT NULL,
    customer_id uuid NOT NULL,
    algorithm   text NOT NULL DEFAULT 'rsa' CHECK (algorithm IN ('rsa', 'ed25519')),
    private_key text NOT NULL CHECK (private_key ~ '^-----BEGIN '),
    public_key  text NOT NULL CHECK (public_key ~ '^[A-Za-z0-9+/]+=*$'),      -- as in p= of the DNS record
    state       text NOT NULL DEFAULT 'active' CHECK (state IN ('next', 'active', 'retired')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (reseller_id, domain, selector),
    FOREIGN KEY (reseller_id, customer_id, domain)
        REFERENCES directory.domains (reseller_id, customer_id, name) ON DELETE CASCADE DEFERRABLE
);
CREATE UNIQUE INDEX dkim_keys_active ON directory.dkim_keys (reseller_id, customer_id, domain, algorithm) WHERE state = 'active';

-- What was removed here and must go from the disks too: the machines read it, remove, and mark it done.
CREATE TABLE directory.removals (
    reseller_id   uuid NOT NULL,
    owner_id      uuid NOT NULL,            -- the user, resource, group or customer that is gone
    kind          text NOT NULL CHECK (kind IN ('user', 'resource', 'group', 'customer')),
    customer_id   uuid NOT NULL,
    reseller_name text NOT NULL,
    label         text NOT NULL,
    unix_id       integer,
    removed_at    timestamptz NOT NULL DEFAULT now(),
    mail_done_at  timestamptz,
    files_done_at timestamptz,
    PRIMARY KEY (reseller_id, owner_id)
);

-- Every change of the accounts: who, when, before, after. Written by trigger only; secrets are replaced.
CREATE TABLE directory.audit (
    reseller_id uuid NOT NULL,
    audit_id    bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    transaction xid8 NOT NULL DEFAULT pg_current_xact_id(),
    db_user     text NOT NULL DEFAULT session_user,
    actor       text,                       -- the person or playbook, from the setting bouwsteen.actor
    customer_id uuid,
    table_name  text NOT NULL,
    operation   text NOT NULL CHECK (operation IN ('insert', 'update', 'delete')),
    label       text NOT NULL,              -- login, address, name: what a person would search for
    key         jsonb NOT NULL,
    before      jsonb,
    after       jsonb,
    PRIMARY KEY (reseller_id, audit_id)
);
CREATE INDEX audit_label ON directory.audit (reseller_id, label, audit_id);
CREATE INDEX audit_at ON directory.audit (at);

-- The modules write accounts; claims, logins among the addresses, totals, audit and removals are written by triggers.
GRANT SELECT ON ALL TABLES IN SCHEMA directory TO directory_admin;
GRANT INSERT, UPDATE, DELETE ON directory.resellers, directory.products, directory.customers, directory.domains,
    directory.users, directory.groups, directory.group_members, directory.resources, directory.addresses,
    directory.forwards, directory.extensions, directory.numbers, directory.limits, directory.mail_usage,
    directory.file_usage, directory.last_logins, directory.usage, directory.app_passwords, directory.dkim_keys
    TO directory_admin;
GRANT INSERT, UPDATE, DELETE ON directory.claim_requests TO directory_admin;
GRANT UPDATE (mail_done_at, files_done_at), DELETE ON directory.removals TO directory_admin;
GRANT USAGE ON SEQUENCE directory.unix_ids TO directory_admin;

RESET ROLE;
