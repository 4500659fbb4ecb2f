# SPDX-License-Identifier: GPL-3.0-or-later
"""A reseller's brand: the colours, logo and style sheet that his people see, and what a logo may be. Pure but `logo`.

A brand in its normal form is `{"logo": path on the control node or "", "colour": "#rrggbb", "support": URL, address
or ""}`. What a contract leaves out is derived from the reseller's name and title, so that a new reseller has a face of
his own without anybody drawing one.
"""

from __future__ import annotations

import colorsys
import hashlib
import re
import struct
import unicodedata
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

from ansible_collections.bouwsteen.hosting.plugins.module_utils import names
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import Invalid

LOGO_MAX = 256 * 1024
# Least contrast of text (WCAG 2.2, 1.4.3).
CONTRAST = 4.5
# Two colours nearer than this are one colour to a hurried eye; in the units of `distance`.
ALIKE = 60.0

COLOUR_PATTERN = r"^#[0-9a-fA-F]{6}$"
SUPPORT_PATTERN = (
    r"^(https://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/?&=%+@:-]*)?"
    r"|[A-Za-z0-9._+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+)$"
)
COLOUR_ALLOWED = 'six hexadecimal digits after a # and between quotes, such as "#0b5394"'
SUPPORT_ALLOWED = "an address such as help@noorderict.example, or a URL that starts with https://"
LOGO_ALLOWED = "an SVG or PNG file of at most 256 KiB, by its absolute path"
SVG_ALLOWED = "an SVG drawing without scripts, foreign objects, animations, document types and anything from elsewhere"
PNG_ALLOWED = "a PNG of 16 to 4096 pixels each way"

SVG_NAMESPACE = "http://www.w3.org/2000/svg"
XLINK_NAMESPACE = "http://www.w3.org/1999/xlink"
XML_NAMESPACE = "http://www.w3.org/XML/1998/namespace"
SVG_ELEMENTS_MAX = 20_000
SVG_DEPTH_MAX = 64
# Elements that draw; what is not among them is refused. Editors' own data is in other namespaces and refused too:
# every editor can save a plain SVG.
SVG_ELEMENTS = frozenset((
    "circle", "clipPath", "defs", "desc", "ellipse", "feBlend", "feColorMatrix", "feComponentTransfer", "feComposite",
    "feFlood", "feFuncA", "feFuncB", "feFuncG", "feFuncR", "feGaussianBlur", "feMerge", "feMergeNode", "feOffset",
    "filter", "g", "line", "linearGradient", "marker", "mask", "path", "pattern", "polygon", "polyline",
    "radialGradient", "rect", "stop", "style", "svg", "switch", "symbol", "text", "textPath", "title", "tspan", "use",
))  # fmt: skip
# In CSS and in attributes: only references into the drawing itself. A backslash could spell any of these otherwise.
_ELSEWHERE = re.compile(r"@|\\|expression\s*\(|image(-set)?\s*\(|src\s*\(|javascript:|url\s*\(\s*(?!['\"]?\s*#)", re.I)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CRITICAL = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND"))


# --- colours ---------------------------------------------------------------------------------------------------------


def colour(value: object) -> str:
    """A colour in its normal form, `#rrggbb` in lower case."""
    if not isinstance(value, str) or not re.fullmatch(COLOUR_PATTERN, value):
        raise Invalid("is no colour", COLOUR_ALLOWED)
    return value.lower()


def channels(value: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255."""
    return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)


def _hex(red: float, green: float, blue: float) -> str:
    """From 0 to 1 each."""
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in (red, green, blue))


def derived_colour(name: str) -> str:
    """The colour of a reseller who chose none: always the same for a name, dark enough for white text or nearly so."""
    digest = hashlib.sha256(name.encode()).digest()
    hue = int.from_bytes(digest[:2]) / 65536
    return _hex(*colorsys.hls_to_rgb(hue, 0.28 + digest[2] / 255 * 0.14, 0.55 + digest[3] / 255 * 0.3))


def luminance(value: str) -> float:
    """Relative luminance, 0 (black) to 1 (white); WCAG 2.2."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (channel / 255 for channel in channels(value))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21; WCAG 2.2."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def text_on(value: str) -> str:
    """Black or white, whichever can be read on a colour; one of them always has a contrast of 4.58 or more."""
    return "#ffffff" if contrast(value, "#ffffff") >= CONTRAST else "#000000"


def strong(value: str) -> str:
    """The colour, darkened as far as it has to be to be read as text on white."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in channels(value)))
    result = value
    while contrast(result, "#ffffff") < CONTRAST:
        lightness = max(0.0, lightness - 0.02)
        result = _hex(*colorsys.hls_to_rgb(hue, lightness, saturation))
    return result


def distance(one: str, other: str) -> float:
    """How far two colours lie apart for the eye, 0 to about 765: the weighted distance called redmean."""
    first, second = channels(one), channels(other)
    mean = (first[0] + second[0]) / 2
    red, green, blue = (a - b for a, b in zip(first, second, strict=True))
    return float(((2 + mean / 256) * red**2 + 4 * green**2 + (2 + (255 - mean) / 256) * blue**2) ** 0.5)


# --- the brand -------------------------------------------------------------------------------------------------------


def support(value: object) -> str:
    """Where people find help: an address or a URL."""
    if not isinstance(value, str) or not re.fullmatch(SUPPORT_PATTERN, value):
        raise Invalid("is neither an address nor a URL", SUPPORT_ALLOWED)
    if "://" not in value:
        names.address(value, outside=True)
    return value


def normal(name: str, written: Mapping[str, Any] | None) -> dict[str, str]:
    """The brand of the reseller `name` from what his contract says. Raises Invalid."""
    given = written or {}
    return {
        "logo": str(given.get("logo") or ""),
        "colour": colour(str(given["colour"])) if given.get("colour") else derived_colour(name),
        "support": support(str(given["support"])) if given.get("support") else "",
    }


def look(title: str, digest: str) -> tuple[str, str]:
    """What is the same for two resellers who differ in colour at most: title, and logo (`Logo.digest` or "")."""
    return " ".join(unicodedata.normalize("NFKC", title).casefold().split()), digest


def monogram(title: str) -> str:
    """One or two capitals for a title: the first of its first two words, or of its only word."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", title))
    return "".join(word[0].upper()[:1] for word in words[:2]) or "?"


def escaped(text: str) -> str:
    """Text for HTML, XML and a double-quoted string of nginx at the same time.

    Everything but letters, digits and spaces of ASCII becomes a numeric reference, so none of `"`, `\\`, `$`, `<`, `{`
    and no line break is left, and the character set of the page does not matter. nginx expands `$` in every string and
    knows no way to write it there, which is why escaping for nginx alone would not do.
    """
    return "".join(char if char.isascii() and (char.isalnum() or char == " ") else f"&#{ord(char)};" for char in text)


def monogram_svg(title: str, value: str) -> str:
    """A square of the brand's colour with the title's monogram."""
    return (
        f'<svg xmlns="{SVG_NAMESPACE}" viewBox="0 0 64 64" width="64" height="64" role="img">'
        f"<title>{escaped(title)}</title>"
        f'<rect width="64" height="64" rx="12" fill="{value}"/>'
        f'<text x="32" y="43" text-anchor="middle" font-family="sans-serif" font-size="30" font-weight="700" '
        f'fill="{text_on(value)}">{escaped(monogram(title))}</text></svg>\n'
    )


def stylesheet(value: str) -> str:
    """The brand as custom properties of CSS."""
    return (
        "/* Made from the reseller's contract. */\n"
        f":root {{ --brand: {value}; --brand-text: {text_on(value)}; --brand-strong: {strong(value)}; }}\n"
    )


# --- logos -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Logo:
    """A logo that was looked at: `kind` is svg or png, `digest` SHA-256 of its bytes in hex."""

    path: str
    kind: str
    digest: str


def logo(path: str) -> Logo:
    """The logo at a path of the control node. Raises Invalid for what must not be served to people."""
    if not Path(path).is_absolute():
        raise Invalid("is no absolute path", LOGO_ALLOWED)
    try:
        with Path(path).open("rb") as file:
            data = file.read(LOGO_MAX + 1)
    except OSError as error:
        raise Invalid(f"cannot be read: {error.strerror}", LOGO_ALLOWED) from None
    return Logo(path, judged(data), hashlib.sha256(data).hexdigest())


def judged(data: bytes) -> str:
    """What kind of logo these bytes are, by what they hold and not by a name. Raises Invalid."""
    if len(data) > LOGO_MAX:
        raise Invalid("is larger than 256 KiB", LOGO_ALLOWED)
    if data.startswith(_PNG_SIGNATURE):
        _png(data)
        return "png"
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        _Svg().read(data)
        return "svg"
    raise Invalid("is neither an SVG nor a PNG", LOGO_ALLOWED)


def _png(data: bytes) -> None:
    """Walks a PNG's chunks (RFC 2083, W3C PNG 3): sound, of a sensible size, and nothing behind its end."""
    place, seen = len(_PNG_SIGNATURE), 0
    while True:
        if place + 12 > len(data):
            raise Invalid("is a PNG that ends too early", PNG_ALLOWED)
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        end = place + 12 + length
        if end > len(data):
            raise Invalid("is a PNG that ends too early", PNG_ALLOWED)
        if zlib.crc32(data[place + 4 : end - 4]) != struct.unpack(">I", data[end - 4 : end])[0]:
            raise Invalid("is a damaged PNG", PNG_ALLOWED)
        if (seen == 0) != (kind == b"IHDR") or (kind[:1].isupper() and kind not in _PNG_CRITICAL):
            raise Invalid("is no PNG that programs agree on", PNG_ALLOWED)
        if seen == 0:
            width, height = struct.unpack(">II", data[place + 8 : place + 16]) if length == 13 else (0, 0)
            if not (16 <= width <= 4096 and 16 <= height <= 4096):
                raise Invalid(f"is a PNG of {width} by {height} pixels", PNG_ALLOWED)
        place, seen = end, seen + 1
        if kind == b"IEND":
            break
    if place != len(data):
        raise Invalid("is a PNG with something behind its end", PNG_ALLOWED)


class _Svg:
    """Reads an SVG and refuses everything that is not known to draw: an allow-list, as deny-lists age.

    Expat is used directly: no document type is admitted, so there are no entities to expand and nothing to fetch.
    """

    def __init__(self) -> None:
        self.open: list[str] = []
        self.count = 0
        self.style = ""

    def read(self, data: bytes) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartDoctypeDeclHandler = lambda *_: _refuse("a document type")
        parser.EntityDeclHandler = lambda *_: _refuse("an entity")
        parser.ProcessingInstructionHandler = lambda *_: _refuse("a processing instruction")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            raise Invalid(f"is no SVG: {error}", SVG_ALLOWED) from None

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        if not self.open and (namespace, local) != (SVG_NAMESPACE, "svg"):
            raise Invalid("is XML, and no SVG", SVG_ALLOWED)
        if namespace != SVG_NAMESPACE or local not in SVG_ELEMENTS or "style" in self.open:
            _refuse(f"an element {local}")
        self.open.append(local)
        self.count += 1
        if self.count > SVG_ELEMENTS_MAX or len(self.open) > SVG_DEPTH_MAX:
            _refuse("too many elements")
        for attribute, value in attributes.items():
            _attribute(attribute, value)

    def _text(self, text: str) -> None:
        if self.open[-1] == "style":
            self.style += text

    def _end(self, _: str) -> None:
        # As a whole: comments within it would split what is looked for.
        if self.open.pop() == "style" and _ELSEWHERE.search(self.style):
            _refuse("a style that fetches something")


def _attribute(name: str, value: str) -> None:
    namespace, _, local = name.rpartition(" ")
    if namespace not in ("", XLINK_NAMESPACE, XML_NAMESPACE) or (namespace == XML_NAMESPACE and local == "base"):
        _refuse(f"an attribute {local} of another vocabulary")
    if local.lower().startswith("on"):
        _refuse(f"an attribute {local}")
    if local == "href" and not value.strip().startswith("#"):
        _refuse("a reference to elsewhere")
    if _ELSEWHERE.search(value):
        _refuse(f"an attribute {local} that fetches something")


def _refuse(what: str) -> None:
    raise Invalid(f"is an SVG with {what}", SVG_ALLOWED)
