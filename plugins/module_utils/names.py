# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of things: domains, addresses, logins, people's names, password hashes. What is allowed, and the normal form.

Every function takes what YAML gave and either returns the normal form or raises `Invalid`, which says what is allowed.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
import unicodedata

from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import Invalid

# A name in paths, references and the directory: of a reseller, customer, group, product.
SLUG_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
PRODUCT_PATTERN = r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$"
# Deliberately wide: editors show it while typing; `domain` and `address` below decide.
DOMAIN_PATTERN = r"^[^\s@:/\u0022'{}\\\u0000-\u0020]+\.[^\s@:/\u0022'{}\\\u0000-\u0020]+$"
ADDRESS_PATTERN = (
    r"^[^\s@\u0022<>{}\\\u0000-\u0020]+@[^\s@:/\u0022'{}\\\u0000-\u0020]+\.[^\s@:/\u0022'{}\\\u0000-\u0020]+$"
)
# An external address may hold what RFC 5321 allows without quotes, so also braces, but never two that make a template.
_TEMPLATE = r"(?!.*(\{\{|\}\}|\{%|%\}|\{#))"
FORWARD_PATTERN = (
    rf"^{_TEMPLATE}[^\s@\u0022<>\\\u0000-\u0020]+"
    r"@[^\s@:/\u0022'{}\\\u0000-\u0020]+\.[^\s@:/\u0022'{}\\\u0000-\u0020]+$"
)
# People's names as they are: every letter of every script, apostrophes, hyphens, dots. Not: what breaks a header, a
# line or a quoted string, turns the direction of writing, or looks like a template.
NAME_PATTERN = (
    rf"^(?!\s)(?!.*\s$){_TEMPLATE}"
    r"[^\u0022\\\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ue000-\uf8ff]+$"
)
FOLDER_PATTERN = NAME_PATTERN.replace("[^", "[^/")
HASH_PATTERN = r"^\{(ARGON2ID|BLF-CRYPT)\}\$[a-zA-Z0-9./+$=,]+$"
TARGET_PATTERN = r"^(user|voicemail|group|extension):[^\s\u0022{}\\\u0000-\u0020]+$"
HOST_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$"
IMAGE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._+~-]{0,99}$"
PATH_PATTERN = r"^[^\u0000-\u001f\u007f]+$"

SLUG_ALLOWED = "1 to 63 lower-case letters, digits and hyphens, such as bakkerij-de-graaf"
PRODUCT_ALLOWED = "1 to 63 lower-case letters, digits, hyphens and underscores, such as mailbox_1g"
DOMAIN_ALLOWED = "a domain, such as degraaf.example"
ADDRESS_ALLOWED = "an address, such as jan@degraaf.example"
NAME_ALLOWED = (
    "1 to 120 characters of any script, without double quotes, backslashes, line breaks, control characters, "
    "characters that turn the direction of writing, {{, }} or {%"
)
FOLDER_ALLOWED = NAME_ALLOWED.replace("double quotes", "slashes, double quotes")
HASH_ALLOWED = (
    '"{ARGON2ID}$argon2id$..." or "{BLF-CRYPT}$2y$..." between quotes, or that value from ansible-vault encrypt_string'
)
TARGET_ALLOWED = "user:LOGIN, voicemail:LOGIN, group:NAME or extension:NUMBER of this customer"
HOST_ALLOWED = "the name of a machine in the inventory"
IMAGE_ALLOWED = 'the name of an image between quotes, such as "22.10.1-20261030"'
PATH_ALLOWED = 'a folder, such as "{{ inventory_dir }}/../../customers/noorderict"'

# Labels below a reseller's own domain that the site serves itself.
SERVICE_LABELS = frozenset((
    "account", "autoconfig", "autodiscover", "caldav", "carddav", "dav", "files", "imap", "mail", "mta-sts", "mx",
    "pbx", "pop", "provision", "sieve", "sip", "sips", "smtp", "stun", "submission", "turn", "verify", "webmail",
))  # fmt: skip
# Names of customers that the site uses for its own hidden user.
RESERVED_CUSTOMERS = frozenset(("probe", "verify"))

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LOCAL = re.compile(r"[a-z0-9_][a-z0-9_'-]*(\.[a-z0-9_'-]+)*")
_FORWARD_LOCAL = re.compile(r"[a-z0-9!#$&'*+/=?^_{}~-]+(\.[a-z0-9!#$&'*+/=?^_{}~-]+)*")
# Letters that IDNA 2003 (the standard library's) and IDNA 2008 (the registries') turn into different domains.
_DEVIATIONS = re.compile("[ßςẞ‌‍]")
_ARGON2ID = re.compile(
    r"\{ARGON2ID\}\$argon2id\$v=19\$m=([0-9]{1,8}),t=([0-9]{1,3}),p=([0-9]{1,3})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)"
)
_BCRYPT = re.compile(r"\{BLF-CRYPT\}\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")


def slug(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(SLUG_PATTERN, value):
        raise Invalid("is no name", SLUG_ALLOWED)
    return value


@functools.lru_cache(maxsize=65536)
def domain(value: str) -> str:
    """A domain in lower case, its labels with other than ASCII letters as A-labels (RFC 5890): `bäcker.example` and
    `xn--bcker-gra.example` are one domain. The length rules are those of RFC 1035."""
    if value.endswith("."):
        raise Invalid("ends with a dot", DOMAIN_ALLOWED)
    if _DEVIATIONS.search(value):
        raise Invalid("has a letter that registries write in more than one way", "the domain's xn-- form")
    try:
        labels = [_label(label) for label in value.split(".")]
    except (UnicodeError, ValueError):
        raise Invalid("is no domain", DOMAIN_ALLOWED) from None
    name = ".".join(labels)
    if len(labels) < 2:
        raise Invalid("has no dot", DOMAIN_ALLOWED)
    if len(name) > 253 or labels[-1].isdigit() or not all(_LABEL.fullmatch(label) for label in labels):
        raise Invalid("is no domain", DOMAIN_ALLOWED)
    return name


def _label(label: str) -> str:
    lower = label.lower()
    if lower.startswith("xn--"):
        # An A-label that does not come back the same would be a second spelling of some domain.
        text = lower[4:].encode("ascii").decode("punycode")
        spelt = unicodedata.normalize("NFC", text.lower()) == text and text.encode("punycode") == lower[4:].encode()
        if text.isascii() or not spelt or any(unicodedata.category(char)[0] not in "LMNP" for char in text):
            raise ValueError(label)
        return lower
    return lower if lower.isascii() else _label(label.encode("idna").decode("ascii"))


def address(value: object, *, outside: bool = False) -> tuple[str, str]:
    """An address as its local part and domain, both in lower case, the domain as A-labels.

    Here local parts keep to letters, digits and . _ - ' (`+` separates the detail of an address). `outside`: an address
    that others made, such as a forward's target, may have any dot-atom of RFC 5321 but | % and backtick, which some
    mail servers take for commands or routes.
    """
    if not isinstance(value, str) or value.count("@") != 1:
        raise Invalid("is no address", ADDRESS_ALLOWED)
    local, _, name = value.lower().partition("@")
    if not local.isascii():
        raise Invalid("has other than plain letters before the @", "a to z, 0 to 9 and . _ - ' before the @")
    if "+" in local and not outside:
        raise Invalid("has a + before the @, which separates the detail of an address", ADDRESS_ALLOWED)
    if len(local) > 64 or not (_FORWARD_LOCAL if outside else _LOCAL).fullmatch(local):
        allowed = "a to z, 0 to 9 and . _ - ' before the @, a letter or digit first, no dot last"
        raise Invalid("is no address", ADDRESS_ALLOWED if outside else allowed)
    result = domain(name)
    if len(local) + 1 + len(result) > 254:
        raise Invalid("is longer than 254 characters", ADDRESS_ALLOWED)
    return local, result


def display_name(value: object, *, folder: bool = False) -> str:
    """A name for people, as they write it, in Unicode's composed form (NFC), so that one name has one spelling."""
    allowed = FOLDER_ALLOWED if folder else NAME_ALLOWED
    if not isinstance(value, str):
        raise Invalid("is no text", allowed)
    text = unicodedata.normalize("NFC", value)
    if not text.strip():
        raise Invalid("is empty", allowed)
    if any(part in text for part in ("{{", "}}", "{%", "%}", "{#")):
        raise Invalid("looks like a template", allowed)
    for char in text:
        if char in '"\\' or (folder and char == "/"):
            raise Invalid(f"has a {CHARACTERS[char]}", allowed)
        if char in "\n\r\u0085\u2028\u2029":
            raise Invalid("has a line break", allowed)
        if char in _TURNING:
            raise Invalid(f"has a character that turns the direction of writing (U+{ord(char):04X})", allowed)
        if char in _INVISIBLE or unicodedata.category(char) in ("Cc", "Cs", "Co"):
            raise Invalid(f"has a control character (U+{ord(char):04X})", allowed)
    if text != text.strip():
        raise Invalid("starts or ends with a space", allowed)
    if folder and text in (".", ".."):
        raise Invalid("is no folder", allowed)
    if len(text) > 120:
        raise Invalid("is longer than 120 characters", allowed)
    return text


CHARACTERS = {'"': "double quote", "\\": "backslash", "/": "slash"}
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_INVISIBLE = frozenset("\u200b\u2060\u2061\u2062\u2063\u2064\u2065\ufeff\ufff9\ufffa\ufffb")


def password_hash(value: object) -> str:
    """A password's hash of a scheme that resists guessing, within costs that a mail server can bear at every login.

    argon2id (RFC 9106) with at least 7 MiB and at most 1 GiB, bcrypt with a cost of 10 to 14.
    """
    if not isinstance(value, str):
        raise Invalid("is no password hash", HASH_ALLOWED)
    if found := _ARGON2ID.fullmatch(value):
        memory, passes, lanes = (int(found[group]) for group in (1, 2, 3))
        # The weakest of the equivalent settings in OWASP's password storage guide is m=7168,t=5.
        if memory < 7168 or memory * passes < 7168 * 5:
            raise Invalid("is too cheap to guess", "argon2id with at least m=19456,t=2,p=1")
        if memory > 1024 * 1024 or passes > 16 or not 1 <= lanes <= 16:
            raise Invalid("costs too much at every login", "argon2id with at most m=1048576,t=16,p=16")
        salt, digest = (_base64(found[group]) for group in (4, 5))
        if len(salt) < 8 or not 16 <= len(digest) <= 128:
            raise Invalid("is no password hash", HASH_ALLOWED)
        return value
    if found := _BCRYPT.fullmatch(value):
        if not 10 <= int(found[1]) <= 14:
            raise Invalid("has a cost that is too low or too high", "bcrypt with a cost of 10 to 14")
        return value
    raise Invalid("is not the hash of a password in a known strong scheme", HASH_ALLOWED)


def _base64(text: str) -> bytes:
    """Base64 without padding, as password hashes have it; empty when it is none."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


def target(value: object) -> tuple[str, str]:
    """Where a call goes: `group:bakkers` as `("group", "bakkers")`."""
    if not isinstance(value, str) or not re.fullmatch(TARGET_PATTERN, value):
        raise Invalid("is no place for a call to go", TARGET_ALLOWED)
    kind, _, name = value.partition(":")
    return kind, name
