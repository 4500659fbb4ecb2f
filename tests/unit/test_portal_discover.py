# SPDX-License-Identifier: GPL-3.0-or-later
"""Set-up without typing, asked as programs ask: Outlook, ActiveSync, autodiscover v2, Thunderbird, names on port 80."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest

PREFIX = "http://schemas.microsoft.com/exchange/autodiscover/"
OUTLOOK, MOBILE = PREFIX + "outlook/responseschema/2006a", PREFIX + "mobilesync/responseschema/2006"
LOGIN, OTHER = "jan@degraaf.example", "kees@smid.example"


def body(address: str, schema: str) -> str:
    kind = "mobilesync" if "mobilesync" in schema else "outlook"
    return (
        '<?xml version="1.0" encoding="utf-8"?>\r\n'
        f'<Autodiscover xmlns="{PREFIX}{kind}/requestschema/2006"><Request><EMailAddress>{address}</EMailAddress>'
        f"<AcceptableResponseSchema>{schema}</AcceptableResponseSchema></Request></Autodiscover>"
    )


def post(
    site: Any, data: str | bytes, reseller: str = "noorderict", path: str = "/autodiscover/autodiscover.xml"
) -> Any:
    return site.open(path, reseller, "POST", data=data, content_type="text/xml")


def parsed(answer: Any) -> ElementTree.Element:
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/xml")
    return ElementTree.fromstring(answer.data)


@pytest.mark.parametrize(
    "path",
    [
        "/autodiscover/autodiscover.xml",
        "/Autodiscover/Autodiscover.xml",
        "/AutoDiscover/AutoDiscover.xml",
        "/AUTODISCOVER/AUTODISCOVER.XML",
    ],
)
def test_outlook_gets_imap_and_smtp(portal_site: Any, path: str) -> None:
    tree = parsed(post(portal_site, body(LOGIN, OUTLOOK), path=path))
    name = {"a": OUTLOOK}
    assert tree.tag == f"{{{PREFIX}responseschema/2006}}Autodiscover"
    assert tree.findtext(".//a:AccountType", namespaces=name) == "email"
    found = [
        {child.tag.rpartition("}")[2]: child.text for child in protocol}
        for protocol in tree.iterfind(".//a:Protocol", name)
    ]
    common = {"Server": "mail.noorderict.example", "LoginName": LOGIN, "SSL": "on", "SPA": "off", "AuthRequired": "on"}
    assert [one["Type"] + one["Port"] for one in found] == ["IMAP993", "SMTP465"]
    assert all(common.items() <= one.items() for one in found)


def test_phones_get_activesync(portal_site: Any) -> None:
    tree = parsed(post(portal_site, body(LOGIN, MOBILE)))
    name = {"m": MOBILE}
    assert tree.findtext(".//m:Server/m:Type", namespaces=name) == "MobileSync"
    url = tree.findtext(".//m:Server/m:Url", namespaces=name)
    assert url == "https://webmail.noorderict.example/Microsoft-Server-ActiveSync"
    assert tree.findtext(".//m:User/m:EMailAddress", namespaces=name) == LOGIN


@pytest.mark.parametrize("schema", [OUTLOOK, MOBILE])
def test_it_does_not_say_who_there_is(portal_site: Any, schema: str) -> None:
    """Somebody who is not there gets the very answer of somebody who is."""
    there, not_there = (
        post(portal_site, body(address, schema)).data.replace(address.encode(), b"X")
        for address in (LOGIN, "niemand@degraaf.example")
    )
    assert there == not_there
    portal_site.accounts.execute("UPDATE directory.users SET state = 'suspended', suspended_because = 'file'")
    assert post(portal_site, body(LOGIN, schema)).data.replace(LOGIN.encode(), b"X") == there


def plain(answer: Any) -> bytes:
    return re.sub(rb'Time="[^"]*"', b"", answer.data)


@pytest.mark.parametrize("schema", [OUTLOOK, MOBILE])
def test_another_resellers_domain_is_as_unknown_as_any(portal_site: Any, schema: str) -> None:
    unknown = plain(post(portal_site, body("jan@elders.example", schema)))
    assert b"address can't be found" in unknown
    assert plain(post(portal_site, body(OTHER, schema))) == unknown
    assert plain(post(portal_site, body(LOGIN, schema), "zuidwest")) == unknown
    assert plain(post(portal_site, body(LOGIN, schema), "")) == unknown


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"geen xml",
        b"<Autodiscover/>",
        b"<Other><EMailAddress>jan@degraaf.example</EMailAddress></Other>",
        body("", OUTLOOK).encode(),
        ('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + body("&e;", OUTLOOK).split("\r\n")[1]).encode(),
        ('<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + body("&b;", OUTLOOK).split("\r\n")[1]).encode(),
        b'<!DOCTYPE x SYSTEM "http://elders.example/x.dtd"><Autodiscover/>',
        b'<?xml version="1.0" encoding="onbekend"?><Autodiscover/>',
        b"<a>" * 1000,
        b"\xff\xfe\x00",
    ],
    ids=lambda data: data[:40],
)
def test_what_is_no_request_is_told_so(portal_site: Any, data: bytes) -> None:
    tree = parsed(post(portal_site, data))
    assert tree.find(".//{*}ErrorCode").text == "600"  # type: ignore[union-attr]
    assert tree.find(".//{*}Message").text == "Invalid Request"  # type: ignore[union-attr]
    assert b"root:" not in post(portal_site, data).data


def test_another_schema_is_told_so(portal_site: Any) -> None:
    tree = parsed(post(portal_site, body(LOGIN, "http://elders.example/schema")))
    assert tree.find(".//{*}ErrorCode").text == "601"  # type: ignore[union-attr]


def test_five_megabytes_are_refused(portal_site: Any) -> None:
    assert post(portal_site, b"<Autodiscover>" + b"x" * 5_000_000).status_code == 413


@pytest.mark.parametrize(
    "address",
    [
        'jan"><x@degraaf.example',
        "jan&lt;script&gt;@degraaf.example",
        "a@b@degraaf.example",
        "x" * 400 + "@degraaf.example",
    ],
)
def test_hostile_addresses_do_not_come_back(portal_site: Any, address: str) -> None:
    answer = post(portal_site, body(address, OUTLOOK))
    assert answer.status_code == 200
    assert b"script" not in answer.data
    assert b"IMAP" not in answer.data


# ------------------------------------------------------------------------------------------------------- version 2


@pytest.mark.parametrize(
    ("path", "status", "answer"),
    [
        (f"/autodiscover/autodiscover.json?Email={LOGIN}&Protocol=ActiveSync&RedirectCount=1", 200,
         {"Protocol": "ActiveSync", "Url": "https://webmail.noorderict.example/Microsoft-Server-ActiveSync"}),
        (f"/Autodiscover/AutoDiscover.json/v1.0/{LOGIN}?Protocol=activesync", 200,
         {"Protocol": "ActiveSync", "Url": "https://webmail.noorderict.example/Microsoft-Server-ActiveSync"}),
        (f"/autodiscover/autodiscover.json?Email={LOGIN}&Protocol=AutodiscoverV1", 200,
         {"Protocol": "AutodiscoverV1", "Url": "https://autodiscover.noorderict.example/autodiscover/autodiscover.xml"}),
        (f"/autodiscover/autodiscover.json?Email={LOGIN}&Protocol=EWS", 400,
         {"ErrorCode": "InvalidProtocol", "ErrorMessage": "The given protocol value 'EWS' is invalid. "
          "Supported values are 'ActiveSync,AutodiscoverV1'"}),
        (f"/autodiscover/autodiscover.json?Email={LOGIN}", 400,
         {"ErrorCode": "MandatoryParameterMissing",
          "ErrorMessage": "A valid value must be provided for the query parameter 'Protocol'"}),
        ("/autodiscover/autodiscover.json?Protocol=ActiveSync", 400,
         {"ErrorCode": "MandatoryParameterMissing", "ErrorMessage": "A valid smtp address must be provided"}),
        (f"/autodiscover/autodiscover.json?Email={OTHER}&Protocol=ActiveSync", 404,
         {"ErrorCode": "UserNotFound", "ErrorMessage": "The given user is not found"}),
        ("/autodiscover/autodiscover.json?Email=jan@elders.example&Protocol=ActiveSync", 404,
         {"ErrorCode": "UserNotFound", "ErrorMessage": "The given user is not found"}),
    ],
)  # fmt: skip
def test_version_2(portal_site: Any, path: str, status: int, answer: dict[str, str]) -> None:
    found = portal_site.open(path)
    assert found.status_code == status
    assert found.content_type.startswith("application/json")
    assert json.loads(found.data) == answer


def test_without_activesync_nobody_is_sent_there(portal_site: Any) -> None:
    client = portal_site.make(activesync=False)
    found = portal_site.open(f"/autodiscover/autodiscover.json?Email={LOGIN}&Protocol=ActiveSync", client=client)
    assert found.status_code == 400
    answer = portal_site.open("/autodiscover/autodiscover.xml", method="POST", data=body(LOGIN, MOBILE), client=client)
    assert b"<ErrorCode>601" in answer.data


# ------------------------------------------------------------------------------------------------------ autoconfig


@pytest.mark.parametrize("path", ["/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml"])
def test_thunderbird(portal_site: Any, path: str) -> None:
    answer = portal_site.open(f"{path}?emailaddress={LOGIN}")
    assert answer.status_code == 200
    assert answer.content_type.startswith("application/xml")
    tree = ElementTree.fromstring(answer.data)
    assert tree.find("emailProvider").attrib == {"id": "degraaf.example"}  # type: ignore[union-attr]
    assert tree.findtext("emailProvider/displayName") == "Noorder <ICT> & Zn"
    for kind, port in (("incoming", "993"), ("outgoing", "465")):
        server = tree.find(f"emailProvider/{kind}Server")
        assert server is not None
        assert {child.tag: child.text for child in server} == {
            "hostname": "mail.noorderict.example", "port": port, "socketType": "SSL",
            "authentication": "password-cleartext", "username": "%EMAILADDRESS%",
        }  # fmt: skip
    assert tree.findtext("calendar/serverURL") == "https://webmail.noorderict.example/SOGo/dav/"
    # Nobody's existence shows.
    assert portal_site.open(f"{path}?emailaddress=niemand@degraaf.example").data == answer.data


@pytest.mark.parametrize("address", ["", OTHER, "jan@elders.example", "x"])
def test_what_is_not_this_resellers_is_not_there(portal_site: Any, address: str) -> None:
    assert portal_site.open(f"/mail/config-v1.1.xml?emailaddress={address}").status_code == 404


# --------------------------------------------------------------------------------------------------------- port 80


def plain_http(site: Any, host: str, path: str, method: str = "GET") -> Any:
    return site.open("/discovery/http" + path, "", method, headers={"Host": host})


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("host", ["autodiscover.degraaf.example", "AutoDiscover.DeGraaf.example:80"])
def test_a_customers_own_name_leads_to_his_reseller(portal_site: Any, host: str, method: str) -> None:
    answer = plain_http(portal_site, host, "/Autodiscover/Autodiscover.xml", method)
    assert answer.status_code == 302
    assert answer.headers["Location"] == "https://autodiscover.noorderict.example/autodiscover/autodiscover.xml"


def test_version_2_keeps_its_question(portal_site: Any) -> None:
    answer = plain_http(
        portal_site, "autodiscover.smid.example", f"/autodiscover/autodiscover.json?Email={OTHER}&Protocol=ActiveSync"
    )
    assert answer.headers["Location"] == (
        f"https://autodiscover.zuidwest.example/autodiscover/autodiscover.json?Email={OTHER}&Protocol=ActiveSync"
    )


def test_autoconfig_of_a_customers_own_name(portal_site: Any) -> None:
    answer = plain_http(portal_site, "autoconfig.smid.example", f"/mail/config-v1.1.xml?emailaddress={OTHER}")
    assert answer.status_code == 200
    assert b"mail.zuidwest.example" in answer.data
    assert plain_http(portal_site, "autoconfig.smid.example", "/mail/config-v1.1.xml").data == answer.data
    other = plain_http(portal_site, "autoconfig.smid.example", f"/mail/config-v1.1.xml?emailaddress={LOGIN}")
    assert other.status_code == 404


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("autodiscover.elders.example", "/autodiscover/autodiscover.xml"),
        ("autodiscover.", "/autodiscover/autodiscover.xml"),
        ("degraaf.example", "/autodiscover/autodiscover.xml"),
        ("autodiscover.degraaf.example", "/"),
        ("autodiscover.degraaf.example", "/autodiscover/autodiscover.json%0d%0aX-Kwaad:1"),
        ("autodiscover.degraaf.example", "/password/x"),
        ("autoconfig.elders.example", "/mail/config-v1.1.xml"),
    ],
)
def test_anything_else_on_port_80_is_not_there(portal_site: Any, host: str, path: str) -> None:
    answer = plain_http(portal_site, host, path)
    assert answer.status_code == 404
    assert "X-Kwaad" not in answer.headers
