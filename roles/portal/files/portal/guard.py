# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard of logins: a reseller's webmail lets only his own people try a password.

Two ways lead in. A request with `Authorization: Basic` (CalDAV, CardDAV, ActiveSync) is asked about by the gateway's
auth_request. The login form's JSON is handed here whole. What may pass goes on to the groupware as it came; anything
else goes on as a login that nobody has, so that the answer is the groupware's own, whatever that looks like in the next
version. Such a refusal costs the time of a wrong password besides. No password is kept or logged.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import threading
import time
import unicodedata
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from flask import Blueprint, Response, current_app, request

from portal import passwords
from portal.web import portal, reseller_name

guard = Blueprint("guard", __name__)

# Actions of the groupware's root that take a login or tell of one. Those that the form uses come by `form`; by any
# other road, and in any other spelling, they are refused.
LOGIN_ACTION = re.compile(
    r"^/+SOGo/+(?:[^/]+/+)?(?:connect|changePassword|passwordRecovery[A-Za-z]*)(?:[/;.]|$)", re.IGNORECASE
)
LARGEST_FORM = 16 * 1024
REMEMBERED, SECONDS = 10_000, 10.0
# Where the gateway hands a form on to the groupware: as it came, or with a login that nobody has.
PASS, REFUSE = "@bouwsteen_login", "@bouwsteen_nobody"


class Memory:
    """Whose a login is, for some seconds: a telephone asks many times in a row."""

    def __init__(self, ask: Callable[[str], str | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self._known: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def reseller(self, login: str) -> str | None:
        now = self._clock()
        with self._lock:
            known = self._known.get(login)
        if known and now - known[0] < SECONDS:
            return known[1]
        found = self._ask(login)
        if found is None:
            # Asked anew each time: the person may have chosen a password just now.
            return None
        with self._lock:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[login] = (now, found)
        return found


def basic(header: str) -> tuple[str, str] | None:
    """Login and password of a header `Authorization: Basic ...` (RFC 7617)."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(value.strip(), validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return None
    login, colon, password = text.partition(":")
    return (login, password) if colon else None


def realm(title: str, fallback: str) -> str:
    """The reseller's title as a realm: ASCII, without what ends a quoted string."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r'[^ -~]|["\\]', "", plain).strip() or fallback


def usable(login: str) -> bool:
    """Whether a login is one in its plain form, which the groupware reads as the guard does."""
    return 3 <= len(login) <= 254 and login.count("@") == 1 and re.fullmatch(r"[!-~]+", login) is not None


def is_own(login: str) -> bool:
    """Whether this site's reseller has somebody with this login."""
    name = reseller_name()
    return bool(name) and usable(login) and portal().memory.reseller(login.lower()) == name


def nobody(login: str | None) -> str:
    """A login that nobody has, the same each time for the same wrong one: so many failures in a row have the
    consequences that they always have."""
    key = hashlib.sha256(f"{reseller_name()}\0{login}".encode("utf-8", "surrogatepass")).hexdigest()[:40]
    return f"{key}@nobody.invalid"


@guard.get("/guard")
def basic_guard() -> Response:
    """For auth_request: 204 with the credentials to go on with, and with the challenge for a 401."""
    site = portal().reseller(reseller_name())
    path = request.headers.get("X-Original-Path", "")
    if site is None or LOGIN_ACTION.search(path) or LOGIN_ACTION.search(unquote(path)):
        return Response(status=403)
    answer = Response(status=204)
    answer.headers["X-Bouwsteen-Challenge"] = f'Basic realm="{realm(site.title, site.domain)}", charset="UTF-8"'
    header = request.headers.get("Authorization")
    if header is not None:
        found = basic(header)
        if not (found and is_own(found[0])):
            passwords.waste(found[1] if found else "")
            header = "Basic " + base64.b64encode(f"{nobody(found[0] if found else None)}:x".encode()).decode()
        answer.headers["X-Bouwsteen-Authorization"] = header
    return answer


@guard.post("/guard/form")
def form() -> Response:
    """The login form of webmail, JSON with `userName` and `password`; or the form in which a password is changed."""
    values = form_values(request.get_data(cache=False)) if (request.content_length or 0) <= LARGEST_FORM else {}
    name = values.get("userName")
    login = name if isinstance(name, str) and not values.get("domain") else None
    if (login is not None and is_own(login)) or is_change(values, request.headers.get("X-Original-Path", "")):
        return Response(headers={"X-Accel-Redirect": PASS})
    passwords.waste("x")
    return Response(headers={"X-Accel-Redirect": REFUSE, "X-Bouwsteen-Nobody": nobody(login)})


def is_change(values: dict[str, Any], path: str) -> bool:
    """Whether somebody who has logged in changes his password: the form names nobody, the session says who he is."""
    named = any(values.get(key) is not None for key in ("userName", "domain", "token"))
    return path.endswith("/changePassword") and {"oldPassword", "newPassword"} <= values.keys() and not named


def form_values(data: bytes) -> dict[str, Any]:
    """What is in a form; nothing when it can be read in two ways, or not at all."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key.casefold() for key, _ in pairs}) != len(pairs):
            raise ValueError
        return dict(pairs)

    try:
        values = json.loads(data.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError):
        current_app.logger.info("a login form that is no plain JSON")
        return {}
    return values if isinstance(values, dict) else {}
