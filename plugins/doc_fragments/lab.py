# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that all modules of the lab share."""


class ModuleDocFragment:
    """Where the lab keeps its things and which network it makes."""

    DOCUMENTATION = r"""
options:
  settings:
    description:
      - The lab that is meant. Once it is made, its state directory is enough.
    type: dict
    default: {}
    suboptions:
      state_directory:
        description:
          - Directory of all that the lab makes, and of its records of what it made.
        type: path
        default: /var/lib/bouwsteen-lab
      bridge:
        description:
          - Name of the network bridge.
        type: str
        default: bouwsteen0
      address:
        description:
          - The host's IPv4 address on the bridge, with the length of the network's prefix.
        type: str
        default: 10.213.0.1/24
      address6:
        description:
          - The host's IPv6 address on the bridge, with the length of the network's prefix.
        type: str
        default: fd00:b5::1/64
      zone:
        description:
          - The DNS zone that the lab answers for, without a dot at the end.
        type: str
        default: example
      table:
        description:
          - Name of the lab's nft table in family inet.
        type: str
        default: bouwsteen_lab
requirements:
  - root on a Debian host (12 or newer)
  - systemd-container, mmdebstrap, iproute2, nftables, openssh-client
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
"""
