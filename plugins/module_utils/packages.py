# SPDX-License-Identifier: GPL-3.0-or-later
"""What module ``packages`` decides: which Debian packages have to be installed or upgraded, and why.

A *floor* is the lowest version that may be installed, for instance the one that fixed a hole. Versions compare as
Debian Policy 5.6.12 and deb-version(7) say. Nothing here touches a machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

_NAME = re.compile(r"[a-z0-9][a-z0-9+.\-]+(:[a-z0-9]+)?")
_VERSION = re.compile(r"(\d+:)?[A-Za-z0-9.+~\-]+")


class PackageError(ValueError):
    """A request that cannot be met; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A package, with the lowest version that will do ("" for any)."""

    name: str
    floor: str = ""


def parse_wanted(text: str) -> Wanted:
    """`postfix` or `postfix>=3.10.13-0+deb13u1`."""
    name, found, floor = (part.strip() for part in text.partition(">="))
    if not _NAME.fullmatch(name):
        raise PackageError(f"{text!r} is not a package: write NAME or NAME>=VERSION")
    if found and not _VERSION.fullmatch(floor):
        raise PackageError(f"{text!r} has no proper version behind '>=': write NAME>=VERSION")
    return Wanted(name, floor)


def _weight(character: str) -> int:
    """Order of one character in the part of a version that is not digits: `~` before the end, letters before others."""
    if character == "~":
        return -1
    if character.isalpha():
        return ord(character)
    return ord(character) + 256 if character else 0


def _compare_part(left: str, right: str) -> int:
    """Compare an upstream version or a revision: by turns runs of non-digits and numbers."""
    for one, other in zip_longest(re.findall(r"\D*\d*", left), re.findall(r"\D*\d*", right), fillvalue=""):
        words = [re.fullmatch(r"(\D*)(\d*)", part) for part in (one, other)]
        texts = [word[1] if word else "" for word in words]
        for a, b in zip_longest(*texts, fillvalue=""):
            if _weight(a) != _weight(b):
                return -1 if _weight(a) < _weight(b) else 1
        numbers = [int(word[2] or 0) if word else 0 for word in words]
        if numbers[0] != numbers[1]:
            return -1 if numbers[0] < numbers[1] else 1
    return 0


def compare_versions(left: str, right: str) -> int:
    """-1, 0 or 1, as the left version is lower than, equal to or higher than the right one."""

    def split(version: str) -> tuple[int, str, str]:
        epoch, found, rest = version.partition(":")
        if not found:
            epoch, rest = "0", version
        upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
        return int(epoch), upstream, revision

    one, other = split(left), split(right)
    if one[0] != other[0]:
        return -1 if one[0] < other[0] else 1
    return _compare_part(one[1], other[1]) or _compare_part(one[2], other[2])


def parse_installed(text: str) -> dict[str, str]:
    """Read `dpkg-query --show` with the format of `QUERY`: name -> version of what is fully installed.

    Packages for another architecture are named with it; the rest under their plain name.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, _, rest = line.partition("\t")
        status, _, version = rest.partition("\t")
        if status == "installed":
            found[name.partition(":")[0]] = version
            found[name] = version
    return found


QUERY = "${binary:Package}\t${db:Status-Status}\t${Version}\n"


@dataclass(frozen=True, slots=True)
class Need:
    """A package that has to be installed or upgraded. `installed`: its present version, "" for none."""

    name: str
    floor: str
    installed: str

    @property
    def because(self) -> str:
        """Why, for the operator."""
        if not self.installed:
            return f"{self.name} is not installed"
        return f"{self.name} is {self.installed}, at least {self.floor} is wanted"


def _higher(one: str, other: str) -> str:
    if not one or not other:
        return one or other
    return one if compare_versions(one, other) >= 0 else other


def needs(wanted: Iterable[Wanted], floors: Mapping[str, str], installed: Mapping[str, str]) -> list[Need]:
    """What is missing, or below its floor. `floors` bind every package that is wanted or installed."""
    lowest: dict[str, str] = {}
    for package in wanted:
        lowest[package.name] = _higher(lowest.get(package.name, ""), package.floor)
    for name, floor in floors.items():
        if name in lowest or name in installed:
            lowest[name] = _higher(lowest.get(name, ""), floor)
    found = [Need(name, floor, installed.get(name, "")) for name, floor in lowest.items()]
    return [
        need
        for need in found
        if not need.installed or (need.floor and compare_versions(need.installed, need.floor) < 0)
    ]


def parse_policy(text: str) -> dict[str, str]:
    """Read `apt-cache policy NAME...`: name -> version that would be installed; packages without one are left out."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line and not line.startswith(" ") and line.endswith(":"):
            name = line[:-1]
        elif line.startswith("  Candidate: "):
            version = line.removeprefix("  Candidate: ").strip()
            if version != "(none)":
                found[name] = version
    return found


def unmet(wanted: Sequence[Need], candidates: Mapping[str, str]) -> list[str]:
    """Which needs the package sources cannot meet, one line each."""
    lines: list[str] = []
    for need in wanted:
        candidate = candidates.get(need.name)
        if candidate is None:
            lines.append(f"package {need.name}: the package sources do not have it")
        elif need.floor and compare_versions(candidate, need.floor) < 0:
            now = f", installed is {need.installed}" if need.installed else ""
            lines.append(
                f"package {need.name}: at least {need.floor} is wanted, the package sources have {candidate}{now}"
            )
    return lines


def parse_simulation(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Read `apt-get --simulate`: name -> version before, and name -> version after, of all that would change."""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    for line in text.splitlines():
        match = re.match(r"(Inst|Remv|Purg) (\S+)(?: \[([^\]]+)\])?(?: \((\S+))?", line)
        if match is None:
            continue
        verb, name, old, new = match.groups()
        if old:
            before[name] = old
        if verb == "Inst" and new:
            after[name] = new
    return before, after


def listing(versions: Mapping[str, str]) -> str:
    """`name version`, one line each, sorted: what a difference shows."""
    return "".join(f"{name} {version}\n" for name, version in sorted(versions.items()))
