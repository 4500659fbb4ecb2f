# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard: a reseller's webmail lets only his own people try a password, by either road and in every spelling."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import pytest

LOGIN, OTHER, NOBODY = "jan@degraaf.example", "kees@smid.example", "niemand@degraaf.example"


@pytest.fixture(autouse=True)
def _passwords(portal_site: Any) -> None:
    """Who has no password cannot log in anywhere."""
    portal_site.accounts.execute(
        "UPDATE directory.users SET password_hash = %s",
        ("{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$ZGlnZXN0ZGlnZXN0",),
    )


def credentials(login: str, password: str = "geheim") -> str:
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()


def ask(site: Any, login: str | None, reseller: str = "noorderict", path: str = "/SOGo/dav/", **headers: str) -> Any:
    more = {"X-Original-Path": path, **({"Authorization": credentials(login)} if login is not None else {}), **headers}
    return site.open("/guard", reseller, headers=more)


def goes_on_as(answer: Any) -> str:
    assert answer.status_code == 204
    return base64.b64decode(answer.headers["X-Bouwsteen-Authorization"].removeprefix("Basic ")).decode()


@pytest.mark.parametrize(
    ("login", "reseller"), [(LOGIN, "noorderict"), (LOGIN.upper(), "noorderict"), (OTHER, "zuidwest")]
)
def test_own_people_go_on_as_they_came(portal_site: Any, login: str, reseller: str) -> None:
    answer = ask(portal_site, login, reseller)
    assert answer.headers["X-Bouwsteen-Authorization"] == credentials(login)


@pytest.mark.parametrize(
    ("login", "reseller"),
    [
        (OTHER, "noorderict"),
        (LOGIN, "zuidwest"),
        (NOBODY, "noorderict"),
        ("", "noorderict"),
        ("jan", "noorderict"),
        (f"DOMAIN\\{LOGIN}", "noorderict"),
        (f" {LOGIN}", "noorderict"),
        (f"{LOGIN}\0", "noorderict"),
        (f"{LOGIN}\n", "noorderict"),
        ("ján@degraaf.example", "noorderict"),
        ("a" * 5000 + "@degraaf.example", "noorderict"),
        ("' OR true --@degraaf.example", "noorderict"),
    ],
)
def test_anybody_else_goes_on_as_nobody(portal_site: Any, login: str, reseller: str) -> None:
    found = goes_on_as(ask(portal_site, login, reseller))
    assert found.endswith("@nobody.invalid:x")
    assert "geheim" not in found
    # The same nobody for the same wrong login: failures add up as they always do.
    assert goes_on_as(ask(portal_site, login, reseller)) == found
    assert goes_on_as(ask(portal_site, "x" + login, reseller)) != found


@pytest.mark.parametrize(
    "value", ["Basic", "Basic !!!", "Basic " + base64.b64encode(b"nocolon").decode(), "Bearer abc", "Digest x", ""]
)
def test_what_is_no_basic_goes_on_as_nobody(portal_site: Any, value: str) -> None:
    answer = portal_site.open("/guard", headers={"Authorization": value, "X-Original-Path": "/SOGo/dav/"})
    assert goes_on_as(answer).endswith("@nobody.invalid:x")


def test_without_credentials_there_are_none_to_go_on_with(portal_site: Any) -> None:
    answer = ask(portal_site, None)
    assert answer.status_code == 204
    assert "X-Bouwsteen-Authorization" not in answer.headers


def test_the_challenge_names_the_reseller_and_nothing_else(portal_site: Any) -> None:
    for login in (LOGIN, OTHER, NOBODY, None):
        challenge = ask(portal_site, login).headers["X-Bouwsteen-Challenge"]
        assert challenge == 'Basic realm="Noorder <ICT> & Zn", charset="UTF-8"'
    from portal.guard import realm

    assert realm('Café "De\\Zon"', "x") == "Cafe DeZon"
    assert realm("株式会社", "noorder.example") == "noorder.example"


@pytest.mark.parametrize("reseller", ["", "bestaatniet"])
def test_a_site_that_is_nobodys_is_closed(portal_site: Any, reseller: str) -> None:
    assert ask(portal_site, LOGIN, reseller).status_code == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/SOGo/connect", 403),
        ("/SOGo/so/connect", 403),
        ("/SOGo/SO/Connect", 403),
        ("/SOGo//so///connect/", 403),
        ("/SOGo/dav/connect", 403),
        ("/SOGo/so/%63onnect", 403),
        ("/SOGo/so/connect;x", 403),
        ("/SOGo/connect/more", 403),
        ("/SOGo/so/changePassword", 403),
        ("/SOGo/passwordRecoveryEmail", 403),
        ("/SOGo/dav/jan@degraaf.example/Calendar/connect/", 204),
        ("/SOGo/so/jan@degraaf.example/Mail/0/folderINBOX/view", 204),
        ("/Microsoft-Server-ActiveSync", 204),
    ],
)
def test_actions_that_take_a_login_have_one_road(portal_site: Any, path: str, status: int) -> None:
    assert ask(portal_site, LOGIN, path=path).status_code == status


def form(site: Any, data: Any, reseller: str = "noorderict") -> Any:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return site.open("/guard/form", reseller, "POST", data=body, content_type="application/json")


def test_the_form_goes_on_as_it_came_for_own_people(portal_site: Any) -> None:
    answer = form(portal_site, {"userName": LOGIN, "password": "geheim", "language": "Dutch", "rememberLogin": 0})
    assert answer.headers["X-Accel-Redirect"] == "@bouwsteen_login"
    assert answer.data == b""


CHANGE = {"userName": None, "oldPassword": "geheim", "newPassword": "geheimer"}


@pytest.mark.parametrize(
    ("path", "more", "where"),
    [
        ("/SOGo/so/changePassword", {}, "@bouwsteen_login"),
        ("/SOGo/connect", {}, "@bouwsteen_nobody"),
        ("/SOGo/so/changePassword", {"userName": OTHER}, "@bouwsteen_nobody"),
        ("/SOGo/so/changePassword", {"domain": "smid.example"}, "@bouwsteen_nobody"),
        ("/SOGo/so/changePassword", {"token": "x"}, "@bouwsteen_nobody"),
    ],
)
def test_who_has_logged_in_may_change_his_own_password(portal_site: Any, path: str, more: Any, where: str) -> None:
    body = json.dumps(CHANGE | more).encode()
    options = {"data": body, "content_type": "application/json", "headers": {"X-Original-Path": path}}
    answer = portal_site.open("/guard/form", "noorderict", "POST", **options)
    assert answer.headers["X-Accel-Redirect"] == where


@pytest.mark.parametrize(
    "data",
    [
        {"userName": OTHER, "password": "geheim"},
        {"userName": NOBODY, "password": "geheim"},
        {"userName": "jan", "domain": "degraaf.example", "password": "geheim"},
        {"userName": LOGIN, "domain": "smid.example", "password": "geheim"},
        {"userName": [LOGIN], "password": "geheim"},
        {"password": "geheim"},
        [LOGIN],
        f'{{"userName": "{OTHER}", "userName": "{LOGIN}"}}'.encode(),
        f'{{"USERNAME": "{OTHER}", "userName": "{LOGIN}"}}'.encode(),
        f"userName={LOGIN}&password=geheim".encode(),
        json.dumps({"userName": LOGIN}).encode("utf-16"),
        b"[" * 20000,
        b"\xff\xfe",
        b"",
        b'{"userName": "jan@degraaf.example", "x": "' + b"x" * 20000 + b'"}',
    ],
    ids=str,
)
def test_any_other_form_goes_on_as_nobody(portal_site: Any, data: Any) -> None:
    answer = form(portal_site, data)
    assert answer.headers["X-Accel-Redirect"] == "@bouwsteen_nobody"
    assert answer.headers["X-Bouwsteen-Nobody"].endswith("@nobody.invalid")
    assert "geheim" not in str(answer.headers)


def test_a_suspended_person_is_let_go_within_seconds(portal_site: Any) -> None:
    from portal.guard import Memory

    clock = [0.0]
    known = {LOGIN: "noorderict"}
    memory = Memory(known.get, lambda: clock[0])
    assert memory.reseller(LOGIN) == "noorderict"
    known.clear()
    clock[0] = 9.9
    assert memory.reseller(LOGIN) == "noorderict"
    clock[0] = 10.1
    assert memory.reseller(LOGIN) is None
    # Who was nobody is asked about anew.
    known[LOGIN] = "noorderict"
    assert memory.reseller(LOGIN) == "noorderict"


def test_memory_does_not_grow_without_end() -> None:
    from portal.guard import REMEMBERED, Memory

    memory = Memory(lambda _: "noorderict")
    for number in range(REMEMBERED + 10):
        memory.reseller(str(number))
    assert len(memory._known) <= REMEMBERED


def test_nothing_secret_is_logged(portal_site: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        ask(portal_site, OTHER)
        ask(portal_site, LOGIN)
        form(portal_site, {"userName": OTHER, "password": "geheim"})
        form(portal_site, b"geheim")
    assert "geheim" not in caplog.text


def test_a_refusal_costs_a_wrong_password(portal_site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from portal import passwords

    wasted: list[str] = []
    monkeypatch.setattr(passwords, "waste", wasted.append)
    for login, times in ((LOGIN, 0), (OTHER, 1), (NOBODY, 1)):
        wasted.clear()
        ask(portal_site, login)
        form(portal_site, {"userName": login, "password": "geheim"})
        assert len(wasted) == 2 * times


def test_without_the_directory_it_says_so_and_comes_back(portal_site: Any) -> None:
    client = portal_site.make(directory={"host": "/nonexistent", "dbname": "x", "user": "portal"})
    answer = portal_site.open("/guard", client=client, headers={"Authorization": credentials(LOGIN)})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "30"
    # A connection that the server closed is made anew.
    assert ask(portal_site, LOGIN).status_code == 204
    portal_site.database.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'portal'")
    assert ask(portal_site, OTHER).status_code == 204
