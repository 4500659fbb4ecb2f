# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages of account.<reseller_domain>: a password by a one-time link, and how to set up a device.

The token of a link is in the path of its page once, and from there on in the form: no page that can be reloaded, no
address bar behind it, no Referer. Looking at a link never uses it up, since mail scanners look. Whoever posts a form
has to have the token, which no other site knows; a form that a browser says comes from elsewhere is refused too.
"""

from __future__ import annotations

import functools
import re

from flask import Blueprint, Response, make_response, render_template, request

from portal import discover, passwords, profile, texts
from portal.directory import Person, Reseller
from portal.web import language, portal, reseller_name

pages = Blueprint("pages", __name__)

TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
PROFILES = ("dav", "activesync")


def page(template: str, status: int = 200, *, preferred: str | None = None, **values: object) -> Response:
    """A page in the reseller's look and the reader's language."""
    site = portal().reseller(reseller_name())
    chosen = language(preferred)
    # "the reseller is not there" looks like any other page that is not there.
    body = render_template(
        template,
        site=site,
        language=chosen,
        t=functools.partial(texts.text, chosen),
        support=portal().settings.support.get(reseller_name(), ""),
        **values,
    )
    answer = make_response(body, status)
    answer.headers["Content-Language"] = chosen
    answer.headers["Vary"] = "Accept-Language"
    return answer


def failed(what: str, status: int) -> Response:
    """A page that says in one or two sentences what is wrong."""
    return page("message.html", status, title=f"{what}_title", body=what)


def _gone() -> Response:
    """The same for every link that cannot be used, whatever the reason is."""
    return failed("link_gone", 410)


def _from_here(site: Reseller) -> bool:
    """Whether the browser says that a form comes from this site. Those that say nothing had to know the token."""
    origin, fetch_site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    own = origin in {None, "null", f"https://account.{site.domain}"}
    return own and fetch_site in {None, "same-origin"}


# -------------------------------------------------------------------------------------------------------- passwords


@pages.get("/password/<token>")
def password_page(token: str) -> Response:
    """The form. Shown as often as somebody looks, as long as the link can be used."""
    if not TOKEN.fullmatch(token):
        return _gone()
    person = portal().directory.link(token, reseller_name())
    return _form(person, token) if person else _gone()


@pages.post("/password")
def set_password() -> Response:
    """Sets the password and uses the link up, or says what is wrong and leaves the link as it is."""
    site, token = portal().reseller(reseller_name()), request.form.get("token", "")
    if site is None or not TOKEN.fullmatch(token):
        return _gone()
    if not _from_here(site):
        return failed("foreign", 403)
    person = portal().directory.link(token, site.name)
    if person is None:
        return _gone()
    wrong = _wrong(person, site, request.form.get("password", ""), request.form.get("again", ""))
    if wrong:
        return _form(person, token, 422, wrong)
    value = passwords.hashed(request.form["password"])
    login = portal().directory.use_link(token, site.name, value)
    if login is None:
        return _gone()
    return page("done.html", preferred=person.language, person=person)


def _wrong(person: Person, site: Reseller, password: str, again: str) -> list[tuple[str, dict[str, object]]]:
    settings = portal().settings
    found = passwords.problems(
        password,
        shortest=settings.password_length,
        strength=settings.password_strength,
        breached=settings.breached,
        about=[person.login, person.name, site.title, site.domain],
    )
    return found or ([("different", {})] if password != again else [])


def _form(
    person: Person, token: str, status: int = 200, problems: list[tuple[str, dict[str, object]]] | None = None
) -> Response:
    return page(
        "password.html",
        status,
        preferred=person.language,
        person=person,
        token=token,
        problems=problems or [],
        shortest=portal().settings.password_length,
        longest=passwords.LONGEST,
    )


# ---------------------------------------------------------------------------------------------------------- devices


@pages.get("/")
@pages.get("/setup")
def setup() -> Response:
    """How to set up each kind of device, with the names filled in."""
    site = portal().reseller(reseller_name())
    if site is None:
        return failed("not_found", 404)
    address = request.args.get("address", "").strip().lower()
    known = bool(address) and discover.own_domain(address) is not None
    return page(
        "setup.html",
        200 if known or not address else 404,
        address=address if known else "",
        unknown=bool(address) and not known,
        activesync=portal().settings.activesync,
    )


@pages.get("/setup/<kind>.mobileconfig")
def mobileconfig(kind: str) -> Response:
    """A profile for Apple's devices. It holds no password, and tells nothing that the domain does not say."""
    address = request.args.get("address", "").strip().lower()
    site = discover.own_domain(address)
    if site is None or kind not in PROFILES or (kind == "activesync" and not portal().settings.activesync):
        return failed("not_found", 404)
    body = profile.signed(profile.document(kind, address, site), portal().settings.certificates, site)
    name = re.sub(r"[^a-z0-9.-]", "-", address.rpartition("@")[2])
    answer = Response(body, content_type="application/x-apple-aspen-config")
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}.mobileconfig"'
    return answer
