# SPDX-License-Identifier: GPL-3.0-or-later
"""Mail on a machine of its own, people in a directory on another: what the services do, may and survive."""

from __future__ import annotations

import json
import smtplib
import subprocess
import time
import uuid
from pathlib import Path

import pytest
import testinfra

MOLECULE = Path(__file__).resolve().parents[2]
SSH_CONFIG = "/var/lib/bouwsteen-lab/ssh/config"
DIRECTORY, MAIL = "maildir1.molecule.example", "mail1.molecule.example"
ADDRESS = "10.213.0.65"
UNITS = ("postfix", "dovecot", "rspamd", "redis-server@rspamd", "unbound", "postfix-mta-sts-resolver")


@pytest.fixture(scope="module")
def mail():
    return testinfra.get_host(f"ssh://{MAIL}?controlpersist=60", ssh_config=SSH_CONFIG)


@pytest.fixture(scope="module")
def directory():
    return testinfra.get_host(f"ssh://{DIRECTORY}?controlpersist=60", ssh_config=SSH_CONFIG)


def wait_until(what: str, look, seconds: float = 60):
    end = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)
    return seen


def deliver(recipient: str) -> str:
    """Bring a mail from outside; returns its token."""
    token = uuid.uuid4().hex
    with smtplib.SMTP(ADDRESS, 25, local_hostname="mx.elders.example", timeout=60) as client:
        head = f"From: <iemand@bouwsteen.example>\r\nMessage-ID: <{token}@bouwsteen.example>\r\nSubject: Zeil\r\n"
        text = f"{head}\r\nGoedemorgen.\r\n"
        client.sendmail("", [recipient], text)
    return token


def copies(mail, login: str, token: str) -> int:
    mail.run("postqueue -f")  # what was put off by an earlier test need not wait for its time
    found = mail.run("doveadm search -u %s mailbox INBOX header Message-ID %s", login, token)
    return len(found.stdout.split("\n")) - 1 if found.rc == 0 else 0


def test_both_machines_are_looked_at(host) -> None:
    assert host.check_output("hostname --fqdn") in (DIRECTORY, MAIL)
    assert host.check_output("systemctl list-units --state=failed --no-legend") == ""


@pytest.mark.parametrize("unit", UNITS)
def test_services_run_and_come_back_after_a_boot(mail, unit: str) -> None:
    service = mail.service(unit)
    assert service.is_running
    assert service.is_enabled


def test_nothing_listens_for_others_but_mail_and_ssh(mail) -> None:
    sockets = mail.check_output("ss -Hltn").splitlines()
    others = {
        line.split()[3].rpartition(":")[2] for line in sockets if not line.split()[3].startswith(("127.", "[::1]"))
    }
    assert others == {"22", "25", "143", "465", "587", "993", "4190"}


def test_mail_arrives_over_a_directory_elsewhere(mail) -> None:
    token = deliver("info@zeilmakerij.example")
    wait_until("the mail", lambda: copies(mail, "fokje@zeilmakerij.example", token))
    assert copies(mail, "fokje@zeilmakerij.example", token) == 1
    assert copies(mail, "sjoerd@zeilmakerij.example", token) == 0


def test_a_stranger_is_refused_by_what_the_directory_says() -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        deliver("nobody@zeilmakerij.example")
    assert refused.value.recipients["nobody@zeilmakerij.example"][0] == 550


def test_services_log_in_with_a_certificate_and_may_do_nothing_else(mail) -> None:
    """The key is the service's own; without it, or as somebody else, there is no way in."""
    for user, path in (
        ("postfix", "/etc/postfix/directory-client.pem"),
        ("dovecot", "/etc/dovecot/directory-client.pem"),
    ):
        key = mail.file(path)
        assert (key.user, key.group, key.mode) == ("root", user, 0o640)
    plain = f"host={DIRECTORY} hostaddr=10.213.0.64 dbname=directory sslmode=verify-full"
    plain += " sslrootcert=/etc/ssl/bouwsteen/site-ca.pem"
    own = f"{plain} sslcert=/etc/postfix/directory-client.pem sslkey=/etc/postfix/directory-client.pem"
    assert mail.run("psql -XAtc 'SELECT 1' %s", f"{own} user=postfix").stdout.strip() == "1"
    assert (
        "permission denied"
        in mail.run("psql -XAtc 'SELECT login FROM directory.users' %s", f"{own} user=postfix").stderr
    )
    assert mail.run("psql -XAtc 'SELECT 1' %s", f"{own} user=postgres").rc != 0
    assert mail.run("psql -XAtc 'SELECT 1' %s", f"{plain} user=postfix").rc != 0


def test_each_customers_mail_is_his_own(mail) -> None:
    homes = mail.check_output("find /var/vmail/lemmer -mindepth 1 -maxdepth 1 -printf '%m %U\\n'").split()
    assert homes
    assert homes[0] == "700"
    assert int(homes[1]) >= 200000


def test_signing_keys_came_over_and_are_rspamds_alone(mail) -> None:
    keys = mail.check_output("find /var/lib/rspamd/dkim -name '*.key' -printf '%f %m %u\\n'").splitlines()
    assert "zeilmakerij.example.dkim1.key 600 _rspamd" in keys


def test_the_site_is_proven_from_outside() -> None:
    inventory = MOLECULE / "mail" / "inventory"
    extra = json.dumps(
        {
            "verify_address": ADDRESS,
            "verify_ca_file": str(MOLECULE.parent / ".cache" / "molecule" / "mail" / "ca" / "ca.pem"),
        }
    )
    command = ["ansible-playbook", "-i", str(inventory), str(MOLECULE.parent / "playbooks" / "verify.yml"), "-e", extra]
    done = subprocess.run(command, capture_output=True, text=True, cwd=MOLECULE.parent, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 machines and 1 resellers: nothing is wrong." in done.stdout


def test_without_the_directory_mail_waits_and_then_arrives(mail, directory) -> None:
    directory.check_output("systemctl stop postgresql@17-main")
    try:
        with smtplib.SMTP(ADDRESS, 25, local_hostname="mx.elders.example", timeout=60) as client:
            client.ehlo()
            codes = [client.mail("")[0], client.rcpt("fokje@zeilmakerij.example")[0]]
            assert 400 <= next(code for code in codes if code != 250) < 500, codes
    finally:
        directory.check_output("systemctl start postgresql@17-main")

    def again() -> str:
        try:
            return deliver("fokje@zeilmakerij.example")
        except (smtplib.SMTPException, OSError):
            return ""

    token = wait_until("mail is taken again", again)
    wait_until("the mail", lambda: copies(mail, "fokje@zeilmakerij.example", token))


def test_the_mail_of_who_is_removed_goes_from_the_disk_and_nobody_elses(mail, directory) -> None:
    """He is removed in the directory; the next run removes his mail, and a new person of that name gets a new home."""
    inventory = str(MOLECULE / "mail" / "inventory")
    resellers = ["ansible-playbook", "-i", inventory, str(MOLECULE.parent / "playbooks" / "resellers.yml")]
    token = deliver("sjoerd@zeilmakerij.example")
    wait_until("the mail", lambda: copies(mail, "sjoerd@zeilmakerij.example", token))
    home = mail.check_output("doveadm user -f home sjoerd@zeilmakerij.example")
    kept = mail.check_output("doveadm user -f home fokje@zeilmakerij.example")
    query = "DELETE FROM directory.users WHERE login = 'sjoerd@zeilmakerij.example'"
    directory.check_output("psql -XAtq -U postgres -d directory -c %s", query)
    done = subprocess.run(resellers, capture_output=True, text=True, cwd=MOLECULE.parent, check=False)
    assert done.returncode == 0, done.stdout
    assert not mail.file(home).exists
    assert mail.file(kept).exists
    assert mail.check_output("doveadm user -f home sjoerd@zeilmakerij.example") != home
    assert directory.check_output("psql -XAtq -U postgres -d directory -c 'SELECT count(*) FROM mail.removals'") == "0"
