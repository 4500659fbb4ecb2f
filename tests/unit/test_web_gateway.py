# SPDX-License-Identifier: GPL-3.0-or-later
"""Role web_gateway: what it refuses, and that no reseller's name or brand can say more than it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.dom import minidom

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.bouwsteen.hosting.plugins.filter.web_gateway import FilterModule
from ansible_collections.bouwsteen.hosting.plugins.module_utils import placement, web_gateway
from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROLE = Path(__file__).resolve().parents[2] / "roles" / "web_gateway"
FILTERS = FilterModule().filters()
SPEC = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
HOSTILE = [
    'a"; } server { listen 80; } #',
    "a'b;c$d${e}f{g}h",
    "</title><script>alert(1)</script>",
    "$request_uri $http_cookie",
    "\\",
    "a\nb\r\nSet-Cookie: c",
    "{# {% raw %} #}",
    "Ünï–cødé ☃ 漢字",
    "&quot;&#34;",
]


def reseller(**changes: Any) -> dict[str, Any]:
    return {"name": "noord", "domain": "noord.example", "title": "Noorder ICT", "brand": {}} | changes


def refusals(**changes: Any) -> list[str]:
    values = DEFAULTS | changes
    found: list[str] = FILTERS["web_gateway_refusals"](values, values, SPEC)
    return found


def rendered(one: dict[str, Any]) -> str:
    """A reseller's file of nginx."""
    environment = Environment(loader=FileSystemLoader(ROLE / "templates"), undefined=StrictUndefined, trim_blocks=True)
    environment.filters["regex_escape"] = re.escape
    environment.filters |= {f"bouwsteen.hosting.{name}": what for name, what in FILTERS.items()}
    template = environment.get_template("etc/nginx/bouwsteen/reseller.conf.j2")
    return template.render(DEFAULTS | {"reseller": one, "__web_gateway_faces": "/var/lib/bouwsteen/brand"})


def words(text: str) -> list[str]:
    """nginx's tokens: quoted strings as one, and the marks that structure a file."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return re.findall(r'"(?:[^"\\]|\\.)*"|[{};]|[^\s{};"]+', "\n".join(lines))


def test_the_sites_are_those_of_the_certificates() -> None:
    assert list(placement.SITES) == DEFAULTS["web_gateway_sites"]


def test_what_is_meant_is_not_refused() -> None:
    assert refusals() == []
    assert refusals(web_gateway_resellers=[reseller(), reseller(name="zuid", domain="zuid.example")]) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"web_gateway_burst": 1},
            "role web_gateway does not know web_gateway_burst; its variables are listed in roles/web_gateway/README.md",
        ),
        ({"web_gateway_log_days": 0}, "web_gateway_log_days: 0 is below 1"),
        (
            {"web_gateway_resellers": [reseller(), reseller(domain="zuid.example")]},
            "web_gateway_resellers: name noord is there twice",
        ),
        (
            {"web_gateway_resellers": [reseller(), reseller(name="zuid")]},
            "web_gateway_resellers: domain noord.example is there twice",
        ),
        (
            {"web_gateway_sites": ["account", "webmail"]},
            "web_gateway_sites: the first is webmail, whose name the certificate has",
        ),
        ({"web_gateway_sites": ["webmail", "mail"]}, "web_gateway_sites: mail is no name for a site"),
        ({"web_gateway_sites": ["webmail", "a b"]}, "web_gateway_sites: a b is no name for a site"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], expected: str) -> None:
    assert refusals(**changes) == [expected]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "../x"}, "../x is no name; allowed: 1 to 63 lower-case letters"),
        (
            {"domain": "noord.example; include /etc/shadow"},
            "noord.example; include /etc/shadow is no domain; allowed: ",
        ),
        ({"domain": "Noord.example"}, "Noord.example is not in its normal form; allowed: lower case"),
        ({"title": 'a"b'}, 'a"b has a double quote; allowed: 1 to 120 characters'),
        ({"brand": {"colour": "red"}}, "brand is no colour; allowed: six hexadecimal digits"),
        (
            {"brand": {"logo": "/nonexistent.svg"}},
            "/nonexistent.svg cannot be read: No such file or directory; allowed: ",
        ),
    ],
)
def test_resellers_that_are_refused(changes: dict[str, Any], expected: str) -> None:
    (line,) = refusals(web_gateway_resellers=[reseller(**changes)])
    start = f"web_gateway_resellers: {changes.get('name', 'noord')}: "
    assert line.startswith(start + expected)


@pytest.mark.parametrize("title", HOSTILE)
def test_a_title_changes_nothing_but_the_title(title: str) -> None:
    """Every title gives the same tokens, but for the one string that holds it."""
    plain, hostile = words(rendered(reseller())), words(rendered(reseller(title=title)))
    assert len(plain) == len(hostile)
    different = {(one, other) for one, other in zip(plain, hostile, strict=True) if one != other}
    assert different == {('"Noorder ICT"', f'"{FILTERS["brand_escaped"](title)}"')}


@pytest.mark.parametrize("title", HOSTILE[:-3])
def test_a_title_is_text_on_pages(title: str) -> None:
    look = {"logo": "", "colour": "#0b5394", "support": "https://hulp.noord.example/?a=b&c=d"}
    for kind in web_gateway.PAGES:
        page = web_gateway.page(kind, title.replace("\r", ""), look)
        assert "<script" not in page
        assert page.count("<") == web_gateway.page(kind, "a", look).count("<")


def test_pages_are_whole_and_name_no_product() -> None:
    for kind in web_gateway.PAGES:
        page = web_gateway.page(kind, "Noorder ICT", {"logo": "", "colour": "#0b5394", "support": "help@noord.example"})
        body = re.sub(r"<(meta|link|img)([^>]*)>", r"<\1\2/>", page.partition("\n")[2])
        assert minidom.parseString(body).documentElement.tagName == "html"
        assert not re.search(r"nginx|sogo|bouwsteen|debian", page, re.I)
        assert 'href="mailto&#58;help&#64;noord&#46;example"' in page


def test_each_reseller_has_files_of_his_own(tmp_path: Path) -> None:
    logo = tmp_path / "logo.svg"
    logo.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    files = FILTERS["web_gateway_faces"](
        [reseller(brand={"logo": str(logo)}), reseller(name="zuid", domain="zuid.example", title="Zuid")], "/brand"
    )
    paths = [file["path"] for file in files]
    assert len(set(paths)) == len(paths) == 12
    by_path = {file["path"]: file for file in files}
    assert by_path["/brand/noord.logo"] == {"path": "/brand/noord.logo", "source": str(logo)}
    assert ">Z</text>" in by_path["/brand/zuid.logo"]["content"]
    assert by_path["/brand/noord.style.css"]["content"] != by_path["/brand/zuid.style.css"]["content"]


def test_a_logo_is_served_as_what_it_is(tmp_path: Path) -> None:
    assert FILTERS["web_gateway_logo_type"](reseller()) == "image/svg+xml"
    (tmp_path / "logo.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    assert FILTERS["web_gateway_logo_type"](reseller(brand={"logo": str(tmp_path / "logo.png")})) == "image/svg+xml"
    (tmp_path / "logo.png").write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='a()'/>")
    with pytest.raises(AnsibleFilterError, match=r"^logo of noord: is an SVG with an attribute onload; "):
        FILTERS["web_gateway_logo_type"](reseller(brand={"logo": str(tmp_path / "logo.png")}))


MASKED = {
    "account.noord.example /start/abcDEF123?x=y": "/start/***",
    "account.noord.example /start": "/start",
    "account.noord.example /start?token=abc": "/start",
    "account.noord.example /abcdefghijklmnopqrstuvwxyz0123456789ABC": "/***",
    "account.noord.example /Abc": "/***",
    "account.noord.example *": "/***",
    "webmail.noord.example /SOGo/so/jan?x=secret": "/SOGo/so/jan",
}


@pytest.mark.parametrize(("request_", "expected"), MASKED.items())
def test_secrets_in_links_are_not_logged(request_: str, expected: str) -> None:
    """The rules of nginx's map, as nginx applies them: the first that fits, in what PCRE and Python agree on."""
    text = (ROLE / "templates/etc/nginx/nginx.conf.j2").read_text()
    block = text.partition("$bouwsteen_request {")[2].partition("default")[0]
    rules = re.findall(r'"~(.*)" "(.*)";', block)
    assert len(rules) == 4
    for pattern, value in rules:
        if found := re.search(pattern.replace("(?<", "(?P<"), request_):
            fill = re.sub(r"\$\{?(\w+)\}?", lambda part, found=found: found[part[1]], value)
            assert fill == expected
            return
    raise AssertionError("no rule fits")


CLIENTS = {
    "192.0.2.1": "192.0.2.1",
    "2001:db8:1:2:3:4:5:6": "2001:db8:1:2",
    "2001:db8:1:2::6": "2001:db8:1:2",
    "2001:db8:5::1": "2001:db8:5::",
    "2001:db8:5::b:c:d": "2001:db8:5::",
    "2001:db8:5:0:a:b:c:d": "2001:db8:5:0",
    "fd00::1": "fd00::",
    "::1": "::",
}


@pytest.mark.parametrize(("address", "expected"), CLIENTS.items())
def test_a_client_is_a_network(address: str, expected: str) -> None:
    text = (ROLE / "templates/etc/nginx/nginx.conf.j2").read_text()
    block = text.partition("$bouwsteen_client {")[2].partition("default")[0]
    rules = re.findall(r'"~(.*)" "(.*)";', block)
    assert len(rules) == 2
    for pattern, value in rules:
        if found := re.search(pattern.replace("(?<", "(?P<"), address):
            assert re.sub(r"\$\{?(\w+)\}?", lambda part, found=found: found[part[1]], value) == expected
            return
    assert address == expected
