# SPDX-License-Identifier: GPL-3.0-or-later
"""What role ``machine`` refuses, and the lists that it puts together."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.filter import machine as filters
from ansible_collections.bouwsteen.hosting.plugins.module_utils import machine
from ansible_collections.bouwsteen.hosting.plugins.module_utils.machine import Connection

DEBIAN = {"distribution": "Debian", "distribution_version": "13.8", "distribution_major_version": "13"}
WANTED: dict[str, Any] = {
    "locale": "en_US.UTF-8", "locales": ["en_US.UTF-8 UTF-8"], "addresses": [],
    "ssh_users": [], "ssh_sources": [], "ssh_control_addresses": [],
}  # fmt: skip
CAME = Connection("192.0.2.1", 22, "root")


def refusals(
    facts: dict[str, Any] | None = None,
    came: Connection = CAME,
    names: tuple[str, ...] = (),
    password: bool = False,
    **wanted: Any,
) -> list[str]:
    return machine.refusals(facts or DEBIAN, WANTED | wanted, came, names, ["machine_name"], password=password)


def test_a_debian_13_with_sound_variables_is_fine() -> None:
    assert (
        refusals(names=("machine_name",), ssh_sources=["192.0.2.0/24", "2001:db8::/32"], ssh_users=["root@192.0.2.*"])
        == []
    )
    assert refusals(locale="C.UTF-8") == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"facts": {"distribution": "Ubuntu", "distribution_version": "24.04", "distribution_major_version": "24"}},
            "this machine runs Ubuntu 24.04; the product is made for Debian 13 (trixie)",
        ),
        (
            {"facts": {"distribution": "Debian", "distribution_version": "12.9", "distribution_major_version": "12"}},
            "this machine runs Debian 12.9; the product is made for Debian 13 (trixie)",
        ),
        (
            {"names": ("machine_name", "machine_nmae", "machine_ssh_prot")},
            (
                "role machine does not know machine_nmae, machine_ssh_prot; "
                "its variables are listed in roles/machine/README.md"
            ),
        ),
        ({"locale": "nl_NL.UTF-8"}, "machine_locale: nl_NL.UTF-8 is not one of machine_locales"),
        (
            {"ssh_sources": ["192.0.2.300"]},
            "machine_ssh_sources: '192.0.2.300' is neither an address nor a network such as 192.0.2.0/24",
        ),
        ({"addresses": ["m1"]}, "machine_addresses: 'm1' is neither an address nor a network such as 192.0.2.0/24"),
        (
            {"password": True},
            "this run logs in with a password, and sshd is about to allow keys only: put a key on the machine first",
        ),
        (
            {"ssh_sources": ["198.51.100.0/24", "2001:db8::/32"]},
            "machine_ssh_sources does not contain 192.0.2.1, where this run comes from: it would shut itself out",
        ),
        (
            {"ssh_users": ["engineer"]},
            "machine_ssh_users does not contain root, as whom this run logs in: it would shut itself out",
        ),
    ],
)
def test_what_would_go_wrong_later_is_refused_with_the_exact_reason(params: dict[str, Any], message: str) -> None:
    assert refusals(**params) == [message]


def test_how_a_run_came_in() -> None:
    assert machine.connection("192.0.2.1 50000 192.0.2.10 2222 root\r\n") == Connection("192.0.2.1", 2222, "root")
    assert machine.connection("fe80::1%host0 50000 fe80::2%host0 22 root") == Connection("fe80::1", 22, "root")
    assert machine.connection(" root\n") == Connection("", 0, "root")
    assert machine.connection("") == Connection()
    assert machine.inside("::ffff:192.0.2.1", ["192.0.2.0/24"])


def test_the_higher_floor_counts() -> None:
    tested = [{"name": "postfix", "version": "3.10.13-1"}, {"name": "openssl", "version": "3.5.1-1"}]
    wanted = [{"name": "postfix", "version": "3.10.9"}, {"name": "openssl", "version": "3.5.1-1+deb13u1"}]
    assert machine.floors(tested, wanted) == {"openssl": "3.5.1-1+deb13u1", "postfix": "3.10.13-1"}


def test_kernel_settings_of_the_operator_count() -> None:
    assert machine.kernel(
        [{"name": "a", "value": "1"}], [{"name": "a", "value": "2"}, {"name": "b", "value": "3"}]
    ) == {"a": "2", "b": "3"}


def test_filters_give_plain_data() -> None:
    found = filters.FilterModule().filters()
    came = found["machine_connection"]("192.0.2.1 1 192.0.2.2 22 root")
    assert came == {"address": "192.0.2.1", "port": 22, "user": "root"}
    assert found["machine_refusals"](DEBIAN, WANTED, came, [], []) == []
    assert found["machine_networks"](["192.0.2.1", "2001:db8::/32"]) == {"ip": ["192.0.2.1"], "ip6": ["2001:db8::/32"]}
