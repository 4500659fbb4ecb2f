# SPDX-License-Identifier: GPL-3.0-or-later
"""A reseller's customers are in the directory of a real machine, and nothing of theirs lies about elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

MOLECULE = Path(__file__).parents[2]
TOP = MOLECULE.parent


def play(*options: str) -> str:
    """Run a playbook of the collection against the scenario's inventory; its output and exit status."""
    command = ["ansible-playbook", f"--inventory={MOLECULE / 'inventory'}", *options]
    plain = {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
    environment = {**os.environ, "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"), **plain}
    done = subprocess.run(command, cwd=TOP, env=environment, capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}exit {done.returncode}"


def query(host: Any, statement: str) -> list[list[Any]]:
    """Rows of the directory."""
    text = f"SELECT coalesce(json_agg(q), '[]') FROM ({statement}) AS q"
    done = host.run("psql --username=postgres --no-align --tuples-only --command=%s directory", text)
    assert done.rc == 0, done.stderr
    return [list(row.values()) for row in json.loads(done.stdout)]


def test_people_are_in_the_directory(host: Any) -> None:
    found = query(
        host, "SELECT login, name, state, suspended_because FROM directory.users WHERE kind = 'person' ORDER BY 1"
    )
    assert found == [
        ["jan@bakkerij-de-graaf.example", "Jan de Graaf", "active", None],
        ["oud@bakkerij-de-graaf.example", "IJsbrand Óud", "suspended", "file"],
        ["renee@bakkerij-de-graaf.example", "Renée van 't Hof", "active", None],
    ]


def test_mail_finds_them(host: Any) -> None:
    for address, expected in {
        "info@bakkerij-de-graaf.example": ["jan@bakkerij-de-graaf.example"],
        "bakkers@bakkerij-de-graaf.example": ["jan@bakkerij-de-graaf.example", "renee@bakkerij-de-graaf.example"],
        "nobody@bakkerij-de-graaf.example": [],
    }.items():
        found = query(host, f"SELECT t FROM mail.targets('{address}', NULL) AS t ORDER BY 1")
        assert [row[0] for row in found] == expected


def test_every_domain_has_a_key(host: Any) -> None:
    assert query(host, "SELECT domain FROM mail.dkim_public ORDER BY 1") == [
        ["bakkerij-de-graaf.example"],
        ["verify.molendijk.example"],
    ]


def test_nothing_is_left_on_the_machine(host: Any) -> None:
    assert host.run("find / -xdev -name 'wanted.json*' -print").stdout == ""
    # Modules are noted in the journal; a password's hash must not be among their arguments.
    assert host.run("journalctl --quiet --grep=argon2id --output=cat").stdout == ""


def test_check_on_a_converged_site_says_nothing(host: Any) -> None:
    output = play("playbooks/resellers.yml", "--check", "--diff")
    assert re.search(r"^molendijk +: ok=\d+ +changed=0 .* failed=0", output, re.MULTILINE)
    assert "molendijk: nothing to do (3 users)" in output
    assert "created" not in output


def test_a_password_is_set_shown_once_and_right(host: Any) -> None:
    login = "jan@bakkerij-de-graaf.example"
    output = play("playbooks/password.yml", "--extra-vars", f"user={login}", "-vvv")
    (password,) = re.findall(rf"^{re.escape(login)}: (\S+)$", output, re.MULTILINE)
    assert output.count(password) == 1
    (found,) = query(host, f"SELECT password_hash FROM directory.users WHERE login = '{login}'")
    script = (
        "import argon2, sys; argon2.PasswordHasher().verify(sys.argv[1].removeprefix('{ARGON2ID}'), sys.argv[2]);"
        " print('right')"
    )
    assert host.run("/usr/bin/python3 -c %s %s %s", script, found[0], password).stdout == "right\n"
    journal = host.run("journalctl --quiet --output=cat --grep=%s", password)
    assert journal.stdout == ""


@pytest.mark.parametrize(
    ("login", "reason"),
    [
        ("nobody@bakkerij-de-graaf.example", "user nobody@bakkerij-de-graaf.example is not known"),
        ("oud@bakkerij-de-graaf.example", "user oud@bakkerij-de-graaf.example cannot log in: the user is suspended"),
    ],
)
def test_a_password_that_cannot_be_set_is_refused(host: Any, login: str, reason: str) -> None:
    output = play("playbooks/password.yml", "--extra-vars", f"user={login}")
    assert f"no password was changed:\n        - {reason}\n" in output
    assert output.endswith("exit 2")


def test_without_a_name_it_is_asked_for(host: Any) -> None:
    output = play("playbooks/password.yml")
    assert "Say whose password it is: --extra-vars user=jan@degraaf.example" in output
