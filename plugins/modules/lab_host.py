#!/usr/bin/python
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's share of its host: network, images, name service, package cache."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_host
short_description: Prepare a Debian host for throwaway machines
version_added: 0.1.0
description:
  - Has a bridge with NAT, file trees (images) that machines start from, and the lab's own daemons run on this host.
  - The daemons come out of an image of their own, so the host gets no package and no service for them.
  - Owns and removes only what it made, which it knows from the records in its state directory.
author: Bouwsteen (@bouwsteen)
options:
  state:
    description:
      - V(possible) only looks whether anything on the host stands in the way and what is missing, and touches nothing.
      - V(present) has network, images and daemons.
      - V(absent) removes all of the lab, with machines, images and the cached packages.
    type: str
    choices: [possible, present, absent]
    default: present
  images:
    description:
      - Trees to have besides the one of the daemons. Those that are not listed stay.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the image; its tree is C(images/NAME/current) in the state directory.
        type: str
        required: true
      packages:
        description: Debian packages in it, besides the essential ones.
        type: list
        elements: str
        default: []
      suite:
        description: Debian suite.
        type: str
        default: trixie
      bootable:
        description: Whether machines boot from it; then it also has what every machine of the lab has.
        type: bool
        default: true
  mirror:
    description: Debian archive. Without it, the one in the host's package sources.
    type: str
  mirror_security:
    description: Debian security archive. Without it, the one in the host's package sources.
    type: str
extends_documentation_fragment:
  - bouwsteen.hosting.lab
seealso:
  - module: bouwsteen.hosting.lab_machine
"""

EXAMPLES = r"""
- name: Have a lab, and a tree with PostgreSQL for tests
  bouwsteen.hosting.lab_host:
    images:
      - name: machine
      - {name: postgresql, packages: [postgresql], bootable: false}

- name: Remove all of the lab
  bouwsteen.hosting.lab_host:
    state: absent
"""

RETURN = r"""
changes:
  description: What was done, or in check mode would be done, one line each.
  returned: always
  type: list
  elements: str
  sample: [bridge bouwsteen0 made]
images:
  description: The tree of each image that was asked for.
  returned: when state is present and not in check mode
  type: dict
  sample: {machine: /var/lib/bouwsteen-lab/images/machine/ac95a3f0b6f0}
missing_packages:
  description: Debian packages that the host lacks.
  returned: when state is possible
  type: list
  elements: str
  sample: [mmdebstrap]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab import (
    MACHINE_PACKAGES,
    SERVICES_IMAGE,
    SERVICES_PACKAGES,
    Image,
    LabError,
)
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab_host import Lab
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab_module import SETTINGS_ARGUMENT, execute


def image_of(item: dict[str, Any]) -> Image:
    """An image as the user declared it; a bootable one has what every machine needs."""
    if item["name"] == SERVICES_IMAGE:
        raise LabError(f"images: {SERVICES_IMAGE} is the lab's own image; choose another name")
    base = MACHINE_PACKAGES if item["bootable"] else ()
    return Image(item["name"], tuple(sorted({*base, *item["packages"]})), item["suite"], item["bootable"])


def prepare(lab: Lab, parameters: dict[str, Any]) -> dict[str, Any]:
    """Bring the host to the wanted state."""
    images = [image_of(item) for item in parameters["images"]]
    if parameters["state"] == "absent":
        lab.remove_everything()
        return {}
    obstacles = lab.obstacles()
    if obstacles:
        raise LabError("this host cannot carry the lab: " + "; ".join(obstacles))
    if parameters["state"] == "possible":
        return {"missing_packages": lab.missing_packages()}
    if not lab.check_mode:
        lab.prepare()
    with lab.locked("host"):
        lab.network_up()
        mirror = lab.mirror(parameters["mirror"], parameters["mirror_security"])
        lab.build_image(Image(SERVICES_IMAGE, SERVICES_PACKAGES, bootable=False), mirror)
        with lab.locked():
            lab.services_up()
        for image in images:
            lab.build_image(image, mirror)
    if lab.check_mode:
        return {}
    return {"images": {image.name: str(lab.image_tree(image.name)) for image in images}}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "settings": SETTINGS_ARGUMENT,
            "state": {"type": "str", "choices": ["possible", "present", "absent"], "default": "present"},
            "images": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "packages": {"type": "list", "elements": "str", "default": []},
                    "suite": {"type": "str", "default": "trixie"},
                    "bootable": {"type": "bool", "default": True},
                },
            },
            "mirror": {"type": "str"},
            "mirror_security": {"type": "str"},
        },
        supports_check_mode=True,
    )
    execute(module, lambda lab: prepare(lab, module.params), makes=module.params["state"] != "absent")


if __name__ == "__main__":
    main()
