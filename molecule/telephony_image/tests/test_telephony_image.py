# SPDX-License-Identifier: GPL-3.0-or-later
"""The image as the units find it that run from it, and as a machine finds it that did not build it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).resolve().parents[1]
TOP = HERE.parents[1]
INVENTORY = TOP / "molecule" / "inventory"
ARCHIVES = TOP / "build" / "telephony"
DEFAULTS = yaml.safe_load((TOP / "roles/telephony_image/defaults/main.yml").read_text())
NAME = DEFAULTS["telephony_image_name"]
OWN = "/var/lib/bouwsteen/telephony"
SECOND = "/var/lib/bouwsteen/telephony-second"


def play(*words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the role with other variables."""
    command = ["ansible-playbook", f"--inventory={INVENTORY}", str(HERE / "converge.yml")]
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
    }
    command += [f"--extra-vars={json.dumps(variables)}", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=TOP, check=False)


def receive(*words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """The role as on a machine that does not build, with a folder of its own."""
    own = {"telephony_image_source": "archive", "telephony_image_directory": SECOND}
    return play(*words, **(own | {f"telephony_image_{key}": value for key, value in variables.items()}))


def changed(result: subprocess.CompletedProcess[str]) -> int:
    assert result.returncode == 0, result.stdout + result.stderr
    return int(re.search(r"changed=(\d+)", result.stdout)[1])


def refused(result: subprocess.CompletedProcess[str], message: str) -> None:
    """The role failed, and said this in one piece."""
    assert result.returncode != 0, result.stdout
    said = " ".join((result.stdout + result.stderr).split())
    assert message in said, said


@pytest.fixture(scope="module")
def second() -> None:
    """The second folder has the image, and not by building."""
    result = receive("--diff")
    assert changed(result) == 1
    assert f"image {NAME} unpacked\n" in result.stdout
    assert "built" not in result.stdout


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[Path]:
    """A copy of the folder of archives, to do harm to."""
    place = tmp_path / "archives"
    place.mkdir()
    for path in ARCHIVES.iterdir():
        os.link(path, place / path.name)
    yield place
    shutil.rmtree(place)


def in_image(host: Any, directory: str, *command: str) -> Any:
    """Run a program as a unit does whose root is the image."""
    words = (
        f"systemd-run --quiet --pipe --wait --collect --property=RootDirectory={directory} --property=MountAPIVFS=yes"
    )
    return host.run(f"{words} --property=ProtectSystem=strict --property=DynamicUser=yes -- {' '.join(command)}")


# ------------------------------------------------------------------------------------------------------ the builder


def test_a_dry_run_that_reads_every_file_says_nothing() -> None:
    result = play("--check", "--diff", "--extra-vars=telephony_image_verify_contents=true")
    assert changed(result) == 0
    assert "built" not in result.stdout


def test_the_manifest_says_what_the_image_is(host: Any) -> None:
    manifest = json.loads(host.file(f"{OWN}/images/{NAME}.json").content_string)
    assert manifest == json.loads((ARCHIVES / f"{NAME}.json").read_text())
    assert manifest["release"]["sha256"] == DEFAULTS["telephony_image_release_sha256"]
    assert manifest["release"]["date"][:10].replace("-", "") == NAME.split("-")[1]
    assert manifest["packages"]["asterisk"].startswith(f"1:{NAME.split('-')[0]}+")
    assert set(DEFAULTS["telephony_image_packages"]) <= set(manifest["packages"])
    with (ARCHIVES / f"{NAME}.tar.zst").open("rb") as archive:
        assert hashlib.file_digest(archive, "sha256").hexdigest() == manifest["archive"]["sha256"]


@pytest.mark.parametrize("command", ["asterisk -V", "kamailio -v", "rtpengine --version"])
def test_its_programs_run_from_the_read_only_root(host: Any, command: str) -> None:
    program = command.split(maxsplit=1)[0]
    result = in_image(host, f"{OWN}/use/current", *command.split())
    assert result.rc == 0, result.stderr
    found = re.search(r"(?:Asterisk|kamailio|Version:) (\d[\d.]*\d)", result.stdout + result.stderr)[1]
    assert found == json.loads((ARCHIVES / f"{NAME}.json").read_text())["programs"][program]
    assert f"{found}.".startswith(f"{DEFAULTS['telephony_image_versions'][program]}.")


def test_nobody_writes_to_the_root(host: Any) -> None:
    result = in_image(host, f"{OWN}/use/current", "touch", "/usr/here", "/etc/asterisk/here")
    assert result.rc != 0
    assert result.stderr.count("Read-only file system") == 2


def test_it_has_what_the_house_needs_and_nothing_of_a_machine(host: Any) -> None:
    tree = f"{OWN}/images/{NAME}"
    assert host.run(f"ls {tree}/usr/lib/*/asterisk/modules/res_pjsip_maintenance.so").rc == 0
    for module in ("dialog", "cfgutils", "rtpengine", "websocket", "tls", "db_postgres", "pua_dialoginfo", "outbound"):
        assert host.run(f"ls {tree}/usr/lib/*/kamailio/modules/{module}.so").rc == 0, module
    assert host.run(f"find {tree} -xdev -type f -perm /6000").stdout == ""
    empty = host.run(f"ls -A {tree}/etc/asterisk {tree}/etc/kamailio {tree}/etc/apt/sources.list.d").stdout
    assert [line for line in empty.splitlines() if line and not line.endswith(":")] == []
    assert host.file(f"{tree}/etc/machine-id").size == 0
    assert not host.file(f"{tree}/etc/apt/apt.conf.d/80image").exists


def test_an_archive_of_packages_of_another_day_is_refused() -> None:
    date = json.loads((ARCHIVES / f"{NAME}.json").read_text())["release"]["date"].replace("T", " ").replace("Z", "")
    refused(
        play(telephony_image_name="22.10.1-20261029", telephony_image_release_sha256=""),
        f"the package archive is of {date} UTC, image 22.10.1-20261029 is pinned to 2026-10-29: name an archive of that"
        " day as mirror, take the image's archive from a site that has it, or pin to what there is",
    )


def test_a_name_keeps_its_meaning() -> None:
    refused(
        play(telephony_image_packages=[*DEFAULTS["telephony_image_packages"], "sox"]),
        f"image {NAME} is here already, of another recipe (without sox): give the new one a name of its own,"
        f" for example {NAME}-2",
    )


def test_variables_that_cannot_be_meant_are_refused() -> None:
    refused(play(telephony_image_keep=-1, telephony_image_nmae="x"), "telephony_image_keep: -1 is below 0")
    refused(play(telephony_image_name="newest"), "'newest' is no name of an image: write VERSION-YYYYMMDD")


# ------------------------------------------------------------------------------------- a machine that does not build


@pytest.mark.usefixtures("second")
def test_a_machine_that_does_not_build_has_the_same_image(host: Any) -> None:
    assert changed(receive()) == 0
    assert changed(receive(verify_contents=True)) == 0
    manifests = host.run(f"cat {SECOND}/images/{NAME}.json").stdout
    assert manifests == host.run(f"cat {OWN}/images/{NAME}.json").stdout
    assert host.run(f"ls {SECOND}/archives").rc != 0
    result = in_image(host, f"{SECOND}/use/current", "kamailio", "-v")
    assert "kamailio 6.1" in result.stdout


def test_a_corrupted_archive_is_refused(host: Any, copied: Path) -> None:
    archive = copied / f"{NAME}.tar.zst"
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.unlink()
    archive.write_bytes(content)
    manifest = json.loads((copied / f"{NAME}.json").read_text())
    third = f"{SECOND}-not"
    refused(
        receive(archives=str(copied), directory=third),
        f"the archive of image {NAME} has checksum {hashlib.sha256(content).hexdigest()}, its manifest says"
        f" {manifest['archive']['sha256']}; nothing was unpacked",
    )
    assert host.run(f"ls -A {third}/images {third}/use").stdout.split() == [f"{third}/images:", f"{third}/use:"]


def test_a_manifest_that_was_exchanged_does_not_get_past_the_pin(copied: Path) -> None:
    manifest = json.loads((copied / f"{NAME}.json").read_text())
    refused(
        receive(archives=str(copied), archive_sha256="0" * 64),
        f"the manifest of image {NAME} is of archive {manifest['archive']['sha256']}, pinned is {'0' * 64}",
    )


def test_an_image_that_nobody_built_is_named(tmp_path: Path) -> None:
    refused(
        receive(archives=str(tmp_path)),
        f"image {NAME} is not in {tmp_path} on the control node: run this role first on a machine with"
        " telephony_image_source: build",
    )


@pytest.mark.usefixtures("second")
def test_a_file_that_somebody_changed_is_found(host: Any) -> None:
    added = f"{SECOND}/images/{NAME}/usr/sbin/added"
    host.check_output(f"touch {added}")
    try:
        refused(receive(), f"image {NAME} on this machine is not as it was built: files in it were added, removed or")
    finally:
        host.check_output(f"rm {added}")
    assert changed(receive()) == 0


@pytest.mark.usefixtures("second")
def test_old_images_go_but_not_those_in_use(host: Any) -> None:
    old = ["22.5.0-20260501", "22.6.0-20260601", "22.7.0-20260701", "22.8.0-20260801"]
    for name in old:
        host.check_output(f"cp --archive --link {SECOND}/images/{NAME} {SECOND}/images/{name}")
    host.check_output(f"ln -s ../images/{old[1]} {SECOND}/use/exchange")
    # In a mount namespace of its own, where its root is only "/".
    host.check_output(
        f"systemd-run --quiet --collect --unit=old-image --property=RootDirectory={SECOND}/images/{old[0]}"
        " --property=MountAPIVFS=yes --property=Type=exec sleep infinity"
    )
    try:
        result = receive("--check", "--diff", keep=1)
        assert changed(result) == 1
        assert f"image {old[2]} removed\n" in result.stdout
        assert changed(receive(keep=1)) == 1
        assert changed(receive(keep=1)) == 0
        left = host.run(f"ls -d {SECOND}/images/*/ | xargs -n 1 basename").stdout.split()
        assert sorted(left) == sorted([old[0], old[1], old[3], NAME])
    finally:
        host.check_output("systemctl stop old-image")
    host.check_output(f"rm {SECOND}/use/exchange")
    assert changed(receive(keep=0)) == 1
    assert host.run(f"ls -d {SECOND}/images/*/ | xargs -n 1 basename").stdout.split() == [NAME]


@pytest.mark.usefixtures("second")
def test_an_image_can_be_laid_beside_without_being_used(host: Any) -> None:
    host.check_output(f"ln -sfn ../images/22.0.0-20200101 {SECOND}/use/current")
    assert changed(receive(current=False)) == 0
    assert host.file(f"{SECOND}/use/current").linked_to.endswith("images/22.0.0-20200101")
    assert changed(receive()) == 1
    assert host.file(f"{SECOND}/use/current").linked_to == f"{SECOND}/images/{NAME}"
