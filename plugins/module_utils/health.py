# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine says about its own health, as problems that name where to look."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, order=True)
class Problem:
    """Something that is not as it should be: what, what was found, what was wanted, and where to look next."""

    subject: str
    found: str
    wanted: str
    look: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.found}; wanted: {self.wanted}; look: {self.look}"

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True, order=True)
class Listener:
    """A socket that something listens on: `protocol` tcp or udp, `address` as ss prints it without the zone."""

    protocol: str
    address: str
    port: int

    @property
    def local(self) -> bool:
        """Reachable from this machine alone."""
        return self.address.startswith("127.") or self.address in ("::1", "[::1]")


def parse_listeners(text: str) -> list[Listener]:
    """Listeners in the output of `ss -Hltun` (ss(8)): netid, state, two queues, local address:port, peer."""
    found = set()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 5:
            continue
        address, _, port = fields[4].rpartition(":")
        if port.isdigit():
            found.add(Listener(fields[0], address.split("%")[0].strip("[]"), int(port)))
    return sorted(found)


def failed_units(text: str) -> list[str]:
    """Names of units in the output of `systemctl list-units --state=failed --output=json`."""
    units: list[dict[str, Any]] = json.loads(text or "[]")
    return sorted(str(unit["unit"]) for unit in units)


def parse_states(text: str) -> dict[str, str]:
    """Unit name to ActiveState, from `systemctl show --property=Id,ActiveState UNIT...`: blocks between blank lines."""
    states = {}
    for block in text.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in values:
            states[values["Id"]] = values.get("ActiveState", "unknown")
    return states


def unit_problems(failed: list[str], states: dict[str, str], wanted: list[str]) -> list[Problem]:
    """Units that failed, and wanted units (with their suffix, `postfix.service`) that are not active."""
    problems = [
        Problem(f"unit {unit}", "failed", "no failed unit", f"systemctl status {unit}; journalctl -b -u {unit}")
        for unit in failed
    ]
    for unit in wanted:
        state = states.get(unit, "not there")
        if state != "active" and unit not in failed:
            problems.append(
                Problem(f"unit {unit}", state, "active", f"systemctl status {unit}; journalctl -b -u {unit}")
            )
    return problems


def disk_problems(usage: dict[str, tuple[int, int]], highest: int) -> list[Problem]:
    """File systems fuller than `highest` percent; `usage` is mount point to (used, total), both in bytes or inodes."""
    problems = []
    for mount, (used, total) in usage.items():
        percentage = 100 * used // total if total else 0
        if percentage > highest:
            problems.append(
                Problem(
                    f"file system {mount}",
                    f"{percentage}% used",
                    f"at most {highest}%",
                    f"du -xh -d2 {mount} | sort -h | tail",
                )
            )
    return problems


def exposed_ports(listeners: list[Listener]) -> list[int]:
    """TCP ports that would answer others if the firewall let them in."""
    return sorted({listener.port for listener in listeners if listener.protocol == "tcp" and not listener.local})


@dataclass(frozen=True)
class Published:
    """What the roles of a machine say that runs on it: units with their suffix, and TCP ports for others."""

    units: list[str]
    ports: list[int]


def read_published(texts: dict[str, str]) -> tuple[Published, list[Problem]]:
    """Join the files that roles put in `health.d`: path to JSON `{"units": [str], "ports": [int]}`."""
    units: set[str] = set()
    ports: set[int] = set()
    problems = []
    for path, text in texts.items():
        try:
            content = json.loads(text)
            units.update(str(unit) for unit in content["units"])
            ports.update(int(port) for port in content["ports"])
        except (ValueError, KeyError, TypeError) as error:
            wanted = '{"units": [...], "ports": [...]}'
            problems.append(Problem(path, f"not readable ({error})", wanted, "run machines.yml again"))
    return Published(sorted(units), sorted(ports)), problems
