# SPDX-License-Identifier: GPL-3.0-or-later
"""A control node without a Python that is new enough gets one line that says what to do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
TOOLS = ("cat", "cut", "dirname", "grep", "paste", "rm", "sh", "sha256sum", "tr")


def bootstrap(tmp_path: Path, python: str | None) -> subprocess.CompletedProcess[str]:
    """Run scripts/bootstrap in a copy, with these tools and at most one python3 to be found."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "scripts").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    if python:
        fake = tmp_path / "bin" / "python3"
        fake.write_text(python, encoding="utf-8")
        fake.chmod(0o755)
    shutil.copy(TOP / "scripts" / "bootstrap", tmp_path / "scripts")
    shutil.copy(TOP / "requirements.lock", tmp_path)
    environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    return subprocess.run(
        [str(tmp_path / "scripts" / "bootstrap")], env=environment, capture_output=True, text=True, check=False
    )


MESSAGE = (
    "No Python >= 3.12 with venv found: install one (Debian 13: apt install python3-venv), "
    "or name it: make env PYTHON=/path/to/python3\n"
)


def test_no_python_at_all(tmp_path: Path) -> None:
    done = bootstrap(tmp_path, None)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", MESSAGE)


def test_a_python_that_does_not_start_or_is_too_old_does_not_count(tmp_path: Path) -> None:
    done = bootstrap(tmp_path, "#!/bin/sh\necho 'python3: no version is set' >&2\nexit 1\n")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", MESSAGE)
