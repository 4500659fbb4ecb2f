# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that wait: 200 idle IMAP connections and 50 phones, what they cost, and whether webmail still answers.

`make bench` runs it; the figures go to waiting.json in ARTEFACTS (build), and from there into its table and picture.
"""

from __future__ import annotations

import imaplib
import itertools
import json
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import probe

TOP = Path(__file__).resolve().parents[2]
CONNECTIONS, PHONES, HEARTBEAT = 200, 50, 90
INBOX = "2"
# Answers to a phone that waits (MS-ASCMD 2.2.3.177.12).
NOTHING, NEWS = "1", "2"

# Proportional set size: what processes share is counted once.
MEMORY = """
import pathlib, sys
total = 0
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if f"/{sys.argv[1]}.service" in (process / "cgroup").read_text():
            total += int((process / "smaps_rollup").read_text().split("Pss:")[1].split()[0])
    except (OSError, IndexError):
        pass
print(total)
"""


def memory(machine: Any, unit: str) -> int:
    """KiB of all processes of a service."""
    return int(machine.run("python3", "-c", MEMORY, unit))


def idle(mail: Any, login: str) -> imaplib.IMAP4_SSL:
    """A mail program that waits for news in the inbox (RFC 2177)."""
    person = mail[login]
    context = probe.context_for(person.host, mail.target)
    client = imaplib.IMAP4_SSL(mail.machine.address, 993, ssl_context=context, timeout=120)
    client.login(login, person.password)
    client.select("INBOX", readonly=True)
    client.send(b"wait IDLE\r\n")
    assert client.readline().startswith(b"+ ")
    return client


def ended(client: imaplib.IMAP4_SSL) -> bool:
    """Whether the connection was alive to the end."""
    client.send(b"DONE\r\n")
    while line := client.readline():
        if line.startswith(b"wait "):
            return line.startswith(b"wait OK")
    return False


def paged(groupware: Any, login: str, rounds: int = 7) -> list[float]:
    """Seconds that somebody waits for the page with his mail, who has logged in already."""
    webmail = groupware.webmail(login)
    answers = [webmail.get("Mail/view") for _ in range(rounds)]
    assert all(answer.status == 200 and "ng-app" in answer.text for answer in answers), answers
    return [answer.seconds for answer in answers]


def wait(phone: Any, inbox: str) -> str:
    """What phones do all day: wait, fetch what is new, wait again; ends when nothing was new for a whole heartbeat."""
    while True:
        answer = phone.ping([inbox], seconds=HEARTBEAT)
        status = str(answer.value("Ping:Status")) if answer else NOTHING
        if status != NEWS:
            return status
        phone.sync(INBOX)


def test_who_waits_costs_little_and_keeps_nobody_from_webmail(mail: Any, machine: Any, groupware: Any) -> None:
    people = sorted(mail.people)
    figures: dict[str, float] = {}
    reader = people[0]
    figures["webmail_alone"] = statistics.median(paged(groupware, reader))

    before = memory(machine, "dovecot")
    with ThreadPoolExecutor(8) as pool:
        clients = list(
            pool.map(lambda login: idle(mail, login), itertools.islice(itertools.cycle(people), CONNECTIONS))
        )
    figures["imap_kib"] = (memory(machine, "dovecot") - before) / CONNECTIONS

    phones = [groupware.new_phone(login) for login in itertools.islice(itertools.cycle(people), PHONES)]

    def prepare(phone: Any) -> str:
        phone.provision()
        inbox = str(phone.folder(INBOX))
        phone.sync(INBOX)
        return inbox

    before = memory(machine, "sogo")
    with ThreadPoolExecutor(8) as pool:
        inboxes = list(pool.map(prepare, phones))
    with ThreadPoolExecutor(PHONES) as pool:
        waiting = [pool.submit(wait, phone, inbox) for phone, inbox in zip(phones, inboxes, strict=True)]
        busy = paged(groupware, reader)
        figures["phone_kib"] = (memory(machine, "sogo") - before) / PHONES
        busy += paged(groupware, reader)
        at_once = sum(not future.done() for future in waiting)
        answers = [future.result() for future in waiting]
    figures["webmail_busy"] = statistics.median(busy)
    figures["webmail_slowest"] = max(busy)
    for phone in phones:
        phone.web.close()
    alive = sum(ended(client) for client in clients)
    for client in clients:
        client.shutdown()

    out = Path(os.environ.get("ARTEFACTS", str(TOP / "build")))
    out.mkdir(parents=True, exist_ok=True)
    (out / "waiting.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(
        f"\n{alive} of {CONNECTIONS} IMAP connections idle, {figures['imap_kib']:.0f} KiB each; {at_once} of {PHONES} "
        f"phones waiting at once, {figures['phone_kib']:.0f} KiB each; webmail's page {figures['webmail_alone']:.2f} s "
        f"alone, {figures['webmail_busy']:.2f} s beside them, slowest {figures['webmail_slowest']:.2f} s"
    )
    assert alive == CONNECTIONS
    assert at_once == PHONES
    assert set(answers) == {NOTHING}
    assert figures["webmail_busy"] < 1
