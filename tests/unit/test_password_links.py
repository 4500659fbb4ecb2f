# SPDX-License-Identifier: GPL-3.0-or-later
"""Links for passwords: made for the right people, told once, and mailed once to who is new (modules password_links,
invitations)."""

from __future__ import annotations

import hashlib
import re
import subprocess
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import password_links, reconcile
from ansible_collections.bouwsteen.hosting.plugins.module_utils.passwords import PasswordError

HASH = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$Zmlyc3Q$Zmlyc3Q"
JAN, EVA, OUD = "jan@degraaf.example", "eva@degraaf.example", "oud@degraaf.example"
HOME = "jan@thuis.example"


def estate(invite: str | None = HOME) -> dict[str, Any]:
    def person(login: str, **more: Any) -> dict[str, Any]:
        mail = {"aliases": [], "forward": [], "keep_copy": True, "quota": None}
        return {
            "login": login, "name": "Jan, de \"Graaf\"", "state": "active", "product": None, "language": "nl",
            "password_hash": None, "invite": None, "limits": {}, "mail": mail, "phone": None, "files": None, **more,
        }  # fmt: skip

    users = [
        person(JAN, invite=invite),
        person(EVA, password_hash=HASH, invite=HOME),
        person(OUD, state="suspended", invite=HOME),
    ]
    customer = {
        "name": "bakkerij", "title": "Bakkerij", "state": "active", "limits": {}, "users": users,
        "domains": [{"name": "degraaf.example", "alias_of": None}],
    }  # fmt: skip
    reseller = {
        "name": "noorderict", "title": "Noorder ICT & Zn", "engineer": "beheer@noorderict.example",
        "domain": "noorderict.example", "retention_days": 30,
    }  # fmt: skip
    return {"format": 1, "reseller": reseller, "customers": [customer]}


@pytest.fixture
def admin(database: Any) -> Any:
    connection = database.admin("test")
    reconcile.reconcile(connection, estate(), reconcile.Options())
    return connection


def works(database: Any, url: str) -> bool:
    token = url.rpartition("/")[2]
    digest = hashlib.sha256(token.encode()).digest()
    return bool(database.rows("SELECT * FROM portal.link(%s, 'noorderict')", (digest,), "portal"))


def invited(admin: Any, *, check_mode: bool = False) -> list[dict[str, Any]]:
    return password_links.for_invited(admin, ["noorderict"], hours=168, check_mode=check_mode)


def test_a_link_is_secret_and_works(admin: Any, database: Any) -> None:
    (link,) = password_links.for_users(admin, [JAN], hours=72, check_mode=False)
    assert re.fullmatch(r"https://account\.noorderict\.example/password/[A-Za-z0-9_-]{43}", link["url"])
    assert works(database, link["url"])
    token = link["url"].rpartition("/")[2]
    for table in ("password_links", "audit"):
        assert token not in database.value(f"SELECT string_agg(t::text, '') FROM directory.{table} t")
    left = database.value("SELECT expires_at - now() FROM directory.password_links")
    assert 71.9 < left.total_seconds() / 3600 <= 72


def test_a_new_link_ends_the_one_before(admin: Any, database: Any) -> None:
    first, second = (password_links.for_users(admin, [JAN], hours=1, check_mode=False)[0]["url"] for _ in range(2))
    assert not works(database, first)
    assert works(database, second)


def test_all_or_none(admin: Any, database: Any) -> None:
    with pytest.raises(PasswordError) as refused:
        password_links.for_users(admin, [JAN, OUD, "x@y.example"], hours=1, check_mode=False)
    assert refused.value.problems == [
        f"user {OUD} cannot log in: the user is suspended", "user x@y.example is not known",
    ]  # fmt: skip
    assert database.value("SELECT count(*) FROM directory.password_links") == 0


def test_everybody_of_a_reseller_without_a_password(admin: Any) -> None:
    links = password_links.for_resellers(admin, ["noorderict"], hours=1, check_mode=False)
    # The probe is nobody's to invite.
    assert [link["login"] for link in links] == [JAN]
    assert password_links.for_resellers(admin, ["zuidwest"], hours=1, check_mode=False) == []


def test_check_mode_makes_nothing(admin: Any, database: Any) -> None:
    (link,) = invited(admin, check_mode=True)
    assert (link["login"], link["url"], link["id"]) == (JAN, "", "")
    assert database.value("SELECT count(*) FROM directory.password_links") == 0


def test_who_is_new_is_mailed_once(admin: Any, database: Any) -> None:
    links = invited(admin)
    assert [link["login"] for link in links] == [JAN]
    boxes: list[Any] = []
    sent, problems = password_links.send(links, boxes.append)
    assert problems == []
    assert boxes == links
    assert password_links.note_sent(admin, sent, check_mode=True) == 1
    assert password_links.note_sent(admin, sent, check_mode=False) == 1
    assert password_links.note_sent(admin, sent, check_mode=False) == 0
    assert invited(admin) == []
    assert works(database, links[0]["url"])
    # A link that lapsed is not mailed again; the engineer makes the next.
    database.rows("UPDATE directory.password_links SET expires_at = now() - interval '1 hour'")
    assert invited(admin) == []


def test_a_failed_sending_is_healed_by_the_next_run(admin: Any, database: Any) -> None:
    def broken(link: Any) -> None:
        raise subprocess.CalledProcessError(75, ["sendmail"], stderr=link["url"])

    links = invited(admin)
    sent, problems = password_links.send(links, broken)
    assert sent == []
    assert problems == [f"the mail with the first link of {JAN} was not taken (CalledProcessError)"]
    again = invited(admin)
    assert [link["login"] for link in again] == [JAN]
    assert not works(database, links[0]["url"])


def test_a_corrected_address_is_mailed(admin: Any) -> None:
    links = invited(admin)
    password_links.note_sent(admin, [link["id"] for link in links], check_mode=False)
    outcome = reconcile.reconcile(admin, estate("jan@elders.example"), reconcile.Options())
    assert outcome.counts["users"]["changed"] == 1
    assert [link["invite"] for link in invited(admin)] == ["jan@elders.example"]
    assert not reconcile.reconcile(admin, estate("jan@elders.example"), reconcile.Options()).changed


def test_who_chose_a_password_is_not_mailed(admin: Any, database: Any) -> None:
    database.rows("UPDATE directory.users SET password_hash = %s WHERE login = %s", (HASH, JAN))
    assert invited(admin) == []


def test_the_mail_comes_from_the_reseller(admin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "sendmail"
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\ncat > {tmp_path}/mail\n')
    fake.chmod(0o755)
    monkeypatch.setattr(password_links, "SENDMAIL", str(fake))
    (link,) = invited(admin)
    assert password_links.send([link]) == ([link["id"]], [])
    assert (tmp_path / "arguments").read_text().split() == ["-i", "-f", "beheer@noorderict.example", "--", HOME]
    mail = message_from_bytes((tmp_path / "mail").read_bytes(), policy=policy.default)
    assert mail["From"].addresses[0].display_name == "Noorder ICT & Zn"
    assert mail["From"].addresses[0].addr_spec == "beheer@noorderict.example"
    assert mail["To"].addresses[0].addr_spec == HOME
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Subject"] == f"Kies uw wachtwoord voor {JAN}"
    body = mail.get_content()
    assert link["url"] in body
    assert "tot 168 uur na dit bericht" in body
    english = password_links.message({**link, "language": "de"})
    assert english["Subject"] == f"Choose your password for {JAN}"


def test_names_put_nothing_into_the_mails_head(admin: Any) -> None:
    (link,) = invited(admin)
    hostile = {**link, "name": "Jan\r\nBcc: x@kwaad.example"}
    with pytest.raises(ValueError, match="cannot contain CR or LF"):
        password_links.message(hostile)
    assert password_links.send([hostile])[1] == [f"the mail with the first link of {JAN} was not taken (ValueError)"]
