# SPDX-License-Identifier: GPL-3.0-or-later
"""Set-up without typing: autodiscover for Outlook and ActiveSync, autoconfig for Thunderbird and others.

Answers depend on the domain of an address alone, so nobody can find out who exists. On a reseller's own names only the
domains of his customers exist. On port 80, where customers' own names arrive, the domain is that of the name.

[MS-OXDSCLI] (Outlook), [MS-ASCMD] 2.2.3 (ActiveSync), autodiscover v2 in JSON as Outlook asks for it, and
https://www.bucksch.org/1/projects/thunderbird/autoconfiguration/ (autoconfig).
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from xml.etree import ElementTree
from xml.parsers import expat
from xml.sax.saxutils import escape

from flask import Blueprint, Response, redirect, request

from portal.directory import Reseller
from portal.web import portal, reseller_name

discover = Blueprint("discover", __name__)

LARGEST = 64 * 1024
DEEPEST = 20
REQUEST = "http://schemas.microsoft.com/exchange/autodiscover/"
OUTLOOK_ANSWER = REQUEST + "outlook/responseschema/2006a"
MOBILE_ANSWER = REQUEST + "mobilesync/responseschema/2006"
ANSWER = REQUEST + "responseschema/2006"
_DECLARATION = '<?xml version="1.0" encoding="utf-8"?>\n'
_ADDRESS = re.compile(r"[^\s@<>\"'&\\]{1,64}@[A-Za-z0-9.-]{1,253}")
# Mail programs fill in the address themselves.
_PLACEHOLDER = "%EMAILADDRESS%"


class RequestError(Exception):
    """A request that is no autodiscover."""


class _Reader:
    """Reads a small document. No document type is admitted, so there are no entities to expand and nothing to fetch."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.open: list[str] = []
        self.root = ""

    def read(self, data: bytes) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = lambda _: self.open.pop() and None
        parser.CharacterDataHandler = self._text
        try:
            parser.Parse(data, True)
        except (expat.ExpatError, LookupError, ValueError) as error:
            raise RequestError from error

    @staticmethod
    def _refuse(*_: object) -> None:
        raise RequestError

    def _start(self, name: str, _: object) -> None:
        local = name.rpartition(" ")[2]
        self.root = self.root or local
        self.open.append(local)
        if len(self.open) > DEEPEST:
            raise RequestError

    def _text(self, text: str) -> None:
        self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + text


def wanted(data: bytes) -> tuple[str, str]:
    """The address and the schema of the answer that a request asks for. Raises `RequestError`."""
    reader = _Reader()
    reader.read(data)
    address = reader.texts.get("EMailAddress", "").strip()
    if reader.root != "Autodiscover" or not address:
        raise RequestError
    return address, reader.texts.get("AcceptableResponseSchema", "").strip()


def own_domain(address: str) -> Reseller | None:
    """The reseller of an address's domain, if it is one of the site that was asked."""
    if len(address) > 320 or not _ADDRESS.fullmatch(address):
        return None
    found = portal().directory.domain(address.rpartition("@")[2].lower())
    return found if found and found.name == reseller_name() else None


# ------------------------------------------------------------------------------------------------ autodiscover, XML


@discover.post("/autodiscover/autodiscover.xml")
def autodiscover() -> Response:
    """Outlook and ActiveSync ask with an address; nobody has to be logged in for settings that everybody may know."""
    if (request.content_length or 0) > LARGEST:
        return Response(status=413)
    try:
        address, schema = wanted(request.get_data(cache=False))
    except RequestError:
        return _xml(_error(600, "Invalid Request"))
    reseller = own_domain(address)
    if schema == MOBILE_ANSWER:
        if not portal().settings.activesync:
            return _xml(_error(601, "Provider is not available"))
        return _xml(_mobile(address, reseller) if reseller else _mobile_error())
    if schema == OUTLOOK_ANSWER:
        return _xml(_outlook(address, reseller) if reseller else _error(500, "The email address can't be found."))
    return _xml(_error(601, "Provider is not available"))


@discover.get("/autodiscover/autodiscover.xml")
def autodiscover_get() -> Response:
    """Programs look with GET whether there is something; what is there takes POST."""
    return _xml(_error(600, "Invalid Request"))


def _outlook(address: str, reseller: Reseller) -> str:
    server = f"mail.{reseller.domain}"

    def protocol(kind: str, port: int, more: str = "") -> str:
        return (
            f"<Protocol><Type>{kind}</Type><Server>{escape(server)}</Server><Port>{port}</Port>"
            f"<DomainRequired>off</DomainRequired><LoginName>{escape(address)}</LoginName><SPA>off</SPA>"
            f"<SSL>on</SSL><Encryption>SSL</Encryption><AuthRequired>on</AuthRequired>{more}</Protocol>"
        )

    return (
        f'<Autodiscover xmlns="{ANSWER}"><Response xmlns="{OUTLOOK_ANSWER}">'
        f"<User><DisplayName>{escape(address)}</DisplayName></User>"
        f"<Account><AccountType>email</AccountType><Action>settings</Action>"
        + protocol("IMAP", 993)
        + protocol("SMTP", 465, "<UsePOPAuth>on</UsePOPAuth><SMTPLast>off</SMTPLast>")
        + "</Account></Response></Autodiscover>"
    )


def activesync_url(reseller: Reseller) -> str:
    """Where telephones find ActiveSync."""
    return f"https://webmail.{reseller.domain}/Microsoft-Server-ActiveSync"


def _mobile(address: str, reseller: Reseller) -> str:
    url = escape(activesync_url(reseller))
    return (
        f'<Autodiscover xmlns="{ANSWER}"><Response xmlns="{MOBILE_ANSWER}"><Culture>en:en</Culture>'
        f"<User><DisplayName>{escape(address)}</DisplayName><EMailAddress>{escape(address)}</EMailAddress></User>"
        f"<Action><Settings><Server><Type>MobileSync</Type><Url>{url}</Url><Name>{url}</Name></Server></Settings></Action>"
        "</Response></Autodiscover>"
    )


def _mobile_error() -> str:
    return (
        f'<Autodiscover xmlns="{ANSWER}"><Response xmlns="{MOBILE_ANSWER}"><Culture>en:en</Culture>'
        "<Action><Error><Status>2</Status><Message>The email address can't be found.</Message><DebugData/></Error>"
        "</Action></Response></Autodiscover>"
    )


def _error(code: int, message: str) -> str:
    now = datetime.datetime.now(datetime.UTC)
    number = int.from_bytes(hashlib.sha256(message.encode()).digest()[:4])
    return (
        f'<Autodiscover xmlns="{ANSWER}"><Response>'
        f'<Error Time="{now:%H:%M:%S}.{now.microsecond:06d}" Id="{number}"><ErrorCode>{code}</ErrorCode>'
        f"<Message>{escape(message)}</Message><DebugData/></Error></Response></Autodiscover>"
    )


def _xml(text: str, kind: str = "text/xml; charset=utf-8") -> Response:
    ElementTree.fromstring(text)  # noqa: S314 - our own text: what goes out is well-formed, or an error here
    return Response(_DECLARATION + text + "\n", content_type=kind)


# ----------------------------------------------------------------------------------------------- autodiscover, JSON


@discover.get("/autodiscover/autodiscover.json")
@discover.get("/autodiscover/autodiscover.json/v1.0/<path:address>")
def autodiscover_json(address: str = "") -> Response:
    """Version 2: one protocol, one URL."""
    values = {key.lower(): value for key, value in request.args.items()}
    address = address or values.get("email", "")
    protocol = values.get("protocol", "")
    allowed = ["ActiveSync", "AutodiscoverV1"] if portal().settings.activesync else ["AutodiscoverV1"]
    if not protocol:
        return _json(
            400, "MandatoryParameterMissing", "A valid value must be provided for the query parameter 'Protocol'"
        )
    known = next((name for name in allowed if name.lower() == protocol.lower()), None)
    if known is None:
        plain = re.sub(r"[^A-Za-z0-9]", "", protocol)[:40]
        supported = ",".join(allowed)
        message = f"The given protocol value '{plain}' is invalid. Supported values are '{supported}'"
        return _json(400, "InvalidProtocol", message)
    if not address:
        return _json(400, "MandatoryParameterMissing", "A valid smtp address must be provided")
    reseller = own_domain(address)
    if reseller is None:
        return _json(404, "UserNotFound", "The given user is not found")
    url = activesync_url(reseller)
    if known == "AutodiscoverV1":
        url = f"https://autodiscover.{reseller.domain}/autodiscover/autodiscover.xml"
    return _answer(200, {"Protocol": known, "Url": url})


def _json(status: int, code: str, message: str) -> Response:
    return _answer(status, {"ErrorCode": code, "ErrorMessage": message})


def _answer(status: int, values: dict[str, str]) -> Response:
    return Response(json.dumps(values) + "\n", status, content_type="application/json; charset=utf-8")


# ------------------------------------------------------------------------------------------------------ autoconfig


@discover.get("/mail/config-v1.1.xml")
@discover.get("/.well-known/autoconfig/mail/config-v1.1.xml")
def autoconfig() -> Response:
    """Thunderbird and others. The address's domain if they tell it, else the one of the name that they asked."""
    address = request.args.get("emailaddress", "").strip()
    if reseller_name():
        reseller, domain = own_domain(address), address.rpartition("@")[2].lower()
    else:
        domain = _asked_domain("autoconfig.")
        reseller = portal().directory.domain(domain) if domain else None
        if address and address.rpartition("@")[2].lower() != domain:
            reseller = None
    if reseller is None:
        return Response("not found\n", 404, content_type="text/plain")
    return _xml(configuration(domain, reseller), "application/xml; charset=utf-8")


def configuration(domain: str, reseller: Reseller) -> str:
    """The document of autoconfig for a domain."""
    title, server = escape(reseller.title), f"mail.{reseller.domain}"
    webmail = f"https://webmail.{reseller.domain}/"

    def end(kind: str, direction: str, port: int) -> str:
        return (
            f'<{direction}Server type="{kind}"><hostname>{server}</hostname><port>{port}</port>'
            f"<socketType>SSL</socketType><authentication>password-cleartext</authentication>"
            f"<username>{_PLACEHOLDER}</username></{direction}Server>"
        )

    def dav(element: str, kind: str) -> str:
        return (
            f'<{element} type="{kind}"><serverURL>{webmail}SOGo/dav/</serverURL>'
            f"<authentication>http-basic</authentication><username>{_PLACEHOLDER}</username></{element}>"
        )

    return (
        f'<clientConfig version="1.1"><emailProvider id="{escape(domain)}"><domain>{escape(domain)}</domain>'
        f"<displayName>{title}</displayName><displayShortName>{title}</displayShortName>"
        + end("imap", "incoming", 993)
        + end("smtp", "outgoing", 465)
        + f'<documentation url="https://account.{reseller.domain}/setup">'
        + '<descr lang="nl">Uw apparaat instellen</descr><descr lang="en">Set up your device</descr></documentation>'
        + "</emailProvider>"
        + dav("addressBook", "carddav")
        + dav("calendar", "caldav")
        + f'<webMail><loginPage url="{webmail}"/></webMail></clientConfig>'
    )


# ---------------------------------------------------------------------------------------------------------- port 80


def _asked_domain(label: str) -> str:
    """The domain below which a name of its own was asked for: autodiscover.degraaf.example -> degraaf.example."""
    host = request.host.partition(":")[0].lower().rstrip(".")
    return host.removeprefix(label) if host.startswith(label) else ""


@discover.route("/discovery/http/", defaults={"path": ""}, methods=["GET", "POST", "OPTIONS"])
@discover.route("/discovery/http/<path:path>", methods=["GET", "POST", "OPTIONS"])
def plain_http(path: str) -> Response:
    """What arrives on port 80 at names of customers' own: Outlook is led to the reseller's name, where its certificate
    is; a settings file is given at once, as nothing in it is secret."""
    wanted_path = "/" + path.lower()
    if wanted_path in {"/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml"}:
        return autoconfig()
    domain = _asked_domain("autodiscover.")
    reseller = portal().directory.domain(domain) if domain else None
    if reseller is None or not re.fullmatch(r"/autodiscover/autodiscover\.(xml|json(/.*)?)", wanted_path):
        return Response("not found\n", 404, content_type="text/plain")
    target = f"https://autodiscover.{reseller.domain}/autodiscover/autodiscover.xml"
    if ".json" in wanted_path:
        query = request.query_string.decode("ascii", "ignore")
        target = f"https://autodiscover.{reseller.domain}{wanted_path}" + (f"?{query}" if query else "")
        target = re.sub(r"[^!-~]", "", target)
    return redirect(target, 302)  # type: ignore[return-value]
