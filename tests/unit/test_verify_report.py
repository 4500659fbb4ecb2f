# SPDX-License-Identifier: GPL-3.0-or-later
"""A verify run names every problem, and silence is a problem too."""

from __future__ import annotations

from ansible_collections.bouwsteen.hosting.plugins.filter.verify_report import FilterModule, verify_report

PROBLEM = {"subject": "unit x", "found": "failed", "wanted": "active", "look": "journal"}


def test_problems_of_all_hosts_are_lines() -> None:
    results = {
        "m1": {"machine": {"problems": [PROBLEM]}, "ports": {"problems": []}},
        "m2": {"machine": {"problems": [PROBLEM]}},
    }
    assert verify_report(results) == [
        "m1: unit x: failed; wanted: active; look: journal",
        "m2: unit x: failed; wanted: active; look: journal",
    ]


def test_a_host_that_did_not_answer_is_not_healthy() -> None:
    lines = verify_report({"m1": {"machine": None, "ports": {"failed": True, "msg": "no route"}}})
    assert [line.split("; look")[0] for line in lines] == [
        "m1: machine: no answer; wanted: an answer",
        "m1: ports: no route; wanted: an answer",
    ]


def test_the_filter_is_found_by_its_name() -> None:
    assert list(FilterModule().filters()) == ["verify_report"]
