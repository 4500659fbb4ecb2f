# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of module dns: written when they differ, removed when they are this site's and their domain went."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.bouwsteen.hosting.plugins.modules import dns


def text(name: str, line: str = "") -> str:
    return dns.heading(name, "bouwsteen.example") + line


def run(directory: Path, *names: str, line: str = "", all_domains: bool = True, check_mode: bool = False) -> list[str]:
    texts = {name: text(name, line) for name in names}
    diffs = dns.write(directory, "bouwsteen.example", texts, all_domains=all_domains, check_mode=check_mode)
    return [Path(diff["before_header"]).name for diff in diffs]


def test_files_come_change_and_go(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(out, "a.example", "b.example", check_mode=True) == ["a.example.zone", "b.example.zone"]
    assert not out.exists()
    assert run(out, "a.example", "b.example") == ["a.example.zone", "b.example.zone"]
    assert run(out, "a.example", "b.example") == []
    assert run(out, "a.example", "b.example", line="x\n") == ["a.example.zone", "b.example.zone"]
    assert run(out, "a.example", line="x\n", all_domains=False) == [], "a part of the domains says nothing of the rest"
    assert run(out, "a.example", line="x\n", check_mode=True) == ["b.example.zone"]
    assert run(out, "a.example", line="x\n") == ["b.example.zone"]
    assert sorted(path.name for path in out.iterdir()) == ["a.example.zone"]


def test_files_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "hand.zone").write_text("hand TXT x\n")
    (tmp_path / "c.example.zone").write_text(dns.heading("c.example", "other.example"))
    assert run(tmp_path, "a.example") == ["a.example.zone"]
    assert len(list(tmp_path.iterdir())) == 3
