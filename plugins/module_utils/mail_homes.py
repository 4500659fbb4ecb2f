# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove the mail of people and customers that are gone: which folders may go, and how they go."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# Below the root: the reseller's name, the customer's id and, for one person, his id. Nothing else is ever removed.
HOME = re.compile(rf"[a-z0-9][a-z0-9-]*/{UUID}(?:/{UUID})?")


def checked(paths: Iterable[str], root: str) -> list[str]:
    """Paths below `root` in order, without those that lie in another one of them.

    Raises ValueError naming every path that is no home of a customer or a person.
    """
    below = root.rstrip("/") + "/"
    wrong = [path for path in paths if not (path.startswith(below) and HOME.fullmatch(path.removeprefix(below)))]
    if wrong:
        raise ValueError(f"no home of mail below {root}: {', '.join(sorted(wrong))}")
    result: list[str] = []
    for path in sorted(set(paths)):
        if not (result and path.startswith(result[-1] + "/")):
            result.append(path)
    return result


def remove(paths: Iterable[str], *, check_mode: bool) -> list[str]:
    """Remove the folders that are there; returns them. A run that is killed half-way is finished by the next one.

    Raises OSError. A symbolic link in a path is refused: these folders are made by the mail service alone.
    """
    there = [path for path in paths if Path(path).is_dir()]
    for path in there:
        if Path(path).resolve() != Path(path):
            raise OSError(f"{path} leads through a symbolic link; look who made it")
        if not check_mode:
            shutil.rmtree(path)
    return there
