# SPDX-License-Identifier: GPL-3.0-or-later
"""What the telephony image is: its name, the package archive that it is pinned to, its recipe, its manifest. Pure.

An image is a file tree with Asterisk, Kamailio and rtpengine that units use as their root, read-only. It is built once,
travels as one compressed archive beside its manifest, and is unpacked only if the archive is the one of the manifest.
"""

from __future__ import annotations

import datetime
import email.utils
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FORMAT = 1
PROGRAMS = {
    "asterisk": ("asterisk -V", re.compile(r"Asterisk (\d+(?:\.\d+)+)")),
    "kamailio": ("kamailio -v", re.compile(r"version: kamailio (\d+(?:\.\d+)+)")),
    "rtpengine": ("rtpengine --version", re.compile(r"Version: (\d+(?:\.\d+)+)")),
}
"""Program -> how it is asked for its version, and where the version is in what it says."""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "source": {"type": "str", "choices": ["build", "archive"], "default": "archive"},
    "directory": {"type": "path", "default": "/var/lib/bouwsteen/telephony"},
    "archives": {"type": "path"},
    "publish": {"type": "bool", "default": True},
    "archive_sha256": {"type": "str", "default": ""},
    "suite": {"type": "str", "default": "forky"},
    "release_sha256": {"type": "str", "default": ""},
    "mirror": {"type": "str", "default": ""},
    "packages": {"type": "list", "elements": "str", "default": []},
    "versions": {"type": "dict", "default": {}},
    "keep": {"type": "int", "default": 2},
    "current": {"type": "bool", "default": True},
    "contents": {"type": "bool", "default": False},
    "manifest": {"type": "dict"},
    "archive": {"type": "path"},
}
"""Arguments of module ``telephony_image``; the last two are between its two halves."""

_NAME = re.compile(r"(?P<version>\d+(?:\.\d+)+)-(?P<date>\d{8})(?:-(?P<revision>[1-9]\d{0,3}))?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.\-]+")
_SUITE = re.compile(r"[a-z][a-z0-9\-]*")
_MIRROR = re.compile(r"(https?|file)://?[^\s\"'\[\]]+")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class ImageError(ValueError):
    """Why an image cannot be had; the text is for the operator."""


# --- names -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Name:
    """`22.10.1-20261030` or `22.10.1-20261030-2`: Asterisk's version, the day of the packages, and a revision."""

    version: str
    date: datetime.date
    revision: int = 1

    def __str__(self) -> str:
        suffix = f"-{self.revision}" if self.revision > 1 else ""
        return f"{self.version}-{self.date:%Y%m%d}{suffix}"

    @property
    def age(self) -> tuple[datetime.date, tuple[int, ...], int]:
        """What images are ordered by, oldest first: the day, then the version, then the revision."""
        return self.date, tuple(map(int, self.version.split("."))), self.revision

    @property
    def next(self) -> Name:
        """The name for the same packages with another recipe."""
        return Name(self.version, self.date, self.revision + 1)


def parse_name(text: str) -> Name:
    """Read a name; ImageError if it is none."""
    match = _NAME.fullmatch(text)
    try:
        if not match:
            raise ValueError
        date = datetime.datetime.strptime(match["date"], "%Y%m%d").date()
    except ValueError:
        raise ImageError(
            f"{text!r} is no name of an image: write VERSION-YYYYMMDD, Asterisk's version and the day of the packages,"
            " with -2 behind it for another recipe of the same packages"
        ) from None
    return Name(match["version"], date, int(match["revision"] or 1))


# --- recipe ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is made of. `versions`: program -> leading part of the version that it has to have."""

    name: Name
    suite: str
    packages: tuple[str, ...]
    release_sha256: str
    versions: Mapping[str, str]


def recipe(name: str, suite: str, packages: Iterable[str], release_sha256: str, versions: Mapping[str, Any]) -> Recipe:
    """A recipe out of arguments; ImageError names everything that is wrong with them."""
    problems = []
    if not _SUITE.fullmatch(suite):
        problems.append(f"{suite!r} is no Debian suite")
    chosen = tuple(sorted(set(packages)))
    problems += [f"{package!r} is no package: write NAME" for package in chosen if not _PACKAGE.fullmatch(package)]
    problems += checksum_problems("the release file", release_sha256)
    problems += [f"{program} is not a program of the image" for program in sorted(set(versions) - set(PROGRAMS))]
    if not chosen:
        problems.append("no packages to build from")
    parsed = parse_name(name)
    if problems:
        raise ImageError("; ".join(problems))
    return Recipe(parsed, suite, chosen, release_sha256, {key: str(value) for key, value in versions.items()})


def checksum_problems(what: str, text: str) -> list[str]:
    """What is wrong with an optional checksum."""
    return [f"{text!r} is no SHA-256 checksum of {what}"] if text and not _SHA256.fullmatch(text) else []


def checked_mirror(uri: str) -> str:
    """An archive's address as it goes into a source line."""
    if not _MIRROR.fullmatch(uri):
        raise ImageError(f"{uri!r} is no address of a package archive: write for example http://HOST/debian")
    return uri.rstrip("/")


# --- the release file ------------------------------------------------------------------------------------------------


def release_fields(text: str) -> dict[str, str]:
    """The single-line fields of a Release or InRelease file (Debian repository format), by lower-case name."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("-----BEGIN PGP SIGNATURE"):
            break
        match = re.fullmatch(r"([A-Za-z-]+): (.+)", line)
        if match:
            found.setdefault(match[1].lower(), match[2].strip())
    return found


def release_date(text: str) -> datetime.datetime:
    """When the archive was published; ImageError if the file does not say it."""
    value = release_fields(text).get("date", "")
    try:
        found = email.utils.parsedate_to_datetime(value)
    except ValueError as error:
        raise ImageError(f"the release file of the package archive has no date (found {value!r})") from error
    return found.replace(tzinfo=datetime.UTC) if found.tzinfo is None else found.astimezone(datetime.UTC)


def release_problem(text: str, sha256: str, wanted: Recipe) -> str:
    """Why this release file, of which the checksum is given, is not the pinned one; "" if it is."""
    fields, found = release_fields(text), release_date(text)
    if wanted.suite not in {fields.get("codename"), fields.get("suite")}:
        return f"the package archive is of {fields.get('codename', 'no suite')}, not of {wanted.suite}"
    if found.date() != wanted.name.date:
        return (
            f"the package archive is of {found:%Y-%m-%d %H:%M:%S} UTC, image {wanted.name} is pinned to"
            f" {wanted.name.date}: name an archive of that day as mirror, take the image's archive from a site that has"
            " it, or pin to what there is"
        )
    if wanted.release_sha256 and sha256 != wanted.release_sha256:
        return (
            f"the release file of the package archive has checksum {sha256}, image {wanted.name} is pinned to"
            f" {wanted.release_sha256}"
        )
    return ""


# --- building --------------------------------------------------------------------------------------------------------

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
APT_CONF = "etc/apt/apt.conf.d/80image"
# Nobody reads manuals in an image; legal texts stay.
LEFT_OUT = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
)


def apt_configuration(proxies: Mapping[str, str]) -> str:
    """apt's settings while the image is built. `proxies`: option -> address, as the machine's own apt has them.

    The pin takes the place of Valid-Until: an archive of a given day is past that date as soon as the next one is out.
    """
    lines = ['Acquire::Check-Valid-Until "false";', 'Acquire::Languages "none";', 'Acquire::Retries "3";']
    lines += [f'{name} "{address}";' for name, address in sorted(proxies.items())]
    return "".join(f"{line}\n" for line in lines)


def proxies(dump: str) -> dict[str, str]:
    """The proxies among what `apt-config dump` prints."""
    found = re.findall(r'^(Acquire::(?:http|https)::Proxy(?:::[\w.\-]+)?) "([^"\s]+)";$', dump, re.M)
    return dict(found)


def pin_script(wanted: Recipe, out: str) -> str:
    """Compares the index with the pin after apt has checked its signature, and before anything of it is unpacked."""
    kept = shlex.quote(f"{out}/InRelease")
    day = wanted.name.date
    line = f"Date: {_DAYS[day.weekday()]}, {day.day:02} {_MONTHS[day.month - 1]} {day.year} "
    lines = ["set -eu", f'cat "$1"/var/lib/apt/lists/*_InRelease >{kept}', f"grep -q {shlex.quote('^' + line)} {kept}"]
    if wanted.release_sha256:
        lines.append(f"echo {shlex.quote(f'{wanted.release_sha256}  {out}/InRelease')} | sha256sum --check --status")
    return "\n".join(lines) + "\n"


def finish_script(out: str) -> str:
    """Last steps in the tree: what it holds is written down, what would identify or configure a machine goes.

    The directories that units mount something on stay, empty: in a read-only root nobody can make them later.
    """
    lines = ["set -eu", 'cd "$1"']
    lines += [f"chroot . {ask} >{shlex.quote(f'{out}/{name}')} 2>&1" for name, (ask, _) in PROGRAMS.items()]
    lines += [
        f"chroot . dpkg-query --show --showformat='${{Package}}\\t${{Version}}\\n' >{shlex.quote(f'{out}/packages')}",
        f"chroot . dpkg --print-architecture >{shlex.quote(f'{out}/architecture')}",
        f"rm -f {APT_CONF} etc/apt/sources.list etc/apt/sources.list.d/* etc/hostname etc/resolv.conf etc/machine-id",
        "rm -rf etc/asterisk etc/kamailio etc/rtpengine var/log/asterisk var/spool/asterisk var/log/kamailio",
        "mkdir -p etc/asterisk etc/kamailio etc/rtpengine var/log/asterisk var/spool/asterisk var/lib/asterisk",
        "touch etc/hosts etc/machine-id etc/resolv.conf",
        # They tell of the build, and differ from one to the next.
        "find var/log var/cache -xdev -type f -delete",
        # Nothing in it changes user.
        "find . -xdev -type f -perm /6000 -exec chmod ug-s {} +",
    ]
    return "\n".join(lines) + "\n"


def build_command(wanted: Recipe, mirror: str, work: str) -> list[str]:
    """The command that makes `work`/root.tar with the scripts and settings in `work`.

    It dies as a whole, with its mounts, when its parent does, and gives way to calls.
    """
    quoted = shlex.quote(work)
    return [
        *("nice", "-n", "10", "setpriv", "--pdeathsig=KILL"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--format=tar",
        "--variant=minbase",
        "--components=main",
        "--include=" + ",".join(wanted.packages),
        *(f"--dpkgopt={option}" for option in LEFT_OUT),
        f'--setup-hook=cp {quoted}/apt.conf "$1/{APT_CONF}"',
        f'--extract-hook=sh {quoted}/pin.sh "$1"',
        f'--customize-hook=sh {quoted}/finish.sh "$1"',
        wanted.suite,
        f"{work}/root.tar",
        f"deb [signed-by={KEYRING}] {mirror} {wanted.suite} main",
    ]


def program_versions(said: Mapping[str, str]) -> dict[str, str]:
    """Program -> version, out of what each prints about itself."""
    found = {}
    for name, (ask, pattern) in PROGRAMS.items():
        match = pattern.search(said.get(name, ""))
        if not match:
            raise ImageError(f"`{ask}` in the new image says no version: {said.get(name, '').strip()[:200]!r}")
        found[name] = match[1]
    return found


def version_problems(found: Mapping[str, str], wanted: Recipe) -> list[str]:
    """Programs that are not of the wanted versions."""
    lines = [
        f"{name} is {found[name]}, wanted is {prefix}"
        for name, prefix in sorted(wanted.versions.items())
        if found[name] != prefix and not found[name].startswith(f"{prefix}.")
    ]
    if found["asterisk"] != wanted.name.version:
        lines.append(f"asterisk is {found['asterisk']}, the image is called {wanted.name}")
    return lines


def parse_packages(text: str) -> dict[str, str]:
    """`dpkg-query --show` with a tab between name and version."""
    pairs = (line.partition("\t") for line in text.splitlines() if line)
    return {name: version for name, _, version in sorted(pairs)}


# --- manifest --------------------------------------------------------------------------------------------------------


def manifest(
    wanted: Recipe,
    *,
    architecture: str,
    release: str,
    release_sha256: str,
    programs: Mapping[str, str],
    packages: Mapping[str, str],
    archive: Mapping[str, Any],
    tree: Mapping[str, Any],
) -> dict[str, Any]:
    """What is known of an image. `archive`: sha256 and bytes; `tree`: entries, bytes, shape and contents."""
    return {
        "format": FORMAT,
        "name": str(wanted.name),
        "architecture": architecture,
        "suite": wanted.suite,
        "release": {"date": release_date(release).strftime("%Y-%m-%dT%H:%M:%SZ"), "sha256": release_sha256},
        "asked": list(wanted.packages),
        "programs": dict(programs),
        "packages": dict(packages),
        "archive": dict(archive),
        "tree": dict(tree),
    }


_SHAPE: dict[str, dict[str, type]] = {
    "release": {"date": str, "sha256": str},
    "archive": {"sha256": str, "bytes": int},
    "tree": {"entries": int, "bytes": int, "shape": str, "contents": str},
}


def parse_manifest(text: str, name: str) -> dict[str, Any]:
    """Read the manifest of an image; ImageError if it is not one, or of another image."""
    try:
        found = json.loads(text)
    except ValueError:
        raise ImageError(f"the manifest of image {name} is no JSON") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ImageError(f"the manifest of image {name} has another format than {FORMAT}")
    if found.get("name") != name:
        raise ImageError(f"the manifest is of image {found.get('name')}, not of {name}")
    whole = all(
        isinstance(found.get(part), dict) and isinstance(found[part].get(key), kind)
        for part, keys in _SHAPE.items()
        for key, kind in keys.items()
    ) and all(isinstance(found.get(key), dict) for key in ("programs", "packages"))
    if not whole or not isinstance(found.get("asked"), list) or not _SHA256.fullmatch(found["archive"]["sha256"]):
        raise ImageError(f"the manifest of image {name} is incomplete")
    return found


def manifest_text(found: Mapping[str, Any]) -> str:
    """How a manifest is written."""
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def archive_name(name: str) -> str:
    """The file that an image travels in."""
    return f"{name}.tar.zst"


def pin_problem(found: Mapping[str, Any], archive_sha256: str) -> str:
    """Why an image is not the one that the operator has pinned by the checksum of its archive."""
    has = found["archive"]["sha256"]
    if archive_sha256 and has != archive_sha256:
        return f"the manifest of image {found['name']} is of archive {has}, pinned is {archive_sha256}"
    return ""


def archive_problem(found: Mapping[str, Any], sha256: str) -> str:
    """Why an archive is not the one of the manifest."""
    wanted = found["archive"]["sha256"]
    if sha256 != wanted:
        return (
            f"the archive of image {found['name']} has checksum {sha256}, its manifest says {wanted};"
            " nothing was unpacked"
        )
    return ""


def tree_problem(found: Mapping[str, Any], tree: Mapping[str, Any]) -> str:
    """Why a tree is not the one of the manifest: `tree` has the same keys, `contents` only if it was computed."""
    wanted = found["tree"]
    if any(tree[key] != wanted[key] for key in tree):
        return (
            f"image {found['name']} on this machine is not as it was built: files in it were added, removed or changed"
            f" ({tree['entries']} entries with {tree['bytes']} bytes, its manifest says {wanted['entries']} with"
            f" {wanted['bytes']})"
        )
    return ""


def recipe_problem(found: Mapping[str, Any], wanted: Recipe) -> str:
    """Why an image that is there is not the one of this recipe. A name never changes its meaning."""
    differs = []
    if found["suite"] != wanted.suite:
        differs.append(f"suite {found['suite']}")
    if wanted.release_sha256 and found["release"]["sha256"] != wanted.release_sha256:
        differs.append(f"release file {found['release']['sha256']}")
    more = sorted(set(found["asked"]) - set(wanted.packages))
    fewer = sorted(set(wanted.packages) - set(found["asked"]))
    if more:
        differs.append(f"with {', '.join(more)}")
    if fewer:
        differs.append(f"without {', '.join(fewer)}")
    if not differs:
        return ""
    return (
        f"image {wanted.name} is here already, of another recipe ({'; '.join(differs)}): give the new one a name of its"
        f" own, for example {wanted.name.next}"
    )


# --- retention -------------------------------------------------------------------------------------------------------


def surplus(names: Sequence[str], used: Iterable[str], wanted: str, keep: int) -> list[str]:
    """Images to remove, oldest first: all but the wanted one, the `keep` newest others, and those in use."""
    others = sorted((name for name in names if name != wanted), key=lambda name: parse_name(name).age)
    old = others[: max(len(others) - keep, 0)]
    in_use = set(used)
    return [name for name in old if name not in in_use]


# --- the role --------------------------------------------------------------------------------------------------------


def refusals(values: Mapping[str, Any], names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Why role telephony_image must not go on, one line each, every reason."""
    lines = []
    strange = sorted(set(names) - set(known))
    if strange:
        lines.append(
            f"role telephony_image does not know {', '.join(strange)}; its variables are listed in"
            " roles/telephony_image/README.md"
        )
    try:
        recipe(
            str(values["telephony_image_name"]),
            str(values["telephony_image_suite"]),
            values["telephony_image_packages"],
            str(values["telephony_image_release_sha256"]),
            values["telephony_image_versions"],
        )
        if values["telephony_image_mirror"]:
            checked_mirror(str(values["telephony_image_mirror"]))
    except ImageError as error:
        lines.append(str(error))
    lines += checksum_problems("the archive", str(values["telephony_image_archive_sha256"]))
    if int(values["telephony_image_keep"]) < 0:
        lines.append(f"telephony_image_keep: {values['telephony_image_keep']} is below 0")
    return lines
