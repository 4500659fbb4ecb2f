# SPDX-License-Identifier: GPL-3.0-or-later
"""One customer's file: its normal form, all that is wrong inside it, and what others must know about it.

`Customer.build` never stops at an error: what cannot be used is left out, and nothing that follows from that is
reported a second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import limits, names, schema, units
from ansible_collections.bouwsteen.hosting.plugins.module_utils.contract import Contract
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import (
    Document,
    KeyPath,
    key_text,
    listing,
    prune,
)
from ansible_collections.bouwsteen.hosting.plugins.module_utils.source import Source

ABSENT = "absent"
LIST = "list"


@dataclass
class Address:
    """Who an address belongs to within a customer: `kind` is login, alias, group or resource."""

    kind: str
    path: KeyPath


@dataclass
class Forward:
    """One step that mail takes: from an address of this customer to another address, written at `path`."""

    start: str
    end: str
    path: KeyPath


@dataclass
class Customer:
    """A customer's file on its way to the wanted state.

    `wanted`: the normal form. `counted`: limit name -> paths of what counts towards it. `quotas`: storage limit ->
    (path, bytes or None) of everything that storage was handed out to. `removed`: what is written as absent.
    """

    source: Source
    contract: Contract
    name: str = ""
    wanted: dict[str, Any] = field(default_factory=dict)
    is_absent: bool = False
    domains: dict[str, KeyPath] = field(default_factory=dict)
    alias_domains: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, Address] = field(default_factory=dict)
    forwards: list[Forward] = field(default_factory=list)
    numbers: dict[str, KeyPath] = field(default_factory=dict)
    devices: dict[str, KeyPath] = field(default_factory=dict)
    counted: dict[str, list[KeyPath]] = field(default_factory=dict)
    quotas: dict[str, list[tuple[KeyPath, int | None]]] = field(default_factory=dict)
    removed: dict[str, list[dict[str, str]]] = field(
        default_factory=lambda: {"users": [], "groups": [], "resources": []}
    )
    # Parts that were wrong, so that references into them cannot be judged: "domains", "users", "groups", "telephony".
    unclear: set[str] = field(default_factory=set)
    _pruned: set[KeyPath] = field(default_factory=set)
    _extensions: dict[str, KeyPath] = field(default_factory=dict)
    # Names of groups and logins of users with their index in the file.
    _groups: dict[str, int] = field(default_factory=dict)
    _folders: dict[str, KeyPath] = field(default_factory=dict)
    _absent_users: set[str] = field(default_factory=set)
    _logins: dict[str, int] = field(default_factory=dict)

    def build(self) -> Customer:
        """Reads everything; errors are reported to `source`."""
        data = self.source.data
        if data is None:
            return self
        for fault in list(schema.faults("customer", data)):
            self.source.report(fault.path, fault.problem, fault.allowed, None if fault.is_missing else ...)
            if fault.spoils:
                prune(data, fault.spoils)
                self._pruned.add(fault.spoils)
                if len(fault.spoils) == 1 or fault.spoils[:2] == ("telephony", "numbers"):
                    self.unclear.add(str(fault.spoils[0]))
        self.name = data.get("customer", "")
        if self.name in names.RESERVED_CUSTOMERS:
            self.source.report(
                ("customer",),
                "is a name that the site uses itself",
                f"any name but {listing(names.RESERVED_CUSTOMERS)}",
            )
        self.is_absent = data.get("state") == ABSENT
        if self.is_absent:
            return self
        self.count("customers", ("customer",))
        self._limits(data)
        self._domains(data)
        self.wanted = {
            "name": self.name,
            "title": self._name(("title",), data.get("title", "")),
            "state": data.get("state", "active"),
            "limits": self.wanted["limits"],
            "domains": self.wanted["domains"],
            "users": self._each("users", data, self._user),
            "groups": self._each("groups", data, self._group),
            "resources": self._each("resources", data, self._resource),
            "telephony": self._telephony(data.get("telephony") or {}),
        }
        self._own_limits()
        return self

    def count(self, limit: str, path: KeyPath) -> None:
        self.counted.setdefault(limit, []).append(path)

    def where(self, path: KeyPath) -> str:
        """A place in this file, for an error at another place."""
        return f"line {self.source.place(path)[1]}"

    def _each(self, key: str, data: Mapping[str, Any], read: Any) -> list[Any]:
        items = data.get(key) or []
        if None in items:
            self.unclear.add(key)
        results = [read((key, index), item) for index, item in enumerate(items) if item is not None]
        return [result for result in results if result is not None]

    def _name(self, path: KeyPath, value: str) -> str:
        # What the schema let through of plain ASCII is in order.
        return value if value.isascii() else self.source.take(path, names.display_name, value) or ""

    # --- limits -----------------------------------------------------------------------------------------------------

    def _limits(self, data: Mapping[str, Any]) -> None:
        self.wanted["limits"] = self._ceilings(
            ("limits",), data.get("limits") or {}, limits.CUSTOMER, ((limits.RESELLER, self.contract.limits),)
        )

    def _ceilings(self, path: KeyPath, written: Mapping[str, Any], level: str, parents: Any) -> dict[str, Any]:
        """Limits in normal form; each is at or under what holds above it."""
        result = {}
        for name, fields in written.items():
            if "max" not in fields:
                continue
            where = (*path, name, "max")
            normal = self.source.take(where, partial(limits.normal, name), fields)
            if normal:
                result[name] = normal
                self._under(where, name, normal["max"], parents)
        return result

    def _under(self, path: KeyPath, name: str, value: int | str, parents: Any) -> None:
        ceiling = limits.above(name, value, parents)
        if ceiling:
            self.source.report(
                path, f"is more than the {ceiling.level}'s own {name}", f"at most {limits.text(name, ceiling.max)}"
            )

    def _own_limits(self) -> None:
        """What this file holds, compared with the customer's own limits."""
        for name, ceiling in self.wanted["limits"].items():
            in_use = self.contract.in_use.get((limits.CUSTOMER, self.name, name), 0)
            pool = Pool(name, ceiling, f"customer {self.name}", self.source, ("limits", name), in_use)
            if limits.LIMITS[name].unit == limits.COUNT:
                over_limit(pool, [(self, path) for path in self.counted.get(name, ())])
            elif ceiling["basis"] == limits.ALLOCATED:
                over_allocated(pool, ((self, path, quota) for path, quota in self.quotas.get(name, ())))

    # --- domains and addresses --------------------------------------------------------------------------------------

    def _domains(self, data: Mapping[str, Any]) -> None:
        entries = []
        for index, item in enumerate(data.get("domains") or ()):
            if item is None:
                self.unclear.add("domains")
                continue
            path: KeyPath = ("domains", index)
            written, target = (item, None) if isinstance(item, str) else (item.get("name"), item.get("alias_of"))
            if not isinstance(item, str):
                path = (*path, "name")
            name = self.source.take(path, names.domain, written) if written else None
            if name is None:
                self.unclear.add("domains")
                continue
            if name in self.domains:
                self.source.report(
                    path, f"is written twice, first on {self.where(self.domains[name])}", "each domain once"
                )
                continue
            self._reserved(path, name)
            self.domains[name] = path
            self.count("domains", path)
            entries.append((name, target, ("domains", index, "alias_of")))
        for name, target, path in entries:
            if target:
                self._alias_domain(name, target, path, {name for name, target, _ in entries if target})
        self.wanted["domains"] = [{"name": name, "alias_of": self.alias_domains.get(name)} for name, _, _ in entries]

    def _alias_domain(self, name: str, target: str, path: KeyPath, aliases: set[str]) -> None:
        real = self.source.take(path, names.domain, target)
        if real is None:
            return
        allowed = listing(set(self.domains) - aliases, nothing="a domain of this customer that is no alias")
        if real in aliases:
            self.source.report(path, "is an alias itself", allowed)
        elif real not in self.domains:
            if "domains" not in self.unclear:
                self.source.report(
                    path, f"is no domain of this customer{self.source.hint(real, self.domains)}", allowed
                )
        else:
            self.alias_domains[name] = real

    def _reserved(self, path: KeyPath, name: str) -> None:
        """Names that the site serves itself, or that are other people's by their nature."""
        own, site = self.contract.domain, self.contract.site_domain
        label, _, rest = name.partition(".")
        below = own and (name.endswith(f".{own}"))
        if below and ((rest == own and label in names.SERVICE_LABELS) or name.endswith(f".verify.{own}")):
            self.source.report(
                path,
                "is a name that the site serves itself",
                f"a domain that is none of these below {own}: {listing(names.SERVICE_LABELS)}",
            )
        elif not below and name != own and site and (name == site or name.endswith(f".{site}")):
            self.source.report(path, *not_available("domain", name))

    def _claim(self, kind: str, path: KeyPath, written: object) -> str | None:
        """An address of this customer in normal form, if nothing else here has it and its domain is the customer's."""
        parts = self.source.take(path, names.address, written)
        if parts is None:
            return None
        address = f"{parts[0]}@{parts[1]}"
        if parts[1] not in self.domains or parts[1] in self.alias_domains:
            self._foreign(path, parts[1])
        elif address in self.addresses:
            other = self.addresses[address]
            self.source.report(
                path,
                f"is already the address of {_article(other.kind)} on {self.where(other.path)}",
                "an address that nothing else here has",
            )
        else:
            self.addresses[address] = Address(kind, path)
        return address

    def _foreign(self, path: KeyPath, domain: str) -> None:
        allowed = listing(
            set(self.domains) - set(self.alias_domains), nothing="an address in one of the customer's domains"
        )
        if domain in self.alias_domains:
            self.source.report(
                path,
                f"is in {domain}, an alias of {self.alias_domains[domain]}: its addresses are there already",
                allowed,
            )
        elif "domains" not in self.unclear:
            self.source.report(
                path,
                f"is in {domain}, which is no domain of this customer{self.source.hint(domain, self.domains)}",
                allowed,
            )

    # --- people -----------------------------------------------------------------------------------------------------

    def _user(self, path: KeyPath, user: Mapping[str, Any]) -> dict[str, Any] | None:
        if "login" not in user:
            self.unclear.add("users")
            return None
        if user.get("state") == ABSENT:
            parts = self.source.take((*path, "login"), names.address, user["login"])
            if parts:
                self._absent_users.add("@".join(parts))
                self.removed["users"].append({"customer": self.name, "login": "@".join(parts)})
            return None
        login = self._claim("login", (*path, "login"), user["login"])
        if login is None:
            self.unclear.add("users")
            return None
        self._logins[login] = int(path[1])
        self.count("users", (*path, "login"))
        product = self._product(path, user)
        ceilings = self._ceilings(
            (*path, "limits"), user.get("limits") or {}, limits.USER,
            ((limits.CUSTOMER, self.wanted["limits"]), (limits.RESELLER, self.contract.limits)),
        )  # fmt: skip
        result = {
            "login": login,
            "name": self._name((*path, "name"), user.get("name", "")),
            "state": user.get("state", "active"),
            "product": user.get("product"),
            "language": user.get("language") or self.source.data.get("language") or self.contract.language,
            "password_hash": None,
            "invite": None,
            "limits": ceilings,
            "mail": None, "phone": None, "files": None,
        }  # fmt: skip
        if "password_hash" in user:
            result["password_hash"] = self.source.take(
                (*path, "password_hash"), names.password_hash, user["password_hash"]
            )
        if "invite" in user:
            result["invite"] = self._invite((*path, "invite"), user["invite"])
        for key, name in (("mail", "mail_storage"), ("files", "file_storage")):
            ceiling = ceilings.pop(name, None)
            if user.get(key) is not None:
                quota = self._quota(name, (*path, key, "quota"), user[key].get("quota"), ceiling, product)
                result[key] = {"quota": quota}
        if result["mail"]:
            result["mail"] |= self._mail((*path, "mail"), user["mail"], login, ceilings)
        if user.get("phone") is not None:
            result["phone"] = self._phone((*path, "phone"), user["phone"])
        return result

    def _invite(self, path: KeyPath, written: object) -> str | None:
        parts = self.source.take(path, partial(names.address, outside=True), written)
        if parts is None:
            return None
        if parts[1] in self.domains:
            self.source.report(
                path, f"is in {parts[1]}, whose mailboxes nobody can open before there is a password",
                "an address that the person reads already",
            )  # fmt: skip
        return "@".join(parts)

    def _product(self, path: KeyPath, user: Mapping[str, Any]) -> Mapping[str, Any]:
        products, name = self.contract.products, user.get("product")
        if name in products:
            return products[name]
        if self.contract.products_known and (*path, "product") not in self._pruned:
            allowed = listing(products, nothing="none: the contract has no products")
            if name is not None:
                self.source.report(
                    (*path, "product"), f"is no product of the contract{self.source.hint(name, products)}", allowed
                )
            elif products:
                self.source.report(path, "lacks the key product", f"product with {allowed}", None)
        return {"included": {}, "beyond": "metered"}

    def _quota(self, name: str, path: KeyPath, written: object, ceiling: Any, product: Mapping[str, Any]) -> int | None:
        """A person's own ceiling for storage: the lowest of what is written as quota and limit, and what the product
        includes when nothing goes beyond that. None when there is none."""
        own = None if written is None else self.source.take(path, units.size, written)
        included = product["included"].get(name) if product["beyond"] == "blocked" else None
        if own is not None:
            self._under(
                path, name, own, ((limits.CUSTOMER, self.wanted["limits"]), (limits.RESELLER, self.contract.limits))
            )
            if included is not None and own > included:
                self.source.report(path, "is more than the product includes", f"at most {units.human_size(included)}")
        quota = min(
            (value for value in (own, ceiling and int(ceiling["max"]), included) if value is not None), default=None
        )
        self.quotas.setdefault(name, []).append((path if written is not None else path[:-1], quota))
        return quota

    def _mail(self, path: KeyPath, mail: Mapping[str, Any], login: str, ceilings: Mapping[str, Any]) -> dict[str, Any]:
        aliases, forwards = [], []
        for index, written in enumerate(mail.get("aliases") or ()):
            where = (*path, "aliases", index)
            address = self._claim("alias", where, written) if written is not None else None
            if address:
                aliases.append(address)
                self.count("aliases", where)
                self.forwards.append(Forward(address, login, where))
        for index, written in enumerate(mail.get("forward") or ()):
            where = (*path, "forward", index)
            parts = (
                self.source.take(where, lambda value: names.address(value, outside=True), written) if written else None
            )
            if parts:
                forwards.append("@".join(parts))
                self.forwards.append(Forward(login, forwards[-1], where))
        if "aliases" in ceilings:
            in_use = self.contract.in_use.get((limits.USER, login, "aliases"), 0)
            limit_path = (*path[:-1], "limits", "aliases")
            pool = Pool("aliases", ceilings["aliases"], f"user {login}", self.source, limit_path, in_use)
            over_limit(pool, [(self, (*path, "aliases", index)) for index in range(len(aliases))])
        return {"aliases": aliases, "forward": list(dict.fromkeys(forwards)), "keep_copy": mail.get("keep_copy", True)}

    def _phone(self, path: KeyPath, phone: Mapping[str, Any]) -> dict[str, Any]:
        devices = []
        for index, device in enumerate(phone.get("devices") or ()):
            where = (*path, "devices", index, "mac")
            mac = self.source.take(where, units.mac, device["mac"]) if device and "mac" in device else None
            if mac in self.devices:
                self.source.report(where, f"is already a device on {self.where(self.devices[mac])}", "each device once")
            elif mac:
                self.devices[mac] = where
                devices.append({"mac": mac, "model": device.get("model", "")})
        voicemail = phone.get("voicemail") or {}
        return {
            "extension": self._extension((*path, "extension"), phone.get("extension")),
            "devices": devices,
            "voicemail": {
                "enabled": voicemail.get("enabled", "voicemail" in phone),
                "to_mail": voicemail.get("to_mail", False),
            },
        }

    def _extension(self, path: KeyPath, written: object) -> str:
        extension = self.source.take(path, units.extension, written) if written is not None else None
        if not extension:
            self.unclear.add("extensions")
            return ""
        if extension in self._extensions:
            self.source.report(
                path, f"is already the extension on {self.where(self._extensions[extension])}", "each extension once"
            )
        self._extensions.setdefault(extension, path)
        self.count("extensions", path)
        return extension

    # --- groups, rooms ----------------------------------------------------------------------------------------------

    def _group(self, path: KeyPath, group: Mapping[str, Any]) -> dict[str, Any] | None:
        name = group.get("name")
        if not name:
            self.unclear.add("groups")
            return None
        if name in self._groups:
            self.source.report(
                (*path, "name"),
                f"is already a group on {self.where(('groups', self._groups[name], 'name'))}",
                "each group once",
            )
        self._groups.setdefault(name, int(path[1]))
        if group.get("state") == ABSENT:
            self.removed["groups"].append({"customer": self.name, "name": name})
            return None
        self.count("groups", (*path, "name"))
        result = {
            "name": name,
            "title": self._name((*path, "title"), group.get("title", name)),
            "members": self._members(path, group),
            "mail": None, "phone": None, "files": None,
        }  # fmt: skip
        if group.get("mail") is not None:
            result["mail"] = self._group_mail((*path, "mail"), group["mail"], result["members"])
        if group.get("phone") is not None:
            phone = group["phone"]
            extension = self._extension((*path, "phone", "extension"), phone.get("extension"))
            result["phone"] = {"extension": extension, "strategy": phone.get("strategy", "ring_all")}
        if group.get("files") is not None:
            folder = group["files"]
            quota = self._quota("file_storage", (*path, "files", "quota"), folder.get("quota"), None, _NO_PRODUCT)
            result["files"] = {"folder": self._folder((*path, "files", "folder"), folder.get("folder")), "quota": quota}
        return result

    def _folder(self, path: KeyPath, written: object) -> str:
        """A shared folder's name, unique within the customer, also for machines that know no capitals."""
        name = (
            self.source.take(path, partial(names.display_name, folder=True), written) if written is not None else None
        )
        if not name:
            return ""
        if name.casefold() in self._folders:
            self.source.report(
                path, f"is already a folder on {self.where(self._folders[name.casefold()])}", "each folder once"
            )
        self._folders.setdefault(name.casefold(), path)
        return name

    def _members(self, path: KeyPath, group: Mapping[str, Any]) -> list[str]:
        members = []
        for index, written in enumerate(group.get("members") or ()):
            if written is None:
                continue
            where = (*path, "members", index)
            parts = self.source.take(where, names.address, written)
            if parts is None:
                continue
            login = "@".join(parts)
            if login in self._logins:
                members.append(login)
            elif login in self._absent_users:
                self.source.report(where, "is to be removed", "logins of users that stay")
            elif login in self.addresses:
                self.source.report(
                    where,
                    f"is {_article(self.addresses[login].kind)}, no user's login",
                    "logins of this customer's users",
                )
            elif "users" not in self.unclear:
                self.source.report(
                    where, f"is no user of this customer{self.source.hint(login, self._logins)}", listing(self._logins)
                )
        return list(dict.fromkeys(members))

    def _group_mail(self, path: KeyPath, mail: Mapping[str, Any], members: list[str]) -> dict[str, Any]:
        written = mail.get("address")
        address = self._claim("group", (*path, "address"), written) if written else None
        kind, quota = mail.get("kind", LIST), None
        if kind == LIST:
            if "quota" in mail:
                self.source.report(
                    (*path, "quota"),
                    "is for a shared mailbox; a list keeps no mail",
                    "kind: shared_mailbox, or no quota",
                )
            if address:
                self.forwards += [Forward(address, member, (*path, "address")) for member in members]
            users = self.source.data.get("users") or []
            for login in members:
                if users[self._logins[login]].get("mail") is None:
                    self.source.warn(
                        (*path, "address"), f"goes to {login} too, who has no mail", "members with mail", written
                    )
        else:
            quota = self._quota("mail_storage", (*path, "quota"), mail.get("quota"), None, _NO_PRODUCT)
        return {"address": address, "kind": kind, "quota": quota}

    def _resource(self, path: KeyPath, resource: Mapping[str, Any]) -> dict[str, Any] | None:
        if "address" not in resource:
            return None
        if resource.get("state") == ABSENT:
            parts = self.source.take((*path, "address"), names.address, resource["address"])
            if parts:
                self.removed["resources"].append({"customer": self.name, "address": "@".join(parts)})
            return None
        address = self._claim("resource", (*path, "address"), resource["address"])
        return {"name": self._name((*path, "name"), resource.get("name", "")), "address": address}

    # --- telephony --------------------------------------------------------------------------------------------------

    def _telephony(self, telephony: Mapping[str, Any]) -> dict[str, Any]:
        for index, written in enumerate(telephony.get("numbers") or ()):
            path: KeyPath = ("telephony", "numbers", index)
            number = self.source.take(path, units.phone_number, written) if written is not None else None
            if number in self.numbers:
                self.source.report(
                    path, f"is written twice, first on {self.where(self.numbers[number])}", "each number once"
                )
            elif number:
                self.numbers[number] = path
                self.count("numbers", path)
        incoming: dict[str, dict[str, Any]] = {}
        for index, route in enumerate(telephony.get("incoming") or ()):
            if route is None or "number" not in route:
                continue
            path = ("telephony", "incoming", index)
            number = self.source.take((*path, "number"), units.phone_number, route["number"])
            if number is None:
                continue
            if number in incoming:
                self.source.report((*path, "number"), "has a route already", "each number once")
            elif number not in self.numbers and "telephony" not in self.unclear:
                self.source.report((*path, "number"), "is no number of this customer", listing(self.numbers))
            incoming[number] = {"number": number} | {
                key: self._target((*path, key), route.get(key)) for key in ("open", "closed")
            }
        return {
            "numbers": list(self.numbers),
            "opening_hours": self._hours(telephony.get("opening_hours") or {}),
            "incoming": list(incoming.values()),
        }

    def _target(self, path: KeyPath, written: object) -> str | None:
        """Where a call goes, if that exists and can take calls."""
        found = self.source.take(path, names.target, written) if written is not None else None
        if found is None:
            return None
        kind, name = found
        if kind in ("user", "voicemail"):
            parts = self.source.take(path, names.address, name)
            name = "@".join(parts) if parts else name
            known: Mapping[str, Any] = self._logins
            part, group = "users", self.source.data.get("users") or []
        elif kind == "group":
            known = self._groups
            part, group = "groups", self.source.data.get("groups") or []
        else:
            known, part, group = self._extensions, "extensions", []
        if name in known:
            if group and not (group[int(known[name])] or {}).get("phone") and part not in self.unclear:
                self.source.report(path, "has no phone", f"a {kind} with phone")
        elif not self.unclear & {part, "users", "groups"}:
            self.source.report(
                path,
                f"is no {kind} of this customer{self.source.hint(name, known)}",
                listing(known),
            )
        return f"{kind}:{name}"

    def _hours(self, written: Mapping[str, Any]) -> dict[str, Any]:
        """Opening hours by day, `{"mon": [["08:00", "17:30"]], ...}`, and the closed days."""
        result: dict[str, Any] = {}
        path: KeyPath = ("telephony", "opening_hours")
        for key, value in written.items():
            if key == "closed":
                continue
            spans = [
                self.source.take((*path, key, index) if isinstance(value, list) else (*path, key), units.hours, span)
                for index, span in enumerate(value if isinstance(value, list) else [value])
                if span is not None
            ]
            for day in units.days(key):
                if units.DAYS[day] in result:
                    self.source.report((*path, key), f"has {units.DAYS[day]}, which has hours already", "each day once")
                result[units.DAYS[day]] = [list(span) for span in spans if span]
        closed = [
            self.source.take((*path, "closed", index), units.date, value)
            for index, value in enumerate(written.get("closed") or ())
            if value is not None
        ]
        return result | ({"closed": sorted({day for day in closed if day})} if closed else {})


_NO_PRODUCT: Mapping[str, Any] = {"included": {}, "beyond": "metered"}


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def not_available(what: str, value: str) -> tuple[str, str]:
    """What anyone hears of something that somebody else on the site has; never who."""
    proof = "; prove control with a DNS TXT record" if what == "domain" else ""
    return f"{what} {value} is not available{proof}", f"a {what} that nobody else on this site has"


@dataclass(frozen=True)
class Pool:
    """A ceiling on what several share: whose it is, and the document and path where it is written.

    `in_use`: what the directory holds of it now, as far as it was asked; see estate.load_reseller.
    """

    limit: str
    ceiling: Mapping[str, Any]
    who: str
    document: Document
    path: KeyPath
    in_use: int = 0

    @property
    def maximum(self) -> int:
        return int(self.ceiling["max"])

    @property
    def is_hard(self) -> bool:
        return bool(self.ceiling["enforce"] == limits.HARD)

    @property
    def allowed(self) -> str:
        return f"at most {limits.text(self.limit, self.maximum)} ({key_text(self.path)} of {self.who})"

    def warn(self, what: str) -> None:
        """Says that a soft or lowered ceiling is exceeded."""
        after = "soft: nothing is refused" if not self.is_hard else "nothing can be added"
        self.document.warn((*self.path, "max"), f"is exceeded: {self.who} {what}", f"{self.allowed}; {after}")

    def warn_at(self, amount: int, what: str) -> None:
        """Says that a percentage is reached at which the contract or the customer wants to hear of it."""
        step = limits.warned(amount, self.ceiling)
        if step is not None:
            self.document.warn((*self.path, "warn_at"), f"{step} % is reached: {self.who} {what}", self.allowed, None)


def over_limit(pool: Pool, counted: Sequence[tuple[Customer, KeyPath]]) -> None:
    """Compares a count with a ceiling. Over a hard one: an error at the first thing that is too much, unless it was so
    already (a limit may be lowered below present use, and then blocks growth only)."""
    what = f"has {len(counted)} {pool.limit}"
    if len(counted) <= pool.maximum:
        pool.warn_at(len(counted), what)
    elif pool.is_hard and len(counted) > pool.in_use:
        customer, path = counted[pool.maximum]
        customer.source.report(path, f"is over the limit: {pool.who} {what}", pool.allowed)
    else:
        pool.warn(what)


def over_allocated(pool: Pool, handed_out: Iterable[tuple[Customer, KeyPath, int | None]]) -> None:
    """Compares the sum of what was handed out with a ceiling of basis `allocated`; everyone there needs a quota."""
    total = 0
    over: tuple[Customer, KeyPath] | None = None
    for customer, path, quota in handed_out:
        if quota is None:
            customer.source.report(
                path,
                f"has no quota, and {pool.limit} of {pool.who} counts what is handed out",
                "a quota, or a product that includes one with beyond: blocked",
                None,
            )
            continue
        total += quota
        if total > pool.maximum and over is None:
            over = customer, path
    what = f"hands out {units.human_size(total)} of {pool.limit}"
    if over is None:
        pool.warn_at(total, what)
    elif pool.is_hard:
        over[0].source.report(over[1], f"is over the limit: {pool.who} {what}", pool.allowed)
    else:
        pool.warn(what)
