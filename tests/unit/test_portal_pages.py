# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages for passwords and devices: what people see, what is refused, and what is never told."""

from __future__ import annotations

import hashlib
import html
import plistlib
import re
from pathlib import Path
from typing import Any

import argon2
import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import passwords as module_passwords
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

LOGIN, OTHER = "jan@degraaf.example", "kees@smid.example"
TOKEN, SECOND = "t" * 43, "u" * 43
GOOD = "vuurtoren kikker bezem 41"


def text(answer: Any) -> str:
    return html.unescape(answer.get_data(as_text=True))


def post(site: Any, password: str = GOOD, token: str = TOKEN, reseller: str = "noorderict", **more: Any) -> Any:
    data = {"token": token, "password": password, "again": more.pop("again", password)}
    return site.open("/password", reseller, "POST", data=data, **more)


def hash_of(site: Any, login: str = LOGIN) -> Any:
    return site.database.value("SELECT password_hash FROM directory.users WHERE login = %s", (login,))


def test_looking_uses_nothing_up_and_posting_does(portal_site: Any) -> None:
    portal_site.link(TOKEN)
    for _ in range(3):
        answer = portal_site.open(f"/password/{TOKEN}")
        assert answer.status_code == 200
    assert portal_site.open(f"/password/{TOKEN}", method="HEAD").status_code == 200
    assert hash_of(portal_site) is None
    done = post(portal_site)
    assert done.status_code == 200
    assert "https://webmail.noorderict.example/" in text(done)
    assert "/setup?address=jan%40degraaf.example" in text(done)
    assert argon2.PasswordHasher().verify(hash_of(portal_site).removeprefix("{ARGON2ID}"), GOOD)
    for again in (post(portal_site, "iets heel anders 87"), portal_site.open(f"/password/{TOKEN}")):
        assert again.status_code == 410
    assert argon2.PasswordHasher().verify(hash_of(portal_site).removeprefix("{ARGON2ID}"), GOOD)


def test_hashes_are_those_of_the_collection(portal_site: Any) -> None:
    from portal import passwords

    for name in ("TIME_COST", "MEMORY_KIB"):
        assert getattr(passwords, name) == getattr(module_passwords, name)
    assert passwords.hashed("x").startswith("{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$")


def test_every_link_that_does_not_work_gets_one_page(portal_site: Any) -> None:
    portal_site.link(TOKEN, OTHER)
    portal_site.link(SECOND, LOGIN, "-1 hour")
    tokens = (TOKEN, SECOND, "v" * 43, "kort", "x" * 5000, "<script>", "%00" * 43)
    answers = [portal_site.open(f"/password/{token}") for token in tokens]
    answers += [post(portal_site, token=token) for token in tokens]
    assert {answer.status_code for answer in answers} == {410}
    assert len({answer.data for answer in answers}) == 1
    assert "Een link werkt één keer" in text(answers[0])
    assert hash_of(portal_site, OTHER) is None


def test_a_name_with_a_script_is_a_name(portal_site: Any) -> None:
    portal_site.link(TOKEN)
    body = portal_site.open(f"/password/{TOKEN}").get_data(as_text=True)
    assert "<script" not in body
    assert "Jan &lt;script&gt;alert(1)&lt;/script&gt;" in body
    assert "Noorder &lt;ICT&gt; &amp; Zn" in body


def test_pages_run_nothing_and_tell_nobody_where_they_came_from(portal_site: Any) -> None:
    portal_site.link(TOKEN)
    for path in (f"/password/{TOKEN}", "/setup", f"/setup?address={LOGIN}", "/nergens"):
        answer = portal_site.open(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["Cache-Control"] == "no-store"
        body = answer.get_data(as_text=True)
        assert '<meta name="referrer" content="no-referrer">' in body
        assert not re.search(r"<script|<style| style=| on[a-z]+=|https?://(?!webmail|hulp)", body)
        # The token is in the form, once, and in no address.
        assert body.count(TOKEN) <= 1
        # Everybody can read and fill in what is there.
        assert re.search(r'<html lang="(nl|en)">', body)
        inputs = set(re.findall(r'<input type="(?:password|email)" id="(\w+)"', body))
        assert inputs <= set(re.findall(r'<label for="(\w+)"', body))


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("kort", "Het heeft 4 tekens; het moeten er minstens 12 zijn."),
        ("x" * 257, "hoogstens 256 tekens"),
        ("wachtwoord\t1234", "niet op elk apparaat kunt typen"),
        ("aaaaaaaaaaaaaaaa", "Herhalingen maken"),
        ("password123456", "te makkelijk te raden"),
        ("jan@degraaf.example", "Er staat uw naam of die van uw organisatie in"),
        ("noorderict2026", "Er staat uw naam of die van uw organisatie in"),
    ],
)
def test_what_is_wrong_is_explained_and_the_link_stays(portal_site: Any, password: str, why: str) -> None:
    portal_site.link(TOKEN)
    answer = post(portal_site, password)
    assert answer.status_code == 422
    assert why in text(answer)
    assert 'role="alert"' in text(answer)
    assert password not in text(answer) or password == LOGIN
    assert hash_of(portal_site) is None
    assert post(portal_site).status_code == 200


def test_two_that_differ(portal_site: Any) -> None:
    portal_site.link(TOKEN)
    answer = post(portal_site, again=GOOD + "x")
    assert answer.status_code == 422
    assert "De twee wachtwoorden zijn niet gelijk." in text(answer)


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_a_list_of_stolen_passwords(portal_site: Any, tmp_path: Path, count: int) -> None:
    wanted = [f"{GOOD} {number}" for number in range(count)]
    hashes = sorted(hashlib.sha1(one.encode()).hexdigest().upper() for one in wanted)
    path = tmp_path / "breached"
    for ending in ("", ":12345"):
        path.write_text("".join(f"{one}{ending}\r\n" for one in hashes))
        from portal import passwords

        passwords._size.cache_clear()
        assert all(passwords.is_breached(one, str(path)) for one in wanted)
        assert not any(passwords.is_breached(f"andere {number}", str(path)) for number in range(50))
    portal_site.link(TOKEN)
    client = portal_site.make(breached=str(path))
    answer = post(portal_site, wanted[-1], client=client)
    assert answer.status_code == 422
    assert "lijst van gestolen wachtwoorden" in text(answer)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "https://account.noorderict.example", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://account.zuidwest.example"}, 403),
        ({"Origin": "https://kwaad.example"}, 403),
        ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_forms_come_from_the_own_site(portal_site: Any, headers: dict[str, str], status: int) -> None:
    portal_site.link(TOKEN)
    assert post(portal_site, headers=headers).status_code == status


def test_five_megabytes_are_refused(portal_site: Any) -> None:
    portal_site.link(TOKEN)
    assert post(portal_site, "x" * 5_000_000).status_code == 413
    assert hash_of(portal_site) is None


def test_languages(portal_site: Any) -> None:
    portal_site.link(TOKEN)
    english = {"Accept-Language": "en-GB,en;q=0.9"}
    # The person's own comes first, then the browser's, then Dutch.
    assert "Kies een wachtwoord" in text(portal_site.open(f"/password/{TOKEN}", headers=english))
    assert "Set up your device" in text(portal_site.open("/setup", headers=english))
    assert "Uw apparaat instellen" in text(portal_site.open("/setup", headers={"Accept-Language": "fr"}))
    portal_site.accounts.execute("UPDATE directory.users SET language = 'fr'")
    assert "Choose a password" in text(portal_site.open(f"/password/{TOKEN}", headers=english))


def test_texts_are_there_in_every_language(portal_site: Any) -> None:
    from portal.texts import LANGUAGES, TEXTS

    values = re.compile(r"\{(\w+)\}")
    for language in LANGUAGES:
        assert set(TEXTS[language]) == set(TEXTS["nl"])
        for key, one in TEXTS[language].items():
            assert set(values.findall(one)) == set(values.findall(TEXTS["nl"][key])), key


# ---------------------------------------------------------------------------------------------------------- devices


def test_settings_are_filled_in(portal_site: Any) -> None:
    body = text(portal_site.open(f"/setup?address={LOGIN}"))
    for wanted in (
        "mail.noorderict.example",
        "993",
        "465",
        "https://webmail.noorderict.example/SOGo/dav/",
        "/setup/dav.mobileconfig?address=jan%40degraaf.example",
        "/setup/activesync.mobileconfig",
    ):
        assert wanted in body
    assert "activesync" not in text(
        portal_site.open(f"/setup?address={LOGIN}", client=portal_site.make(activesync=False))
    )


def test_devices_pages_do_not_say_who_there_is(portal_site: Any) -> None:
    there = text(portal_site.open(f"/setup?address={LOGIN}")).replace(LOGIN, "X").replace("jan%40degraaf", "X")
    other = "niemand@degraaf.example"
    gone = text(portal_site.open(f"/setup?address={other}")).replace(other, "X").replace("niemand%40degraaf", "X")
    assert there == gone


@pytest.mark.parametrize(
    "address", [OTHER, "jan@elders.example", '"><script>alert(1)</script>@degraaf.example', "x" * 400]
)
def test_an_address_that_is_not_this_resellers(portal_site: Any, address: str) -> None:
    answer = portal_site.open("/setup", query_string={"address": address})
    assert answer.status_code == 404
    assert b"<script" not in answer.data
    assert "niet in een domein dat wij kennen" in text(answer)
    assert portal_site.open("/setup/dav.mobileconfig", query_string={"address": address}).status_code == 404


@pytest.mark.parametrize("reseller", ["", "bestaatniet"])
def test_a_site_that_is_nobodys_shows_nothing(portal_site: Any, reseller: str) -> None:
    assert portal_site.open("/setup", reseller).status_code == 404
    assert post(portal_site, reseller=reseller).status_code == 410


def test_profiles_are_signed_and_hold_no_password(portal_site: Any) -> None:
    key, chain = own_certificate()
    folder = portal_site.certificates / "webmail.noorderict.example"
    folder.mkdir()
    (folder / "privkey.pem").write_bytes(key)
    (folder / "fullchain.pem").write_bytes(chain)
    for kind, types in (
        ("dav", ["com.apple.mail.managed", "com.apple.caldav.account", "com.apple.carddav.account"]),
        ("activesync", ["com.apple.eas.account"]),
    ):
        answer = portal_site.open(f"/setup/{kind}.mobileconfig?address={LOGIN}")
        assert answer.status_code == 200
        assert answer.headers["Content-Disposition"] == 'attachment; filename="degraaf.example.mobileconfig"'
        certificates = pkcs7.load_der_pkcs7_certificates(answer.data)
        assert x509.load_pem_x509_certificate(chain) in certificates
        start, end = answer.data.index(b"<?xml"), answer.data.index(b"</plist>") + len(b"</plist>")
        profile = plistlib.loads(answer.data[start:end])
        assert [one["PayloadType"] for one in profile["PayloadContent"]] == types
        assert profile["PayloadOrganization"] == "Noorder <ICT> & Zn"
        for one in profile["PayloadContent"]:
            assert not any("Password" in name and isinstance(value, str) and name != "IncomingMailServerAuthentication"
                           for name, value in one.items())  # fmt: skip
    assert portal_site.open(f"/setup/x.mobileconfig?address={LOGIN}").status_code == 404


def own_certificate() -> tuple[bytes, bytes]:
    import datetime

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "webmail.noorderict.example")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(pem)
