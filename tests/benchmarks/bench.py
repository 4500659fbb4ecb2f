# SPDX-License-Identifier: GPL-3.0-or-later
"""What things cost on the demo's machine, side by side in one run: `make bench`.

Times of a shared machine are noisy, so every comparison takes turns and is reported as a ratio of medians. Writes
bench.json and bench.svg to the folder given as the only argument and prints the table. What test_waiting.py left
there as waiting.json goes along.
"""

from __future__ import annotations

import html
import json
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

TOP = Path(__file__).resolve().parents[2]
USERS = 1000
# The loop takes minutes, so it runs once over all users; the others are quick and take turns.
ROUNDS = 3

LOOP = """\
- name: The same people, one query a person
  hosts: directory
  gather_facts: false
  become: true
  become_user: postgres
  vars:
    people: "{{ lookup('ansible.builtin.file', people_file) | from_json }}"
  tasks:
    - name: Make a table of the size of the real one
      community.postgresql.postgresql_query:
        login_db: directory
        query: CREATE TABLE IF NOT EXISTS public.bench_people (login text PRIMARY KEY, name text, quota bigint)
    - name: Write the people
      community.postgresql.postgresql_query:
        login_db: directory
        query: >-
          INSERT INTO public.bench_people VALUES (%s, %s, %s)
          ON CONFLICT (login) DO UPDATE SET name = excluded.name
        positional_args: ["{{ item.login }}", "{{ item.name }}", 1073741824]
      loop: "{{ people }}"
      loop_control: {label: "{{ item.login }}"}
    - name: Remove the table
      community.postgresql.postgresql_query:
        login_db: directory
        query: DROP TABLE public.bench_people
"""


@dataclass(frozen=True)
class Figure:
    """One measured thing: its median in seconds and how many runs are behind it."""

    what: str
    seconds: float
    runs: int


def play(inventory: Path, playbook: Path | str, *arguments: str) -> float:
    """Run a playbook and return its seconds; a failure shows what it printed."""
    began = time.monotonic()
    done = subprocess.run(
        ["ansible-playbook", "-i", str(inventory), str(playbook), *arguments],
        cwd=TOP, text=True, capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    return time.monotonic() - began


def people(count: int) -> list[dict[str, object]]:
    return [
        {"login": f"user{n}@bench.example", "name": f"Persoon {n} van der Bench", "product": "bench"}
        for n in range(count)
    ]


def site_with_bench(folder: Path) -> Path:
    """The demo's inventory with one more reseller of USERS people; returns the path of the copy."""
    inventory = folder / "inventory"
    shutil.copytree(TOP / "inventories" / "demo", inventory)
    for path in inventory.rglob("*.yml"):
        text = path.read_text(encoding="utf-8").replace("{{ inventory_dir }}/../../customers", str(TOP / "customers"))
        path.write_text(text, encoding="utf-8")
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text(encoding="utf-8"))
    hosts["all"]["children"]["resellers"].setdefault("hosts", {})["bench"] = None
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts), encoding="utf-8")
    contract = {
        "reseller_title": "Bench",
        "reseller_engineer": "beheer@bench-reseller.example",
        "reseller_domain": "bench-reseller.example",
        "reseller_customers": str(folder / "customers"),
        "reseller_limits": {"users": {"max": USERS}},
        "reseller_products": {"bench": {"meter": "user", "included": {"mail_storage": "1 GiB"}, "beyond": "blocked"}},
    }
    (inventory / "host_vars" / "bench.yml").write_text(yaml.safe_dump(contract), encoding="utf-8")
    return inventory


def write_customers(folder: Path, count: int) -> None:
    (folder / "customers").mkdir(exist_ok=True)
    customer = {"customer": "bench", "title": "Bench", "domains": ["bench.example"], "users": people(count)}
    (folder / "customers" / "bench.yml").write_text(yaml.safe_dump(customer, allow_unicode=True), encoding="utf-8")


def measure(folder: Path) -> list[Figure]:
    """All figures; the reseller that is added for it is emptied and removed again."""
    inventory = site_with_bench(folder)
    no_change, resellers, first, again = [], [], [], []
    for number in range(ROUNDS):
        print(f"round {number + 1} of {ROUNDS}", flush=True)
        no_change.append(play(TOP / "inventories" / "demo", "playbooks/site.yml"))
        resellers.append(play(TOP / "inventories" / "demo", "playbooks/resellers.yml"))
        write_customers(folder, USERS)
        first.append(play(inventory, "playbooks/resellers.yml", "--limit", "bench"))
        again.append(play(inventory, "playbooks/resellers.yml", "--limit", "bench"))
        customer = {"customer": "bench", "title": "Bench", "state": "absent", "domains": ["bench.example"]}
        (folder / "customers" / "bench.yml").write_text(yaml.safe_dump(customer), encoding="utf-8")
        play(inventory, "playbooks/resellers.yml", "--limit", "bench", "-e", "confirm_removal=bench")
    print(f"the same {USERS} users in a loop: this takes minutes", flush=True)
    (folder / "loop.yml").write_text(LOOP, encoding="utf-8")
    (folder / "people.json").write_text(json.dumps(people(USERS)), encoding="utf-8")
    loop = play(inventory, folder / "loop.yml", "-e", f"people_file={folder / 'people.json'}")
    return [
        Figure("site.yml, no change", statistics.median(no_change), ROUNDS),
        Figure("resellers.yml, no change", statistics.median(resellers), ROUNDS),
        Figure(f"reseller module, {USERS} users, first", statistics.median(first), ROUNDS),
        Figure(f"reseller module, {USERS} users, no change", statistics.median(again), ROUNDS),
        Figure(f"looped postgresql_query, {USERS} users", loop, 1),
    ]


def waiting(out: Path) -> dict[str, float]:
    """What idle mail programs and phones cost, as measured before; {} when that was not run."""
    path = out / "waiting.json"
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def bars_of(figures: list[Figure], idle: dict[str, float]) -> list[tuple[str, float, float]]:
    """Label, value and the highest value of its kind: seconds are not drawn beside memory."""
    longest = max(figure.seconds for figure in figures)
    bars = [(f"{figure.what}: {figure.seconds:.1f} s", figure.seconds, longest) for figure in figures]
    if idle:
        pages = {
            "webmail's page, nobody waiting": idle["webmail_alone"],
            "webmail's page beside 200 idle IMAP connections and 50 phones": idle["webmail_busy"],
        }
        bars += [(f"{what}: {value:.2f} s", value, max(1.0, *pages.values())) for what, value in pages.items()]
        sizes = {"idle IMAP connection": idle["imap_kib"] / 1024, "phone that waits": idle["phone_kib"] / 1024}
        bars += [(f"{what}: {value:.1f} MiB", value, max(sizes.values())) for what, value in sizes.items()]
    return bars


def picture(bars_wanted: list[tuple[str, float, float]]) -> str:
    """A bar for each figure, as SVG."""
    bars = []
    for number, (text, value, highest) in enumerate(bars_wanted):
        top, width = 20 + 44 * number, max(2, round(640 * value / highest))
        label = html.escape(text)
        bars.append(f'<text x="10" y="{top + 12}">{label}</text>')
        bars.append(f'<rect x="10" y="{top + 18}" width="{width}" height="14" fill="#2b6cb0"/>')
    height = 30 + 44 * len(bars_wanted)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="680" height="{height}" '
        f'font-family="sans-serif" font-size="13">'
        f'<rect width="680" height="{height}" fill="#fff"/>{"".join(bars)}</svg>\n'
    )


def main() -> None:
    out = Path(sys.argv[1]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    folder = out / "bench-site"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        figures = measure(folder)
    finally:
        shutil.rmtree(folder)
    ratio = figures[4].seconds / figures[2].seconds
    idle = waiting(out)
    result = {"figures": [asdict(figure) for figure in figures], "loop_to_module": round(ratio, 1), "waiting": idle}
    (out / "bench.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (out / "bench.svg").write_text(picture(bars_of(figures, idle)), encoding="utf-8")
    for figure in figures:
        print(f"{figure.seconds:8.1f} s  {figure.what} (median of {figure.runs})")
    for text, _, _ in bars_of(figures, idle)[len(figures) :]:
        print(f"            {text}")
    print(f"looped queries take {ratio:.0f} times as long as the module; picture: {out / 'bench.svg'}")


if __name__ == "__main__":
    main()
