# SPDX-License-Identifier: GPL-3.0-or-later
"""What module ``configuration`` decides, as plain functions: nothing here touches a machine.

Words used throughout:

request    what a task asks for: files, directories, links, absent paths, checks, commands, services (`parse`).
seen       what stands at a path now (`Seen`); the machine side looks, these functions compare.
step       one difference that has to be made good (`Step`), made by `compare`.
tree       the files below the prefixes that a service reads, with their digests (`Tree`).
stamp      what a running service is known to have loaded: kept in /run/bouwsteen/<unit>.json (`Stamp`).
action     what has to be done to a service and why (`Action`), made by `decide`.

Digests are SHA-256 in hex over the bytes of a file. Times are seconds since 1970 as float. Modes are integers.
"""

from __future__ import annotations

import calendar
import fnmatch
import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

STAMPS = "/run/bouwsteen"
DERIVED = "/var/lib/bouwsteen/derived"

# A temporary file stands beside its target under this name, so that a killed run leaves at most one, which the next run
# takes over. The leading dot keeps it out of every `conf.d/*.conf`.
TEMPORARY = ".{}.bouwsteen-new"
TEMPORARY_PATTERN = ".*.bouwsteen-new"
# What package tools leave beside a configuration file; no service reads them.
LEFTOVERS = (TEMPORARY_PATTERN, "*.dpkg-old", "*.dpkg-dist", "*.dpkg-new", "*.dpkg-tmp", "*.ucf-old", "*.ucf-dist")

# Change times come from a coarse clock (one tick, at most 10 ms): a file that changed this long before a service
# started may have changed after it.
CLOCK_MARGIN = 0.02

# A reload by somebody else loads what had changed this long before it ended; an ExecReload= takes its time.
RELOAD_MARGIN = 5.0

UNIT_DIRECTORIES = (
    "/etc/systemd/system/",
    "/run/systemd/system/",
    "/usr/lib/systemd/system/",
    "/usr/local/lib/systemd/system/",
)
MASKED = "********"
# What is larger is not shown in a difference.
DIFF_BYTES = 100_000


_OWNED: dict[str, Any] = {
    "mode": {"type": "str"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
}
_WORDS: dict[str, Any] = {"type": "list", "elements": "str", "default": []}

# The task's parameters: validated on the controller before anything is rendered, and again by the module.
ARGUMENTS: dict[str, Any] = {
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "template": {"type": "str"},
            "content": {"type": "str"},
            "source": {"type": "str"},
            "vars": {"type": "dict", "default": {}},
            **_OWNED,
            "mode": {"type": "str", "default": "0644"},
            "secret": {"type": "bool", "default": False},
            "replace": {"type": "bool", "default": False},
        },
    },
    "directories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            **_OWNED,
            "mode": {"type": "str", "default": "0755"},
            "purge": {"type": "bool", "default": False},
            "keep": _WORDS,
        },
    },
    "links": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "target": {"type": "str", "required": True},
            "replace": {"type": "bool", "default": False},
        },
    },
    "absent": _WORDS,
    "checks": {"type": "list", "elements": "list", "default": []},
    "commands": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "command": {"type": "list", "elements": "str", "required": True},
            "source": {"type": "list", "elements": "str", "required": True},
            "target": {"type": "str"},
        },
    },
    "kernel": {"type": "dict", "default": {}},
    "services": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["started", "stopped", "unmanaged"], "default": "started"},
            "enabled": {"type": "bool", "default": True},
            "masked": {"type": "bool", "default": False},
            "reload_on": _WORDS,
            "restart_on": _WORDS,
        },
    },
}


class RequestError(ValueError):
    """A request that cannot be met; `problems` holds one line each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(self.problems))


# --------------------------------------------------------------------------------------------------------- request


@dataclass(frozen=True, slots=True)
class File:
    """A file as it should be. `digest` is of the wanted bytes."""

    path: str
    digest: str
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    secret: bool = False
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory as it should be. `purge`: what is directly in it and not wanted goes, except names like `keep`."""

    path: str
    mode: int = 0o755
    owner: str = "root"
    group: str = "root"
    purge: bool = False
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link; `replace` allows it to take the place of a file."""

    path: str
    target: str
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A command that makes `target` from `source`."""

    command: tuple[str, ...]
    source: tuple[str, ...]
    target: str | None = None

    @property
    def key(self) -> str:
        """Name of the record of its last success: the same command for the same target has the same one."""
        return hashlib.sha256(json.dumps([self.command, self.target]).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Service:
    """A unit as it should run. `state`: started, stopped or unmanaged."""

    unit: str
    state: str = "started"
    enabled: bool = True
    masked: bool = False
    reload_on: tuple[str, ...] = ()
    restart_on: tuple[str, ...] = ()

    @property
    def prefixes(self) -> tuple[str, ...]:
        """All places that the service reads."""
        return tuple(dict.fromkeys(self.reload_on + self.restart_on))


@dataclass(frozen=True, slots=True)
class Request:
    """All that one task asks for."""

    files: tuple[File, ...] = ()
    directories: tuple[Directory, ...] = ()
    links: tuple[Link, ...] = ()
    absent: tuple[str, ...] = ()
    checks: tuple[tuple[str, ...], ...] = ()
    commands: tuple[Command, ...] = ()
    kernel: tuple[tuple[str, str], ...] = ()
    services: tuple[Service, ...] = ()

    @property
    def named(self) -> list[str]:
        """Every path that is asked for, in order, as often as it is named."""
        found = [item.path for item in self.directories] + [item.path for item in self.files]
        return [*found, *(item.path for item in self.links), *self.absent]

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that is asked for, parents not included."""
        return tuple(dict.fromkeys(self.named))

    @property
    def secrets(self) -> frozenset[str]:
        """Paths of the files whose content must not be shown."""
        return frozenset(item.path for item in self.files if item.secret)


def unit_name(name: str) -> str:
    """`postfix` -> `postfix.service`; a name with a unit suffix stays."""
    suffixes = (".service", ".socket", ".timer", ".path", ".target", ".mount", ".swap", ".slice", ".automount")
    return name if name.endswith(suffixes) else f"{name}.service"


def _path(value: object, where: str, problems: list[str]) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        problems.append(f"{where}: a path must be absolute (found {value!r})")
        return "/"
    if "\0" in value or "\n" in value or value != posixpath.normpath(value) or value == "/":
        problems.append(
            f"{where}: a path must be plain, without '..', '//', a '/' at its end or line breaks (found {value!r})"
        )
    return value


def _mode(value: object, where: str, problems: list[str]) -> int:
    if isinstance(value, str) and re.fullmatch(r"0[0-7]{3,4}", value):
        return int(value, 8)
    problems.append(f'{where}: mode must be octal digits in quotes with a leading 0, such as "0644" (found {value!r})')
    return 0o600


def _command(value: object, where: str, problems: list[str]) -> tuple[str, ...]:
    if isinstance(value, (list, tuple)) and value and all(isinstance(word, (str, int, float)) for word in value):
        return tuple(str(word) for word in value)
    problems.append(f"{where}: a command is a list of words (found {value!r})")
    return ("false",)


def _listing(value: object) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else []


def _text(item: Mapping[str, Any], key: str, default: str) -> str:
    value = item.get(key)
    return default if value is None else str(value)


def parse(params: Mapping[str, Any], digests: Mapping[str, str]) -> Request:
    """Make a request of the task's parameters. `digests`: path -> digest of the wanted bytes.

    Raises RequestError that names every problem, not only the first.
    """
    problems: list[str] = []
    files = tuple(
        File(
            path=(path := _path(item.get("path"), f"files[{number}]", problems)),
            digest=digests.get(path, ""),
            mode=_mode(_text(item, "mode", "0644"), path, problems),
            owner=_text(item, "owner", "root"),
            group=_text(item, "group", "root"),
            secret=bool(item.get("secret")),
            replace=bool(item.get("replace")),
        )
        for number, item in enumerate(_listing(params.get("files")))
    )
    directories = tuple(
        Directory(
            path=(path := _path(item.get("path"), f"directories[{number}]", problems)),
            mode=_mode(_text(item, "mode", "0755"), path, problems),
            owner=_text(item, "owner", "root"),
            group=_text(item, "group", "root"),
            purge=bool(item.get("purge")),
            keep=tuple(_listing(item.get("keep"))),
        )
        for number, item in enumerate(_listing(params.get("directories")))
    )
    links = tuple(
        Link(
            path=_path(item.get("path"), f"links[{number}]", problems),
            target=_text(item, "target", ""),
            replace=bool(item.get("replace")),
        )
        for number, item in enumerate(_listing(params.get("links")))
    )
    absent = tuple(
        _path(path, f"absent[{number}]", problems) for number, path in enumerate(_listing(params.get("absent")))
    )
    commands = tuple(
        Command(
            command=_command(item.get("command"), f"commands[{number}]", problems),
            source=tuple(
                _path(str(path).rstrip("/"), f"commands[{number}].source", problems)
                for path in _listing(item.get("source"))
            ),
            target=None
            if item.get("target") is None
            else _path(item.get("target"), f"commands[{number}].target", problems),
        )
        for number, item in enumerate(_listing(params.get("commands")))
    )
    checks = tuple(
        _command(words, f"checks[{number}]", problems) for number, words in enumerate(_listing(params.get("checks")))
    )
    services = tuple(
        Service(
            unit=unit_name(str(item.get("name") or "")),
            state=_text(item, "state", "started"),
            enabled=bool(item.get("enabled", True)),
            masked=bool(item.get("masked")),
            reload_on=tuple(str(path) for path in _listing(item.get("reload_on"))),
            restart_on=tuple(str(path) for path in _listing(item.get("restart_on"))),
        )
        for item in _listing(params.get("services"))
    )
    kernel = tuple((str(name), " ".join(str(value).split())) for name, value in (params.get("kernel") or {}).items())
    problems.extend(
        f"kernel: {name!r} is not the name of a setting"
        for name, _ in kernel
        if not re.fullmatch(r"[\w./\-]+", name) or ".." in name
    )
    request = Request(files, directories, links, absent, checks, commands, kernel, services)
    problems.extend(_contradictions(request))
    if problems:
        raise RequestError(problems)
    return request


def _contradictions(request: Request) -> list[str]:
    problems: list[str] = []
    wanted: set[str] = set()
    for path in request.named:
        if path in wanted:
            problems.append(f"{path} is asked for twice")
        wanted.add(path)
    problems.extend(f"{link.path}: a link needs a target" for link in request.links if not link.target)
    for path in request.absent:
        if path.count("/") < 2:
            problems.append(f"{path}: a directory at the top of the file system is never removed")
        problems.extend(
            f"{path} is to be absent, but {other} below it is asked for"
            for other in sorted(wanted)
            if other.startswith(f"{path}/")
        )
    problems.extend(
        f"command {command.command[0]}: name the files that it is made from (source)"
        for command in request.commands
        if not command.source
    )
    units = [service.unit for service in request.services]
    problems.extend(
        f"service {unit} is named twice" for unit in sorted({unit for unit in units if units.count(unit) > 1})
    )
    for service in request.services:
        if service.state not in {"started", "stopped", "unmanaged"}:
            problems.append(f"service {service.unit}: state is started, stopped or unmanaged (found {service.state!r})")
        if service.masked and (service.state == "started" or service.enabled):
            problems.append(f"service {service.unit}: a masked service is stopped and not enabled")
        problems.extend(
            f"service {service.unit}: reload_on and restart_on hold absolute paths (found {prefix!r})"
            for prefix in service.prefixes
            if not prefix.startswith("/")
        )
    return problems


def parents(path: str) -> list[str]:
    """Directories above a path, top first, without `/`: /a/b/c -> [/a, /a/b]."""
    words = path.strip("/").split("/")[:-1]
    return ["/" + "/".join(words[: number + 1]) for number in range(len(words))]


def to_look_at(request: Request) -> list[str]:
    """Every path whose present state `compare` needs, parents included, each once."""
    found: dict[str, None] = {}
    for path in request.paths:
        found.update(dict.fromkeys(parents(path)))
        found[path] = None
    return list(found)


# --------------------------------------------------------------------------------------------------------- compare


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands at a path. `kind`: missing, file, directory, link, other.

    `leads_to_directory` is for links only: True if root alone can have made it and it ends at a directory. `entries`
    are the names of files and links directly in a directory that is to be purged.
    """

    kind: str = "missing"
    digest: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    target: str = ""
    leads_to_directory: bool = False
    entries: tuple[str, ...] = ()


MISSING = Seen()


@dataclass(frozen=True, slots=True)
class Step:
    """One difference. `kind`: directory, file, link, remove. `change`: created, updated, attributes, removed.

    `content`: the bytes of a file are needed. `before` is what stood there.
    """

    kind: str
    path: str
    change: str
    mode: int = 0
    owner: str = "root"
    group: str = "root"
    target: str = ""
    content: bool = False
    secret: bool = False
    digest: str = ""
    before: Seen = MISSING

    def as_dict(self) -> dict[str, Any]:
        """For the controller: JSON-able, without digests (those of secrets could be guessed against)."""
        result: dict[str, Any] = {"kind": self.kind, "path": self.path, "change": self.change, "secret": self.secret}
        if self.kind in {"file", "directory"}:
            result |= {"mode": f"{self.mode:04o}", "owner": self.owner, "group": self.group, "content": self.content}
        if self.kind == "link":
            result["target"] = self.target
        if self.before.kind != "missing":
            was = self.before
            result["was"] = {
                "kind": was.kind,
                "mode": f"{was.mode:04o}",
                "uid": was.uid,
                "gid": was.gid,
                "target": was.target,
            }
        return result


@dataclass(frozen=True, slots=True)
class Comparison:
    """Outcome of `compare`: steps to make in this order, problems that forbid all of them, and warnings."""

    steps: tuple[Step, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def needed(self) -> tuple[str, ...]:
        """Paths of the files whose bytes are needed to make the steps."""
        return tuple(step.path for step in self.steps if step.content)


Lookup = Callable[[str], int | None]


def _same_attributes(seen: Seen, mode: int, uid: int | None, gid: int | None) -> bool:
    return (seen.mode, seen.uid, seen.gid) == (mode, uid, gid)


def compare(
    request: Request, seen: Mapping[str, Seen], user: Lookup, group: Lookup, *, check_mode: bool = False
) -> Comparison:
    """Say what differs between the request and what is seen.

    `user` and `group` turn a name into a number, or None if nobody has it: an error, except in check mode, where an
    earlier task of the same run may only have said that it would make them.
    """
    steps: list[Step] = []
    problems: list[str] = []
    warnings: list[str] = []
    made: set[str] = set()

    def number(lookup: Lookup, what: str, name: str, path: str) -> int | None:
        found = lookup(name)
        if found is None:
            if check_mode:
                warnings.append(f"{path}: {what} {name} does not exist yet")
            else:
                problems.append(f"{path}: {what} {name} does not exist on this machine")
        return found

    def above(path: str) -> None:
        for parent in parents(path):
            now = seen.get(parent, MISSING)
            if now.kind == "directory" or parent in made or now.leads_to_directory:
                continue
            if now.kind == "missing":
                steps.append(Step("directory", parent, "created", 0o755))
                made.add(parent)
            elif now.kind == "link":
                problems.append(
                    f"{path}: {parent} is a symbolic link that not only root can change, or that leads to no directory"
                )
                return
            else:
                problems.append(f"{path}: {parent} is not a directory")
                return

    declared = {item.path: item for item in request.directories}
    for directory in sorted(declared.values(), key=lambda item: item.path.count("/")):
        above(directory.path)
        now = seen.get(directory.path, MISSING)
        uid = number(user, "owner", directory.owner, directory.path)
        gid = number(group, "group", directory.group, directory.path)
        wanted = Step(
            "directory", directory.path, "created", directory.mode, directory.owner, directory.group, before=now
        )
        if now.kind == "missing":
            steps.append(wanted)
            made.add(directory.path)
        elif now.kind == "link":
            problems.append(f"{directory.path} is a symbolic link to {now.target}, not a directory")
        elif now.kind != "directory":
            problems.append(f"{directory.path} is not a directory")
        elif not _same_attributes(now, directory.mode, uid, gid):
            steps.append(replace(wanted, change="attributes"))

    for file in request.files:
        above(file.path)
        now = seen.get(file.path, MISSING)
        uid = number(user, "owner", file.owner, file.path)
        gid = number(group, "group", file.group, file.path)
        step = Step(
            "file", file.path, "updated", file.mode, file.owner, file.group,
            content=True, secret=file.secret, digest=file.digest, before=now,
        )  # fmt: skip
        if now.kind == "missing":
            steps.append(replace(step, change="created"))
        elif now.kind == "link" and not file.replace:
            problems.append(
                f"{file.path} is a symbolic link to {now.target}: say 'replace: true' to put a file in its place"
            )
        elif now.kind in {"directory", "other"}:
            problems.append(f"{file.path} is not a regular file")
        elif now.kind == "link" or now.digest != file.digest:
            steps.append(step)
        elif not _same_attributes(now, file.mode, uid, gid):
            steps.append(replace(step, change="attributes", content=False))

    for link in request.links:
        above(link.path)
        now = seen.get(link.path, MISSING)
        step = Step("link", link.path, "updated", target=link.target, before=now)
        if now.kind == "missing":
            steps.append(replace(step, change="created"))
        elif now.kind == "file" and not link.replace:
            problems.append(f"{link.path} is a file: say 'replace: true' to put a symbolic link in its place")
        elif now.kind in {"directory", "other"}:
            problems.append(f"{link.path} is not a symbolic link")
        elif now.kind == "file" or now.target != link.target:
            steps.append(step)

    steps.extend(
        Step("remove", path, "removed", before=seen[path])
        for path in request.absent
        if seen.get(path, MISSING).kind != "missing"
    )

    wanted_paths = set(request.paths)
    for directory in request.directories:
        for name in seen.get(directory.path, MISSING).entries if directory.purge else ():
            path = f"{directory.path}/{name}"
            if path not in wanted_paths and not any(fnmatch.fnmatch(name, pattern) for pattern in directory.keep):
                steps.append(Step("remove", path, "removed", before=Seen("file")))
    return Comparison(tuple(steps), tuple(problems), tuple(dict.fromkeys(warnings)))


# ----------------------------------------------------------------------------------------------------------- stage


def overlays(paths: Iterable[str], directories: Callable[[str], bool]) -> list[str]:
    """Directories to lay a throwaway layer over, so that `paths` can be written without being written.

    `directories` says whether a path is a directory now. The layer goes over the nearest directory that exists; /etc
    always gets one, since checkers look around in it. None lies below another. Raises RequestError for a path right
    below `/`.
    """
    found = {"/etc"} if directories("/etc") else set()
    for path in paths:
        above = [parent for parent in parents(path) if directories(parent)]
        if not above:
            raise RequestError([f"{path}: a checker cannot be shown a file right below '/'; declare no checks for it"])
        found.add(above[-1])
    return [path for path in sorted(found) if not any(path.startswith(f"{other}/") for other in found)]


def mounts_below(mountinfo: str, directory: str) -> list[str]:
    """Mount points below a directory, top first, from the text of /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    found: dict[str, None] = {}
    for line in mountinfo.splitlines():
        words = line.split(" ")
        if len(words) > 4:
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), words[4])
            if point.startswith(f"{directory}/"):
                found[point] = None
    return sorted(found)


# ---------------------------------------------------------------------------------------------------------- kernel


@dataclass(frozen=True, slots=True)
class Setting:
    """A kernel setting (sysctl) as it is. `value`: None if this kernel does not have it."""

    value: str | None
    writable: bool = True


def setting_path(name: str) -> str:
    """`net.ipv4.ip_forward` -> its file; in a name with slashes the dots are part of it, as in sysctl(8)."""
    return "/proc/sys/" + (name if "/" in name else name.replace(".", "/"))


def settings(
    wanted: Iterable[tuple[str, str]], now: Mapping[str, Setting]
) -> tuple[list[tuple[str, str, str]], list[tuple[str, str]]]:
    """Which settings have to be written (name, before, after), and which cannot be, with the reason.

    A container shares the kernel with its host and may write only what is its own: that is no failure, the host's
    operator has to see to the rest.
    """
    due: list[tuple[str, str, str]] = []
    skipped: list[tuple[str, str]] = []
    for name, value in wanted:
        setting = now[name]
        if setting.value is None:
            skipped.append((name, "this kernel does not have it"))
        elif setting.value != value and setting.writable:
            due.append((name, setting.value, value))
        elif setting.value != value:
            skipped.append((name, f"it is {setting.value} and belongs to the host of this container"))
    return due, skipped


# -------------------------------------------------------------------------------------------------------- services


@dataclass(frozen=True, slots=True)
class Unit:
    """What systemd says of a unit; times in seconds since 1970, 0 if never."""

    name: str
    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    file_state: str = ""
    invocation: str = ""
    need_daemon_reload: bool = False
    began: float = 0.0
    can_reload: bool = False
    type: str = ""
    result: str = ""
    condition_met: bool = True
    condition_at: float = 0.0
    entered: float = 0.0
    changed: float = 0.0
    reload_result: str = "success"

    @property
    def reloaded(self) -> float:
        """What had changed before this moment has been loaded by a reload, whoever asked for it; 0 if there was none.

        A running unit changes its state only for a reload: that moves the time of its last change past the time at
        which it became active (systemd.directives(7) has no time of the last reload).
        """
        by_reload = self.active == "active" and self.changed > self.entered > 0 and self.reload_result == "success"
        return self.changed - RELOAD_MARGIN if by_reload else 0.0

    @property
    def running(self) -> bool:
        """Up, or busy with a reload."""
        return self.active in {"active", "reloading", "refreshing"}

    @property
    def unmet(self) -> bool:
        """Not running because a condition in the unit says that this machine does not need it."""
        return self.active == "inactive" and not self.condition_met and self.condition_at > 0

    @property
    def identity(self) -> str:
        """What changes whenever the unit is started anew."""
        return f"condition@{self.condition_at:.6f}" if self.unmet else self.invocation

    @property
    def since(self) -> float:
        """When it began to start, or when its condition was looked at."""
        return self.condition_at if self.unmet else self.began


PROPERTIES = {
    "Id": "name", "LoadState": "load", "ActiveState": "active", "SubState": "sub", "UnitFileState": "file_state",
    "InvocationID": "invocation", "NeedDaemonReload": "need_daemon_reload", "InactiveExitTimestamp": "began",
    "CanReload": "can_reload", "Type": "type", "Result": "result", "ConditionResult": "condition_met",
    "ConditionTimestamp": "condition_at",
    "ActiveEnterTimestamp": "entered",
    "StateChangeTimestamp": "changed",
    "ReloadResult": "reload_result",
}  # fmt: skip


def timestamp(text: str) -> float:
    """`Mon 2026-11-23 16:42:15.123456 UTC` -> seconds since 1970; what is no time -> 0."""
    match = re.search(r"(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(\.\d+)? UTC", text)
    if not match:
        return 0.0
    numbers = [int(word) for word in match.groups()[:6]]
    return calendar.timegm((*numbers, 0, 0, 0)) + float(match[7] or 0)


def parse_show(text: str, names: Sequence[str]) -> dict[str, Unit]:
    """Read `systemctl show --timestamp=us+utc`: blocks in the order in which the units were named."""
    units: dict[str, Unit] = {}
    for name, block in zip(names, text.strip("\n").split("\n\n"), strict=True):
        found: dict[str, Any] = {}
        for line in block.splitlines():
            key, _, value = line.partition("=")
            attribute = PROPERTIES.get(key)
            if attribute in {"need_daemon_reload", "can_reload", "condition_met"}:
                found[attribute] = value == "yes"
            elif attribute in {"began", "condition_at", "entered", "changed"}:
                found[attribute] = timestamp(value)
            elif attribute:
                found[attribute] = value
        units[name] = Unit(**(found | {"name": name}))
    return units


def loaded_digest(digest: str, mode: int, uid: int | None, gid: int | None) -> str:
    """What is kept of a file that a service read: its content and who may read it."""
    return f"{digest}:{mode:o}:{uid}:{gid}"


@dataclass(frozen=True, slots=True)
class Tree:
    """Files below some prefixes: `digests` (content, mode, owner) and `changed`, their change times.

    `changed` holds directories too (their names end in `/`): that is where a removed file shows.
    """

    digests: Mapping[str, str] = field(default_factory=dict)
    changed: Mapping[str, float] = field(default_factory=dict)


def under(prefix: str, path: str) -> bool:
    """Whether a path is the prefix or lies below it; `/etc/x/` and `/etc/x` mean the same."""
    prefix = prefix.rstrip("/")
    return path.rstrip("/") == prefix or path.startswith(f"{prefix}/")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What has been loaded: every file below `prefixes`, with its digest."""

    prefixes: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the running service is known to have loaded. `identity` says which start of it this is about.

    `reload` and `restart` are kept apart since a reload loads only the first. `reloaded_at`: when it last was reloaded.
    """

    identity: str = ""
    reloaded_at: float = 0.0
    reload: Loaded = field(default_factory=Loaded)
    restart: Loaded = field(default_factory=Loaded)

    def dump(self) -> str:
        """The text to keep."""
        kinds = {
            kind: {"prefixes": list(part.prefixes), "files": dict(part.files)}
            for kind, part in (("reload", self.reload), ("restart", self.restart))
        }
        return json.dumps(
            {"format": 1, "identity": self.identity, "reloaded_at": self.reloaded_at, **kinds}, sort_keys=True
        )


def load_stamp(text: str) -> Stamp | None:
    """Read a stamp; None for one that is damaged or of another format, which counts as none."""
    try:
        data = json.loads(text)
        if data["format"] != 1:
            return None
        parts = {
            kind: Loaded(tuple(data[kind]["prefixes"]), dict(data[kind]["files"])) for kind in ("reload", "restart")
        }
        return Stamp(str(data["identity"]), float(data["reloaded_at"]), parts["reload"], parts["restart"])
    except (ValueError, KeyError, TypeError):
        return None


def valid(stamp: Stamp | None, unit: Unit) -> Stamp | None:
    """The stamp if it is about the start that runs now."""
    return stamp if stamp and stamp.identity and stamp.identity == unit.identity else None


def changes(
    prefixes: Sequence[str],
    tree: Tree,
    loaded: Loaded,
    since: float,
    planned: Mapping[str, str | None],
    *,
    reloaded: float = 0.0,
) -> list[str]:
    """Paths that are not what was loaded.

    A prefix that `loaded` knows is compared by digest, except that what changed before `reloaded` has been loaded by
    somebody else's reload. One that it does not know counts as loaded if nothing below it changed after `since`.
    `planned` (check mode): path -> digest to come, None if the file goes.
    """

    def last_change(path: str) -> float:
        # A file that went shows in its directory.
        above = f"{posixpath.dirname(path)}/"
        return tree.changed.get(path, tree.changed.get(above, float("inf")))

    found: dict[str, None] = {}
    for prefix in prefixes:
        coming = {path: digest for path, digest in planned.items() if under(prefix, path)}
        if prefix in loaded.prefixes:
            now: dict[str, str | None] = {path: digest for path, digest in tree.digests.items() if under(prefix, path)}
            now |= coming
            was = {path: digest for path, digest in loaded.files.items() if under(prefix, path)}
            differing = [path for path in sorted(now.keys() | was.keys()) if now.get(path) != was.get(path)]
            found.update(dict.fromkeys(path for path in differing if path in coming or last_change(path) >= reloaded))
        else:
            begin = max(since, reloaded)
            late = [path for path, when in tree.changed.items() if under(prefix, path) and when + CLOCK_MARGIN > begin]
            # A directory says only that something in it came or went: not worth naming beside the file itself.
            files = [path for path in late if not path.endswith("/")]
            found.update(dict.fromkeys(sorted(files or late)))
            found.update(dict.fromkeys(sorted(coming)))
    return list(found)


def stamped(unit: Unit, stamp: Stamp | None, service: Service, tree: Tree, *, reloaded_at: float = 0.0) -> Stamp:
    """The stamp that says: all that `tree` holds below the service's places (and those it had before) is loaded."""

    def part(prefixes: tuple[str, ...], old: Loaded) -> Loaded:
        union = tuple(dict.fromkeys(old.prefixes + prefixes))
        return Loaded(
            union,
            {path: digest for path, digest in tree.digests.items() if any(under(prefix, path) for prefix in union)},
        )

    old = stamp or Stamp()
    return Stamp(unit.identity, reloaded_at, part(service.reload_on, old.reload), part(service.restart_on, old.restart))


def merged(unit: Unit, stamp: Stamp | None, service: Service, tree: Tree) -> Stamp:
    """The stamp after a comparison that found nothing to do: what is below the service's places now is loaded."""
    known = valid(stamp, unit)
    if known is None:
        return stamped(unit, None, service, tree)

    def part(prefixes: tuple[str, ...], old: Loaded) -> Loaded:
        def here(path: str) -> bool:
            return any(under(prefix, path) for prefix in prefixes)

        elsewhere = {path: digest for path, digest in old.files.items() if not here(path)}
        files = elsewhere | {path: digest for path, digest in tree.digests.items() if here(path)}
        return Loaded(tuple(dict.fromkeys(old.prefixes + prefixes)), files)

    return replace(known, reload=part(service.reload_on, known.reload), restart=part(service.restart_on, known.restart))


def after_reload(unit: Unit, stamp: Stamp | None, service: Service, tree: Tree, when: float) -> Stamp:
    """The stamp after a reload that began at `when`: what only a restart loads stays as it was."""
    known = valid(stamp, unit)
    return replace(stamped(unit, known, service, tree, reloaded_at=when), restart=known.restart if known else Loaded())


@dataclass(frozen=True, slots=True)
class Action:
    """Something to do to a service, and why.

    `action`: start, stop, restart, reload, enable, disable, mask, unmask, daemon-reload.
    """

    service: str
    action: str
    because: str

    def as_dict(self) -> dict[str, str]:
        """For the result of the task."""
        return {"service": self.service, "action": self.action, "because": self.because}


def several(paths: Sequence[str], verb: str) -> str:
    """Name up to two paths and count the rest: `/a, /b and 3 more changed`."""
    named = list(paths[:2])
    if len(paths) > 2:
        named.append(f"{len(paths) - 2} more")
    listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    return f"{listed} {verb}"


# States of a unit file that need no `enable`, or for which there is nothing to enable.
ENABLED = frozenset({"enabled", "static", "indirect", "generated", "alias", "transient", ""})


@dataclass(frozen=True, slots=True)
class Decision:
    """Outcome of `decide`. `skipped` says why a service that was asked for does not run, and rightly so."""

    actions: tuple[Action, ...] = ()
    problem: str = ""
    skipped: str = ""


def decide(
    service: Service,
    unit: Unit,
    stamp: Stamp | None,
    tree: Tree,
    planned: Mapping[str, str | None] | None = None,
    *,
    check_mode: bool = False,
) -> Decision:
    """Say what has to be done to a service so that it runs as asked, with what is on disk loaded."""
    planned = planned or {}
    name = service.unit
    actions: list[Action] = []
    if service.masked:
        if unit.running:
            actions.append(Action(name, "stop", "it is to be masked"))
        if unit.load != "masked":
            actions.append(Action(name, "mask", "it is not masked"))
        return Decision(tuple(actions))
    if unit.load == "not-found":
        if service.state == "stopped" and not service.enabled:
            return Decision()
        if not check_mode:
            return Decision(problem=f"service {name}: this machine has no such unit")
        if service.enabled:
            actions.append(Action(name, "enable", "it is not installed yet"))
        if service.state == "started":
            actions.append(Action(name, "start", "it is not installed yet"))
        return Decision(tuple(actions))
    if unit.load in {"error", "bad-setting"}:
        return Decision(problem=f"service {name}: systemd cannot read its unit ({unit.load})")
    if unit.load == "masked" and (service.enabled or service.state == "started"):
        actions.append(Action(name, "unmask", "it is masked"))
    if service.enabled and unit.file_state not in ENABLED:
        actions.append(Action(name, "enable", f"it is {unit.file_state}"))
    elif not service.enabled and unit.file_state in {"enabled", "enabled-runtime"}:
        actions.append(Action(name, "disable", f"it is {unit.file_state}"))

    if service.state == "stopped":
        if unit.running or unit.active == "activating":
            actions.append(Action(name, "stop", f"it is {unit.active}"))
        return Decision(tuple(actions))
    if service.state == "unmanaged":
        return Decision(tuple(actions))

    known = valid(stamp, unit)
    restart = changes(service.restart_on, tree, known.restart if known else Loaded(), unit.since, planned)
    since = max(unit.since, known.reloaded_at if known else 0.0)
    loaded = known.reload if known else Loaded()
    reload = changes(service.reload_on, tree, loaded, since, planned, reloaded=unit.reloaded)
    verb = "changed" if known else "changed after it was started"
    if planned and any(path in planned for path in restart + reload):
        verb = "would change"

    if unit.unmet and not restart and not reload:
        return Decision(tuple(actions), skipped="a condition in its unit says that this machine does not need it")
    if unit.active == "activating" and unit.sub == "auto-restart":
        actions.append(Action(name, "restart", f"it keeps failing ({unit.result})"))
    elif not unit.running:
        why = f"failed ({unit.result})" if unit.active == "failed" else "not running"
        actions.append(Action(name, "start", f"it is {why}" if unit.active == "failed" else why))
    elif restart:
        actions.append(Action(name, "restart", several(restart, verb)))
    elif reload and unit.can_reload:
        actions.append(Action(name, "reload", several(reload, verb)))
    elif reload:
        actions.append(Action(name, "restart", f"{several(reload, verb)}, and it cannot reload"))
    return Decision(tuple(actions))


def daemon_reload(units: Iterable[Unit], steps: Iterable[Step]) -> Action | None:
    """Whether systemd has to read its units anew."""
    touched = [step.path for step in steps if step.path.startswith(UNIT_DIRECTORIES)]
    if touched:
        return Action("systemd", "daemon-reload", several(touched, "changed"))
    stale = [unit.name for unit in units if unit.need_daemon_reload]
    if stale:
        return Action("systemd", "daemon-reload", several(stale, "changed on disk"))
    return None


# -------------------------------------------------------------------------------------------------------- commands


def command_due(
    command: Command,
    sources: Mapping[str, str],
    source_times: Mapping[str, float],
    target_time: float | None,
    *,
    record: Mapping[str, Any] | None,
    planned: Iterable[str] = (),
) -> str:
    """Why a command has to run, or nothing if its target is what its sources give.

    `sources`: path -> digest now, `source_times` their change times; `target_time`: when the target was last written,
    None if it is missing or not named; `record`: what was kept after the last success.
    """
    if command.target is not None and target_time is None:
        return f"{command.target} is missing"
    if record is not None and record.get("unfinished"):
        return "it did not finish the last time"
    coming = [path for path in planned if any(under(source, path) for source in command.source)]
    if coming:
        return several(coming, "would change")
    if record is not None and isinstance(record.get("sources"), dict):
        was = record["sources"]
        differing = sorted(path for path in sources.keys() | was.keys() if sources.get(path) != was.get(path))
        return several(differing, "changed") if differing else ""
    if target_time is None:
        return "it has not run yet"
    late = sorted(path for path, when in source_times.items() if when > target_time)
    return several(late, f"is newer than {command.target}") if late else ""


# ----------------------------------------------------------------------------------------------------------- secrets


def secrets_of(text: str) -> set[str]:
    """Words of a secret file that must not be shown: what follows the first `=`, `:` or blank of a line, and its parts.

    Keys stay readable. Masks rather too much than too little.
    """
    found: set[str] = set()
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith(("#", ";", "//", "--")):
            continue
        match = re.match(r"[\w.\-\[\]/@*]+\s*(?:[=:]\s*|\s+)(.+)$", line)
        if match is None:
            # A line of its own: part of a key, or a bare password, if it is no brace, section or frame.
            plain = re.fullmatch(r"[\[{(<]?[\w.\- ]*[\]})>]?[{;,]?|-----[A-Z ]+-----", line)
            if (len(line) >= 6 and not plain) or re.fullmatch(r"[\w.\-+/=]{16,}", line):
                found.add(line)
            continue
        value = match[1].rstrip(";,").strip().strip("\"'")
        if len(value) >= 4:
            found.add(value)
        found.update(word for word in re.split(r"[\s\"',;:=@(){}\[\]<>&?]+", value) if len(word) >= 8)
    return found


def mask(text: str, secrets: Iterable[str]) -> str:
    """Replace every secret in a text; longest first, so that no rest of one remains."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        text = text.replace(secret, MASKED)
    return text


# ------------------------------------------------------------------------------------------------------------- diff


def readable(content: bytes | None) -> str | None:
    """The text of a file, None if it is binary."""
    if content is None:
        return ""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def diffs(
    steps: Iterable[Mapping[str, Any]], before: Mapping[str, str | None], after: Mapping[str, bytes]
) -> list[dict[str, str]]:
    """Before and after of each step as Ansible shows them. `steps` as from `Step.as_dict`.

    `before`: path -> text of the file as it was, None if it is binary; missing if it may not or cannot be shown.
    """
    result: list[dict[str, str]] = []
    for step in steps:
        path, change, secret = str(step["path"]), str(step["change"]), bool(step.get("secret"))
        was: Mapping[str, Any] = step.get("was") or {}
        entry = {"before_header": path, "after_header": path, "before": _before(step, was, before), "after": ""}
        if step["kind"] == "link":
            entry["after"] = f"symbolic link to {step['target']}\n"
        elif change == "removed":
            entry["after_header"] = f"{path} (removed)"
        elif step["kind"] == "directory" or change == "attributes":
            entry["before"] = _attributes(was) if was else ""
            entry["after"] = _attributes(step)
        else:
            new = readable(after.get(path, b""))
            shown = f"(binary, {len(after[path])} bytes)\n" if new is None else new
            if len(shown) > DIFF_BYTES:
                shown = "(too large to show)\n"
            entry["after"] = f"{MASKED} (secret, {change})\n" if secret else shown
            if was.get("kind") == "file" and _attributes(was) != _attributes(step):
                entry["after_header"] = f"{path} ({_attributes(step).strip()})"
        result.append(entry)
    return result


def prepared(
    commands: Iterable[Mapping[str, Any]],
    kernel: Iterable[Mapping[str, str]],
    actions: Iterable[Mapping[str, str]],
    *,
    check_mode: bool,
) -> str:
    """What was done besides files, one line each, for those who read the difference; empty if nothing was."""
    would = "would " if check_mode else ""
    lines = [f"{would}run {' '.join(item['command'])}: {item['because']}" for item in commands]
    lines += [f"{would}set {item['name']} from {item['before']} to {item['after']}" for item in kernel]
    lines += [f"{would}{item['action']} {item['service']}: {item['because']}" for item in actions]
    return "".join(f"{line}\n" for line in lines)


def _attributes(item: Mapping[str, Any]) -> str:
    owner = item.get("owner", item.get("uid", ""))
    group = item.get("group", item.get("gid", ""))
    return f"{item['kind']} mode={item['mode']} owner={owner} group={group}\n"


def _before(step: Mapping[str, Any], was: Mapping[str, Any], before: Mapping[str, str | None]) -> str:
    """What stood at a path, as far as it may be shown."""
    if not was:
        return ""
    if was.get("kind") == "link":
        return f"symbolic link to {was['target']}\n"
    if step.get("secret"):
        return f"{MASKED} (secret)\n"
    text = before.get(str(step["path"]), f"({was['kind']})\n")
    return "(binary)\n" if text is None else text
