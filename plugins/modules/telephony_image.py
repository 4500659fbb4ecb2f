#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has the image that telephony runs from: built here, or unpacked from an archive that was built elsewhere."""

from __future__ import annotations

DOCUMENTATION = r"""
module: telephony_image
short_description: Have the read-only file tree that Asterisk, Kamailio and rtpengine run from
version_added: "0.1.0"
description:
  - Has an image below O(directory), beside its predecessors, and link C(use/current) pointing at it.
  - With O(source) V(build) this machine builds it with mmdebstrap from a Debian suite at a pinned day, and the archive
    goes to O(archives) on the control node. With O(source) V(archive) the machine gets the archive from there, compares
    it with its manifest, and only then unpacks it.
  - An image that is there is compared with its manifest in every run. What a name means never changes.
  - An image that a link in C(use) names, or that a process has as its root, is never removed.
author:
  - The authors of Bouwsteen (@bouwsteen)
attributes:
  check_mode:
    description: Says what would be built, unpacked, switched and removed.
    support: full
  diff_mode:
    description: Says what was done, a line each.
    support: full
  platform:
    description: Machines that it works on.
    support: full
    platforms: debian
options:
  name:
    description: Name of the image, C(VERSION-YYYYMMDD) or C(VERSION-YYYYMMDD-N). The day is the day of the packages.
    type: str
    required: true
  source:
    description: Whether this machine builds the image or gets its archive.
    type: str
    choices: [build, archive]
    default: archive
  directory:
    description: Where images are on the machine.
    type: path
    default: /var/lib/bouwsteen/telephony
  archives:
    description: Directory of archives and manifests on the control node.
    type: path
  publish:
    description: With O(source) V(build), copy the archive to O(archives) when it is not there.
    type: bool
    default: true
  archive_sha256:
    description: SHA-256 checksum that the archive has to have, whatever its manifest says. Empty for no pin.
    type: str
    default: ""
  suite:
    description: Debian suite to build from.
    type: str
    default: forky
  release_sha256:
    description: SHA-256 checksum of the suite's InRelease file. Empty accepts any that is of the day in O(name).
    type: str
    default: ""
  mirror:
    description: Debian archive to build from. Empty means the one in the machine's package sources.
    type: str
    default: ""
  packages:
    description: Packages to build from. What they depend on comes along.
    type: list
    elements: str
    default: []
  versions:
    description: Program to leading part of the version that it has to have, free form.
    type: dict
    default: {}
  keep:
    description: How many other images stay, the newest ones.
    type: int
    default: 2
  current:
    description: Whether link C(use/current) points at this image.
    type: bool
    default: true
  contents:
    description:
      - Whether the comparison with the manifest reads all files, instead of looking at size, time, mode and owner.
    type: bool
    default: false
  manifest:
    description: The manifest of the archive, free form. Comes from the control node by itself.
    type: dict
  archive:
    description: The archive on the machine. Comes from the control node by itself.
    type: path
notes:
  - Has to run as root on the machine.
"""

EXAMPLES = r"""
- name: Build the image
  bouwsteen.hosting.telephony_image:
    name: 22.10.1-20261030
    source: build
    archives: /srv/telephony
    packages: [asterisk, kamailio, rtpengine-daemon]

- name: Have it on a machine that does not build
  bouwsteen.hosting.telephony_image:
    name: 22.10.1-20261030
    archives: /srv/telephony
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, a line each.
  returned: success
  type: list
  elements: str
  sample: ["image 22.10.1-20261030 built", "current: 22.10.1-20261030 instead of nothing"]
images:
  description: Images on the machine afterwards, oldest first.
  returned: success
  type: list
  elements: str
image:
  description: The manifest of the image, without its list of packages. Empty in check mode if it is not there.
  returned: success
  type: dict
  contains:
    name: {description: Name., type: str}
    release: {description: Date and checksum of the suite's release file., type: dict}
    programs: {description: Version of each program., type: dict}
    archive: {description: Checksum and size of the archive., type: dict}
    tree: {description: Checksums and size of the unpacked tree., type: dict}
path:
  description: The tree.
  returned: success
  type: str
  sample: /var/lib/bouwsteen/telephony/images/22.10.1-20261030
wanted:
  description: Whether the archive has to be sent before anything can be done.
  returned: success
  type: bool
"""

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import telephony_image as pure
from ansible_collections.bouwsteen.hosting.plugins.module_utils.telephony_image_machine import CURRENT, Store


def have(store: Store, options: dict[str, Any]) -> dict[str, Any] | None:
    """Have the image; its manifest, or None if its archive is needed first."""
    name = str(pure.parse_name(options["name"]))
    found = store.manifest(name)
    if found is not None:
        store.verify(found, contents=options["contents"])
        problem = pure.pin_problem(found, options["archive_sha256"])
        if options["manifest"]:
            problem = problem or pure.pin_problem(found, options["manifest"]["archive"]["sha256"])
        if problem:
            raise pure.ImageError(f"{problem}: the image on this machine is another one; give the new one its own name")
    if options["source"] == "build":
        wanted = pure.recipe(
            name, options["suite"], options["packages"], options["release_sha256"], options["versions"]
        )
        if found is None:
            return store.build(wanted, options["mirror"])
        problem = pure.recipe_problem(found, wanted)
        if problem:
            raise pure.ImageError(problem)
        return found
    if found is not None:
        return found
    if store.check_mode:
        store.changes.append(f"image {name} unpacked")
        return {}
    if not options["archive"]:
        return None
    store.install(options["manifest"], Path(options["archive"]))
    return dict(options["manifest"])


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=pure.ARGUMENTS, supports_check_mode=True)
    if os.geteuid() != 0:
        module.fail_json(msg="telephony_image needs root on the machine: set become for this play")
    options = module.params
    store = Store(options["directory"], check_mode=module.check_mode)
    try:
        with store.locked():
            found = have(store, options)
            if found is None:
                module.exit_json(changed=False, wanted=True, actions=[], images=store.names(), image={}, path="")
            if options["current"]:
                store.switch(CURRENT, options["name"])
            store.prune(options["name"], options["keep"])
    except (OSError, pure.ImageError) as error:
        module.fail_json(msg=str(error))
    result: dict[str, Any] = {
        "changed": bool(store.changes),
        "wanted": False,
        "actions": store.changes,
        "images": store.names(),
        "image": {key: value for key, value in found.items() if key != "packages"},
        "path": str(store.images / options["name"]),
    }
    if module._diff and store.changes:
        result["diff"] = {"prepared": "".join(f"{line}\n" for line in store.changes)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
