# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501 -- one message is one line, as the operator reads it
"""Reading strangers' YAML: the same data as PyYAML's safe loader gives, with both parsers, and nothing besides data."""

from __future__ import annotations

import datetime
import gc
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.bouwsteen.hosting.plugins.module_utils import source
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import Invalid
from hypothesis import given
from hypothesis import strategies as st

PARSERS = {"libyaml": source.FAST_PARSER, "python": source.SLOW_PARSER}

# What PyYAML's safe loader and this one read alike.
ALIKE = """\
plain: text
number: 12
negative: -3
plus: +4
fraction: 1.5
exponent: 1.5e+3
yes_is_true: yes
on_is_true: On
no_is_false: NO
y_is_text: y
n_is_text: n
nothing:
tilde: ~
null_is_nothing: Null
almost_null: nULL
words: true story
empty: ""
single: 'it''s'
double: "a\\tb\\u00e9"
folded: >
  one
  two
literal: |
  one
  two
flow: {a: [1, {b: c}], "d": 'e'}
list:
- a
-
  - b
- {}
- []
version: 1.2.3
time: "12:30"
minus: "-"
dash-key: mon-fri
equals: a=b
é: ĳ
"quoted key": x
? explicit
: y
url: https://example.example/#x
comment: a # not read
hash: a#b
"""


@pytest.fixture(params=PARSERS.values(), ids=PARSERS)
def parser(request: pytest.FixtureRequest) -> Any:
    return request.param


def problems(text: str | bytes, **options: Any) -> list[str]:
    read = source.parse("a.yml", text if isinstance(text, bytes) else text.encode(), **options)
    return [str(finding) for finding in read.results()[0]]


def test_libyaml_is_used() -> None:
    assert source.FAST_PARSER is yaml.CSafeLoader


def test_reads_what_the_safe_loader_reads(parser: Any) -> None:
    assert source.parse("a.yml", ALIKE.encode(), parser=parser).data == yaml.load(ALIKE, Loader=yaml.CSafeLoader)


def test_the_project_s_own_files(parser: Any) -> None:
    folder = Path(__file__).resolve().parents[2] / "customers"
    files = sorted(folder.rglob("*.yml"))
    assert len(files) >= 8
    for file in files:
        wanted = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
        assert source.parse("a.yml", file.read_bytes(), parser=parser).data == _without_dates(wanted)


def _without_dates(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_dates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_dates(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=8), JSON, min_size=1, max_size=4), st.booleans())
def test_reads_what_was_written(data: dict[str, Any], flow: bool) -> None:
    text = yaml.dump(data, Dumper=yaml.SafeDumper, default_flow_style=flow, allow_unicode=True)
    fast = source.parse("a.yml", text.encode(errors="surrogatepass"))
    slow = source.parse("a.yml", text.encode(errors="surrogatepass"), parser=source.SLOW_PARSER)
    assert fast.data == slow.data
    if fast.findings or slow.findings:
        # Only what is refused on purpose, and by both.
        assert fast.findings
        assert slow.findings
    else:
        assert fast.data == data


@given(st.text(alphabet="ab:- \n[]{}'\"#&*!|>?,%@`0123456789.\\~", max_size=60))
def test_both_parsers_agree_on_anything(text: str) -> None:
    fast = source.parse("a.yml", text.encode())
    slow = source.parse("a.yml", text.encode(), parser=source.SLOW_PARSER)
    if not fast.findings and not slow.findings:
        assert fast.data == slow.data


@given(st.text(alphabet="0123456789+-._:exob", min_size=1, max_size=12))
def test_scalars_are_read_as_by_the_safe_loader_or_refused(text: str) -> None:
    try:
        wanted = yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError):
        return
    try:
        found = source.plain_scalar(text)
    except Invalid:
        assert isinstance(wanted, int | float)
        return
    if isinstance(wanted, datetime.date):
        assert found == text
    elif isinstance(wanted, str | int | float | bool | None):
        assert found == wanted
        assert type(found) is type(wanted)


ODD = {
    "octal": ("0101", "is read by YAML as the number 65"),
    "hexadecimal": ("0x1F", "is read by YAML as the number 31"),
    "binary": ("0b11", "is read by YAML as the number 3"),
    "underscores": ("1_000", "is read by YAML as the number 1000"),
    "base 60": ("8:30", "is read by YAML as the number 510"),
    "base 60 with a fraction": ("8:30.5", "is read by YAML as a number"),
    "infinite": (".inf", "is read by YAML as a number"),
    "no number": (".NaN", "is read by YAML as a number"),
    "very many digits": ("0x" + "f" * 100, "is read by YAML as the number of very many digits"),
    "more digits than can be read": ("1" * 5000, "is read by YAML as the number of more digits than can be read"),
    "merge": ("<<", "is YAML's sign for merging mappings, which is not read here"),
}


@pytest.mark.parametrize(("text", "problem"), ODD.values(), ids=ODD)
def test_odd_scalars(text: str, problem: str, parser: Any) -> None:
    with pytest.raises(Invalid) as refused:
        source.plain_scalar(text)
    assert refused.value.problem == problem
    read = source.parse("a.yml", f"a:\n  b: [x, {text}]\n".encode(), parser=parser)
    finding = read.findings[0]
    assert (finding.line, finding.key, finding.problem) == (2, "a.b[1]", problem)


REFUSED = {
    "anchor": ("a: &x b\n", "a.yml:1: a: has an anchor, which is not read here (found &x); allowed: the value itself"),
    "anchor of a list": ("a: &x [b]\n", "a.yml:1: a: has an anchor, which is not read here (found &x); allowed: the value itself"),
    "alias of a key": ("a: &x b\n*x : c\n", "a.yml:1: a: has an anchor, which is not read here (found &x); allowed: the value itself"),
    "tag": ("a: !!str 5\n", "a.yml:1: a: has a tag, which is not read here (found !!str); allowed: the value itself"),
    "own tag": ("a: !x [5]\n", "a.yml:1: a: has a tag, which is not read here (found !x); allowed: the value itself"),
    "vault at another key": ("a: !vault x\n", "a.yml:1: a: has a tag, which is not read here (found !vault); allowed: the value itself"),
    "tag on quotes": ("a: !y 'x'\n", "a.yml:1: a: has a tag, which is not read here (found !y); allowed: the value itself"),
    "key twice": ("a: 1\nb: 2\na: 3\n", "a.yml:3: a: is written twice; allowed: one of them: the first is on line 1"),
    "key twice deeper": ("a:\n - {b: 1, b: 2}\n", "a.yml:2: a[0].b: is written twice; allowed: one of them: the first is on line 2"),
    "number as key": ("101: a\n", "a.yml:1: has a key that YAML does not read as text (found 101); allowed: quotes around the key"),
    "list as key": ("? [a]\n: b\n", "a.yml:1: has a key that is no text; allowed: keys that are text"),
    "second document": ("a: b\n--- \nc: d\n", "a.yml:2: has a second document; allowed: one document: no second line of ---"),
    "too deep": ("a: " + "{b: " * 20 + "1" + "}" * 20, "a.yml:1: is nested more than 16 levels deep; allowed: at most 16 levels"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(text: str, message: str, parser: Any) -> None:
    assert problems(text, parser=parser)[0] == message


def test_half_a_character(parser: Any) -> None:
    """libyaml refuses it by itself; the other parser would make text of it that cannot be encoded."""
    found = problems('a: "\\ud800"\n', parser=parser)
    assert len(found) == 1
    assert ("is not YAML" in found[0]) or ("has half a character (a lone surrogate)" in found[0])


def test_bomb_costs_nothing(parser: Any) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    start = time.monotonic()
    found = problems("\n".join(lines), parser=parser)
    assert time.monotonic() - start < 15
    # The rest is not even counted: reading stops at a hundred.
    assert len(found) == source.MOST_FINDINGS


def test_deep_nesting_costs_nothing(parser: Any) -> None:
    start = time.monotonic()
    assert "nested" in problems("a: " + "[" * 100_000, parser=parser)[0]
    assert time.monotonic() - start < 15


def test_collector_is_as_it_was() -> None:
    assert gc.isenabled()
    source.parse("a.yml", b"a: b\n")
    assert gc.isenabled()
    gc.disable()
    try:
        source.parse("a.yml", b"a: b\n")
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_byte_order_mark_and_dos_line_ends(parser: Any) -> None:
    read = source.parse("a.yml", b"\xef\xbb\xbfa: b\r\nc:\r\n  - d\r\n", parser=parser)
    assert read.data == {"a": "b", "c": ["d"]}
    assert read.place(("c", 0)) == ("a.yml", 3, "d")


def test_places() -> None:
    read = source.parse(
        "a.yml", b"a: b\nusers:\n  - login: x\n    mail:\n      quota: 010\n      list: [1,\n        2]\n"
    )
    assert read.place(("users", 0, "login")) == ("a.yml", 3, "x")
    assert read.place(("users", 0, "mail", "list", 1)) == ("a.yml", 7, "2")
    assert read.place(("users", 0, "nonsense", "more")) == ("a.yml", 3, None)
    assert read.place(("users", 7)) == ("a.yml", 2, None)
    assert read.place(()) == ("a.yml", 1, None)


def test_values_are_shown_as_written_and_secrets_not_at_all() -> None:
    read = source.parse("a.yml", b"a: +0\nb: No\nc: ~\npassword: 5\nd: [1]\n")
    for key in ("a", "b", "c", "password", "d", "e"):
        read.report((key,), "p", "x")
    read.report(("a",), "q", "x", "other")
    read.report(("a",), "r", "x", None)
    assert [str(finding) for finding in read.results()[0]] == [
        "a.yml:1: a: p (found +0); allowed: x",
        "a.yml:2: b: p (found No); allowed: x",
        "a.yml:3: c: p (found ~); allowed: x",
        "a.yml:4: password: p (found a hidden value); allowed: x",
        "a.yml:5: d: p (found a list); allowed: x",
        "a.yml:1: e: p (found nothing); allowed: x",
        'a.yml:1: a: q (found "other"); allowed: x',
        "a.yml:1: a: r; allowed: x",
    ]


VAULTED = b"users:\n  - password_hash: !vault |\n      $ANSIBLE_VAULT;1.1;AES256\n      6162\n"


def test_vaulted_hash() -> None:
    def decrypt(data: bytes) -> bytes:
        assert data == b"$ANSIBLE_VAULT;1.1;AES256\n6162\n"
        return b"{ARGON2ID}secret\n"

    read = source.parse("a.yml", VAULTED, decrypt=decrypt)
    assert read.data == {"users": [{"password_hash": "{ARGON2ID}secret"}]}
    assert read.findings == []


def test_vaulted_hash_that_cannot_be_read() -> None:
    def fail(data: bytes) -> bytes:
        raise ValueError(f"wrong password for {data!r}")

    allowed = "allowed: a value made with ansible-vault encrypt_string and a vault password that this run was given"
    where = "a.yml:2: users[0].password_hash: is vaulted, and"
    assert problems(VAULTED) == [f"{where} no vault password was given; {allowed}"]
    assert problems(VAULTED, decrypt=fail) == [f"{where} cannot be decrypted; {allowed}"]


def test_file_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "a.yml"
    file.write_bytes(b"a: b\n")
    real = source.os.fstat

    def smaller(descriptor: int) -> Any:
        status = list(real(descriptor))
        status[6] = 1
        return source.os.stat_result(status)

    monkeypatch.setattr(source.os, "fstat", smaller)
    found = source.read(str(file), str(tmp_path), largest=4).findings
    assert [str(finding) for finding in found] == [
        "a.yml: is too large (found more than 4 bytes); allowed: at most 4 bytes"
    ]


def test_folder_with_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MOST_FILES", 2)
    for name in "abc":
        (tmp_path / f"{name}.yml").write_text("a: b\n")
    read = list(source.read_folder(str(tmp_path)))
    assert [file.data for file in read] == [{"a": "b"}, {"a": "b"}, None]
    assert read[2].findings[0].problem == "has too many or too large files"
    assert read[2].findings[0].allowed == "at most 2 files with 512 MiB together"


def test_many_users_are_read_fast() -> None:
    """50,000 users are a few seconds of reading; this bounds a tenth of them generously, for slow machines."""
    user = '  - {{login: u{0}@x.example, name: Jan {0}, mail: {{aliases: [a{0}@x.example]}}, phone: {{extension: "{0}"}}}}\n'
    text = "users:\n" + "".join(user.format(n) for n in range(5000))
    start = time.monotonic()
    read = source.parse("a.yml", text.encode())
    ours = time.monotonic() - start
    start = time.monotonic()
    wanted = yaml.load(text, Loader=yaml.CSafeLoader)
    theirs = time.monotonic() - start
    assert read.data == wanted
    assert ours < max(2 * theirs, 1)
