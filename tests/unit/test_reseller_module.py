# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules as playbooks use them: Ansible, files of a reseller, a real PostgreSQL; what an operator reads."""

from __future__ import annotations

import getpass
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONTRACT: dict[str, Any] = {
    "reseller_title": "Noorder ICT",
    "reseller_engineer": "beheer@noorderict.example",
    "reseller_domain": "noorderict.example",
    "reseller_limits": {"users": {"max": 20}},
}
CUSTOMER = """
customer: bakkerij-de-graaf
title: Bakkerij De Graaf
domains: [degraaf.example]
users:
  - login: jan@degraaf.example
    name: Jan de Graaf
    mail: {aliases: [info@degraaf.example]}
  - login: eva@degraaf.example
    name: Eva van der Berg
    mail: {}
"""
HASH = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$MTIzNDU2Nzg5MDEyMzQ1Ng$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI"


class Site:
    """A site of one machine, which is this one, and two resellers."""

    def __init__(self, folder: Path, database: Any) -> None:
        self.folder = folder
        self.login = {"database": database.name, "login_host": database.server.host}
        (folder / "host_vars").mkdir()
        for name in ("noorderict", "zuidwest"):
            (folder / name).mkdir()
            self.contract(name)
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        hosts = {
            "directory": {"hosts": {"localhost": local}},
            "resellers": {"hosts": {"noorderict": {}, "zuidwest": {}}},
        }
        (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": hosts}}))

    def contract(self, name: str, **more: Any) -> None:
        """Write a reseller's contract."""
        own = {**CONTRACT, "reseller_domain": f"{name}.example", "reseller_customers": str(self.folder / name), **more}
        (self.folder / "host_vars" / f"{name}.yml").write_text(yaml.safe_dump(own))

    def customer(self, text: str = CUSTOMER, *, reseller: str = "noorderict", file: str = "klant.yml") -> None:
        """Write a customer's file."""
        (self.folder / reseller / file).write_text(text)

    def run(self, *options: str, module: str = "reseller", hosts: str = "resellers", **arguments: Any) -> str:
        """Run one task for all resellers; the output, with the exit status in the last line."""
        task = {f"bouwsteen.hosting.{module}": {**self.login, **arguments}, "delegate_to": "localhost"}
        play = [{"hosts": hosts, "gather_facts": False, "tasks": [task]}]
        (self.folder / "play.yml").write_text(yaml.safe_dump(play))
        environment = {
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "HOME": str(self.folder),
            "ANSIBLE_LOG_PATH": str(self.folder / "log"),
        }  # fmt: skip
        done = subprocess.run(
            [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "hosts.yml", "play.yml", *options],
            cwd=self.folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return f"{done.stdout}{done.stderr}exit {done.returncode}"

    def left(self) -> list[str]:
        """Files with a reseller's data that should be gone."""
        return [str(path) for path in self.folder.rglob("*") if re.search(r"wanted\.json|reseller-", path.name)]


@pytest.fixture
def site(tmp_path: Path, database: Any) -> Site:
    return Site(tmp_path, database)


type Rows = Callable[[str], list[Any]]


def recap(output: str) -> dict[str, Mapping[str, int]]:
    found = re.findall(r"^(\w+) +: ok=(\d+) +changed=(\d+) .* failed=(\d+)", output, re.MULTILINE)
    return {
        host: {"ok": int(ok), "changed": int(changed), "failed": int(failed)} for host, ok, changed, failed in found
    }


OK = {"ok": 1, "changed": 0, "failed": 0}
CHANGED = {"ok": 1, "changed": 1, "failed": 0}
FAILED = {"ok": 0, "changed": 0, "failed": 1}


def test_foretold_applied_and_nothing_left_to_do(site: Site, database: Any) -> None:
    site.customer()
    foretold = site.run("--check", "--diff", "--limit", "noorderict")
    assert recap(foretold) == {"noorderict": CHANGED}
    assert database.value("SELECT count(*) FROM directory.resellers") == 0
    applied = site.run("--diff", "--limit", "noorderict")
    assert recap(applied) == {"noorderict": CHANGED}
    expected = "users jan@degraaf.example (customer bakkerij-de-graaf): created\n+  name: Jan de Graaf\n"
    assert expected in foretold
    assert expected in applied
    assert (
        "\nnoorderict: reseller 1 created; limits 1 created; customers 1 created; domains 1 created; users 2" in applied
    )
    again = site.run("--diff", "--limit", "noorderict")
    assert recap(again) == {"noorderict": OK}
    assert "noorderict: nothing to do (2 users)\n" in again
    assert database.rows("SELECT DISTINCT actor FROM directory.audit") == [
        (f"reseller noorderict, by {getpass.getuser()} on {os.uname().nodename}",)
    ]
    assert site.left() == []


def test_secrets_are_in_no_output_and_no_file(site: Site, database: Any) -> None:
    site.customer(CUSTOMER.replace("name: Jan de Graaf", f"name: Jan de Graaf\n    password_hash: '{HASH}'"))
    output = site.run("--diff", "-vvv", "--limit", "noorderict")
    assert recap(output) == {"noorderict": CHANGED}
    assert "+  password: set\n" in output
    assert "MTIzNDU2" not in output
    assert "MTIzNDU2" not in (site.folder / "log").read_text()
    assert database.value("SELECT password_hash FROM directory.users WHERE login LIKE 'jan@%'") == HASH
    assert site.left() == []


def test_what_a_reseller_writes_is_never_a_template(site: Site, database: Any) -> None:
    evil = "{{ lookup('pipe', 'touch " + str(site.folder / "owned") + "') }}"
    site.customer(CUSTOMER.replace("Jan de Graaf", f'"{evil}"').replace("Bakkerij De Graaf", f'"{evil}"'))
    output = site.run("--diff", "-vvv", "--limit", "noorderict")
    assert recap(output) == {"noorderict": FAILED}
    assert f'users[0].name: looks like a template (found "{evil[:20]}' in output
    assert database.value("SELECT count(*) FROM directory.resellers") == 0
    assert not (site.folder / "owned").exists()


def test_one_broken_reseller_stops_nobody_else(site: Site, database: Any) -> None:
    site.customer()
    site.customer("customer: fietsen\ntitel: Fietsen\n", reseller="zuidwest")
    output = site.run()
    assert recap(output) == {"noorderict": CHANGED, "zuidwest": FAILED}
    assert output.endswith("exit 2")
    assert re.search(r"klant\.yml:2: titel: ", output)
    assert database.rows("SELECT name FROM directory.resellers") == [("noorderict",)]


def test_a_domain_that_somebody_else_holds_tells_the_record_to_set(site: Site, database: Any) -> None:
    site.customer()
    site.run("--limit", "noorderict")
    site.customer(CUSTOMER.replace("bakkerij-de-graaf", "dief"), reseller="zuidwest")
    checked = site.run("--check", "--limit", "zuidwest")
    assert "to prove control of degraaf.example: a run without --check says which TXT record\n" in checked
    output = site.run("--limit", "zuidwest")
    token = database.value("SELECT token FROM directory.claim_requests")
    assert recap(output) == {"zuidwest": FAILED}
    record = f'_bouwsteen-claim.degraaf.example. TXT "bouwsteen-claim={token}"'
    assert (
        "reseller zuidwest is refused, nothing was changed:\n"
        "        - domain degraaf.example is not available; prove control with a DNS TXT record\n"
        f"        - to prove control of degraaf.example: {record}\n"
    ) in output
    assert "noorderict" not in output
    assert database.value("SELECT count(*) FROM directory.resellers WHERE name = 'zuidwest'") == 0


def test_a_limit_below_present_use_warns_and_blocks_growth_only(site: Site) -> None:
    site.customer()
    site.run("--limit", "noorderict")
    site.contract("noorderict", reseller_limits={"users": {"max": 1}})
    output = site.run("--limit", "noorderict")
    assert recap(output) == {"noorderict": CHANGED}
    assert "limit users of reseller noorderict: max 1, in use 2: nothing more can be added" in output
    assert recap(site.run("--limit", "noorderict")) == {"noorderict": OK}
    site.customer(CUSTOMER + "  - {login: piet@degraaf.example, name: Piet, mail: {}}\n")
    assert recap(site.run("--limit", "noorderict")) == {"noorderict": FAILED}


def test_a_removal_is_confirmed_on_the_command_line(site: Site, database: Any) -> None:
    site.customer()
    site.run("--limit", "noorderict")
    site.customer(CUSTOMER.replace("    name: Eva van der Berg\n    mail: {}\n", "    state: absent\n"))
    output = site.run("--limit", "noorderict")
    assert recap(output) == {"noorderict": FAILED}
    assert (
        "user eva@degraaf.example (customer bakkerij-de-graaf) is to be removed with mailbox; to confirm:"
        " --extra-vars confirm_removal=eva@degraaf.example"
    ) in output
    argument = "{{ confirm_removal | default([]) }}"
    typed = ("--extra-vars", "confirm_removal=eva@degraaf.example")
    assert recap(site.run("--limit", "noorderict", *typed, confirm_removal=argument)) == {"noorderict": CHANGED}
    assert database.value("SELECT count(*) FROM directory.users WHERE login LIKE 'eva@%'") == 0
    assert recap(site.run("--limit", "noorderict", confirm_removal=argument)) == {"noorderict": OK}


def test_a_database_that_is_away_is_told_in_one_line(site: Site) -> None:
    site.customer()
    output = site.run("--limit", "noorderict", login_host="/nowhere")
    assert recap(output) == {"noorderict": FAILED}
    assert "cannot reach the directory: " in output
    assert "Traceback" not in output
    assert site.left() == []


def test_only_resellers_can_be_applied(site: Site) -> None:
    output = site.run(hosts="localhost")
    assert "localhost is no host of group resellers" in output


# ---------------------------------------------------------------------------------------------- password and DKIM


def test_a_password_is_shown_once_and_kept_nowhere(site: Site, database: Any) -> None:
    site.customer()
    site.run("--limit", "noorderict")
    options = {"module": "password", "hosts": "localhost", "users": ["Jan@degraaf.example"], "show": True}
    foretold = site.run("--check", "--diff", **options)
    assert recap(foretold) == {"localhost": CHANGED}
    assert database.value("SELECT password_hash FROM directory.users WHERE login LIKE 'jan@%'") is None
    output = site.run("--diff", "-vvv", **options)
    (password,) = re.findall(r"^jan@degraaf\.example: (\S+)$", output, re.MULTILINE)
    assert output.count(password) == 1
    assert password not in (site.folder / "log").read_text()
    assert "password of jan@degraaf.example: set\n" in output
    assert not any(password in path.read_text(errors="replace") for path in site.folder.rglob("*") if path.is_file())


def test_given_passwords_and_the_probe(site: Site, database: Any) -> None:
    site.customer()
    site.run("--limit", "noorderict")
    probe = "probe@verify.noorderict.example"
    given = {"jan@degraaf.example": "een wachtwoord van jan"}
    options = {"module": "password", "hosts": "localhost", "users": [probe, *given], "passwords": given}
    output = site.run("-vvv", **options, show=True)
    assert output.count("een wachtwoord van jan") == 1
    taken = site.run(module="password", hosts="localhost", users=[probe], state="absent")
    assert recap(taken) == {"localhost": CHANGED}
    assert recap(site.run(module="password", hosts="localhost", users=[probe], state="absent")) == {"localhost": OK}


def test_an_unknown_person_gets_a_clear_error(site: Site) -> None:
    output = site.run(module="password", hosts="localhost", users=["nobody@degraaf.example"], show=True)
    assert "no password was changed:\n        - user nobody@degraaf.example is not known\n" in output
    assert output.endswith("exit 2")


def test_dkim_keys_and_files(site: Site, database: Any, tmp_path: Path) -> None:
    site.customer()
    site.run("--limit", "noorderict")
    folder = tmp_path / "dkim"
    folder.mkdir()
    both = ["noorderict", "zuidwest"]
    foretold = site.run("--check", "--diff", module="dkim_keys", hosts="localhost", resellers=both)
    made = site.run("--diff", module="dkim_keys", hosts="localhost", resellers=both)
    for output in (foretold, made):
        assert recap(output) == {"localhost": CHANGED}
        assert "DKIM key of degraaf.example: created\nDKIM key of verify.noorderict.example: created\n" in output
        assert "PRIVATE" not in output
    assert recap(site.run(module="dkim_keys", hosts="localhost", resellers=both)) == {"localhost": OK}
    files = {"module": "dkim_files", "hosts": "localhost", "path": str(folder), "owner": getpass.getuser()}
    assert "degraaf.example.dkim1.key: created\n" in site.run("--check", "--diff", **files)
    assert list(folder.iterdir()) == []
    output = site.run("--diff", "-vvv", **files)
    assert "PRIVATE" not in output
    assert sorted(path.name for path in folder.iterdir()) == [
        "degraaf.example.dkim1.key", "selectors.map", "verify.noorderict.example.dkim1.key",
    ]  # fmt: skip
    assert recap(site.run("--diff", **files)) == {"localhost": OK}
    # Placed on another machine: the keys go from this one.
    site.contract("noorderict", reseller_machines={"mail": "m2"})
    database.rows('UPDATE directory.resellers SET placement = \'{"mail": "m2"}\'')
    assert recap(site.run(**files, machine="m1")) == {"localhost": CHANGED}
    assert sorted(path.name for path in folder.iterdir()) == ["selectors.map"]
    output = site.run(**{**files, "path": str(tmp_path / "none")})
    assert f"{tmp_path}/none does not exist: set up the mail machine first (playbooks/machines.yml)" in output
