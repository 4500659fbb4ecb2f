# SPDX-License-Identifier: GPL-3.0-or-later
"""What was accepted is delivered, whatever is killed meanwhile: services, the database, the whole machine."""

from __future__ import annotations

import imaplib
import itertools
import smtplib
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import groupware_probe, probe
from ansible_collections.bouwsteen.hosting.plugins.module_utils.web_client import TRANSPORT

SENDERS = 6
APPOINTMENT = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//Proef//Proef//NL
BEGIN:VEVENT
UID:{uid}
DTSTAMP:20260101T080000Z
DTSTART:20260101T090000Z
DTEND:20260101T100000Z
SUMMARY:Afspraak één
END:VEVENT
END:VCALENDAR
"""


@dataclass
class Traffic:
    """Mails under way: what the site said yes to, what nobody knows (the connection broke), what it put off."""

    accepted: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    put_off: int = 0

    def send(self, mail: Any, sender: str, recipient: str) -> None:
        """One mail, with one attempt only: a second one would hide a mail that came twice."""
        message = mail.message(sender, recipient)
        token = message["Message-ID"]
        try:
            with probe.submission(mail.account(sender), probe.SUBMISSIONS, replace(mail.target, timeout=15)) as client:
                try:
                    client.send_message(message)
                    self.accepted[token] = recipient
                except (smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused):
                    self.put_off += 1
                except OSError:
                    self.unknown[token] = recipient
        except OSError:
            self.put_off += 1


@contextmanager
def traffic(mail: Any) -> Iterator[Traffic]:
    """People who mail each other all the time; at the end what is under way is finished."""
    people = sorted(mail.people)[: 2 * SENDERS]
    pairs = list(zip(people[:SENDERS], people[SENDERS:], strict=True))
    result, stop = Traffic(), threading.Event()

    def write(sender: str, recipient: str) -> None:
        while not stop.is_set():
            result.send(mail, sender, recipient)
            stop.wait(0.2)

    with ThreadPoolExecutor(SENDERS) as pool:
        jobs = [pool.submit(write, sender, recipient) for sender, recipient in pairs]
        try:
            yield result
        finally:
            stop.set()
            for job in jobs:
                job.result()


def wait_until(what: str, look: Callable[[], bool], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)


def opened(mail: Any, login: str) -> imaplib.IMAP4:
    """An IMAP session, asked for again while the answer is "temporarily": a worker may still hold a dead connection."""
    found: list[imaplib.IMAP4] = []

    def look() -> bool:
        try:
            found.append(mail.box(login))
        except (OSError, imaplib.IMAP4.error):
            return False
        return True

    wait_until(f"{login} can log in", look)
    return found[0]


def check_all_arrived(mail: Any, machine: Any, result: Traffic, *, kills: int) -> None:
    """Print the counts; nothing accepted is missing.

    A mail comes twice when the one who took it over is killed before it can say so (RFC 1047): at most what was under
    way at each kill.
    """
    machine.run("postqueue", "-f")
    machine.settled(seconds=120)
    copies: Counter[str] = Counter()
    sent = {**result.accepted, **result.unknown}
    for recipient in sorted(set(sent.values())):
        box = opened(mail, recipient)
        box.select("INBOX", readonly=True)
        _, parts = box.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")
        lines = [part[1].decode() for part in parts if isinstance(part, tuple)]
        copies.update(line.partition(":")[2].strip() for line in lines)
    lost = [token for token in result.accepted if copies[token] == 0]
    twice = [token for token in sent if copies[token] > 1]
    print(
        f"\naccepted {len(result.accepted)}, lost {len(lost)}, delivered twice {len(twice)}, "
        f"put off {result.put_off}, unknown {len(result.unknown)}"
    )
    assert result.accepted
    assert lost == []
    assert len(twice) <= kills * SENDERS


def main_process(machine: Any, unit: str) -> str:
    """PID of the unit's main process; empty while it has none."""
    pid = machine.run("systemctl", "show", "--property=MainPID", "--value", unit).strip()
    return "" if pid == "0" else str(pid)


@pytest.mark.usefixtures("sending_afresh")
def test_killed_services_come_back_and_lose_nothing(mail: Any, machine: Any) -> None:
    with traffic(mail) as result:
        for unit in ("rspamd", "dovecot", "postfix", "postgresql@17-main", "redis-server@rspamd", "unbound"):
            before = main_process(machine, unit)
            assert before, f"{unit} does not run"
            sofar = len(result.accepted)
            machine.run("kill", "-KILL", before)
            wait_until(f"{unit} is back", lambda u=unit, b=before: main_process(machine, u) not in ("", b))  # type: ignore[misc]
            wait_until(f"mail after {unit} was killed", lambda n=sofar: len(result.accepted) > n + SENDERS)  # type: ignore[misc]
    check_all_arrived(mail, machine, result, kills=2)  # of Dovecot and of Postfix


@contextmanager
def appointments(groupware: Any, login: str) -> Iterator[list[str]]:
    """A calendar program that stores an appointment every moment; yields the UIDs of those that were taken."""
    taken: list[str] = []
    stop = threading.Event()
    path = groupware.personal(login)

    def write() -> None:
        while not stop.is_set():
            uid = uuid.uuid4().hex
            try:
                with groupware.new_web(login) as web:
                    headers = {"Content-Type": "text/calendar; charset=utf-8"}
                    answer = web.ask("PUT", f"{path}{uid}.ics", APPOINTMENT.format(uid=uid), headers, timeout=15)
                if answer.status == 201:
                    taken.append(uid)
            except TRANSPORT:
                pass
            stop.wait(0.1)

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(write) for _ in range(2)]
        try:
            yield taken
        finally:
            stop.set()
            for job in jobs:
                job.result()


def test_killed_webmail_services_come_back_and_lose_no_appointment(groupware: Any, mail: Any, machine: Any) -> None:
    login = sorted(mail.people)[0]

    def answers() -> bool:
        try:
            return bool(groupware.personal(login))
        except (groupware_probe.RefusedError, *TRANSPORT):
            return False

    # Whoever asks right after the database was away may be refused once.
    wait_until("calendars answer", answers)
    with appointments(groupware, login) as taken:
        wait_until("appointments are taken", lambda: len(taken) > 2)
        for unit in ("sogo", "portal", "nginx", "groupware-cache"):
            before = main_process(machine, unit)
            assert before, f"{unit} does not run"
            sofar = len(taken)
            machine.run("kill", "-KILL", before)
            wait_until(f"{unit} is back", lambda u=unit, b=before: main_process(machine, u) not in ("", b))  # type: ignore[misc]
            wait_until(f"appointments after {unit} was killed", lambda n=sofar: len(taken) > n + 3)  # type: ignore[misc]
    lost = [uid for uid in taken if uid not in groupware.get(login, f"{uid}.ics").text]
    print(f"\nappointments taken {len(taken)}, lost {len(lost)}")
    for uid in taken:
        groupware.delete(login, f"{uid}.ics")
    assert lost == []


@pytest.mark.usefixtures("sending_afresh")
def test_without_the_database_mail_is_put_off_and_nothing_is_refused_for_good(mail: Any, machine: Any) -> None:
    machine.run("systemctl", "stop", "postgresql@17-main")
    try:
        with mail.smtp() as client:
            codes = [client.mail("")[0], *(client.rcpt(login)[0] for login in itertools.islice(mail.people, 2))]
        refused = [code for code in codes if code not in (250, 503)]  # 503: no recipient without a sender
        assert refused
        assert all(400 <= code < 500 for code in refused), codes
    finally:
        machine.run("systemctl", "start", "postgresql@17-main")
    with traffic(mail) as result:
        wait_until("mail flows again", lambda: len(result.accepted) > SENDERS)
    check_all_arrived(mail, machine, result, kills=0)


@pytest.mark.usefixtures("sending_afresh")
def test_a_machine_that_loses_power_under_load_comes_back_with_all_that_it_accepted(
    mail: Any, machine: Any, pytestconfig: pytest.Config
) -> None:
    def lab(state: str) -> None:
        subprocess.run(
            ["ansible", "localhost", "-m", "bouwsteen.hosting.lab_machine", "-a",
             f'{{"machines": [{{"name": "{machine.name}", "address": "{machine.address}"}}], "state": "{state}"}}'],
            cwd=pytestconfig.rootpath, check=True, capture_output=True, text=True,
        )  # fmt: skip

    with traffic(mail) as result:
        wait_until("mail flows", lambda: len(result.accepted) > SENDERS)
        lab("killed")
        lab("present")
        mail.close()
        sofar = len(result.accepted)
        wait_until("mail flows again", lambda: len(result.accepted) > sofar + SENDERS)
    check_all_arrived(mail, machine, result, kills=1)
