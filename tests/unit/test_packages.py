# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages are needed and why, and where they come from."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import package_sources, packages
from ansible_collections.bouwsteen.hosting.plugins.module_utils.packages import Need, Wanted

VERSIONS = [
    *("0", "1", "1.0", "1.0-1", "1.0-1+deb13u1", "1.0-1~deb13u1", "1.0~rc1-1", "1.0~~", "1.0a", "1.0+b", "1.00", "1.1"),
    *("1.10", "1.9", "1:0.9", "1:1.0-1", "2:0", "10.0p1-7+deb13u4", "10.0p1-7", "1:10.0p1-7+deb13u4"),
    *("3.5.1-1+deb13u1", "1.0-1.1", "1.0.1-1"),
]


@pytest.mark.parametrize("left", VERSIONS)
def test_versions_compare_as_dpkg_compares_them(left: str) -> None:
    relations = {-1: "lt", 0: "eq", 1: "gt"}
    for right in VERSIONS[VERSIONS.index(left) :]:
        ours = packages.compare_versions(left, right)
        assert packages.compare_versions(right, left) == -ours
        words = ["dpkg", "--compare-versions", left, relations[ours], right]
        assert subprocess.run(words, check=False).returncode == 0, words


def test_packages_with_and_without_a_floor() -> None:
    assert packages.parse_wanted("postfix") == Wanted("postfix")
    assert packages.parse_wanted("dovecot-core >= 1:2.4.1") == Wanted("dovecot-core", "1:2.4.1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Postfix", "'Postfix' is not a package: write NAME or NAME>=VERSION"),
        ("postfix=3.1", "'postfix=3.1' is not a package: write NAME or NAME>=VERSION"),
        ("-o Dir=/", "'-o Dir=/' is not a package: write NAME or NAME>=VERSION"),
        ("postfix>=", "'postfix>=' has no proper version behind '>=': write NAME>=VERSION"),
        ("postfix>=3 1", "'postfix>=3 1' has no proper version behind '>=': write NAME>=VERSION"),
    ],
)
def test_what_is_no_package_is_refused(text: str, message: str) -> None:
    with pytest.raises(packages.PackageError) as caught:
        packages.parse_wanted(text)
    assert str(caught.value) == message


def test_only_what_is_fully_installed_counts() -> None:
    text = "postfix\tinstalled\t3.10\nlibc6:amd64\tinstalled\t2.41\nhalf\thalf-configured\t1\nonce\tconfig-files\t1\n"
    assert packages.parse_installed(text) == {"postfix": "3.10", "libc6": "2.41", "libc6:amd64": "2.41"}


def test_what_is_needed_and_why() -> None:
    found = packages.needs(
        [Wanted("postfix", "3.9"), Wanted("rspamd"), Wanted("redis")],
        {"postfix": "3.10", "openssl": "3.5", "never-installed": "1"},
        {"postfix": "3.9.1", "redis": "7", "openssl": "3.4"},
    )
    assert [need.because for need in found] == [
        "postfix is 3.9.1, at least 3.10 is wanted",
        "rspamd is not installed",
        "openssl is 3.4, at least 3.5 is wanted",
    ]
    assert packages.needs([Wanted("postfix", "3.11"), Wanted("postfix", "3.10")], {}, {"postfix": "3.10"}) == [
        Need("postfix", "3.11", "3.10")
    ]


def test_what_the_sources_cannot_meet() -> None:
    offered = packages.parse_policy(
        "postfix:\n  Installed: 3.9\n  Candidate: 3.10.1\n  Version table:\n     3.10.1 500\n"
        "none:\n  Installed: (none)\n  Candidate: (none)\n"
    )
    assert offered == {"postfix": "3.10.1"}
    needs = [Need("postfix", "3.11", "3.9"), Need("none", "", ""), Need("gone", "2", "")]
    assert packages.unmet(needs, offered) == [
        "package postfix: at least 3.11 is wanted, the package sources have 3.10.1, installed is 3.9",
        "package none: the package sources do not have it",
        "package gone: the package sources do not have it",
    ]
    assert packages.unmet([Need("postfix", "3.10", "")], offered) == []


def test_a_simulation_is_read() -> None:
    before, after = packages.parse_simulation(
        "NOTE: This is only a simulation!\n"
        "Remv exim4 [4.98]\nPurg rpcbind [1.2]\nInst libssl3t64 [3.4] (3.5 Debian-Security:13/stable [amd64])\n"
        "Inst postfix (3.10 Debian:13 [amd64])\nConf postfix (3.10 Debian:13 [amd64])\n"
    )
    assert before == {"exim4": "4.98", "rpcbind": "1.2", "libssl3t64": "3.4"}
    assert after == {"libssl3t64": "3.5", "postfix": "3.10"}
    assert packages.listing(after) == "libssl3t64 3.5\npostfix 3.10\n"


# --------------------------------------------------------------------------------------------------------- sources

LINES = """# comment
deb http://mirror.example/debian trixie main contrib
deb-src http://mirror.example/debian trixie main
deb [arch=amd64] http://mirror.example/debian trixie-updates main # a remark
deb http://mirror.example/debian-security trixie-security main
deb cdrom:[Debian]/ trixie main
deb http://vendor.example/apt trixie stable
"""
KEYRING = "/usr/share/keyrings/debian-archive-keyring.pgp"


def plan(files: dict[str, str], **more: Any) -> tuple[dict[str, str], package_sources.Mirrors]:
    return package_sources.plan(files, "trixie", ["main"], KEYRING, **more)


def test_the_mirror_of_the_machine_is_kept_and_others_repositories_stay() -> None:
    changes, mirrors = plan({"/etc/apt/sources.list": LINES})
    assert mirrors == package_sources.Mirrors("http://mirror.example/debian", "http://mirror.example/debian-security")
    assert changes["/etc/apt/sources.list"] == "# comment\ndeb http://vendor.example/apt trixie stable\n"
    assert changes[package_sources.OWN] == (
        "# Managed by Bouwsteen.\n"
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie trixie-updates\nComponents: main\n"
        f"Signed-By: {KEYRING}\n\n"
        "Types: deb\nURIs: http://mirror.example/debian-security\nSuites: trixie-security\nComponents: main\n"
        f"Signed-By: {KEYRING}\n"
    )


def test_a_second_run_changes_nothing() -> None:
    files = {"/etc/apt/sources.list": LINES}
    changes, _ = plan(files, proxy="http://cache.example:3142")
    assert (
        plan({path: text for path, text in (files | changes).items() if text}, proxy="http://cache.example:3142")[0]
        == {}
    )


def test_a_file_without_a_source_left_goes() -> None:
    changes, _ = plan({"/etc/apt/sources.list": LINES.replace("deb http://vendor.example/apt trixie stable\n", "")})
    assert changes["/etc/apt/sources.list"] == ""


def test_the_new_format_is_read_with_its_folded_lines() -> None:
    text = (
        "# remark\nTypes: deb deb-src\nURIs: http://one.example/debian\nSuites: trixie\n trixie-updates\n"
        "Components: main\n\n"
        "Enabled: no\nTypes: deb\nURIs: http://off.example/debian-security\nSuites: trixie-security\n"
        "Components: main\n\n"
        "Types: deb\nURIs: http://sec.example/debian-security\nSuites: trixie-security\nComponents: main\n\n"
        "Types: deb\nURIs: http://pg.example\nSuites: trixie-pgdg\nComponents: main\n\njust words\n"
    )
    changes, mirrors = plan({"/etc/apt/sources.list.d/all.sources": text})
    assert mirrors == package_sources.Mirrors("http://one.example/debian", "http://sec.example/debian-security")
    assert changes["/etc/apt/sources.list.d/all.sources"].startswith("Types: deb\nURIs: http://pg.example\n")


def test_named_mirrors_and_a_proxy_count() -> None:
    changes, mirrors = plan(
        {}, mirror="http://a.example/debian", security_mirror="https://b.example/sec", proxy="http://c.example:3142"
    )
    assert mirrors == package_sources.Mirrors("http://a.example/debian", "https://b.example/sec")
    assert 'Acquire::http::Proxy "http://c.example:3142";' in changes[package_sources.PROXY]
    changes, _ = plan({package_sources.PROXY: changes[package_sources.PROXY], "/etc/apt/sources.list": LINES})
    assert changes[package_sources.PROXY] == ""


@pytest.mark.parametrize(
    ("files", "more", "message"),
    [
        ({}, {}, "this machine has no package source for trixie: set machine_package_mirror"),
        (
            {"/etc/apt/sources.list": "deb http://m.example/debian trixie main\n"},
            {},
            "this machine has no package source for trixie-security: set machine_package_security_mirror",
        ),
        (
            {"/etc/apt/sources.list": LINES},
            {"mirror": "m.example"},
            "'m.example' is no address of a package source for trixie: write for example http://HOST/debian",
        ),
        (
            {"/etc/apt/sources.list": LINES},
            {"proxy": 'x";'},
            "'x\";' is no address of a proxy: write for example http://HOST:3142",
        ),
    ],
)
def test_sources_that_cannot_be_made_out(files: dict[str, str], more: dict[str, str], message: str) -> None:
    with pytest.raises(package_sources.SourceError) as caught:
        plan(files, **more)
    assert str(caught.value) == message
