# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501 -- one message is one line, as the operator reads it
"""playbooks/check.yml as an operator runs it: what it prints, how it exits, and that it leaves machines alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ARGON2 = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c29tZXNhbHRzb21lc2FsdA$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI"


@dataclass
class Done:
    status: int
    output: str
    # Whether anything tried to log in to a machine.
    connected: bool

    @property
    def message(self) -> str:
        """The message of the failed task; Ansible repeats it in the result below."""
        return self.output.partition("fatal:")[0]


type Run = Callable[..., Done]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A copy of the demo's estate, to break."""
    for part in ("inventories/demo", "brands", "customers/noorderict", "customers/zuidwest"):
        shutil.copytree(ROOT / part, tmp_path / part)
    (tmp_path / "playbooks").mkdir()
    shutil.copy(ROOT / "playbooks/check.yml", tmp_path / "playbooks")
    return tmp_path


@pytest.fixture
def run(site: Path) -> Run:
    """Run a command of Ansible on the copy, with an ssh that only leaves a mark."""
    mark = site / "connected"
    ssh = site / "ssh"
    ssh.write_text(f"#!/bin/sh\ntouch {mark}\nexit 255\n")
    ssh.chmod(0o755)

    def start(*command: str) -> Done:
        mark.unlink(missing_ok=True)
        environment = {
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_SSH_EXECUTABLE": str(ssh),
            "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400", "PATH": f"{BIN}:{os.environ['PATH']}",
        }  # fmt: skip
        done = subprocess.run(
            command or ("ansible-playbook", "-i", "inventories/demo", "playbooks/check.yml"),
            cwd=site, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=120,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, mark.exists())

    return start


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_the_mark_shows_a_connection(run: Run) -> None:
    done = run("ansible", "-i", "inventories/demo", "machines", "-m", "ansible.builtin.ping")
    assert done.status != 0
    assert done.connected


def test_sound_estate(run: Run) -> None:
    done = run()
    assert done.status == 0, done.output
    assert "2 resellers with 4 customers, 30 users and 7 domains: nothing is wrong." in done.output
    assert "WARNING" not in done.output
    assert not done.connected


def test_all_errors_at_once_with_the_place_of_each(site: Path, run: Run) -> None:
    proof = site / "proof"
    edit(site / "inventories/demo/host_vars/zuidwest.yml", "reseller_limits_override:", "reseller_limit_override:")
    edit(site / "inventories/demo/group_vars/plan_growth.yml", "  users: {max: 500,", "  usres: {max: 500,")
    edit(site / "inventories/demo/group_vars/plan_growth.yml", "retention_days: 60", 'retention_days: "{{ 30 * -1 }}"')
    edit(
        site / "inventories/demo/hosts.yml",
        "        zuidwest:\n    plan_growth",
        "        zuidwest:\n        oost:\n    plan_growth",
    )
    bakery = site / "customers/noorderict/bakkerij-de-graaf.yml"
    edit(bakery, "title: Bakkerij De Graaf", f"title: \"{{{{ lookup('pipe', 'touch {proof}') }}}}\"")
    edit(bakery, "  users: {max: 8}", "  users: {max: 7}")
    edit(
        site / "customers/zuidwest/hooft-advocaten.yml", "  - thooft.example", "  - thooft.example\n  - degraaf.example"
    )
    done = run()
    assert done.status == 2
    assert not done.connected
    assert not proof.exists()
    neutral = (
        'domain degraaf.example is not available; prove control with a DNS TXT record (found "degraaf.example"); '
        "allowed: a domain that nobody else on this site has"
    )
    customers, variables = "customers/noorderict/bakkerij-de-graaf.yml", "inventories/demo"
    for expected in (
        "8 errors in 5 files:",
        f"{customers}:4: title: looks like a template (found \"{{{{ lookup('pipe', 'touch ",
        f"{customers}:6: domains[0]: {neutral}",
        f'{customers}:50: users[7].login: is over the limit: customer bakkerij-de-graaf has 8 users (found "piet@degraaf.example"); allowed: at most 7 (limits.users of customer bakkerij-de-graaf)',
        f"customers/zuidwest/hooft-advocaten.yml:7: domains[1]: {neutral}",
        "host_vars of oost: has no contract: no variable reseller_* is set for it; allowed: reseller_customers, reseller_domain, reseller_engineer, reseller_title",
        f"{variables}/group_vars/plan_growth.yml:4: reseller_retention_days: is too small (found -30); allowed: a whole number from 0 to 3650",
        f'{variables}/group_vars/plan_growth.yml:8: reseller_limits.usres: unknown limit; did you mean "users"? (found a mapping); allowed: aliases, ',
        f'{variables}/host_vars/zuidwest.yml:8: reseller_limit_override: unknown variable; did you mean "reseller_limits_override"? (found a mapping)',
    ):
        assert expected in done.message, done.output


def test_reseller_data_never_becomes_a_template(site: Path, run: Run) -> None:
    proof = site / "proof"
    hostile = f"{{{{ lookup('pipe', 'touch {proof}') }}}}"
    folder = site / "customers/noorderict"
    (folder / f"{hostile.replace('/', '')}.yml").write_text(f'"{hostile}": "{hostile}"\n')
    (folder / "b.yml").write_text(
        f"customer: b\ntitle: B\nusers: [{{login: \"{hostile}\", name: '{{% set a = 1 %}}'}}]\n"
    )
    (folder / "c.yml").write_text("all: {vars: {ansible_connection: local}}\n")
    done = run()
    assert done.status == 2
    assert not done.connected
    assert not list(site.glob("**/proof"))
    assert not proof.exists()
    assert done.message.count("looks like a template") == 1
    assert "all: unknown key" in done.output


def test_flood_is_cut_and_counted(site: Path, run: Run) -> None:
    users = "".join(f"  - {{login: u{number}@b.example, name: U, product: none}}\n" for number in range(300))
    (site / "customers/noorderict/b.yml").write_text(f"customer: b\ntitle: B\ndomains: [b.example]\nusers:\n{users}")
    done = run()
    assert done.status == 2
    assert "300 errors in 1 file:" in done.output
    assert done.message.count("is no product of the contract") == 200
    assert "... and 100 more" in done.output


def test_soft_limit_is_a_warning(site: Path, run: Run) -> None:
    edit(site / "inventories/demo/group_vars/plan_growth.yml", "users: {max: 500,", "users: {max: 10,")
    edit(site / "customers/noorderict/huisartsen-de-linde.yml", "users: {max: 25}", "users: {max: 10}")
    done = run()
    assert done.status == 0, done.output
    assert re.search(
        r"\[WARNING\]: inventories/demo/group_vars/plan_growth.yml:8: reseller_limits.users.max: is exceeded: reseller noorderict "
        r"has \d+ users \(found 10\)",
        done.output,
    )


def test_inventory_without_resellers_is_no_success(site: Path, run: Run) -> None:
    (site / "hosts.yml").write_text("all: {hosts: {m1.bouwsteen.example: }}\n")
    done = run("ansible-playbook", "-i", "hosts.yml", "playbooks/check.yml")
    assert done.status == 2
    assert "the inventory has no host in group resellers: there is nothing to check" in done.output


def test_one_reseller_by_himself(site: Path, run: Run) -> None:
    play = "- {hosts: localhost, gather_facts: false, tasks: [{bouwsteen.hosting.estate_check: {resellers: [%s]}}]}\n"
    (site / "playbooks/one.yml").write_text(play % "zuidwest")
    edit(site / "customers/noorderict/bakkerij-de-graaf.yml", "title:", "titel:")
    assert run("ansible-playbook", "-i", "inventories/demo", "playbooks/one.yml").status == 0
    (site / "playbooks/one.yml").write_text(play % "zuidoost")
    done = run("ansible-playbook", "-i", "inventories/demo", "playbooks/one.yml")
    assert done.status == 2
    assert "not in group resellers: zuidoost" in done.output


def test_vaulted_hash(site: Path, run: Run) -> None:
    (site / "secret").write_text("a vault's password\n")
    vaulted = run(
        "ansible-vault", "encrypt_string", "--vault-password-file", "secret", ARGON2, "--name", "password_hash"
    )
    assert vaulted.status == 0, vaulted.output
    value = vaulted.output[vaulted.output.index("password_hash") :].replace("\n", "\n    ")
    file = site / "customers/zuidwest/hooft-advocaten.yml"
    edit(file, "    name: Secretariaat\n", f"    name: Secretariaat\n    {value.rstrip()}\n")
    check = ("ansible-playbook", "-i", "inventories/demo", "playbooks/check.yml")
    done = run(*check, "--vault-password-file", "secret")
    assert done.status == 0, done.output
    done = run(*check)
    assert done.status == 2
    assert "users[4].password_hash: is vaulted, and no vault password was given" in done.output
    (site / "secret").write_text("another password\n")
    done = run(*check, "--vault-password-file", "secret")
    assert "users[4].password_hash: is vaulted, and cannot be decrypted" in done.output


@pytest.mark.parametrize("inventory", ["demo", "datacenter", "selfhosted"])
def test_example_inventories(run: Run, inventory: str) -> None:
    done = run("ansible-playbook", "-i", str(ROOT / "inventories" / inventory), str(ROOT / "playbooks/check.yml"))
    assert done.status == 0, done.output
    assert "nothing is wrong." in done.output
    assert "WARNING" not in done.output
    assert not done.connected
