# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine with the directory: who may log in how, what is open, what is logged."""

from __future__ import annotations

import socket

import pytest
import testinfra

SSH_CONFIG = "/var/lib/bouwsteen-lab/ssh/config"
FIRST, SECOND = "directory1.molecule.example", "directory2.molecule.example"
CERTIFICATE = "sslcert=/etc/ssl/bouwsteen/machine/fullchain.pem sslkey=/etc/ssl/bouwsteen/machine/privkey.pem"
TLS = f"sslmode=verify-full sslrootcert=/etc/ssl/bouwsteen/site-ca.pem {CERTIFICATE}"


def sql(host, query: str, user: str = "postgres", database: str = "directory") -> str:
    """What root gets over the socket."""
    return host.check_output("psql -XAtq -v ON_ERROR_STOP=1 -U %s -d %s -c %s", user, database, query)


@pytest.fixture
def name(host) -> str:
    return host.check_output("hostname --fqdn")


@pytest.fixture(scope="module")
def first():
    return testinfra.get_host(f"ssh://{FIRST}", ssh_config=SSH_CONFIG)


@pytest.fixture(scope="module")
def second():
    return testinfra.get_host(f"ssh://{SECOND}", ssh_config=SSH_CONFIG)


def test_it_runs_and_starts_with_the_machine(host):
    unit = host.service("postgresql@17-main")
    assert unit.is_running
    assert unit.is_enabled
    assert host.check_output("systemctl is-enabled postgresql") == "enabled"
    assert sql(host, "SHOW server_version").startswith("17.")


def test_the_schema_is_the_newest(host):
    files = host.check_output("ls /usr/share/bouwsteen/directory/migrations").split()
    assert sql(host, "SELECT name FROM directory.migrations ORDER BY version").split() == files
    assert len(files) >= 4


def test_the_cluster_finds_broken_pages_and_sorts_by_itself(host):
    assert sql(host, "SHOW data_checksums") == "on"
    assert sql(host, "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'directory'") == "b|C.UTF-8"


def test_what_is_configured_is_what_runs(host, name):
    assert sql(host, "SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"
    assert sql(host, "SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL") == "0"
    assert sql(host, "SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL") == "0"
    assert sql(host, "SELECT count(*) FROM pg_ident_file_mappings WHERE error IS NOT NULL") == "0"
    expected = ("50", "128MB", "5MB", "on") if name == FIRST else ("200", None, None, "off")
    found = tuple(sql(host, f"SHOW {setting}") for setting in ("max_connections", "shared_buffers", "work_mem", "ssl"))
    assert [pair for pair in zip(expected, found, strict=True) if pair[0] not in {None, pair[1]}] == []


def test_nothing_listens_without_clients(host, name):
    listening = [line for line in host.check_output("ss -Hltn").splitlines() if ":5432 " in line]
    assert bool(listening) is (name == FIRST)
    assert host.file("/etc/nftables.d/directory.nft").exists is (name == FIRST)
    health = host.check_output("cat /etc/bouwsteen/health.d/directory.json")
    # Open to the clients alone, so verify must find it closed from elsewhere.
    assert "5432" not in health


def test_unix_users_are_their_own_role_and_nothing_else(host):
    """Services log in without a password as themselves; anybody else not at all."""
    host.check_output(
        "for name in postfix dovecot _rspamd; do id $name >/dev/null 2>&1 || useradd --system $name; done"
    )
    for user, ask in (
        ("postfix", "SELECT mail.domain('x.example', NULL) IS NULL"),
        ("dovecot", "SELECT count(*) FROM mail.quota_usage"),
        ("_rspamd", "SELECT count(*) FROM mail.dkim_keys"),
    ):
        query = f'psql -XAtq -d directory -c "{ask}"'
        assert host.run("runuser -u %s -- %s", user, "true").succeeded
        assert host.check_output("runuser -u %s -- sh -c %s", user, query) in ("t", "0")
        refused = host.run("runuser -u %s -- psql -U postgres -d directory -c 'SELECT 1'", user)
        assert 'Peer authentication failed for user "postgres"' in refused.stderr
        refused = host.run("runuser -u %s -- psql -d postgres -c 'SELECT 1'", user)
        assert "no pg_hba.conf entry" in refused.stderr
        refused = host.run(
            "runuser -u %s -- sh -c %s", user, 'psql -d directory -c "SELECT login FROM directory.users"'
        )
        assert "permission denied for schema directory" in refused.stderr
    for role in ("postgres", "postfix", "dovecot", "_rspamd", "verify", "directory_owner", "directory_admin", "nobody"):
        refused = host.run("runuser -u nobody -- psql -U %s -d directory -c 'SELECT 1'", role)
        assert refused.rc == 2, role
    for one, other in (("postfix", "dovecot"), ("dovecot", "_rspamd"), ("_rspamd", "verify")):
        assert (
            "Peer authentication failed"
            in host.run("runuser -u %s -- psql -U %s -d directory -c ''", one, other).stderr
        )


def test_no_role_has_a_password(host):
    assert sql(host, "SELECT count(*) FROM pg_authid WHERE rolpassword IS NOT NULL") == "0"


def test_no_statement_and_no_value_reaches_the_log(host):
    secret = host.check_output("openssl rand -hex 12")
    for role, query in (
        ("dovecot", f"SELECT mail.app_password('x@x.example', '{secret}', 'imap', NULL)"),
        ("dovecot", f"SELECT mail.app_password('x@x.example', '{secret}', 'imap' nonsense"),
        ("postgres", f"INSERT INTO directory.customers (reseller_id, name) VALUES (gen_random_uuid(), 'x{secret}')"),
        ("postgres", f"SET statement_timeout = '50ms'; SELECT pg_sleep(1), '{secret}'"),
    ):
        host.run("psql -Xq -U %s -d directory -c %s", role, query)
    logs = "/var/log/postgresql/postgresql-17-main.log"
    assert "canceling statement due to statement timeout" in host.check_output("tail -n 50 %s", logs)
    assert host.run("grep -r %s /var/log", secret).rc == 1
    assert secret not in host.check_output("journalctl --no-pager --since -10min")
    assert host.file(logs).mode == 0o640


def test_files_are_closed_to_others(host):
    for path in ("/etc/postgresql/17/main/pg_hba.conf", "/etc/postgresql/17/main/pg_ident.conf"):
        assert host.file(path).mode == 0o640
    assert host.file("/var/lib/postgresql/17/main").mode == 0o700


# ------------------------------------------------------------------------------------------------ other machines


def remote(host, user: str, address: str = FIRST):
    """A login from the second machine to the first, with its certificate."""
    query = "SELECT mail.domain('x.example', NULL) IS NULL, ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    return host.run("psql -XAtq %s -c %s", f"host={address} user={user} dbname=directory {TLS}", query)


def test_a_service_of_another_machine_logs_in_with_its_certificate(second):
    for family in (FIRST, f"{FIRST} hostaddr=10.213.0.45", f"{FIRST} hostaddr=fd00:b5::45"):
        assert remote(second, "postfix", address=family).stdout.strip() == "t|t|TLSv1.3"


SNAKEOIL = "sslcert=/etc/ssl/certs/ssl-cert-snakeoil.pem sslkey=/etc/ssl/private/ssl-cert-snakeoil.key"
REFUSED = [
    ("user=dovecot dbname=directory", TLS, 'no pg_hba.conf entry for host "10.213.0.46", user "dovecot"'),
    ("user=verify dbname=directory", TLS, 'no pg_hba.conf entry for host "10.213.0.46", user "verify"'),
    ("user=postgres dbname=directory", TLS, 'no pg_hba.conf entry for host "10.213.0.46", user "postgres"'),
    ("user=postfix dbname=postgres", TLS, 'no pg_hba.conf entry for host "10.213.0.46", user "postfix"'),
    ("user=postfix dbname=directory", "sslmode=disable", "no encryption"),
    ("user=postfix dbname=directory", "sslmode=require", "connection requires a valid client certificate"),
    ("user=postfix dbname=directory", f"sslmode=require {SNAKEOIL}", "unknown ca"),
]


@pytest.mark.parametrize(("who", "how", "message"), REFUSED)
def test_and_nobody_else_does(second, who, how, message):
    second.check_output("test -e /etc/ssl/certs/ssl-cert-snakeoil.pem || make-ssl-cert generate-default-snakeoil")
    refused = second.run("psql -XAtq %s -c 'SELECT 1'", f"host={FIRST} hostaddr=10.213.0.45 {who} {how}")
    assert refused.rc == 2
    assert message in refused.stderr


def test_the_firewall_lets_only_that_machine_in():
    """From the control node: dropped, not refused."""
    with pytest.raises(TimeoutError):
        socket.create_connection(("10.213.0.45", 5432), timeout=2)


def test_the_server_shows_its_own_name(second):
    wrong = remote(second, "postfix", address="10.213.0.45")
    assert wrong.rc == 2
    assert 'server certificate for "directory1.molecule.example"' in wrong.stderr
    assert 'does not match host name "10.213.0.45"' in wrong.stderr


def test_a_reload_takes_up_what_is_on_disk(first):
    """What role certificates does at a renewal: the unit can be reloaded, and runs on."""
    started = sql(first, "SELECT pg_postmaster_start_time()")
    loaded = sql(first, "SELECT pg_conf_load_time()")
    first.check_output("systemctl reload postgresql@17-main")
    assert sql(first, "SELECT pg_conf_load_time()") > loaded
    assert sql(first, "SELECT pg_postmaster_start_time()") == started
