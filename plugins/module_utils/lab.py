# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's decisions: names, addresses, files and commands as plain data.

Nothing here touches the system; :mod:`lab_host` does. Sizes are bytes, addresses are text in their canonical form.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

FORMAT = 1
"""Version of the records in the state directory."""

IMAGE_FORMAT = 2
"""Raised when trees are built in another way, so that they are built anew."""

NAMES_PORT = 53
AUTHORITY_PORT = 5300
CACHE_PORT = 3142
KNOT_RUN = "/run/lab"
"""knot's pid file and control socket: in memory, because process numbers in a container come again."""

SERVICES_IMAGE = "services"
"""Name of the image with the lab's own daemons: dnsmasq, knot and apt-cacher-ng never get installed on the host."""

SERVICES_PACKAGES = ("apt-cacher-ng", "ca-certificates", "dnsmasq-base", "knot", "knot-dnssecutils", "knot-dnsutils")
HOST_PACKAGES = (
    "debian-archive-keyring",
    "iproute2",
    "mmdebstrap",
    "nftables",
    "openssh-client",
    "systemd-container",
)
"""What the host needs: it makes trees, networks and machines; the lab's daemons come from an image, not from here."""

MACHINE_PACKAGES = (
    "apt",
    "apt-utils",
    "ca-certificates",
    "dbus",
    "iproute2",
    "iputils-ping",
    "less",
    "libpam-systemd",
    "locales",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
    "tzdata",
)
"""What a machine has before Ansible sees it: little, but a real Debian that boots, answers ssh and runs modules."""

_LABEL = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
_INTERFACE_NAME_ROOM = 11  # IFNAMSIZ is 16 with its NUL; systemd-nspawn prefixes "vb-" (15 - 3 = 12, one spare)


class LabError(Exception):
    """A problem that an operator can act on; its text says what was found and what to do."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the lab is made with; the same for all machines of a host."""

    state: str = "/var/lib/bouwsteen-lab"
    bridge: str = "bouwsteen0"
    address: str = "10.213.0.1/24"
    address6: str = "fd00:b5::1/64"
    zone: str = "example"
    table: str = "bouwsteen_lab"

    @property
    def group(self) -> str:
        """Name for control groups and units; another lab on this host has another bridge."""
        return f"bouwsteen-lab-{self.bridge}"

    @property
    def network(self) -> ipaddress.IPv4Network:
        """IPv4 network of the bridge."""
        return ipaddress.IPv4Interface(self.address).network

    @property
    def network6(self) -> ipaddress.IPv6Network:
        """IPv6 network of the bridge."""
        return ipaddress.IPv6Interface(self.address6).network

    @property
    def host(self) -> str:
        """The host's IPv4 address on the bridge, without the prefix length."""
        return str(ipaddress.IPv4Interface(self.address).ip)

    @property
    def host6(self) -> str:
        """The host's IPv6 address on the bridge, without the prefix length."""
        return str(ipaddress.IPv6Interface(self.address6).ip)


@dataclasses.dataclass(frozen=True)
class Machine:
    """One throwaway machine as it should be."""

    name: str
    address: str
    address6: str
    image: str = "machine"
    memory: int | None = None
    options: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        """Name for interfaces and control groups: readable, stable, at most 11 characters."""
        return short_name(self.name)

    def record(self) -> dict[str, Any]:
        """JSON-able form, as kept in the state directory."""
        return {**dataclasses.asdict(self), "options": list(self.options), "short": self.short}


# --- names and addresses ---------------------------------------------------------------------------------------------


def short_name(name: str) -> str:
    """At most 11 characters from a fully qualified name: five of its first label and five of its digest.

    Two names differ here unless their SHA-256 agree in 20 bits; `parse_machines` refuses such a pair.
    """
    label = re.sub(r"[^a-z0-9]", "", name.split(".", maxsplit=1)[0].lower())[:5] or "m"
    return f"{label}-{hashlib.sha256(name.encode()).hexdigest()[:5]}"[:_INTERFACE_NAME_ROOM]


def address6_for(address: str, settings: Settings) -> str:
    """The IPv6 address that goes with an IPv4 address: same digits, so that 10.213.0.42 is fd00:b5::42."""
    host = int(ipaddress.IPv4Address(address)) - int(settings.network.network_address)
    return str(settings.network6.network_address + int(str(host), 16))


def parse_size(text: str | int | None) -> int | None:
    """Bytes of `512M`, `2G`, `2 GiB` or a plain number (binary multiples); None stays None."""
    if text is None or text == "":
        return None
    match = re.fullmatch(r"(\d+)\s*(?:([KMGT])(?:i?B)?)?", str(text).strip(), re.IGNORECASE)
    if not match:
        raise LabError(f"memory: not a size (found {text!r}); allowed: a number of bytes, or one with K, M, G or T")
    power = " KMGT".index(match[2].upper()) if match[2] else 0
    return int(match[1]) << (10 * power)


def parse_machines(items: Iterable[Mapping[str, Any]], settings: Settings) -> list[Machine]:
    """Machines from `[{name, address, address6?, memory?, image?, options?}]`; all problems at once as LabError."""
    problems: list[str] = []
    machines: list[Machine] = []
    for item in items:
        name, address = str(item["name"]), str(item["address"])
        address6 = item.get("address6")
        found = [*_name_problems(name, settings), *_address_problems(name, address, address6, settings)]
        try:
            memory = parse_size(item.get("memory"))
        except LabError as error:
            found.append(f"{name}: {error}")
            memory = None
        problems += found
        if not found:
            machines.append(
                Machine(
                    name=name,
                    address=address,
                    address6=str(ipaddress.IPv6Address(address6)) if address6 else address6_for(address, settings),
                    image=str(item.get("image") or "machine"),
                    memory=memory,
                    options=tuple(item.get("options") or ()),
                )
            )
    for field in ("name", "address", "address6", "short"):
        problems += _duplicates(machines, field)
    if problems:
        raise LabError("; ".join(sorted(problems)))
    return machines


def conflicts(wanted: Sequence[Machine], existing: Sequence[Machine]) -> list[str]:
    """Problems between wanted machines and those that the lab already has under other names."""
    names = {machine.name for machine in wanted}
    others = [machine for machine in existing if machine.name not in names]
    return sorted(
        f"{machine.name}: {field} {getattr(machine, field)} already belongs to machine {other.name} of this lab"
        for machine in wanted
        for other in others
        for field in ("address", "address6", "short")
        if getattr(machine, field) == getattr(other, field)
    )


def _name_problems(name: str, settings: Settings) -> list[str]:
    labels = name.split(".")
    if all(_LABEL.match(label) for label in labels) and len(name) <= 64 and name.endswith("." + settings.zone):
        return []
    allowed = f"lower-case host name of at most 64 characters under {settings.zone}, like m1.bouwsteen.{settings.zone}"
    return [f"{name}: not a machine name; allowed: {allowed}"]


def _address_problems(name: str, address: str, address6: object, settings: Settings) -> list[str]:
    problems = []
    pairs: list[tuple[str, object, ipaddress.IPv4Network | ipaddress.IPv6Network, str]] = [
        ("address", address, settings.network, settings.host)
    ]
    if address6:
        pairs.append(("address6", address6, settings.network6, settings.host6))
    for key, value, network, host in pairs:
        try:
            parsed = ipaddress.ip_address(str(value))
        except ValueError:
            parsed = None
        edges = {network.network_address, network.broadcast_address}
        if parsed is None or parsed not in network or parsed in edges or str(parsed) == host:
            problems.append(
                f"{name}: {key}: not usable (found {value}); allowed: an address of {network} other than {host}"
            )
    return problems


def _duplicates(machines: Sequence[Machine], field: str) -> list[str]:
    seen: dict[str, str] = {}
    problems = []
    for machine in machines:
        value = getattr(machine, field)
        if value in seen:
            problems.append(f"{machine.name}: {field} {value} is also that of {seen[value]}")
        seen.setdefault(value, machine.name)
    return problems


# --- the host's network ----------------------------------------------------------------------------------------------


def nft_ruleset(settings: Settings) -> str:
    """The lab's nft table, as a script that replaces the table in one transaction."""
    return f"""table inet {settings.table}
delete table inet {settings.table}
table inet {settings.table} {{
\tcomment "made by bouwsteen.hosting.lab; removed with the lab"
\tchain forward {{
\t\ttype filter hook forward priority mangle; policy accept;
\t\tiifname "{settings.bridge}" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
\t\toifname "{settings.bridge}" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
\t}}
\tchain postrouting {{
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tip saddr {settings.network} oifname != "{settings.bridge}" masquerade
\t}}
}}
"""


def firewall_obstacles(ruleset: Mapping[str, Any], settings: Settings) -> list[str]:
    """Foreign chains that would drop the machines' packets, from `nft --json list ruleset`.

    A base chain of hook input or forward with policy drop counts unless one of its rules names the bridge.
    """
    entries = ruleset.get("nftables", [])
    mentioned = {
        (rule["family"], rule["table"], rule["chain"])
        for rule in (entry["rule"] for entry in entries if "rule" in entry)
        if json.dumps(settings.bridge) in json.dumps(rule.get("expr", []))
    }
    obstacles = []
    for chain in (entry["chain"] for entry in entries if "chain" in entry):
        key = (chain["family"], chain["table"], chain["name"])
        foreign = chain["table"] != settings.table and chain["family"] in {"ip", "ip6", "inet"}
        drops = chain.get("hook") in {"input", "forward"} and chain.get("policy") == "drop"
        if foreign and drops and key not in mentioned:
            where = " ".join(key)
            obstacles.append(
                f"the firewall chain {where} of this host drops what it does not know, which cuts the lab off; allow"
                f' the bridge first: nft insert rule {where} iifname "{settings.bridge}" accept'
            )
    return obstacles


def address_obstacles(addresses: Sequence[Mapping[str, Any]], settings: Settings) -> list[str]:
    """Interfaces other than the bridge that use the lab's networks, from `ip --json address`."""
    obstacles = []
    for interface in addresses:
        if interface.get("ifname") == settings.bridge:
            continue
        for info in interface.get("addr_info", []):
            if info.get("scope") == "link" or "local" not in info:
                continue
            network = ipaddress.ip_interface(f"{info['local']}/{info['prefixlen']}").network
            wanted = settings.network if network.version == 4 else settings.network6
            if network.overlaps(wanted):
                obstacles.append(
                    f"interface {interface['ifname']} already uses {info['local']}/{info['prefixlen']}, which overlaps"
                    f" the lab's {wanted}; set lab_bridge_address and lab_bridge_address6 to networks that are free"
                )
    return obstacles


def port_obstacles(sockets: Mapping[str, str]) -> list[str]:
    """Programs that listen on all addresses at a port that the lab needs on the bridge.

    `sockets` maps tcp, tcp6, udp and udp6 to the text of that file in /proc/net (proc(5): local address, remote
    address, state; 0A is LISTEN, 07 an unconnected UDP socket).
    """
    needed = {(protocol, port) for port in (NAMES_PORT, AUTHORITY_PORT) for protocol in ("tcp", "udp")} | {
        ("tcp", CACHE_PORT)
    }
    taken = set()
    for kind, text in sockets.items():
        for line in text.splitlines()[1:]:
            _slot, local, remote, state, *_rest = line.split()
            address, _, port = local.partition(":")
            listening = state == "0A" or (state == "07" and remote.endswith(":0000"))
            if listening and not address.strip("0"):
                taken.add((kind[:3], int(port, 16)))
    return [
        f"a program on this host listens on all addresses at {protocol} port {port}, which the lab needs on its bridge;"
        f" see ss --{protocol} --listening --processes and bind the program to its own addresses"
        for protocol, port in sorted(needed & taken)
    ]


def network_unit(machine: Machine, settings: Settings) -> str:
    """systemd-networkd's file for the machine's only interface, as it is before the first boot."""
    prefix, prefix6 = settings.network.prefixlen, settings.network6.prefixlen
    return f"""# Written by the lab before the first boot.
[Match]
Name=host0

[Network]
Address={machine.address}/{prefix}
Address={machine.address6}/{prefix6}
Gateway={settings.host}
DNS={settings.host}
IPv6AcceptRA=no
LinkLocalAddressing=ipv6
"""


def machine_files(machine: Machine, settings: Settings, public_key: str, host_key: str) -> dict[str, tuple[str, int]]:
    """Files laid into a new machine before it boots: path -> (content, mode).

    They are written once, when the machine is made; afterwards they belong to the machine.
    """
    first = machine.name.split(".", maxsplit=1)[0]
    hosts = (
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
        f"{machine.address} {machine.name} {first}\n{machine.address6} {machine.name} {first}\n"
    )
    return {
        "etc/hostname": (machine.name + "\n", 0o644),
        "etc/hosts": (hosts, 0o644),
        "etc/resolv.conf": (f"nameserver {settings.host}\noptions edns0 trust-ad\n", 0o644),
        "etc/systemd/network/10-host0.network": (network_unit(machine, settings), 0o644),
        "etc/apt/apt.conf.d/80lab-cache": (apt_proxy(settings), 0o644),
        "etc/ssh/ssh_host_ed25519_key": (host_key, 0o600),
        "root/.ssh/authorized_keys": (public_key, 0o600),
    }


def apt_proxy(settings: Settings) -> str:
    """apt's configuration that fetches packages through the lab's cache."""
    return (
        f'Acquire::http::Proxy "http://{settings.host}:{CACHE_PORT}";\n'
        f'Acquire::https::Proxy "http://{settings.host}:{CACHE_PORT}";\n'
    )


# --- images ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Mirror:
    """Where packages come from: the host's own sources, with the machines' suite put in."""

    main: str
    security: str

    def sources(self, suite: str) -> list[str]:
        """Lines of sources.list for one suite with its updates and security fixes."""
        return [
            f"deb {self.main} {suite} main",
            f"deb {self.main} {suite}-updates main",
            f"deb {self.security} {suite}-security main",
        ]


INDEX_FORMAT = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(LABEL)"
"""`apt-get indextargets --format`: one line per index, the label last because it may be empty or hold blanks."""


DEBIAN_SUITES = {"bookworm", "trixie", "forky", "oldstable", "stable", "testing", "unstable", "sid"}


def mirror_from_indextargets(text: str, mirror_lists: Mapping[str, str] | None = None) -> Mirror:
    """The host's Debian mirrors, from `apt-get indextargets --format INDEX_FORMAT 'Created-By: Packages'`.

    `mirror_lists` maps the path of a `mirror+file:` source to its text: Debian's cloud images have those.
    """
    main: str | None = None
    security: str | None = None
    for line in text.splitlines():
        uri, release, component, *label = line.split(maxsplit=3)
        # Before the first `apt-get update` there are no labels: then the suite's name must speak for the archive.
        known = re.split(r"[-/]", release)[0] in DEBIAN_SUITES
        name = label[0] if label else "Debian" if known else ""
        if component != "main" or not name.startswith("Debian"):
            continue
        resolved = _resolve_mirror_list(uri, mirror_lists or {})
        if name == "Debian-Security" or release.endswith(("-security", "/updates")):
            security = security or resolved
        elif name == "Debian" and "backports" not in release:
            main = main or resolved
    missing = [what for what, uri in (("main", main), ("security", security)) if not uri]
    if not main or not security:
        raise LabError(
            f"no Debian {' or '.join(missing)} archive among the host's package sources; the lab takes its mirrors from"
            " there: add it to /etc/apt, or set lab_mirror and lab_mirror_security"
        )
    return Mirror(main=main, security=security)


def _resolve_mirror_list(uri: str, mirror_lists: Mapping[str, str]) -> str | None:
    if not uri.startswith("mirror"):
        return uri.rstrip("/")
    path = "/" + uri.split(":", maxsplit=1)[1].lstrip("/")
    for line in mirror_lists.get(path.rstrip("/"), "").splitlines():
        words = line.split("#", maxsplit=1)[0].split()
        if words:
            return words[0].rstrip("/")
    return None


@dataclasses.dataclass(frozen=True)
class Image:
    """One file tree that machines start from, or that tests use without booting it."""

    name: str
    packages: tuple[str, ...]
    suite: str = "trixie"
    bootable: bool = True

    @property
    def script(self) -> str:
        """The last steps of this image, for sh, run in the tree."""
        return IMAGE_SCRIPT + BOOTABLE_SCRIPT if self.bootable else IMAGE_SCRIPT

    def recipe(self, mirror: Mirror) -> dict[str, Any]:
        """What the tree is made of; another recipe is another tree."""
        return {
            "format": IMAGE_FORMAT,
            "name": self.name,
            "packages": sorted(self.packages),
            "sources": mirror.sources(self.suite),
            "bootable": self.bootable,
            "steps": hashlib.sha256(self.script.encode()).hexdigest(),
        }

    def digest(self, mirror: Mirror) -> str:
        """Twelve hexadecimal digits that name the tree of this recipe."""
        return hashlib.sha256(json.dumps(self.recipe(mirror), sort_keys=True).encode()).hexdigest()[:12]


IMAGE_SCRIPT = """set -eu
mkdir -p lab
"""
"""Last steps of every tree: a place where the lab's daemons find their state (the tree itself is mounted read-only)."""

BOOTABLE_SCRIPT = """rmdir lab
rm -f etc/ssh/ssh_host_* etc/resolv.conf etc/hostname
: > etc/machine-id
rm -f var/lib/dbus/machine-id
chroot . systemctl enable --quiet systemd-networkd.service ssh.service
chroot . systemctl mask --quiet systemd-networkd-wait-online.service getty@.service console-getty.service
"""
"""Last steps of a bootable tree, run in it: nothing that identifies a machine stays, the network comes up."""


def mmdebstrap_command(image: Image, mirror: Mirror, target: str, script: str, proxy: str | None = None) -> list[str]:
    """The command that builds an image's tree in the directory `target`."""
    command = [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--format=directory",
        "--variant=minbase",
        "--components=main",
        "--include=" + ",".join(sorted(image.packages)),
        '--aptopt=Acquire::Languages "none"',
        "--skip=cleanup/reproducible",
    ]
    if proxy:
        # An option for the command, not for the tree: --aptopt would stay in the machine.
        command += [f'--setup-hook=printf "%s" \'{proxy}\' > "$1/etc/apt/apt.conf.d/80lab-cache"']
        command += ['--customize-hook=rm -f "$1/etc/apt/apt.conf.d/80lab-cache"']
    return [*command, f'--customize-hook=cd "$1" && sh {script}', image.suite, target, *mirror.sources(image.suite)]


# --- processes -------------------------------------------------------------------------------------------------------


def nspawn_command(machine: Machine, root: str, settings: Settings) -> list[str]:
    """The command that boots a machine from the mounted tree `root`."""
    return [
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--register=no",
        "--keep-unit",
        "--settings=no",
        f"--machine={machine.short}",
        f"--hostname={machine.name}",
        f"--directory={root}",
        f"--network-bridge={settings.bridge}",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        *machine.options,
    ]


def service_command(
    tree: str, name: str, command: Sequence[str], binds: Mapping[str, str], user: str | None = None
) -> list[str]:
    """The command that runs one of the lab's daemons out of the services image, in the host's network.

    `binds` maps a host path to the path inside; one that begins with `ro:` inside is bound read-only.
    """
    options = [
        "--bind-ro=" + f"{outside}:{inside.removeprefix('ro:')}"
        if inside.startswith("ro:")
        else f"--bind={outside}:{inside}"
        for outside, inside in binds.items()
    ]
    return [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--settings=no",
        "--as-pid2",
        "--read-only",
        "--tmpfs=/var/tmp",
        f"--tmpfs={KNOT_RUN}:mode=1777",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--console=pipe",
        f"--machine={name}",
        f"--directory={tree}",
        *([f"--user={user}"] if user else []),
        *options,
        "--",
        *command,
    ]


RUN_IN_GROUP = """set -u
group=$1; loop=$2; shift 2
[ "$group" != self ] || group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir -p "$group/loop" && echo $$ > "$group/loop/cgroup.procs" || exit 1
while :; do
  [ ! -d "$group/inner" ] || find "$group/inner" -depth -type d -exec rmdir {} +
  mkdir "$group/inner" || exit 1
  sh -c 'echo $$ > "$0/cgroup.procs" && exec "$@"' "$group/inner" "$@" && status=0 || status=$?
  [ "$loop $status" = "reboot 133" ] || exit "$status"
done
"""
"""Script with arguments GROUP reboot|once COMMAND...: runs a command in a control group of its own.

Each machine needs one: systemd-nspawn with --keep-unit divides the group it finds itself in, and two machines in one
group would take each other's processes for their own. With --keep-unit it also leaves a reboot to its caller, by exit
status 133. The loop lives beside the command's group, because a group with processes cannot hand controllers down.
`self` means the group that the shell was started in (a unit of the host's systemd).
"""


def stat_start_time(stat: str) -> int:
    """Start time of a process, in clock ticks since boot, from /proc/PID/stat (field 22 of proc(5))."""
    return int(stat.rpartition(")")[2].split()[19])


# --- name resolution -------------------------------------------------------------------------------------------------


def dnsmasq_config(settings: Settings) -> str:
    """dnsmasq on the bridge: the host's names and resolver, and the lab's zones from the authority.

    Nothing is cached: an answer may change with each run, and validating resolvers behind it must see DNSSEC as it is.
    """
    authority = f"{settings.host}#{AUTHORITY_PORT}"
    zones = "".join(f"server=/{zone}/{authority}\n" for zone in [settings.zone, *reverse_zones(settings)])
    return f"""user=dnsmasq
bind-interfaces
listen-address={settings.host}
listen-address={settings.host6}
no-hosts
addn-hosts=/lab/hosts
resolv-file=/lab/resolv.conf
no-poll
cache-size=0
edns-packet-max=1232
log-facility=-
{zones}"""


def hosts_for_machines(text: str) -> str:
    """The host's /etc/hosts without its loopback lines: those mean another machine where they are read."""
    lines = []
    for line in text.splitlines():
        words = line.split("#", maxsplit=1)[0].split()
        try:
            if len(words) > 1 and not ipaddress.ip_address(words[0].split("%")[0]).is_loopback:
                lines.append(" ".join(words))
        except ValueError:
            continue
    return "".join(line + "\n" for line in lines)


def resolvers_for_machines(text: str, settings: Settings) -> str:
    """The name servers of the host's resolv.conf, without the lab's own address (a loop)."""
    servers = re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE)
    return "".join(f"nameserver {server}\n" for server in servers if server not in {settings.host, settings.host6})


def reverse_zones(settings: Settings) -> list[str]:
    """The reverse zones of the bridge's networks, cut at an octet and a nibble."""
    octets = str(settings.network.network_address).split(".")[: settings.network.prefixlen // 8]
    nibbles = settings.network6.network_address.exploded.replace(":", "")[: settings.network6.prefixlen // 4]
    return [".".join(reversed(octets)) + ".in-addr.arpa", ".".join(reversed(nibbles)) + ".ip6.arpa"]


def knot_config(settings: Settings) -> str:
    """knot as the authority: the lab's zone signed, its reverse zones not."""
    reverse = "".join(f"  - domain: {zone}.\n    file: {zone}.zone\n" for zone in reverse_zones(settings))
    return f"""server:
    listen: [ {settings.host}@{AUTHORITY_PORT} ]
    user: knot:knot
    rundir: {KNOT_RUN}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: /lab/database
policy:
  - id: lab
    algorithm: ecdsap256sha256
    ksk-lifetime: 0
    zsk-lifetime: 0
template:
  - id: default
    storage: /lab/zones
    zonefile-sync: -1
    zonefile-load: difference-no-serial
    journal-content: all
    serial-policy: unixtime
    semantic-checks: on
zone:
  - domain: {settings.zone}.
    file: {settings.zone}.zone
    dnssec-signing: on
    dnssec-policy: lab
{reverse}"""


ZONE_TTL = 60
FRAGMENT_MARK = "; fragment "


def zone_head(settings: Settings) -> str:
    """The part of each zone that the lab answers for itself."""
    zone = settings.zone
    return f"$TTL {ZONE_TTL}\n@ SOA ns.{zone}. hostmaster.{zone}. 1 3600 600 1209600 5\n@ NS ns.{zone}.\n"


def zone_text(machines: Iterable[Machine], fragments: Mapping[str, str], settings: Settings) -> str:
    """The lab's zone: its own records, the machines' addresses, then each fragment below a line that names it."""
    lines = [
        f"$ORIGIN {settings.zone}.\n",
        zone_head(settings),
        f"ns A {settings.host}\nns AAAA {settings.host6}\n",
    ]
    lines += [
        f"{machine.name}. A {machine.address}\n{machine.name}. AAAA {machine.address6}\n"
        for machine in sorted(machines, key=lambda machine: machine.name)
    ]
    for name in sorted(fragments):
        text = fragments[name]
        lines.append(f"{FRAGMENT_MARK}{name}\n$ORIGIN {settings.zone}.\n$TTL {ZONE_TTL}\n")
        lines.append(text if text.endswith("\n") or not text else text + "\n")
    return "".join(lines)


def reverse_zone_texts(machines: Iterable[Machine], settings: Settings) -> dict[str, str]:
    """Reverse zones by name, with a PTR for each machine and for the host."""
    zones = reverse_zones(settings)
    records: dict[str, list[str]] = {zone: [] for zone in zones}
    named = [(machine.name, machine.address, machine.address6) for machine in machines]
    for name, *addresses in [*named, (f"ns.{settings.zone}", settings.host, settings.host6)]:
        for address in addresses:
            pointer = ipaddress.ip_address(address).reverse_pointer
            zone = next(zone for zone in zones if pointer.endswith("." + zone))
            records[zone].append(f"{pointer}. PTR {name}.\n")
    return {
        zone: f"$ORIGIN {zone}.\n" + zone_head(settings) + "".join(sorted(lines)) for zone, lines in records.items()
    }


def zone_problems(said: str, zone: str, failed: bool = False) -> list[str]:
    """What kzonecheck has against a zone, in the operator's terms: fragment, line in it, problem.

    `said` is its output with -v, `zone` the text of `zone_text` that it read. A record outside the zone, which knot
    drops with a warning, is a problem here: who wrote it expects it to be served.
    """
    problems = []
    for line in said.splitlines():
        syntax = re.search(r"line (\d+) \((.*)\)$", line)
        outside = re.search(r"\[([^\]]+)\.\] .*out-of-zone data, owner (\S+)$", line)
        semantic = re.match(r"(?:\w+: )?\[([^\]]+)\] (.*)$", line)
        if syntax:
            problems.append(f"{_place_in_zone(int(syntax[1]), zone)}: {syntax[2]}")
        elif outside:
            problems.append(f"{outside[2]}: not in the zone {outside[1]}")
        elif semantic and "zone loader" not in line:
            problems.append(f"{semantic[1]}: {semantic[2]}")
    if failed and not problems:
        problems.append(" ".join(said.split()))
    return problems


def _place_in_zone(number: int, zone: str) -> str:
    """Fragment and line in it for a line number of the assembled zone."""
    fragment, start = "the lab's own records", 0
    for index, line in enumerate(zone.splitlines()[:number], start=1):
        if line.startswith(FRAGMENT_MARK):
            # The fragment's own text begins after this line, $ORIGIN and $TTL.
            fragment, start = line.removeprefix(FRAGMENT_MARK), index + 2
    return f"{fragment} line {number - start}"


# --- package cache ---------------------------------------------------------------------------------------------------


def cache_command(settings: Settings, upstream_proxy: str | None = None) -> list[str]:
    """apt-cacher-ng in the foreground, on the bridge address only."""
    options = [
        "ForeGround=1",
        f"BindAddress={settings.host}",
        f"Port={CACHE_PORT}",
        "CacheDir=/lab/packages",
        "LogDir=/lab/log",
        "SocketPath=",
        "VerboseLog=1",
        "ExThreshold=30",
        # What cannot be cached (an https source) still gets through.
        "PassThroughPattern=.*",
    ]
    if upstream_proxy:
        options.append(f"Proxy={upstream_proxy}")
    return ["/usr/sbin/apt-cacher-ng", "-c", "/etc/apt-cacher-ng", *options]


# --- ssh -------------------------------------------------------------------------------------------------------------


def known_hosts(keys: Iterable[tuple[Machine, str]]) -> str:
    """known_hosts lines of all machines: name and both addresses before the public host key."""
    return "".join(
        f"{machine.name},{machine.address},{machine.address6} {' '.join(key.split()[:2])}\n"
        for machine, key in sorted(keys, key=lambda pair: pair[0].name)
    )


def ssh_config(machines: Iterable[Machine], settings: Settings) -> str:
    """`ssh -F` file: each machine by its name, host keys checked against the lab's own list."""
    state = PurePosixPath(settings.state)
    lines = [
        f"Host {machine.name}\n    HostName {machine.address}\n"
        for machine in sorted(machines, key=lambda machine: machine.name)
    ]
    return "".join(lines) + (
        "Host *\n    User root\n    BatchMode yes\n    StrictHostKeyChecking yes\n"
        f"    IdentityFile {state / 'ssh/id_ed25519'}\n    IdentitiesOnly yes\n"
        f"    UserKnownHostsFile {state / 'ssh/known_hosts'}\n"
    )


def table(listing: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each machine: name, addresses, state, in columns."""
    keys = ("name", "address", "address6", "state")
    widths = {key: max((len(str(row[key])) for row in listing), default=0) for key in keys}
    return ["  ".join(str(row[key]).ljust(widths[key]) for key in keys).rstrip() for row in listing]


# --- inventory -------------------------------------------------------------------------------------------------------

HOST_VARIABLES = {
    "lab_address": "address",
    "lab_address6": "address6",
    "lab_memory": "memory",
    "lab_image": "image",
    "lab_options": "options",
}
"""Variables of an inventory host that make it a machine of the lab, and the machine's key for each."""


def machines_of_inventory(names: Iterable[str], variables: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Machines as `parse_machines` takes them, from the hosts that have a `lab_address`."""
    return [
        {"name": name, **{key: variables[name][var] for var, key in HOST_VARIABLES.items() if var in variables[name]}}
        for name in names
        if "lab_address" in variables[name]
    ]
