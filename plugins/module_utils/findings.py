# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with what people wrote, and how it is said: file, line, key, value, problem, what is allowed.

Everything that reads contracts and customers' files reports through this module, so that an operator sees all findings
at once, in the same words, and never a secret or a control character of a stranger's file on his terminal.
"""

from __future__ import annotations

import difflib
import json
import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

type KeyPath = tuple[str | int, ...]

SHOWN_AT_MOST = 100
PRINTED_AT_MOST = 200
MOST_HINTS = 50
MOST_COMPARED = 2000
SECRET_PARTS = ("pass", "secret", "wachtwoord", "token", "pin")


class Invalid(ValueError):  # noqa: N818 -- it is a verdict on a value, not a failure
    """A value that is refused: `problem` says what is wrong with it, `allowed` what may stand there."""

    def __init__(self, problem: str, allowed: str) -> None:
        super().__init__(f"{problem}; allowed: {allowed}")
        self.problem = problem
        self.allowed = allowed


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is wrong. `line` 0 means that no line can be named; `value` is "" where there is none to show."""

    file: str
    line: int
    key: str
    value: str
    problem: str
    allowed: str

    def __str__(self) -> str:
        place = nearby(self.file) + (f":{self.line}" if self.line else "")
        text = f"{place}: {self.key}: {self.problem}" if self.key else f"{place}: {self.problem}"
        if self.value:
            text += f" (found {self.value})"
        # Parts of it may be a stranger's: names of files, of keys, of anchors.
        return printable(f"{text}; allowed: {self.allowed}")


class Document:
    """Something that people wrote, and what is wrong with it. Lines are looked up once, when `results` is called.

    `data`: what was read, as plain dicts, lists and scalars; None when nothing can be said about it. `findings`: errors
    of reading. A value's path is its keys and indices from the top.
    """

    def __init__(self, data: Any = None) -> None:
        self.data = data
        self.findings: list[Finding] = []
        self._hints = MOST_HINTS
        self._errors: list[tuple[KeyPath, str, str, object]] = []
        self._warnings: list[tuple[KeyPath, str, str, object]] = []

    def place(self, path: KeyPath) -> tuple[str, int, str | None]:
        """File and line of a value, or of the nearest thing around it that exists; how it is written, if known."""
        raise NotImplementedError

    def report(self, path: KeyPath, problem: str, allowed: str, value: object = ...) -> None:
        """An error. `value`: what to show as found, None for nothing; what stands at `path` when left out."""
        self._errors.append((path, problem, allowed, self._found(path, value)))

    def warn(self, path: KeyPath, problem: str, allowed: str, value: object = ...) -> None:
        """Something to know, which stops nothing."""
        self._warnings.append((path, problem, allowed, self._found(path, value)))

    def take[T](self, path: KeyPath, read: Callable[[Any], T], value: object) -> T | None:
        """`read(value)`, or None and an error at `path` when it is refused."""
        try:
            return read(value)
        except Invalid as invalid:
            self.report(path, invalid.problem, invalid.allowed)
            return None

    def hint(self, wrong: object, known: Collection[str]) -> str:
        """As `did_you_mean`, for the first few mistakes of a document: a hostile file must not make it costly."""
        self._hints -= 1
        return did_you_mean(wrong, known) if self._hints >= 0 and len(known) <= MOST_COMPARED else ""

    def _found(self, path: KeyPath, value: object) -> object:
        # Looked up now: what is of no use is taken out of `data` later on.
        return value if value is not ... else _Written(value_at(self.data, path))

    @property
    def is_sound(self) -> bool:
        return not self.findings and not self._errors

    def results(self) -> tuple[list[Finding], list[Finding]]:
        """All errors and all warnings so far. What could not be read is not reported a second time as unfit."""
        unread = {(finding.line, finding.key) for finding in self.findings}
        errors = [self._located(*noted) for noted in self._errors]
        return (
            self.findings + [error for error in errors if (error.line, error.key) not in unread],
            [self._located(*noted) for noted in self._warnings],
        )

    def _located(self, path: KeyPath, problem: str, allowed: str, value: object) -> Finding:
        file, line, written = self.place(path)
        key = next((part for part in reversed(path) if isinstance(part, str)), "")
        if isinstance(value, _Written):
            plain = written is not None and not isinstance(value.value, str | dict | list)
            text = shown(written).strip('"') if plain and written and not is_secret(key) else shown(value.value, key)
        else:
            text = "" if value is None else shown(value, key)
        return Finding(file, line, key_text(path), text, problem, allowed)


@dataclass(frozen=True)
class _Written:
    """A value that stands in the document, as opposed to one that a check came up with."""

    value: object


def value_at(data: Any, path: KeyPath) -> object:
    """The value at a path of keys and indices; None where there is none."""
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def prune(data: Any, path: KeyPath) -> None:
    """Takes out the value at a path: a key goes, a list's item becomes None, so that the others keep their index."""
    holder = value_at(data, path[:-1])
    if path and isinstance(holder, dict):
        holder.pop(path[-1], None)
    elif path and isinstance(holder, list):
        holder[int(path[-1])] = None


def nearby(file: str) -> str:
    """A path as the operator would type it: below the working directory relative, elsewhere as it is."""
    if not file.startswith("/"):
        return file
    relative = os.path.relpath(file)
    return file if relative.startswith("..") else relative


def printable(text: str) -> str:
    """`text` with everything escaped that could move a cursor, turn the writing direction or break a line."""
    return "".join(
        char if unicodedata.category(char)[0] not in "CZ" or char == " " else char.encode("unicode_escape").decode()
        for char in text
    )


def shown(value: object, key: object = "") -> str:
    """A value as an error shows it: secrets hidden, long text cut, containers named and not printed."""
    if is_secret(key):
        return "a hidden value"
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
    if len(text) > SHOWN_AT_MOST:
        text = text[: SHOWN_AT_MOST - 3] + "..."
    return printable(text)


def is_secret(key: object) -> bool:
    """Whether a key's name says that its value is nobody's business."""
    return isinstance(key, str) and any(part in key.lower() for part in SECRET_PARTS)


def key_text(path: Iterable[str | int]) -> str:
    """`("users", 3, "mail")` as `users[3].mail`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = printable(part if len(part) <= SHOWN_AT_MOST else part[:SHOWN_AT_MOST] + "...")
            text += f".{name}" if text else name
    return text


def did_you_mean(wrong: object, known: Iterable[str]) -> str:
    """`; did you mean "x"?` when something known looks like `wrong`, else nothing."""
    close = difflib.get_close_matches(str(wrong)[:100], sorted(known), n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else ""


def listing(names: Collection[str], nothing: str = "none", at_most: int = 30) -> str:
    """Names as `a, b, c`, sorted; a long list is cut and says so, a very long one is not even sorted."""
    if not names:
        return nothing
    if len(names) > MOST_COMPARED:
        return f"one of {len(names)}"
    sorted_names = sorted(names)
    more = len(sorted_names) - at_most
    return ", ".join(sorted_names[:at_most]) + (f" and {more} more" if more > 0 else "")


def report(findings: Sequence[Finding], at_most: int = PRINTED_AT_MOST) -> str:
    """All findings, one a line, sorted by file and line, with the count on top; a flood is cut but counted in full."""
    ordered = sorted(set(findings))
    files = len({finding.file for finding in ordered})
    many = f"{len(ordered)} errors" if len(ordered) != 1 else "1 error"
    lines = [f"{many} in {files} file{'s' if files != 1 else ''}:", *(str(finding) for finding in ordered[:at_most])]
    if len(ordered) > at_most:
        lines.append(f"... and {len(ordered) - at_most} more")
    return "\n".join(lines)
