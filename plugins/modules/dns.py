#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: dns
short_description: The DNS records that a site's domains need, as files, text, or a comparison with what DNS answers
version_added: 0.1.0
description:
  - Makes the records of machines, resellers and customers' domains from facts that the playbook has gathered.
  - Writes a file of zone lines for each domain into a directory, if one is named, and removes old ones.
  - Asks a resolver, if one is named, and says what is ok, missing or wrong. It changes no DNS server.
options:
  machines:
    description: Mail machines.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name in MX records., type: str, required: true}
      addresses: {description: IP addresses that the outside reaches it at., type: list, elements: str, required: true}
      tlsa: {description: TLSA values of the certificate on port 25., type: list, elements: str, default: []}
  groupware:
    description: Groupware machines, in the form of O(machines). None leaves out all that is for groupware.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: The machine's own name., type: str, required: true}
      addresses: {description: IP addresses that the outside reaches it at., type: list, elements: str, required: true}
      tlsa: {description: Not used., type: list, elements: str, default: []}
  resellers:
    description: Resellers.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name in the inventory., type: str, required: true}
      domain: {description: The reseller's own domain., type: str, required: true}
      engineer: {description: The reseller's engineer., type: str, required: true}
      machine: {description: His mail machine; absent when there is one., type: str}
      groupware: {description: His groupware machine; absent when there is one., type: str}
  domains:
    description: Customers' domains in the free form that module C(mail_domains) returns.
    type: list
    elements: dict
    required: true
  ttl: {description: Seconds that records may be kept., type: int, default: 3600}
  dmarc:
    description: What receivers are asked to do with mail that only pretends to be from a domain.
    type: str
    choices: [none, quarantine, reject]
    default: quarantine
  caa:
    description: CAs that may issue certificates for service names. Empty prints no CAA records.
    type: list
    elements: str
    default: []
  mta_sts:
    description: Print MTA-STS records. Only once a web server serves the policy of every domain.
    type: bool
    default: false
  mta_sts_id: {description: Identity of the policy; change it with the policy., type: str, default: "1"}
  only:
    description: Only these domains, with all below them. Empty means all.
    type: list
    elements: str
    default: []
  directory:
    description: Directory for files C(DOMAIN.zone). Absent writes none.
    type: path
  site:
    description: Name of the site, in the first line of each file. Only files with this line are ever removed.
    type: str
    default: ""
  resolver:
    description: Address of a resolver to compare with, with C(:port) behind it when not 53. Absent compares nothing.
    type: str
attributes:
  check_mode: {support: full, description: Writes nothing.}
  diff_mode: {support: full, description: Shows each file before and after.}
author: Bouwsteen (@bouwsteen)
"""

EXAMPLES = r"""
- name: Write the records of all domains
  bouwsteen.hosting.dns:
    machines: [{name: m1.bouwsteen.example, addresses: [192.0.2.10], tlsa: ["3 1 1 00"]}]
    resellers: [{name: noorderict, domain: noorderict.example, engineer: beheer@noorderict.example}]
    domains: []
    directory: build/dns
  delegate_to: localhost
"""

RETURN = r"""
zones:
  description: Zone lines by domain.
  returned: success
  type: dict
  sample: {"degraaf.example": "; degraaf.example\ndegraaf.example. 3600 IN MX 10 m1.bouwsteen.example.\n"}
files:
  description: Files that differed.
  returned: success
  type: list
  elements: str
records:
  description: How many records there are.
  returned: success
  type: int
differences:
  description: One line for each set of records, ok, missing or wrong. Empty when nothing was compared.
  returned: success
  type: list
  elements: str
wrong:
  description: How many sets of records are missing or wrong.
  returned: success
  type: int
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import dns_client, dns_records


def selected(zones: dict[str, list[dns_records.Record]], only: list[str]) -> dict[str, list[dns_records.Record]]:
    """Zones of the domains that are wanted, with all below them."""
    if not only:
        return zones
    return {name: zone for name, zone in zones.items() if any(f".{name}".endswith(f".{wish.lower()}") for wish in only)}


def heading(name: str, site: str) -> str:
    """First line of a file; nothing without it is ever removed."""
    return f"; {name}, of site {site}\n" if site else f"; {name}\n"


def write(
    directory: Path, site: str, texts: dict[str, str], *, all_domains: bool, check_mode: bool
) -> list[dict[str, Any]]:
    """Bring the files to the wanted content and return what differed, one diff each."""
    wanted = {directory / f"{name}.zone": content for name, content in texts.items()}
    differences = []
    for path, content in wanted.items():
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if before != content:
            differences.append(
                {"before_header": str(path), "after_header": str(path), "before": before, "after": content}
            )
            if not check_mode:
                directory.mkdir(parents=True, exist_ok=True)
                temporary = path.with_name(f".{path.name}.new")
                temporary.write_text(content, encoding="utf-8")
                temporary.replace(path)
    for path in sorted(directory.glob("*.zone")) if all_domains else []:
        content = path.read_text(encoding="utf-8", errors="replace")
        if path not in wanted and content.startswith(heading(path.stem, site)):
            differences.append(
                {"before_header": str(path), "after_header": "(removed)", "before": content, "after": ""}
            )
            if not check_mode:
                path.unlink()
    return differences


def compared(zones: dict[str, list[dns_records.Record]], resolver: str) -> list[dns_records.Difference]:
    """What DNS answers beside what it should."""
    records = [record for zone in zones.values() for record in zone]
    server, _, port = resolver.rpartition(":") if resolver.count(":") == 1 else (resolver, "", "53")
    names = sorted({(record.name, record.type) for record in records})
    return dns_records.compare(records, dns_client.look_up(server, names, port=int(port)))


def main() -> None:
    """Run the module."""
    machine = {
        "name": {"type": "str", "required": True},
        "addresses": {"type": "list", "elements": "str", "required": True},
        "tlsa": {"type": "list", "elements": "str", "default": []},
    }
    reseller = {
        "name": {"type": "str", "required": True},
        "domain": {"type": "str", "required": True},
        "engineer": {"type": "str", "required": True},
        "machine": {"type": "str"},
        "groupware": {"type": "str"},
    }
    module = AnsibleModule(
        argument_spec={
            "machines": {"type": "list", "elements": "dict", "required": True, "options": machine},
            "groupware": {"type": "list", "elements": "dict", "default": [], "options": machine},
            "resellers": {"type": "list", "elements": "dict", "required": True, "options": reseller},
            "domains": {"type": "list", "elements": "dict", "required": True},
            "ttl": {"type": "int", "default": 3600},
            "dmarc": {"type": "str", "choices": list(dns_records.POLICIES), "default": "quarantine"},
            "caa": {"type": "list", "elements": "str", "default": []},
            "mta_sts": {"type": "bool", "default": False},
            "mta_sts_id": {"type": "str", "default": "1"},
            "only": {"type": "list", "elements": "str", "default": []},
            "directory": {"type": "path"},
            "site": {"type": "str", "default": ""},
            "resolver": {"type": "str"},
        },
        supports_check_mode=True,
    )
    given = module.params
    settings = dns_records.Settings(
        ttl=given["ttl"],
        dmarc=given["dmarc"],
        caa=tuple(given["caa"]),
        mta_sts=given["mta_sts"],
        mta_sts_id=given["mta_sts_id"],
    )
    result: dict[str, Any] = {"changed": False, "files": [], "differences": [], "wrong": 0}
    try:
        zones = dns_records.fragments(
            given["machines"], given["resellers"], given["domains"], settings, given["groupware"]
        )
        zones = selected(zones, given["only"])
        if given["resolver"]:
            differences = compared(zones, given["resolver"])
            result["differences"] = [str(difference) for difference in differences]
            result["wrong"] = sum(difference.state != "ok" for difference in differences)
    except (dns_records.RecordError, dns_client.DnsError) as error:
        module.fail_json(msg=str(error))
    texts = {name: heading(name, given["site"]) + dns_records.zone_text(records) for name, records in zones.items()}
    result["zones"] = texts
    result["records"] = sum(len(records) for records in zones.values())
    if given["directory"]:
        diffs = write(
            Path(given["directory"]), given["site"], texts, all_domains=not given["only"], check_mode=module.check_mode
        )
        result |= {"changed": bool(diffs), "diff": diffs, "files": [diff["before_header"] for diff in diffs]}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
