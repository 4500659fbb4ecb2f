# SPDX-License-Identifier: GPL-3.0-or-later
"""The hands of module ``telephony_image``: images on one machine, driven by the decisions of :mod:`telephony_image`.

Below the directory: `images/NAME` (the tree) with `images/NAME.json` (its manifest), `archives/NAME.tar.zst` on a
machine that builds, and `use/LINK`, links to the images that somebody is pinned to. A tree is made aside and renamed,
so what has its name is whole; a run that was killed leaves names with a leading dot, which the next one removes.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import package_sources
from ansible_collections.bouwsteen.hosting.plugins.module_utils import telephony_image as pure
from ansible_collections.bouwsteen.hosting.plugins.module_utils.telephony_image import ImageError, Recipe

CURRENT = "current"
BUILD_MIB = 2048
"""What a build needs for a moment: the tree while it is made, as one file, compressed, and unpacked."""


def run(command: Sequence[str], **options: Any) -> str:
    """Run a command; its output. A failure becomes an ImageError with the last lines of what it said."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **options.pop("env", {})}
    try:
        done = subprocess.run(
            list(command), capture_output=True, text=True, check=False, env=environment, errors="replace", **options
        )
    except FileNotFoundError as error:
        raise ImageError(f"{command[0]} is not installed on this machine") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-15:]
        raise ImageError(f"`{' '.join(command[:8])} ...` failed with status {done.returncode}: " + "\n".join(said))
    return str(done.stdout)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def tree_of(root: Path, *, contents: bool) -> dict[str, Any]:
    """A tree in four values: entries, bytes, a digest of its shape and, if asked for, one of its files' contents.

    The shape is kind, mode, owner, size, time and name of everything, which costs no reading of files. Directories
    have no size or time in it: both depend on the file system.
    """
    shape, inside, entries, total = hashlib.sha256(), hashlib.sha256(), 0, 0
    for directory, folders, files in os.walk(root, onerror=_raise):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = Path(directory, name)
            found = path.lstat()
            entries += 1
            is_folder = stat.S_ISDIR(found.st_mode)
            size, time = (0, 0) if is_folder else (found.st_size, int(found.st_mtime))
            target = path.readlink() if stat.S_ISLNK(found.st_mode) else ""
            fields = (oct(found.st_mode), found.st_uid, found.st_gid, size, time, target, path.relative_to(root))
            shape.update(("\0".join(map(str, fields)) + "\n").encode("utf-8", "surrogateescape"))
            if stat.S_ISREG(found.st_mode):
                total += size
                if contents:
                    inside.update(bytes.fromhex(file_sha256(path)))
    result = {"entries": entries, "bytes": total, "shape": shape.hexdigest()}
    return result | ({"contents": inside.hexdigest()} if contents else {})


def _raise(error: OSError) -> None:
    raise error


def write(path: Path, text: str) -> None:
    """Put a whole file in place at once."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o644)
    temporary.replace(path)


class Store:
    """The images of one machine."""

    def __init__(self, directory: str, *, check_mode: bool = False, proc: str = "/proc") -> None:
        self.directory = Path(directory)
        self.images = self.directory / "images"
        self.archives = self.directory / "archives"
        self.use = self.directory / "use"
        self.check_mode = check_mode
        self.proc = Path(proc)
        self.changes: list[str] = []

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One run at a time; in check mode nothing is made or waited for."""
        if self.check_mode:
            yield
            return
        for path in (self.directory, self.images, self.use):
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        with (self.directory / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            for leftover in [*self.images.glob(".*"), *self.directory.glob(".work-*")]:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            yield

    # --- what is there -----------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Images that are there, oldest first."""
        found = []
        for path in self.images.glob("[0-9]*"):
            if path.is_dir() and not path.is_symlink():
                with contextlib.suppress(ImageError):
                    found.append(str(pure.parse_name(path.name)))
        return sorted(found, key=lambda name: pure.parse_name(name).age)

    def manifest(self, name: str) -> dict[str, Any] | None:
        """The manifest of an image; None if the image is not there."""
        if not (self.images / name).is_dir():
            return None
        try:
            return pure.parse_manifest((self.images / f"{name}.json").read_text(encoding="utf-8"), name)
        except FileNotFoundError as error:
            raise ImageError(f"{self.images / name} has no manifest {error.filename}") from error

    def verify(self, found: Mapping[str, Any], *, contents: bool) -> None:
        """Compare a tree with its manifest; with `contents` every file is read."""
        problem = pure.tree_problem(found, tree_of(self.images / found["name"], contents=contents))
        if problem:
            raise ImageError(problem)

    def links(self) -> dict[str, str]:
        """Link -> image that it names."""
        if not self.use.is_dir():
            return {}
        return {path.name: path.readlink().name for path in sorted(self.use.iterdir()) if path.is_symlink()}

    def used(self) -> set[str]:
        """Images that a link names or that a process has as its root, whatever mount namespace it is in."""
        roots = {}
        for name in self.names():
            found = (self.images / name).stat()
            roots[found.st_dev, found.st_ino] = name
        result = set(self.links().values())
        for process in self.proc.glob("[0-9]*"):
            with contextlib.suppress(OSError):
                found = (process / "root").stat()
                result |= {roots[key] for key in [(found.st_dev, found.st_ino)] if key in roots}
        return result

    # --- changes -----------------------------------------------------------------------------------------------------

    def mirror(self, wanted: str) -> str:
        """The archive to build from: as given, else that of the machine's own package sources."""
        if wanted:
            return pure.checked_mirror(wanted)
        release = ""
        for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
            if line.startswith("VERSION_CODENAME="):
                release = line.partition("=")[2].strip('"')
        paths = [package_sources.OWN, "/etc/apt/sources.list", *map(str, Path("/etc/apt/sources.list.d").glob("*"))]
        for path in paths:
            if Path(path).suffix not in {".list", ".sources"} or not Path(path).is_file():
                continue
            for entry in package_sources.parse(path, Path(path).read_text(encoding="utf-8")):
                if entry.enabled and "deb" in entry.types and entry.of_debian(release) and release in entry.suites:
                    return pure.checked_mirror(entry.uris[0])
        raise ImageError(f"this machine has no package source for {release}: set telephony_image_mirror")

    def build(self, wanted: Recipe, mirror: str) -> dict[str, Any]:
        """Make the archive and the tree of a recipe; the manifest. The archive passes the way that others take too."""
        name = str(wanted.name)
        self.changes.append(f"image {name} built")
        address = self.mirror(mirror)
        if self.check_mode:
            return {}
        self._room(f"building image {name}", BUILD_MIB)
        self.archives.mkdir(mode=0o755, exist_ok=True)
        work = self.directory / f".work-{name}"
        # apt fetches as a user of its own, who has to get in.
        work.mkdir(mode=0o755)
        try:
            (work / "apt.conf").write_text(pure.apt_configuration(pure.proxies(run(["apt-config", "dump"]))))
            (work / "pin.sh").write_text(pure.pin_script(wanted, str(work)))
            (work / "finish.sh").write_text(pure.finish_script(str(work)))
            self._mmdebstrap(wanted, address, work)
            programs = pure.program_versions({program: _read(work / program) for program in pure.PROGRAMS})
            problems = pure.version_problems(programs, wanted)
            if problems:
                raise ImageError(f"image {name} cannot be built from this archive: {'; '.join(problems)}")
            archive = work / pure.archive_name(name)
            run(["nice", "-n", "10", "zstd", "--quiet", "--threads=0", str(work / "root.tar"), "-o", str(archive)])
            (work / "root.tar").unlink()
            aside = self._unpack(name, archive)
            found = pure.manifest(
                wanted,
                architecture=_read(work / "architecture").strip(),
                release=_read(work / "InRelease"),
                release_sha256=file_sha256(work / "InRelease"),
                programs=programs,
                packages=pure.parse_packages(_read(work / "packages")),
                archive={"sha256": file_sha256(archive), "bytes": archive.stat().st_size},
                tree=tree_of(aside, contents=True),
            )
            archive.chmod(0o644)
            archive.replace(self.archives / archive.name)
            self._put(found, aside)
        finally:
            shutil.rmtree(work)
        return found

    def _mmdebstrap(self, wanted: Recipe, mirror: str, work: Path) -> None:
        """Run it, and say why the pin refused if that is what ended it."""
        # The day of the pin, so that a second build is the same to the byte where Debian's packages allow it.
        epoch = datetime.datetime.combine(wanted.name.date, datetime.time(), datetime.UTC).timestamp()
        # Not in /tmp, which is memory on Debian 13, and where nobody would clear up after a build that was killed.
        environment = {"SOURCE_DATE_EPOCH": f"{epoch:.0f}", "TMPDIR": str(work)}
        try:
            run(pure.build_command(wanted, mirror, str(work)), env=environment)
        except ImageError as error:
            if (work / "InRelease").is_file() and not (work / "packages").is_file():
                problem = pure.release_problem(_read(work / "InRelease"), file_sha256(work / "InRelease"), wanted)
                if problem:
                    raise ImageError(problem) from error
            raise

    def install(self, found: Mapping[str, Any], archive: Path) -> None:
        """Unpack an archive that is the one of the manifest, and nothing of one that is not."""
        problem = pure.archive_problem(found, file_sha256(archive))
        if problem:
            raise ImageError(problem)
        self._room(f"image {found['name']}", found["tree"]["bytes"] >> 20)
        aside = self._unpack(found["name"], archive)
        problem = pure.tree_problem(found, tree_of(aside, contents=True))
        if problem:
            shutil.rmtree(aside)
            raise ImageError(problem)
        self._put(found, aside)
        self.changes.append(f"image {found['name']} unpacked")

    def _room(self, what: str, mebibytes: int) -> None:
        free = shutil.disk_usage(self.images).free >> 20
        if free < mebibytes:
            raise ImageError(f"{what} needs {mebibytes} MiB below {self.images}, {free} MiB are free")

    def _unpack(self, name: str, archive: Path) -> Path:
        aside = self.images / f".unpacking-{name}"
        aside.mkdir(mode=0o755)
        words = ["--extract", "--zstd", "--numeric-owner", "--same-owner", "--same-permissions", "--xattrs"]
        run(["nice", "-n", "10", "tar", *words, "--xattrs-include=*", f"--file={archive}", f"--directory={aside}"])
        aside.chmod(0o755)
        return aside

    def _put(self, found: Mapping[str, Any], aside: Path) -> None:
        """The manifest first: an image is there when its tree is."""
        write(self.images / f"{found['name']}.json", pure.manifest_text(found))
        aside.replace(self.images / found["name"])

    def switch(self, link: str, name: str) -> None:
        """Point a link at an image, at once."""
        target = Path("..", "images", name)
        path = self.use / link
        if path.is_symlink() and path.readlink() == target:
            return
        before = path.readlink().name if path.is_symlink() else "nothing"
        self.changes.append(f"{link}: {name} instead of {before}")
        if not self.check_mode:
            temporary = self.use / f".{link}.{os.getpid()}"
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(target)
            temporary.replace(path)

    def prune(self, wanted: str, keep: int) -> list[str]:
        """Remove images that are neither wanted, nor kept, nor in use; an archive goes with its image."""
        gone = pure.surplus(self.names(), self.used(), wanted, keep)
        for name in gone:
            self.changes.append(f"image {name} removed")
            if not self.check_mode:
                aside = self.images / f".removing-{name}"
                (self.images / name).rename(aside)
                shutil.rmtree(aside)
                (self.images / f"{name}.json").unlink(missing_ok=True)
                (self.archives / pure.archive_name(name)).unlink(missing_ok=True)
        return gone


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
