# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab's modules share: arguments in, changes and errors out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab import LabError, Settings
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab_host import Lab

SETTINGS_ARGUMENT: dict[str, Any] = {
    "type": "dict",
    "default": {},
    "options": {
        "state_directory": {"type": "path", "default": "/var/lib/bouwsteen-lab"},
        "bridge": {"type": "str", "default": "bouwsteen0"},
        "address": {"type": "str", "default": "10.213.0.1/24"},
        "address6": {"type": "str", "default": "fd00:b5::1/64"},
        "zone": {"type": "str", "default": "example"},
        "table": {"type": "str", "default": "bouwsteen_lab"},
    },
    "apply_defaults": True,
}

MACHINE_ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "address": {"type": "str"},
    "address6": {"type": "str"},
    "memory": {"type": "str"},
    "image": {"type": "str", "default": "machine"},
    "options": {"type": "list", "elements": "str", "default": []},
}


def settings_of(parameters: dict[str, Any]) -> Settings:
    """Settings from a module's `settings` argument."""
    given = parameters["settings"]
    return Settings(
        state=given["state_directory"],
        bridge=given["bridge"],
        address=given["address"],
        address6=given["address6"],
        zone=given["zone"],
        table=given["table"],
    )


def differences(made: Settings, given: Settings) -> str:
    """What is to be said about settings that a lab was not made with."""
    pairs = [
        f"{field.name} {getattr(made, field.name)} (asked for: {getattr(given, field.name)})"
        for field in dataclasses.fields(Settings)
        if getattr(made, field.name) != getattr(given, field.name)
    ]
    return f"the lab in {made.state} was made with {', '.join(pairs)}; remove all of it first"


def execute(module: AnsibleModule, work: Callable[[Lab], dict[str, Any]], *, makes: bool = False) -> None:
    """Do a module's work and leave with its changes as a diff, or with its error as the message.

    `makes`: the module makes the lab, so that other settings than those it was made with are a mistake.
    """
    try:
        given = settings_of(module.params)
        # A lab stays what it was made as: whoever names its state directory need not repeat the rest.
        made = Lab(given).made_with()
        if makes and made and made != given:
            raise LabError(differences(made, given))
        lab = Lab(made or given, check_mode=module.check_mode)
        result = work(lab)
    except LabError as error:
        module.fail_json(msg=str(error))
    except ValueError as error:
        module.fail_json(msg=f"settings: {error}")
    for warning in lab.warnings:
        module.warn(warning)
    lines = lab.change.lines
    module.exit_json(
        changed=bool(lines),
        changes=lines,
        diff={"before": "", "after": "".join(line + "\n" for line in lines)},
        **result,
    )
