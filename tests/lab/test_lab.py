# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab, as its users see it: a second lab beside the one that other tests use, made from nothing and removed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]
STATE = Path("/var/lib/bouwsteen-lab-test")
LAB: dict[str, Any] = {
    "lab_state_directory": str(STATE),
    "lab_bridge": "bouwsteen1",
    "lab_bridge_address": "10.214.0.1/24",
    "lab_bridge_address6": "fd00:b6::1/64",
    "lab_table": "bouwsteen_lab_test",
}
MACHINES = [
    {"name": "a.labtest.example", "address": "10.214.0.10"},
    {"name": "b.labtest.example", "address": "10.214.0.11", "memory": "1G"},
]
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")


def command(playbook: str, **variables: Any) -> list[str]:
    given = json.dumps({**LAB, **variables})
    return ["ansible-playbook", str(TOP / "playbooks" / f"{playbook}.yml"), "--diff", "--extra-vars", given]


def play(playbook: str, *, fails: bool = False, **variables: Any) -> str:
    """Run a playbook of the lab; its output, or its failure with all that it said."""
    done = subprocess.run(command(playbook, **variables), cwd=TOP, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return re.sub(r"\s+", " ", done.stdout + done.stderr) if fails else done.stdout


def changed(output: str) -> int:
    counts = re.findall(r"changed=(\d+)", output)
    assert len(counts) == 1, output
    return int(counts[0])


def on(machine: str, script: str) -> str:
    """What a command on a machine prints; the lab's own ssh configuration checks its host key."""
    done = subprocess.run(
        ["ssh", "-F", str(STATE / "ssh/config"), machine, script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{machine}: {script}\n{done.stdout}{done.stderr}"
    return done.stdout


def listing() -> dict[str, dict[str, Any]]:
    arguments = json.dumps({"state": "listed", "settings": {"state_directory": str(STATE)}})
    done = subprocess.run(
        ["ansible", "localhost", "-m", "bouwsteen.hosting.lab_machine", "-a", arguments],
        cwd=TOP,
        env={**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(done.stdout.partition("=>")[2])["machines"]
    return {row["name"]: row for row in rows}


def host_looks() -> dict[str, Any]:
    """What of the host the lab may touch."""
    links = json.loads(subprocess.run(["ip", "--json", "link"], capture_output=True, check=True).stdout)
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    mounts = Path("/proc/self/mountinfo").read_text()
    return {
        "bridges": sorted(link["ifname"] for link in links if link["ifname"] == LAB["lab_bridge"]),
        "table": LAB["lab_table"] in tables,
        "forwarding": FORWARDING.read_text(),
        "inotify": INOTIFY.read_text(),
        "mounts": mounts.count(str(STATE)),
        "processes": sorted(words for words in map(_words, Path("/proc").glob("[0-9]*")) if f"{STATE}/" in words),
        "state": STATE.exists(),
    }


def _words(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def ansible_processes(root: int) -> list[int]:
    """A playbook's processes with those of the modules it runs: its workers have sessions of their own."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, parent = int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(pid)
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        if "ansible" in _words(Path(f"/proc/{pid}")).lower():
            found.append(pid)
            queue += parents.get(pid, [])
    return found


@pytest.fixture(scope="module")
def before() -> Iterator[dict[str, Any]]:
    """The host without the test's lab, whatever an earlier run left."""
    play("lab_down", lab_everything=True)
    yield host_looks()
    play("lab_down", lab_everything=True)


@pytest.fixture(scope="module")
def made(before: dict[str, Any]) -> str:
    """Both machines, from nothing; the first attempt is killed while it builds an image."""
    process = subprocess.Popen(
        command("lab", lab_machines=MACHINES), cwd=TOP, stdout=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list((STATE / "images").glob("*/.building-*/var/lib/dpkg")):
        assert process.poll() is None, "the playbook ended before it built an image"
        assert time.monotonic() < deadline, "no image was begun"
        time.sleep(0.1)
    for pid in ansible_processes(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    # The builder dies with the module that called it.
    while any("mmdebstrap" in words and f"{STATE}/" in words for words in map(_words, Path("/proc").glob("[0-9]*"))):
        assert time.monotonic() < deadline, "the image builder outlived its playbook"
        time.sleep(0.1)
    began = time.monotonic()
    output = play("lab", lab_machines=MACHINES)
    print(f"\nlab from nothing, two images built: {time.monotonic() - began:.0f} s")
    return output


def test_a_killed_run_is_made_good_by_the_next(made):
    assert "+image services built" in made
    assert "+image machine built" in made
    assert not list(STATE.glob("images/*/.building-*"))
    assert on("a.labtest.example", "cat /etc/debian_version").startswith("13")


def test_a_second_run_changes_nothing(made):
    assert changed(play("lab", lab_machines=MACHINES)) == 0


def test_check_mode_foresees_a_new_machine(made):
    new = {"name": "c.labtest.example", "address": "10.214.0.12"}
    done = subprocess.run(
        [*command("lab", lab_machines=[*MACHINES, new]), "--check"], cwd=TOP, capture_output=True, text=True, check=True
    )
    assert "+c.labtest.example made (10.214.0.12)" in done.stdout
    assert "c.labtest.example" not in listing()


def test_the_list_shows_machines_and_whether_they_answer(made):
    assert re.search(r"a\.labtest\.example +10\.214\.0\.10 +fd00:b6::10 +running", play("lab_list"))


def test_machines_see_each_other_by_name_and_the_outside_by_their_addresses(made):
    answers = on("a.labtest.example", "getent ahosts b.labtest.example").split()
    assert {"10.214.0.11", "fd00:b6::11"} <= set(answers)
    assert on("a.labtest.example", "getent hosts 10.214.0.11").split()[1] == "b.labtest.example"
    on("b.labtest.example", "ping -c1 -W2 a.labtest.example")


def test_packages_are_fetched_once(made):
    log = STATE / "cache/log/apt-cacher.log"
    install = (
        "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends unbound-host"
        " >/dev/null 2>&1"
    )

    def fetched() -> int:
        return sum(1 for line in log.read_text().splitlines() if "|I|" in line and line.endswith(".deb"))

    on("a.labtest.example", install)
    once = fetched()
    on("b.labtest.example", install)
    assert once > 0
    assert fetched() == once


def test_records_are_published_and_signed(made):
    key = "A" * 392
    content = (
        "shop MX 10 mail.shop\nmail.shop A 10.214.0.10\n"
        f's1._domainkey.shop TXT ( "v=DKIM1; k=rsa; p={key[:240]}" "{key[240:]}" )\n'
        f"_25._tcp.mail.shop TLSA 3 1 1 {'0' * 64}\n_imaps._tcp.shop SRV 0 1 993 mail.shop\n"
        'shop CAA 0 issue "ca.example"\n'
    )
    assert changed(play("lab_dns", lab_fragments=[{"name": "shop", "content": content}])) == 1
    assert changed(play("lab_dns", lab_fragments=[{"name": "shop", "content": content}])) == 0
    on("a.labtest.example", f"cat > /root/anchor <<'EOF'\n{(STATE / 'dns/trust-anchor').read_text()}EOF")
    for name, kind, found in (
        ("shop.example", "MX", "10 mail.shop.example."),
        ("s1._domainkey.shop.example", "TXT", "v=DKIM1; k=rsa"),
        ("_25._tcp.mail.shop.example", "TLSA", "3 1 1 0000"),
        ("_imaps._tcp.shop.example", "SRV", "0 1 993 mail.shop.example."),
        ("shop.example", "CAA", "ca.example"),
        ("nothing.shop.example", "A", "not found"),
    ):
        said = on("a.labtest.example", f"unbound-host -r -f /root/anchor -v -t {kind} {name}")
        assert found in said
        assert "(secure)" in said, said
    # Without the anchor nothing is secure: the flag above is not said of everything.
    assert "(insecure)" in on("a.labtest.example", "unbound-host -r -v -t MX shop.example")


def test_a_bad_record_is_named_and_the_old_zone_stays(made):
    bad = "good A 10.214.0.20\nworse A 10.214.0.999\n"
    said = play("lab_dns", fails=True, lab_fragments=[{"name": "broken", "content": bad}])
    assert "the zone example would not load, the old one stays: broken.zone line 2: invalid IPv4 address" in said
    assert not (STATE / "dns/zone.d/broken.zone").exists()
    said = play("lab_dns", fails=True, lab_fragments=[{"name": "broken", "content": "www.shop.test. A 10.214.0.9\n"}])
    assert "www.shop.test.: not in the zone example" in said
    assert on("a.labtest.example", "getent hosts mail.shop.example").split()[0] == "10.214.0.10"


def test_a_machine_without_power_is_started_again_and_others_are_left_alone(made):
    machines = listing()
    uptime = on("b.labtest.example", "cat /proc/sys/kernel/random/boot_id; systemctl show -p UserspaceTimestamp")
    on("a.labtest.example", "echo kept > /root/kept; sync")
    Path(machines["a.labtest.example"]["group"], "cgroup.kill").write_text("1")
    deadline = time.monotonic() + 20
    while listing()["a.labtest.example"]["state"] != "stopped":
        assert time.monotonic() < deadline
    began = time.monotonic()
    output = play("lab", lab_machines=MACHINES)
    print(f"\nhealed in {time.monotonic() - began:.1f} s")
    assert re.findall(r"^\+(?!\+)(.*)$", output, re.MULTILINE) == ["a.labtest.example started"]
    assert on("a.labtest.example", "cat /root/kept") == "kept\n"
    assert (
        on("b.labtest.example", "cat /proc/sys/kernel/random/boot_id; systemctl show -p UserspaceTimestamp") == uptime
    )
    assert listing()["b.labtest.example"]["pid"] == machines["b.labtest.example"]["pid"]


def test_a_machine_can_reboot_itself(made):
    before = on("a.labtest.example", "journalctl --list-boots --quiet | wc -l")
    subprocess.run(["ssh", "-F", str(STATE / "ssh/config"), "a.labtest.example", "systemctl reboot"], check=False)
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(
            ["ssh", "-F", str(STATE / "ssh/config"), "a.labtest.example", "journalctl --list-boots --quiet | wc -l"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0 and int(done.stdout) == int(before) + 1:
            break
        assert time.monotonic() < deadline, done
    assert changed(play("lab", lab_machines=MACHINES)) == 0


def test_a_refused_machine_is_named_and_none_is_made(made):
    said = play("lab", fails=True, lab_machines=[*MACHINES, {"name": "c.labtest.example", "address": "10.214.0.11"}])
    assert "c.labtest.example: address 10.214.0.11 is also that of b.labtest.example" in said
    assert "c.labtest.example" not in listing()


def test_a_misspelt_variable_is_named(made):
    said = play("lab", fails=True, lab_machines=MACHINES, lab_bridge_adress="10.215.0.1/24")
    assert "unknown variables: lab_bridge_adress; allowed: lab_machines, lab_state," in said


def test_removing_twice_and_then_everything_leaves_the_host_as_it_was(made, before):
    assert changed(play("lab_down", lab_machines=[MACHINES[0]])) == 1
    assert list(listing()) == ["b.labtest.example"]
    assert changed(play("lab_down", lab_machines=[MACHINES[0]])) == 0
    # Made again from what is cached: seconds.
    began = time.monotonic()
    play("lab", lab_machines=MACHINES)
    print(f"\none machine, made and booted: {time.monotonic() - began:.1f} s")
    assert changed(play("lab_down", lab_everything=True)) == 1
    assert host_looks() == before
    assert changed(play("lab_down", lab_everything=True)) == 0
