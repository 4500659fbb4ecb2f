# SPDX-License-Identifier: GPL-3.0-or-later
"""The hands of module ``configuration``: look at a machine, stage, check, install, run, and act on services.

What to do is decided in ``configuration``. Everything that reaches outside (commands, the clock) comes in through
`Machine`, so that tests can stand in for systemd.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import grp
import hashlib
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import configuration as pure

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_PAGER": "",
}
COMMAND_SECONDS = 120
SERVICE_SECONDS = 180
LOCK_SECONDS = 120
# A simple service counts as started when it has stayed up this long; others say themselves when they are ready.
SETTLE_SECONDS = 0.7
JOURNAL_LINES = 15
# A directory that cannot be overlaid is copied for the check, up to this size.
COPY_BYTES = 64 * 1024 * 1024

MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000


class MachineError(Exception):
    """Something that ends the run; `details` go into the result."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command gave back; `status`: negative for a signal, 124 if it took too long, 127 if it is not there."""

    status: int
    output: str


def run_command(words: Sequence[str], seconds: float = COMMAND_SECONDS) -> Outcome:
    """Run a command without a shell and without input; standard output and errors together, in order."""
    try:
        process = subprocess.Popen(
            list(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=ENVIRONMENT, cwd="/", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return Outcome(127, f"{words[0]}: {error.strerror}")
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return Outcome(124, output.decode(errors="replace") + f"\n(stopped after {seconds:.0f} s)")
    return Outcome(process.returncode, output.decode(errors="replace"))


def _number(name: str, found: Callable[[str], int]) -> int | None:
    try:
        return found(name)
    except KeyError:
        return int(name) if name.isdecimal() else None


def user_number(name: str) -> int | None:
    """Number of a user; digits that name nobody stand for themselves."""
    return _number(name, lambda text: pwd.getpwnam(text).pw_uid)


def group_number(name: str) -> int | None:
    """Number of a group, likewise."""
    return _number(name, lambda text: grp.getgrnam(text).gr_gid)


def _name(number: int, found: Callable[[int], str]) -> str:
    try:
        return found(number)
    except KeyError:
        return str(number)


# --------------------------------------------------------------------------------------------------------- looking


def digest_of(path: str) -> str:
    """SHA-256 of a file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def look(path: str, *, entries: bool = False) -> pure.Seen:
    """What stands at a path; links are not followed. `entries`: list the names of files and links in a directory."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return pure.MISSING
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISREG(status.st_mode):
        return pure.Seen("file", digest_of(path), mode, status.st_uid, status.st_gid)
    if stat.S_ISDIR(status.st_mode):
        names: tuple[str, ...] = ()
        if entries:
            with os.scandir(path) as found:
                names = tuple(sorted(entry.name for entry in found if not entry.is_dir(follow_symlinks=False)))
        return pure.Seen("directory", "", mode, status.st_uid, status.st_gid, entries=names)
    if stat.S_ISLNK(status.st_mode):
        return pure.Seen(
            "link", "", mode, status.st_uid, status.st_gid, str(Path(path).readlink()), _safe_link(path, status)
        )
    return pure.Seen("other", "", mode, status.st_uid, status.st_gid)


def _safe_link(path: str, status: os.stat_result) -> bool:
    above = Path(path).parent.stat()
    only_root = status.st_uid == 0 and above.st_uid == 0 and not above.st_mode & 0o022
    return only_root and Path(path).is_dir()


def look_around(request: pure.Request) -> dict[str, pure.Seen]:
    """What stands at every path that matters to a request."""
    purged = {item.path for item in request.directories if item.purge}
    return {path: look(path, entries=path in purged) for path in pure.to_look_at(request)}


def _ignored(name: str) -> bool:
    return any(Path(name).match(pattern) for pattern in pure.LEFTOVERS)


def _entry(path: str, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        inner = digest_of(path) if Path(path).is_file() else ""
        return f"link:{Path(path).readlink()}:{inner}"
    return pure.loaded_digest(digest_of(path), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def tree_of(prefixes: Iterable[str]) -> pure.Tree:
    """Everything below some prefixes, with digests and change times. What cannot be read any more is not there."""
    digests: dict[str, str] = {}
    changed: dict[str, float] = {}

    def walk(path: str) -> None:
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        when = status.st_ctime_ns / 1e9
        if stat.S_ISDIR(status.st_mode):
            # Its change time also moves with its mode; its modification time says when names came or went.
            changed[f"{path}/"] = status.st_mtime_ns / 1e9
            with os.scandir(path) as found:
                for entry in sorted(found, key=lambda item: item.name):
                    if not _ignored(entry.name):
                        walk(entry.path)
        elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            try:
                digests[path] = _entry(path, status)
                changed[path] = when
            except FileNotFoundError:
                return

    for prefix in dict.fromkeys(prefix.rstrip("/") for prefix in prefixes):
        walk(prefix)
    return pure.Tree(digests, changed)


# ------------------------------------------------------------------------------------------------------ installing


@dataclass
class Installer:
    """Makes steps real: every file is written beside its place first, then all are put in place by renaming.

    `durable`: force the bytes to disk before the rename; not needed for a staged copy. `after` is called with the name
    of each moment, so that a test can stop there.
    """

    durable: bool = True
    after: Callable[[str], None] = lambda moment: None
    _written: list[tuple[str, str]] = field(default_factory=list)

    def install(self, steps: Sequence[pure.Step], contents: Mapping[str, bytes]) -> None:
        """Make all steps. If a file cannot be written, no file is put in place and nothing stays behind."""
        try:
            for step in steps:
                if step.kind == "directory":
                    self._directory(step)
            for step in steps:
                if step.kind == "file" and step.content:
                    self._write(step, contents[step.path])
                elif step.kind == "link":
                    self._link(step)
            for temporary, path in list(self._written):
                Path(temporary).rename(path)
                self._written.remove((temporary, path))
                self.after(f"renamed {path}")
            for step in steps:
                if step.kind == "file" and not step.content:
                    self._attributes(step)
            for step in steps:
                if step.kind == "remove":
                    self._remove(step.path)
            if self.durable:
                for directory in {str(Path(step.path).parent) for step in steps}:
                    _sync(directory)
        finally:
            for temporary, _ in self._written:
                with contextlib.suppress(FileNotFoundError):
                    Path(temporary).unlink()
            self._written.clear()

    @staticmethod
    def _ids(step: pure.Step) -> tuple[int, int]:
        # None only in check mode, where the staged copy belongs to root.
        return user_number(step.owner) or 0, group_number(step.group) or 0

    def _directory(self, step: pure.Step) -> None:
        path = Path(step.path)
        if step.change == "created":
            path.mkdir(mode=0o700, exist_ok=True)
        os.chown(step.path, *self._ids(step), follow_symlinks=False)
        path.chmod(step.mode)
        self.after(f"directory {step.path}")

    def _temporary(self, path: str) -> str:
        place = Path(path)
        temporary = place.with_name(pure.TEMPORARY.format(place.name))
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        self._written.append((str(temporary), path))
        return str(temporary)

    def _write(self, step: pure.Step, content: bytes) -> None:
        temporary = self._temporary(step.path)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            # Owner first: changing it clears set-user-id bits.
            os.fchown(stream.fileno(), *self._ids(step))
            os.fchmod(stream.fileno(), step.mode)
            if self.durable:
                os.fsync(stream.fileno())
        self.after(f"written {step.path}")

    def _link(self, step: pure.Step) -> None:
        temporary = self._temporary(step.path)
        Path(temporary).symlink_to(step.target)
        self.after(f"written {step.path}")

    def _attributes(self, step: pure.Step) -> None:
        handle = os.open(step.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.fchown(handle, *self._ids(step))
            os.fchmod(handle, step.mode)
        finally:
            os.close(handle)
        self.after(f"attributes {step.path}")

    def _remove(self, path: str) -> None:
        place = Path(path)
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            with contextlib.suppress(FileNotFoundError):
                place.unlink()
        self.after(f"removed {path}")


def _sync(directory: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: str, text: str) -> None:
    """Replace a small file of our own, readable by root alone."""
    place = Path(path)
    place.parent.mkdir(mode=0o755 if place.parent.name == "bouwsteen" else 0o700, parents=True, exist_ok=True)
    temporary = place.with_name(pure.TEMPORARY.format(place.name))
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
    temporary.rename(place)


# --------------------------------------------------------------------------------------------------------- staging


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {kind or 'bind'} on {target}: {os.strerror(number)}")


def _escape(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _lay_over(directory: str, room: Path) -> None:
    """Lay a throwaway layer over a directory; what is mounted below it stays visible.

    A machine whose root is itself a stack of layers may not take one more, and a container cannot load the kernel
    module: then a copy takes the directory's place.
    """
    points = pure.mounts_below(Path("/proc/self/mountinfo").read_text(), directory)
    kept: list[tuple[str, str]] = []
    for number, point in enumerate(points):
        stand_in = room / f"mount{number}"
        if Path(point).is_dir():
            stand_in.mkdir(parents=True)
        else:
            stand_in.parent.mkdir(parents=True, exist_ok=True)
            stand_in.touch()
        _mount(point, str(stand_in), "", MS_BIND | MS_REC)
        kept.append((str(stand_in), point))
    upper, work = room / "upper", room / "work"
    upper.mkdir(parents=True)
    work.mkdir()
    shutil.copystat(directory, upper)
    status = Path(directory).stat()
    os.chown(upper, status.st_uid, status.st_gid)
    try:
        _mount(
            "overlay",
            directory,
            "overlay",
            0,
            f"lowerdir={_escape(directory)},upperdir={_escape(str(upper))},workdir={_escape(str(work))}",
        )
    except OSError as error:
        _copy_over(directory, room / "copy", error)
    for inner, point in kept:
        if os.path.lexists(point):
            _mount(inner, point, "", MS_BIND | MS_REC)


def _copy_over(directory: str, copy: Path, error: OSError) -> None:
    size = 0
    for base, _, names in os.walk(directory):
        size += sum(os.lstat(Path(base) / name).st_size for name in names)
        if size > COPY_BYTES:
            raise MachineError(
                f"staged files cannot be checked: no layer over {directory} ({error.strerror}), and it is too large to "
                "copy; load kernel module overlay"
            )
    outcome = run_command(["cp", "-a", "-x", directory, str(copy)])
    if outcome.status != 0:
        raise MachineError(f"{directory} cannot be copied to check staged files: {outcome.output}")
    _mount(str(copy), directory, "", MS_BIND)


def check_staged(
    steps: Sequence[pure.Step], contents: Mapping[str, bytes], checks: Sequence[Sequence[str]]
) -> list[tuple[Sequence[str], Outcome]]:
    """Make the steps in a private view of the file system, run the checks there, and return those that failed.

    The view belongs to a child process alone and is gone with it: nothing of it can reach the disk.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            answer = json.dumps(_check_in_private(steps, contents, checks))
            with os.fdopen(writer, "w") as stream:
                stream.write(answer)
            status = 0
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.write(writer, json.dumps({"error": str(error)}).encode())
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    if not text:
        raise MachineError("the process that checks staged files ended without an answer")
    answer = json.loads(text)
    if isinstance(answer, dict):
        raise MachineError(f"staged files could not be checked: {answer['error']}")
    return [(words, Outcome(status, output)) for words, status, output in answer]


def _check_in_private(
    steps: Sequence[pure.Step], contents: Mapping[str, bytes], checks: Sequence[Sequence[str]]
) -> list[tuple[Sequence[str], int, str]]:
    os.unshare(os.CLONE_NEWNS)
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    room = Path(pure.STAMPS) / "stage"
    room.mkdir(mode=0o700, parents=True, exist_ok=True)
    _mount("tmpfs", str(room), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0700,size=256m")
    for number, directory in enumerate(pure.overlays([step.path for step in steps], os.path.isdir)):
        _lay_over(directory, room / str(number))
    Installer(durable=False).install(steps, contents)
    failed: list[tuple[Sequence[str], int, str]] = []
    for words in checks:
        outcome = run_command(words)
        if outcome.status != 0:
            failed.append((words, outcome.status, outcome.output))
    return failed


# -------------------------------------------------------------------------------------------------------- the whole


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One configuration task at a time on a machine."""
    Path(pure.STAMPS).mkdir(mode=0o755, parents=True, exist_ok=True)
    handle = os.open(f"{pure.STAMPS}/.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise MachineError(f"another run has been configuring this machine for {LOCK_SECONDS} s") from None
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)


@dataclass
class Machine:
    """One run of the module on one machine."""

    request: pure.Request
    check_mode: bool = False
    want_before: bool = False
    run: Callable[[Sequence[str]], Outcome] = run_command
    settle: float = SETTLE_SECONDS
    after: Callable[[str], None] = lambda moment: None
    actions: list[pure.Action] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    ran: list[dict[str, Any]] = field(default_factory=list)
    kernel: list[dict[str, str]] = field(default_factory=list)
    skipped_kernel: list[dict[str, str]] = field(default_factory=list)

    def configure(self, contents: Mapping[str, bytes] | None) -> dict[str, Any]:
        """Do all of it. `contents`: bytes of the files that differ; None on the first call.

        Returns the result of the task, or {"needed": [...]} when bytes are missing.
        """
        with contextlib.nullcontext() if self.check_mode else locked():
            return self._configure(contents)

    def _configure(self, contents: Mapping[str, bytes] | None) -> dict[str, Any]:
        seen = look_around(self.request)
        found = pure.compare(self.request, seen, user_number, group_number, check_mode=self.check_mode)
        if found.problems:
            raise MachineError("\n".join(found.problems))
        self.warnings.extend(found.warnings)
        steps = found.steps
        needed = [path for path in found.needed if contents is None or path not in contents]
        # A dry run without checks knows enough without the bytes.
        if needed and not (self.check_mode and not self.request.checks):
            if contents is not None:
                raise MachineError(f"{needed[0]} was changed by somebody else in this moment: run it again")
            return {"needed": needed}
        result: dict[str, Any] = {"steps": [self._named(step) for step in steps], "before": self._before(steps)}
        if steps and self.request.checks:
            self._check(steps, contents or {})
        if self.check_mode:
            self._predict(steps)
        else:
            self._apply(steps, contents or {})
        changed = bool(steps or self.actions or self.ran or self.kernel)
        return result | {
            "changed": changed,
            "actions": [action.as_dict() for action in self.actions],
            "commands": self.ran,
            "kernel": self.kernel,
            "skipped_services": self.skipped,
            "skipped_kernel": self.skipped_kernel,
            "notes": self.warnings,
        }

    @staticmethod
    def _named(step: pure.Step) -> dict[str, Any]:
        described = step.as_dict()
        if "was" in described:
            was = described["was"]
            was["owner"] = _name(was.pop("uid"), lambda number: pwd.getpwuid(number).pw_name)
            was["group"] = _name(was.pop("gid"), lambda number: grp.getgrgid(number).gr_name)
        return described

    def _before(self, steps: Sequence[pure.Step]) -> dict[str, str | None]:
        texts: dict[str, str | None] = {}
        if self.want_before:
            for step in steps:
                place = Path(step.path)
                shown = step.content or step.kind == "remove"
                if (
                    shown
                    and step.before.kind == "file"
                    and not step.secret
                    and place.is_file()
                    and not place.is_symlink()
                ):
                    texts[step.path] = (
                        pure.readable(place.read_bytes())
                        if place.stat().st_size <= pure.DIFF_BYTES
                        else "(too large to show)\n"
                    )
        return texts

    def _secrets(self, contents: Mapping[str, bytes] | None = None) -> set[str]:
        """Words that must not be shown, from the secret files as they are and as they are to be."""
        found: set[str] = set()
        for path in self.request.secrets:
            texts = [(contents or {}).get(path, b"")]
            with contextlib.suppress(OSError):
                texts.append(Path(path).read_bytes())
            for text in texts:
                found |= pure.secrets_of(text.decode(errors="replace"))
        return found

    # -- checks

    def _check(self, steps: Sequence[pure.Step], contents: Mapping[str, bytes]) -> None:
        checks: list[Sequence[str]] = []
        for words in self.request.checks:
            if self.check_mode and shutil.which(words[0], path=ENVIRONMENT["PATH"]) is None:
                self.warnings.append(f"{words[0]} is not installed yet: the new files were not checked with it")
            else:
                checks.append(words)
        failed = check_staged(steps, contents, checks) if checks else []
        if not failed:
            return
        secrets = self._secrets(contents)
        lines = []
        for refused, outcome in failed:
            output = pure.mask(outcome.output.strip(), secrets)
            lines.append(f"{' '.join(refused)} refuses the new configuration (exit status {outcome.status}):\n{output}")
        files = [step.path for step in steps]
        lines.append(f"nothing was installed; new or changed are: {', '.join(files)}")
        raise MachineError(
            "\n".join(lines),
            failed_checks=[
                {"command": list(words), "status": outcome.status, "output": pure.mask(outcome.output, secrets)}
                for words, outcome in failed
            ],
            files=files,
        )

    # -- apply and predict

    def _apply(self, steps: Sequence[pure.Step], contents: Mapping[str, bytes]) -> None:
        if steps:
            # Whatever is loaded now is written down first: a run that is killed below is understood by the next one.
            self._keep_stamps()
        self.after("stamps kept")
        Installer(after=self.after).install(steps, contents)
        self.after("installed")
        for command in self.request.commands:
            self._run_due(command)
        self.after("commands run")
        self._set_kernel()
        if self.request.services:
            self._serve(steps)

    def _predict(self, steps: Sequence[pure.Step]) -> None:
        planned: dict[str, str | None] = {}
        for step in steps:
            if step.kind == "remove":
                planned[step.path] = None
            elif step.kind == "file":
                digest = step.digest if step.content else step.before.digest
                planned[step.path] = pure.loaded_digest(
                    digest, step.mode, user_number(step.owner), group_number(step.group)
                )
            elif step.kind == "link":
                planned[step.path] = f"link:{step.target}"
        for command in self.request.commands:
            reason = self._due(command, list(planned))
            if reason:
                self.ran.append({"command": list(command.command), "because": reason})
                if command.target is not None:
                    planned[command.target] = "derived"
        self._set_kernel()
        if not self.request.services:
            return
        units = self._show()
        reload = pure.daemon_reload(units.values(), steps)
        if reload:
            self.actions.append(reload)
        tree = self._tree()
        for service in self.request.services:
            unit = units[service.unit]
            if unit.load == "not-found" and any(
                step.path.startswith(pure.UNIT_DIRECTORIES) and step.path.endswith(f"/{service.unit}") for step in steps
            ):
                self.actions.extend(pure.decide(service, unit, None, tree, planned, check_mode=True).actions)
                continue
            if unit.load == "not-found" and not (service.state == "stopped" and not service.enabled):
                self.warnings.append(f"service {service.unit} is not installed yet")
            decision = pure.decide(service, unit, self._stamp(service), tree, planned, check_mode=True)
            self.actions.extend(decision.actions)
            self._note(service, decision)

    def _note(self, service: pure.Service, decision: pure.Decision) -> None:
        if decision.skipped:
            self.skipped.append({"service": service.unit, "because": decision.skipped})

    # -- derived files

    def _record(self, command: pure.Command) -> dict[str, Any] | None:
        try:
            data = json.loads(Path(pure.DERIVED, f"{command.key}.json").read_text())
        except (OSError, ValueError):
            return None
        return data if isinstance(data, dict) else None

    def _due(self, command: pure.Command, planned: Iterable[str] = ()) -> str:
        tree = tree_of(command.source)
        target_time = None
        if command.target is not None:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                target_time = Path(command.target).stat().st_mtime_ns / 1e9
        # Content only: who owns a source does not change what is made of it.
        sources = {
            path: digest.split(":")[0] if not digest.startswith("link:") else digest
            for path, digest in tree.digests.items()
        }
        times = {path: when for path, when in tree.changed.items() if path in sources}
        return pure.command_due(command, sources, times, target_time, record=self._record(command), planned=planned)

    def _run_due(self, command: pure.Command) -> None:
        reason = self._due(command)
        record = Path(pure.DERIVED, f"{command.key}.json")
        if reason:
            # Killed or failed half-way, the command must look due to the next run, whatever it has written by then.
            write_text(str(record), json.dumps({"unfinished": True}))
            outcome = self.run(command.command)
            if outcome.status != 0:
                output = pure.mask(outcome.output.strip(), self._secrets())
                raise MachineError(
                    f"{' '.join(command.command)} failed (exit status {outcome.status}):\n{output}",
                    command=list(command.command),
                )
            self.ran.append({"command": list(command.command), "because": reason})
            self.after(f"ran {command.command[0]}")
        if reason or not record.exists():
            tree = tree_of(command.source)
            sources = {
                path: digest.split(":")[0] if not digest.startswith("link:") else digest
                for path, digest in tree.digests.items()
            }
            write_text(str(record), json.dumps({"sources": sources}))

    # -- kernel

    def _set_kernel(self) -> None:
        now: dict[str, pure.Setting] = {}
        for name, _ in self.request.kernel:
            place = Path(pure.setting_path(name))
            try:
                now[name] = pure.Setting(" ".join(place.read_text().split()), os.access(place, os.W_OK))
            except OSError:
                now[name] = pure.Setting(None)
        due, skipped = pure.settings(self.request.kernel, now)
        for name, before, after in due:
            if not self.check_mode:
                try:
                    Path(pure.setting_path(name)).write_text(f"{after}\n")
                except OSError as error:
                    raise MachineError(f"kernel setting {name} does not take {after!r}: {error.strerror}") from error
            self.kernel.append({"name": name, "before": before, "after": after})
        self.skipped_kernel.extend({"name": name, "because": because} for name, because in skipped)

    # -- services

    def _show(self) -> dict[str, pure.Unit]:
        names = [service.unit for service in self.request.services]
        outcome = self.run(
            ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(pure.PROPERTIES)}", "--", *names]
        )
        if outcome.status != 0:
            raise MachineError(f"systemd does not answer: {outcome.output.strip()}")
        return pure.parse_show(outcome.output, names)

    def _show_one(self, service: pure.Service) -> pure.Unit:
        outcome = self.run(
            ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(pure.PROPERTIES)}", "--", service.unit]
        )
        if outcome.status != 0:
            raise MachineError(f"systemd does not answer: {outcome.output.strip()}")
        return pure.parse_show(outcome.output, [service.unit])[service.unit]

    def _tree(self, *services: pure.Service, stamp: pure.Stamp | None = None) -> pure.Tree:
        prefixes = [prefix for service in services or self.request.services for prefix in service.prefixes]
        if stamp:
            prefixes += [*stamp.reload.prefixes, *stamp.restart.prefixes]
        return tree_of(prefixes)

    def _stamp(self, service: pure.Service) -> pure.Stamp | None:
        try:
            return pure.load_stamp(Path(pure.STAMPS, f"{service.unit}.json").read_text())
        except (OSError, ValueError):
            return None

    def _keep(self, service: pure.Service, stamp: pure.Stamp, old: pure.Stamp | None) -> None:
        if stamp != old and (service.prefixes or old):
            write_text(f"{pure.STAMPS}/{service.unit}.json", stamp.dump())

    def _keep_stamps(self) -> None:
        services = [
            service
            for service in self.request.services
            if service.prefixes and service.state == "started" and not service.masked
        ]
        if not services:
            return
        units, tree = self._show(), self._tree()
        for service in services:
            stamp, unit = self._stamp(service), units[service.unit]
            decision = pure.decide(service, unit, stamp, tree, check_mode=True)
            due = any(action.action in {"start", "restart", "reload"} for action in decision.actions)
            if not due and (unit.running or unit.unmet):
                self._keep(service, pure.merged(unit, stamp, service, tree), stamp)

    def _serve(self, steps: Sequence[pure.Step]) -> None:
        units = self._show()
        reload = pure.daemon_reload(units.values(), steps)
        if reload:
            self._systemctl(reload, ["daemon-reload"])
            units = self._show()
        tree = self._tree()
        problems: list[str] = []
        for service in self.request.services:
            unit, stamp = units[service.unit], self._stamp(service)
            if unit.active == "activating" and unit.sub != "auto-restart" and service.state == "started":
                unit = self._wait(service)
            decision = pure.decide(service, unit, stamp, tree)
            self._note(service, decision)
            try:
                if decision.problem:
                    raise MachineError(decision.problem)
                if decision.actions:
                    self._carry_out(service, decision.actions, stamp)
                elif service.state == "started" and not service.masked and (unit.running or unit.unmet):
                    self._keep(service, pure.merged(unit, stamp, service, tree), stamp)
            except MachineError as failure:
                problems.append(str(failure))
        if problems:
            raise MachineError("\n".join(problems))

    def _systemctl(self, action: pure.Action, words: Sequence[str]) -> None:
        outcome = self.run(["systemctl", *words])
        if outcome.status != 0:
            raise MachineError(
                f"systemctl {' '.join(words)} failed (exit status {outcome.status}): {outcome.output.strip()}"
            )
        self.actions.append(action)
        self.after(f"{action.action} {action.service}")

    def _carry_out(self, service: pure.Service, actions: Sequence[pure.Action], stamp: pure.Stamp | None) -> None:
        for action in actions:
            verb = action.action
            if verb not in {"start", "restart", "reload"}:
                self._systemctl(action, [verb, service.unit] if verb != "mask" else ["mask", "--now", service.unit])
                continue
            # What is loaded is what was there before it loaded, and it was loaded at this moment at the earliest.
            tree, when = self._tree(service, stamp=stamp), time.time()
            if verb != "reload":
                # A unit that failed too often in a row refuses to start until this; it does no harm otherwise.
                self.run(["systemctl", "reset-failed", service.unit])
            outcome = self.run(["systemctl", verb, service.unit])
            unit = self._wait(service)
            if outcome.status != 0 or not (unit.running or unit.unmet):
                raise MachineError(self._explain(service, action, outcome, unit))
            self.actions.append(action)
            self.after(f"{verb} {service.unit}")
            if unit.unmet:
                self.skipped.append(
                    {
                        "service": service.unit,
                        "because": "a condition in its unit says that this machine does not need it",
                    }
                )
            if verb == "reload":
                self._keep(service, pure.after_reload(unit, stamp, service, tree, when), None)
            else:
                self._keep(service, pure.stamped(unit, stamp, service, tree), None)

    def _wait(self, service: pure.Service) -> pure.Unit:
        """Wait until a unit is up and stays up, or is down for good."""
        begin = time.monotonic()
        while True:
            unit = self._show_one(service)
            passed = time.monotonic() - begin
            if (
                unit.unmet
                or unit.active in {"failed", "inactive"}
                or unit.sub == "auto-restart"
                or passed > SERVICE_SECONDS
            ):
                return unit
            settled = passed >= self.settle or unit.type not in {"simple", "exec", "idle"}
            if unit.active == "active" and settled:
                return unit
            time.sleep(0.1)

    def _explain(self, service: pure.Service, action: pure.Action, outcome: Outcome, unit: pure.Unit) -> str:
        journal = self.run(
            ["journalctl", "--no-pager", "--output=short-iso", f"--lines={JOURNAL_LINES}", f"--unit={service.unit}"]
        )
        state = f"{unit.active} ({unit.result})" if unit.result else unit.active
        lines = [f"service {service.unit}: {action.action} failed, it is {state}"]
        lines.append(f"reason for the {action.action}: {action.because}")
        if outcome.output.strip():
            lines.append(outcome.output.strip())
        lines += ["its last journal lines:", journal.output.strip()]
        return pure.mask("\n".join(lines), self._secrets())


def configure(
    params: Mapping[str, Any],
    digests: Mapping[str, str],
    contents: Mapping[str, bytes] | None,
    *,
    check_mode: bool,
    want_before: bool,
) -> dict[str, Any]:
    """Entry point of the module."""
    request = pure.parse(params, digests)
    return Machine(request, check_mode=check_mode, want_before=want_before).configure(contents)
