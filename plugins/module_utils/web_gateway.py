# SPDX-License-Identifier: GPL-3.0-or-later
"""What role web_gateway decides: what it refuses, and the files that resellers' brands come down to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import brand, mail_settings, names
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import Invalid

# Names below a reseller's domain that others serve.
NOT_SITES = frozenset(("mail", "imap", "smtp", "mx", "sip", "verify"))
# Texts of the pages that the gateway itself answers with: what went wrong, what to do about it. They name no product,
# and both languages, for it is not known who reads them.
PAGES: Mapping[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "busy": (
        ("Even wachten", "Er kwamen te veel verzoeken tegelijk van uw netwerk. Probeer het over een minuut opnieuw."),
        ("One moment", "Too many requests came from your network at once. Please try again in a minute."),
    ),
    "away": (
        ("Zo terug", "Deze dienst is even niet bereikbaar. Kom over een minuut terug."),
        ("Back soon", "This service cannot be reached right now. Please come back in a minute."),
    ),
    "error": (
        ("Dat lukte niet", "Deze pagina bestaat niet, of mag niet zo worden gevraagd."),
        ("That did not work", "This page does not exist, or must not be asked for like this."),
    ),
}

type File = dict[str, Any]


def refusals(values: Mapping[str, Any], variables: Iterable[str], known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why role web_gateway must not go on, one line each, every reason.

    `values`: its variables; `variables`: names of the host's that begin with its prefix; `known`: its specification.
    """
    lines = mail_settings.unknown("web_gateway", variables, known)
    for name, option in known.items():
        if option.get("type") == "int" and int(values[name]) < 1:
            lines.append(f"{name}: {values[name]} is below 1")
    resellers = values["web_gateway_resellers"]
    for key in ("name", "domain"):
        several = [reseller[key] for reseller in resellers]
        lines += [
            f"web_gateway_resellers: {key} {value} is there twice"
            for value in sorted({value for value in several if several.count(value) > 1})
        ]
    for reseller in resellers:
        lines += [f"web_gateway_resellers: {reseller['name']}: {problem}" for problem in _problems(reseller)]
    sites = list(values["web_gateway_sites"])
    if not sites or sites[0] != "webmail":
        lines.append("web_gateway_sites: the first is webmail, whose name the certificate has")
    for site in sites:
        if site in NOT_SITES or site == "http" or not _passes(names.slug, site):
            lines.append(f"web_gateway_sites: {site} is no name for a site")
    return lines


def _problems(reseller: Mapping[str, Any]) -> list[str]:
    """What is wrong with one reseller. All of it ends in a server's configuration, so nothing is taken as given."""
    problems = []
    checks: list[tuple[Callable[[Any], object], Any]] = [
        (names.slug, reseller["name"]),
        (_domain, reseller["domain"]),
        (names.display_name, reseller["title"]),
        (lambda written: brand.normal(reseller["name"], written), reseller.get("brand")),
    ]
    if path := (reseller.get("brand") or {}).get("logo"):
        checks.append((brand.logo, path))
    for check, value in checks:
        try:
            check(value)
        except Invalid as invalid:
            problems.append(f"{value} {invalid}" if isinstance(value, str) else f"brand {invalid}")
    return problems


def _domain(value: str) -> None:
    if names.domain(value) != value:
        raise Invalid("is not in its normal form", "lower case, other letters as xn--")


def _passes(check: Callable[[Any], object], value: object) -> bool:
    try:
        check(value)
    except Invalid:
        return False
    return True


def servers(resellers: Sequence[Mapping[str, Any]]) -> list[File]:
    """The files of nginx with each reseller's sites, in the form of module configuration."""
    return [
        {
            "path": f"/etc/nginx/bouwsteen/resellers/{reseller['name']}.conf",
            "template": "etc/nginx/bouwsteen/reseller.conf.j2",
            "vars": {"reseller": dict(reseller)},
        }
        for reseller in resellers
    ]


def faces(resellers: Sequence[Mapping[str, Any]], directory: str) -> list[File]:
    """The files of all resellers' brands and pages, in the form of module configuration.

    `directory`: where they go, each as NAME.PART; a name has no dot, so one reseller's file is never another's.
    """
    files: list[File] = []
    for reseller in resellers:
        name, title = reseller["name"], reseller["title"]
        look = brand.normal(name, reseller.get("brand"))
        monogram = brand.monogram_svg(title, look["colour"])
        start = f"{directory}/{name}"
        files += [
            {"path": f"{start}.style.css", "content": brand.stylesheet(look["colour"])},
            {"path": f"{start}.favicon.svg", "content": monogram},
            {"path": f"{start}.logo", "source": look["logo"]} if look["logo"]
            else {"path": f"{start}.logo", "content": monogram},
        ]  # fmt: skip
        files += [{"path": f"{start}.{kind}.html", "content": page(kind, title, look)} for kind in PAGES]
    return files


def logo_type(reseller: Mapping[str, Any]) -> str:
    """The media type of a reseller's logo. Raises Invalid for one that must not be served."""
    path = (reseller.get("brand") or {}).get("logo")
    return "image/png" if path and brand.logo(path).kind == "png" else "image/svg+xml"


def page(name: str, title: str, look: Mapping[str, str]) -> str:
    """One of `PAGES` in a reseller's look: whole in itself but for the logo, and without any script."""
    (dutch, dutch_text), (english, english_text) = PAGES[name]
    link = look["support"]
    target = link if "://" in link else f"mailto:{link}"
    help_ = f'<p><a href="{brand.escaped(target)}">{brand.escaped(link)}</a></p>\n' if link else ""
    colour = look["colour"]
    return f"""<!DOCTYPE html>
<html lang="nl">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{brand.escaped(title)}</title>
<link rel="icon" href="/brand/favicon.svg" type="image/svg+xml">
<style>
body {{ margin: 0; font: 1.1rem/1.5 system-ui, sans-serif; color: #1d1d1f; background: #fff; }}
header {{ background: {colour}; color: {brand.text_on(colour)}; height: .6rem; }}
main {{ max-width: 34rem; margin: 12vh auto 0; padding: 0 1.5rem; }}
img {{ max-height: 4rem; max-width: 100%; }}
h1, a {{ color: {brand.strong(colour)}; }}
h1 {{ font-size: 1.5rem; margin-bottom: .3rem; }}
</style>
</head>
<body>
<header></header>
<main>
<img src="/brand/logo" alt="{brand.escaped(title)}">
<h1>{dutch}</h1>
<p>{dutch_text}</p>
<div lang="en"><h1>{english}</h1>
<p>{english_text}</p></div>
{help_}</main>
</body>
</html>
"""
