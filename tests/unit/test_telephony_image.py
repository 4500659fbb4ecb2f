# SPDX-License-Identifier: GPL-3.0-or-later
"""Names, pins, recipes and manifests of telephony images: what is believed, and what is refused in which words."""

from __future__ import annotations

import datetime
import hashlib
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import telephony_image as pure
from ansible_collections.bouwsteen.hosting.plugins.module_utils.telephony_image import ImageError

SHA = "a" * 64
OTHER = "b" * 64
RELEASE = """-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

Origin: Debian
Suite: testing
Codename: forky
Date: Fri, 30 Oct 2026 08:08:01 UTC
Valid-Until: Fri, 06 Nov 2026 08:08:01 UTC
SHA256:
 6d41c06349a3da92b8a135bfde1838f9 1834765 main/Contents-all
-----BEGIN PGP SIGNATURE-----

Date: Mon, 01 Jan 2035 00:00:00 UTC
"""


def a_recipe(**other: Any) -> pure.Recipe:
    values: dict[str, Any] = {
        "name": "22.10.1-20261030",
        "suite": "forky",
        "packages": ["kamailio", "asterisk"],
        "release_sha256": SHA,
        "versions": {"asterisk": "22.10", "kamailio": "6.1", "rtpengine": "26.0"},
    }
    return pure.recipe(**(values | other))


def a_manifest(**other: Any) -> dict[str, Any]:
    found = pure.manifest(
        a_recipe(),
        architecture="amd64",
        release=RELEASE,
        release_sha256=SHA,
        programs={"asterisk": "22.10.1"},
        packages={"asterisk": "1:22.10.1-1"},
        archive={"sha256": SHA, "bytes": 3},
        tree={"entries": 2, "bytes": 3, "shape": SHA, "contents": SHA},
    )
    return found | other


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_name_says_version_day_and_revision() -> None:
    name = pure.parse_name("22.10.1-20261030-3")
    assert (name.version, name.date, name.revision) == ("22.10.1", datetime.date(2026, 10, 30), 3)
    assert str(name) == "22.10.1-20261030-3"
    assert str(pure.parse_name("22.10.1-20261030").next) == "22.10.1-20261030-2"


@pytest.mark.parametrize(
    "text", ["", "current", "22.10.1", "22.10.1-20261330", "22-20261030", "22.10.1-20261030-0", "../22.10.1-20261030",
             "22.10.1-20261030\n", "22.10.1-2026103"],
)  # fmt: skip
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ImageError) as caught:
        pure.parse_name(text)
    assert str(caught.value) == (
        f"{text!r} is no name of an image: write VERSION-YYYYMMDD, Asterisk's version and the day of the packages,"
        " with -2 behind it for another recipe of the same packages"
    )


def test_images_are_ordered_by_day_and_then_by_number() -> None:
    names = ["22.10.1-20261030-2", "22.9.9-20261030", "22.10.1-20261030", "22.8.0-20261101", "22.10.1-20261030-10"]
    assert sorted(names, key=lambda name: pure.parse_name(name).age) == [
        "22.9.9-20261030", "22.10.1-20261030", "22.10.1-20261030-2", "22.10.1-20261030-10", "22.8.0-20261101",
    ]  # fmt: skip


# --- recipe and pin --------------------------------------------------------------------------------------------------


def test_a_recipe_tells_every_mistake_at_once() -> None:
    with pytest.raises(ImageError) as caught:
        a_recipe(suite="For ky", packages=["kamailio$(id)", "asterisk"], release_sha256="12", versions={"opensips": 3})
    assert str(caught.value) == (
        "'For ky' is no Debian suite; 'kamailio$(id)' is no package: write NAME;"
        " '12' is no SHA-256 checksum of the release file; opensips is not a program of the image"
    )


def test_an_empty_recipe_is_refused() -> None:
    with pytest.raises(ImageError, match=r"^no packages to build from$"):
        a_recipe(packages=[])


@pytest.mark.parametrize("uri", ["mirror.example/debian", "http://mirror.example/a b", "http://x.example/']"])
def test_a_mirror_that_would_break_the_source_line_is_refused(uri: str) -> None:
    with pytest.raises(ImageError, match="is no address of a package archive"):
        pure.checked_mirror(uri)
    assert pure.checked_mirror("http://mirror.example/debian/") == "http://mirror.example/debian"


def test_the_release_file_of_the_day_with_the_checksum_is_taken() -> None:
    assert pure.release_problem(RELEASE, SHA, a_recipe()) == ""
    assert pure.release_problem(RELEASE, OTHER, a_recipe(release_sha256="")) == ""
    assert pure.release_date(RELEASE) == datetime.datetime(2026, 10, 30, 8, 8, 1, tzinfo=datetime.UTC)


def test_another_day_is_refused_whichever_way_it_differs() -> None:
    newer = RELEASE.replace("30 Oct 2026 08", "31 Oct 2026 08", 1)
    assert pure.release_problem(newer, OTHER, a_recipe()) == (
        "the package archive is of 2026-10-31 08:08:01 UTC, image 22.10.1-20261030 is pinned to 2026-10-30: name an"
        " archive of that day as mirror, take the image's archive from a site that has it, or pin to what there is"
    )
    assert "is of 2019-10-30" in pure.release_problem(RELEASE.replace("Oct 2026", "Oct 2019", 1), SHA, a_recipe())


def test_another_release_file_of_the_same_day_is_refused() -> None:
    assert pure.release_problem(RELEASE, OTHER, a_recipe()) == (
        f"the release file of the package archive has checksum {OTHER}, image 22.10.1-20261030 is pinned to {SHA}"
    )


def test_another_suite_is_refused() -> None:
    assert pure.release_problem(RELEASE, SHA, a_recipe(suite="duke")) == "the package archive is of forky, not of duke"
    assert pure.release_problem(RELEASE, SHA, a_recipe(suite="testing")) == ""


@pytest.mark.parametrize("text", ["", "Codename: forky\n", "Date: yesterday\n"])
def test_a_release_file_without_a_date_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match=r"^the release file of the package archive has no date"):
        pure.release_date(text)


def run_pin(tmp_path: Path, release: str, **recipe: Any) -> int:
    """Run the hook over a tree with this index; its exit status."""
    lists = tmp_path / "root/var/lib/apt/lists"
    lists.mkdir(parents=True)
    (lists / "mirror.example_dists_forky_InRelease").write_text(release)
    out = tmp_path / "o'ut"
    out.mkdir()
    script = tmp_path / "pin.sh"
    script.write_text(pure.pin_script(a_recipe(**recipe), str(out)))
    done = subprocess.run(["sh", str(script), str(tmp_path / "root")], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert (out / "InRelease").read_text() == release
    return done.returncode


def test_the_hook_lets_the_pinned_index_pass(tmp_path: Path) -> None:
    assert run_pin(tmp_path, RELEASE, release_sha256=hashlib.sha256(RELEASE.encode()).hexdigest()) == 0


def test_the_hook_lets_any_index_of_the_day_pass_without_a_checksum(tmp_path: Path) -> None:
    assert run_pin(tmp_path, RELEASE, release_sha256="") == 0


def test_the_hook_stops_another_index_of_the_day(tmp_path: Path) -> None:
    assert run_pin(tmp_path, RELEASE) != 0


def test_the_hook_stops_another_day(tmp_path: Path) -> None:
    assert run_pin(tmp_path, RELEASE, name="22.10.1-20261031", release_sha256="") != 0


def test_days_below_ten_have_two_digits_in_the_hook() -> None:
    script = pure.pin_script(a_recipe(name="22.10.1-20261105"), "/out")
    assert "'^Date: Thu, 05 Nov 2026 '" in script


# --- building --------------------------------------------------------------------------------------------------------


def test_expiry_is_off_only_with_the_machines_own_proxies() -> None:
    dump = 'Acquire::http::Proxy "http://10.0.0.1:3142";\nAcquire::Retries "0";\nAcquire::https::Proxy "";\n'
    found = pure.proxies(dump + 'Acquire::http::Proxy::mirror.example "DIRECT";\n')
    assert found == {
        "Acquire::http::Proxy": "http://10.0.0.1:3142",
        "Acquire::http::Proxy::mirror.example": "DIRECT",
    }
    text = pure.apt_configuration(found)
    assert 'Acquire::Check-Valid-Until "false";\n' in text
    assert 'Acquire::http::Proxy "http://10.0.0.1:3142";\n' in text


def test_the_command_builds_from_one_signed_source_with_the_pin_before_anything_is_unpacked() -> None:
    command = pure.build_command(a_recipe(), "http://mirror.example/debian", "/work dir")
    assert command[-3:] == [
        "forky",
        "/work dir/root.tar",
        f"deb [signed-by={pure.KEYRING}] http://mirror.example/debian forky main",
    ]
    assert "--include=asterisk,kamailio" in command
    assert "--extract-hook=sh '/work dir'/pin.sh \"$1\"" in command
    assert not [word for word in command if "allow" in word.lower() or "trusted" in word]
    assert "--kill-child" in command


def test_the_tree_keeps_no_identity_and_no_source() -> None:
    lines = pure.finish_script("/out").splitlines()
    removed = shlex.split(next(line for line in lines if line.startswith("rm -f ")))
    assert {pure.APT_CONF, "etc/apt/sources.list", "etc/machine-id", "etc/hostname"} <= set(removed)
    assert "etc/asterisk" in next(line for line in lines if line.startswith("rm -rf "))


SAID = {
    "asterisk": "Asterisk 22.10.1+dfsg+~cs6.17.60671434-1\n",
    "kamailio": "version: kamailio 6.1.5 (x86_64/Linux) \nflags: ...",
    "rtpengine": "Version: 26.0.1.26+0~mr26.0.1.26\n",
}


def test_what_programs_say_about_themselves() -> None:
    found = pure.program_versions(SAID)
    assert found == {"asterisk": "22.10.1", "kamailio": "6.1.5", "rtpengine": "26.0.1.26"}
    assert pure.version_problems(found, a_recipe()) == []


def test_a_program_that_does_not_run_is_named() -> None:
    with pytest.raises(ImageError) as caught:
        pure.program_versions(SAID | {"kamailio": "error while loading shared libraries"})
    assert str(caught.value) == (
        "`kamailio -v` in the new image says no version: 'error while loading shared libraries'"
    )


def test_other_versions_than_the_wanted_ones_are_named() -> None:
    found = {"asterisk": "22.11.0", "kamailio": "6.10.0", "rtpengine": "26.0"}
    assert pure.version_problems(found, a_recipe()) == [
        "asterisk is 22.11.0, wanted is 22.10",
        "kamailio is 6.10.0, wanted is 6.1",
        "asterisk is 22.11.0, the image is called 22.10.1-20261030",
    ]


def test_packages_are_read_in_order() -> None:
    assert list(pure.parse_packages("zlib1g\t1.3\nasterisk\t1:22.10.1-1\n").items()) == [
        ("asterisk", "1:22.10.1-1"),
        ("zlib1g", "1.3"),
    ]


# --- manifest --------------------------------------------------------------------------------------------------------


def test_a_manifest_survives_the_journey() -> None:
    found = a_manifest()
    assert pure.parse_manifest(pure.manifest_text(found), "22.10.1-20261030") == found
    assert found["release"] == {"date": "2026-10-30T08:08:01Z", "sha256": SHA}
    assert found["asked"] == ["asterisk", "kamailio"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the manifest of image 22.10.1-20261030 is no JSON"),
        ("[]", "the manifest of image 22.10.1-20261030 has another format than 1"),
        (json.dumps(a_manifest(format=2)), "the manifest of image 22.10.1-20261030 has another format than 1"),
        (json.dumps(a_manifest(name="1.2-20200101")), "the manifest is of image 1.2-20200101, not of 22.10.1-20261030"),
        (json.dumps(a_manifest(tree={})), "the manifest of image 22.10.1-20261030 is incomplete"),
        (json.dumps(a_manifest(packages=[])), "the manifest of image 22.10.1-20261030 is incomplete"),
        (
            json.dumps(a_manifest(archive={"sha256": "x", "bytes": 1})),
            "the manifest of image 22.10.1-20261030 is incomplete",
        ),
    ],
)
def test_a_manifest_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(ImageError) as caught:
        pure.parse_manifest(text, "22.10.1-20261030")
    assert str(caught.value) == message


def test_an_archive_or_pin_that_differs_is_named_with_both_checksums() -> None:
    assert pure.archive_problem(a_manifest(), SHA) == ""
    assert pure.archive_problem(a_manifest(), OTHER) == (
        f"the archive of image 22.10.1-20261030 has checksum {OTHER}, its manifest says {SHA}; nothing was unpacked"
    )
    assert pure.pin_problem(a_manifest(), "") == pure.pin_problem(a_manifest(), SHA) == ""
    assert pure.pin_problem(a_manifest(), OTHER) == (
        f"the manifest of image 22.10.1-20261030 is of archive {SHA}, pinned is {OTHER}"
    )


def test_a_changed_tree_is_named() -> None:
    tree = {"entries": 2, "bytes": 3, "shape": SHA}
    assert pure.tree_problem(a_manifest(), tree) == ""
    assert pure.tree_problem(a_manifest(), tree | {"entries": 5, "shape": OTHER}) == (
        "image 22.10.1-20261030 on this machine is not as it was built: files in it were added, removed or changed"
        " (5 entries with 3 bytes, its manifest says 2 with 3)"
    )
    assert pure.tree_problem(a_manifest(), tree | {"contents": OTHER})


def test_a_name_never_changes_its_meaning() -> None:
    assert pure.recipe_problem(a_manifest(), a_recipe()) == ""
    assert pure.recipe_problem(a_manifest(), a_recipe(release_sha256="")) == ""
    other = a_recipe(packages=["asterisk", "rtpengine-daemon"], release_sha256=OTHER, suite="duke")
    assert pure.recipe_problem(a_manifest(), other) == (
        f"image 22.10.1-20261030 is here already, of another recipe (suite forky; release file {SHA}; with kamailio;"
        " without rtpengine-daemon): give the new one a name of its own, for example 22.10.1-20261030-2"
    )


# --- retention -------------------------------------------------------------------------------------------------------


def test_the_newest_others_stay() -> None:
    names = ["22.9.0-20260901", "22.8.0-20260801", "22.10.1-20261030", "22.7.0-20260701"]
    assert pure.surplus(names, [], "22.10.1-20261030", 2) == ["22.7.0-20260701"]
    assert pure.surplus(names, [], "22.10.1-20261030", 0) == ["22.7.0-20260701", "22.8.0-20260801", "22.9.0-20260901"]
    assert pure.surplus(names, [], "22.10.1-20261030", 9) == []


def test_one_in_use_stays_and_takes_nobodys_place() -> None:
    names = ["22.9.0-20260901", "22.8.0-20260801", "22.10.1-20261030", "22.7.0-20260701"]
    assert pure.surplus(names, ["22.7.0-20260701"], "22.10.1-20261030", 1) == ["22.8.0-20260801"]


def test_after_going_back_the_newer_image_is_one_of_the_others() -> None:
    names = ["22.8.0-20260801", "22.9.0-20260901", "22.10.1-20261030"]
    assert pure.surplus(names, [], "22.8.0-20260801", 1) == ["22.9.0-20260901"]


# --- the role --------------------------------------------------------------------------------------------------------

VALUES = {
    "telephony_image_name": "22.10.1-20261030",
    "telephony_image_suite": "forky",
    "telephony_image_packages": ["asterisk"],
    "telephony_image_release_sha256": "",
    "telephony_image_archive_sha256": "",
    "telephony_image_versions": {"asterisk": "22.10"},
    "telephony_image_mirror": "",
    "telephony_image_keep": 2,
}


def test_the_roles_variables_are_judged_together() -> None:
    assert pure.refusals(VALUES, VALUES, VALUES) == []
    wrong = {"telephony_image_archive_sha256": "1", "telephony_image_keep": -1, "telephony_image_mirror": "ftp"}
    found = pure.refusals(VALUES | wrong, [*VALUES, "telephony_image_nmae"], VALUES)
    assert found[0] == (
        "role telephony_image does not know telephony_image_nmae; its variables are listed in"
        " roles/telephony_image/README.md"
    )
    assert found[1:] == [
        "'ftp' is no address of a package archive: write for example http://HOST/debian",
        "'1' is no SHA-256 checksum of the archive",
        "telephony_image_keep: -1 is below 0",
    ]


def test_archives_do_not_lie_in_an_inventory() -> None:
    """Ansible would read a manifest there, JSON as it is, as groups."""
    defaults = Path(__file__).resolve().parents[2] / "roles/telephony_image/defaults/main.yml"
    assert "telephony_image_archives: ~/.local/share/bouwsteen/telephony\n" in defaults.read_text()
