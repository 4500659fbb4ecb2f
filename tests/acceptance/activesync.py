# SPDX-License-Identifier: GPL-3.0-or-later
"""A phone: the part of ActiveSync 14.1 that phones and Outlook use every day (MS-ASHTTP, -ASCMD, -ASCAL, -ASCNTC)."""

from __future__ import annotations

import base64
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from ansible_collections.bouwsteen.hosting.plugins.module_utils import wbxml
from ansible_collections.bouwsteen.hosting.plugins.module_utils.wbxml import Element, element
from ansible_collections.bouwsteen.hosting.plugins.module_utils.web_client import Answer, Web

PATH = "/Microsoft-Server-ActiveSync"
# Types of folders (MS-ASCMD 2.2.3.186.3).
INBOX, TASKS, CALENDAR, CONTACTS = "2", "7", "8", "9"
NEEDS_PROVISION = {"141", "142", "143", "144"}


class RefusedError(AssertionError):
    """The server's answer is not what a phone can go on with."""


@dataclass
class Item:
    """Something that a folder holds: its id there, what kind of change told of it, and its properties."""

    server_id: str
    change: str
    data: Element

    def __getitem__(self, name: str) -> str:
        return self.data.value(name)


@dataclass
class Phone:
    """One device of one person. `web` carries his login as Basic authentication."""

    web: Web
    device: str = field(default_factory=lambda: f"proef{uuid.uuid4().hex[:20]}")
    policy_key: str = "0"
    folder_key: str = "0"
    folders: dict[str, tuple[str, str]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    def post(self, command: str, body: bytes = b"", *, timeout: float | None = None, **query: str) -> Answer:
        """One command, as it goes over the line."""
        words = {"Cmd": command, "User": self.web.login, "DeviceId": self.device, "DeviceType": "iPhone", **query}
        headers = {"MS-ASProtocolVersion": "14.1", "X-MS-PolicyKey": self.policy_key}
        headers |= {"Content-Type": "application/vnd.ms-sync.wbxml", "User-Agent": "Apple-iPhone14C5/1906.79"}
        path = f"{PATH}?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in words.items())
        return self.web.ask("POST", path, body, headers, timeout=timeout)

    def command(self, command: str, body: Element | None, *, timeout: float | None = None) -> Element | None:
        """One command and its tree; None for an answer without content. Raises RefusedError."""
        answer = self.post(command, wbxml.encode(body) if body else b"", timeout=timeout)
        if answer.status != 200:
            raise RefusedError(f"{command}: {answer}")
        return wbxml.decode(answer.body) if answer.body else None

    def asked(self, command: str, body: Element, *, timeout: float | None = None) -> Element:
        """The same for commands that always have an answer."""
        found = self.command(command, body, timeout=timeout)
        if found is None:
            raise RefusedError(f"{command}: an empty answer")
        return found

    def options(self) -> Answer:
        """What the server speaks."""
        return self.web.ask("OPTIONS", PATH)

    def provision(self) -> Element:
        """Ask for the policy and take it, as phones do before all else."""
        wish = element(
            "Provision:Provision",
            element(
                "Provision:Policies",
                element("Provision:Policy", element("Provision:PolicyType", "MS-EAS-Provisioning-WBXML")),
            ),
        )
        offered = self.asked("Provision", wish)
        key = offered.value("Provision:PolicyKey")
        if key:
            self.policy_key = key
            policy = element(
                "Provision:Policy",
                element("Provision:PolicyType", "MS-EAS-Provisioning-WBXML"),
                element("Provision:PolicyKey", key),
                element("Provision:Status", 1),
            )
            taken = self.asked("Provision", element("Provision:Provision", element("Provision:Policies", policy)))
            self.policy_key = taken.value("Provision:PolicyKey") or key
        return offered

    def folder_sync(self) -> dict[str, tuple[str, str]]:
        """All folders: id to (name, type)."""
        wish = element("FolderHierarchy:FolderSync", element("FolderHierarchy:SyncKey", self.folder_key))
        found = self.asked("FolderSync", wish)
        if found.value("FolderHierarchy:Status") != "1":
            raise RefusedError(f"FolderSync: {found}")
        self.folder_key = found.value("FolderHierarchy:SyncKey")
        for change in ("Add", "Update"):
            for folder in found.every(f"FolderHierarchy:{change}"):
                where = folder.value("FolderHierarchy:ServerId")
                name, kind = folder.value("FolderHierarchy:DisplayName"), folder.value("FolderHierarchy:Type")
                self.folders[where] = (name, kind)
        for folder in found.every("FolderHierarchy:Delete"):
            self.folders.pop(folder.value("FolderHierarchy:ServerId"), None)
        return self.folders

    def folder(self, kind: str) -> str:
        """The id of the first folder of a type."""
        if not self.folders:
            self.folder_sync()
        for where, (_, found) in self.folders.items():
            if found == kind:
                return where
        raise RefusedError(f"no folder of type {kind} among {self.folders}")

    def _sync(
        self, folder: str, *content: Element, window: int = 100, options: Element | None = None
    ) -> Element | None:
        key = self.keys.get(folder, "0")
        parts = [element("AirSync:SyncKey", key), element("AirSync:CollectionId", folder)]
        if key != "0":
            parts += [element("AirSync:GetChanges", 1), element("AirSync:WindowSize", window)]
            if options:
                parts.append(options)
            if content:
                parts.append(element("AirSync:Commands", *content))
        wish = element("AirSync:Sync", element("AirSync:Collections", element("AirSync:Collection", *parts)))
        found = self.command("Sync", wish)
        if found is None:
            return None
        status = found.value("AirSync:Status")
        if status not in {"", "1"}:
            raise RefusedError(f"Sync of {folder}: {found}")
        self.keys[folder] = found.value("AirSync:SyncKey") or key
        return found

    def sync(self, kind: str, *content: Element, days: bool = False) -> list[Item]:
        """Bring a folder up to date: what changed there since the last time, after sending changes of our own."""
        folder = kind if kind in self.folders else self.folder(kind)
        if self.keys.get(folder, "0") == "0":
            self._sync(folder)
        options = element(
            "AirSync:Options",
            element("AirSync:FilterType", 0),
            element("AirSyncBase:BodyPreference", element("AirSyncBase:Type", 1)),
        )
        items: list[Item] = []
        again = True
        while again:
            found = self._sync(folder, *content, options=options)
            content = ()
            if found is None:
                break
            commands = found.first("AirSync:Commands")
            for change in commands.children if commands else []:
                data = change.child("AirSync:ApplicationData") or element("AirSync:ApplicationData")
                items.append(Item(change.value("AirSync:ServerId"), change.name.partition(":")[2], data))
            for answer in found.every("AirSync:Responses"):
                for response in answer.children:
                    if response.value("AirSync:Status") not in {"", "1"}:
                        raise RefusedError(f"Sync of {folder}: {response}")
                    data = response.child("AirSync:ApplicationData") or element("AirSync:ApplicationData")
                    items.append(Item(response.value("AirSync:ServerId"), "Response", data))
            again = found.first("AirSync:MoreAvailable") is not None
        return items

    def ping(self, folders: Sequence[str], *, seconds: int = 60) -> Element | None:
        """Wait until something changes in one of the folders. None when the server ends it without a word."""
        wish = element(
            "Ping:Ping",
            element("Ping:HeartbeatInterval", seconds),
            element(
                "Ping:Folders",
                *(
                    element("Ping:Folder", element("Ping:Id", folder), element("Ping:Class", "Email"))
                    for folder in folders
                ),
            ),
        )
        return self.command("Ping", wish, timeout=seconds + 60)

    def search(self, query: str, *, top: int = 99) -> list[dict[str, str]]:
        """People in the address book of the phone's owner."""
        wish = element(
            "Search:Search",
            element(
                "Search:Store",
                element("Search:Name", "GAL"),
                element("Search:Query", query),
                element("Search:Options", element("Search:Range", f"0-{top}")),
            ),
        )
        found = self.asked("Search", wish)
        if found.value("Search:Status") != "1":
            raise RefusedError(f"Search: {found}")
        return [
            {part.name.partition(":")[2]: part.text for part in result.first("Search:Properties").children}  # type: ignore[union-attr]
            for result in found.every("Search:Result")
            if result.first("Search:Properties")
        ]

    def resolve(self, address: str, start: datetime, end: datetime) -> Answer:
        """Whether somebody is free: what Outlook asks when a meeting is planned."""
        wish = element(
            "ResolveRecipients:ResolveRecipients",
            element("ResolveRecipients:To", address),
            element(
                "ResolveRecipients:Options",
                element(
                    "ResolveRecipients:Availability",
                    element("ResolveRecipients:StartTime", start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")),
                    element("ResolveRecipients:EndTime", end.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")),
                ),
            ),
        )
        return self.post("ResolveRecipients", wbxml.encode(wish))


# ------------------------------------------------------------------------------------------------------- times


def moment(text: str) -> datetime:
    """`20261101T090000Z` or `2026-11-01T09:00:00.000Z` as a moment."""
    digits = "".join(character for character in text if character.isdigit())[:14]
    return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC)


def stamp(when: datetime) -> str:
    """A moment as calendars of ActiveSync have it."""
    return when.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


@dataclass(frozen=True)
class Zone:
    """The time zone of an event (MS-ASDTYPE 2.7.6): minutes to add for UTC, and when summer time begins and ends."""

    bias: int
    standard: tuple[int, ...]
    standard_bias: int
    daylight: tuple[int, ...]
    daylight_bias: int

    @classmethod
    def read(cls, text: str) -> Zone:
        raw: tuple[Any, ...] = struct.unpack("<l64s8Hl64s8Hl", base64.b64decode(text))
        return cls(raw[0], raw[2:10], raw[10], raw[12:20], raw[20])

    def _change(self, year: int, rule: tuple[int, ...]) -> datetime:
        """The local moment of a change: day of the week, and the how-manieth of the month (5 is the last)."""
        _, month, weekday, nth, hour, minute, *_ = rule
        day = datetime(year, month, 1, hour, minute)
        found = [day + timedelta(days=n) for n in range(31) if (day + timedelta(days=n)).month == month]
        found = [when for when in found if when.isoweekday() % 7 == weekday]
        return found[min(nth, len(found)) - 1]

    def to_utc(self, local: datetime) -> datetime:
        """A wall clock's time in UTC, as a phone computes it."""
        summer = False
        if self.daylight[1] and self.standard[1]:
            starts, ends = self._change(local.year, self.daylight), self._change(local.year, self.standard)
            summer = starts <= local < ends if starts < ends else not ends <= local < starts
        bias = self.bias + (self.daylight_bias if summer else self.standard_bias)
        return (local + timedelta(minutes=bias)).replace(tzinfo=UTC)

    def to_local(self, when: datetime) -> datetime:
        """What a wall clock shows at a moment."""
        for bias in (self.bias + self.daylight_bias, self.bias + self.standard_bias):
            local = when.astimezone(UTC).replace(tzinfo=None) - timedelta(minutes=bias)
            if self.to_utc(local) == when:
                return local
        raise ValueError(f"{when} is no time of this zone")
