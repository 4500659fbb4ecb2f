# SPDX-License-Identifier: GPL-3.0-or-later
"""A thousand mails at once: each delivered once, to whom it was meant for, and to nobody else."""

from __future__ import annotations

import collections
import contextlib
import random
import re
import smtplib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MAILS, SENDERS = 1000, 20


@contextlib.contextmanager
def logged_in(mail: Any, sender: str) -> Iterator[smtplib.SMTP]:
    """A session of somebody who tries again when he is told to, as mail programs do.

    Twenty passwords at once may take a busy machine longer than the ten seconds that Postfix waits for an answer.
    """
    for attempt in range(6):
        with contextlib.ExitStack() as stack:
            try:
                client = stack.enter_context(mail.submission(sender))
            except smtplib.SMTPAuthenticationError as error:
                if error.smtp_code != 454 or attempt == 5:
                    raise
                continue
            yield client
            return


def test_a_thousand_mails_from_twenty_people(mail: Any, sending_afresh: None) -> None:
    chance = random.Random(20261123)
    people = sorted(set(mail.people) - {"werkplaats@vandermeer.example", "stagiair@thooft.example"})
    # Whose mail goes on to somebody else would be counted twice.
    forwarded = {
        row[0]
        for row in mail.machine.sql(
            "SELECT u.login FROM directory.forwards f JOIN directory.users u USING (reseller_id, user_id)"
        )
    }
    receivers = [person for person in people if person not in forwarded]
    senders = people[:SENDERS]
    batch = f"burst{chance.randrange(10**12)}{time.time_ns()}"
    wanted: dict[str, str] = {}

    def run(sender: str) -> None:
        with logged_in(mail, sender) as client:
            for number in range(MAILS // SENDERS):
                receiver = receivers[(senders.index(sender) * 7 + number) % len(receivers)]
                identity = f"<{batch}.{senders.index(sender)}.{number}@{sender.rpartition('@')[2]}>"
                message = mail.message(sender, receiver, subject=f"Drukte {number}")
                message.replace_header("Message-ID", identity)
                assert client.send_message(message, sender, [receiver]) == {}
                wanted[identity] = receiver

    began = time.monotonic()
    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(run, senders))
    submitted = time.monotonic() - began
    mail.machine.settled(seconds=240)
    delivered = time.monotonic() - began

    got: collections.Counter[tuple[str, str]] = collections.Counter()
    for person in mail.people:
        client = mail.box(person)
        for folder in ("INBOX", "Junk"):
            if client.select(folder, readonly=True)[0] != "OK":
                continue
            numbers = client.search(None, "HEADER", "Message-ID", batch)[1][0].split()
            if numbers:
                answer = client.fetch(b",".join(numbers).decode(), "(BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")[1]
                for part in answer:
                    if isinstance(part, tuple):
                        got[re.search(rb"<[^>]*>", part[1])[0].decode(), person] += 1  # type: ignore[index]
    lost = [identity for identity, person in wanted.items() if not got[identity, person]]
    twice = [key for key, count in got.items() if count > 1]
    strangers = [(identity, person) for identity, person in got if wanted.get(identity) != person]
    print(
        f"submitted {len(wanted)} in {submitted:.1f} s, delivered {sum(got.values())} in {delivered:.1f} s; "
        f"lost {len(lost)}, twice {len(twice)}, to a stranger {len(strangers)}"
    )
    assert len(wanted) == MAILS
    assert (len(lost), len(twice), len(strangers)) == (0, 0, 0)
    assert sum(got.values()) == MAILS
    for person in mail.people:
        mail.machine.run("doveadm", "expunge", "-u", person, "mailbox", "*", "header", "Message-ID", batch)
