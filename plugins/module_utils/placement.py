# SPDX-License-Identifier: GPL-3.0-or-later
"""Which resellers a machine serves, and which certificates it needs for that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def placed(contracts: Mapping[str, Mapping[str, Any]], function: str, machine: str) -> list[dict[str, str]]:
    """Resellers whose `function` is on `machine`, as `{"name", "domain"}`, sorted by name.

    A contract that names no machine for a function is served by every machine that has it: with one machine there is
    nothing to write, and check.yml refuses a contract without placement where there are several.
    """
    result = []
    for name in sorted(contracts):
        contract = contracts[name]
        machines = contract.get("reseller_machines") or {}
        if machines.get(function, machine) == machine:
            result.append({"name": name, "domain": str(contract["reseller_domain"])})
    return result


def certificates(machine: str, functions: Iterable[str], resellers: list[dict[str, str]]) -> list[dict[str, Any]]:
    """What role certificates has to hold on a machine with these functions, in the form of `certificates_wanted`.

    The machine's own name is neutral; each reseller's name has a certificate of its own, so that none of them can be
    read from another's.
    """
    present = set(functions)
    own = []
    own += ["postfix", "dovecot"] if "mail" in present else []
    own += ["postgresql@17-main"] if "directory" in present else []
    wanted = [{"name": machine, "names": [machine], "services": own}] if own else []
    if "mail" in present:
        for reseller in resellers:
            name = f"mail.{reseller['domain']}"
            wanted.append({"name": name, "names": [name], "services": ["postfix", "dovecot"]})
    return wanted
