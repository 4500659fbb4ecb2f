# SPDX-License-Identifier: GPL-3.0-or-later
"""A reseller's contract: the inventory variables reseller_* of his host, with the file and line of every value.

Ansible gives each value that it reads a tag with its origin; that is how a finding can say where a contract is wrong,
although its parts come from several groups' files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import brand, limits, names, schema, units
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import (
    Document,
    Invalid,
    KeyPath,
    listing,
    prune,
)

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:
    # Another ansible-core: findings then name the host instead of file and line.
    Origin = None

PREFIX = "reseller_"
DEFAULT_LANGUAGE = "nl"
DEFAULT_RETENTION_DAYS = 30
DEFAULT_EXPUNGED_DAYS = 14
# Functions that a reseller is placed on a machine for.
FUNCTIONS = ("mail", "groupware", "exchange", "files")

type Origin_ = tuple[str, int] | None


class Contract(Document):
    """The contract of one reseller, as plain data.

    `limits`, `products`, `prices` and `domain` are in normal form, and empty where they could not be made out.
    """

    def __init__(
        self, name: str, variables: Mapping[str, Any], in_use: Mapping[tuple[str, str, str], int] | None = None
    ) -> None:
        super().__init__({})
        self.name = name
        self.in_use = in_use or {}
        self._origins: dict[KeyPath, tuple[str, int]] = {}
        self._unread: set[str] = set()
        self.site_domain = self._site_domain(variables)
        for variable in sorted(str(key) for key in variables if str(key).startswith(PREFIX)):
            self._read(variable, variables)
        self.limits: dict[str, dict[str, Any]] = {}
        self.products: dict[str, dict[str, Any]] = {}
        self.prices: dict[str, dict[str, Any]] = {}
        self.domain = ""
        self.engineer = ""
        self.logo: brand.Logo | None = None
        # Whether the products are known, so that a customer's choice can be judged.
        self.products_known = True

    @staticmethod
    def _site_domain(variables: Mapping[str, Any]) -> str:
        try:
            return names.domain(str(variables["site_domain"]))
        except Exception:
            return ""

    def _read(self, variable: str, variables: Mapping[str, Any]) -> None:
        key = next((key for key in variables if key == variable), variable)
        try:
            self._note((variable,), origin(key))
            self.data[variable] = self._plain((variable,), variables[variable])
        except Exception as error:
            self.data.pop(variable, None)
            self._unread.add(variable)
            reason = " ".join(str(error).split())[:200]
            self.report(
                (variable,), f"cannot be templated: {reason}", "a value, or a template that can be resolved", None
            )

    def _note(self, path: KeyPath, *places: Origin_) -> None:
        for place in places:
            if place:
                self._origins[path] = place
                return

    def _plain(self, path: KeyPath, value: Any) -> Any:
        """A value without Ansible's types, its places noted: a key's for a container, else the value's own."""
        if isinstance(value, Mapping):
            result = {}
            for key, item in value.items():
                place = origin(key) if isinstance(item, Mapping | list | tuple) else origin(item) or origin(key)
                self._note((*path, str(key)), place)
                result[str(key)] = self._plain((*path, str(key)), item)
            return result
        if isinstance(value, list | tuple):
            for index, item in enumerate(value):
                self._note((*path, index), origin(item))
            return [self._plain((*path, index), item) for index, item in enumerate(value)]
        if value is None or isinstance(value, bool):
            return value
        return next((kind(value) for kind in (int, float, str) if isinstance(value, kind)), str(value))

    def place(self, path: KeyPath) -> tuple[str, int, str | None]:
        """See Document. Where Ansible does not say where a value comes from, the host's name stands for the file."""
        for length in range(len(path), 0, -1):
            if found := self._origins.get(path[:length]):
                return (*found, None)
        return f"host_vars of {self.name}", 0, None

    def check(self, groups: Mapping[str, Sequence[str]] | None = None) -> None:
        """Reports everything that is wrong with the contract by itself, and fills in the normal forms."""
        if not self.data and self.is_sound:
            self.report(
                (), "has no contract: no variable reseller_* is set for it", listing(schema.CONTRACT_REQUIRED), None
            )
            return
        try:
            names.slug(self.name)
        except Invalid as invalid:
            self.report((), invalid.problem, invalid.allowed, self.name)
        missing = [variable for variable in schema.CONTRACT_REQUIRED if variable not in self.data.keys() | self._unread]
        for fault in list(schema.faults("contract", self.data)):
            self.report(fault.path, fault.problem, fault.allowed, None if fault.is_missing else ...)
            if fault.spoils:
                prune(self.data, fault.spoils)
                self.products_known &= fault.path[0] != "reseller_products"
        for variable in missing:
            wanted = schema.CONTRACT["properties"][variable]
            self.report((variable,), "is missing", f"{schema.KINDS[wanted['x-kind']].allowed}", None)
        self._limits()
        self._products()
        self._prices()
        self.domain = self._taken("reseller_domain", names.domain) or ""
        self.engineer = "@".join(self._taken("reseller_engineer", partial(names.address, outside=True)) or ())
        if self.folder is None and "reseller_customers" in self.data:
            self.report(("reseller_customers",), "is no absolute path", names.PATH_ALLOWED)
        if path := self.data.get("reseller_brand", {}).get("logo"):
            self.logo = self.take(("reseller_brand", "logo"), brand.logo, path)
        if groups is not None:
            self._machines(groups)

    @property
    def language(self) -> str:
        return str(self.data.get("reseller_language", DEFAULT_LANGUAGE))

    @property
    def colour(self) -> str:
        """The brand's colour in its normal form, derived where none is written."""
        written = self.data.get("reseller_brand", {}).get("colour")
        return brand.colour(written) if written else brand.derived_colour(self.name)

    @property
    def folder(self) -> str | None:
        """The customers' folder; None when the contract names none, or one that depends on where the run starts."""
        path = self.data.get("reseller_customers")
        return str(path) if path and Path(path).is_absolute() else None

    def _taken(self, variable: str, read: Any) -> Any:
        return self.take((variable,), read, self.data[variable]) if variable in self.data else None

    def _limits(self) -> None:
        written = self.data.get("reseller_limits", {})
        override = self.data.get("reseller_limits_override", {})
        for name, fields in limits.merged(written, override).items():
            variable = "reseller_limits_override" if "max" in override.get(name, {}) else "reseller_limits"
            if "max" in fields:
                normal = self.take((variable, name, "max"), partial(limits.normal, name), fields)
                if normal:
                    self.limits[name] = normal
            elif name in override and name not in written:
                self.report(
                    ("reseller_limits_override", name), "lacks the key max", "max, as reseller_limits has none", None
                )

    def _products(self) -> None:
        for name, product in self.data.get("reseller_products", {}).items():
            path: KeyPath = ("reseller_products", name, "included")
            included = {
                limit: self.take((*path, limit), units.size, amount)
                for limit, amount in product.get("included", {}).items()
            }
            self.products[name] = {
                "title": product.get("title", name),
                "meter": product.get("meter"),
                "included": {limit: amount for limit, amount in included.items() if amount is not None},
                "beyond": product.get("beyond", "blocked"),
            }
            self._priced(name, self.products[name])

    def _priced(self, name: str, product: Mapping[str, Any]) -> None:
        """Whatever a product is billed by has a price, in a contract that has prices at all."""
        prices = self.data.get("reseller_prices", {})
        meters = {"meter": product["meter"]} if product["meter"] else {}
        if product["beyond"] == "metered":
            meters |= {f"included.{limit}": limits.STORAGE_METERS[limit] for limit in product["included"]}
        for key, meter in meters.items():
            if prices and meter not in prices:
                path = ("reseller_products", name, *key.split("."))
                self.report(path, f"is billed by {meter}, which has no price", f"a price in reseller_prices.{meter}")

    def _prices(self) -> None:
        for meter, price in self.data.get("reseller_prices", {}).items():
            last = -1
            tiers: list[dict[str, Any]] = []
            for index, tier in enumerate(price.get("tiers", [])):
                path: KeyPath = ("reseller_prices", meter, "tiers", index)
                if not tier or "from" not in tier or "price" not in tier:
                    continue
                if tier["from"] <= last:
                    self.report((*path, "from"), "does not come after the step before it", f"more than {last}")
                last = max(last, int(tier["from"]))
                amount = self.take((*path, "price"), units.money, tier["price"])
                if amount is not None:
                    tiers.append({"from": int(tier["from"]), "price": amount})
            if tiers and tiers[0]["from"] > 1:
                path = ("reseller_prices", meter, "tiers", 0, "from")
                self.report(path, "leaves what comes before it without a price", "0 or 1")
            self.prices[meter] = {
                "mode": price.get("mode", "volume"), "sample": price.get("sample", "monthly_max"), "tiers": tiers,
            }  # fmt: skip

    def _machines(self, groups: Mapping[str, Sequence[str]]) -> None:
        """The machines named have the function; where nothing is named there is one such machine, not several."""
        placed = self.data.setdefault("reseller_machines", {})
        for function in FUNCTIONS:
            machines = sorted(groups.get(function, ()))
            if function not in placed:
                if len(machines) == 1:
                    placed[function] = machines[0]
                elif machines:
                    self.report(
                        ("reseller_machines", function), f"is missing: {len(machines)} machines have this function",
                        listing(machines), None,
                    )  # fmt: skip
            elif placed[function] not in machines:
                self.report(
                    ("reseller_machines", function), f"is no machine of group {function}",
                    listing(machines, nothing=f"no machine has function {function} in this inventory"),
                )  # fmt: skip

    def wanted(self) -> dict[str, Any]:
        """The reseller's part of the wanted state; of use when nothing was reported."""
        return {
            "name": self.name,
            "title": names.display_name(self.data.get("reseller_title", self.name)),
            "engineer": self.engineer,
            "domain": self.domain,
            "language": self.language,
            "retention_days": int(self.data.get("reseller_retention_days", DEFAULT_RETENTION_DAYS)),
            "expunged_days": int(self.data.get("reseller_expunged_days", DEFAULT_EXPUNGED_DAYS)),
            "telephony_image": self.data.get("reseller_telephony_image"),
            "limits": self.limits,
            "products": self.products,
            "prices": self.prices,
            "placement": self.data.get("reseller_machines", {}),
        }


def origin(value: object) -> Origin_:
    """The file and line that Ansible read a value from; None where it does not say."""
    tag = Origin.get_tag(value) if Origin else None
    if tag is None:
        return None
    if tag.path is None:
        return (str(tag.description), 0) if tag.description else None
    return str(tag.path), int(tag.line_num or 0)
