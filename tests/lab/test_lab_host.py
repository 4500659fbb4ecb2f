# SPDX-License-Identifier: GPL-3.0-or-later
"""A fresh Debian host with systemd carries the lab, also after it was rebooted, and gets rid of it.

The host is itself a machine of the lab: a lab in the lab, with a network of its own.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]
SSH_CONFIG = "/var/lib/bouwsteen-lab/ssh/config"
# What a Debian host brings along, without what the lab has to install.
PACKAGES = ["kmod"]
INNER = {
    "lab_bridge_address": "10.214.0.1/24",
    "lab_bridge_address6": "fd00:b6::1/64",
    "lab_machines": [{"name": "n1.labtest.example", "address": "10.214.0.10", "memory": "1G"}],
}


def locally(playbook: str, variables: dict[str, Any]) -> None:
    done = subprocess.run(
        ["ansible-playbook", f"playbooks/{playbook}.yml", "--extra-vars", json.dumps(variables)],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Host:
    """The fresh host."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, script: str) -> str:
        done = subprocess.run(
            ["ssh", "-n", "-F", SSH_CONFIG, self.name, script], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def play(self, playbook: str, **variables: Any) -> tuple[int, str]:
        """Run a playbook of the lab on the host; number of changes and output."""
        given = shlex.quote(json.dumps({**INNER, **variables}))
        said = self.run(
            f"cd {TOP} && ANSIBLE_CONFIG={TOP}/ansible.cfg {TOP}/.venv/bin/ansible-playbook --diff"
            f" playbooks/{playbook}.yml --extra-vars {given} 2>&1"
        )
        return int(re.findall(r"changed=(\d+)", said)[0]), said

    def looks(self) -> dict[str, str]:
        """What of the host the lab may touch."""
        return {
            "links": self.run("ip -br link | cut -d' ' -f1 | cut -d@ -f1"),
            "tables": self.run("nft list tables"),
            "units": self.run("systemctl list-units --all --plain --no-legend 'bouwsteen*'"),
            "forwarding": self.run("cat /proc/sys/net/ipv4/ip_forward"),
            "inotify": self.run("cat /proc/sys/fs/inotify/max_user_instances"),
            "listening": self.run("ss -Hltun | awk '{print $1, $5}' | grep -v '%' | sort"),
            "files": self.run("ls -A /var/lib/bouwsteen-lab"),
        }


@pytest.fixture(scope="module", params=[("12", "bookworm", "10.213.0.205"), ("13", "trixie", "10.213.0.206")])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A fresh host that sees this checkout and its Python, and has a directory on a disk for its lab."""
    number, suite, address = request.param
    disk = tmp_path_factory.mktemp("disk")
    python = Path(sys.base_prefix).resolve()
    outside = ["--capability=all", f"--bind={disk}:/var/lib/bouwsteen-lab", f"--bind-ro={TOP}"]
    if not python.is_relative_to("/usr"):
        outside.append(f"--bind-ro={python}")
    machine = {
        "name": f"fresh{number}.labtest.example",
        "address": address,
        "image": f"debian{number}",
        "options": outside,
    }
    locally("lab_down", {"lab_machines": [machine]})
    image = {"name": f"debian{number}", "suite": suite, "packages": PACKAGES}
    locally("lab", {"lab_machines": [machine], "lab_images": [image]})
    fresh = Host(machine["name"])
    # The lab may not count on it; Ansible brings it along.
    fresh.run("apt-get -qq purge python3-apt >/dev/null 2>&1; rm -rf /var/lib/apt/lists/*")
    yield fresh
    locally("lab_down", {"lab_machines": [machine]})


def inner(host: Host, script: str) -> str:
    return host.run(f"ssh -n -F {SSH_CONFIG} n1.labtest.example {shlex.quote(script)}")


def test_a_fresh_host_carries_the_lab_and_is_rid_of_it(host):
    before = host.looks()
    began = time.monotonic()
    count, _said = host.play("lab")
    print(f"\n{host.name}: lab from nothing in {time.monotonic() - began:.0f} s")
    assert count > 0
    assert inner(host, "systemctl list-units --failed --plain --no-legend") == ""
    assert "bouwsteen-lab-bouwsteen0-n1-" in host.looks()["units"]
    assert host.run("systemctl show -P MemoryMax 'bouwsteen-lab-bouwsteen0-n1-*'").strip() == str(1024**3)
    # Nothing that was installed listens, and nothing but the lab itself does.
    new = set(host.looks()["listening"].splitlines()) - set(before["listening"].splitlines())
    assert {line.split()[1].rpartition(":")[0] for line in new} == {"10.214.0.1", "[fd00:b6::1]"}
    assert host.play("lab")[0] == 0

    inner(host, "echo kept > /root/kept; sync")
    host.run("systemctl kill --signal=KILL 'bouwsteen-lab-bouwsteen0-n1-*'")
    assert "+n1.labtest.example started" in host.play("lab")[1]
    assert inner(host, "cat /root/kept") == "kept\n"

    boot = host.run("journalctl --list-boots --quiet | wc -l")
    subprocess.run(["ssh", "-n", "-F", SSH_CONFIG, host.name, "systemctl reboot"], check=False, capture_output=True)
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(
            ["ssh", "-n", "-F", SSH_CONFIG, host.name, "journalctl --list-boots --quiet | wc -l"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0 and int(done.stdout) == int(boot) + 1:
            break
        assert time.monotonic() < deadline, done
    assert host.looks()["links"] == before["links"]
    healed = host.play("lab")[1]
    assert "+bridge bouwsteen0 made" in healed
    assert "+n1.labtest.example started" in healed
    assert "image" not in "".join(re.findall(r"^\+(.*)$", healed, re.MULTILINE))
    assert inner(host, "cat /root/kept") == "kept\n"

    assert host.play("lab_down", lab_everything=True)[0] == 1
    assert host.looks() == before
    assert host.play("lab_down", lab_everything=True)[0] == 0
