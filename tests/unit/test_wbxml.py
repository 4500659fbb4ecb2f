# SPDX-License-Identifier: GPL-3.0-or-later
"""ActiveSync's binary XML, against bytes that real programs send and against itself."""

from __future__ import annotations

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import wbxml
from ansible_collections.bouwsteen.hosting.plugins.module_utils.wbxml import Element, element
from hypothesis import given
from hypothesis import strategies as st

# A phone's first FolderSync, byte for byte.
FOLDER_SYNC = bytes.fromhex("03016a000007565203300001" + "01")


def test_a_phones_first_question() -> None:
    tree = element("FolderHierarchy:FolderSync", element("FolderHierarchy:SyncKey", 0))
    assert wbxml.encode(tree) == FOLDER_SYNC
    assert wbxml.decode(FOLDER_SYNC) == tree


@pytest.mark.parametrize(
    ("name", "page", "token"),
    [  # of MS-ASWBXML 2.1.2.1, some of every page that is used
        ("AirSync:Commands", 0, 0x16),
        ("AirSync:ApplicationData", 0, 0x1D),
        ("Contacts:Email1Address", 1, 0x1B),
        ("Contacts:LastName", 1, 0x29),
        ("Email:Subject", 2, 0x14),
        ("Email:MeetingRequest", 2, 0x22),
        ("Email:WeekOfMonth", 2, 0x2F),
        ("Calendar:Timezone", 4, 0x05),
        ("Calendar:Deleted", 4, 0x15),
        ("Calendar:ExceptionStartTime", 4, 0x16),
        ("Calendar:UID", 4, 0x28),
        ("Calendar:AttendeeStatus", 4, 0x29),
        ("Calendar:FirstDayOfWeek", 4, 0x39),
        ("MeetingResponse:UserResponse", 8, 0x0C),
        ("Tasks:Complete", 9, 0x0A),
        ("Tasks:Subject", 9, 0x20),
        ("ResolveRecipients:MergedFreeBusy", 10, 0x19),
        ("Ping:HeartbeatInterval", 13, 0x08),
        ("Provision:EASProvisionDoc", 14, 0x0D),
        ("Search:Range", 15, 0x0B),
        ("GAL:EmailAddress", 16, 0x0F),
        ("AirSyncBase:Data", 17, 0x0B),
        ("Settings:DeviceInformation", 18, 0x16),
        ("ComposeMail:SaveInSentItems", 21, 0x08),
        ("Email2:Sender", 22, 0x0E),
    ],
)
def test_tokens_are_those_of_the_standard(name: str, page: int, token: int) -> None:
    assert wbxml.TOKENS[name] == (page, token)


names = st.sampled_from(sorted(wbxml.TOKENS))
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
leaves = st.builds(Element, names, st.lists(texts | st.binary(), max_size=1))
trees = st.recursive(
    leaves, lambda inner: st.builds(Element, names, st.lists(inner, min_size=1, max_size=4)), max_leaves=20
)


@given(trees)
def test_what_was_written_is_read_back(tree: Element) -> None:
    assert wbxml.decode(wbxml.encode(tree)) == tree


@given(st.binary(max_size=200))
def test_noise_is_refused_in_one_way(data: bytes) -> None:
    for sent in (data, wbxml.HEADER + data):
        try:
            wbxml.decode(sent)
        except wbxml.WbxmlError:
            continue


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not WBXML 1.3"),
        (b"<html>", "not WBXML 1.3"),
        (wbxml.HEADER, "ends early"),
        (FOLDER_SYNC[:-1], "ends early"),
        (wbxml.HEADER + b"\x45\x03abc", "text without an end"),
        (wbxml.HEADER + b"\x45\xc3\x7fabc", "opaque data without an end"),
        (wbxml.HEADER + b"\x45\x03\xff\x00\x01", "not UTF-8"),
        (wbxml.HEADER + b"\xc5", "token 0xc5, which ActiveSync does not use"),
        (wbxml.HEADER + b"\x45" * 80, "elements too deep in each other"),
        (wbxml.HEADER[:1] + b"\xff" * 9, "a number that does not end"),
    ],
)
def test_what_is_no_document(data: bytes, message: str) -> None:
    with pytest.raises(wbxml.WbxmlError, match=message):
        wbxml.decode(data)


def test_what_no_document_can_hold() -> None:
    with pytest.raises(wbxml.WbxmlError, match="AirSync:Nothing is in no code page"):
        wbxml.encode(element("AirSync:Nothing"))
    with pytest.raises(wbxml.WbxmlError, match="AirSync:SyncKey: text with a NUL"):
        wbxml.encode(element("AirSync:SyncKey", "a\0b"))


def test_things_are_found_in_a_tree() -> None:
    tree = element(
        "AirSync:Sync",
        element("AirSync:Status", 1),
        element("AirSync:Collections", element("AirSync:Collection", element("AirSync:Status", "2"), b"\xc3\xab")),
    )
    assert [found.text for found in tree.every("AirSync:Status")] == ["1", "2"]
    assert tree.value("AirSync:Status") == "1"
    assert tree.value("AirSync:SyncKey") == ""
    assert tree.child("AirSync:Collection") is None
    assert [child.name for child in tree.children] == ["AirSync:Status", "AirSync:Collections"]
    collection = tree.first("AirSync:Collection")
    assert collection is not None
    assert collection.text == "ë"
    assert str(collection).endswith("</AirSync:Status>[2 bytes]</AirSync:Collection>")


def test_a_newer_servers_tokens_are_read_by_number() -> None:
    tree = wbxml.decode(wbxml.HEADER + bytes([0, 99]) + b"\x46\x03x\x00\x01")
    assert tree == element("99:0x06", "x")


def test_long_opaque_data_has_its_length_in_several_bytes() -> None:
    tree = element("ComposeMail:MIME", bytes(300_000))
    assert wbxml.decode(wbxml.encode(tree)) == tree
