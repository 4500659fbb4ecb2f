# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a machine gets Debian packages from: read what it has (sources.list(5), both formats), say what it should have.

No host is named here: a machine keeps the mirror that it uses, unless the operator names another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

OWN = "/etc/apt/sources.list.d/debian.sources"
PROXY = "/etc/apt/apt.conf.d/20bouwsteen-proxy"
DEBIAN_COMPONENTS = frozenset({"main", "contrib", "non-free", "non-free-firmware"})
_URI = re.compile(r"[a-z][a-z0-9+]*:[^\s\"']+")


class SourceError(ValueError):
    """Sources that cannot be made out; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One source: a line of the old format or a stanza of the new one. `text` is how it stands in its file."""

    types: tuple[str, ...]
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    enabled: bool
    text: str

    def of_debian(self, release: str) -> bool:
        """Whether it is Debian's own archive for this release, not somebody else's repository for it."""
        suites = {release, f"{release}-updates", f"{release}-security"}
        return bool(suites & set(self.suites)) and bool(DEBIAN_COMPONENTS & set(self.components))


def parse_lines(text: str) -> list[Entry]:
    """Read the old format, one source a line. Comments and blank lines are left out."""
    found: list[Entry] = []
    for line in text.splitlines():
        match = re.fullmatch(r"\s*(deb|deb-src)\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)((?:\s+[^#\s]\S*)*)\s*(?:#.*)?", line)
        if match:
            kind, uri, suite, components = match.groups()
            found.append(Entry((kind,), (uri,), (suite,), tuple(components.split()), enabled=True, text=line))
    return found


def parse_stanzas(text: str) -> list[Entry]:
    """Read the new format (deb822), one source a stanza."""
    found: list[Entry] = []
    for stanza in re.split(r"\n[ \t]*\n", text.strip("\n")):
        fields: dict[str, str] = {}
        last = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in {" ", "\t"} and last:
                fields[last] += f" {line.strip()}"
            elif ":" in line:
                name, _, value = line.partition(":")
                last = name.strip().lower()
                fields[last] = value.strip()
        if "uris" in fields and "suites" in fields:
            words = {name: tuple(fields.get(name, "").split()) for name in ("types", "uris", "suites", "components")}
            enabled = fields.get("enabled", "yes").lower() not in {"no", "false", "0", "off"}
            found.append(Entry(**words, enabled=enabled, text=stanza))
    return found


def parse(path: str, text: str) -> list[Entry]:
    """Read a file of either format, by its name."""
    return parse_stanzas(text) if path.endswith(".sources") else parse_lines(text)


def without(path: str, text: str, gone: Iterable[Entry]) -> str:
    """A file without some of its sources; empty if no source is left in it."""
    texts = {entry.text for entry in gone}
    if path.endswith(".sources"):
        kept = [stanza for stanza in re.split(r"\n[ \t]*\n", text.strip("\n")) if stanza not in texts]
        result = "\n\n".join(kept) + "\n"
    else:
        result = "".join(f"{line}\n" for line in text.splitlines() if line not in texts)
    return result if parse(path, result) else ""


@dataclass(frozen=True, slots=True)
class Mirrors:
    """Where the release and its security updates come from."""

    release: str
    security: str


def mirrors(entries: Iterable[Entry], release: str, mirror: str = "", security_mirror: str = "") -> Mirrors:
    """What the operator named, else what the machine uses. Raises SourceError if neither says it."""
    found: dict[str, str] = {}
    for entry in entries:
        if entry.enabled and "deb" in entry.types and entry.of_debian(release):
            for suite in entry.suites:
                found.setdefault(suite, next((uri for uri in entry.uris if not uri.startswith("cdrom:")), ""))
    chosen = {
        release: mirror or found.get(release, ""),
        f"{release}-security": security_mirror or found.get(f"{release}-security", ""),
    }
    names = {release: "machine_package_mirror", f"{release}-security": "machine_package_security_mirror"}
    for suite, uri in chosen.items():
        if not uri:
            raise SourceError(f"this machine has no package source for {suite}: set {names[suite]}")
        if not _URI.fullmatch(uri):
            raise SourceError(
                f"{uri!r} is no address of a package source for {suite}: write for example http://HOST/debian"
            )
    return Mirrors(*chosen.values())


def stanzas(wanted: Mirrors, release: str, components: Sequence[str], keyring: str) -> str:
    """The file for Debian's own archive."""
    shared = f"Components: {' '.join(components)}\nSigned-By: {keyring}\n"
    return (
        "# Managed by Bouwsteen.\n"
        f"Types: deb\nURIs: {wanted.release}\nSuites: {release} {release}-updates\n{shared}\n"
        f"Types: deb\nURIs: {wanted.security}\nSuites: {release}-security\n{shared}"
    )


def proxy_text(proxy: str) -> str:
    """The file that names the proxy; empty if there is none."""
    if not proxy:
        return ""
    if not _URI.fullmatch(proxy):
        raise SourceError(f"{proxy!r} is no address of a proxy: write for example http://HOST:3142")
    return f'// Managed by Bouwsteen.\nAcquire::http::Proxy "{proxy}";\nAcquire::https::Proxy "{proxy}";\n'


def plan(
    files: Mapping[str, str],
    release: str,
    components: Sequence[str],
    keyring: str,
    *,
    mirror: str = "",
    security_mirror: str = "",
    proxy: str = "",
) -> tuple[dict[str, str], Mirrors]:
    """Files as they should be (path -> text, "" for none), and the mirrors. `files`: path -> text of what is there.

    What is not Debian's own archive stays where it is.
    """
    entries = {path: parse(path, text) for path, text in files.items() if path != PROXY}
    # Our own file first: it is what the machine uses once this has run.
    ordered = sorted(entries, key=lambda path: (path != OWN, path))
    wanted = mirrors([entry for path in ordered for entry in entries[path]], release, mirror, security_mirror)
    result = {OWN: stanzas(wanted, release, components, keyring), PROXY: proxy_text(proxy)}
    for path in ordered:
        gone = [entry for entry in entries[path] if entry.of_debian(release)]
        if path != OWN and gone:
            result[path] = without(path, files[path], gone)
    return {path: text for path, text in result.items() if files.get(path, "") != text}, wanted
