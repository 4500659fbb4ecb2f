# SPDX-License-Identifier: GPL-3.0-or-later
"""Images on a machine: built, unpacked, compared, switched and removed in real directories.

The commands that build are played: mmdebstrap makes a small tree, zstd copies. tar is real.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import telephony_image as pure
from ansible_collections.bouwsteen.hosting.plugins.module_utils import telephony_image_machine as hands
from ansible_collections.bouwsteen.hosting.plugins.module_utils.telephony_image import ImageError
from ansible_collections.bouwsteen.hosting.plugins.module_utils.telephony_image_machine import Store

NAME = "22.10.1-20261030"
RELEASE = "Origin: Debian\nSuite: testing\nCodename: forky\nDate: Fri, 30 Oct 2026 08:08:01 UTC\nSHA256:\n"
MIRROR = "http://mirror.example/debian"
SAID = {
    "asterisk": "Asterisk 22.10.1+dfsg",
    "kamailio": "version: kamailio 6.1.5 (x86_64/Linux)",
    "rtpengine": "Version: 26.0.1.26",
}


class Commands:
    """The commands of a machine, played in so far as they cost time or the network."""

    def __init__(self) -> None:
        self.release = RELEASE
        self.said = SAID
        self.environment: dict[str, str] = {}
        self.ran: list[str] = []

    def __call__(self, command: Sequence[str], **options: Any) -> str:
        words = list(command)
        self.ran.append(" ".join(words))
        if "mmdebstrap" in words:
            self.environment = options["env"]
            return self.mmdebstrap(Path(words[-2]).parent)
        if "zstd" in words:
            shutil.copy(words[-3], words[-1])
            return ""
        if "tar" in words:
            words = [word for word in words if word not in {"nice", "-n", "10", "--zstd"}]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ImageError(done.stderr)
            return done.stdout
        assert words == ["apt-config", "dump"]
        return 'Acquire::http::Proxy "http://cache.example:3142";\n'

    def mmdebstrap(self, work: Path) -> str:
        assert "cache.example" in (work / "apt.conf").read_text()
        (work / "InRelease").write_text(self.release)
        tree = work / "tree"
        (work / "lists/root/var/lib/apt/lists").mkdir(parents=True)
        (work / "lists/root/var/lib/apt/lists/x_InRelease").write_text(self.release)
        pinned = subprocess.run(["sh", str(work / "pin.sh"), str(work / "lists/root")], check=False).returncode == 0
        if not pinned:
            raise ImageError("mmdebstrap failed")
        (tree / "usr/bin").mkdir(parents=True)
        (tree / "usr/bin/asterisk").write_text("program")
        (tree / "bin").symlink_to("usr/bin")
        subprocess.run(["tar", "-C", str(tree), "-cf", str(work / "root.tar"), "."], check=True)
        for name, text in self.said.items():
            (work / name).write_text(text)
        (work / "packages").write_text("asterisk\t1:22.10.1-1\n")
        (work / "architecture").write_text("amd64\n")
        return ""


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    played = Commands()
    monkeypatch.setattr(hands, "run", played)
    return played


@pytest.fixture
def store(tmp_path: Path) -> Store:
    proc = tmp_path / "proc"
    proc.mkdir()
    return Store(str(tmp_path / "telephony"), proc=str(proc))


def a_recipe(name: str = NAME, **other: Any) -> pure.Recipe:
    return pure.recipe(**({"name": name, "suite": "forky", "packages": ["asterisk"], "release_sha256": "",
                           "versions": {"asterisk": "22.10"}} | other))  # fmt: skip


def build(store: Store, **recipe: Any) -> dict[str, Any]:
    with store.locked():
        return store.build(a_recipe(**recipe), MIRROR)


def lay(store: Store, *names: str) -> None:
    """Images with nothing in them."""
    for name in names:
        (store.images / name).mkdir(parents=True)
        (store.images / f"{name}.json").write_text("{}")


def test_a_build_leaves_tree_manifest_and_archive(store: Store, commands: Commands) -> None:
    found = build(store)
    assert (store.images / NAME / "usr/bin/asterisk").read_text() == "program"
    assert found == store.manifest(NAME)
    archive = store.archives / f"{NAME}.tar.zst"
    assert found["archive"] == {"sha256": hands.file_sha256(archive), "bytes": archive.stat().st_size}
    assert found["release"]["sha256"] == hashlib.sha256(RELEASE.encode()).hexdigest()
    assert found["tree"]["entries"] == 4
    assert found["programs"]["rtpengine"] == "26.0.1.26"
    assert commands.environment == {
        "SOURCE_DATE_EPOCH": "1793318400",
        "TMPDIR": str(store.directory / f".work-{NAME}"),
    }
    assert sorted(path.name for path in store.directory.iterdir()) == [".lock", "archives", "images", "use"]
    store.verify(found, contents=True)
    assert store.changes == [f"image {NAME} built"]


def test_an_index_of_another_day_ends_the_build_and_leaves_nothing(store: Store, commands: Commands) -> None:
    commands.release = RELEASE.replace("30 Oct", "31 Oct")
    with pytest.raises(ImageError) as caught:
        build(store)
    assert str(caught.value).startswith(
        f"the package archive is of 2026-10-31 08:08:01 UTC, image {NAME} is pinned to 2026-10-30: "
    )
    assert store.names() == []
    assert not list(store.directory.glob(".work-*"))


def test_an_index_with_another_checksum_ends_the_build(store: Store, commands: Commands) -> None:
    with pytest.raises(ImageError) as caught:
        build(store, release_sha256="a" * 64)
    found = hashlib.sha256(RELEASE.encode()).hexdigest()
    assert str(caught.value) == (
        f"the release file of the package archive has checksum {found}, image {NAME} is pinned to {'a' * 64}"
    )


def test_other_versions_end_the_build(store: Store, commands: Commands) -> None:
    commands.said = SAID | {"asterisk": "Asterisk 22.11.0"}
    with pytest.raises(ImageError) as caught:
        build(store)
    assert str(caught.value) == (
        f"image {NAME} cannot be built from this archive: asterisk is 22.11.0, wanted is 22.10;"
        f" asterisk is 22.11.0, the image is called {NAME}"
    )
    assert store.names() == []


def test_check_mode_builds_nothing(tmp_path: Path, commands: Commands) -> None:
    store = Store(str(tmp_path / "telephony"), check_mode=True)
    assert build(store) == {}
    assert store.changes == [f"image {NAME} built"]
    assert commands.ran == []
    assert not store.directory.exists()


def other_machine(store: Store) -> Store:
    return Store(str(store.directory.parent / "other"), proc=str(store.proc))


def test_an_archive_becomes_the_same_tree_elsewhere(store: Store, commands: Commands) -> None:
    found = build(store)
    other = other_machine(store)
    with other.locked():
        other.install(found, store.archives / f"{NAME}.tar.zst")
    assert other.manifest(NAME) == found
    other.verify(found, contents=True)
    assert other.changes == [f"image {NAME} unpacked"]


def test_a_corrupted_archive_is_not_unpacked(store: Store, commands: Commands) -> None:
    found = build(store)
    archive = store.archives / f"{NAME}.tar.zst"
    with archive.open("r+b") as handle:
        handle.seek(600)
        handle.write(b"!")
    other = other_machine(store)
    commands.ran.clear()
    with other.locked(), pytest.raises(ImageError) as caught:
        other.install(found, archive)
    assert str(caught.value) == (
        f"the archive of image {NAME} has checksum {hands.file_sha256(archive)},"
        f" its manifest says {found['archive']['sha256']}; nothing was unpacked"
    )
    assert commands.ran == []
    assert list(other.images.iterdir()) == []


def test_an_archive_that_unpacks_to_something_else_is_no_image(store: Store, commands: Commands) -> None:
    found = build(store)
    found["tree"]["contents"] = "0" * 64
    other = other_machine(store)
    with other.locked(), pytest.raises(ImageError, match="is not as it was built"):
        other.install(found, store.archives / f"{NAME}.tar.zst")
    assert list(other.images.iterdir()) == []


def test_a_disk_that_is_too_small_is_named(store: Store, commands: Commands) -> None:
    found = build(store)
    found["tree"]["bytes"] = 1 << 60
    other = other_machine(store)
    with other.locked(), pytest.raises(ImageError, match=f"^image {NAME} needs 1099511627776 MiB below "):
        other.install(found, store.archives / f"{NAME}.tar.zst")


def test_a_disk_that_is_too_small_for_a_build_is_named(
    store: Store, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hands, "BUILD_MIB", 1 << 40)
    with pytest.raises(ImageError, match=f"^building image {NAME} needs {1 << 40} MiB below "):
        build(store)
    assert commands.ran == []


@pytest.mark.parametrize("deed", ["changed", "added", "removed", "mode", "link"])
def test_a_tree_that_somebody_touched_is_found_without_reading_it(store: Store, commands: Commands, deed: str) -> None:
    found = build(store)
    program = store.images / NAME / "usr/bin/asterisk"
    if deed == "changed":
        program.write_text("longer program")
    elif deed == "added":
        (program.parent / "more").touch()
    elif deed == "removed":
        program.unlink()
    elif deed == "mode":
        program.chmod(0o4755)
    else:
        (store.images / NAME / "bin").unlink()
        (store.images / NAME / "bin").symlink_to("/bin")
    with pytest.raises(ImageError, match=f"^image {NAME} on this machine is not as it was built"):
        store.verify(found, contents=False)


def test_a_change_that_hides_its_size_and_time_is_found_by_reading(store: Store, commands: Commands) -> None:
    found = build(store)
    program = store.images / NAME / "usr/bin/asterisk"
    before = program.stat()
    program.write_text("programM"[1:])
    os.utime(program, ns=(before.st_atime_ns, before.st_mtime_ns))
    store.verify(found, contents=False)
    with pytest.raises(ImageError, match="is not as it was built"):
        store.verify(found, contents=True)


def test_a_killed_run_is_cleared_away(store: Store) -> None:
    (store.images / f".unpacking-{NAME}/usr").mkdir(parents=True)
    (store.directory / f".work-{NAME}").mkdir()
    with store.locked():
        pass
    assert list(store.images.iterdir()) == []
    assert not list(store.directory.glob(".work-*"))


def test_a_manifest_alone_is_no_image_and_an_image_without_one_is_an_error(store: Store) -> None:
    lay(store, NAME)
    (store.images / NAME).rmdir()
    assert store.manifest(NAME) is None
    (store.images / NAME).mkdir()
    (store.images / f"{NAME}.json").unlink()
    with pytest.raises(ImageError, match=f"/images/{NAME} has no manifest "):
        store.manifest(NAME)


def test_a_link_moves_at_once_and_only_when_it_has_to(store: Store) -> None:
    lay(store, NAME, "22.9.0-20260901")
    with store.locked():
        store.switch("current", NAME)
        store.switch("current", NAME)
        store.switch("current", "22.9.0-20260901")
    assert store.changes == [
        f"current: {NAME} instead of nothing",
        f"current: 22.9.0-20260901 instead of {NAME}",
    ]
    assert (store.use / "current").resolve() == store.images / "22.9.0-20260901"
    assert store.links() == {"current": "22.9.0-20260901"}
    assert [path.name for path in store.use.iterdir()] == ["current"]


def test_old_images_go_but_none_that_a_link_or_a_process_uses(store: Store) -> None:
    names = ["22.5.0-20260501", "22.6.0-20260601", "22.7.0-20260701", "22.8.0-20260801", NAME]
    lay(store, *names)
    (store.images / "notes").mkdir()
    store.archives.mkdir()
    (store.archives / "22.7.0-20260701.tar.zst").touch()
    # A process in a mount namespace of its own: its root is the tree, whatever it is called there.
    (store.proc / "77").mkdir()
    (store.proc / "77/root").symlink_to(store.images / "22.5.0-20260501")
    (store.proc / "78").mkdir()
    with store.locked():
        store.switch("exchange", "22.6.0-20260601")
        assert store.used() == {"22.5.0-20260501", "22.6.0-20260601"}
        assert store.prune(NAME, 1) == ["22.7.0-20260701"]
    assert store.names() == ["22.5.0-20260501", "22.6.0-20260601", "22.8.0-20260801", NAME]
    assert not (store.images / "22.7.0-20260701.json").exists()
    assert not list(store.archives.iterdir())
    assert (store.images / "notes").is_dir()


def test_check_mode_removes_and_switches_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path), check_mode=True, proc=str(tmp_path / "proc"))
    lay(store, "22.8.0-20260801", NAME)
    store.use.mkdir()
    store.switch("current", NAME)
    assert store.prune(NAME, 0) == ["22.8.0-20260801"]
    assert store.changes == [f"current: {NAME} instead of nothing", "image 22.8.0-20260801 removed"]
    assert store.names() == ["22.8.0-20260801", NAME]
    assert not list(store.use.iterdir())


def test_the_mirror_is_the_machines_own_unless_one_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert store.mirror(f"{MIRROR}/") == MIRROR
    files = {
        "/etc/os-release": "ID=debian\nVERSION_CODENAME=trixie\n",
        "/etc/apt/sources.list": (
            "deb http://security.example/debian-security trixie-security main\n"
            "deb http://other.example/tools trixie tools\ndeb http://own.example/debian/ trixie main\n"
        ),
    }
    monkeypatch.setattr(Path, "is_file", lambda path: str(path) in files)
    monkeypatch.setattr(Path, "glob", lambda _path, _pattern: iter(()))
    monkeypatch.setattr(Path, "read_text", lambda path, **_options: files[str(path)])
    assert store.mirror("") == "http://own.example/debian"
    files["/etc/apt/sources.list"] = ""
    with pytest.raises(
        ImageError, match=r"^this machine has no package source for trixie: set telephony_image_mirror$"
    ):
        store.mirror("")


def test_a_command_that_fails_is_told_with_what_it_said() -> None:
    with pytest.raises(ImageError) as caught:
        hands.run(["sh", "-c", "echo it broke >&2; exit 3"])
    assert str(caught.value) == "`sh -c echo it broke >&2; exit 3 ...` failed with status 3: it broke"
    with pytest.raises(ImageError, match=r"^no-such-program is not installed on this machine$"):
        hands.run(["no-such-program"])
    assert hands.run(["sh", "-c", "echo $LC_ALL"]) == "C.UTF-8\n"
