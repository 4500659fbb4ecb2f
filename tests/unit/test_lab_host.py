# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's hands, on the real kernel: files, mounts, control groups and a network of their own.

Only the programs that would take minutes or need the internet are stand-ins: the image builder, systemd-nspawn (whose
stand-in listens where the machine or daemon would) and what is asked over ssh. Real machines: molecule/lab and
tests/acceptance.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import lab, lab_host
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab import LabError, Machine, Settings
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab_host import Lab

NSPAWN = r"""#!{python}
import fcntl, os, pathlib, re, signal, socket, struct, subprocess, sys, time
words = sys.argv[1:]
options = dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word and word != "--")
own = words[words.index("--") + 1:] if "--" in words else []
binds = [word.split("=", 1)[1].split(":") for word in words if word.startswith("--bind")]

def serve(address, port, banner=b""):
    listener = socket.create_server((address, port))
    while True:
        try:
            connection, _ = listener.accept()
        except InterruptedError:
            continue
        try:
            connection.sendall(banner)
        except OSError:
            pass
        connection.close()

if own and own[0] == "kzonecheck":
    text = (pathlib.Path(binds[0][0]) / own[-1].removeprefix("/lab/")).read_text()
    if "BAD" in text:
        number = next(n for n, line in enumerate(text.splitlines(), 1) if "BAD" in line)
        print(f"error: [example.] zone loader, error in zone, file '{own[-1]}', line {number} (bad record)")
        sys.exit(1)
    sys.exit(0)
if own:
    if (pathlib.Path(options["directory"]) / f"refuse-{own[0]}").exists():
        print("will not start")
        sys.exit(1)
    os.unshare(os.CLONE_NEWNS)
    port = {"dnsmasq": 53, "knotd": 5300}.get(own[0], 3142)
    serve("10.99.0.1", port)

# A machine: its group is divided, its cable appears, and something that talks like sshd answers.
root = pathlib.Path(options["directory"])
if (root / "crash").exists():
    print("kernel panic in " + options["hostname"])
    sys.exit(1)
group = "{cgroup}" + re.search(r"^0::(.*)$", pathlib.Path("/proc/self/cgroup").read_text(), re.M)[1]
supervisor = pathlib.Path(group, "supervisor")
supervisor.mkdir()
(supervisor / "cgroup.procs").write_text("0")
tap = open("/dev/net/tun", "r+b", buffering=0)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", ("vb-" + options["machine"]).encode(), 0x1002))
subprocess.run(["ip", "link", "set", "vb-" + options["machine"], "up"], check=True)
address = re.search(r"Address=([0-9.]+)", (root / "etc/systemd/network/10-host0.network").read_text())[1]
subprocess.run(["ip", "address", "replace", address + "/32", "dev", "lo"], check=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
boots = root / "boots"
boots.write_text(boots.read_text() + "x" if boots.exists() else "x")
if (root / "reboot-once").exists():
    (root / "reboot-once").unlink()
    sys.exit(133)
serve(address, 22, b"SSH-2.0-stand-in\r\n")
"""

MMDEBSTRAP = r"""#!{python}
import os, pathlib, subprocess, sys
here = pathlib.Path(sys.argv[0]).parent
suite = sys.argv.index("trixie")
target = pathlib.Path(sys.argv[suite + 1])
(target / "etc").mkdir(parents=True)
(target / "root").mkdir(mode=0o700)
(target / "var/lib/apt/lists").mkdir(parents=True)
if (here / "mirror-is-down").exists():
    print("E: Failed to fetch", file=sys.stderr)
    sys.exit(100)
(target / "etc/passwd").write_text("root:x:0:0::/root:\nknot:x:101:102::/:\napt-cacher-ng:x:103:104::/:\n")
"""

SSH = """#!/bin/sh
case $(cat "$LAB_TEST_SSH" 2>/dev/null) in
  refused) echo "Permission denied" >&2; exit 255;;
  degraded) echo degraded; echo "x.service loaded failed failed X"; exit 0;;
esac
echo running
"""

NSENTER = """#!/bin/sh
case "$*" in
  *keymgr*) echo "example. DS 4711 13 2 abcdef"; echo "example. DS 4711 13 4 abcdef";;
  *knotc*) echo "$*" >> "$LAB_TEST_KNOTC";;
esac
"""

APT_GET = r"""#!/bin/sh
echo "http://mirror.example/debian bookworm main Debian"
echo "http://mirror.example/security bookworm-security main Debian-Security"
"""


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    """A network of this test's own: nothing of it reaches the host's, and nothing stays."""
    with Path("/proc/thread-self/ns/net").open() as before:
        os.unshare(os.CLONE_NEWNET)
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            # A new network may inherit it from the host's.
            Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
            yield
        finally:
            os.setns(before.fileno(), os.CLONE_NEWNET)


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forwarding is this network's own; the other settings are the whole host's, where a lab may be at work."""
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    monkeypatch.setattr(lab_host, "KERNEL", {forwarding: lab_host.KERNEL[forwarding]})


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins, found before the real programs."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name, text in {
        "systemd-nspawn": NSPAWN,
        "mmdebstrap": MMDEBSTRAP,
        "ssh": SSH,
        "nsenter": NSENTER,
        "apt-get": APT_GET,
    }.items():
        script = text.replace("{python}", sys.executable).replace("{cgroup}", str(lab_host.control_group_root()))
        (directory / name).write_text(script)
        (directory / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.setenv("LAB_TEST_SSH", str(tmp_path / "ssh-says"))
    monkeypatch.setenv("LAB_TEST_KNOTC", str(tmp_path / "knotc-asked"))
    # Units of the host's systemd would not live in this network.
    monkeypatch.setattr(lab_host, "host_has_systemd", lambda: False)
    monkeypatch.setattr(lab_host, "READY_SECONDS", 10)
    return directory


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        state=str(tmp_path / "lab"),
        bridge=f"t{os.getpid()}",
        address="10.99.0.1/24",
        address6="fd00:99::1/64",
        table=f"lab_test_{os.getpid()}",
    )


@pytest.fixture
def make(settings: Settings, programs: Path) -> Iterator[Any]:
    """Lab objects as each run of a module makes them; whatever they made is gone afterwards."""
    yield lambda **keys: Lab(settings, **keys)
    Lab(settings).remove_everything()


IMAGE = lab.Image("machine", ("python3",))


def host_up(one: Lab) -> None:
    one.prepare()
    one.network_up()
    mirror = one.mirror()
    one.build_image(lab.Image(lab.SERVICES_IMAGE, lab.SERVICES_PACKAGES, bootable=False), mirror)
    one.services_up()
    one.build_image(IMAGE, mirror)


def machines(settings: Settings, *numbers: int) -> list[Machine]:
    return lab.parse_machines(
        [{"name": f"m{number}.test.example", "address": f"10.99.0.{number}"} for number in numbers], settings
    )


@pytest.fixture
def ready(make: Any) -> Any:
    """A host that is ready for machines."""
    host_up(make())
    return make


def changes(one: Lab) -> list[str]:
    return sorted(one.change.lines)


# --- the host


def test_a_host_is_prepared_once(make, settings):
    assert make().obstacles() == []
    first = make()
    host_up(first)
    assert changes(first) == sorted(
        [
            "address 10.99.0.1/24 on " + settings.bridge,
            "address fd00:99::1/64 on " + settings.bridge,
            f"bridge {settings.bridge} made",
            f"bridge {settings.bridge} up",
            f"nft table inet {settings.table}",
            "net.ipv4.ip_forward 1",
            "image services built",
            "daemon names started",
            "zone example written",
            "daemon authority started",
            "daemon cache started",
            "image machine built",
        ]
    )
    assert (Path(settings.state) / "dns/trust-anchor").read_text() == "example. DS 4711 13 2 abcdef\n"
    assert (first.image_tree("machine") / "var/lib/apt/lists").stat().st_mtime == 0
    again = make()
    host_up(again)
    assert changes(again) == []
    assert again.obstacles() == []


def test_check_mode_says_what_would_be_made_and_makes_nothing(make, settings):
    one = make(check_mode=True)
    one.network_up()
    one.build_image(IMAGE, one.mirror())
    one.services_up()
    one.machines_up(machines(settings, 7))
    assert changes(one) == [
        f"bridge {settings.bridge} made",
        "daemons names, authority and cache started",
        "image machine built",
        "m7.test.example made (10.99.0.7)",
    ]
    assert not Path(settings.state).exists()
    assert not lab_host.interface_exists(settings.bridge)


def test_what_the_lab_did_not_make_is_refused(make, settings):
    subprocess.run(["ip", "link", "add", settings.bridge, "type", "bridge"], check=True)
    subprocess.run(["nft", "add", "table", "inet", settings.table], check=True)
    subprocess.run(["ip", "link", "add", "other", "type", "bridge"], check=True)
    subprocess.run(["ip", "address", "add", "10.99.0.9/24", "dev", "other"], check=True)
    listener = socket.create_server(("0.0.0.0", 3142))
    try:
        found = make().obstacles()
    finally:
        listener.close()
        subprocess.run(["ip", "link", "delete", settings.bridge], check=True)
        subprocess.run(["ip", "link", "delete", "other"], check=True)
        subprocess.run(["nft", "delete", "table", "inet", settings.table], check=True)
    assert [text.split(";")[0] for text in found] == [
        "a program on this host listens on all addresses at tcp port 3142, which the lab needs on its bridge",
        f"an interface {settings.bridge} exists that the lab did not make",
        "interface other already uses 10.99.0.9/24, which overlaps the lab's 10.99.0.0/24",
        f"an nft table inet {settings.table} exists that the lab did not make",
    ]


def test_obstacles_of_other_hosts_are_named(make, monkeypatch):
    one = make()
    monkeypatch.setattr(lab_host, "kernel_offers", lambda _name: False)
    monkeypatch.setattr(lab_host, "filesystem_of", lambda _path: "overlay")
    monkeypatch.setattr(lab_host.shutil, "which", lambda name: name == "apt-get")
    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
    try:
        found = one.obstacles()
    finally:
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("0")
    assert [text.split(";")[0] for text in found] == [
        "this kernel has no overlayfs",
        f"{one.state} is on an overlay file system, above which machines cannot lay another one",
        "IPv6 is switched off on this host, and machines use it: sysctl net.ipv6.conf.all.disable_ipv6=0",
    ]
    monkeypatch.setattr(lab_host.shutil, "which", lambda _name: None)
    assert one.obstacles() == ["the lab needs a Debian host (12 or newer): no apt-get here"]
    monkeypatch.setattr(lab_host.os, "geteuid", lambda: 1000)
    assert one.obstacles() == ["the lab makes machines, so it needs root: run the playbook as root or with --become"]


def test_a_kernel_that_refuses_bridges_and_rules_is_named(make, monkeypatch):
    real = lab_host.run

    def refusing(command, **keys):
        if command[0] == "unshare" or "ruleset" in command:
            return subprocess.CompletedProcess(command, 1, "", "Operation not supported\n")
        return real(command, **keys)

    monkeypatch.setattr(lab_host, "run", refusing)
    assert make().obstacles() == [
        "this kernel makes no network bridge (Operation not supported); boot a kernel of Debian",
        "this kernel takes no nftables rules (Operation not supported); boot a kernel of Debian",
    ]


def test_missing_packages_are_found(make, monkeypatch):
    monkeypatch.setattr(lab, "HOST_PACKAGES", ("dpkg", "no-such-package"))
    assert make().missing_packages() == ["no-such-package"]


def test_a_program_that_is_missing_or_fails_is_named():
    with pytest.raises(LabError, match="no-such-program is not installed on this host; the lab's playbook installs it"):
        lab_host.run(["no-such-program"])
    with pytest.raises(LabError, match="`sh -c echo why >&2; exit 3` failed with status 3: why"):
        lab_host.run(["sh", "-c", "echo why >&2; exit 3"])


def test_a_state_directory_of_another_version_is_refused(make, settings):
    one = make()
    one.prepare()
    (one.state / "lab.json").write_text('{"format": 99}')
    with pytest.raises(
        LabError, match=r"lab.json has format 99, this version knows 1; remove the lab with the version"
    ):
        one.record()
    (one.state / "lab.json").unlink()


def test_everything_is_removed_and_the_host_is_as_before(make, settings):
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    forwarding.write_text("0")
    host_up(make())
    make().machines_up(machines(settings, 7))
    assert forwarding.read_text() == "1\n"
    rehearsal = make(check_mode=True)
    rehearsal.remove_everything()
    assert Path(settings.state).exists()
    removal = make()
    removal.remove_everything()
    assert set(changes(rehearsal)) == set(changes(removal)) - {"zone example written"}
    assert not Path(settings.state).exists()
    assert not lab_host.interface_exists(settings.bridge)
    assert settings.table not in lab_host.run(["nft", "list", "tables"]).stdout
    assert forwarding.read_text() == "0\n"
    assert not (lab_host.control_group_root() / settings.group).exists()
    again = make()
    again.remove_everything()
    assert changes(again) == []


def test_removing_machines_of_a_lab_that_is_not_there_changes_nothing(make, settings):
    one = make()
    one.machines_down(["m7.test.example"])
    assert changes(one) == []
    assert not Path(settings.state).exists()


def test_a_state_directory_with_a_disk_of_its_own_stays_mounted(make, settings):
    state = Path(settings.state)
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "lab-test", str(state)], check=True)
    try:
        make().prepare()
        make().remove_everything()
        assert state in lab_host.mount_points()
        assert list(state.iterdir()) == []
    finally:
        subprocess.run(["umount", str(state)], check=True)


def test_a_tree_with_a_mount_in_it_is_not_removed(tmp_path):
    inner = tmp_path / "tree/inner"
    inner.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "lab-test", str(inner)], check=True)
    try:
        with pytest.raises(LabError, match=f"{tmp_path}/tree is not removed: {inner} is still mounted"):
            lab_host.remove_tree(tmp_path / "tree")
    finally:
        subprocess.run(["umount", str(inner)], check=True)


# --- images


def test_a_build_that_fails_leaves_nothing_and_the_next_one_works(make, programs):
    one = make()
    one.prepare()
    (programs / "mirror-is-down").touch()
    with pytest.raises(LabError, match="Failed to fetch"):
        one.build_image(IMAGE, one.mirror())
    assert [path.name for path in (one.state / "images/machine").iterdir()] == []
    with pytest.raises(
        LabError, match="image machine is not built; declare it in lab_images and run the lab's playbook"
    ):
        one.image_tree("machine")
    (programs / "mirror-is-down").unlink()
    # What a killed build left goes first.
    (one.state / "images/machine/.building-1/etc").mkdir(parents=True)
    one.build_image(IMAGE, one.mirror())
    tree = one.image_tree("machine")
    names = {path.name for path in (one.state / "images/machine").iterdir()}
    assert names == {tree.name, tree.name + ".json", "current"}


def test_an_old_tree_goes_when_no_machine_stands_on_it(ready, settings):
    one = ready()
    old = one.image_tree("machine")
    one.machines_up(machines(settings, 7))
    changed = lab.Image("machine", ("python3", "sudo"))
    one.build_image(changed, one.mirror())
    assert old.is_dir()
    assert one.image_tree("machine") != old
    one.machines_down(["m7.test.example"])
    one.build_image(changed, one.mirror())
    assert not old.exists()


def test_mirrors_can_be_given(make):
    one = make()
    assert one.mirror("http://a.example/", "http://b.example/") == lab.Mirror("http://a.example", "http://b.example")
    assert one.mirror("http://a.example").security == "http://mirror.example/security"


# --- daemons and names


def test_a_daemon_that_died_is_started_again(ready):
    one = ready()
    record = one._process("cache")
    os.kill(int(Path(record["group"], "inner/cgroup.procs").read_text().split()[0]), 9)
    assert lab_host.wait_for(lambda: not one.running("cache"), 10)
    second = ready()
    second.services_up()
    assert changes(second) == ["daemon cache started"]


def test_a_daemon_that_does_not_start_says_why(make):
    one = make()
    one.prepare()
    one.network_up()
    one.build_image(lab.Image(lab.SERVICES_IMAGE, (), bootable=False), one.mirror())
    (one.image_tree(lab.SERVICES_IMAGE) / "refuse-dnsmasq").touch()
    with pytest.raises(LabError, match=r"the lab's daemon names did not start:\n(.*\n)?will not start"):
        one.services_up()


def test_the_zone_follows_fragments_and_machines(ready, settings, tmp_path):
    asked = tmp_path / "knotc-asked"
    zone = Path(settings.state) / "dns/zones/example.zone"
    before = asked.read_text() if asked.exists() else ""
    one = ready()
    (one.state / "dns/zone.d/x.zone").write_text("x A 10.99.0.50\n")
    one.zone_up()
    assert changes(one) == ["zone example written"]
    assert "x A 10.99.0.50" in zone.read_text()
    assert asked.read_text().count("zone-reload") == before.count("zone-reload") + 1
    again = ready()
    again.zone_up()
    assert changes(again) == []
    # A run that was killed between writing and loading is made good.
    (one.state / "run/zone-loaded").unlink()
    again.zone_up()
    assert asked.read_text().count("zone-reload") == before.count("zone-reload") + 2


def test_a_bad_fragment_is_named_and_the_old_zone_stays(ready, settings):
    zone = Path(settings.state) / "dns/zones/example.zone"
    before = zone.read_text()
    one = ready()
    wanted = {"good.zone": "g A 10.99.0.2\n", "oops.zone": "a A 10.99.0.3\nBAD\n"}
    for attempt in (one.zone_check, one.zone_up):
        with pytest.raises(LabError) as caught:
            attempt(wanted)
        assert str(caught.value) == ("the zone example would not load, the old one stays: oops.zone line 2: bad record")
    assert zone.read_text() == before
    assert not list((one.state / "dns").glob(".candidate*"))


def test_asking_a_daemon_that_does_not_run_says_so(make):
    one = make()
    one.prepare()
    with pytest.raises(LabError, match="the lab's daemon authority does not run; run the lab's playbook"):
        one.in_daemon("authority", ["true"])


# --- machines


def test_machines_are_made_left_alone_listed_and_removed(ready, settings):
    wanted = machines(settings, 7, 8)
    one = ready()
    one.machines_up(wanted)
    assert changes(one) == [
        "m7.test.example made (10.99.0.7)",
        "m7.test.example started",
        "m8.test.example made (10.99.0.8)",
        "m8.test.example started",
        "zone example written",
    ]
    state = Path(settings.state)
    assert (state / "ssh/known_hosts").read_text().count("\n") == 2
    assert (state / "ssh/id_ed25519").stat().st_mode & 0o777 == 0o600
    assert "m7.test.example. A 10.99.0.7" in (state / "dns/zones/example.zone").read_text()
    root = one.machine_directory("m7.test.example") / "root"
    assert (root / "etc/hostname").read_text() == "m7.test.example\n"
    assert (root / "etc/ssh/ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
    assert (root / "root").stat().st_mode & 0o777 == 0o700
    pids = {row["name"]: row["pid"] for row in one.listing()}

    again = ready()
    again.machines_up(wanted)
    assert changes(again) == []
    assert {row["name"]: row["pid"] for row in again.listing()} == pids
    assert {row["state"] for row in again.listing()} == {"running"}

    removal = ready()
    removal.machines_down(["m7.test.example", "never.example"])
    assert changes(removal) == ["m7.test.example removed", "zone example written"]
    assert [row["name"] for row in removal.listing()] == ["m8.test.example"]
    assert not (state / "machines/m7.test.example").exists()
    assert "m7.test.example" not in (state / "dns/zones/example.zone").read_text()
    once_more = ready()
    once_more.machines_down(["m7.test.example"])
    assert changes(once_more) == []


def test_check_mode_says_what_would_happen_to_machines(ready, settings):
    ready().machines_up(machines(settings, 7))
    ready().machines_stop(["m7.test.example"], hard=True)
    one = ready(check_mode=True)
    one.machines_up(machines(settings, 7, 8))
    assert changes(one) == ["m7.test.example started", "m8.test.example made (10.99.0.8)"]
    assert [row["state"] for row in one.listing()] == ["stopped"]
    one = ready(check_mode=True)
    one.machines_down(["m7.test.example"])
    assert changes(one) == ["m7.test.example removed"]
    assert one.machines()


@pytest.mark.parametrize("hard", [True, False])
def test_a_stopped_machine_is_started_again_with_its_files(ready, settings, hard):
    wanted = machines(settings, 7)
    one = ready()
    one.machines_up(wanted)
    (one.machine_directory("m7.test.example") / "root/kept").write_text("yes")
    one.machines_stop(["m7.test.example"], hard=hard)
    assert one.listing()[0]["state"] == "stopped"
    one.machines_stop(["m7.test.example"], hard=hard)
    assert changes(one).count(f"m7.test.example {'powered off' if hard else 'stopped'}") == 1
    second = ready()
    second.machines_up(wanted)
    assert changes(second) == ["m7.test.example started"]
    assert (one.machine_directory("m7.test.example") / "root/kept").read_text() == "yes"


def test_a_machine_that_reboots_comes_back(ready, settings):
    one = ready()
    one.machines_up(machines(settings, 7))
    root = one.machine_directory("m7.test.example") / "root"
    one.machines_stop(["m7.test.example"], hard=True)
    (root / "reboot-once").touch()
    one.machines_up(machines(settings, 7))
    assert (root / "boots").read_text() == "xxx"
    assert one.listing()[0]["state"] == "running"


def test_faults_can_be_made_and_are_healed(ready, settings):
    wanted = machines(settings, 7)
    name = ["m7.test.example"]
    ready().machines_up(wanted)
    frozen = ready()
    frozen.machines_freeze(name, frozen=True)
    frozen.machines_freeze(name, frozen=True)
    assert changes(frozen) == ["m7.test.example frozen"]
    assert frozen.listing()[0]["state"] == "frozen"
    thawed = ready()
    thawed.machines_freeze(name, frozen=False)
    assert changes(thawed) == ["m7.test.example thawed"]
    cut = ready()
    cut.machines_link(name, up=False)
    cut.machines_link(name, up=False)
    assert changes(cut) == ["m7.test.example link down"]
    assert not lab_host.interface_up(f"vb-{wanted[0].short}")
    cut.machines_link(name, up=True)
    cut.machines_link(name, up=False)
    cut.machines_freeze(name, frozen=True)
    healed = ready()
    healed.machines_up(wanted)
    assert changes(healed) == ["m7.test.example link up", "m7.test.example thawed"]
    assert healed.listing()[0]["state"] == "running"


def test_faults_need_a_machine_that_runs(ready, settings):
    one = ready()
    one.machines_up(machines(settings, 7))
    one.machines_stop(["m7.test.example"], hard=True)
    with pytest.raises(LabError, match=r"^m7.test.example does not run$"):
        one.machines_freeze(["m7.test.example"], frozen=True)
    with pytest.raises(LabError, match=r"^m7.test.example does not run$"):
        one.machines_link(["m7.test.example"], up=False)
    with pytest.raises(LabError, match=r"^this lab has no machine m8.test.example; it has m7.test.example$"):
        one.machines_stop(["m8.test.example"])


def test_a_machine_that_ends_while_booting_says_why(ready, settings):
    one = ready()
    one.machines_up(machines(settings, 7))
    one.machines_stop(["m7.test.example"], hard=True)
    (one.machine_directory("m7.test.example") / "root/crash").touch()
    with pytest.raises(LabError, match=r"m7.test.example: ended while booting; its console said:\n(.*\n)*kernel panic"):
        one.machines_up(machines(settings, 7))


def test_a_machine_that_lets_nobody_in_says_why(ready, settings, tmp_path):
    (tmp_path / "ssh-says").write_text("refused")
    with pytest.raises(LabError, match=r"m7.test.example: ssh refused: Permission denied"):
        ready().machines_up(machines(settings, 7))


def test_a_machine_with_a_failed_unit_is_a_warning(ready, settings, tmp_path):
    (tmp_path / "ssh-says").write_text("degraded")
    one = ready()
    one.machines_up(machines(settings, 7))
    assert one.warnings == ["m7.test.example: booted, but systemd says degraded (x.service)"]


def test_a_machine_keeps_its_address(ready, settings):
    ready().machines_up(machines(settings, 7))
    moved = lab.parse_machines([{"name": "m7.test.example", "address": "10.99.0.9"}], settings)
    with pytest.raises(LabError) as caught:
        ready().machines_up(moved)
    assert str(caught.value) == (
        "m7.test.example: exists with 10.99.0.7 and fd00:99::7, wanted 10.99.0.9 and fd00:99::9; remove the machine"
        " first"
    )


def test_other_options_count_from_the_next_start(ready, settings):
    one = ready()
    one.machines_up(machines(settings, 7))
    item = {"name": "m7.test.example", "address": "10.99.0.7", "options": ["--capability=all"], "memory": "1G"}
    other = lab.parse_machines([item], settings)
    second = ready()
    second.machines_up(other)
    assert changes(second) == []
    assert second.warnings == ["m7.test.example: other memory or options count from its next start"]
    second.machines_stop(["m7.test.example"], hard=True)
    second.machines_up(other)
    assert second.machines()[0].options == ("--capability=all",)


def test_machines_need_the_host_to_be_ready(make, settings):
    make().prepare()
    with pytest.raises(LabError, match="the lab's network does not run on this host; run the lab's playbook first"):
        make().machines_up(machines(settings, 7))


def test_a_machine_half_made_is_made_anew_or_removed(ready, settings):
    one = ready()
    for number in (7, 8):
        directory = one.machine_directory(f"m{number}.test.example")
        for name in ("upper", "work", "root"):
            (directory / name).mkdir(parents=True)
        one._mount(directory, one.image_tree("machine"))
        (directory / "root/half").touch()
    one.machines_up(machines(settings, 7))
    assert not (one.machine_directory("m7.test.example") / "root/half").exists()
    assert [machine.name for machine in one.machines()] == ["m7.test.example"]
    one.machines_down(["m8.test.example"])
    assert not one.machine_directory("m8.test.example").exists()


def test_a_process_of_the_same_number_is_not_taken_for_the_machine(ready, settings):
    one = ready()
    one.machines_up(machines(settings, 7))
    short = machines(settings, 7)[0].short
    path = one.state / "run" / f"{short}.json"
    record = json.loads(path.read_text())
    for key, value in (("start", record["start"] + 1), ("boot", "another")):
        path.write_text(json.dumps({**record, key: value}))
        assert not one.running(short)
    path.write_text(json.dumps(record))
    assert one.running(short)


def test_two_runs_at_once_make_one_machine(ready, settings):
    wanted = machines(settings, 7)
    problems: list[BaseException] = []

    def attempt() -> None:
        try:
            ready().machines_up(wanted)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=attempt) for _number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert (ready().machine_directory("m7.test.example") / "root/boots").read_text() == "x"


# --- small things


def test_a_file_is_put_in_place_whole_and_only_when_it_differs(tmp_path):
    path = tmp_path / "file"
    assert lab_host.write_file(path, "one", 0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    assert not lab_host.write_file(path, "one", 0o600)
    assert lab_host.write_file(path, "one", 0o644)
    assert lab_host.write_file(path, "two")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_waiting_ends():
    assert lab_host.wait_for(lambda: True, 0)
    assert not lab_host.wait_for(lambda: False, 0)


def test_what_a_killed_nspawn_left_is_taken_away(monkeypatch):
    export = Path("/run/systemd/nspawn/unix-export/lab-test")
    export.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "lab-test", str(export)], check=True)
    lab_host.clear_leftovers(["systemd-nspawn", "--machine=lab-test"])
    assert not export.exists()
    assert export not in lab_host.mount_points()


def test_the_proxy_of_the_host_is_found(monkeypatch):
    def answer(text: str) -> None:
        monkeypatch.setattr(
            lab_host, "run", lambda *_args, **_keys: subprocess.CompletedProcess([], 0, text + "\n", "")
        )

    answer("http://proxy.example:8080")
    assert lab_host._upstream_proxy() == "http://proxy.example:8080"
    answer("DIRECT")
    assert lab_host._upstream_proxy() is None


def test_the_file_system_of_a_path_that_is_not_there_yet_is_found():
    assert lab_host.filesystem_of(Path("/proc/no/such")) == "proc"
    with contextlib.suppress(StopIteration):
        assert lab_host.filesystem_of(Path("/")) != "proc"


def test_kernel_file_systems():
    assert lab_host.kernel_offers("proc")
    assert not lab_host.kernel_offers("no_such_file_system")


@pytest.mark.parametrize(("before", "during"), [("128", "1024"), ("4096", "4096")])
def test_a_kernel_limit_is_raised_while_there_is_a_lab(make, tmp_path, monkeypatch, before, during):
    limit = tmp_path / "limit"
    limit.write_text(f"{before}\n")
    monkeypatch.setattr(lab_host, "KERNEL", {limit: 1024})
    monkeypatch.setattr(lab_host, "kernel_name", lambda path: path.name)
    one = make()
    one.prepare()
    one.network_up()
    assert limit.read_text().strip() == during
    assert ("limit 1024" in changes(one)) == (before != during)
    make().network_down()
    assert limit.read_text().strip() == before


def test_a_kernel_setting_has_its_usual_name():
    assert lab_host.kernel_name(Path("/proc/sys/fs/inotify/max_user_instances")) == "fs.inotify.max_user_instances"
