#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Installs Debian packages, none of them below its floor."""

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Install Debian packages, none of them below its security floor
version_added: "0.1.0"
description:
  - Makes sure that packages are installed, and that none is older than the lowest version that is allowed.
  - Without a difference it costs one query of the package database. The package index is refreshed only when something
    is missing or too old.
  - Services of new packages do not start, so that nothing ever runs with the distribution's default configuration.
    Services that run already are restarted by their package as usual.
author:
  - The authors of Bouwsteen (@bouwsteen)
attributes:
  check_mode:
    description: Says what would be installed, by a simulation with the package index as it is.
    support: full
  diff_mode:
    description: Shows the versions of all packages that change, before and after.
    support: full
  platform:
    description: Machines that it works on.
    support: full
    platforms: debian
options:
  names:
    description: Packages, each as V(NAME) or V(NAME>=VERSION).
    type: list
    elements: str
    default: []
  absent:
    description: Packages that must not be installed. They go with their configuration files.
    type: list
    elements: str
    default: []
  floors:
    description:
      - Lowest versions by name. They bind packages that are wanted or installed already, and install nothing.
      - Floors that role C(machine) has left in C(/etc/bouwsteen/package-floors.json) always count as well.
    type: dict
    default: {}
  start:
    description: Whether services of new packages start at once.
    type: bool
    default: false
  recommends:
    description: Whether recommended packages are installed too.
    type: bool
    default: false
  index_age:
    description: The package index is refreshed before an installation if it is older than this many seconds.
    type: int
    default: 3600
  lock_timeout:
    description: How many seconds to wait for another package tool to finish.
    type: int
    default: 300
notes:
  - Has to run as root on the machine.
"""

EXAMPLES = r"""
- name: Install the mail server
  bouwsteen.hosting.packages:
    names: [postfix, "dovecot-core>=1:2.4.1", rspamd]

- name: Upgrade what is below its floor
  bouwsteen.hosting.packages:
    floors: {openssh-server: "1:10.0p1-7"}
"""

RETURN = r"""
needed:
  description: Why something had to be done, a line for each package.
  returned: success
  type: list
  elements: str
  sample: ["postfix is not installed"]
before:
  description: Versions before, of all packages that changed.
  returned: success
  type: dict
  sample: {"openssl": "3.5.1-1"}
after:
  description: Versions after, of all packages that changed.
  returned: success
  type: dict
  sample: {"openssl": "3.5.1-1+deb13u1", "postfix": "3.10.13-0+deb13u1"}
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import packages as pure

FLOORS = Path("/etc/bouwsteen/package-floors.json")
LISTS = Path("/var/lib/apt/lists")
POLICY = Path("/usr/sbin/policy-rc.d")
# Always there and only minding the variable: if it were laid down for an installation alone, a run that is killed would
# leave a machine on which no package can start its service any more.
POLICY_TEXT = """#!/bin/sh
# Bouwsteen: services of packages that it installs start when their configuration is there, not before.
# A service that runs may be restarted. Without the variable everything is allowed.
[ "$BOUWSTEEN_START" = no ] || exit 0
systemctl --quiet is-active "$1" && exit 0
exit 101
"""


class Packages:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.options = [
            "--yes", "--quiet",
            f"--option=DPkg::Lock::Timeout={module.params['lock_timeout']}",
            "--option=Dpkg::Options::=--force-confdef", "--option=Dpkg::Options::=--force-confold",
            "--option=Dpkg::Use-Pty=0", "--option=Acquire::Retries=3",
        ]  # fmt: skip
        self.environment = {
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            "DEBIAN_PRIORITY": "critical",
            "NEEDRESTART_SUSPEND": "1",
            "APT_LISTCHANGES_FRONTEND": "none",
            "BOUWSTEEN_START": "yes" if module.params["start"] else "no",
        }

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run a command; status, output, errors."""
        status, output, errors = self.module.run_command(list(words), environ_update=self.environment)
        return status, output, errors

    def fail(self, what: str, output: str, errors: str) -> None:
        """End with the last lines of what a tool said."""
        said = [line for line in (output + errors).splitlines() if line.strip()]
        self.module.fail_json(msg="\n".join([what, *said[-20:]]))

    def installed(self, names: list[str]) -> dict[str, str]:
        """Versions of those of the packages that are installed."""
        # An unknown name gives status 1 and the others all the same.
        return pure.parse_installed(self.run("dpkg-query", "--show", f"--showformat={pure.QUERY}", *names)[1])

    def candidates(self, names: list[str]) -> dict[str, str]:
        """Versions that the package sources offer."""
        return pure.parse_policy(self.run("apt-cache", "policy", *names)[1])

    def index_is_stale(self) -> bool:
        """Whether the package index is old, or older than the list of sources."""
        try:
            made = LISTS.stat().st_mtime
        except FileNotFoundError:
            return True
        if not any(LISTS.glob("*Release")):
            return True
        directory = Path("/etc/apt/sources.list.d")
        sources = [Path("/etc/apt/sources.list"), directory, *directory.glob("*")]
        return time.time() - made > self.module.params["index_age"] or any(
            place.exists() and place.stat().st_mtime > made for place in sources
        )

    def refresh_index(self) -> None:
        """Fetch the package index; an index that cannot be fetched is an error, not a warning."""
        status, output, errors = self.run("apt-get", "update", *self.options, "--option=APT::Update::Error-Mode=any")
        if status != 0:
            self.fail("The package index cannot be fetched:", output, errors)
        # Unchanged indexes leave the directory as it was; its time says when we looked.
        os.utime(LISTS)

    def finish_interrupted(self) -> None:
        """Finish what a killed installation left half done; apt-get refuses to work before."""
        deadline = time.monotonic() + self.module.params["lock_timeout"]
        while any(Path("/var/lib/dpkg/updates").glob("[0-9]*")) or self.run("dpkg", "--audit")[1].strip():
            status, output, errors = self.run("dpkg", "--configure", "-a", "--force-confdef", "--force-confold")
            if status == 0:
                return
            if "lock" not in errors or time.monotonic() > deadline:
                # Dependencies may be missing: apt-get can fetch them.
                status, output, errors = self.run("apt-get", "install", "--fix-broken", *self.options)
                if status != 0:
                    self.fail("An interrupted installation cannot be finished:", output, errors)
                return
            time.sleep(1)

    def lay_policy(self) -> None:
        """Put the script in place that keeps services of new packages from starting, unless there is one already."""
        if not POLICY.exists():
            temporary = POLICY.with_name(".policy-rc.d.bouwsteen-new")
            temporary.write_text(POLICY_TEXT)
            temporary.chmod(0o755)
            temporary.rename(POLICY)

    def change(self, verb: list[str], names: list[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Simulate, then do it unless this is check mode; versions before and after."""
        status, output, errors = self.run("apt-get", "--simulate", *verb, *self.options, *names)
        if status != 0:
            self.fail(f"apt-get {verb[0]} {' '.join(names)} is not possible:", output, errors)
        before, after = pure.parse_simulation(output)
        if not self.module.check_mode:
            status, output, errors = self.run("apt-get", *verb, *self.options, *names)
            if status != 0:
                self.fail(f"apt-get {verb[0]} {' '.join(names)} failed:", output, errors)
        return before, after


def floors_of(module: AnsibleModule) -> dict[str, str]:
    """Floors of the task and of the machine; the higher one counts."""
    floors = {str(name): str(floor) for name, floor in module.params["floors"].items()}
    try:
        kept = json.loads(FLOORS.read_text())
    except FileNotFoundError:
        kept = {}
    for name, floor in kept.items():
        if name not in floors or pure.compare_versions(floor, floors[name]) > 0:
            floors[name] = floor
    for name, floor in floors.items():
        pure.parse_wanted(f"{name}>={floor}")
    return floors


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "default": []},
            "absent": {"type": "list", "elements": "str", "default": []},
            "floors": {"type": "dict", "default": {}},
            "start": {"type": "bool", "default": False},
            "recommends": {"type": "bool", "default": False},
            "index_age": {"type": "int", "default": 3600},
            "lock_timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="packages needs root on the machine: set become for this play")
    work = Packages(module)
    try:
        wanted = [pure.parse_wanted(text) for text in module.params["names"]]
        unwanted = [pure.parse_wanted(text).name for text in module.params["absent"]]
        floors = floors_of(module)
    except pure.PackageError as error:
        module.fail_json(msg=str(error))
    names = [package.name for package in wanted]
    both = sorted(set(names) & set(unwanted))
    if both:
        module.fail_json(msg=f"{', '.join(both)} cannot be both installed and absent")

    installed = work.installed([*names, *floors, *unwanted])
    needs = pure.needs(wanted, floors, installed)
    surplus = [name for name in unwanted if name in installed]
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    if needs:
        needed = [need.name for need in needs]
        if not module.check_mode:
            work.finish_interrupted()
            if work.index_is_stale():
                work.refresh_index()
        unmet = pure.unmet(needs, work.candidates(needed))
        if unmet and not module.check_mode:
            work.refresh_index()
            unmet = pure.unmet(needs, work.candidates(needed))
        if unmet and module.check_mode:
            # The index may be old, or the sources may be about to change in this very run.
            for line in unmet:
                module.warn(f"{line}; the package index was not refreshed in check mode")
            before |= {need.name: need.installed for need in needs if need.installed}
            after |= {need.name: need.floor or "(newest)" for need in needs}
        elif unmet:
            module.fail_json(msg="\n".join(unmet))
        else:
            if not module.check_mode:
                work.lay_policy()
            recommends = "--install-recommends" if module.params["recommends"] else "--no-install-recommends"
            old, new = work.change(["install", recommends, "--no-remove"], needed)
            before |= old
            after |= new
    if surplus:
        old, new = work.change(["purge"], surplus)
        before |= old
        after |= new
    if needs and not module.check_mode:
        left = pure.needs(wanted, floors, work.installed([*names, *floors]))
        if left:
            module.fail_json(msg="After the installation still: " + "; ".join(need.because for need in left))
    result: dict[str, Any] = {"changed": bool(needs or surplus), "before": before, "after": after}
    result["needed"] = [need.because for need in needs] + [f"{name} is installed" for name in surplus]
    if module._diff and result["changed"]:
        result["diff"] = {
            "before_header": "packages",
            "after_header": "packages",
            "before": pure.listing(before),
            "after": pure.listing(after),
        }
    module.exit_json(**result)


if __name__ == "__main__":
    main()
