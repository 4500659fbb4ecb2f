# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine of the lab is a Debian 13 that boots, has its addresses, names and packages."""

from __future__ import annotations

MACHINES = {"lab1.molecule.example": "30", "lab2.molecule.example": "31"}


def test_boots_without_a_failed_unit(host):
    assert host.run("systemctl is-system-running").stdout.strip() == "running"
    assert host.system_info.release.startswith("13")


def test_has_its_name_and_addresses(host):
    name = host.check_output("hostname --fqdn")
    number = MACHINES[name]
    assert f"10.213.0.{number}" in host.interface("host0").addresses
    assert f"fd00:b5::{number}" in host.interface("host0").addresses


def test_finds_the_other_machine_by_name_in_both_families(host):
    (other,) = set(MACHINES) - {host.check_output("hostname --fqdn")}
    number = MACHINES[other]
    answers = host.check_output(f"getent ahosts {other}").split()
    assert f"10.213.0.{number}" in answers
    assert f"fd00:b5::{number}" in answers
    assert other in host.check_output(f"getent hosts 10.213.0.{number}")
    assert host.run(f"ping -c1 -W2 fd00:b5::{number}").succeeded


def test_is_like_no_other_machine(host):
    identity = host.file("/etc/machine-id").content_string.strip()
    assert len(identity) == 32
    keys = host.file("/etc/ssh/ssh_host_ed25519_key")
    assert keys.mode == 0o600
    assert not host.file("/etc/ssh/ssh_host_rsa_key").exists


def test_gets_packages_through_the_cache(host):
    host.run_expect([0], "apt-get --quiet update")
    shown = host.check_output("apt-get --print-uris --quiet=2 --reinstall install hello")
    assert "hello_" in shown
    proxy = host.check_output("apt-config dump Acquire::http::Proxy")
    assert "10.213.0.1:3142" in proxy
