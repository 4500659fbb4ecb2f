# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed at any moment is healed by the next one: site.yml is killed at random tasks."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
NAME, ADDRESS = "f1.bouwsteen.example", "10.213.0.20"
KILLS = 4


def run(inventory: Path, playbook: str, *arguments: str) -> str:
    """Run a playbook to its end and return what it printed; a failure shows it."""
    command = ["ansible-playbook", "-i", str(inventory), f"playbooks/{playbook}.yml", *arguments]
    done = subprocess.run(command, cwd=TOP, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def run_and_kill(inventory: Path, playbook: str, tasks: int) -> str | None:
    """Kill a run and all its children, without warning, when its task number `tasks` begins.

    Returns the name of that task; None when the run ended before it.
    """
    command = ["ansible-playbook", "-i", str(inventory), f"playbooks/{playbook}.yml"]
    process = subprocess.Popen(
        command, cwd=TOP, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    assert process.stdout is not None
    seen = 0
    output = []
    for line in process.stdout:
        output.append(line)
        if line.startswith("TASK ["):
            seen += 1
            if seen == tasks:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return line.strip(" *\n")
    assert process.wait() == 0, "".join(output)
    return None


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo's inventory with a fresh machine of another name and address in the place of its own."""
    copy = tmp_path_factory.mktemp("site") / "inventory"
    shutil.copytree(TOP / "inventories" / "demo", copy)
    for path in [*copy.rglob("*.yml")]:
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"\bm1\.bouwsteen\.example\b", NAME, text).replace("10.213.0.10", ADDRESS)
        text = text.replace("{{ inventory_dir }}/../../customers", str(TOP / "customers"))
        path.write_text(text, encoding="utf-8")
        if path.stem == "m1.bouwsteen.example":
            path.rename(path.with_name(f"{NAME}.yml"))
    run(copy, "lab")
    yield copy
    run(copy, "lab_down")


def test_a_site_survives_being_killed_half_way(inventory: Path) -> None:
    seed = int(os.environ.get("FAULTS_SEED", random.SystemRandom().randrange(10**6)))
    print(f"\nFAULTS_SEED={seed} repeats this run")
    dice = random.Random(seed)
    for number in range(KILLS):
        task = run_and_kill(inventory, "site", dice.randint(1 + 6 * number, 8 + 6 * number))
        print(f"killed at {task}" if task else "ended before the kill")
    run(inventory, "site")
    recap = run(inventory, "site").split("PLAY RECAP")[1]
    changed = re.findall(r"^(\S+)\s.*changed=(\d+)", recap, re.MULTILINE)
    assert changed
    assert [host for host, count in changed if count != "0"] == [], recap
    run(inventory, "verify")


def test_a_change_that_is_killed_half_way_is_made_by_the_next_run(inventory: Path) -> None:
    """The new size limit is in the files or not, and the running service agrees with it after the next run."""
    extra = inventory / "group_vars" / "mail" / "faults.yml"
    extra.parent.mkdir(parents=True, exist_ok=True)
    extra.write_text(yaml.safe_dump({"mail_message_size": 31 * 1024 * 1024}), encoding="utf-8")
    tasks = len(re.findall(r"^TASK \[", run(inventory, "site", "--check"), re.MULTILINE))
    for at in sorted(random.sample(range(2, tasks), 3), reverse=True):
        print(f"killed at {run_and_kill(inventory, 'site', at)}")
    run(inventory, "site")
    with_size = subprocess.run(
        [
            "ansible",
            "-i",
            str(inventory),
            "mail",
            "-m",
            "ansible.builtin.command",
            "-a",
            "swaks --quit-after EHLO --server 127.0.0.1",
        ],
        cwd=TOP,
        text=True,
        capture_output=True,
        check=False,
    ).stdout
    assert f"SIZE {31 * 1024 * 1024}" in with_size, with_size
