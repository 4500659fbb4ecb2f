# SPDX-License-Identifier: GPL-3.0-or-later
"""DKIM keys (RFC 6376): made on the directory machine, kept in the directory, copied to files on the mail machines.

RSA of 2048 bits: what every receiver checks (RFC 8301). The key files hold PEM; the map of selectors says which key a
domain signs with.
"""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BITS = 2048
MAP = "selectors.map"
SUFFIX = ".key"


class KeyMakingError(Exception):
    """A key could not be made; the text says why."""


def make_key() -> tuple[str, str]:
    """A fresh key: (private key as PEM, public key as in the DNS: base64 of SubjectPublicKeyInfo)."""
    private = _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{BITS}", stdin=b"")
    # Over standard input: a private key is never a file or an argument on the way.
    public = _openssl("pkey", "-pubout", "-outform", "DER", stdin=private)
    return private.decode(), base64.b64encode(public).decode()


def make_keys(number: int) -> list[tuple[str, str]]:
    """Several at once; finding primes takes one processor for a while, so all of them are used."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(pool.map(lambda _number: make_key(), range(number)))


def _openssl(*arguments: str, stdin: bytes) -> bytes:
    try:
        done = subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, check=True)
    except FileNotFoundError:
        raise KeyMakingError("the package openssl is not installed on the directory machine") from None
    except subprocess.CalledProcessError as error:
        raise KeyMakingError(
            f"openssl {arguments[0]} failed: {error.stderr.decode(errors='replace').strip()}"
        ) from None
    return done.stdout


_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('bouwsteen.dkim_keys', 0))"
_WITHOUT_KEY = """
    SELECT d.reseller_id, d.customer_id, d.name, r.name
    FROM directory.domains d JOIN directory.resellers r USING (reseller_id)
    WHERE r.name = ANY (%(resellers)s) AND d.state = 'active'
      AND NOT EXISTS (SELECT FROM directory.dkim_keys k
                      WHERE k.reseller_id = d.reseller_id AND k.domain = d.name AND k.state = 'active'
                        AND k.algorithm = 'rsa')
    ORDER BY d.name"""


def add_missing(connection: Any, resellers: Iterable[str], selector: str, *, check_mode: bool) -> list[dict[str, str]]:
    """Give every active domain of these resellers a key if it has none.

    The keys that were made, as {"reseller", "domain", "selector", "public_key"}; in check mode without the last.
    Raises `KeyMakingError`. Commits.
    """
    with connection.cursor() as cursor:
        cursor.execute(_LOCK)
        cursor.execute(_WITHOUT_KEY, {"resellers": list(resellers)})
        domains = cursor.fetchall()
        made = []
        keys = [] if check_mode else make_keys(len(domains))
        for number, (reseller_id, customer_id, domain, reseller) in enumerate(domains):
            made.append({"reseller": reseller, "domain": domain, "selector": selector})
            if check_mode:
                continue
            private, public = keys[number]
            made[-1]["public_key"] = public
            # A key of this name that is no longer used is in the way of nobody: the new one takes its place.
            cursor.execute(
                """INSERT INTO directory.dkim_keys
                       (reseller_id, customer_id, domain, selector, algorithm, private_key, public_key, state)
                   VALUES (%s, %s, %s, %s, 'rsa', %s, %s, 'active')
                   ON CONFLICT (reseller_id, domain, selector) DO UPDATE SET algorithm = 'rsa', state = 'active',
                       private_key = excluded.private_key, public_key = excluded.public_key, created_at = now()""",
                (reseller_id, customer_id, domain, selector, private, public),
            )
    connection.commit()
    return made


# ------------------------------------------------------------------------------------------------------ mail machine


@dataclass
class Files:
    """What a directory of keys should hold, by file name."""

    keys: dict[str, str] = field(default_factory=dict)
    map: str = ""


def wanted_files(rows: Iterable[Mapping[str, Any]]) -> Files:
    """The files for rows of the view mail.dkim_keys: a key each, and a line `DOMAIN SELECTOR` for what signs."""
    files = Files()
    signing: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: (row["domain"], row["selector"])):
        files.keys[f"{row['domain']}.{row['selector']}{SUFFIX}"] = row["private_key"].rstrip("\n") + "\n"
        if row["state"] == "active" and row["algorithm"] == "rsa":
            signing[row["domain"]] = row["selector"]
    files.map = "".join(f"{domain} {selector}\n" for domain, selector in sorted(signing.items()))
    return files


@dataclass
class Synced:
    """Names of the files that differ, by what is done to them."""

    created: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """For --diff; names only."""
        return "".join(
            f"{name}: {operation}\n"
            for operation in ("created", "changed", "removed")
            for name in getattr(self, operation)
        )


def sync(path: Path, files: Files, owner: tuple[int, int], *, check_mode: bool) -> Synced:
    """Make a directory hold these keys and this map. Keys come before the map that names them, and go after it."""
    done = Synced()
    for name, content in files.keys.items():
        _install(path / name, content, 0o600, owner, done, check_mode=check_mode)
    _install(path / MAP, files.map, 0o644, owner, done, check_mode=check_mode)
    for stale in sorted(path.glob(f"*{SUFFIX}")):
        if stale.name not in files.keys:
            done.removed.append(stale.name)
            if not check_mode:
                stale.unlink()
    return done


def _install(path: Path, content: str, mode: int, owner: tuple[int, int], done: Synced, *, check_mode: bool) -> None:
    try:
        status = path.lstat()
        present: tuple[Any, ...] | None = (
            path.read_text(encoding="utf-8"), status.st_mode & 0o7777, status.st_uid, status.st_gid,
        )  # fmt: skip
    except FileNotFoundError:
        present = None
    if present == (content, mode, *owner):
        return
    (done.created if present is None else done.changed).append(path.name)
    if check_mode:
        return
    handle, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            os.fchown(file.fileno(), *owner)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
