# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes, money, times and numbers in every notation that people use."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import units
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import Invalid
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("written", "octets"),
    [
        (0, 0),
        ("0", 0),
        ("500 MB", 500_000_000),
        ("500MB", 500_000_000),
        ("2 TiB", 2 * 2**40),
        ("1.5 GiB", 3 * 2**29),
        ("1 kB", 1000),
        ("1 KiB", 1024),
        ("0.1 KiB", 102),
        ("8191 PiB", 8191 * 2**50),
    ],
)
def test_size(written: object, octets: int) -> None:
    assert units.size(written) == octets


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (500, "has no unit"),
        (-1, "is negative"),
        (True, "is no size"),
        (1.5, "is no size"),
        (None, "is no size"),
        ("500", "is no size"),
        ("5G", "is no size"),
        ("5 mb", "is no size"),
        ("-5 MB", "is no size"),
        ("5  MB", "is no size"),
        ("5 MB\n", "is no size"),
        ("٥ MB", "is no size"),
        ("1e3 MB", "is no size"),
        ("unlimited", "is no size"),
        ("8192 PiB", "is too large"),
        ("999999999999999 PB", "is too large"),
    ],
)
def test_size_that_is_refused(written: object, problem: str) -> None:
    with pytest.raises(Invalid) as refused:
        units.size(written)
    assert refused.value.problem == problem


@given(st.integers(1, 8000), st.sampled_from(["KiB", "MiB", "GiB", "TiB", "PiB"]))
def test_sizes_read_back(number: int, unit: str) -> None:
    octets = units.size(f"{number} {unit}")
    assert abs(units.size(units.human_size(octets)) - octets) <= octets * 0.06


@pytest.mark.parametrize(
    ("octets", "text"),
    [(0, "0"), (1, "1 bytes"), (1024, "1 KiB"), (1536, "1.5 KiB"), (100 * 2**20, "100 MiB"), (2**41, "2 TiB")],
)
def test_human_size(octets: int, text: str) -> None:
    assert units.human_size(octets) == text


@pytest.mark.parametrize(
    ("written", "amount"),
    [("250.00", "250.00"), ("250", "250.00"), (0, "0.00"), ("0", "0.00"), ("0.125", "0.125"), ("007.50", "7.50")],
)
def test_money(written: object, amount: str) -> None:
    assert units.money(written) == amount


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (2.5, "is a floating point number, which loses cents: put quotes around it"),
        (25, "is a number: put quotes around it"),
        (True, "is no amount of money"),
        (None, "is no amount of money"),
        ("2,50", "is no amount of money"),
        ("-1", "is no amount of money"),
        ("€ 5", "is no amount of money"),
        ("1e9", "is no amount of money"),
        ("1.1234567", "is no amount of money"),
    ],
)
def test_money_that_is_refused(written: object, problem: str) -> None:
    with pytest.raises(Invalid) as refused:
        units.money(written)
    assert refused.value.problem == problem


@given(st.decimals(0, 999_999_999, places=2))
def test_money_keeps_its_value(amount: Decimal) -> None:
    assert Decimal(units.money(f"{amount:f}")) == amount


@pytest.mark.parametrize(
    "written",
    [
        "+31318000101",
        "+31 318 000 101",
        "+31 (0)318-000101",
        "0031318000101",
        "0031 (0) 318 000101",
        "0318-000101",
        "0318 - 00 01 01",
        "(0318) 000101",
        "0318.000.101",
    ],
)
def test_one_number_in_every_notation(written: str) -> None:
    assert units.phone_number(written) == "+31318000101"


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("0612345678", "+31612345678"),
        ("085-0001234", "+31850001234"),
        ("+32 2 000 00 00", "+3220000000"),
        ("+442079460000", "+442079460000"),
    ],
)
def test_other_numbers(written: str, number: str) -> None:
    assert units.phone_number(written) == number


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("+310318000101", "has a 0 after the country's code"),
        ("+3131800010", "does not have the nine digits of a Dutch number"),
        ("03180001011", "does not have the nine digits of a Dutch number"),
        ("318000101", "is no telephone number"),
        ("+0318000101", "is no telephone number"),
        ("+49 1", "is no telephone number"),
        ("+491234", "is no telephone number"),
        ("+49123456789012345", "is no telephone number"),
        ("bel ons", "is no telephone number"),
        (31318000101, "is no telephone number"),
    ],
)
def test_number_that_is_refused(written: object, problem: str) -> None:
    with pytest.raises(Invalid) as refused:
        units.phone_number(written)
    assert refused.value.problem == problem


REFUSED: list[tuple[Callable[[object], object], object, str]] = [
    (units.extension, 101, "is no extension"),
    (units.extension, "1", "is no extension"),
    (units.extension, "0101", "is no extension"),
    (units.extension, "1234567", "is no extension"),
    (units.extension, "112", "is the emergency number"),
    (units.extension, "113", "is a public short number"),
    (units.mac, "00:15:65:aa:bb", "is no hardware address"),
    (units.mac, 1565, "is no hardware address"),
    (units.hours, "17:30-08:00", "ends before it starts"),
    (units.hours, "08:00-08:00", "ends before it starts"),
    (units.hours, "8:00-17:00", "is no time of day"),
    (units.hours, "08:00-24:30", "is no time of day"),
    (units.hours, 800, "is no time of day"),
    (units.date, "2026-02-29", "is not in the calendar"),
    (units.date, "26-2-2026", "is no date"),
    (units.date, None, "is no date"),
    (lambda value: units.days(str(value)), "maandag", "is no day of the week"),
    (lambda value: units.days(str(value)), "mon-zon", "is no day of the week"),
]


@pytest.mark.parametrize(("read", "written", "problem"), REFUSED)
def test_refused(read: Callable[[object], object], written: object, problem: str) -> None:
    with pytest.raises(Invalid) as refused:
        read(written)
    assert refused.value.problem == problem
    assert str(refused.value) == f"{problem}; allowed: {refused.value.allowed}"


def test_normal_forms() -> None:
    assert units.extension("101") == "101"
    assert units.mac("00-15-65-AA-BB-CC") == units.mac("001565aabbcc") == "00:15:65:aa:bb:cc"
    assert units.hours("00:00-24:00") == ("00:00", "24:00")
    assert units.date("2028-02-29") == "2028-02-29"
    assert units.days("sat") == [5]
    assert units.days("fri-mon") == [4, 5, 6, 0]
    assert units.days("mon-sun") == list(range(7))
