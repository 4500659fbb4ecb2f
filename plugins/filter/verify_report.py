# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter for verify.yml: every problem that its tasks registered, as lines to print."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils.health import Problem

DOCUMENTATION = r"""
name: verify_report
short_description: Every problem that a verify run found, as lines
version_added: 0.1.0
description:
  - Collects the C(problems) of registered results over hosts. A host without a result is a problem too, so that a
    machine that could not be reached is never taken for a healthy one.
positional: _input
options:
  _input:
    description: Name of each host to the results that it should have registered, C({host} -> {result name} -> result).
    type: dict
    required: true
author: Bouwsteen (@bouwsteen)
"""

EXAMPLES = r"""
- ansible.builtin.debug:
    msg: "{{ {'m1': {'units': result}} | bouwsteen.hosting.verify_report }}"
"""

RETURN = r"""
_value:
  description: Lines, one for each problem, sorted.
  type: list
  elements: str
"""


def verify_report(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines of all problems; `results` is host to result name to what a task registered (or nothing)."""
    problems = []
    for host, registered in results.items():
        for name, result in registered.items():
            if not isinstance(result, Mapping) or "problems" not in result:
                message = result.get("msg", "no answer") if isinstance(result, Mapping) else "no answer"
                problems.append(
                    (host, Problem(name, str(message), "an answer", "is it up? the task that failed above"))
                )
                continue
            problems += [(host, Problem(**problem)) for problem in result["problems"]]
    return sorted({f"{host}: {problem}" for host, problem in problems})


class FilterModule:
    """Ansible's way to find the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"verify_report": verify_report}
