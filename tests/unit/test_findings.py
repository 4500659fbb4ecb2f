# SPDX-License-Identifier: GPL-3.0-or-later
"""How findings read: sorted, counted, without secrets, and harmless to the terminal that shows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import findings
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import Document, Finding
from hypothesis import given
from hypothesis import strategies as st


def test_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    full = Finding(f"{tmp_path}/c/a.yml", 3, "users[0].login", '"x"', "is no address", "an address")
    assert str(full) == 'c/a.yml:3: users[0].login: is no address (found "x"); allowed: an address'
    assert (
        str(Finding("/elsewhere/a.yml", 0, "", "", "is empty", "a file"))
        == "/elsewhere/a.yml: is empty; allowed: a file"
    )


def test_file_name_is_escaped() -> None:
    assert str(Finding("/x/\x1b[2J\n.yml", 1, "", "", "p", "a")) == "/x/\\x1b[2J\\n.yml:1: p; allowed: a"


@given(st.text())
def test_nothing_shown_moves_the_cursor(text: str) -> None:
    for shown in (findings.shown(text), findings.printable(text), findings.key_text(("a", text, 3))):
        assert shown.isprintable()


@pytest.mark.parametrize(
    ("value", "key", "text"),
    [
        (None, "", "nothing"),
        ({}, "", "an empty mapping"),
        ({"a": 1}, "", "a mapping"),
        ([], "", "an empty list"),
        ([1], "", "a list"),
        (True, "", "true"),
        (False, "", "false"),
        (5, "", "5"),
        ("a", "", '"a"'),
        ("x" * 200, "", '"' + "x" * 96 + "..."),
        ("Welkom01", "password", "a hidden value"),
        ("Welkom01", "Wachtwoord", "a hidden value"),
        ("Welkom01", "smtp_secret", "a hidden value"),
        ("Welkom01", 5, '"Welkom01"'),
    ],
)
def test_shown(value: object, key: object, text: str) -> None:
    assert findings.shown(value, key) == text


def test_did_you_mean() -> None:
    assert findings.did_you_mean("usrs", ["users", "groups"]) == '; did you mean "users"?'
    assert findings.did_you_mean("zzz", ["users", "groups"]) == ""


def test_listing() -> None:
    assert findings.listing([]) == "none"
    assert findings.listing(["b", "a"]) == "a, b"
    assert findings.listing([str(number) for number in range(10, 50)], at_most=2) == "10, 11 and 38 more"
    assert findings.listing(["x"] * 3000) == "one of 3000"


def test_report_is_sorted_counted_and_cut() -> None:
    some = [
        Finding("/b.yml", 2, "k", "", "p", "a"),
        Finding("/a.yml", 10, "k", "", "p", "a"),
        Finding("/a.yml", 9, "k", "", "p", "a"),
    ]
    assert findings.report([*some, some[0]]).split("\n") == [
        "3 errors in 2 files:",
        "/a.yml:9: k: p; allowed: a",
        "/a.yml:10: k: p; allowed: a",
        "/b.yml:2: k: p; allowed: a",
    ]
    assert findings.report(some[:1]).split("\n")[0] == "1 error in 1 file:"
    assert findings.report(some, at_most=1).split("\n") == [
        "3 errors in 2 files:",
        "/a.yml:9: k: p; allowed: a",
        "... and 2 more",
    ]


def test_prune_keeps_the_places_of_others() -> None:
    data = {"a": [1, {"b": 2}, 3], "c": 4}
    findings.prune(data, ("a", 0))
    findings.prune(data, ("a", 1, "b"))
    findings.prune(data, ("c",))
    findings.prune(data, ("d", "e"))
    findings.prune(data, ())
    assert data == {"a": [None, {}, 3]}


def test_a_document_says_where_its_values_stand() -> None:
    with pytest.raises(NotImplementedError):
        Document().place(())
    assert Document().is_sound
