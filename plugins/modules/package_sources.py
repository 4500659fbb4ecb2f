#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Says where a machine gets Debian packages from."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package_sources
short_description: Say where a machine gets Debian packages from
version_added: "0.1.0"
description:
  - Keeps Debian's own archive for one release in C(/etc/apt/sources.list.d/debian.sources), with security updates and
    the archive's keyring, and takes it out of all other files. Repositories of others stay as they are.
  - The machine keeps the mirrors that it uses unless others are named.
author:
  - The authors of Bouwsteen (@bouwsteen)
attributes:
  check_mode:
    description: Says what it would change.
    support: full
  diff_mode:
    description: Shows each file before and after.
    support: full
  platform:
    description: Machines that it works on.
    support: full
    platforms: debian
options:
  release:
    description: Code name of the release.
    type: str
    required: true
  mirror:
    description: Address of the archive. Empty keeps the one that the machine uses.
    type: str
    default: ""
  security_mirror:
    description: Address of the archive of security updates. Empty keeps the one that the machine uses.
    type: str
    default: ""
  components:
    description: Parts of the archive.
    type: list
    elements: str
    default: [main]
  proxy:
    description: Proxy that packages are fetched through. Empty leaves other settings of a proxy alone.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Keep the mirrors, and have security updates in any case
  bouwsteen.hosting.package_sources:
    release: trixie
"""

RETURN = r"""
mirror:
  description: Where the release comes from.
  returned: success
  type: str
  sample: http://mirror.provider.example/debian
security_mirror:
  description: Where security updates come from.
  returned: success
  type: str
  sample: http://mirror.provider.example/debian-security
"""

import os
from pathlib import Path
from tempfile import mkstemp

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import package_sources as pure

KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg")


def install(module: AnsibleModule, path: str, text: str) -> None:
    """Replace a file at once, or remove it."""
    place = Path(path)
    if not text:
        place.unlink(missing_ok=True)
        return
    handle, temporary = mkstemp(prefix=".bouwsteen-", dir=place.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    Path(temporary).chmod(0o644)
    module.atomic_move(temporary, path)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "str", "required": True},
            "mirror": {"type": "str", "default": ""},
            "security_mirror": {"type": "str", "default": ""},
            "components": {"type": "list", "elements": "str", "default": ["main"]},
            "proxy": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    directory = Path("/etc/apt/sources.list.d")
    places = [Path("/etc/apt/sources.list"), *directory.glob("*.list"), *directory.glob("*.sources"), Path(pure.PROXY)]
    files = {str(place): place.read_text(encoding="utf-8") for place in places if place.is_file()}
    keyring = next((path for path in KEYRINGS if Path(path).exists()), KEYRINGS[-1])
    try:
        changes, mirrors = pure.plan(
            files, params["release"], params["components"], keyring,
            mirror=params["mirror"], security_mirror=params["security_mirror"], proxy=params["proxy"],
        )  # fmt: skip
    except pure.SourceError as error:
        module.fail_json(msg=str(error))
    # The new file first: a run that is killed in between leaves sources twice, which apt only warns of.
    ordered = sorted(changes, key=lambda path: path != pure.OWN)
    if not module.check_mode:
        for path in ordered:
            install(module, path, changes[path])
    diff = [
        {"before_header": path, "after_header": path, "before": files.get(path, ""), "after": changes[path]}
        for path in ordered
    ]
    module.exit_json(
        changed=bool(changes),
        mirror=mirrors.release,
        security_mirror=mirrors.security,
        diff=diff if module._diff else [],
    )


if __name__ == "__main__":
    main()
