# SPDX-License-Identifier: GPL-3.0-or-later
"""Set-up without typing: the requests that Outlook, phones, Thunderbird and Apple devices make, as they make them."""

from __future__ import annotations

import json
import plistlib
import socket
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import dns_client
from ansible_collections.bouwsteen.hosting.plugins.module_utils.web_client import Answer

EVA, KEES = "eva@degraaf.example", "kees@vandermeer.example"
ALIAS = "jan@bakkerijdegraaf.example"
SECOND = "verhuur@vdm-verhuur.example"
PEOPLE = [(EVA, "noorderict.example"), (ALIAS, "noorderict.example"), (KEES, "zuidwest.example")]
PEOPLE += [(SECOND, "zuidwest.example")]
RESOLVER = "10.213.0.1"
SCHEMA = "http://schemas.microsoft.com/exchange/autodiscover/"
OUTLOOK = f"""<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="{SCHEMA}outlook/requestschema/2006"><Request><EMailAddress>WHO</EMailAddress>\
<AcceptableResponseSchema>{SCHEMA}outlook/responseschema/2006a</AcceptableResponseSchema></Request></Autodiscover>"""
MOBILE = f"""<?xml version="1.0" encoding="UTF-8"?>
<Autodiscover xmlns="{SCHEMA}mobilesync/requestschema/2006">
  <Request>
    <EMailAddress>WHO</EMailAddress>
    <AcceptableResponseSchema>{SCHEMA}mobilesync/responseschema/2006</AcceptableResponseSchema>
  </Request>
</Autodiscover>"""
# As their programs write them: agent, type, and the path in their spelling.
OUTLOOK_2019 = {"User-Agent": "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.10730; Pro)"}
OUTLOOK_2019 |= {"Content-Type": "text/xml", "X-MapiHttpCapability": "1", "Depth": "0", "X-User-Identity": EVA}
IPHONE = {
    "User-Agent": "Apple-iPhone14C5/1906.79",
    "Content-Type": "text/xml; charset=utf-8",
    "Accept-Language": "nl-nl",
}
PATHS = ["/autodiscover/autodiscover.xml", "/Autodiscover/Autodiscover.xml", "/AutoDiscover/AutoDiscover.xml"]


def tree(answer: Answer) -> ElementTree.Element:
    assert answer.status == 200, answer
    assert "xml" in answer.header("Content-Type")
    return ElementTree.fromstring(answer.body)


def protocols(answer: Answer) -> dict[str, dict[str, str]]:
    """What Outlook reads: each protocol's settings."""
    space = f"{{{SCHEMA}outlook/responseschema/2006a}}"
    found = tree(answer).iter(f"{space}Protocol")
    settings = [{child.tag.removeprefix(space): child.text or "" for child in protocol} for protocol in found]
    return {item["Type"]: item for item in settings}


@pytest.mark.parametrize(("address", "domain"), PEOPLE)
@pytest.mark.parametrize("path", PATHS)
def test_outlook_finds_its_servers(groupware: Any, address: str, domain: str, path: str) -> None:
    with groupware.site(domain, "autodiscover") as web:
        found = protocols(web.ask("POST", path, OUTLOOK.replace("WHO", address), OUTLOOK_2019))
    for kind, port in (("IMAP", "993"), ("SMTP", "465")):
        assert found[kind]["Server"] == f"mail.{domain}"
        assert found[kind]["Port"] == port
        assert found[kind]["SSL"] == "on"
        assert found[kind]["LoginName"] == address


@pytest.mark.parametrize(("address", "domain"), PEOPLE)
@pytest.mark.parametrize("path", PATHS[:2])
def test_a_phone_finds_activesync(groupware: Any, address: str, domain: str, path: str) -> None:
    with groupware.site(domain, "autodiscover") as web:
        answer = web.ask("POST", path, MOBILE.replace("WHO", address), IPHONE)
    space = f"{{{SCHEMA}mobilesync/responseschema/2006}}"
    found = tree(answer)
    assert [item.text for item in found.iter(f"{space}Url")] == [
        f"https://webmail.{domain}/Microsoft-Server-ActiveSync"
    ]
    assert [item.text for item in found.iter(f"{space}Type")] == ["MobileSync"]
    assert [item.text for item in found.iter(f"{space}EMailAddress")] == [address]


def test_what_is_found_works(groupware: Any) -> None:
    """The address of ActiveSync leads to a server that knows the person; so do those of calendars and contacts."""
    assert groupware.phone(EVA).options().status == 200
    for kind in ("caldav", "carddav"):
        for method in ("GET", "PROPFIND", "OPTIONS"):
            answer = groupware.web(EVA).ask(method, f"/.well-known/{kind}")
            assert answer.status in {301, 302, 307, 308}, f"{method} {kind}: {answer}"
            assert answer.header("Location").removeprefix(f"https://{groupware.host(EVA)}") == "/SOGo/dav/"
        assert groupware.home(EVA, kind)


@pytest.mark.parametrize(("address", "domain"), PEOPLE)
def test_outlook_asks_in_its_newer_way(groupware: Any, address: str, domain: str) -> None:
    with groupware.site(domain, "autodiscover") as web:
        for path in (
            f"/autodiscover/autodiscover.json?Email={address}&Protocol=ActiveSync&RedirectCount=1",
            f"/autodiscover/autodiscover.json/v1.0/{address}?Protocol=ActiveSync",
            f"/Autodiscover/Autodiscover.json?email={address}&protocol=activesync",
        ):
            answer = web.ask("GET", path, headers={"User-Agent": "Outlook-iOS/2.0", "Accept": "application/json"})
            assert answer.status == 200, f"{path}: {answer}"
            assert answer.json == {
                "Protocol": "ActiveSync",
                "Url": f"https://webmail.{domain}/Microsoft-Server-ActiveSync",
            }
        answer = web.ask("GET", f"/autodiscover/autodiscover.json?Email={address}&Protocol=AutodiscoverV1")
        assert answer.json["Url"] == f"https://autodiscover.{domain}/autodiscover/autodiscover.xml"


def test_another_resellers_addresses_do_not_exist(groupware: Any) -> None:
    """The answer to a stranger's address is the one to an address that nobody has, in each of the ways to ask."""
    with groupware.site("noorderict.example", "autodiscover") as web:
        for body, headers in ((OUTLOOK, OUTLOOK_2019), (MOBILE, IPHONE)):
            answers = [
                web.ask("POST", PATHS[0], body.replace("WHO", who), headers)
                for who in (KEES, "niemand@bestaat-niet.example")
            ]
            assert "zuidwest" not in answers[0].text
            texts = [answer.text.replace(KEES, "") for answer in answers]
            cut = [text.partition("Time=")[0] + text.partition("Id=")[2] for text in texts]
            assert cut[0] == cut[1]
            assert answers[0].status == answers[1].status
        for path in ("/autodiscover/autodiscover.json?Protocol=ActiveSync&Email=WHO",):
            answers = [web.ask("GET", path.replace("WHO", who)) for who in (KEES, "niemand@bestaat-niet.example")]
            assert (answers[0].status, answers[0].text) == (answers[1].status, answers[1].text)
    with groupware.site("noorderict.example", "autoconfig") as web:
        answers = [
            web.ask("GET", f"/mail/config-v1.1.xml?emailaddress={who}") for who in (KEES, "x@bestaat-niet.example")
        ]
        assert (answers[0].status, answers[0].text) == (answers[1].status, answers[1].text)
        assert answers[0].status == 404


def test_who_exists_cannot_be_found_out(groupware: Any) -> None:
    """Somebody of the house and nobody of the house are told the same."""
    nobody = "niemand@degraaf.example"
    with groupware.site("noorderict.example", "autodiscover") as web:
        for body, headers in ((OUTLOOK, OUTLOOK_2019), (MOBILE, IPHONE)):
            answers = [web.ask("POST", PATHS[0], body.replace("WHO", who), headers) for who in (EVA, nobody)]
            assert answers[0].text.replace(EVA, nobody) == answers[1].text


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<",
        "<Autodiscover/>",
        '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + OUTLOOK.partition("?>")[2].replace("WHO", "&e;"),
        "<a>" * 5000,
        OUTLOOK.replace("WHO", "eva@degraaf.example'; DROP TABLE users; --"),
        OUTLOOK.replace("WHO", "x" * 50_000),
    ],
    ids=["nothing", "half", "empty", "entity", "deep", "question", "long"],
)
def test_what_is_no_request_gets_a_clear_answer(groupware: Any, body: str) -> None:
    with groupware.site("noorderict.example", "autodiscover") as web:
        answer = web.ask("POST", PATHS[0], body, OUTLOOK_2019)
    assert answer.status in {200, 400, 413}, answer
    assert "root:" not in answer.text
    assert "mail.noorderict.example" not in answer.text
    if answer.status == 200:
        assert "<ErrorCode>" in answer.text or "<Status>2</Status>" in answer.text


@pytest.mark.parametrize(("address", "domain"), PEOPLE)
@pytest.mark.parametrize("path", ["/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml"])
def test_thunderbird_finds_its_servers(groupware: Any, address: str, domain: str, path: str) -> None:
    with groupware.site(domain, "autoconfig") as web:
        found = tree(web.ask("GET", f"{path}?emailaddress={address}", headers={"User-Agent": "Thunderbird/140.0"}))
    incoming, outgoing = found.find(".//incomingServer"), found.find(".//outgoingServer")
    assert incoming is not None
    assert outgoing is not None
    for server, port in ((incoming, "993"), (outgoing, "465")):
        assert server.findtext("hostname") == f"mail.{domain}"
        assert server.findtext("port") == port
        assert server.findtext("socketType") == "SSL"
        assert server.findtext("username") == "%EMAILADDRESS%"


# ------------------------------------------------------------------------------------- customers' own names, port 80


def plainly(machine: Any, host: str, request: str, body: str = "") -> str:
    """A request on port 80, as it goes over the line; the answer, head and body."""
    with socket.create_connection((machine.address, 80), 20) as sock:
        head = f"{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        sock.sendall(f"{head}Content-Type: text/xml\r\n\r\n{body}".encode())
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts).decode()


@pytest.mark.parametrize(("address", "domain"), PEOPLE)
def test_a_customers_own_name_leads_to_his_reseller(machine: Any, address: str, domain: str) -> None:
    own = address.rpartition("@")[2]
    for request in (f"GET {PATHS[0]}", f"GET {PATHS[1]}", f"POST {PATHS[0]}"):
        answer = plainly(machine, f"autodiscover.{own}", request, OUTLOOK.replace("WHO", address))
        assert answer.split(" ")[1] == "302", answer
        assert f"ocation: https://autodiscover.{domain}/autodiscover/autodiscover.xml" in answer
    answer = plainly(machine, f"autoconfig.{own}", f"GET /mail/config-v1.1.xml?emailaddress={address}")
    assert answer.split(" ")[1] == "200", answer
    assert f"<hostname>mail.{domain}</hostname>" in answer


def test_a_name_of_nobodys_is_told_nothing(machine: Any) -> None:
    for host in ("autodiscover.bestaat-niet.example", "autoconfig.bestaat-niet.example", "bestaat-niet.example"):
        answer = plainly(machine, host, f"GET {PATHS[0]}")
        assert "noorderict" not in answer
        assert not answer or answer.split(" ")[1] in {"404", "400"}, answer


# ------------------------------------------------------------------------------------------------ Apple's devices


@pytest.mark.parametrize(("address", "domain"), [(EVA, "noorderict.example"), (KEES, "zuidwest.example")])
@pytest.mark.parametrize("kind", ["dav", "activesync"])
def test_an_apple_device_takes_a_signed_profile(
    groupware: Any, tmp_path: Path, address: str, domain: str, kind: str
) -> None:
    with groupware.site(domain, "account") as web:
        answer = web.ask("GET", f"/setup/{kind}.mobileconfig?address={address}", headers={"User-Agent": "profiled/1.0"})
    assert answer.status == 200, answer
    assert answer.header("Content-Type").startswith("application/x-apple-aspen-config")
    signed, chain, plain = tmp_path / "profile", tmp_path / "signers.pem", tmp_path / "plain"
    signed.write_bytes(answer.body)
    words = ["openssl", "smime", "-verify", "-inform", "DER", "-in", str(signed), "-signer", str(chain)]
    words += ["-CAfile", str(groupware.target.ca_file), "-purpose", "any", "-out", str(plain)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"no device would trust it: {done.stderr}"
    words = ["openssl", "x509", "-in", str(chain), "-noout", "-ext", "subjectAltName"]
    assert f"DNS:webmail.{domain}" in subprocess.run(words, capture_output=True, text=True, check=True).stdout
    profile = plistlib.loads(plain.read_bytes())
    text = json.dumps(profile, default=str)
    assert f"webmail.{domain}" in text
    assert address in text
    secrets = {"Password", "IncomingPassword", "OutgoingPassword", "CalDAVPassword", "CardDAVPassword"}
    assert not [payload for payload in profile["PayloadContent"] if secrets & set(payload)], "a password in it"
    kinds = {payload["PayloadType"] for payload in profile["PayloadContent"]}
    wanted = {"com.apple.mail.managed", "com.apple.caldav.account", "com.apple.carddav.account"}
    assert kinds == (wanted if kind == "dav" else {"com.apple.eas.account"})


def test_no_profile_for_another_resellers_people(groupware: Any) -> None:
    with groupware.site("noorderict.example", "account") as web:
        answers = [web.ask("GET", f"/setup/dav.mobileconfig?address={who}") for who in (KEES, "x@bestaat-niet.example")]
    assert answers[0].status in {400, 404}
    assert answers[0].status == answers[1].status
    assert answers[0].text.replace(KEES, "") == answers[1].text.replace("x@bestaat-niet.example", "")


# ------------------------------------------------------------------------------------------------------------- DNS


@pytest.mark.parametrize(("address", "domain"), PEOPLE)
def test_dns_leads_programs_from_the_address(machine: Any, address: str, domain: str) -> None:
    own = f"{address.rpartition('@')[2]}."
    names = [(f"{name}._tcp.{own}", "SRV") for name in ("_autodiscover", "_caldavs", "_carddavs")]
    names += [(f"_caldavs._tcp.{own}", "TXT"), (f"_carddavs._tcp.{own}", "TXT")]
    names += [(f"{name}.{own}", "CNAME") for name in ("autodiscover", "autoconfig")]
    names += [(f"{name}.{domain}.", "A") for name in ("webmail", "account", "autodiscover", "autoconfig")]
    found = dns_client.look_up(RESOLVER, names)
    answers = {f"{name} {kind}": list(values) for (name, kind), values in found.items()}
    assert answers[f"_autodiscover._tcp.{own} SRV"] == [f"0 1 443 autodiscover.{domain}."]
    for name in ("_caldavs", "_carddavs"):
        assert answers[f"{name}._tcp.{own} SRV"] == [f"0 1 443 webmail.{domain}."]
        assert answers[f"{name}._tcp.{own} TXT"] == ['"path=/SOGo/dav/"']
    for name in ("autodiscover", "autoconfig"):
        assert answers[f"{name}.{own} CNAME"] == [f"{name}.{domain}."]
    for name in ("webmail", "account", "autodiscover", "autoconfig"):
        assert answers[f"{name}.{domain}. A"] == [machine.address]
