# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes, money, times and telephone numbers as people write them, and as the rest of the code uses them.

Every function takes what YAML gave and either returns the normal form or raises `Invalid`, which says what is allowed.
"""

from __future__ import annotations

import datetime
import re
from decimal import Decimal

from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import Invalid

SIZE_UNITS = {
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50,
}  # fmt: skip
# PostgreSQL's bigint.
LARGEST = 2**63 - 1

SIZE_PATTERN = r"^(0|[0-9]{1,15}(\.[0-9]{1,3})? ?([kMGTP]B|[KMGTP]iB))$"
MONEY_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,6})?$"
HOURS_PATTERN = r"^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"
DATE_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
EXTENSION_PATTERN = r"^[1-9][0-9]{1,5}$"
NUMBER_PATTERN = r"^(\+|0|\(0)[0-9() .-]{5,25}$"
MAC_PATTERN = r"^[0-9A-Fa-f]{2}([:-]?[0-9A-Fa-f]{2}){5}$"

SIZE_ALLOWED = '0, or a number with kB, MB, GB, TB (thousands) or KiB, MiB, GiB, TiB (1024s), such as "10 GiB"'
MONEY_ALLOWED = 'an amount between quotes, such as "250.00", or 0'
HOURS_ALLOWED = 'a time from and to between quotes, such as "08:00-17:30"'
DATE_ALLOWED = "a day as year-month-day, such as 2026-12-25"
EXTENSION_ALLOWED = 'two to six digits between quotes, not starting with 0, such as "101"'
NUMBER_ALLOWED = 'a telephone number between quotes, such as "+31318000101" or "0318-000101"'
MAC_ALLOWED = 'a hardware address between quotes, such as "00:15:65:aa:bb:cc"'

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# The country that a number without + or 00 belongs to.
HOME = "31"
# What a device may dial that must never be taken by an extension: emergency, suicide prevention, police.
EMERGENCY = "112"
SHORT_NUMBERS = ("113", "144")


def size(value: object) -> int:
    """`"2 TiB"`, `"500 MB"` or `0` as bytes; a fraction of a byte is dropped."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value == 0:
            return 0
        raise Invalid("is negative" if value < 0 else "has no unit", SIZE_ALLOWED)
    if not isinstance(value, str) or not re.fullmatch(SIZE_PATTERN, value):
        raise Invalid("is no size", SIZE_ALLOWED)
    if value == "0":
        return 0
    amount, unit = re.fullmatch(r"([0-9.]+) ?(.+)", value).groups()  # type: ignore[union-attr]
    result = int(Decimal(amount) * SIZE_UNITS[unit])
    if result > LARGEST:
        raise Invalid("is too large", "at most 8191 PiB")
    return result


def money(value: object) -> str:
    """`"250"` as a decimal string of at least two decimals, `"250.00"`; never through floating point."""
    if isinstance(value, float):
        raise Invalid("is a floating point number, which loses cents: put quotes around it", MONEY_ALLOWED)
    if isinstance(value, int) and not isinstance(value, bool) and value:
        raise Invalid("is a number: put quotes around it", MONEY_ALLOWED)
    if isinstance(value, bool) or not isinstance(value, int | str) or not re.fullmatch(MONEY_PATTERN, str(value)):
        raise Invalid("is no amount of money", MONEY_ALLOWED)
    whole, _, cents = str(value).partition(".")
    return f"{int(whole)}.{cents.rstrip('0').ljust(2, '0')}"


def human_size(octets: int) -> str:
    """Bytes for people: the largest 1024 unit that gives a whole number or one decimal; `0` is `0`."""
    for unit in ("PiB", "TiB", "GiB", "MiB", "KiB"):
        step = SIZE_UNITS[unit]
        if octets >= step:
            number = octets / step
            return f"{number:.0f} {unit}" if number == int(number) else f"{number:.1f} {unit}"
    return f"{octets} bytes" if octets else "0"


def hours(value: object) -> tuple[str, str]:
    """`"08:00-17:30"` as its two ends; the second is later than the first."""
    if not isinstance(value, str) or not re.fullmatch(HOURS_PATTERN, value):
        raise Invalid("is no time of day", HOURS_ALLOWED)
    start, end = value.split("-")
    if start >= end:
        raise Invalid("ends before it starts", HOURS_ALLOWED)
    return start, end


def date(value: object) -> str:
    """A day of the calendar, as ISO 8601."""
    try:
        if isinstance(value, str) and re.fullmatch(DATE_PATTERN, value):
            return datetime.date.fromisoformat(value).isoformat()
    except ValueError:
        raise Invalid("is not in the calendar", DATE_ALLOWED) from None
    raise Invalid("is no date", DATE_ALLOWED)


def days(value: str) -> list[int]:
    """`"mon-fri"` or `"sat"` as numbers of days, Monday being 0; a range may run over the weekend."""
    first, _, last = value.partition("-")
    if first not in DAYS or (last or first) not in DAYS:
        raise Invalid("is no day of the week", f"{', '.join(DAYS)}, or a range such as mon-fri")
    start, end = DAYS.index(first), DAYS.index(last or first)
    return [(start + step) % 7 for step in range((end - start) % 7 + 1)]


def extension(value: object) -> str:
    """An internal number; what a person must be able to dial in an emergency is nobody's extension."""
    if not isinstance(value, str) or not re.fullmatch(EXTENSION_PATTERN, value):
        raise Invalid("is no extension", EXTENSION_ALLOWED)
    if value == EMERGENCY:
        raise Invalid("is the emergency number", EXTENSION_ALLOWED)
    if value in SHORT_NUMBERS:
        raise Invalid("is a public short number", EXTENSION_ALLOWED)
    return value


def phone_number(value: object) -> str:
    """A number in any notation that people use, as E.164: `0318-00 01 01`, `(0318) 000101`, `0031 318 000101`.

    Numbers of the home country are checked for their length: nine digits after +31 for geographic, mobile and company
    numbers (the Dutch numbering plan).
    """
    if not isinstance(value, str) or not re.fullmatch(NUMBER_PATTERN, value):
        raise Invalid("is no telephone number", NUMBER_ALLOWED)
    text = value.replace("(0)", "") if value.startswith(("+", "00")) else value
    digits = re.sub(r"[^0-9]", "", text)
    if not value.startswith("+"):
        digits = digits[2:] if digits.startswith("00") else HOME + digits[1:]
    if digits.startswith(HOME + "0"):
        raise Invalid("has a 0 after the country's code", NUMBER_ALLOWED)
    if digits.startswith("0") or not 7 <= len(digits) <= 15:
        raise Invalid("is no telephone number", NUMBER_ALLOWED)
    if digits.startswith(HOME) and len(digits) != 11:
        raise Invalid("does not have the nine digits of a Dutch number", NUMBER_ALLOWED)
    return f"+{digits}"


def mac(value: object) -> str:
    """A device's hardware address, lower case with colons."""
    if not isinstance(value, str) or not re.fullmatch(MAC_PATTERN, value):
        raise Invalid("is no hardware address", MAC_ALLOWED)
    digits = re.sub(r"[^0-9a-f]", "", value.lower())
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))
