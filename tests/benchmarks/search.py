# SPDX-License-Identifier: GPL-3.0-or-later
"""What searching a large mailbox costs on the demo's machine, with the index of words and without: `make bench`.

Makes a folder of MAILS mails for a person of the demo, indexes it, searches it in turns, and removes it. Writes
bench-search.json and bench-search.svg to the folder given as the only argument. BOUWSTEEN_INVENTORY names another site.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from bench import Figure, picture

TOP = Path(__file__).resolve().parents[2]
INVENTORY = os.environ.get("BOUWSTEEN_INVENTORY", str(TOP / "inventories/demo"))
SSH = ["ssh", "-F", "/var/lib/bouwsteen-lab/ssh/config"]
PERSON, FOLDER = "jan@degraaf.example", "Meting"
MAILS = int(os.environ.get("BOUWSTEEN_BENCH_MAILS", "100000"))
ROUNDS = 3
# Words by a rule, so that every run has the same mails; one mail has the word that is looked for.
FILL = """
import os, pathlib, sys
home, uid, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.setgid(uid), os.setuid(uid)
folder = pathlib.Path(home, "Maildir/.Meting")
for name in ("tmp", "new", "cur"):
    (folder / name).mkdir(parents=True, exist_ok=True)
a = "beko stal vuren linde mosse perka ronde zilte kwarte draf".split()
b = "laar nist dorp venne gaard hoek zijl stee wold meer".split()
for n in range(count):
    words = " ".join(a[(n * 7 + i * 3) % 10] + b[(n + i * i) % 10] + str((n * 31 + i * 17) % 997) for i in range(120))
    word = "speculaasmolen" if n == count // 2 else "vijzel"
    head = f"From: dirk@buiten.example\\nSubject: Meting {n}\\nMessage-ID: <m{n}@buiten.example>\\n"
    mail = head + f"\\n{words}\\n{word}\\n"
    (folder / "cur" / f"{1700000000 + n}.M{n}.bench:2,S").write_text(mail)
"""


def run(machine: str, *words: str, stdin: str = "") -> str:
    """A command on the machine; its standard output."""
    done = subprocess.run([*SSH, machine, shlex.join(words)], input=stdin, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{words}: {done.stdout}{done.stderr}")
    return done.stdout


def timed(machine: str, *words: str) -> tuple[float, str]:
    """Seconds of a command on the machine, and what it said."""
    began = time.monotonic()
    said = run(machine, *words)
    return time.monotonic() - began, said


def measure(machine: str) -> list[Figure]:
    """All figures. Fails when the two ways do not find the same mail."""
    home, uid = (run(machine, "doveadm", "user", "-f", what, PERSON).strip() for what in ("home", "uid"))
    run(machine, "doveadm", "mailbox", "create", "-u", PERSON, FOLDER)
    try:
        run(machine, "python3", "-", home, uid, str(MAILS), stdin=FILL)
        first, _ = timed(
            machine, "doveadm", "-o", "fts_autoindex=no", "mailbox", "status", "-u", PERSON, "messages", FOLDER
        )
        index, _ = timed(machine, "doveadm", "index", "-u", PERSON, FOLDER)
        found: dict[str, list[float]] = {"yes": [], "no": []}
        for _ in range(ROUNDS):
            for way, seconds in found.items():
                took, said = timed(
                    machine,
                    "doveadm",
                    "-o",
                    f"fts_search={way}",
                    "search",
                    "-u",
                    PERSON,
                    "mailbox",
                    FOLDER,
                    "text",
                    "speculaasmolen",
                )
                if len(said.splitlines()) != 1:
                    sys.exit(f"fts_search={way}: found {len(said.splitlines())} mails, there is 1")
                seconds.append(took)
    finally:
        run(machine, "doveadm", "mailbox", "delete", "-u", PERSON, FOLDER)
    return [
        Figure(f"first sight of {MAILS} mails", first, 1),
        Figure(f"index {MAILS} mails", index, 1),
        Figure("search all of them without the index", statistics.median(found["no"]), ROUNDS),
        Figure("search all of them with the index", statistics.median(found["yes"]), ROUNDS),
    ]


def main() -> None:
    out = Path(sys.argv[1]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    words = ["ansible-inventory", "-i", INVENTORY, "--list"]
    listed = json.loads(subprocess.run(words, cwd=TOP, capture_output=True, text=True, check=True).stdout)
    figures = measure(listed["mail"]["hosts"][0])
    ratio = figures[2].seconds / figures[3].seconds
    result = {"figures": [asdict(figure) for figure in figures], "scan_to_index": round(ratio, 1)}
    (out / "bench-search.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (out / "bench-search.svg").write_text(picture(figures), encoding="utf-8")
    for figure in figures:
        print(f"{figure.seconds:8.2f} s  {figure.what} (median of {figure.runs})")
    print(f"reading every mail takes {ratio:.0f} times as long as the index")


if __name__ == "__main__":
    main()
