# SPDX-License-Identifier: GPL-3.0-or-later
"""A reseller's groupware as his people's programs use it. Standard library only.

The accounts are the probes of `probe.py`. Everything that a probe makes, it removes again.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import escape

from ansible_collections.bouwsteen.hosting.plugins.module_utils import probe, wbxml
from ansible_collections.bouwsteen.hosting.plugins.module_utils.health import Problem
from ansible_collections.bouwsteen.hosting.plugins.module_utils.probe import Account, Target
from ansible_collections.bouwsteen.hosting.plugins.module_utils.wbxml import element
from ansible_collections.bouwsteen.hosting.plugins.module_utils.web_client import HTTPS, TRANSPORT, Answer, Web

SITES = ("webmail", "account", "autodiscover", "autoconfig")
LOOK = "journalctl -b -u nginx -u sogo -u portal on the groupware machine; docs/groupware.md"
# One device for all runs: the server keeps a little about each that it has seen.
DEVICE = "bouwsteenverify"
EVENT = """BEGIN:VCALENDAR\r
VERSION:2.0\r
PRODID:-//Bouwsteen//verify//NL\r
BEGIN:VEVENT\r
UID:{uid}\r
DTSTAMP:20260101T000000Z\r
DTSTART:20260101T100000Z\r
DTEND:20260101T110000Z\r
SUMMARY:Proef – één, twee, ĳ\r
TRANSP:TRANSPARENT\r
END:VEVENT\r
END:VCALENDAR\r
"""
CARD = """BEGIN:VCARD\r
VERSION:3.0\r
UID:{uid}\r
FN:Proef – één, twee, ĳ\r
N:Proef;Één;;;\r
END:VCARD\r
"""
MARK = "Proef – één, twee, ĳ"
AUTODISCOVER = """<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/{kind}/requestschema/2006"><Request>
<EMailAddress>{address}</EMailAddress>
<AcceptableResponseSchema>http://schemas.microsoft.com/exchange/autodiscover/{kind}/responseschema/{year}</AcceptableResponseSchema>
</Request></Autodiscover>
"""
YEARS = {"outlook": "2006a", "mobilesync": "2006"}


class RefusedError(Exception):
    """An answer that a program cannot go on with; the text says to what."""


def domain_of(account: Account) -> str:
    """The reseller's domain: the probe's own is below it."""
    return account.login.rpartition("@")[2].removeprefix("verify.")


def at(account: Account, site: str) -> Account:
    """The same person at another of the reseller's sites."""
    return replace(account, host=f"{site}.{domain_of(account)}")


def wanted(answer: Answer, *allowed: int, what: str) -> Answer:
    """The answer, if its status is one of those; else RefusedError."""
    if answer.status not in allowed:
        raise RefusedError(f"{what}: {answer.status} {answer.text[:120].strip()!r}")
    return answer


# ------------------------------------------------------------------------------------------------------- webmail


def sign_in(web: Web, login: str, password: str) -> Answer:
    """What the login page sends."""
    form = json.dumps({"userName": login, "password": password, "domain": None, "rememberLogin": 0})
    return web.ask("POST", "/SOGo/connect", form, {"Content-Type": "application/json;charset=utf-8"})


def webmail(account: Account, target: Target) -> None:
    """Log in, see the mail folders, log out; and a wrong password is refused."""
    with Web(account.host, target) as web:
        wanted(web.ask("GET", "/SOGo/"), 200, what="login page")
        answer = wanted(sign_in(web, account.login, account.password), 200, what="login")
        user = (answer.json or {}).get("username")
        if not user:
            raise RefusedError(f"login: {answer.text[:120]!r}")
        # Every change of state carries this token back, so that other sites cannot make one.
        headers = {"X-XSRF-TOKEN": web.cookies.get("XSRF-TOKEN", "")}
        home = f"/SOGo/so/{quote(user)}"
        folders = wanted(web.ask("GET", f"{home}/Mail/0/view", headers=headers), 200, what="mail folders")
        if not (folders.json or {}).get("mailboxes"):
            raise RefusedError(f"mail folders: {folders.text[:120]!r}")
        wanted(web.ask("GET", f"{home}/logoff", headers=headers), 200, 302, what="log out")
    with Web(account.host, target) as web:
        wanted(sign_in(web, account.login, uuid.uuid4().hex), 401, 403, what="a wrong password")


# ----------------------------------------------------------------------------------------------------------- DAV


def propfind(web: Web, path: str, prop: str, namespace: str = "DAV:", depth: str = "0") -> Answer:
    """Ask for one property, as programs do that look for their calendars."""
    body = (
        '<?xml version="1.0" encoding="utf-8"?>'
        f'<d:propfind xmlns:d="DAV:" xmlns:x="{namespace}"><d:prop><x:{prop}/></d:prop></d:propfind>'
    )
    return web.ask("PROPFIND", path, body, {"Depth": depth, "Content-Type": "application/xml; charset=utf-8"})


def href_in(answer: Answer, prop: str) -> str:
    """The path in the one `href` inside a property; empty without one. Prefixes are the server's to choose."""
    found = re.search(
        rf"<(?:[\w.-]+:)?{prop}\b[^>/]*>\s*<(?:[\w.-]+:)?href\b[^>]*>([^<]*)</(?:[\w.-]+:)?href>", answer.text
    )
    return urlsplit(found[1].strip()).path if found else ""


def dav_home(web: Web, kind: str) -> str:
    """Where a person's calendars (`caldav`) or address books (`carddav`) are, found as programs do (RFC 6764)."""
    path = f"/.well-known/{kind}"
    for _ in range(5):
        answer = propfind(web, path, "current-user-principal")
        if answer.status not in {301, 302, 307, 308}:
            break
        path = urlsplit(answer.header("Location")).path
    wanted(answer, 207, what=f"PROPFIND {path}")
    principal = href_in(answer, "current-user-principal")
    if not principal:
        raise RefusedError(f"PROPFIND {path}: no current-user-principal in {answer.text[:200]!r}")
    prop, namespace = {
        "caldav": ("calendar-home-set", "urn:ietf:params:xml:ns:caldav"),
        "carddav": ("addressbook-home-set", "urn:ietf:params:xml:ns:carddav"),
    }[kind]
    home = href_in(wanted(propfind(web, principal, prop, namespace), 207, what=f"PROPFIND {principal}"), prop)
    if not home:
        raise RefusedError(f"PROPFIND {principal}: no {prop}")
    return home.rstrip("/") + "/"


def dav(account: Account, target: Target, kind: str) -> None:
    """Put something, get it back, delete it, see that it is gone."""
    content, suffix, mime = (EVENT, "ics", "text/calendar") if kind == "caldav" else (CARD, "vcf", "text/vcard")
    with Web(account.host, target, account.login, account.password) as web:
        uid = f"verify-{uuid.uuid4().hex}"
        path = f"{dav_home(web, kind)}personal/{uid}.{suffix}"
        try:
            put = web.ask("PUT", path, content.format(uid=uid), {"Content-Type": f"{mime}; charset=utf-8"})
            wanted(put, 200, 201, 204, what="PUT")
            got = wanted(web.ask("GET", path), 200, what="GET")
            if MARK not in re.sub(r"\r?\n[ \t]", "", got.text) or uid not in got.text:
                raise RefusedError(f"what came back is not what was put: {got.text[:200]!r}")
        finally:
            gone = web.ask("DELETE", path)
        wanted(gone, 200, 204, what="DELETE")
        wanted(web.ask("GET", path), 404, what="GET after DELETE")


# ---------------------------------------------------------------------------------------------------- ActiveSync


def active_sync(account: Account, target: Target) -> None:
    """What a phone asks first: which versions are spoken, and which folders there are."""
    with Web(account.host, target, account.login, account.password) as web:
        options = wanted(web.ask("OPTIONS", "/Microsoft-Server-ActiveSync"), 200, what="OPTIONS")
        if "14.1" not in options.header("MS-ASProtocolVersions"):
            raise RefusedError(f"OPTIONS: versions {options.header('MS-ASProtocolVersions')!r}")
        query = f"Cmd=FolderSync&User={quote(account.login)}&DeviceId={DEVICE}&DeviceType=verify"
        headers = {"Content-Type": "application/vnd.ms-sync.wbxml", "MS-ASProtocolVersion": "14.1"}
        body = wbxml.encode(element("FolderHierarchy:FolderSync", element("FolderHierarchy:SyncKey", 0)))
        answer = wanted(web.ask("POST", f"/Microsoft-Server-ActiveSync?{query}", body, headers), 200, what="FolderSync")
        folders = wbxml.decode(answer.body)
        kinds = {found.text for found in folders.every("FolderHierarchy:Type")}
        # Inbox, calendar, contacts (MS-ASCMD 2.2.3.186.3).
        if folders.value("FolderHierarchy:Status") != "1" or not {"2", "8", "9"} <= kinds:
            raise RefusedError(f"FolderSync: {folders}"[:200])


# ------------------------------------------------------------------------------------------------------- set-up


def autodiscover(account: Account, target: Target) -> None:
    """Outlook, phones and Thunderbird each learn their settings from the address alone."""
    domain = domain_of(account)
    with Web(f"autodiscover.{domain}", target) as web:
        for kind, sign in (("outlook", f"mail.{domain}"), ("mobilesync", f"https://webmail.{domain}/")):
            body = AUTODISCOVER.format(kind=kind, year=YEARS[kind], address=escape(account.login))
            headers = {"Content-Type": "text/xml; charset=utf-8"}
            answer = wanted(web.ask("POST", "/autodiscover/autodiscover.xml", body, headers), 200, what=kind)
            if sign not in answer.text:
                raise RefusedError(f"{kind}: {sign} is not in {answer.text[:200]!r}")
    with Web(f"autoconfig.{domain}", target) as web:
        path = f"/mail/config-v1.1.xml?emailaddress={quote(account.login)}"
        answer = wanted(web.ask("GET", path), 200, what="autoconfig")
        if f"<hostname>mail.{domain}</hostname>" not in answer.text:
            raise RefusedError(f"autoconfig: mail.{domain} is not in {answer.text[:200]!r}")


def account_pages(account: Account, target: Target) -> None:
    """The pages where people set up their devices and choose passwords."""
    with Web(f"account.{domain_of(account)}", target) as web:
        wanted(web.ask("GET", "/setup"), 200, what="set-up page")


# ------------------------------------------------------------------------------------------------------ together

STEPS: tuple[tuple[str, Callable[[Account, Target], None]], ...] = (
    ("webmail", webmail),
    ("calendar over CalDAV", lambda account, target: dav(account, target, "caldav")),
    ("contacts over CardDAV", lambda account, target: dav(account, target, "carddav")),
    ("phones over ActiveSync", active_sync),
    ("settings found from the address", autodiscover),
    ("account pages", account_pages),
)


def step_problems(
    account: Account, target: Target, what: str, step: Callable[[Account, Target], None]
) -> list[Problem]:
    """Take one step; what goes wrong is a problem, never an exception."""
    subject = f"{account.reseller}: {what} at {account.host}"
    try:
        step(account, target)
    except (RefusedError, wbxml.WbxmlError, *TRANSPORT) as error:
        text = str(error) if isinstance(error, RefusedError) else f"{type(error).__name__}: {error}"
        return [Problem(subject, text.replace(account.password, "***"), "used as people's programs do", LOOK)]
    return []


def groupware_problems(accounts: list[Account], target: Target) -> list[Problem]:
    """All steps for every account, and the certificates of all its reseller's sites, at the same time."""
    jobs: list[Callable[[], list[Problem]]] = []
    for account in accounts:
        person = at(account, "webmail")
        jobs += [lambda p=person, w=what, s=step: step_problems(p, target, w, s) for what, step in STEPS]  # type: ignore[misc]
        sites = [at(account, site) for site in SITES]
        jobs += [lambda p=site: probe.certificate_problems(p, HTTPS, target) for site in sites]  # type: ignore[misc]
    with ThreadPoolExecutor(max_workers=8) as pool:
        results = list(pool.map(lambda job: job(), jobs))
    return sorted({problem for problems in results for problem in problems})
