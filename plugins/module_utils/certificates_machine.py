# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's certificates: the store on disk, the ACME client, the services. Decisions are taken in `certificates`.

The store is built so that a run killed anywhere leaves a certificate and its own key in service:

    /etc/ssl/bouwsteen/<name>                  -> .store/<name>/<version>   swapped by one rename
    /etc/ssl/bouwsteen/.store/<name>/<version>/   fullchain.pem privkey.pem about.json, complete before the swap
    /etc/ssl/bouwsteen/.store/<name>/next-<generation>.pem   a key for the next certificate, not in service yet
    /etc/ssl/bouwsteen/.store/<name>/retired      not wanted any more since this file was made

The module runs this code on the machine through Ansible; the timer runs the same code as `bouwsteen-certificates`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import certificates as decide
from ansible_collections.bouwsteen.hosting.plugins.module_utils.certificates import (
    Broken,
    CertificatesError,
    Change,
    NextKey,
    Policy,
    Present,
    Step,
    Unit,
    Wanted,
)

GROUP = "ssl-cert"
KEPT_VERSIONS = 2
ACME_CLIENT = "/usr/bin/dehydrated"
RESPONDER = "bouwsteen-acme-responder.service"
CHECK_UNIT = "bouwsteen-certificates.service"
# What an issue may take: a dns-01 challenge waits for the zone's secondaries.
ACME_SECONDS = 600
DNS_SECONDS = 120

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)
_NEXT = re.compile(r"next-(\d+)\.pem")


def _x509() -> ModuleType:
    """The cryptography half, imported late: a machine that has no certificate yet may not have the package either."""
    from ansible_collections.bouwsteen.hosting.plugins.module_utils import certificates_x509  # noqa: PLC0415

    return certificates_x509


@dataclass(frozen=True)
class Paths:
    """Where things are; `root` is / but for tests."""

    root: Path = Path("/")

    @property
    def store(self) -> Path:
        return self.root / "etc/ssl/bouwsteen"

    @property
    def site_ca(self) -> Path:
        return self.store / "site-ca.pem"

    @property
    def trusted(self) -> Path:
        return self.root / "usr/local/share/ca-certificates"

    @property
    def trust_bundle(self) -> Path:
        return self.root / "etc/ssl/certs/ca-certificates.crt"

    @property
    def settings(self) -> Path:
        return self.root / "etc/bouwsteen/certificates.json"

    @property
    def hooks(self) -> Path:
        return self.root / "etc/bouwsteen/certificates.d"

    @property
    def acme_config(self) -> Path:
        return self.root / "etc/bouwsteen/acme/dehydrated.conf"

    @property
    def acme_key(self) -> Path:
        return self.root / "etc/bouwsteen/acme/tsig.key"

    @property
    def webroot(self) -> Path:
        return self.root / "var/lib/bouwsteen/acme"

    @property
    def acme_state(self) -> Path:
        return self.root / "var/lib/bouwsteen/dehydrated"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/bouwsteen/certificates"

    @property
    def run(self) -> Path:
        return self.root / "run/bouwsteen/certificates"


@dataclass(frozen=True)
class Settings:
    """What the role decided, as it stands in /etc/bouwsteen/certificates.json."""

    machine: str
    site: str = "site"
    issuer: str = "site_ca"
    key_type: str = "ec-p256"
    renew_percent: int = 33
    warn_days: int = 30
    rollover_days: int = 2
    retire_days: int = 1
    lifetime_days: int = 365
    acme: Mapping[str, Any] = field(default_factory=dict)
    wanted: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        known = {one.name for one in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})

    @property
    def policy(self) -> Policy:
        return Policy(self.renew_percent, self.warn_days, self.rollover_days)

    @property
    def challenge(self) -> str:
        return str(self.acme.get("challenge") or "http-01")

    @property
    def directory(self) -> str:
        return str(self.acme.get("directory") or "")

    def parsed(self) -> list[Wanted]:
        """What is wanted, checked."""
        for name, low, high in (
            ("renew_percent", 5, 90),
            ("warn_days", 1, 365),
            ("rollover_days", 0, 365),
            ("retire_days", 0, 365),
            ("lifetime_days", 2, 3650),
        ):
            if not low <= int(getattr(self, name)) <= high:
                raise CertificatesError(f"certificates_{name}: {getattr(self, name)} is not between {low} and {high}")
        wanted = decide.parse_wanted(self.wanted, self.issuer, self.key_type, self.challenge)
        if any(item.issuer == "acme" for item in wanted):
            dns = self.acme.get("dns") or {}
            if not self.directory.startswith("https://"):
                raise CertificatesError(f"certificates_acme_directory: {self.directory!r} is not an https URL")
            if self.challenge == "dns-01" and not self.acme.get("hook") and not dns.get("server"):
                raise CertificatesError(
                    "certificates_acme_challenge: dns-01 needs certificates_acme_dns_server or certificates_acme_hook"
                )
        return wanted


def load_settings(paths: Paths) -> Settings:
    """The settings that the role left on the machine."""
    try:
        return Settings.of(json.loads(paths.settings.read_text()))
    except (OSError, ValueError) as error:
        raise CertificatesError(f"{paths.settings} cannot be read ({error}); apply the role certificates") from None


Runner = Callable[..., "subprocess.CompletedProcess[str]"]


def run_command(
    command: Sequence[str], timeout: float = 60, env: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """A command's result; one that does not exist or takes too long is a failure like any other."""
    base = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": "/root",
    }
    try:
        return subprocess.run(
            list(command),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**base, **(env or {})},
            check=False,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(list(command), 127, "", f"{command[0]} is not installed")
    except subprocess.TimeoutExpired as late:
        said = late.stderr.decode() if isinstance(late.stderr, bytes) else late.stderr or ""
        return subprocess.CompletedProcess(list(command), 124, "", f"{said}\nERROR: no end after {timeout:.0f} s")


# --- files -----------------------------------------------------------------------------------------------------------


def write(path: Path, text: str, mode: int, gid: int = -1) -> None:
    """Puts a file in place whole or not at all; it never has a wider mode than `mode`, not even for a moment."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            os.fchmod(file.fileno(), mode)
            if gid >= 0:
                os.fchown(file.fileno(), -1, gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _group() -> int:
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return -1


@contextlib.contextmanager
def locked(paths: Paths, seconds: float = 900) -> Iterator[None]:
    """One run at a time on a machine: the timer's and Ansible's exclude each other. The lock dies with its process."""
    paths.run.mkdir(parents=True, exist_ok=True)
    with (paths.run / "lock").open("w") as file:
        until = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise CertificatesError(f"another run has held {paths.run}/lock for {seconds:.0f} s") from None
                time.sleep(0.2)
        yield


class Store:
    """The certificates on disk."""

    def __init__(self, paths: Paths, gid: int | None = None) -> None:
        self.paths = paths
        self.gid = _group() if gid is None else gid

    def folder(self, name: str) -> Path:
        return self.paths.store / ".store" / name

    def link(self, name: str) -> Path:
        return self.paths.store / name

    def present(self, name: str) -> Present | Broken | None:
        """What stands in a certificate's place."""
        link = self.link(name)
        if not link.is_symlink() and not link.exists():
            return None
        x509 = _x509()
        try:
            key_type, spki = x509.key_facts((link / "privkey.pem").read_text())
        except (OSError, CertificatesError) as error:
            return Broken(f"its key is unusable ({getattr(error, 'strerror', None) or error})", key_usable=False)
        try:
            facts = x509.certificate_facts((link / "fullchain.pem").read_text())
            about = json.loads((link / "about.json").read_text())
            issuer, issuer_id, generation = str(about["issuer"]), str(about["issuer_id"]), int(about["key_generation"])
        except (OSError, CertificatesError) as error:
            return Broken(f"the certificate is unusable ({getattr(error, 'strerror', None) or error})", key_usable=True)
        except (ValueError, KeyError, TypeError):
            return Broken("about.json is damaged", key_usable=True)
        if facts.spki != spki:
            return Broken("the key does not belong to the certificate", key_usable=True)
        return Present(
            names=tuple(decide.canonical(one) for one in facts.names),
            not_before=facts.not_before,
            not_after=facts.not_after,
            usage=facts.usage,
            key_type=key_type,
            key_generation=generation,
            spki=spki,
            fingerprint=facts.fingerprint,
            issuer=issuer,
            # A certificate itself says who signed it; what stands beside it is believed for ACME only.
            issuer_id=facts.authority if issuer == "site_ca" else issuer_id,
            installed=datetime.fromtimestamp(link.lstat().st_mtime, UTC),
        )

    def _next_file(self, name: str) -> tuple[Path, int] | None:
        folder = self.folder(name)
        found = sorted(
            (
                (path, int(match.group(1)))
                for path in folder.glob("next-*.pem")
                if (match := _NEXT.fullmatch(path.name))
            ),
            key=lambda pair: pair[1],
        )
        return found[-1] if found else None

    def next_key(self, name: str) -> NextKey | None:
        """The key that waits for its turn, if there is one that can be used."""
        found = self._next_file(name)
        if not found:
            return None
        path, generation = found
        try:
            key_type, spki = _x509().key_facts(path.read_text())
        except (OSError, CertificatesError):
            return None
        return NextKey(key_type, generation, spki, datetime.fromtimestamp(path.stat().st_mtime, UTC))

    def prepare(self, name: str = "") -> None:
        """Folders with the right modes.

        The store's own is open, so that anyone may read site-ca.pem; a certificate's is not.
        """
        folders = [(self.paths.store, 0o755), (self.paths.store / ".store", 0o750)]
        folders += [(self.folder(name), 0o750)] if name else []
        for folder, mode in folders:
            folder.mkdir(parents=True, exist_ok=True)
            if folder.stat().st_mode & 0o7777 != mode:
                folder.chmod(mode)
            if mode == 0o750 and self.gid >= 0 and folder.stat().st_gid != self.gid:
                os.chown(folder, -1, self.gid)

    def make_next(self, name: str, key_type: str, generation: int) -> NextKey:
        """A new key for the next certificate, in the place of any other that waited."""
        self.prepare(name)
        self.drop_next(name)
        write(self.folder(name) / f"next-{generation}.pem", _x509().make_key(key_type), 0o600)
        made = self.next_key(name)
        if made is None:
            raise CertificatesError(f"{name}: the new key cannot be read back")
        return made

    def drop_next(self, name: str) -> None:
        """Removes the key that waits for its turn."""
        for path in self.folder(name).glob("next-*.pem"):
            path.unlink()

    def key(self, name: str, which: str) -> tuple[str, int]:
        """PEM and generation of the key that a request is made with: `current` or `next`."""
        if which == "next":
            found = self._next_file(name)
            if not found:
                raise CertificatesError(f"{name}: there is no next key")
            return found[0].read_text(), found[1]
        generation = 1
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            generation = int(json.loads((self.link(name) / "about.json").read_text())["key_generation"])
        return (self.link(name) / "privkey.pem").read_text(), generation

    def install(self, wanted: Wanted, fullchain: str, issuer: str, issuer_id: str, now: datetime) -> None:
        """Puts a certificate in service beside the key that it belongs to, in one step."""
        x509 = _x509()
        name = wanted.name
        chain = "".join(block if block.endswith("\n") else f"{block}\n" for block in _BLOCK.findall(fullchain))
        if not chain:
            raise CertificatesError(f"{name}: the issuer's answer holds no certificate")
        facts = x509.certificate_facts(chain)
        if differ := decide.names_reason(wanted.names, [decide.canonical(one) for one in facts.names]):
            raise CertificatesError(f"{name}: the issuer's certificate is for other names: {differ}")
        if facts.not_after <= now:
            raise CertificatesError(f"{name}: the issuer's certificate expired on {facts.not_after:%Y-%m-%d}")
        key, generation = self._key_for(name, facts.spki)
        version = f"{now:%Y%m%dT%H%M%S}-{facts.fingerprint[:12]}"
        folder = self.folder(name)
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
        try:
            about = {
                "issuer": issuer,
                "issuer_id": issuer_id,
                "key_generation": generation,
                "installed": decide.stamp_text(now),
            }
            write(temporary / "fullchain.pem", chain, 0o640, self.gid)
            write(temporary / "privkey.pem", key, 0o640, self.gid)
            write(temporary / "about.json", json.dumps(about, indent=1) + "\n", 0o640, self.gid)
            temporary.chmod(0o750)
            if self.gid >= 0:
                os.chown(temporary, -1, self.gid)
            _sync(temporary)
            target = folder / version
            if target.exists():
                shutil.rmtree(target)
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync(folder)
        self._switch(name, target)
        self.tidy(name)

    def _key_for(self, name: str, spki: str) -> tuple[str, int]:
        for which in ("next", "current"):
            with contextlib.suppress(OSError, CertificatesError):
                pem, generation = self.key(name, which)
                if _x509().key_facts(pem)[1] == spki:
                    return pem, generation
        raise CertificatesError(f"{name}: the issuer's certificate is for a key that this machine does not have")

    def _switch(self, name: str, target: Path) -> None:
        link = self.link(name)
        if link.is_dir() and not link.is_symlink():
            raise CertificatesError(f"{link} is a folder that this role did not make; move it away")
        temporary = self.paths.store / f".{name}.new"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path(".store") / name / target.name)
        temporary.replace(link)
        _sync(self.paths.store)

    def tidy(self, name: str) -> None:
        """Removes what is over: leftovers of killed runs, a next key that is in service, versions but the last few."""
        folder = self.folder(name)
        if not folder.is_dir():
            return
        present = self.present(name)
        waiting = self.next_key(name)
        if isinstance(present, Present) and waiting and waiting.spki == present.spki:
            self.drop_next(name)
        for path in folder.glob(".new-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in folder.glob(".next-*"):
            path.unlink()
        link = self.link(name)
        current = link.readlink().name if link.is_symlink() else ""
        versions = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        others = [path for path in versions if path.name != current]
        for path in others[: max(0, len(versions) - KEPT_VERSIONS)]:
            shutil.rmtree(path)

    def names(self) -> list[str]:
        """All certificates that are here, wanted or not."""
        folder = self.paths.store / ".store"
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def retire(self, wanted: Iterable[str], keep: timedelta, now: datetime, dry: bool) -> list[Change]:
        """What is not wanted any more is marked, and removed when it has been so for `keep`.

        Not at once: services may still name it in their configuration, which changes later in the same run.
        """
        changes = []
        known = set(wanted)
        for name in self.names():
            mark = self.folder(name) / "retired"
            if name in known:
                if mark.exists():
                    changes.append(Change(f"certificate {name}", ["not wanted"], ["wanted"]))
                    if not dry:
                        mark.unlink()
                continue
            since = datetime.fromtimestamp(mark.stat().st_mtime, UTC) if mark.exists() else None
            if since is None:
                changes.append(
                    Change(f"certificate {name}", ["wanted"], [f"not wanted, removed after {decide.days(keep)} days"])
                )
                if not dry:
                    write(mark, "", 0o600)
            elif now - since >= keep:
                changes.append(Change(f"certificate {name}", describe_short(self, name), []))
                if not dry:
                    self.link(name).unlink(missing_ok=True)
                    shutil.rmtree(self.folder(name))
                    (self.paths.state / f"{name}.failure").unlink(missing_ok=True)
        return changes


def describe_short(store: Store, name: str) -> list[str]:
    """A certificate that goes, as lines."""
    return decide.describe(store.present(name)) or ["an unfinished certificate"]


# --- trust in the site CA --------------------------------------------------------------------------------------------


def trust(paths: Paths, site: str, roots: Sequence[str], run: Runner, dry: bool) -> list[Change]:
    """Makes the machine trust the site CA's roots and no earlier ones. `roots`: PEM, the one that signs now first."""
    changes: list[Change] = []
    if not roots:
        return changes
    x509 = _x509()
    bundle = "".join(roots)
    folder = paths.trusted
    titles = {pem: x509.certificate_facts(pem) for pem in roots}
    prefix = f"bouwsteen-{re.sub(r'[^A-Za-z0-9._-]+', '-', site)}"
    files = {f"{prefix}-{facts.fingerprint[:12]}.crt": pem for pem, facts in titles.items()}
    here = {path.name for path in folder.glob(f"{prefix}-*.crt")} if folder.is_dir() else set()
    differ = {name for name, pem in files.items() if name not in here or (folder / name).read_text() != pem}
    surplus = here - set(files)
    before = paths.site_ca.read_text() if paths.site_ca.exists() else ""
    if differ or surplus or before != bundle:
        old = [_title(pem) for pem in _BLOCK.findall(before)]
        changes.append(Change("trusted site CA", old, [_title(pem) for pem in roots]))
        if not dry:
            Store(paths).prepare()
            folder.mkdir(parents=True, exist_ok=True)
            for name in surplus:
                (folder / name).unlink()
            for name in differ:
                write(folder / name, files[name], 0o644)
            if before != bundle:
                write(paths.site_ca, bundle, 0o644)
    system = paths.trust_bundle.read_text() if paths.trust_bundle.exists() else ""
    # The system's bundle is derived: compared with what it is made from, not with what this run changed.
    stale = surplus or any(pem.strip() not in system for pem in roots)
    if stale and not dry:
        done = run(["update-ca-certificates"], timeout=120)
        if done.returncode != 0:
            raise CertificatesError(f"update-ca-certificates failed: {(done.stderr or done.stdout).strip()[-500:]}")
    if stale and not changes:
        changes.append(Change("trusted site CA", ["not in the system's bundle"], ["in the system's bundle"]))
    return changes


def _title(pem: str) -> str:
    facts = _x509().certificate_facts(pem)
    return f"{facts.common_name}, key {facts.subject_key}, ends {facts.not_after:%Y-%m-%d}"


# --- ACME ------------------------------------------------------------------------------------------------------------


def port_is_free(port: int = 80) -> bool:
    """Whether nothing listens on a TCP port of this machine."""
    for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):  # noqa: S104 (asks, does not listen)
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((address, port))
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EADDRINUSE}:
                return False
    return True


@contextlib.contextmanager
def responder(settings: Settings, run: Runner, free: Callable[[], bool] = port_is_free) -> Iterator[None]:
    """Answers http-01 challenges for as long as it takes.

    Unless somebody else has port 80: who has it serves the webroot.
    """
    if settings.challenge != "http-01" or not free():
        yield
        return
    started = run(["systemctl", "start", RESPONDER], timeout=30)
    if started.returncode != 0:
        raise CertificatesError(
            f"{RESPONDER} does not start: {started.stderr.strip()}; look: journalctl -u {RESPONDER}"
        )
    try:
        yield
    finally:
        run(["systemctl", "stop", RESPONDER], timeout=30)


def forget_accounts(paths: Paths, *, lost: bool) -> None:
    """Removes accounts that cannot work: half-made by a killed run, or all of them when the server does not know ours.

    dehydrated makes the key first and registers it then; a key without registration makes it ask for an account that
    does not exist, for ever.
    """
    for folder in (paths.acme_state / "accounts").glob("*"):
        registration = folder / "registration_info.json"
        if lost or not registration.exists() or registration.stat().st_size == 0:
            for name in ("account_key.pem", "account_id.json", "registration_info.json"):
                (folder / name).unlink(missing_ok=True)


def issue_acme(paths: Paths, settings: Settings, wanted: Wanted, request: str, run: Runner) -> str:
    """A certificate chain (PEM) from the ACME server, or a CertificatesError with the server's reason.

    The client only carries the request there and proves the names; keys and renewal are ours. Its own lock file is not
    used: one that a killed run leaves behind would stop every later run (dehydrated-io/dehydrated#813).
    """
    if not settings.acme.get("terms_agreed"):
        raise CertificatesError(
            "the ACME server's terms of service are not agreed to:"
            " read them and set certificates_acme_terms_agreed: true"
        )
    with tempfile.TemporaryDirectory(dir=paths.run, prefix="request-") as folder:
        csr = Path(folder) / "request.pem"
        csr.write_text(request)
        command = [
            ACME_CLIENT,
            "--config",
            str(paths.acme_config),
            "--no-lock",
            "--accept-terms",
            "--signcsr",
            str(csr),
        ]
        forget_accounts(paths, lost=False)
        done = run(command, timeout=ACME_SECONDS)
        if done.returncode != 0 and "acme:error:accountDoesNotExist" in done.stdout + done.stderr:
            # The server forgot us (a test server did, or the account was removed there): register again, once.
            forget_accounts(paths, lost=True)
            done = run(command, timeout=ACME_SECONDS)
    log = paths.state / f"{wanted.name}.log"
    write(log, f"{done.stderr}\n{done.stdout}", 0o640)
    if done.returncode != 0:
        raise CertificatesError(f"{decide.acme_failure(f'{done.stdout}{done.stderr}')}; the whole story: {log}")
    return done.stdout


# --- dns-01: the hook of dehydrated ----------------------------------------------------------------------------------


def challenge_owner(name: str, run: Runner) -> str:
    """The record to write for a name (RFC 8555 8.4).

    That is _acme-challenge.NAME, or where a CNAME points that its owner put there.
    """
    owner = f"_acme-challenge.{name}"
    for _ in range(8):
        target = run(["dig", "+short", "+time=3", "+tries=2", owner, "CNAME"]).stdout.strip()
        if not target or target.startswith(";"):
            return owner
        owner = target.splitlines()[0].rstrip(".")
    return owner


def dns_update(settings: Settings, paths: Paths, run: Runner, *, action: str, owner: str, value: str) -> None:
    """Adds or deletes one TXT record by dynamic update (RFC 2136), signed with the TSIG key beside the settings."""
    dns = settings.acme.get("dns") or {}
    ttl = int(dns.get("ttl") or 60)
    lines = [f"server {dns['server']} {int(dns.get('port') or 53)}"]
    if dns.get("zone"):
        lines.append(f"zone {dns['zone']}")
    if action == "add":
        lines.append(f'update add {owner}. {ttl} TXT "{value}"')
    else:
        lines.append(f'update delete {owner}. TXT "{value}"')
    lines += ["send", ""]
    done = run(["nsupdate", "-k", str(paths.acme_key), "-t", "30"], timeout=60, stdin="\n".join(lines))
    if done.returncode != 0:
        said = "; ".join(line.strip("; ") for line in done.stderr.splitlines() if line.strip("; "))
        raise CertificatesError(f"ERROR: the DNS server {dns['server']} refused the update of {owner}: {said}")


def zone_servers(owner: str, server: str, port: int, run: Runner) -> list[tuple[str, int]]:
    """Every server that must answer with the record: the one that was updated, and the zone's name servers."""
    servers = [(server, port)]
    labels = owner.split(".")
    for start in range(len(labels)):
        answer = run(
            ["dig", "+short", "+time=3", "+tries=1", f"@{server}", "-p", str(port), ".".join(labels[start:]), "NS"]
        )
        found = [line.rstrip(".") for line in answer.stdout.splitlines() if line and not line.startswith(";")]
        if found:
            servers += [(one, 53) for one in found]
            break
    return servers


def wait_for_record(
    owner: str, value: str, servers: Sequence[tuple[str, int]], run: Runner, seconds: float = DNS_SECONDS
) -> None:
    """Waits until every server of the zone answers with the record; validation may ask any of them."""
    until = time.monotonic() + seconds
    missing = list(servers)
    while missing:
        missing = [
            (server, port)
            for server, port in missing
            if value
            not in run(["dig", "+short", "+time=3", "+tries=1", f"@{server}", "-p", str(port), owner, "TXT"]).stdout
        ]
        if missing and time.monotonic() > until:
            slow = ", ".join(server for server, _ in missing)
            raise CertificatesError(f"ERROR: {owner} TXT did not appear on {slow} within {seconds:.0f} s")
        if missing:
            time.sleep(1)


def acme_hook(paths: Paths, settings: Settings, arguments: Sequence[str], run: Runner) -> None:
    """What dehydrated calls: OPERATION DOMAIN TOKEN VALUE. Unknown operations are none of our business."""
    if len(arguments) < 4 or arguments[0] not in {"deploy_challenge", "clean_challenge"}:
        return
    operation, name, value = arguments[0], arguments[1], arguments[3]
    dns = settings.acme.get("dns") or {}
    owner = challenge_owner(name, run)
    if operation == "clean_challenge":
        dns_update(settings, paths, run, action="delete", owner=owner, value=value)
        return
    dns_update(settings, paths, run, action="add", owner=owner, value=value)
    wait_for_record(owner, value, zone_servers(owner, str(dns["server"]), int(dns.get("port") or 53), run), run)


# --- services --------------------------------------------------------------------------------------------------------


def show_units(names: Sequence[str], run: Runner) -> dict[str, Unit]:
    """Units as systemd knows them, by the name that was asked for, which may be an alias."""
    if not names:
        return {}
    done = run(["systemctl", "show", "--timestamp=unix", f"--property={decide.UNIT_PROPERTIES}", "--", *names])
    units = decide.parse_units(done.stdout)
    if len(units) != len(names):
        raise CertificatesError(f"systemctl show {' '.join(names)} failed: {done.stderr.strip()[-300:]}")
    # It answers in the order of the question.
    return dict(zip(names, units, strict=True))


def serve(
    paths: Paths, wanted: Sequence[Wanted], present: Mapping[str, Any], run: Runner, dry: bool
) -> tuple[list[dict[str, str]], list[str]]:
    """Makes running services use the certificates on disk: (what was done, what failed)."""
    done: list[dict[str, str]] = []
    failed: list[str] = []
    users = decide.services_of(wanted)
    for asked, unit in show_units(sorted(users), run).items():
        certificates = {name: one for name in users[asked] if isinstance(one := present.get(name), Present)}
        runs_with = {name: one.fingerprint for name, one in certificates.items()}
        changed = max((one.installed.timestamp() for one in certificates.values()), default=0.0)
        stamp_file = paths.run / f"{unit.name}.json"
        stamp = None
        with contextlib.suppress(OSError, ValueError):
            stamp = json.loads(stamp_file.read_text())
        action = decide.service_action(unit, runs_with, stamp, changed)
        if action and not dry:
            verb, _ = action
            error = _act(paths.hooks / asked.removesuffix(".service"), unit, verb, run)
            if error:
                failed.append(error)
                continue
        if action:
            done.append({"service": unit.name.removesuffix(".service"), "action": action[0], "because": action[1]})
        if not dry and unit.active:
            # A restart gives a new invocation; asked for again, because the stamp must name the one that runs.
            invocation = show_units([asked], run).get(asked, unit).invocation if action else unit.invocation
            text = json.dumps({"invocation": invocation, "certificates": runs_with}, sort_keys=True)
            if not stamp or json.dumps(stamp, sort_keys=True) != text:
                write(stamp_file, text, 0o644)
    return done, failed


def _act(hook: Path, unit: Unit, verb: str, run: Runner) -> str | None:
    if hook.exists():
        prepared = run([str(hook)], timeout=120)
        if prepared.returncode != 0:
            return f"{unit.name} keeps its old certificate: {hook} failed: {prepared.stderr.strip()[-300:]}"
    acted = run(["systemctl", verb, unit.name], timeout=120)
    if acted.returncode != 0:
        return f"{unit.name} does not {verb}: {acted.stderr.strip()[-300:]}; look: journalctl -u {unit.name}"
    return None


# --- the whole -------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """What a run did and found. `requests`: what the control node has to sign: {name: {request, names, usage}}."""

    changes: list[Change] = field(default_factory=list)
    actions: list[dict[str, str]] = field(default_factory=list)
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    certificates: list[dict[str, Any]] = field(default_factory=list)
    problems: list[dict[str, str]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.changes or self.actions)


class Keeper:
    """Brings a machine's certificates to the wanted state."""

    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        now: datetime | None = None,
        run: Runner = run_command,
        gid: int | None = None,
    ) -> None:
        self.paths = paths
        self.settings = settings
        self.now = now or datetime.now(UTC)
        self.run = run
        self.store = Store(paths, gid)
        self.wanted = settings.parsed()

    # what is there

    def look(self) -> tuple[dict[str, Present | Broken | None], dict[str, NextKey | None]]:
        """The certificates and the waiting keys of everything that is wanted."""
        names = [item.name for item in self.wanted]
        return {name: self.store.present(name) for name in names}, {name: self.store.next_key(name) for name in names}

    def failure(self, name: str) -> str | None:
        """What the ACME server said the last time, if it refused."""
        with contextlib.suppress(OSError):
            return (self.paths.state / f"{name}.failure").read_text().strip() or None
        return None

    def _note(self, name: str, failure: str | None) -> None:
        self.paths.state.mkdir(parents=True, exist_ok=True)
        file = self.paths.state / f"{name}.failure"
        if failure is None:
            file.unlink(missing_ok=True)
        else:
            write(file, f"{failure}\n", 0o644)

    def report(self) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        """What may be known of the certificates, and what is wrong with them."""
        present, waiting = self.look()
        entries = [decide.entry(item, present[item.name], waiting[item.name]) for item in self.wanted]
        problems: list[dict[str, str]] = []
        for item in self.wanted:
            problems += decide.problems_of(
                item, present[item.name], self.failure(item.name), self.settings.policy, self.now
            )
        if self.paths.site_ca.exists():
            for pem in _BLOCK.findall(self.paths.site_ca.read_text())[:1]:
                facts = _x509().certificate_facts(pem)
                problems += decide.root_problems(facts.common_name, facts.not_after, self.now)
        return entries, problems

    def write_status(self, entries: list[dict[str, Any]], problems: list[dict[str, str]]) -> None:
        """Leaves the report where verify and dns find it; its change time says when the machine last looked."""
        self.paths.state.mkdir(parents=True, exist_ok=True)
        write(
            self.paths.state / "status.json",
            json.dumps({"certificates": entries, "problems": problems}, indent=1) + "\n",
            0o644,
        )

    # what is done

    def apply(
        self,
        issuer_ids: Mapping[str, str],
        issuers: Sequence[str] = decide.ISSUERS,
        renew: Sequence[str] = (),
        new_key: Sequence[str] = (),
        dry: bool = False,
    ) -> Result:
        """One run up to what the control node has to sign. `issuers`: whose certificates may be touched."""
        result = Result()
        present, waiting = self.look()
        steps = decide.plan(
            self.wanted, present, waiting, issuer_ids, self.settings.policy, now=self.now, renew=renew, new_key=new_key
        )
        result.steps = steps
        acme: list[Step] = []
        for step in steps:
            if step.wanted.issuer not in issuers:
                continue
            name = step.wanted.name
            if step.withdraw:
                result.changes.append(self._withdraw(name, waiting[name], dry))
            if step.action == "keep":
                if not dry:
                    self._settled(step)
                continue
            if step.publish:
                result.changes.append(self._publish(step, dry))
            if step.action == "publish_key":
                continue
            if dry:
                result.changes.append(self._foreseen(step, present[name], waiting[name], issuer_ids))
            elif step.wanted.issuer == "acme":
                acme.append(step)
            else:
                result.requests[name] = {
                    "request": self._request(step),
                    "names": list(step.wanted.names),
                    "usage": step.wanted.usage,
                    "reasons": list(step.reasons),
                }
        if acme:
            self._issue_acme(acme, present, issuer_ids, result)
        keep = timedelta(days=self.settings.retire_days)
        result.changes += self.store.retire([item.name for item in self.wanted], keep, self.now, dry)
        return result

    def _settled(self, step: Step) -> None:
        """Nothing is due: forget an earlier refusal, and what a killed run left."""
        if self.failure(step.wanted.name):
            self._note(step.wanted.name, None)
        folder = self.store.folder(step.wanted.name)
        if any(folder.glob(".new-*")) or any(folder.glob("next-*.pem")):
            self.store.tidy(step.wanted.name)

    def _publish(self, step: Step, dry: bool) -> Change:
        """Makes the next key, so that its hash can be published before it is used."""
        wanted = step.wanted
        key = f"key: {wanted.key_type} generation {wanted.key_generation} (new)"
        if not dry:
            made = self.store.make_next(wanted.name, wanted.key_type, wanted.key_generation)
            key = f"key: {made.key_type} generation {made.key_generation} spki {made.spki}"
        return Change(f"next key of certificate {wanted.name}", [], [key, *(f"because: {one}" for one in step.publish)])

    def _withdraw(self, name: str, waiting: NextKey | None, dry: bool) -> Change:
        """Removes a key that waited for its turn in vain."""
        if not dry:
            self.store.drop_next(name)
        key = f"key: {waiting.key_type} generation {waiting.key_generation} spki {waiting.spki}" if waiting else ""
        return Change(f"next key of certificate {name}", [key], [])

    def _foreseen(
        self, step: Step, present: Present | Broken | None, waiting: NextKey | None, issuer_ids: Mapping[str, str]
    ) -> Change:
        ends = (
            f"{self.now + timedelta(days=self.settings.lifetime_days):%Y-%m-%d}"
            if step.wanted.issuer == "site_ca"
            else "as the ACME server says"
        )
        after = decide.describe_step(step, present, waiting, issuer_ids, ends)
        return Change(f"certificate {step.wanted.name}", decide.describe(present), after)

    def _request(self, step: Step) -> str:
        wanted = step.wanted
        self.store.prepare(wanted.name)
        if step.key == "new":
            self.store.make_next(wanted.name, wanted.key_type, wanted.key_generation)
        key, _ = self.store.key(wanted.name, "current" if step.key == "current" else "next")
        return str(_x509().make_request(key, wanted.names))

    def _issue_acme(
        self, steps: Sequence[Step], present: Mapping[str, Any], issuer_ids: Mapping[str, str], result: Result
    ) -> None:
        self.paths.run.mkdir(parents=True, exist_ok=True)
        self.paths.state.mkdir(parents=True, exist_ok=True)
        unavailable: str | None = None
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(responder(self.settings, self.run))
            except CertificatesError as error:
                unavailable = str(error)
            for step in steps:
                name = step.wanted.name
                before = decide.describe(present[name])
                try:
                    if unavailable:
                        raise CertificatesError(unavailable)
                    chain = issue_acme(self.paths, self.settings, step.wanted, self._request(step), self.run)
                    self.store.install(step.wanted, chain, "acme", self.settings.directory, self.now)
                    self._note(name, None)
                except CertificatesError as error:
                    self._note(name, str(error))
                    if isinstance(there := present[name], Present) and not self._ends_as_placeholder(there):
                        continue
                    # Services must be able to start; verify says what is missing.
                    self._placeholder(step)
                result.changes.append(
                    Change(
                        f"certificate {name}",
                        before,
                        decide.describe(self.store.present(name)) + [f"because: {r}" for r in step.reasons],
                    )
                )

    def _ends_as_placeholder(self, present: Present) -> bool:
        margin = timedelta(days=decide.PLACEHOLDER_RENEW_DAYS)
        return present.issuer == decide.PLACEHOLDER and present.not_after - self.now < margin

    def _placeholder(self, step: Step) -> None:
        name = step.wanted.name
        if not self.store.next_key(name) and step.key != "current":
            self.store.make_next(name, step.wanted.key_type, step.wanted.key_generation)
        key, _ = self.store.key(name, "current" if step.key == "current" else "next")
        pem = _x509().self_signed(key, step.wanted.names, timedelta(days=decide.PLACEHOLDER_DAYS), self.now)
        self.store.install(step.wanted, pem, decide.PLACEHOLDER, "", self.now)

    def accept(self, signed: Mapping[str, str], issuer_id: str, reasons: Mapping[str, Sequence[str]]) -> list[Change]:
        """Puts what the control node signed in service."""
        changes = []
        for item in self.wanted:
            if item.name not in signed:
                continue
            before = decide.describe(self.store.present(item.name))
            self.store.install(item, signed[item.name], "site_ca", issuer_id, self.now)
            self._note(item.name, None)
            after = decide.describe(self.store.present(item.name)) + [
                f"because: {one}" for one in reasons.get(item.name, ())
            ]
            changes.append(Change(f"certificate {item.name}", before, after))
        return changes

    def finish(self, result: Result, dry: bool = False) -> list[str]:
        """Services, report, health of the check unit. Returns what failed with services."""
        present, _ = self.look()
        actions, failed = serve(self.paths, self.wanted, present, self.run, dry)
        result.actions += actions
        result.certificates, result.problems = self.report()
        result.problems += [decide.problem("service", text, "it runs with the certificate on disk") for text in failed]
        if not dry:
            self.write_status(result.certificates, result.problems)
        return failed

    def absolve(self, problems: Sequence[Any]) -> None:
        """A check that failed earlier is not left standing when all is well again."""
        if problems:
            return
        if self.run(["systemctl", "is-failed", "--quiet", CHECK_UNIT]).returncode == 0:
            self.run(["systemctl", "reset-failed", CHECK_UNIT])


# --- the command on the machine --------------------------------------------------------------------------------------


def status_lines(
    entries: Sequence[Mapping[str, Any]], problems: Sequence[Mapping[str, str]], now: datetime
) -> list[str]:
    """The report for a person."""
    lines = []
    for one in entries:
        if one["not_after"]:
            end = decide.parse_stamp(one["not_after"])
            when = f"{one['issuer']}, until {end:%Y-%m-%d} ({decide.days(end - now)} days)"
        else:
            when = "MISSING"
        lines.append(
            f"{one['name']}: {when}; {' '.join(one['names'])}; services: {' '.join(one['services']) or 'none'}"
        )
        lines += [f"    TLSA {record}" for record in one["tlsa"]]
    lines += [
        f"PROBLEM {one['subject']}: {one['found']}; wanted: {one['wanted']}; look: {one['look']}" for one in problems
    ]
    return lines or ["no certificates are wanted on this machine"]


USAGE = """usage: bouwsteen-certificates COMMAND
  status          what is there, how long it is good for, what is wrong (exit 1 if anything is)
  run             renew what is due at the ACME server, reload services that need it, then as status;
                  the timer does this
  renew NAME...   the same, and renew these now even if they are not due (issuer acme)
"""


def main(arguments: Sequence[str], paths: Paths | None = None, run: Runner = run_command) -> int:
    """The command `bouwsteen-certificates`; returns its exit status."""
    paths = paths or Paths()
    command = arguments[0] if arguments else ""
    try:
        if command == "acme-hook":
            acme_hook(paths, load_settings(paths), arguments[1:], run)
            return 0
        if command not in {"status", "run", "renew"} or (command == "renew") != (len(arguments) > 1):
            sys.stderr.write(USAGE)
            return 2
        keeper = Keeper(paths, load_settings(paths), run=run)
        result = Result()
        if command == "status":
            result.certificates, result.problems = keeper.report()
        else:
            others = {item.name for item in keeper.wanted if item.issuer != "acme"} & set(arguments[1:])
            if others:
                raise CertificatesError(
                    f"{', '.join(sorted(others))}: the site CA signs from the control node;"
                    " there: ansible-playbook playbooks/certificates.yml -e '{\"certificates_renew\": [...]}'"
                )
            with locked(paths):
                result = keeper.apply({"acme": keeper.settings.directory}, issuers=("acme",), renew=arguments[1:])
                keeper.finish(result)
            for change in result.changes:
                sys.stdout.write(f"{change.name}: {'; '.join(change.after) or 'removed'}\n")
            for action in result.actions:
                sys.stdout.write(f"{action['service']}: {action['action']}, because {action['because']}\n")
        sys.stdout.write("\n".join(status_lines(result.certificates, result.problems, keeper.now)) + "\n")
    except CertificatesError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 1 if result.problems else 0
