# SPDX-License-Identifier: GPL-3.0-or-later
"""Giving deleted mail back: what is understood, what is refused, and what doveadm is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import mail_restore
from ansible_collections.bouwsteen.hosting.plugins.module_utils.mail_restore import Done, RestoreError

JAN = "jan@degraaf.example"
NOW = datetime(2026, 11, 23, 12, 0)
MAILS = [
    {"hdr.subject": "B", "hdr.message-id": "<b>", "date.saved": "2026-11-22 10:00:00", "size.physical": "20"},
    {"hdr.from": "a@b.example", "date.saved": "2026-11-21 10:00:00", "size.physical": "10"},
]  # fmt: skip


class Doveadm:
    """Answers in the order of its arguments, and keeps what it was asked."""

    def __init__(self, *answers: Done) -> None:
        self.answers, self.asked = list(answers), []  # type: list[Done], list[str]

    def __call__(self, words: Sequence[str]) -> Done:
        self.asked.append(" ".join(words))
        return self.answers.pop(0)


@pytest.mark.parametrize(
    "user", ["*", "jan", "*@degraaf.example", "jan?@degraaf.example", "-A@degraaf.example\n", "a b@c", ""]
)
def test_one_person_and_no_pattern(user: str) -> None:
    with pytest.raises(RestoreError, match=r"is no login; allowed: one address, such as jan@degraaf.example"):
        mail_restore.checked(user, "Restored")


@pytest.mark.parametrize("folder", ["", "/", "a//b", ".EXPUNGED", ".expunged/mail", "a*", "%", "a\nb", 'a"b'])
def test_what_is_no_folder(folder: str) -> None:
    with pytest.raises(RestoreError, match="is no folder; allowed: a name, with / between a folder and one in it"):
        mail_restore.checked(JAN, folder)


def test_names_that_people_have() -> None:
    assert mail_restore.checked("Jan.o'Neil+x@DeGraaf.example", "Teruggezet/november") == "jan.o'neil+x@degraaf.example"


@pytest.mark.parametrize(
    ("since", "then"),
    [
        ("2026-11-20", datetime(2026, 11, 20)),
        ("2026-11-20 14:30", datetime(2026, 11, 20, 14, 30)),
        ("2026-11-20 14:30:05", datetime(2026, 11, 20, 14, 30, 5)),
        ("3 days", datetime(2026, 11, 20, 12)),
        ("1 day", datetime(2026, 11, 22, 12)),
        ("2hours", datetime(2026, 11, 23, 10)),
        ("1 week", datetime(2026, 11, 16, 12)),
    ],
)
def test_moments(since: str, then: datetime) -> None:
    assert mail_restore.moment(since, NOW) == int(then.timestamp())


@pytest.mark.parametrize(
    "since", ["yesterday", "2026-13-01", "2026-11-20T14:30", "3", "-1 days", "1 month", "9999 years", "1d or all"]
)
def test_what_is_no_moment(since: str) -> None:
    with pytest.raises(
        RestoreError, match="is no moment; allowed: a moment, such as 2026-11-20 or 2026-11-20 14:30, or an age"
    ):
        mail_restore.moment(since, NOW)


def test_what_waits_in_the_order_of_deletion() -> None:
    doveadm = Doveadm(Done(0, json.dumps(MAILS), ""))
    found, fields = mail_restore.waiting(doveadm, JAN, 1795000000), mail_restore.FIELDS
    assert [(mail["subject"], mail["from"], mail["bytes"]) for mail in found] == [
        ("", "a@b.example", 10),
        ("B", "", 20),
    ]
    assert doveadm.asked == [
        f"doveadm -o acl_ignore=yes -f json fetch -u {JAN} {fields} mailbox .EXPUNGED/mail savedsince 1795000000"
    ]


def test_nothing_was_ever_deleted() -> None:
    assert mail_restore.waiting(Doveadm(Done(68, "", "Mailbox doesn't exist: .EXPUNGED/mail")), JAN, None) == []
    assert mail_restore.waiting(Doveadm(Done(0, "", "")), JAN, None) == []


def test_people_of_this_machine() -> None:
    assert mail_restore.known(Doveadm(Done(0, "/var/vmail/x\n", "")), JAN)
    assert not mail_restore.known(Doveadm(Done(67, "", "")), JAN)
    with pytest.raises(RestoreError, match=f"doveadm user {JAN}: directory is away"):
        mail_restore.known(Doveadm(Done(75, "", "directory is away\n")), JAN)


def test_a_folder_is_made_once() -> None:
    doveadm = Doveadm(Done(68, "", ""), Done(0, "", ""), Done(0, "", ""))
    mail_restore.restore(doveadm, JAN, None, "Restored")
    assert doveadm.asked[1:] == [
        f"doveadm mailbox create -s -u {JAN} Restored",
        f"doveadm -o acl_ignore=yes move -u {JAN} Restored mailbox .EXPUNGED/mail all",
    ]
    again = Doveadm(Done(0, "", ""), Done(0, "", ""))
    mail_restore.restore(again, JAN, None, "Restored")
    assert len(again.asked) == 2


def test_what_goes_wrong_is_said() -> None:
    there = Done(0, "", "")
    with pytest.raises(RestoreError, match="has no room for it: give him more, or name a later moment with since"):
        mail_restore.restore(Doveadm(there, Done(75, "", "Error: Mailbox is full")), JAN, None, "Restored")
    with pytest.raises(RestoreError, match=f"cannot give {JAN} his mail back: disk is gone"):
        mail_restore.restore(Doveadm(there, Done(75, "", "disk is gone\n")), JAN, None, "Restored")
    with pytest.raises(RestoreError, match=f"cannot make folder Restored of {JAN}: no"):
        mail_restore.restore(Doveadm(Done(68, "", ""), Done(1, "", "no")), JAN, None, "Restored")
    with pytest.raises(RestoreError, match=f"cannot look at the deleted mail of {JAN}: 75"):
        mail_restore.waiting(Doveadm(Done(75, "", "")), JAN, None)
