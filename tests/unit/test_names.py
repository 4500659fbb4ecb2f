# SPDX-License-Identifier: GPL-3.0-or-later
"""Domains, addresses, people's names and password hashes: what is allowed, and one spelling for one thing."""

from __future__ import annotations

import re

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import names
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import Invalid
from hypothesis import given
from hypothesis import strategies as st

ARGON2 = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c29tZXNhbHRzb21lc2FsdA$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI"
BCRYPT = "{BLF-CRYPT}$2y$12$" + "a" * 53


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("degraaf.example", "degraaf.example"),
        ("DeGraaf.Example", "degraaf.example"),
        ("bäcker.example", "xn--bcker-gra.example"),
        ("BÄCKER.example", "xn--bcker-gra.example"),
        ("ba\u0308cker.example", "xn--bcker-gra.example"),
        ("xn--bcker-gra.example", "xn--bcker-gra.example"),
        ("XN--BCKER-GRA.example", "xn--bcker-gra.example"),
        ("1.2.3.example", "1.2.3.example"),
        ("ĳssel.example", "ijssel.example"),
    ],
)
def test_domain(written: str, name: str) -> None:
    assert names.domain(written) == name


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("degraaf", "has no dot"),
        ("degraaf.example.", "ends with a dot"),
        ("de_graaf.example", "is no domain"),
        ("-degraaf.example", "is no domain"),
        ("degraaf-.example", "is no domain"),
        ("de..graaf.example", "is no domain"),
        (".degraaf.example", "is no domain"),
        ("*.degraaf.example", "is no domain"),
        ("192.0.2.1", "is no domain"),
        ("a" * 64 + ".example", "is no domain"),
        ("é" * 60 + ".example", "is no domain"),
        (".".join(["a" * 60] * 5), "is no domain"),
        ("xn--a.example", "is no domain"),
        ("xn--degraaf-.example", "is no domain"),
        ("straße.example", "has a letter that registries write in more than one way"),
        ("de graaf.example", "is no domain"),
        ("degraaf.example\n", "is no domain"),
    ],
)
def test_domain_that_is_refused(written: str, problem: str) -> None:
    with pytest.raises(Invalid) as refused:
        names.domain(written)
    assert refused.value.problem == problem


@given(st.text(max_size=40))
def test_a_domain_is_its_own_normal_form(text: str) -> None:
    try:
        name = names.domain(text + ".example")
    except Invalid:
        return
    assert names.domain(name) == name
    assert re.fullmatch(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("Jan@DeGraaf.example", ("jan", "degraaf.example")),
        ("k.o'neill@delinde.example", ("k.o'neill", "delinde.example")),
        ("d-j_v.t.hof@bäcker.example", ("d-j_v.t.hof", "xn--bcker-gra.example")),
    ],
)
def test_address(written: str, parts: tuple[str, str]) -> None:
    assert names.address(written) == parts


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("jan", "is no address"),
        ("@degraaf.example", "is no address"),
        ("jan@@degraaf.example", "is no address"),
        ("jan@eva@degraaf.example", "is no address"),
        ("jan@degraaf", "has no dot"),
        ("rené@degraaf.example", "has other than plain letters before the @"),
        ("jan+krant@degraaf.example", "has a + before the @, which separates the detail of an address"),
        (".jan@degraaf.example", "is no address"),
        ("jan.@degraaf.example", "is no address"),
        ("ja..n@degraaf.example", "is no address"),
        ("'jan@degraaf.example", "is no address"),
        ("jan van@degraaf.example", "is no address"),
        ("jan|id@degraaf.example", "is no address"),
        ("jan%x@degraaf.example", "is no address"),
        ('"jan"@degraaf.example', "is no address"),
        ("{{x}}@degraaf.example", "is no address"),
        ("j" * 65 + "@degraaf.example", "is no address"),
        ("jan@" + ".".join(["a" * 60] * 4) + ".example", "is longer than 254 characters"),
        (5, "is no address"),
    ],
)
def test_address_that_is_refused(written: object, problem: str) -> None:
    with pytest.raises(Invalid) as refused:
        names.address(written)
    assert refused.value.problem == problem


def test_address_of_others() -> None:
    assert names.address("Jan+x=y#z@Elsewhere.example", outside=True) == ("jan+x=y#z", "elsewhere.example")
    for written in (
        "|/bin/sh@elsewhere.example",
        "a%b@elsewhere.example",
        "`id`@elsewhere.example",
        "a,b@elsewhere.example",
    ):
        with pytest.raises(Invalid, match="is no address"):
            names.address(written, outside=True)


@given(st.text(max_size=130))
def test_names_agree_with_the_pattern_for_editors(text: str) -> None:
    """What the pattern refuses is refused; what it lets through is at most too long or of a rare kind."""
    pattern = re.compile(names.NAME_PATTERN)
    name, problem = "", ""
    try:
        name = names.display_name(text)
    except Invalid as invalid:
        problem = invalid.problem
    if problem:
        assert not pattern.fullmatch(text) or problem.startswith(("is longer than", "has a control character"))
        return
    assert pattern.fullmatch(text)
    assert names.display_name(name) == name
    assert not set(name) & set('"\\\n\r\0')


def test_folder() -> None:
    assert names.display_name("Recepten & meer", folder=True) == "Recepten & meer"
    for written, problem in {"a/b": "has a slash", "..": "is no folder", ".": "is no folder"}.items():
        with pytest.raises(Invalid) as refused:
            names.display_name(written, folder=True)
        assert refused.value.problem == problem
    with pytest.raises(Invalid, match="is no text"):
        names.display_name(5)


def test_hashes_of_strong_schemes() -> None:
    assert names.password_hash(ARGON2) == ARGON2
    assert names.password_hash(BCRYPT) == BCRYPT


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("Welkom01", "is not the hash of a password in a known strong scheme"),
        ("{PLAIN}Welkom01", "is not the hash of a password in a known strong scheme"),
        ("{MD5}rL0Y20zC+Fzt72VPzMSk2A==", "is not the hash of a password in a known strong scheme"),
        ("{SSHA}abc", "is not the hash of a password in a known strong scheme"),
        ("$6$salt$hash", "is not the hash of a password in a known strong scheme"),
        (ARGON2.replace("argon2id", "argon2i"), "is not the hash of a password in a known strong scheme"),
        (ARGON2 + "\n", "is not the hash of a password in a known strong scheme"),
        (ARGON2.replace("m=65536", "m=4096"), "is too cheap to guess"),
        (ARGON2.replace("m=65536,t=3", "m=7168,t=4"), "is too cheap to guess"),
        (ARGON2.replace("m=65536", "m=4194304"), "costs too much at every login"),
        (ARGON2.replace("t=3", "t=99"), "costs too much at every login"),
        (ARGON2.replace("c29tZXNhbHRzb21lc2FsdA", "YQ"), "is no password hash"),
        (ARGON2.replace("c29tZXNhbHRzb21lc2FsdA", "a"), "is no password hash"),
        (BCRYPT.replace("$12$", "$04$"), "has a cost that is too low or too high"),
        (BCRYPT.replace("$12$", "$20$"), "has a cost that is too low or too high"),
        (5, "is no password hash"),
    ],
)
def test_hash_that_is_refused(written: object, problem: str) -> None:
    with pytest.raises(Invalid) as refused:
        names.password_hash(written)
    assert refused.value.problem == problem
    assert "Welkom01" not in str(refused.value)


def test_targets() -> None:
    assert names.target("group:bakkers") == ("group", "bakkers")
    with pytest.raises(Invalid, match="is no place for a call to go"):
        names.target("queue:bakkers")
    with pytest.raises(Invalid, match="is no name"):
        names.slug("De Bakkers")
