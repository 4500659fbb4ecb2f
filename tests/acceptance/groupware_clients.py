# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that people have besides their mail: a browser's questions, CalDAV and CardDAV clients, phones.

All of them talk TLS to the names of the reseller and trust the site's CA alone. The names lead to the site without a
word in the computer's own files: in this process by its resolver, for vdirsyncer by a hosts file that only it sees.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote

import activesync
import caldav
import icalendar
from ansible_collections.bouwsteen.hosting.plugins.module_utils import groupware_probe, probe
from ansible_collections.bouwsteen.hosting.plugins.module_utils.web_client import Answer, Web


@contextlib.contextmanager
def names_lead_to(address: str, domains: set[str]) -> Iterator[None]:
    """In this process names below these domains are at the address."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *words: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        ours = name and any(f".{name.rstrip('.').lower()}".endswith(f".{domain}") for domain in domains)
        return real(address if ours else host, *words, **options)

    with mock.patch.object(socket, "getaddrinfo", getaddrinfo):
        yield


@dataclass
class Webmail:
    """A browser in which somebody has logged in."""

    web: Web
    login: str
    user: str

    @property
    def home(self) -> str:
        return f"/SOGo/so/{quote(self.user)}"

    def get(self, path: str) -> Answer:
        """A page or an answer of the person's own part of webmail; an absolute path is taken as it is."""
        return self.web.ask("GET", path if path.startswith("/") else f"{self.home}/{path}", headers=self._headers())

    def post(self, path: str, body: str = "") -> Answer:
        headers = self._headers() | {"Content-Type": "application/json;charset=utf-8"}
        return self.web.ask("POST", path if path.startswith("/") else f"{self.home}/{path}", body, headers)

    def _headers(self) -> dict[str, str]:
        return {"X-XSRF-TOKEN": self.web.cookies.get("XSRF-TOKEN", ""), "Accept": "application/json, text/plain, */*"}


@dataclass
class Vdirsyncer:
    """vdirsyncer with a real configuration: a folder of files on one side, the server on the other."""

    folder: Path
    hosts: Path

    @classmethod
    def make(cls, folder: Path, person: Any, host: str, address: str, ca_file: str) -> Vdirsyncer:
        folder.mkdir(parents=True)
        hosts = folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{address} {host}\n")
        (folder / "password").write_text(person.password)
        (folder / "password").chmod(0o600)
        parts = [f'[general]\nstatus_path = "{folder}/status/"\n']
        for kind, suffix in (("caldav", ".ics"), ("carddav", ".vcf")):
            parts.append(
                f"""
[pair {kind}]
a = "{kind}_files"
b = "{kind}_server"
collections = ["personal"]
implicit = "create"
conflict_resolution = "b wins"

[storage {kind}_files]
type = "filesystem"
path = "{folder}/{kind}/"
fileext = "{suffix}"

[storage {kind}_server]
type = "{kind}"
url = "https://{host}/SOGo/dav/"
username = "{person.login}"
password.fetch = ["command", "cat", "{folder}/password"]
verify = "{ca_file}"
"""
            )
        (folder / "config").write_text("".join(parts))
        return cls(folder, hosts)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """One command, in a mount namespace of its own with its own hosts file."""
        program = [str(Path(sys.executable).with_name("vdirsyncer")), "-c", str(self.folder / "config"), *words]
        script = f"mount --bind {shlex.quote(str(self.hosts))} /etc/hosts && exec {shlex.join(program)}"
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", script],
            input="y\n" * 20,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def sync(self, kind: str = "caldav") -> dict[str, str]:
        """Bring both sides together; the files that there are afterwards, by name."""
        if not (self.folder / "status" / f"{kind}.collections").exists():
            done = self.run("discover", kind)
            assert done.returncode == 0, f"vdirsyncer discover: {done.stdout}{done.stderr}"
        done = self.run("sync", kind)
        assert done.returncode == 0, f"vdirsyncer sync: {done.stdout}{done.stderr}"
        return self.files(kind)

    def files(self, kind: str = "caldav") -> dict[str, str]:
        where = self.folder / kind / "personal"
        return {path.name: path.read_text() for path in sorted(where.glob("*")) if not path.name.startswith(".")}

    def put(self, kind: str, name: str, content: str) -> None:
        """A file of the person's own making, for the next sync."""
        where = self.folder / kind / "personal"
        where.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(content)


@dataclass
class Groupware:
    """All programs of all people; each is started when first asked for and kept to the end."""

    mail: Any
    target: probe.Target
    folder: Path
    _webs: dict[str, Web] = field(default_factory=dict)
    _webmails: dict[str, Webmail] = field(default_factory=dict)
    _clients: dict[str, caldav.DAVClient] = field(default_factory=dict)
    _homes: dict[tuple[str, str], str] = field(default_factory=dict)
    _vdirs: dict[str, Vdirsyncer] = field(default_factory=dict)
    _phones: dict[str, activesync.Phone] = field(default_factory=dict)

    def domain(self, login: str) -> str:
        """The domain of the person's reseller."""
        return str(self.mail[login].host).removeprefix("mail.")

    def host(self, login: str, site: str = "webmail") -> str:
        return f"{site}.{self.domain(login)}"

    def site(self, domain: str, site: str = "webmail", **options: Any) -> Web:
        """A program of nobody in particular at one of a reseller's sites."""
        return Web(f"{site}.{domain}", self.target, **options)

    def new_web(self, login: str) -> Web:
        """A program of its own that sends the person's password with every question."""
        return Web(self.host(login), self.target, login, self.mail[login].password, agent="proef")

    def web(self, login: str) -> Web:
        """The same, shared."""
        return self._webs.setdefault(login, self.new_web(login))

    def sign_in(self, login: str, password: str | None = None, domain: str | None = None) -> tuple[Web, Answer]:
        """A browser at the login page of a reseller, and what it says."""
        browser = self.site(domain or self.domain(login))
        return browser, groupware_probe.sign_in(browser, login, password or self.mail[login].password)

    def webmail(self, login: str) -> Webmail:
        """A browser in which the person has logged in, shared."""
        if login not in self._webmails:
            browser, answer = self.sign_in(login)
            assert answer.status == 200, f"{login} cannot log in: {answer}"
            self._webmails[login] = Webmail(browser, login, answer.json["username"])
        return self._webmails[login]

    def home(self, login: str, kind: str = "caldav") -> str:
        """The path of the person's calendars (`caldav`) or address books (`carddav`), as programs find it."""
        if (login, kind) not in self._homes:
            self._homes[login, kind] = groupware_probe.dav_home(self.web(login), kind)
        return self._homes[login, kind]

    def uid(self, login: str) -> str:
        """The name that never changes and that SOGo knows the person by."""
        return self.home(login).rstrip("/").split("/")[-2]

    def personal(self, login: str, kind: str = "caldav") -> str:
        """The path of the person's first calendar or address book."""
        return f"{self.home(login, kind)}personal/"

    def client(self, login: str) -> caldav.DAVClient:
        """The Python library `caldav`, logged in."""
        if login not in self._clients:
            client = caldav.DAVClient(
                url=f"https://{self.host(login)}/.well-known/caldav",
                username=login,
                password=self.mail[login].password,
                ssl_verify_cert=self.target.ca_file,
                auth_type="basic",
                enable_rfc6764=False,
                timeout=60,
            )
            client.session.trust_env = False
            self._clients[login] = client
        return self._clients[login]

    def calendar(self, login: str) -> caldav.Calendar:
        """The person's own calendar in the library `caldav`."""
        return caldav.Calendar(self.client(login), url=f"https://{self.host(login)}{self.personal(login)}")

    def vdirsyncer(self, login: str) -> Vdirsyncer:
        if login not in self._vdirs:
            self._vdirs[login] = Vdirsyncer.make(
                self.folder / login,
                self.mail[login],
                self.host(login),
                str(self.target.address),
                str(self.target.ca_file),
            )
        return self._vdirs[login]

    def new_phone(self, login: str) -> activesync.Phone:
        return activesync.Phone(self.new_web(login))

    def phone(self, login: str) -> activesync.Phone:
        """A phone of the person's, shared."""
        return self._phones.setdefault(login, self.new_phone(login))

    # ------------------------------------------------------------------------------------------- plain DAV

    def put(self, login: str, name: str, content: str, kind: str = "caldav", home: str = "") -> Answer:
        """Store something in the person's calendar or address book, or at another path."""
        mime = "text/calendar" if kind == "caldav" else "text/vcard"
        path = f"{home or self.personal(login, kind)}{quote(name)}"
        return self.web(login).ask("PUT", path, content, {"Content-Type": f"{mime}; charset=utf-8"})

    def get(self, login: str, name: str, kind: str = "caldav", home: str = "") -> Answer:
        return self.web(login).ask("GET", f"{home or self.personal(login, kind)}{quote(name)}")

    def delete(self, login: str, name: str, kind: str = "caldav", home: str = "") -> Answer:
        return self.web(login).ask("DELETE", f"{home or self.personal(login, kind)}{quote(name)}")

    def share(self, login: str, other: str, **rights: Any) -> tuple[Answer, Answer]:
        """Give a colleague rights in the person's own calendar as webmail does: add him, and say what he may."""
        webmail, uid = self.webmail(login), self.uid(other)
        added = webmail.get(f"Calendar/personal/addUserInAcls?uid={uid}")
        none = {
            "Public": "None",
            "Private": "None",
            "Confidential": "None",
            "canCreateObjects": 0,
            "canEraseObjects": 0,
        }
        body = json.dumps([{"uid": uid, "rights": {**none, **rights}}])
        return added, webmail.post("Calendar/personal/saveUserRights", body)

    def unshare(self, login: str, other: str) -> Answer:
        """Take all rights away again."""
        return self.webmail(login).get(f"Calendar/personal/removeUserFromAcls?uid={self.uid(other)}")

    def entries(self, login: str, path: str) -> dict[str, str]:
        """What a folder holds: each thing's path to its etag."""
        answer = groupware_probe.propfind(self.web(login), path, "getetag", depth="1")
        assert answer.status == 207, f"PROPFIND {path}: {answer}"
        return dict(
            re.findall(r"<\w+:href>([^<]*)</\w+:href>.*?<\w+:getetag[^>]*>([^<]+)</", answer.text, flags=re.DOTALL)
        )

    def empty(self, login: str, kind: str = "caldav") -> None:
        """Nothing is left of earlier tests."""
        for path in self.entries(login, self.personal(login, kind)):
            self.web(login).ask("DELETE", path)

    def close(self) -> None:
        """End all connections."""
        for web in [*self._webs.values(), *(mail.web for mail in self._webmails.values())]:
            web.close()
        for phone in self._phones.values():
            phone.web.close()
        for client in self._clients.values():
            with contextlib.suppress(Exception):
                client.close()


def events(text: str) -> list[icalendar.Event]:
    """The events of a calendar file, without what belongs to time zones."""
    return [item for item in icalendar.Calendar.from_ical(text).walk("VEVENT") if isinstance(item, icalendar.Event)]


def unfolded(text: str) -> str:
    """A calendar or card with whole lines (RFC 5545 3.1)."""
    return re.sub(r"\r?\n[ \t]", "", text).replace("\r\n", "\n")
