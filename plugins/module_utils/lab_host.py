# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's hands: what changes the host, driven by the plain decisions of :mod:`lab`.

Everything that is made is recorded in the state directory first or carries the lab's mark, and only that is ever
changed or removed. Two runs at once are kept apart by file locks; a run that was killed is completed by the next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import lab
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab import LabError, Machine, Settings

READY_SECONDS = 90
STOP_SECONDS = 45
# What the kernel must allow at least. Each booted systemd holds five to six inotify instances, all of them root's, and
# the kernel's own limit of 128 ends at some twenty machines: the next one dies with "Too many open files".
KERNEL = {
    Path("/proc/sys/net/ipv4/ip_forward"): 1,
    Path("/proc/sys/fs/inotify/max_user_instances"): 1024,
}


@dataclasses.dataclass
class Change:
    """What a step did or, in check mode, would do: one line an operator can read."""

    lines: list[str] = dataclasses.field(default_factory=list)

    def add(self, line: str) -> None:
        """Note one change."""
        self.lines.append(line)


def run(command: Sequence[str], *, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in the C locale; a failure becomes a LabError with what it said."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        result = subprocess.run(
            list(command), input=stdin, capture_output=True, text=True, check=False, env=environment
        )
    except FileNotFoundError as error:
        raise LabError(f"{command[0]} is not installed on this host; the lab's playbook installs it") from error
    if check and result.returncode != 0:
        said = (result.stderr or result.stdout).strip().splitlines()[-15:]
        raise LabError(f"`{' '.join(command[:6])}` failed with status {result.returncode}: " + "\n".join(said))
    return result


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll a condition until it holds; False when it does not within that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def write_file(path: Path, content: str, mode: int = 0o644) -> bool:
    """Put a whole file in place at once; True when it differed."""
    with contextlib.suppress(OSError):
        if path.read_text() == content and path.stat().st_mode & 0o7777 == mode:
            return False
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(content)
        os.fchmod(handle.fileno(), mode)
    temporary.replace(path)
    return True


def remove_tree(path: Path) -> None:
    """Remove a tree, but never through a mount: something mounted below it is an error."""
    mounted = [point for point in mount_points() if point.is_relative_to(path)]
    if mounted:
        raise LabError(f"{path} is not removed: {mounted[0]} is still mounted")
    shutil.rmtree(path, ignore_errors=False)


def mount_points() -> list[Path]:
    """All mount points that this process sees."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]


def filesystem_of(path: Path) -> str:
    """Type of the file system that a path is or would be on, such as ext4."""
    types = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        types[Path(head.split()[4].encode().decode("unicode_escape"))] = tail.split()[0]
    return next(types[parent] for parent in [path, *path.parents] if parent in types)


class Lab:
    """One lab on this host; its state directory says what belongs to it."""

    def __init__(self, settings: Settings, check_mode: bool = False) -> None:
        self.settings = settings
        self.state = Path(settings.state)
        self.check_mode = check_mode
        self.change = Change()
        self.warnings: list[str] = []

    # --- state -------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the state directory's skeleton."""
        for name, mode in (
            ("", 0o755),
            ("ssh", 0o700),
            ("images", 0o755),
            ("machines", 0o755),
            ("run", 0o755),
            ("log", 0o755),
            ("names", 0o755),
            ("dns", 0o755),
            ("dns/zone.d", 0o755),
            ("cache", 0o755),
        ):
            path = self.state / name
            if not path.is_dir():
                path.mkdir(mode=mode, parents=True)
            if path.stat().st_mode & 0o7777 != mode:
                path.chmod(mode)

    @contextlib.contextmanager
    def locked(self, name: str = "lab") -> Iterator[None]:
        """Hold one of the lab's locks; another run waits."""
        if self.check_mode:
            yield
            return
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / f".lock-{name}").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def record(self) -> dict[str, Any]:
        """What the lab made on the host besides machines."""
        try:
            found: dict[str, Any] = json.loads((self.state / "lab.json").read_text())
        except FileNotFoundError:
            return {"format": lab.FORMAT}
        if found.get("format") != lab.FORMAT:
            raise LabError(
                f"{self.state}/lab.json has format {found.get('format')}, this version knows {lab.FORMAT}; remove the"
                " lab with the version that made it"
            )
        return found

    def made_with(self) -> Settings | None:
        """The settings that this lab was made with; None before it is made."""
        recorded = self.record().get("settings")
        return Settings(**recorded) if recorded else None

    def _save(self, record: Mapping[str, Any]) -> None:
        write_file(self.state / "lab.json", json.dumps(record, indent=1, sort_keys=True) + "\n")

    def machine_directory(self, name: str) -> Path:
        """Where a machine's files are."""
        return self.state / "machines" / name

    def machines(self) -> list[Machine]:
        """All machines that the lab has made, running or not."""
        return [machine for machine, _tree in self._machine_records()]

    def _machine_records(self) -> list[tuple[Machine, str]]:
        records = []
        for path in sorted((self.state / "machines").glob("*/machine.json")):
            data = json.loads(path.read_text())
            fields = {field.name: data[field.name] for field in dataclasses.fields(Machine)}
            fields["options"] = tuple(fields["options"])
            records.append((Machine(**fields), data["tree"]))
        return records

    # --- processes ---------------------------------------------------------------------------------------------------

    def _process(self, name: str) -> dict[str, Any] | None:
        """The record of a process that the lab started, if that very process still lives."""
        try:
            record: dict[str, Any] = json.loads((self.state / "run" / f"{name}.json").read_text())
            stat = Path(f"/proc/{record['pid']}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        dead = stat.rpartition(")")[2].split()[0] in {"Z", "X"}
        same = lab.stat_start_time(stat) == record["start"] and record.get("boot") == boot_id()
        return record if same and not dead else None

    def running(self, name: str) -> bool:
        """Whether a machine (by its short name) or a daemon of the lab runs."""
        return self._process(name) is not None

    def _spawn(
        self, name: str, command: Sequence[str], *, reboot: bool, memory: int | None = None, **extra: Any
    ) -> None:
        """Start a command that outlives this process, in a control group of its own."""
        clear_leftovers(command)
        log = self.state / "log" / f"{name}.log"
        mode = "reboot" if reboot else "once"
        # A file, because systemd would put variables into the text of a command.
        script = self.state / "run/in-group.sh"
        write_file(script, lab.RUN_IN_GROUP)
        environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        }
        if host_has_systemd():
            unit = f"{self.settings.group}-{name}.service"
            limits = [f"--property=MemoryMax={memory}"] if memory else []
            # The one before it may still be on its way out.
            run(["systemctl", "stop", unit], check=False)
            run(["systemctl", "reset-failed", unit], check=False)
            run(
                [
                    *(
                        "systemd-run",
                        "--quiet",
                        "--collect",
                        f"--unit={unit}",
                        f"--description=Lab: {name}",
                        "--property=Delegate=yes",
                        *limits,
                    ),
                    *("--property=KillMode=mixed", f"--property=StandardOutput=append:{log}"),
                    *("--property=StandardError=inherit", *(f"--setenv={k}={v}" for k, v in environment.items())),
                    *("--", "sh", str(script), "self", mode, *command),
                ]
            )
            shown = run(["systemctl", "show", "--property=MainPID,ControlGroup", unit]).stdout
            values = dict(line.split("=", maxsplit=1) for line in shown.splitlines())
            pid, group = int(values["MainPID"]), str(control_group_root()) + values["ControlGroup"]
        else:
            group_path = control_group_root() / self.settings.group / name
            remove_group(group_path)
            group_path.mkdir(parents=True)
            group = str(group_path)
            if memory:
                self._limit_memory(group_path, memory, name)
            with log.open("a") as output:
                pid = subprocess.Popen(
                    ["sh", str(script), group, mode, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    cwd="/",
                    start_new_session=True,
                ).pid
        try:
            start = lab.stat_start_time(Path(f"/proc/{pid}/stat").read_text())
        except (FileNotFoundError, ProcessLookupError):
            start = 0
        record = {"pid": pid, "start": start, "boot": boot_id(), "group": group, **extra}
        write_file(self.state / "run" / f"{name}.json", json.dumps(record) + "\n")

    def _limit_memory(self, group: Path, memory: int, name: str) -> None:
        try:
            root = group.parent
            for level in (root.parent, root):
                (level / "cgroup.subtree_control").write_text("+memory")
            (group / "memory.max").write_text(str(memory))
        except OSError:
            self.warnings.append(
                f"{name}: this host's kernel offers no memory limit for control groups; memory ignored"
            )

    def _kill(self, name: str) -> bool:
        """End a process of the lab and all that it started, at once; True when there was one."""
        record = self._process(name)
        path = self.state / "run" / f"{name}.json"
        if record is None:
            path.unlink(missing_ok=True)
            return False
        group = Path(record["group"])
        (group / "cgroup.kill").write_text("1")
        if not wait_for(lambda: not self.running(name) and not populated(group), STOP_SECONDS):
            raise LabError(f"{name} (process {record['pid']}) does not end; see {self.state}/log/{name}.log")
        if not host_has_systemd():
            remove_group(group)
        path.unlink(missing_ok=True)
        return True

    def log_tail(self, name: str, lines: int = 15) -> str:
        """The last lines that a machine's console or a daemon said."""
        try:
            text = (self.state / "log" / f"{name}.log").read_text(errors="replace")
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])

    # --- network -----------------------------------------------------------------------------------------------------

    def obstacles(self) -> list[str]:
        """What on this host stands in the lab's way; looked up, nothing is touched."""
        if os.geteuid() != 0:
            return ["the lab makes machines, so it needs root: run the playbook as root or with --become"]
        if not Path("/etc/debian_version").exists() or not shutil.which("apt-get"):
            return ["the lab needs a Debian host (12 or newer): no apt-get here"]
        found: list[str] = []
        if not kernel_offers("overlay"):
            found.append("this kernel has no overlayfs; boot a kernel of Debian, which has it")
        try:
            control_group_root()
        except LabError as error:
            found.append(str(error))
        if filesystem_of(self.state) == "overlay":
            found.append(
                f"{self.state} is on an overlay file system, above which machines cannot lay another one;"
                " set lab_state_directory to a directory on a disk"
            )
        ipv6 = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
        if not ipv6.exists() or ipv6.read_text().strip() != "0":
            found.append(
                "IPv6 is switched off on this host, and machines use it: sysctl net.ipv6.conf.all.disable_ipv6=0"
            )
        sockets = {kind: Path(f"/proc/thread-self/net/{kind}") for kind in ("tcp", "tcp6", "udp", "udp6")}
        found += lab.port_obstacles({kind: path.read_text() for kind, path in sockets.items() if path.exists()})
        if not shutil.which("ip") or not shutil.which("nft"):
            return found  # the packages are not installed yet; asked again when they are
        if not self._bridge_exists():
            probe = run(["unshare", "--net", "ip", "link", "add", "name", "probe", "type", "bridge"], check=False)
            if probe.returncode:
                found.append(f"this kernel makes no network bridge ({probe.stderr.strip()}); boot a kernel of Debian")
        elif not self.record().get("bridge"):
            found.append(
                f"an interface {self.settings.bridge} exists that the lab did not make; remove it or set lab_bridge"
            )
        found += lab.address_obstacles(json.loads(run(["ip", "--json", "address"]).stdout), self.settings)
        listed = run(["nft", "--json", "list", "ruleset"], check=False)
        if listed.returncode:
            found.append(f"this kernel takes no nftables rules ({listed.stderr.strip()}); boot a kernel of Debian")
        else:
            ruleset = json.loads(listed.stdout)
            found += lab.firewall_obstacles(ruleset, self.settings)
            if self._table_exists(ruleset) and not self.record().get("table"):
                found.append(f"an nft table inet {self.settings.table} exists that the lab did not make; remove it")
        return found

    def missing_packages(self) -> list[str]:
        """Debian packages that the host lacks to make machines."""
        query = ["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\\n", *lab.HOST_PACKAGES]
        installed = run(query, check=False).stdout.splitlines()
        return [name for name in lab.HOST_PACKAGES if f"installed {name}" not in installed]

    def _bridge_exists(self) -> bool:
        return interface_exists(self.settings.bridge)

    def _table_exists(self, ruleset: Mapping[str, Any]) -> bool:
        tables = [entry["table"] for entry in ruleset.get("nftables", []) if "table" in entry]
        return any(table["family"] == "inet" and table["name"] == self.settings.table for table in tables)

    def network_up(self) -> None:
        """Bring up the bridge, its addresses, the nft table and IPv4 forwarding, as far as they are not."""
        settings, record = self.settings, self.record()
        if not self.check_mode and "settings" not in record:
            self._save(record := {**record, "settings": dataclasses.asdict(settings)})
        if not self._bridge_exists():
            self.change.add(f"bridge {settings.bridge} made")
            if not self.check_mode:
                self._save(record := {**record, "bridge": settings.bridge})
                make = ["ip", "link", "add", "name", settings.bridge, "type", "bridge"]
                run([*make, "stp_state", "0", "forward_delay", "0"])
        wanted = {settings.address, settings.address6}
        if self.check_mode and not self._bridge_exists():
            return
        shown = json.loads(run(["ip", "--json", "address", "show", "dev", settings.bridge]).stdout)[0]
        present = {f"{info['local']}/{info['prefixlen']}" for info in shown["addr_info"] if info["scope"] != "link"}
        for address in sorted(wanted - present):
            self.change.add(f"address {address} on {settings.bridge}")
            if not self.check_mode:
                nodad = ["nodad"] if ":" in address else []
                run(["ip", "address", "add", address, "dev", settings.bridge, *nodad])
        if "UP" not in shown["flags"]:
            self.change.add(f"bridge {settings.bridge} up")
            if not self.check_mode:
                run(["ip", "link", "set", settings.bridge, "up"])
        self._nft_up(record)
        self._kernel_up()

    def _nft_up(self, record: dict[str, Any]) -> None:
        text = lab.nft_ruleset(self.settings)
        digest = hashlib.sha256(text.encode()).hexdigest()
        ruleset = json.loads(run(["nft", "--json", "list", "ruleset"]).stdout)
        if self._table_exists(ruleset) and record.get("table") == digest:
            return
        self.change.add(f"nft table inet {self.settings.table}")
        if not self.check_mode:
            self._save({**self.record(), "table": digest})
            run(["nft", "--file", "-"], stdin=text)

    def _kernel_up(self) -> None:
        for path, least in KERNEL.items():
            before = path.read_text().strip()
            if int(before) >= least:
                continue
            self.change.add(f"{kernel_name(path)} {least}")
            if not self.check_mode:
                kept = self.record().get("kernel_before", {})
                self._save({**self.record(), "kernel_before": {**kept, str(path): before}})
                path.write_text(str(least))

    def network_down(self) -> None:
        """Remove the bridge and the nft table that the lab made; the kernel's settings return to what they were."""
        record = self.record()
        if record.get("bridge") and self._bridge_exists():
            self.change.add(f"bridge {self.settings.bridge} removed")
            if not self.check_mode:
                run(["ip", "link", "delete", self.settings.bridge])
        if record.get("table"):
            ruleset = json.loads(run(["nft", "--json", "list", "ruleset"]).stdout)
            if self._table_exists(ruleset):
                self.change.add(f"nft table inet {self.settings.table} removed")
                if not self.check_mode:
                    run(["nft", "delete", "table", "inet", self.settings.table])
        for name, before in record.get("kernel_before", {}).items():
            self.change.add(f"{kernel_name(Path(name))} {before}")
            if not self.check_mode:
                Path(name).write_text(before)
        if not self.check_mode and (self.state / "lab.json").exists():
            self._save({"format": lab.FORMAT})

    # --- images ------------------------------------------------------------------------------------------------------

    def mirror(self, main: str | None = None, security: str | None = None) -> lab.Mirror:
        """The archive that images are built from: as given, else that of the host's own package sources."""
        if main and security:
            return lab.Mirror(main.rstrip("/"), security.rstrip("/"))
        lists = {str(path): path.read_text() for path in Path("/etc/apt/mirrors").glob("*")}
        text = run(["apt-get", "indextargets", "--format", lab.INDEX_FORMAT, "Created-By: Packages"]).stdout
        found = lab.mirror_from_indextargets(text, lists)
        return lab.Mirror(main or found.main, security or found.security)

    def image_tree(self, name: str) -> Path:
        """The tree that new machines of an image start from."""
        tree = (self.state / "images" / name / "current").resolve()
        if not (tree / "etc").is_dir():
            raise LabError(f"image {name} is not built; declare it in lab_images and run the lab's playbook")
        return tree

    def build_image(self, image: lab.Image, mirror: lab.Mirror) -> None:
        """Have the tree of an image's recipe; built aside and moved in place whole."""
        directory = self.state / "images" / image.name
        tree = directory / image.digest(mirror)
        if not tree.is_dir():
            self.change.add(f"image {image.name} built")
            if self.check_mode:
                return
            directory.mkdir(parents=True, exist_ok=True)
            for leftover in directory.glob(".building-*"):
                _unmount_below(leftover)
                remove_tree(leftover)
            building = directory / f".building-{os.getpid()}"
            script = self.state / "run" / f"image-{image.name}.sh"
            write_file(script, image.script)
            proxy = lab.apt_proxy(self.settings) if self.running("cache") else None
            try:
                build = lab.mmdebstrap_command(image, mirror, str(building), str(script), proxy)
                # Dies as a whole, with its mounts, when this process does: nothing goes on writing unseen.
                run(["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", *build])
            except LabError:
                _unmount_below(building)
                if building.exists():
                    remove_tree(building)
                raise
            write_file(directory / f"{tree.name}.json", json.dumps(image.recipe(mirror), indent=1) + "\n")
            building.chmod(0o755)
            lists = building / "var/lib/apt/lists"
            if lists.is_dir():
                # The lists are empty; their age is what Ansible takes for the time of the last `apt-get update`.
                os.utime(lists, (0, 0))
            building.rename(tree)
        link = directory / "current"
        if not self.check_mode and (not link.is_symlink() or link.readlink() != Path(tree.name)):
            temporary = directory / f".current-{os.getpid()}"
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(tree.name)
            temporary.replace(link)
        if not self.check_mode:
            self._prune_images(directory, tree)

    def _prune_images(self, directory: Path, current: Path) -> None:
        used = {tree for _machine, tree in self._machine_records()} | set(self._service_trees())
        for old in directory.iterdir():
            tree = old.is_dir() and not old.is_symlink() and not old.name.startswith(".")
            if tree and old != current and str(old) not in used:
                remove_tree(old)
                (directory / f"{old.name}.json").unlink(missing_ok=True)

    def _service_trees(self) -> list[str]:
        records = [self._process(name) for name in ("names", "authority", "cache")]
        return [record["tree"] for record in records if record and "tree" in record]

    # --- daemons -----------------------------------------------------------------------------------------------------

    def _daemon(
        self,
        name: str,
        command: Sequence[str],
        binds: Mapping[str, str],
        *,
        port: int,
        user: str | None = None,
        configuration: str = "",
    ) -> bool:
        """Have one of the lab's daemons run with this configuration; True when it was (re)started."""
        tree = self.image_tree(lab.SERVICES_IMAGE)
        full = lab.service_command(str(tree), f"{self.settings.bridge}-{name}", command, binds, user)
        digest = hashlib.sha256(json.dumps([full, configuration]).encode()).hexdigest()
        record = self._process(name)
        if record and record.get("digest") == digest and listens(self.settings.host, port):
            return False
        self.change.add(f"daemon {name} {'restarted' if record else 'started'}")
        if self.check_mode:
            return True
        self._kill(name)
        self._spawn(name, full, reboot=False, digest=digest, tree=str(tree))
        if not wait_for(lambda: listens(self.settings.host, port) or not self.running(name), READY_SECONDS) or (
            not self.running(name)
        ):
            raise LabError(f"the lab's daemon {name} did not start:\n{self.log_tail(name)}")
        return True

    def _owner(self, user: str) -> tuple[int, int]:
        for line in (self.image_tree(lab.SERVICES_IMAGE) / "etc/passwd").read_text().splitlines():
            fields = line.split(":")
            if fields[0] == user:
                return int(fields[2]), int(fields[3])
        raise LabError(f"the services image has no user {user}")

    def _own(self, path: Path, user: str) -> None:
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, *self._owner(user))

    def services_up(self) -> None:
        """Have names, authority and cache run, with the host's names and resolvers of this moment."""
        settings = self.settings
        if self.check_mode and not (self.state / "images" / lab.SERVICES_IMAGE / "current").exists():
            self.change.add("daemons names, authority and cache started")
            return
        names, dns, cache = self.state / "names", self.state / "dns", self.state / "cache"
        files = {
            names / "dnsmasq.conf": lab.dnsmasq_config(settings),
            names / "hosts": lab.hosts_for_machines(Path("/etc/hosts").read_text()),
            names / "resolv.conf": lab.resolvers_for_machines(Path("/etc/resolv.conf").read_text(), settings),
            names / "own-resolv.conf": f"nameserver {settings.host}\n",
            dns / "knot.conf": lab.knot_config(settings),
        }
        if not self.check_mode:
            for path, content in files.items():
                write_file(path, content)
            for path, user in (
                (dns / "database", "knot"),
                (dns / "zones", "knot"),
                (cache / "packages", "apt-cacher-ng"),
                (cache / "log", "apt-cacher-ng"),
            ):
                self._own(path, user)
        self._daemon(
            "names",
            ["dnsmasq", "--keep-in-foreground", "--conf-file=/lab/dnsmasq.conf"],
            {str(names): "ro:/lab"},
            port=lab.NAMES_PORT,
            configuration="".join(files.values()),
        )
        self.zone_up()
        self._daemon(
            "cache",
            lab.cache_command(settings, _upstream_proxy()),
            {str(cache): "/lab", str(names / "own-resolv.conf"): "ro:/etc/resolv.conf"},
            port=lab.CACHE_PORT,
            user="apt-cacher-ng",
        )

    def services_down(self) -> None:
        """End the lab's daemons."""
        for name in ("cache", "authority", "names"):
            if self.running(name):
                self.change.add(f"daemon {name} ended")
            if not self.check_mode:
                self._kill(name)

    # --- zone --------------------------------------------------------------------------------------------------------

    def fragments(self) -> dict[str, str]:
        """Zone fragments by file name."""
        return {path.name: path.read_text() for path in sorted((self.state / "dns/zone.d").glob("*.zone"))}

    def zone_up(self, fragments: Mapping[str, str] | None = None) -> None:
        """Have the authority serve the machines' names and the fragments; a bad fragment leaves the old zone alone."""
        settings, machines = self.settings, self.machines()
        parts = self.fragments() if fragments is None else dict(fragments)
        wanted = {settings.zone: lab.zone_text(machines, parts, settings), **lab.reverse_zone_texts(machines, settings)}
        zones = self.state / "dns/zones"
        if self.check_mode and not (self.state / "images" / lab.SERVICES_IMAGE / "current").exists():
            return
        self._own(zones, "knot") if not self.check_mode else None
        differing = [
            zone
            for zone, text in wanted.items()
            if not (zones / f"{zone}.zone").exists() or (zones / f"{zone}.zone").read_text() != text
        ]
        if differing:
            self._check_zone(settings.zone, wanted[settings.zone])
            if settings.zone in differing:
                self.change.add(f"zone {settings.zone} written")
        if self.check_mode:
            return
        for zone in differing:
            write_file(zones / f"{zone}.zone", wanted[zone])
        started = self._daemon(
            "authority",
            ["knotd", "--config", "/lab/knot.conf"],
            {str(self.state / "dns"): "/lab"},
            port=lab.AUTHORITY_PORT,
            configuration=lab.knot_config(settings),
        )
        digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
        loaded = self.state / "run/zone-loaded"
        current = f"{(self._process('authority') or {}).get('pid')} {digest}\n"
        if not started and (not loaded.exists() or loaded.read_text() != current):
            self.in_daemon("authority", ["knotc", "-s", f"{lab.KNOT_RUN}/knot.sock", "-b", "zone-reload", "--"])
        write_file(loaded, current)
        self._export_anchor()

    def zone_check(self, fragments: Mapping[str, str]) -> None:
        """Refuse fragments that would make a zone which does not load."""
        if (self.state / "images" / lab.SERVICES_IMAGE / "current").exists():
            text = lab.zone_text(self.machines(), fragments, self.settings)
            self._check_zone(self.settings.zone, text)

    def _check_zone(self, zone: str, text: str) -> None:
        """Refuse a zone that the authority would refuse, in words that name the fragment."""
        dns = self.state / "dns"
        candidate = dns / f".candidate-{os.getpid()}.zone"
        candidate.write_text(text)
        try:
            result = run(
                lab.service_command(
                    str(self.image_tree(lab.SERVICES_IMAGE)),
                    f"{self.settings.bridge}-check-{os.getpid()}",
                    ["kzonecheck", "-v", "-o", f"{zone}.", f"/lab/{candidate.name}"],
                    {str(dns): "ro:/lab"},
                ),
                check=False,
            )
        finally:
            candidate.unlink()
        said = result.stdout + "\n" + result.stderr
        problems = lab.zone_problems(said, text, failed=result.returncode != 0)
        if problems:
            raise LabError(f"the zone {zone} would not load, the old one stays: {'; '.join(problems)}")

    def in_daemon(self, name: str, command: Sequence[str]) -> str:
        """Run a command in the mounts of one of the lab's daemons."""
        record = self._process(name)
        if not record:
            raise LabError(f"the lab's daemon {name} does not run; run the lab's playbook")
        inner = [int(pid) for path in Path(record["group"]).rglob("cgroup.procs") for pid in path.read_text().split()]
        mine = Path("/proc/self/ns/mnt").readlink()
        for pid in sorted(inner, reverse=True):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/ns/mnt").readlink() != mine:
                    return run(["nsenter", f"--target={pid}", "--mount", "--", *command]).stdout
        raise LabError(f"no process of the lab's daemon {name} found")

    def _export_anchor(self) -> None:
        """Write the DS record of the zone's key for validating resolvers."""
        text = ""

        def signed() -> bool:
            nonlocal text
            answer = self.in_daemon(
                "authority", ["sh", "-c", f"keymgr -c /lab/knot.conf {self.settings.zone}. ds 2>/dev/null || true"]
            )
            text = "".join(line + "\n" for line in answer.splitlines() if " DS " in line and " 13 2 " in line)
            return bool(text)

        if not wait_for(signed, READY_SECONDS):
            raise LabError(f"the zone {self.settings.zone} was not signed:\n{self.log_tail('authority')}")
        write_file(self.state / "dns/trust-anchor", text)

    # --- machines ----------------------------------------------------------------------------------------------------

    def machines_up(self, wanted: Sequence[Machine]) -> None:
        """Have these machines exist, run and answer; those that do are not touched."""
        if not self.check_mode and not (self._bridge_exists() and self.running("names")):
            raise LabError("the lab's network does not run on this host; run the lab's playbook first")
        existing = {machine.name: machine for machine in self.machines()}
        problems = lab.conflicts(wanted, list(existing.values()))
        for machine in wanted:
            was = existing.get(machine.name, machine)
            if (machine.address, machine.address6) != (was.address, was.address6):
                problems.append(
                    f"{machine.name}: exists with {was.address} and {was.address6}, wanted {machine.address} and"
                    f" {machine.address6}; remove the machine first"
                )
        if problems:
            raise LabError("; ".join(problems))
        for machine in wanted:
            was = existing.get(machine.name, machine)
            if (was.memory, was.options) != (machine.memory, machine.options) and self.running(was.short):
                self.warnings.append(f"{machine.name}: other memory or options count from its next start")
        self._key_pair()
        made = [machine for machine in wanted if machine.name not in existing]
        for machine in made:
            self.change.add(f"{machine.name} made ({machine.address})")
        if self.check_mode:
            for machine in wanted:
                if machine.name in existing and not self.running(machine.short):
                    self.change.add(f"{machine.name} started")
            return
        self._in_parallel(self._make, made)
        with self.locked():
            self.publish()
        self._in_parallel(self._start, wanted)

    def _in_parallel(self, function: Callable[[Machine], None], machines: Sequence[Machine]) -> None:
        with ThreadPoolExecutor(max_workers=8) as pool:
            results = [pool.submit(function, machine) for machine in machines]
        problems = [str(error) for error in (result.exception() for result in results) if error]
        if problems:
            raise LabError("; ".join(problems))

    def publish(self) -> None:
        """Make all machines known: to ssh (known_hosts, config) and in the zone."""
        machines = self.machines()
        keys = [(machine, (self.machine_directory(machine.name) / "host_key.pub").read_text()) for machine in machines]
        write_file(self.state / "ssh/known_hosts", lab.known_hosts(keys))
        write_file(self.state / "ssh/config", lab.ssh_config(machines, self.settings))
        if self.running("authority"):
            self.zone_up()

    def _key_pair(self) -> None:
        key = self.state / "ssh/id_ed25519"
        if self.check_mode or key.with_suffix(".pub").exists():
            return
        with self.locked("ssh"):
            if not key.with_suffix(".pub").exists():
                key.unlink(missing_ok=True)
                run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bouwsteen-lab", "-f", str(key)])

    def _make(self, machine: Machine) -> None:
        """Lay down a machine's own files above its image; machine.json comes last and makes it a machine."""
        directory = self.machine_directory(machine.name)
        with self.locked(f"machine-{machine.name}"):
            if (directory / "machine.json").exists():
                return
            if directory.exists():
                self._unmount(directory)
                remove_tree(directory)
            for name in ("upper", "work", "root"):
                (directory / name).mkdir(parents=True)
            directory.chmod(0o700)
            tree = self.image_tree(machine.image)
            host_key = directory / "host_key"
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", machine.name, "-f", str(host_key)])
            self._mount(directory, tree)
            public = (self.state / "ssh/id_ed25519.pub").read_text()
            for name, (content, mode) in lab.machine_files(
                machine, self.settings, public, host_key.read_text()
            ).items():
                path = directory / "root" / name
                if not path.parent.is_dir():
                    path.parent.mkdir(mode=0o700 if path.parent.name == ".ssh" else 0o755, parents=True)
                write_file(path, content, mode)
            self._save_machine(machine, str(tree))

    def _save_machine(self, machine: Machine, tree: str) -> None:
        record = {"format": lab.FORMAT, "tree": tree, **machine.record()}
        write_file(self.machine_directory(machine.name) / "machine.json", json.dumps(record, indent=1) + "\n")

    def _mount(self, directory: Path, tree: Path) -> None:
        if directory / "root" in mount_points():
            return
        options = f"lowerdir={tree},upperdir={directory / 'upper'},workdir={directory / 'work'}"
        run(["mount", "-t", "overlay", "-o", options, "bouwsteen-lab", str(directory / "root")])

    def _unmount(self, directory: Path) -> None:
        for _attempt in range(5):
            if directory / "root" not in mount_points():
                return
            run(["umount", "--recursive", str(directory / "root")])

    def _start(self, machine: Machine) -> None:
        directory = self.machine_directory(machine.name)
        with self.locked(f"machine-{machine.name}"):
            record = self._process(machine.short)
            if record is None:
                tree = json.loads((directory / "machine.json").read_text())["tree"]
                self._save_machine(machine, tree)
                # The old machine's end of the cable goes a moment after its last process.
                cable = f"vb-{machine.short}"
                if not wait_for(lambda: not interface_exists(cable), STOP_SECONDS):
                    raise LabError(f"{machine.name}: interface {cable} exists although the machine does not run")
                self._mount(directory, Path(tree))
                self.change.add(f"{machine.name} started")
                self._spawn(
                    machine.short,
                    lab.nspawn_command(machine, str(directory / "root"), self.settings),
                    reboot=True,
                    memory=machine.memory,
                )
            else:
                self._heal(machine, record)
                if answers_ssh(machine.address):
                    return
            self._wait_ready(machine)

    def _heal(self, machine: Machine, record: Mapping[str, Any]) -> None:
        """Undo the faults that a test may have left: frozen processes, a cut link."""
        freeze = Path(record["group"]) / "cgroup.freeze"
        if freeze.exists() and freeze.read_text().strip() == "1":
            self.change.add(f"{machine.name} thawed")
            freeze.write_text("0")
        cable = f"vb-{machine.short}"
        if interface_exists(cable) and not interface_up(cable):
            self.change.add(f"{machine.name} link up")
            run(["ip", "link", "set", cable, "up"])

    def _wait_ready(self, machine: Machine) -> None:
        """Wait until the machine has booted and lets us in, the way Ansible will."""
        alive = wait_for(lambda: answers_ssh(machine.address) or not self.running(machine.short), READY_SECONDS)
        if not alive or not self.running(machine.short):
            what = "ended while booting" if not self.running(machine.short) else f"no ssh within {READY_SECONDS} s"
            raise LabError(f"{machine.name}: {what}; its console said:\n{self.log_tail(machine.short)}")
        ask = "systemctl is-system-running --wait || systemctl list-units --failed --plain --no-legend"
        result = run(["ssh", "-F", str(self.state / "ssh/config"), machine.name, ask], check=False)
        status, _, failed = result.stdout.strip().partition("\n")
        if result.returncode == 255 or not status:
            raise LabError(f"{machine.name}: ssh refused: {result.stderr.strip()}")
        if status != "running":
            units = ", ".join(line.split()[0] for line in failed.splitlines()) or "no unit failed"
            self.warnings.append(f"{machine.name}: booted, but systemd says {status} ({units})")

    def machines_down(self, names: Sequence[str]) -> None:
        """Remove machines with all that is in them; those that do not exist are fine."""
        known = {machine.name: machine for machine in self.machines()}
        half_made = [path.name for path in (self.state / "machines").glob("*") if path.name not in known]
        for name in names:
            if name in known:
                self.change.add(f"{name} removed")
        if self.check_mode or not (known or half_made):
            return
        self._in_parallel(self._remove, [known[name] for name in names if name in known])
        for name in half_made:
            if name in names:
                with self.locked(f"machine-{name}"):
                    self._unmount(self.machine_directory(name))
                    remove_tree(self.machine_directory(name))
        with self.locked():
            self.publish()

    def _remove(self, machine: Machine) -> None:
        directory = self.machine_directory(machine.name)
        with self.locked(f"machine-{machine.name}"):
            self._kill(machine.short)
            self._unmount(directory)
            if directory.exists():
                (directory / "machine.json").unlink(missing_ok=True)
                remove_tree(directory)
            (self.state / "log" / f"{machine.short}.log").unlink(missing_ok=True)

    def machines_stop(self, names: Sequence[str], *, hard: bool = False) -> None:
        """Shut machines down in order, or (hard) as if the power went."""
        for machine in self._named(names):
            record = self._process(machine.short)
            if record is None:
                continue
            self.change.add(f"{machine.name} {'powered off' if hard else 'stopped'}")
            if self.check_mode:
                continue
            if not hard:
                Path(record["group"], "cgroup.freeze").write_text("0")
                for pid in Path(record["group"], "inner/supervisor/cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGTERM)
                wait_for(lambda machine=machine: not self.running(machine.short), STOP_SECONDS)  # type: ignore[misc]
            self._kill(machine.short)

    def machines_freeze(self, names: Sequence[str], *, frozen: bool) -> None:
        """Stop all processes of machines where they stand, or let them go on: the grey failure, TCP stays open."""
        for machine in self._named(names):
            record = self._process(machine.short)
            if record is None:
                raise LabError(f"{machine.name} does not run")
            path = Path(record["group"]) / "cgroup.freeze"
            if path.read_text().strip() == str(int(frozen)):
                continue
            self.change.add(f"{machine.name} {'frozen' if frozen else 'thawed'}")
            if not self.check_mode:
                path.write_text(str(int(frozen)))
                events = path.with_name("cgroup.events")
                wait_for(lambda events=events: f"frozen {int(frozen)}" in events.read_text(), STOP_SECONDS)  # type: ignore[misc]

    def machines_link(self, names: Sequence[str], *, up: bool) -> None:
        """Plug the machines' cable in or out."""
        for machine in self._named(names):
            cable = f"vb-{machine.short}"
            if not interface_exists(cable):
                raise LabError(f"{machine.name} does not run")
            if interface_up(cable) != up:
                self.change.add(f"{machine.name} link {'up' if up else 'down'}")
                if not self.check_mode:
                    run(["ip", "link", "set", cable, "up" if up else "down"])

    def _named(self, names: Sequence[str]) -> list[Machine]:
        known = {machine.name: machine for machine in self.machines()}
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise LabError(f"this lab has no machine {', '.join(unknown)}; it has {', '.join(sorted(known)) or 'none'}")
        return [known[name] for name in names]

    def listing(self) -> list[dict[str, Any]]:
        """All machines with what runs: `[{name, address, address6, image, state, pid, group, ...}]`."""
        result = []
        for machine, tree in self._machine_records():
            record = self._process(machine.short)
            state = "stopped"
            if record:
                freeze = Path(record["group"]) / "cgroup.freeze"
                frozen = freeze.exists() and freeze.read_text().strip() == "1"
                state = "frozen" if frozen else "running" if answers_ssh(machine.address) else "not answering"
            result.append(
                {
                    **machine.record(),
                    "tree": tree,
                    "root": str(self.machine_directory(machine.name) / "root"),
                    "interface": f"vb-{machine.short}",
                    "state": state,
                    "pid": record["pid"] if record else None,
                    "group": record["group"] if record else None,
                    "log": str(self.state / "log" / f"{machine.short}.log"),
                }
            )
        return result

    def remove_everything(self) -> None:
        """Remove the lab whole: machines, daemons, network, images, cache, keys."""
        if not self.state.is_dir() or not any(self.state.iterdir()):
            return
        self.services_down()
        self.machines_down([path.name for path in (self.state / "machines").glob("*")])
        self.network_down()
        self.change.add(f"{self.state} removed")
        if self.check_mode:
            return
        group = control_group_root() / self.settings.group
        if group.exists() and not populated(group):
            remove_group(group)
        if self.state in mount_points():
            # A disk of its own stays mounted, empty.
            for path in self.state.iterdir():
                remove_tree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        else:
            remove_tree(self.state)


# --- looking at the host ---------------------------------------------------------------------------------------------


def control_group_root() -> Path:
    """Where the unified control group hierarchy is mounted (hybrid hosts have it aside)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        if tail.split()[0] == "cgroup2":
            return Path(head.split()[4])
    raise LabError("no cgroup2 is mounted on this host; machines need it: mount -t cgroup2 none /sys/fs/cgroup")


def clear_leftovers(command: Sequence[str]) -> None:
    """Take away what a killed systemd-nspawn of the same machine name left: newer ones refuse to start beside it."""
    names = [word.removeprefix("--machine=") for word in command if word.startswith("--machine=")]
    for name in names:
        export = Path("/run/systemd/nspawn/unix-export") / name
        if export in mount_points():
            run(["umount", str(export)])
        with contextlib.suppress(FileNotFoundError):
            export.rmdir()


def boot_id() -> str:
    """What tells this run of the kernel from all others; process numbers and start times come again."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def populated(group: Path) -> bool:
    """Whether a control group or one below it has processes."""
    try:
        return "populated 1" in (group / "cgroup.events").read_text()
    except FileNotFoundError:
        return False


def remove_group(group: Path) -> None:
    """Remove an empty control group with those below it."""
    if not group.is_dir():
        return
    for path in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
        path.rmdir()
    group.rmdir()


def kernel_offers(filesystem: str) -> bool:
    """Whether the kernel has a file system or can load it."""
    if f"\t{filesystem}\n" in Path("/proc/filesystems").read_text():
        return True
    return bool(shutil.which("modprobe")) and run(["modprobe", "--dry-run", filesystem], check=False).returncode == 0


def kernel_name(path: Path) -> str:
    """A kernel setting as sysctl(8) writes it, such as `net.ipv4.ip_forward`."""
    return ".".join(path.relative_to("/proc/sys").parts)


def interface_exists(name: str) -> bool:
    """Whether there is a network interface of this name."""
    try:
        return bool(socket.if_nametoindex(name))
    except OSError:
        return False


def interface_up(name: str) -> bool:
    """Whether an interface is switched on."""
    return "UP" in json.loads(run(["ip", "--json", "link", "show", "dev", name]).stdout)[0]["flags"]


def host_has_systemd() -> bool:
    """Whether systemd runs this host; then processes that stay are its units."""
    return Path("/run/systemd/system").is_dir()


def listens(address: str, port: int) -> bool:
    """Whether a TCP connection is taken."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def answers_ssh(address: str) -> bool:
    """Whether sshd says its first line."""
    try:
        with socket.create_connection((address, 22), timeout=2) as connection:
            connection.settimeout(2)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _unmount_below(directory: Path) -> None:
    for point in sorted(mount_points(), reverse=True):
        if point.is_relative_to(directory):
            run(["umount", "--lazy", str(point)])


def _upstream_proxy() -> str | None:
    """The proxy that the host's apt uses, if it is a plain URL."""
    shown = run(["apt-config", "dump", "--format", "%v%n", "Acquire::http::Proxy"], check=False).stdout.strip()
    return shown if shown.startswith("http") else None
