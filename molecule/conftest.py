# SPDX-License-Identifier: GPL-3.0-or-later
"""What all scenarios' tests share: they look at the machines of group molecule_<scenario>, or they fail.

A test with the fixture `host` runs once for each machine of its scenario's group. The machines are reached through the
lab's own ssh configuration, which testinfra reads faster than it asks Ansible.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

MOLECULE = Path(__file__).parent
SSH_CONFIG = "/var/lib/bouwsteen-lab/ssh/config"


def machines_of(scenario: str) -> list[str]:
    """Machines of a scenario's group, as Molecule's inventory has them."""
    command = ["ansible-inventory", f"--inventory={MOLECULE / 'inventory'}", "--list"]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    hosts: list[str] = listed.get(f"molecule_{scenario}", {}).get("hosts", [])
    return hosts


def pytest_configure(config: pytest.Config) -> None:
    """Point testinfra at the machines of the scenario whose tests are run."""
    inside = (config.invocation_params.dir / (config.args[0] if config.args else ".")).resolve()
    scenario = inside.relative_to(MOLECULE).parts[0]
    machines = machines_of(scenario)
    if not machines:
        raise pytest.UsageError(
            f"scenario {scenario}: group molecule_{scenario} of {MOLECULE}/inventory has no machine"
        )
    config.option.hosts = ",".join(f"ssh://{name}?controlpersist=60" for name in machines)
    config.option.ssh_config = SSH_CONFIG


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were skipped; a scenario looks at everything or fails."""
    if terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("a scenario's test must not be skipped", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skipped test is a failure, and so is a run without tests."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
