# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed at any moment is healed by the next one: site.yml is killed at random tasks."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import smtplib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
NAME, ADDRESS = "f1.bouwsteen.example", "10.213.0.21"
KILLS = 3


def run(inventory: Path, playbook: str, *arguments: str) -> str:
    """Run a playbook to its end and return what it printed; a failure shows it."""
    command = ["ansible-playbook", "-i", str(inventory), f"playbooks/{playbook}.yml", *arguments]
    done = subprocess.run(command, cwd=TOP, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def kill_with_children(root: int) -> None:
    """Kill without warning a process and all below it; Ansible's workers have sessions of their own."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    queue = [root]
    while queue:
        pid = queue.pop()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        queue += children.get(pid, [])


@pytest.fixture(scope="module")
def dice() -> random.Random:
    """Where the runs are killed; the seed is printed, so that a failure can be had again."""
    seed = int(os.environ.get("FAULTS_SEED", random.SystemRandom().randrange(10**6)))
    print(f"\nFAULTS_SEED={seed} repeats this run")
    return random.Random(seed)


def run_and_kill(inventory: Path, playbook: str, tasks: int, seconds: float) -> str | None:
    """Kill a run and all its children, without warning, some `seconds` after its task number `tasks` began.

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
                time.sleep(seconds)  # somewhere inside the task
                kill_with_children(process.pid)
                process.wait()
                return line.strip(" *\n")
    assert process.wait() == 0, "".join(output)
    return None


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo's inventory with a fresh machine of another name and address in the place of its own."""
    copy = tmp_path_factory.mktemp("site") / "inventory"
    shutil.copytree(TOP / "inventories" / "demo", copy)
    for path in [*copy.rglob("*.yml")]:
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"\bm1\.bouwsteen\.example\b", NAME, text).replace("10.213.0.10", ADDRESS)
        text = text.replace("{{ inventory_dir }}/../..", str(TOP))
        path.write_text(text, encoding="utf-8")
        if path.stem == "m1.bouwsteen.example":
            path.rename(path.with_name(f"{NAME}.yml"))
    run(copy, "lab")
    yield copy
    run(copy, "lab_down")


def test_a_site_survives_being_killed_half_way(site: Path, dice: random.Random) -> None:
    for number in range(KILLS):
        task = run_and_kill(site, "site", dice.randint(1 + 6 * number, 8 + 6 * number), dice.random())
        print(f"killed at {task}" if task else "ended before the kill")
    run(site, "site")
    recap = run(site, "site").split("PLAY RECAP")[1]
    changed = re.findall(r"^(\S+)\s.*changed=(\d+)", recap, re.MULTILINE)
    assert changed
    assert [host for host, count in changed if count != "0"] == [], recap
    run(site, "verify")


def test_a_change_that_is_killed_half_way_is_made_by_the_next_run(site: Path, dice: random.Random) -> None:
    """The new size limit is in the files or not, and the running service agrees with it after the next run."""
    extra = site / "group_vars" / "mail" / "faults.yml"
    extra.parent.mkdir(parents=True, exist_ok=True)
    extra.write_text(yaml.safe_dump({"mail_message_size_mib": 31}), encoding="utf-8")
    tasks = len(re.findall(r"^TASK \[", run(site, "site", "--check"), re.MULTILINE))
    for at in sorted(dice.sample(range(2, tasks), 2), reverse=True):
        print(f"killed at {run_and_kill(site, 'site', at, dice.random())}")
    run(site, "site")
    with smtplib.SMTP(ADDRESS, 25, timeout=60) as client:
        client.ehlo()
        assert client.esmtp_features["size"] == str(31 * 1024 * 1024)
