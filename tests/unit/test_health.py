# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine says about itself becomes problems that name where to look."""

from __future__ import annotations

from ansible_collections.bouwsteen.hosting.plugins.module_utils import health

SOCKETS = """\
udp   UNCONN 0      0            127.0.0.54:53        0.0.0.0:*
tcp   LISTEN 0      4096      127.0.0.53%lo:53        0.0.0.0:*
tcp   LISTEN 0      128             0.0.0.0:22        0.0.0.0:*
tcp   LISTEN 0      128                [::]:22           [::]:*
tcp   LISTEN 0      244               [::1]:5432         [::]:*
tcp   LISTEN 0      511                   *:6379            *:*
"""


def test_only_sockets_that_others_can_reach_are_exposed() -> None:
    listeners = health.parse_listeners(SOCKETS)
    assert health.Listener("tcp", "127.0.0.53", 53) in listeners
    assert health.exposed_ports(listeners) == [22, 6379]


def test_lines_that_are_no_sockets_are_passed_over() -> None:
    assert health.parse_listeners("Netid State\n\n") == []


def test_failed_units_are_named_once_and_wanted_ones_have_to_be_active() -> None:
    failed = health.failed_units('[{"unit": "b.service"}, {"unit": "a.service"}]')
    states = health.parse_states("Id=a.service\nActiveState=failed\n\nId=c.service\nActiveState=inactive\n")
    problems = health.unit_problems(failed, states, ["a.service", "c.service", "d.service"])
    assert [str(problem).split("; look")[0] for problem in problems] == [
        "unit a.service: failed; wanted: no failed unit",
        "unit b.service: failed; wanted: no failed unit",
        "unit c.service: inactive; wanted: active",
        "unit d.service: not there; wanted: active",
    ]
    assert problems[2].look == "systemctl status c.service; journalctl -b -u c.service"


def test_no_failed_units() -> None:
    assert health.failed_units("") == []


def test_a_file_system_is_a_problem_above_the_mark_only() -> None:
    usage = {"/": (90, 100), "/var": (91, 100), "/proc (inodes)": (0, 0)}
    assert [problem.subject for problem in health.disk_problems(usage, 90)] == ["file system /var"]
    assert health.disk_problems(usage, 90)[0].as_dict()["found"] == "91% used"


def test_what_roles_publish_is_joined_and_a_broken_file_is_a_problem() -> None:
    published, problems = health.read_published(
        {
            "mail.json": '{"units": ["postfix.service"], "ports": [465, 25]}',
            "machine.json": '{"units": ["ssh.service"], "ports": [22]}',
            "x.json": '{"units": []}',
        }
    )
    assert published == health.Published(["postfix.service", "ssh.service"], [22, 25, 465])
    assert [problem.subject for problem in problems] == ["x.json"]
