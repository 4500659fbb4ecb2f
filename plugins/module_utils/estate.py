# SPDX-License-Identifier: GPL-3.0-or-later
"""The wanted state of a reseller, or of all of a site: contract and customers' files, checked and in normal form.

    {"format": 1,
     "reseller": {"name", "title", "engineer", "domain", "language", "retention_days", "expunged_days",
                  "telephony_image", "limits": {LIMIT: {"max", "basis", "enforce", "warn_at"}}, "products", "prices",
                  "placement"},
     "customers": [{"name", "title", "state": active|suspended, "limits", "domains": [{"name", "alias_of"}],
                    "users": [{"login", "name", "state", "product", "language", "password_hash", "invite", "limits",
                               "mail": null|{"aliases", "forward", "keep_copy", "quota"},
                               "phone": null|{"extension", "devices", "voicemail"}, "files": null|{"quota"}}],
                    "groups": [{"name", "title", "members", "mail": null|{"address", "kind", "quota"},
                                "phone": null|{"extension", "strategy"}, "files": null|{"folder", "quota"}}],
                    "resources": [{"name", "address"}], "telephony": {"numbers", "opening_hours", "incoming"}}],
     "remove": {"customers": [NAME], "users": [{"customer", "login"}], "groups": [{"customer", "name"}],
                "resources": [{"customer", "address"}]}}

Sizes are bytes, money decimal strings, domains A-labels, addresses lower case. A quota of a user is the ceiling that
holds for that user alone (quota, limit and product together), null when there is none. `remove` holds what is written
as absent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.bouwsteen.hosting.plugins.module_utils import check
from ansible_collections.bouwsteen.hosting.plugins.module_utils.contract import Contract
from ansible_collections.bouwsteen.hosting.plugins.module_utils.customer import Customer
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import Document, Finding, nearby
from ansible_collections.bouwsteen.hosting.plugins.module_utils.source import (
    Decrypt,
    Source,
    collector_paused,
    listed,
    read_folder,
)

FORMAT = 1

type InUse = Mapping[tuple[str, str, str], int]


class Loaded(NamedTuple):
    """A reseller's wanted state; of use only when there are no errors."""

    estate: dict[str, Any]
    errors: list[Finding]
    warnings: list[Finding]


@dataclass
class Site:
    """All resellers of a site. `counts`: resellers, customers, users, domains, findings, warnings."""

    estates: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass
class _Reseller:
    contract: Contract
    sources: list[Source] = field(default_factory=list)
    customers: list[Customer] = field(default_factory=list)

    def results(self) -> tuple[list[Finding], list[Finding]]:
        documents: list[Document] = [self.contract, *self.sources]
        results = [document.results() for document in documents]
        return (
            sorted({error for errors, _ in results for error in errors}),
            sorted({warning for _, warnings in results for warning in warnings}),
        )

    def estate(self) -> dict[str, Any]:
        present = [customer.wanted for customer in self.customers if customer.wanted]
        removed = {
            kind: [entry for customer in self.customers for entry in customer.removed[kind]]
            for kind in ("users", "groups", "resources")
        }
        return {
            "format": FORMAT,
            "reseller": self.contract.wanted(),
            "customers": present,
            "remove": {"customers": [customer.name for customer in self.customers if customer.is_absent], **removed},
        }


@collector_paused()
def load_reseller(
    name: str,
    variables: Mapping[str, Any],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    decrypt: Decrypt | None = None,
    in_use: InUse | None = None,
) -> Loaded:
    """One reseller's wanted state, from his host's variables (hostvars as they are) and his customers' files.

    `groups`: the inventory's groups, to check and fill in placement. `decrypt`: for vaulted password hashes. `in_use`:
    what the directory holds now, by ("reseller", "", limit), ("customer", name, limit), ("user", login, limit); a count
    over a limit that does not grow is then a warning, for a limit lowered below present use blocks growth only.
    """
    reseller = _read(name, variables, groups=groups, decrypt=decrypt, in_use=in_use)
    check.circles([reseller.customers])
    errors, warnings = reseller.results()
    return Loaded({} if errors else reseller.estate(), errors, warnings)


@collector_paused()
def load_site(
    resellers: Mapping[str, Mapping[str, Any]],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    decrypt: Decrypt | None = None,
    inventories: Sequence[str] = (),
) -> Site:
    """All resellers, checked one by one and against each other. `resellers`: variables by host name; `inventories`: the
    inventory directories, in which no customers' folder may lie."""
    read = {
        name: _read(name, variables, groups=groups, decrypt=decrypt, inventories=inventories)
        for name, variables in resellers.items()
    }
    check.between_resellers({name: (reseller.contract, reseller.customers) for name, reseller in read.items()})
    check.circles(reseller.customers for reseller in read.values())
    site = Site()
    site.errors += check.machines(groups or {})
    for name, reseller in read.items():
        errors, warnings = reseller.results()
        site.errors += errors
        site.warnings += warnings
        if not errors:
            site.estates[name] = reseller.estate()
    customers = [customer for reseller in read.values() for customer in reseller.customers if customer.wanted]
    site.counts = {
        "resellers": len(read),
        "customers": len(customers),
        "users": sum(len(customer.wanted["users"]) for customer in customers),
        "domains": sum(len(customer.domains) for customer in customers),
        "findings": len(site.errors),
        "warnings": len(site.warnings),
    }
    return site


def _read(
    name: str,
    variables: Mapping[str, Any],
    *,
    groups: Mapping[str, Sequence[str]] | None,
    decrypt: Decrypt | None,
    in_use: InUse | None = None,
    inventories: Sequence[str] = (),
) -> _Reseller:
    contract = Contract(name, variables, in_use)
    contract.check(groups)
    reseller = _Reseller(contract)
    if _folder_is_usable(contract, inventories):
        for source in read_folder(str(contract.folder), decrypt=decrypt):
            reseller.sources.append(source)
            if source.data is not None:
                reseller.customers.append(Customer(source, contract).build())
    check.within_reseller(contract, reseller.customers)
    return reseller


def _folder_is_usable(contract: Contract, inventories: Sequence[str]) -> bool:
    """Whether the customers' folder can be read; an empty one can."""
    path, folder = ("reseller_customers",), contract.folder
    if folder is None:
        return False
    real = Path(os.path.realpath(folder))
    inside = next((inventory for inventory in inventories if real.is_relative_to(os.path.realpath(inventory))), None)
    if inside:
        contract.report(
            path, "lies in an inventory, which would read it as inventory", f"a folder outside {nearby(inside)}"
        )
        return False
    try:
        ignored = listed(folder)[1]
    except OSError as error:
        contract.report(path, f"cannot be read: {error.strerror}", "a folder that exists; it may be empty")
        return False
    for name in ignored:
        contract.warn(
            path, f"has {nearby(name)}, which is not read", "files that end in .yml, directly in the folder", None
        )
    return True
