# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords: how good one is, and its hash.

Hashing is libsodium's, as the groupware's and the mail service's: another library takes another time for the same hash
(the reference code of argon2 twice as long as libsodium), and the time of a refusal would tell who exists.

Strength is estimated by zxcvbn: in Rust as Debian has it, or else in Python. Its cost grows with the password's length,
so it sees the first 72 characters.
"""

from __future__ import annotations

import hashlib
import threading
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import nacl.exceptions
from nacl.pwhash import argon2id

try:
    from zxcvbn_rs_py import zxcvbn as _estimate
except ImportError:
    from zxcvbn import zxcvbn as _estimate

# As plugins/module_utils/passwords.py has them, and the dummy of the mail service.
TIME_COST, MEMORY_KIB = 3, 65536
LONGEST = 256
LOOKED_AT = 72

# Each takes 64 MiB while it runs: so many at a time in one process.
_AT_A_TIME = threading.BoundedSemaphore(2)
# What a wrong login is compared with: random salt and digest, which no password has.
_DUMMY = b"$argon2id$v=19$m=65536,t=3,p=1$IDyqDjaEXz3PH/IF2P4aDQ$6n2DJ2JNe0kZbNYyliDhN5S9iLmQelzjYUbCcVgVP8g"


def hashed(password: str) -> str:
    """The hash as the directory holds it."""
    with _AT_A_TIME:
        made = argon2id.str(password.encode(), opslimit=TIME_COST, memlimit=MEMORY_KIB * 1024)
    return "{ARGON2ID}" + made.rstrip(b"\0").decode()


def waste(password: str) -> None:
    """Takes as long as comparing a wrong password with somebody's hash."""
    with _AT_A_TIME:
        try:
            argon2id.verify(_DUMMY, password[: 4 * LONGEST].encode("utf-8", "surrogatepass"))
        except nacl.exceptions.CryptoError:
            return


def problems(
    password: str, *, shortest: int, strength: int, breached: str, about: Sequence[str]
) -> list[tuple[str, dict[str, Any]]]:
    """What is wrong with a password that somebody chose, as keys of texts with their values; [] when nothing is.

    `about`: names that a guesser would try first (login, name, reseller). `strength`: least score of zxcvbn, 0 to 4.
    """
    if len(password) < shortest:
        return [("too_short", {"shortest": shortest, "length": len(password)})]
    if len(password) > LONGEST:
        return [("too_long", {"longest": LONGEST})]
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in password):
        return [("control", {})]
    found: list[tuple[str, dict[str, Any]]] = []
    words = list(dict.fromkeys(_words(about)))
    score, warning = estimated(password, words)
    # What is left without the words that are tried first; zxcvbn counts those for something.
    rest = password.lower()
    for word in sorted(words, key=len, reverse=True):
        rest = rest.replace(word, "")
    score = min(score, estimated(rest or "x", words)[0])
    if score < strength:
        found.append(("weak", {}))
        if any(word in password.lower() for word in words):
            found.append(("hint_about", {}))
        elif hint := next((key for word, key in _HINTS.items() if word in warning), ""):
            found.append((hint, {}))
    if breached and is_breached(password, breached):
        found.append(("breached", {}))
    return found


# A word of zxcvbn's warning, and the text that explains it; the first that fits.
_HINTS = {
    "row": "hint_spatial",
    "keyboard": "hint_spatial",
    "repeat": "hint_repeat",
    "sequence": "hint_sequence",
    "year": "hint_date",
    "date": "hint_date",
    "password": "hint_dictionary",
    "word": "hint_dictionary",
    "name": "hint_dictionary",
}


def estimated(password: str, words: list[str]) -> tuple[int, str]:
    """The score, 0 to 4, and the warning in lower case or ""."""
    result = _estimate(password[:LOOKED_AT], words)
    if isinstance(result, dict):
        return int(result["score"]), str(result["feedback"]["warning"]).lower()
    return int(result.score), str(result.feedback.warning).lower() if result.feedback else ""


def _words(about: Iterable[str]) -> Iterable[str]:
    for text in about:
        words = text.lower()
        for separator in "@.-_":
            words = words.replace(separator, " ")
        yield from (word for word in words.split() if len(word) >= 3)


def is_breached(password: str, path: str) -> bool:
    """Whether the password's SHA-1 is in a file of sorted hashes in hex, one a line, `:count` or not.

    The file is searched by halving, so that a list of any size costs some thirty reads.
    """
    wanted = hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper().encode()
    size = _size(path)
    with Path(path).open("rb") as file:
        low, high = 0, size
        while low < high:
            middle = (low + high) // 2
            file.seek(middle)
            if middle:
                file.readline()
            line = file.readline()
            if not line:
                high = middle
                continue
            if line[:40].upper() == wanted:
                return True
            if line[:40].upper() < wanted:
                low = middle + 1
            else:
                high = middle
        file.seek(0)
        return file.readline()[:40].upper() == wanted


@cache
def _size(path: str) -> int:
    return Path(path).stat().st_size
