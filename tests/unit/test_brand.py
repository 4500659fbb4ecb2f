# SPDX-License-Identifier: GPL-3.0-or-later
"""What a reseller's people see is his own, can be read, and carries nothing that a browser would run."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from xml.dom import minidom

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import brand
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import Invalid
from hypothesis import given
from hypothesis import strategies as st

COLOURS = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")
SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9">{}</svg>'
DRAWING = (
    '<defs><linearGradient id="a"><stop offset="0" stop-color="#fff"/></linearGradient></defs>'
    '<style>.a { fill: url(#a); }</style><path class="a" style="fill: url(#a)" d="M0 0h9v9z"/><use xlink:href="#a"/>'
)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int = 64, height: int = 64, more: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * (width + 1) * height))
    return b"\x89PNG\r\n\x1a\n" + head + more + body + chunk(b"IEND", b"")


# --- colours ---------------------------------------------------------------------------------------------------------


def test_contrast_is_that_of_the_guideline() -> None:
    assert brand.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert brand.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert brand.contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)


@given(COLOURS)
def test_text_can_be_read_on_every_colour_and_every_colour_as_text(colour: str) -> None:
    assert brand.contrast(colour, brand.text_on(colour)) >= 4.5
    assert brand.contrast(brand.strong(colour), "#ffffff") >= 4.5


def test_a_colour_that_can_be_read_stays_as_it_is() -> None:
    assert brand.strong("#0b5394") == "#0b5394"
    assert brand.strong("#ffee00") != "#ffee00"


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1))
def test_derived_colours_are_colours_and_stay(name: str) -> None:
    assert brand.colour(brand.derived_colour(name)) == brand.derived_colour(name)


def test_derived_colours_differ() -> None:
    assert len({brand.derived_colour(f"reseller{number}") for number in range(200)}) == 200
    assert brand.distance("#0b5394", "#0b5394") == 0
    assert brand.distance("#0b5394", "#0c5495") < brand.ALIKE < brand.distance("#0b5394", "#9a3b00")


@pytest.mark.parametrize("value", ["red", "#fff", "#0b5394;", "#0b5394\n", 12, None, "#gg0000"])
def test_what_is_no_colour(value: object) -> None:
    with pytest.raises(Invalid, match=r"^is no colour; allowed: six hexadecimal digits"):
        brand.colour(value)


# --- the rest of a brand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["help@noord.example", "https://hulp.noord.example/", "https://noord.example:8443/a?b=c"]
)
def test_support_is_an_address_or_a_url(value: str) -> None:
    assert brand.support(value) == value


@pytest.mark.parametrize(
    "value",
    ["http://noord.example/", "javascript:alert(1)", 'https://a.example/"><script>', "help", "https://a.example/ b", 7],
)
def test_what_support_is_not(value: object) -> None:
    with pytest.raises(Invalid, match=r"^is neither an address nor a URL; allowed: an address such as"):
        brand.support(value)


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Noorder ICT", "NI"),
        ("Zuidwest Automatisering B.V.", "ZA"),
        ("kustwerk", "K"),
        ("Élan", "É"),
        ("& $", "?"),
        ("ß", "S"),
    ],
)
def test_monograms(title: str, expected: str) -> None:
    assert brand.monogram(title) == expected


@given(st.text())
def test_nothing_in_a_title_breaks_out_of_a_string_or_a_page(title: str) -> None:
    assert set(brand.escaped(title)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 &#;")


def test_an_escaped_title_is_still_the_title() -> None:
    title = "Jansen & Zn; \"ICT\" $uri ${x} <script>alert('1')</script> {} é"
    (page,) = minidom.parseString(f"<p>{brand.escaped(title)}</p>").childNodes
    assert page.firstChild.data == title


@pytest.mark.parametrize("title", ["Noorder ICT", "</title><script>alert(1)</script>", "&entity; \"'"])
def test_a_monogram_is_a_logo_that_would_be_admitted(title: str) -> None:
    assert brand.judged(brand.monogram_svg(title, "#0b5394").encode()) == "svg"


def test_a_stylesheet_has_three_properties() -> None:
    assert ":root { --brand: #ffee00; --brand-text: #000000; --brand-strong: " in brand.stylesheet("#ffee00")


def test_what_is_left_out_is_derived() -> None:
    assert brand.normal("noord", None) == {"logo": "", "colour": brand.derived_colour("noord"), "support": ""}
    assert brand.normal("noord", {"colour": "#ABCDEF", "logo": "/a", "support": "a@b.example"}) == {
        "logo": "/a", "colour": "#abcdef", "support": "a@b.example",
    }  # fmt: skip


def test_a_look_is_what_people_see() -> None:
    assert brand.look("Noorder  ICT", "") == brand.look("noorder ict", "")
    assert brand.look("Noorder ICT", "") != brand.look("Noorder ICT", "ab")


# --- logos -----------------------------------------------------------------------------------------------------------


def test_drawings_are_admitted(tmp_path: Path) -> None:
    assert brand.judged(SVG.format(DRAWING).encode()) == "svg"
    assert (
        brand.judged(b'<?xml version="1.0" encoding="UTF-8"?>\n<!-- by hand -->\n' + SVG.format("").encode()) == "svg"
    )
    assert brand.judged(png()) == "png"
    (tmp_path / "logo.txt").write_bytes(png())
    assert brand.logo(str(tmp_path / "logo.txt")).kind == "png"


REFUSED_SVG = {
    "script": ("<script>alert(1)</script>", "an element script"),
    "foreign object": ("<foreignObject/>", "an element foreignObject"),
    "html": ('<p xmlns="http://www.w3.org/1999/xhtml">a</p>', "an element p"),
    "image": ('<image href="https://a.example/a.png"/>', "an element image"),
    "link": ('<a href="https://a.example/">a</a>', "an element a"),
    "animation": ('<set attributeName="href" to="javascript:alert(1)"/>', "an element set"),
    "handler": ('<g onload="alert(1)"/>', "an attribute onload"),
    "handler in capitals": ('<g ONLOAD="alert(1)"/>', "an attribute ONLOAD"),
    "use from elsewhere": ('<use xlink:href="https://a.example/a.svg#a"/>', "a reference to elsewhere"),
    "data": ('<use href="data:image/svg+xml,a"/>', "a reference to elsewhere"),
    "fill from elsewhere": ('<g fill="url(https://a.example/a.svg#a)"/>', "an attribute fill that fetches something"),
    "fill with quotes": ("<g fill=\"url( '//a.example#a')\"/>", "an attribute fill that fetches something"),
    "spelt otherwise": (r'<g style="fill: u\72l(//a.example)"/>', "an attribute style that fetches something"),
    "import": ('<style>@import "https://a.example/a.css";</style>', "a style that fetches something"),
    "import in parts": ("<style>u<!-- -->rl(https://a.example/)</style>", "a style that fetches something"),
    "import in data": ("<style><![CDATA[a { fill: url(//a.example) }]]></style>", "a style that fetches something"),
    "base": ('<g xml:base="https://a.example/"/>', "an attribute base of another vocabulary"),
    "editor's data": ('<x:y xmlns:x="http://www.inkscape.org/namespaces/inkscape"/>', "an element y"),
    "depth": ("<g>" * 64 + "</g>" * 64, "too many elements"),
    "number": ("<g/>" * 20_001, "too many elements"),
    "instruction": ("<?php echo 1 ?>", "a processing instruction"),
}


@pytest.mark.parametrize(("inside", "expected"), REFUSED_SVG.values(), ids=REFUSED_SVG)
def test_what_a_drawing_must_not_hold(inside: str, expected: str) -> None:
    with pytest.raises(Invalid) as refused:
        brand.judged(SVG.format(inside).encode())
    assert refused.value.problem == f"is an SVG with {expected}"


BOMB = (
    '<!DOCTYPE svg [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    '<svg xmlns="http://www.w3.org/2000/svg"><title>&b;</title></svg>'
)
REFUSED = {
    "bomb": (BOMB.encode(), "is an SVG with a document type"),
    "style sheet": (
        b'<?xml-stylesheet href="//a.example/a.css"?>' + SVG.encode(),
        "is an SVG with a processing instruction",
    ),
    "html": (b"<html><body/></html>", "is XML, and no SVG"),
    "half": (b"<svg", "is no SVG: unclosed token: line 1, column 0"),
    "other": (b"GIF89a", "is neither an SVG nor a PNG"),
    "other encoding": (SVG.format("<script/>").encode("utf-16"), "is neither an SVG nor a PNG"),
    "nothing": (b"", "is neither an SVG nor a PNG"),
    "large": (b"<" * (256 * 1024 + 1), "is larger than 256 KiB"),
    "short": (png()[:-1], "is a PNG that ends too early"),
    "no end": (png()[:-12], "is a PNG that ends too early"),
    "damaged": (png().replace(b"IDAT", b"IDAs"), "is a damaged PNG"),
    "unknown": (png(more=chunk(b"JUNK", b"a")), "is no PNG that programs agree on"),
    "wide": (png(5000, 16), "is a PNG of 5000 by 16 pixels"),
    "small": (png(1, 1), "is a PNG of 1 by 1 pixels"),
    "more": (png() + b"<script>", "is a PNG with something behind its end"),
}


@pytest.mark.parametrize(("data", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_logo(data: bytes, expected: str) -> None:
    with pytest.raises(Invalid) as refused:
        brand.judged(data)
    assert refused.value.problem == expected


@given(st.binary(max_size=400))
def test_whatever_the_bytes_the_answer_is_a_verdict(data: bytes) -> None:
    for start in (b"", b"<svg ", png()[:20]):
        try:
            brand.judged(start + data)
        except Invalid:
            continue


def test_logos_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"^cannot be read: No such file or directory; allowed: an SVG or PNG file"):
        brand.logo(str(tmp_path / "none.svg"))
    with pytest.raises(Invalid, match=r"^is no absolute path; "):
        brand.logo("logo.svg")
