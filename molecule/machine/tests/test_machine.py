# SPDX-License-Identifier: GPL-3.0-or-later
"""The baseline as somebody sees it who looks at the machine, and who tries to get in."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[1]
TOP = HERE.parents[1]
INVENTORY = TOP / "molecule" / "inventory"


def play(playbook: str, *words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run a playbook of this scenario."""
    command = [
        "ansible-playbook",
        f"--inventory={INVENTORY}",
        str(HERE / playbook),
        f"--extra-vars={json.dumps(variables)}",
    ]
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
    }
    return subprocess.run([*command, *words], capture_output=True, text=True, env=environment, cwd=TOP, check=False)


def changed(result: subprocess.CompletedProcess[str]) -> int:
    assert result.returncode == 0, result.stdout + result.stderr
    return int(re.search(r"changed=(\d+)", result.stdout)[1])


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.1)


def opens(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1.5):
            return True
    except OSError:
        return False


@pytest.fixture
def addresses(host: Any) -> list[str]:
    """The machine's addresses as the control node reaches them, IPv4 and IPv6."""
    own = host.interface("host0").addresses
    found = [address for address in own if address.startswith(("10.213.", "fd00:b5::"))]
    assert len(found) == 2, own
    return found


# ------------------------------------------------------------------------------------------------------- the whole


def test_a_dry_run_on_a_machine_that_is_as_it_should_be_says_nothing() -> None:
    result = play("converge.yml", "--check", "--diff")
    assert changed(result) == 0
    assert "+++" not in result.stdout


def test_nothing_has_failed(host: Any) -> None:
    assert host.run("systemctl --failed --no-legend").stdout == ""
    assert host.run("systemctl is-system-running").stdout.strip() == "running"


def test_it_says_whose_it_is(host: Any) -> None:
    marker = json.loads(host.file("/etc/bouwsteen/machine.json").content_string)
    assert marker["name"] == "machine1.molecule.example"
    assert marker["managed_by"] == "Bouwsteen"
    assert "what is changed here by hand is undone" in host.file("/etc/motd").content_string


def test_its_name(host: Any) -> None:
    assert host.check_output("hostname --fqdn") == "machine1.molecule.example"
    assert host.check_output("hostname --short") == "machine1"
    assert host.file("/etc/hostname").content_string == "machine1.molecule.example\n"


def test_another_release_is_refused_before_anything_is_touched() -> None:
    result = play(
        "refused.yml",
        distribution={"distribution": "Debian", "distribution_version": "12.9", "distribution_major_version": "12"},
    )
    assert result.returncode != 0
    assert "this machine runs Debian 12.9; the product is made for Debian 13 (trixie)" in result.stdout + result.stderr
    assert "Say where packages come from" not in result.stdout


def test_a_misspelt_variable_is_refused() -> None:
    result = play("converge.yml", machine_ssh_prot=22)
    assert result.returncode != 0
    assert "role machine does not know machine_ssh_prot" in result.stdout + result.stderr


# -------------------------------------------------------------------------------------------------------- packages


def test_sources_are_debians_with_security_and_keyring(host: Any) -> None:
    text = host.file("/etc/apt/sources.list.d/debian.sources").content_string
    assert "Suites: trixie trixie-updates\n" in text
    assert "Suites: trixie-security\n" in text
    assert text.count("Signed-By: /usr/share/keyrings/debian-archive-keyring") == 2
    assert host.run("grep --count ^deb /etc/apt/sources.list").stdout.strip() in {"", "0"}
    uris = set(re.findall(r"URIs: (\S+)", text))
    assert len(uris) == 2
    assert all(
        uri in host.check_output("apt-get indextargets --format '$(REPO_URI)'").replace("/\n", "\n") for uri in uris
    )


def test_a_floor_that_the_sources_cannot_meet_is_an_error_with_all_it_needs() -> None:
    result = play("converge.yml", machine_package_floors=[{"name": "openssh-server", "version": "1:99.0-1"}])
    assert result.returncode != 0
    said = result.stdout + result.stderr
    assert "package openssh-server: at least 1:99.0-1 is wanted, the package sources have 1:10." in said
    assert "installed is 1:10." in said


def test_a_package_below_its_floor_is_upgraded_and_one_that_is_not_installed_is_not(host: Any) -> None:
    assert not host.package("hello").is_installed
    floors = [{"name": "hello", "version": "1.0"}]
    result = play("converge.yml", "--check", machine_package_floors=floors)
    assert "hello is not installed" not in result.stdout


def test_services_of_new_packages_wait_for_their_configuration(host: Any) -> None:
    result = play("packages.yml", names=["redis-server"], absent=[])
    assert changed(result) == 1
    try:
        assert host.package("redis-server").is_installed
        assert not host.service("redis-server").is_running
        assert changed(play("packages.yml", names=["redis-server"], absent=[])) == 0
    finally:
        assert changed(play("packages.yml", names=[], absent=["redis-server"])) == 1
    assert not host.package("redis-server").is_installed


def test_an_installation_that_was_killed_half_way_is_finished(host: Any) -> None:
    host.check_output("cd /tmp && apt-get download --quiet hello && dpkg --unpack hello_*.deb && rm hello_*.deb")
    assert host.check_output("dpkg-query --show --showformat='${db:Status-Status}' hello") == "unpacked"
    try:
        assert changed(play("packages.yml", names=["hello"], absent=[])) == 1
        assert host.package("hello").is_installed
    finally:
        play("packages.yml", names=[], absent=["hello"])
    assert not host.package("hello").is_installed


def test_nightly_upgrades_take_security_updates_and_spare_what_people_use(host: Any) -> None:
    result = host.run("unattended-upgrade --dry-run --debug")
    assert result.rc == 0, result.stdout
    said = result.stdout + result.stderr
    origins = re.search(r"Allowed origins are: (.*)", said)[1]
    security = "label=Debian-Security"
    assert origins == f"origin=Debian,codename=trixie,{security}, origin=Debian,codename=trixie-security,{security}"
    held = re.search(r"Initial blacklist: (.*)", said)[1]
    for name in ("postgresql", "dovecot", "postfix", "kamailio", "patroni", "etcd"):
        assert f"^{name}" in held
    assert 'Automatic-Reboot "false"' in host.check_output("apt-config dump Unattended-Upgrade::Automatic-Reboot")
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        assert host.service(timer).is_running
        assert host.service(timer).is_enabled


def test_needrestart_restarts_nothing_by_itself(host: Any) -> None:
    script = (
        'our %nrconf; do "/etc/needrestart/conf.d/bouwsteen.conf" or die; print "$nrconf{restart}\\n";'
        ' for (keys %{$nrconf{override_rc}}) { print "postfix is held\\n" if "postfix.service" =~ $_ }'
    )
    assert host.check_output("perl -e %s", script) == "l\npostfix is held"


# ---------------------------------------------------------------------------------------------------- ssh, firewall


def test_ssh_takes_keys_only(host: Any) -> None:
    effective = dict(
        line.split(" ", 1)
        for line in host.check_output("sshd -T -C user=root,host=x,addr=192.0.2.1").splitlines()
        if " " in line
    )
    expected = {
        "passwordauthentication": "no", "kbdinteractiveauthentication": "no", "permitrootlogin": "without-password",
        "permitemptypasswords": "no", "authenticationmethods": "publickey",
        "x11forwarding": "no", "allowagentforwarding": "no",
        "allowtcpforwarding": "local", "permittunnel": "no", "usedns": "no", "logingracetime": "30",
        "persourcepenaltyexemptlist": "10.213.0.1",
    }  # fmt: skip
    assert {name: effective[name] for name in expected} == expected


def test_a_drop_in_of_a_cloud_image_cannot_bring_passwords_back(host: Any) -> None:
    host.check_output("printf 'PasswordAuthentication yes\\n' > /etc/ssh/sshd_config.d/50-cloud-init.conf")
    try:
        assert "\npasswordauthentication no\n" in host.check_output("sshd -T")
    finally:
        host.check_output("rm /etc/ssh/sshd_config.d/50-cloud-init.conf")


def test_the_server_offers_no_password(addresses: list[str]) -> None:
    words = [
        "ssh",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "PreferredAuthentications=none",
        "-o",
        "BatchMode=yes",
    ]
    result = subprocess.run([*words, f"root@{addresses[0]}", "true"], capture_output=True, text=True, check=False)
    assert "Permission denied (publickey)." in result.stderr


def test_the_control_node_is_not_shut_out_by_many_failures(host: Any, addresses: list[str]) -> None:
    """sshd's penalties (PerSourcePenalties) would do it after a handful of these."""
    for _ in range(15):
        with socket.create_connection((addresses[0], 22), timeout=3) as connection:
            assert connection.recv(64).startswith(b"SSH-2.0-")
            connection.sendall(b"SSH-2.0-nobody\r\n")
    with socket.create_connection((addresses[0], 22), timeout=3) as connection:
        assert connection.recv(64).startswith(b"SSH-2.0-")


def test_only_ssh_can_be_reached_from_outside(host: Any, addresses: list[str]) -> None:
    listening = {
        int(port)
        for port in re.findall(r"(?:\*|\[::\]|0\.0\.0\.0|10\.\S+|\[fd00\S+):(\d+) ", host.check_output("ss -Hlnut"))
    }
    assert listening == {22}
    unit = "listener-of-a-test"
    host.check_output(f"systemd-run --unit={unit} --collect python3 -m http.server --bind :: 8099")
    try:
        inside = "import socket; socket.create_connection(('::1', 8099), 1)"
        until(lambda: host.run("python3 -c %s", inside).rc == 0)
        for address in addresses:
            assert opens(address, 22)
            assert not opens(address, 8099), f"{address}: a port that nobody published answers"
    finally:
        host.check_output(f"systemctl stop {unit}")


def answers_ping(address: str) -> bool:
    """ICMP echo (RFC 792, RFC 4443), since the control node need not have a ping command."""
    v6 = ":" in address
    family, protocol = (
        (socket.AF_INET6, socket.getprotobyname("ipv6-icmp")) if v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    )
    body = b"\0\x2a\0\x01bouwsteen!"
    head = bytes([128 if v6 else 8, 0])
    words = struct.unpack(f"!{(len(head) + 2 + len(body)) // 2}H", head + b"\0\0" + body)
    total = sum(words)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.settimeout(2)
        raw.sendto(head + struct.pack("!H", checksum) + body, (address, 0))
        end = time.monotonic() + 2
        while time.monotonic() < end:
            try:
                answer = raw.recv(256)
            except TimeoutError:
                return False
            if answer[0 if v6 else 20] == (129 if v6 else 0) and answer.endswith(b"bouwsteen!"):
                return True
    return False


def test_the_machine_answers_ping_in_both_families(addresses: list[str]) -> None:
    for address in addresses:
        assert answers_ping(address)


def test_the_firewall_denies_by_default(host: Any) -> None:
    rules = json.loads(host.check_output("nft --json list ruleset"))["nftables"]
    chains = {
        item["chain"]["name"]: item["chain"]["policy"]
        for item in rules
        if "chain" in item and item["chain"]["table"] == "filter"
    }
    assert chains == {"input": "drop", "forward": "drop"}
    assert {item["table"]["family"] for item in rules if "table" in item} == {"inet"}


# ------------------------------------------------------------------------------------------- time, journal, kernel


def test_time_zone_and_locales(host: Any) -> None:
    assert host.check_output("date +%Z") in {"CET", "CEST"}
    have = host.check_output("locale -a").splitlines()
    assert {"en_US.utf8", "nl_NL.utf8"} <= set(have)
    assert host.check_output("systemd-run --quiet --pipe --wait sh -c 'echo $LANG'") == "en_US.UTF-8"


def test_the_clock_belongs_to_the_host_of_a_container_and_the_unit_says_so(host: Any) -> None:
    assert host.service("systemd-timesyncd").is_enabled
    shown = host.check_output("systemctl show systemd-timesyncd --property=ActiveState,ConditionResult")
    assert sorted(shown.splitlines()) == ["ActiveState=inactive", "ConditionResult=no"]
    result = play("converge.yml", "-v")
    assert "a condition in its unit says that this machine does not need it" in result.stdout


def test_the_journal_stays_and_forgets(host: Any) -> None:
    assert host.run("ls -d /var/log/journal/*").rc == 0
    said = host.check_output("systemd-analyze cat-config systemd/journald.conf")
    for line in ("SystemMaxUse=2G", "MaxRetentionSec=30day", "Storage=persistent"):
        assert f"\n{line}\n" in said


def test_there_are_no_core_dumps(host: Any) -> None:
    said = host.check_output("systemd-run --quiet --pipe --wait sh -c 'ulimit -Hc'")
    assert said == "0"
    assert host.check_output("systemctl show --property=DefaultLimitCORE") == "DefaultLimitCORE=0"


def test_kernel_settings_count_or_are_named(host: Any) -> None:
    assert host.sysctl("net.ipv4.conf.all.accept_redirects") == 0
    assert host.sysctl("net.ipv4.tcp_max_syn_backlog") == 4096
    result = play("converge.yml")
    assert "fs.inotify.max_user_instances" in result.stdout
    assert "belongs to the host of this container" in result.stdout


# ----------------------------------------------------------------------------------------------- other variables


def test_every_variable_does_what_it_says(host: Any, addresses: list[str]) -> None:
    """The baseline with everything changed, twice, and back again."""
    other = {
        "machine_site": "A site",
        "machine_addresses": addresses,
        "machine_packages": ["hello"],
        "machine_upgrades": False,
        "machine_timezone": "Europe/London",
        "machine_locales": ["en_GB.UTF-8 UTF-8"],
        "machine_locale": "en_GB.UTF-8",
        "machine_time_servers": ["time1.example", "time2.example"],
        "machine_ssh_sources": ["10.213.0.0/24", "fd00:b5::/64"],
        "machine_ssh_control_addresses": ["10.213.0.0/24"],
        "machine_ssh_users": ["root@10.213.0.0/24", "root@fd00:b5::/64"],
        "machine_firewall_input": ["udp dport 9999 accept"],
        "machine_journal_size": "1G",
        "machine_journal_days": 7,
        "machine_kernel_settings": [{"name": "net.ipv4.tcp_max_syn_backlog", "value": "8192"}],
    }
    try:
        dry = play("converge.yml", "--check", "--diff", **other)
        assert changed(dry) == 2, "packages and configuration"
        assert "would disable apt-daily-upgrade.timer: it is enabled" in dry.stdout
        assert changed(play("converge.yml", **other)) == 2
        assert changed(play("converge.yml", **other)) == 0
        assert host.package("hello").is_installed
        assert not host.service("apt-daily-upgrade.timer").is_running
        assert host.check_output("date +%Z") in {"GMT", "BST"}
        assert "en_GB.utf8" in host.check_output("locale -a")
        assert sorted(
            re.findall(r"(\S+) machine1.molecule.example machine1", host.file("/etc/hosts").content_string)
        ) == sorted(addresses)
        assert "NTP=time1.example time2.example" in host.check_output(
            "systemd-analyze cat-config systemd/timesyncd.conf"
        )
        effective = host.check_output("sshd -T")
        assert "\nallowusers root@10.213.0.0/24\n" in effective
        assert "\npersourcepenaltyexemptlist 10.213.0.0/24\n" in effective
        rules = host.check_output("nft list chain inet filter input")
        assert "ip saddr 10.213.0.0/24 tcp dport 22 accept" in rules
        assert "ip6 saddr fd00:b5::/64 tcp dport 22 accept" in rules
        assert "udp dport 9999 accept" in rules
        assert "\n\t\ttcp dport 22 accept" not in rules
        assert host.sysctl("net.ipv4.tcp_max_syn_backlog") == 8192
    finally:
        assert play("converge.yml", machine_packages_absent=["hello"]).returncode == 0
    assert changed(play("converge.yml")) == 0


# --------------------------------------------------------------------------------------------- module configuration


@pytest.fixture(scope="module")
def echo() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Apply the service; at the end it is gone again."""

    def apply(*words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        return play("service.yml", *words, **variables)

    assert apply().returncode == 0
    yield apply
    result = play("service_absent.yml")
    assert result.returncode == 0, result.stdout


def answer(host: Any) -> list[str]:
    """What the service has loaded, and how often since its start."""
    code = "import socket; print(socket.create_connection(('::1', 7007), 3).recv(99).decode())"
    return host.check_output("python3 -c %s", code).split()


def starts(host: Any) -> str:
    return host.check_output("systemctl show echo --property=InvocationID --value")


def test_a_service_is_left_alone_when_nothing_changes(host: Any, echo: Any) -> None:
    assert changed(echo()) == 0
    before = (starts(host), answer(host))
    dry = echo("--check", "--diff")
    assert changed(dry) == 0
    assert "+++" not in dry.stdout
    assert (starts(host), answer(host)) == before


def test_a_template_may_include_others_of_its_role(host: Any, echo: Any) -> None:
    text = host.file("/etc/systemd/system/echo.service").content_string
    assert text.startswith("# echo.service.j2, for machine1.molecule.example\n[Unit]\n")


def test_a_run_as_a_user_who_becomes_root_does_the_same(host: Any, echo: Any) -> None:
    """Content of secrets travels in a file that belongs to that user, and is gone afterwards."""
    host.check_output(
        "useradd --create-home --shell /bin/bash engineer && install -d -m 700 -o engineer ~engineer/.ssh"
        " && install -m 600 -o engineer ~/.ssh/authorized_keys ~engineer/.ssh/"
        " && echo 'engineer ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/engineer"
    )
    try:
        result = echo("--diff", ansible_user="engineer", ansible_become=True, secret="another-s3cret")
        assert changed(result) == 1
        assert "******** (secret, updated)" in result.stdout
        assert "another-s3cret" not in result.stdout
        assert host.file("/etc/echo/secret").content_string == "password = another-s3cret\n"
        assert host.run("find /home/engineer/.ansible /root/.ansible -type f").stdout == ""
        assert changed(echo(ansible_user="engineer", ansible_become=True, secret="another-s3cret")) == 0
        refused = echo(ansible_user="engineer", ansible_become=False)
        assert "configuration needs root on the machine: set become for this play" in refused.stdout + refused.stderr
    finally:
        host.run("pkill --uid engineer; sleep 0.2; userdel --remove --force engineer; rm -f /etc/sudoers.d/engineer")
        echo()


def test_a_rule_of_a_role_opens_its_port(echo: Any, addresses: list[str]) -> None:
    for address in addresses:
        assert opens(address, 7007)


def test_a_dry_run_says_what_a_run_does_and_a_change_is_a_reload_not_a_restart(host: Any, echo: Any) -> None:
    begun = starts(host)
    dry = echo("--check", "--diff", value="two")
    assert changed(dry) == 1
    assert "would reload echo.service: /etc/echo/echo.conf and /etc/echo/echo.sum would change" in dry.stdout
    assert answer(host)[0] == "one"
    wet = echo("--diff", value="two")
    assert changed(wet) == 1
    assert "-value = one\n+value = two" in wet.stdout
    assert "\nreload echo.service: /etc/echo/echo.conf and /etc/echo/echo.sum changed" in wet.stdout
    assert answer(host)[0] == "two"
    assert starts(host) == begun
    echo()


def test_a_change_of_the_unit_is_a_restart(host: Any, echo: Any) -> None:
    begun = starts(host)
    result = echo("--diff", environment_value="other")
    assert "daemon-reload systemd: /etc/systemd/system/echo.service changed" in result.stdout
    assert "restart echo.service: /etc/systemd/system/echo.service changed" in result.stdout
    assert starts(host) != begun
    echo()


def test_a_bad_template_is_refused_and_the_service_goes_on(host: Any, echo: Any) -> None:
    before = (starts(host), answer(host))
    for words in ((), ("--check",)):
        result = echo(*words, value="wrong")
        said = result.stdout + result.stderr
        assert result.returncode != 0
        assert "/usr/local/sbin/echo-service --check refuses the new configuration (exit status 1):" in said
        assert "/etc/echo/echo.conf: line 1: nonsense; password = ********" in said
        assert "nothing was installed; new or changed are: /etc/echo/echo.conf" in said
        assert "s3cret-of-the-test" not in said
    assert host.file("/etc/echo/echo.conf").content_string == "value = one\n"
    assert (starts(host), answer(host)) == before
    assert host.run("find /etc /usr/local /root/.ansible -name '*.bouwsteen-new' -o -name contents").stdout == ""


def test_a_run_that_was_killed_before_the_reload_is_made_good(host: Any, echo: Any) -> None:
    """The files of that run are in place, so nothing differs any more; what runs is not what should run."""
    host.check_output("printf 'value = three\\n' > /etc/echo/echo.conf")
    result = echo("--diff", value="three")
    assert changed(result) == 1
    assert "+++" not in result.stdout
    assert "run sh -c sha256sum /etc/echo/echo.conf > /etc/echo/echo.sum: /etc/echo/echo.conf changed" in result.stdout
    assert "reload echo.service: /etc/echo/echo.conf and /etc/echo/echo.sum changed" in result.stdout
    assert answer(host)[0] == "three"
    echo()


def test_a_restart_by_somebody_else_counts(host: Any, echo: Any) -> None:
    host.check_output("systemctl restart echo")
    assert changed(echo()) == 0


def test_a_reload_by_somebody_else_counts(host: Any, echo: Any) -> None:
    """As after a renewal of certificates: the timer has put new files there and reloaded the service."""
    host.check_output("printf 'other\\n' > /etc/echo/extra")
    written = time.monotonic()
    until(lambda: time.monotonic() > written + 5.5)
    host.check_output("systemctl reload echo")
    assert changed(echo()) == 0
    host.check_output("rm /etc/echo/extra")
    result = echo("--diff")
    assert "reload echo.service: /etc/echo/extra changed" in result.stdout


def test_after_a_lost_stamp_nothing_is_reloaded_for_nothing(host: Any, echo: Any) -> None:
    host.check_output("systemctl restart echo && rm /run/bouwsteen/echo.service.json")
    before = answer(host)
    assert changed(echo()) == 0
    assert answer(host) == before


def test_a_service_that_died_is_started_and_the_reason_is_told(host: Any, echo: Any) -> None:
    host.check_output("systemctl kill --signal=KILL echo")
    until(lambda: host.run("systemctl is-active echo").stdout.strip() == "failed")
    result = echo("--diff")
    assert "start echo.service: it is failed (signal)" in result.stdout
    assert answer(host)[0] == "one"


def test_a_service_that_does_not_come_up_shows_its_journal_without_secrets(host: Any, echo: Any) -> None:
    host.check_output("printf 'value = wrong\\n' > /etc/echo/echo.conf && systemctl stop echo")
    # The file is as the task wants it, so no check runs: only the service itself can say that it is nonsense.
    result = echo(value="wrong")
    said = result.stdout + result.stderr
    assert result.returncode != 0
    assert "service echo.service: start failed, it is failed (exit-code)" in said
    assert "reason for the start: not running" in said
    assert "line 1: nonsense; password = ********" in said
    assert "s3cret-of-the-test" not in said
    assert changed(echo()) == 1
    assert answer(host)[0] == "one"


def test_secrets_are_in_no_difference(echo: Any) -> None:
    result = echo("--check", "--diff", "-vvv", secret="another-s3cret")
    assert changed(result) == 1
    assert "******** (secret, updated)" in result.stdout
    assert "s3cret-of-the-test" not in result.stdout
    assert "password = another" not in result.stdout


def test_after_a_reboot_nothing_has_to_be_done(host: Any, echo: Any) -> None:
    """What a machine has loaded is forgotten with the reboot; all that started since then is up to date."""
    # In a container the kernel's boot does not change: the start of the first process does.
    begun = "systemctl show --property=UserspaceTimestamp --timestamp=us"
    before = host.check_output(begun)
    host.run("systemctl reboot")

    def back() -> bool:
        try:
            result = host.run(begun)
        except RuntimeError:
            return False
        return result.rc == 0 and result.stdout.strip() != before

    until(back, seconds=60)
    # Waits until the boot is over, whatever came of it.
    state = host.run("systemctl is-system-running --wait").stdout.strip()
    assert state == "running", host.run(
        "systemctl --failed; systemctl list-jobs; journalctl -b -p warning --no-pager"
    ).stdout
    assert changed(play("converge.yml")) == 0
    assert changed(echo()) == 0
    assert not host.run("ls /run/bouwsteen/echo.service.json").stderr
