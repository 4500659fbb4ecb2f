# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads YAML that strangers write: as plain data, with a line for every value, refusing what YAML offers besides data.

The parser's events are turned into dicts, lists and scalars here, in one pass, so that anchors, aliases, tags,
duplicate keys and depth are seen before anything is built from them; an anchor bomb is refused at its first anchor. The
result is what PyYAML's safe loader gives (YAML 1.1), with these differences: dates stay text; numbers in a notation
that people write by accident (octal, base 60, ...) are refused; keys are text. libyaml's parser is used where PyYAML
has it (ten times faster), else PyYAML's own, with the same result.

Lines are wanted only when something is wrong: the first pass keeps none, and stops at the first oddity; the second pass
keeps them all and collects every finding.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import (
    Document,
    Finding,
    Invalid,
    KeyPath,
    key_text,
    shown,
)
from ansible_collections.bouwsteen.hosting.plugins.module_utils.units import human_size
from yaml.constructor import SafeConstructor
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from yaml.resolver import Resolver

LARGEST_FILE = 10 * 2**20
LARGEST_FOLDER = 512 * 2**20
MOST_FILES = 20_000
DEEPEST = 16
MOST_FINDINGS = 100

type Decrypt = Callable[[bytes], bytes]

FAST_PARSER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SLOW_PARSER: type = yaml.SafeLoader

# What PyYAML cannot read or what moves a terminal's cursor, and line breaks that editors do not number as such.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_WORDS: Mapping[str, object] = {
    variant: value
    for word, value in (
        *((word, value) for word, value in SafeConstructor.bool_values.items()),
        ("null", None),
    )
    for variant in (word, word.capitalize(), word.upper())
} | {"~": None, "": None}
_INT_TAG, _FLOAT_TAG = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,30})")
_WORD_STARTS = frozenset("yYnNtTfFoO~")
_NUMBER_STARTS = frozenset("-+0123456789.<")
_SPECIAL = _WORD_STARTS | _NUMBER_STARTS
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONSTRUCTOR = SafeConstructor()


class _Odd(Exception):  # noqa: N818 -- a signal, not a failure
    """The first pass met something that only the second can report."""


@dataclass(slots=True)
class Place:
    """Where a value stands: its key's line, how it was written (plain scalars only), its parts' places."""

    line: int
    written: str | None = None
    parts: dict[str, Place] | list[Place] | None = None


class Source(Document):
    """One file that was read."""

    def __init__(self, path: str, raw: bytes = b"", decrypt: Decrypt | None = None) -> None:
        super().__init__()
        self.path = path
        self.raw = raw
        self.decrypt = decrypt
        self.root: Place | None = None

    def place(self, path: KeyPath) -> tuple[str, int, str | None]:
        """See Document; the second pass over the file is made at the first call."""
        if self.root is None:
            builder = _Builder(self.path, self.decrypt, places=True)
            with contextlib.suppress(yaml.YAMLError):
                builder.build(self.raw)
            self.root = builder.root or Place(1)
        place = self.root
        for part in path:
            try:
                place = place.parts[part]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                return self.path, place.line, None
        return self.path, place.line, place.written


def plain_scalar(value: str) -> object:
    """An unquoted scalar as YAML 1.1's safe loader reads it, dates as text. Raises `Invalid` for odd numbers."""
    first = value[:1]
    if first in _WORD_STARTS or not first:
        return _WORDS.get(value, value)
    if first not in _NUMBER_STARTS:
        return value
    if _DECIMAL.fullmatch(value):
        return int(value)
    for tag, pattern in Resolver.yaml_implicit_resolvers.get(first, ()):
        if not pattern.match(value):
            continue
        if tag == _MERGE_TAG:
            raise Invalid("is YAML's sign for merging mappings, which is not read here", "the mapping's own keys")
        if tag == _INT_TAG:
            try:
                number = str(_CONSTRUCTOR.construct_yaml_int(yaml.ScalarNode(tag, value)))
            except ValueError:
                number = "of more digits than can be read"
            number = number if len(number) < 40 else "of very many digits"
            raise Invalid(
                f"is read by YAML as the number {number}",
                "quotes around it, or a plain decimal number",
            )
        if tag == _FLOAT_TAG:
            result = float(_CONSTRUCTOR.construct_yaml_float(yaml.ScalarNode(tag, value)))
            if ":" in value or not math.isfinite(result):
                raise Invalid("is read by YAML as a number", "quotes around it, or a plain decimal number")
            return result
        return value
    return value


class _Builder:
    """Turns the parser's events into data; see the module's text for what it refuses.

    `places`: the second pass, which collects findings and places; without, the first oddity raises `_Odd`.
    """

    def __init__(self, path: str, decrypt: Decrypt | None, *, places: bool, parser: type | None = None) -> None:
        self.path = path
        self.decrypt = decrypt
        self.places = places
        self.parser = parser or FAST_PARSER
        self.findings: list[Finding] = []
        self.root: Place | None = None
        # The open containers around the current one: (container, key of the current one in it, its place).
        self.stack: list[tuple[Any, Any, Any]] = []

    def build(self, raw: bytes) -> Any:
        """The data of the one document in `raw`; None for an empty one."""
        loader = self.parser(raw)
        try:
            return self._document(loader.get_event)
        except _Odd:
            if not self.places:
                raise
            return None
        finally:
            loader.dispose()

    def odd(self, event: Any, where: KeyPath, problem: str, allowed: str, value: str = "") -> None:
        """Something that is refused: the first pass stops here, the second notes it and reads on."""
        if not self.places:
            raise _Odd
        line = event.start_mark.line + 1
        self.findings.append(Finding(self.path, line, key_text(where), value, problem, allowed))
        if len(self.findings) >= MOST_FINDINGS:
            raise _Odd

    def where(self, into: Any, key: Any) -> KeyPath:
        """The path of the value that comes next in the container `into`."""
        parts = [
            name if container.__class__ is dict else len(container) - 1
            for container, name, _ in self.stack
            if container is not None
        ]
        if into is not None:
            parts.append(len(into) if into.__class__ is list else key)
        return tuple(part for part in parts if part is not None)

    def _document(self, next_event: Callable[[], Any]) -> Any:
        places, stack = self.places, self.stack
        data: Any = None
        seen_document = False
        # The container being filled, the key that waits for its value, the container's place.
        into: Any = None
        key: Any = None
        place: Any = None
        while True:
            event = next_event()
            kind = event.__class__
            if kind is ScalarEvent:
                value: Any = event.value
                if event.implicit[0] and event.anchor is None:
                    if not value or value[0] in _SPECIAL:
                        try:
                            value = plain_scalar(value)
                        except Invalid as odd:
                            self.odd(event, self.where(into, key), odd.problem, odd.allowed, shown(value).strip('"'))
                elif event.style != "'" or event.anchor is not None or event.tag is not None:
                    value = self._unusual(event, into, key)
                if key is None and into.__class__ is dict:
                    key = self._key(event, value, into, place)
                    continue
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                into, _, place = stack.pop()
                key = None
                continue
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                if event.anchor is not None or event.tag is not None:
                    self._unusual(event, into, key)
                value = {} if kind is MappingStartEvent else []
                if key is None and into.__class__ is dict:
                    self.odd(event, self.where(into, None), "has a key that is no text", "keys that are text")
                    raise _Odd
            elif kind is AliasEvent:
                self.odd(
                    event,
                    self.where(into, key),
                    "is an alias, which is not read here",
                    "the value itself",
                    f"*{event.anchor}",
                )
                value = None
                if key is None and into.__class__ is dict:
                    raise _Odd
            elif kind is DocumentStartEvent:
                if seen_document:
                    self.odd(event, (), "has a second document", "one document: no second line of ---")
                    return data
                seen_document = True
                continue
            elif kind is StreamEndEvent:
                return data
            else:
                continue

            here: Any = None
            if into.__class__ is dict:
                into[key] = value
                if places:
                    here = place.parts[key]
            elif into is not None:
                into.append(value)
                if places:
                    here = Place(event.start_mark.line + 1)
                    place.parts.append(here)
            else:
                data = value
                if places:
                    here = self.root = Place(event.start_mark.line + 1)
            if value.__class__ is dict or value.__class__ is list:
                if places:
                    here.parts = {} if value.__class__ is dict else []
                stack.append((into, key, place))
                if len(stack) > DEEPEST:
                    self.odd(event, (), f"is nested more than {DEEPEST} levels deep", f"at most {DEEPEST} levels")
                    raise _Odd
                into, place = value, here
            elif places and kind is ScalarEvent and event.implicit[0]:
                here.written = event.value
            key = None

    def _key(self, event: Any, value: Any, into: dict[str, Any], place: Any) -> str:
        """A mapping's key, noted with its line."""
        if value.__class__ is not str:
            self.odd(
                event, self.where(into, None), "has a key that YAML does not read as text", "quotes around the key",
                shown(event.value).strip('"'),
            )  # fmt: skip
            value = event.value
        if value in into:
            self.odd(
                event, self.where(into, value), "is written twice", "one of them: the first is on line "
                f"{place.parts[value].line if self.places else 0}",
            )  # fmt: skip
        elif self.places:
            place.parts[value] = Place(event.start_mark.line + 1)
        return str(value)

    def _unusual(self, event: Any, into: Any, key: Any) -> Any:
        """A value with an anchor, a tag or double quotes: None for what is refused."""
        if event.anchor is not None:
            self.odd(
                event,
                self.where(into, key),
                "has an anchor, which is not read here",
                "the value itself",
                f"&{event.anchor}",
            )
            return getattr(event, "value", None)
        if event.__class__ is ScalarEvent:
            if event.tag == "!vault" and key == "password_hash":
                return self._vaulted(event, into, key)
            if event.tag is None:
                if _SURROGATE.search(event.value):
                    self.odd(
                        event, self.where(into, key), "has half a character (a lone surrogate)", "whole characters"
                    )
                    return ""
                return event.value
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        self.odd(
            event, self.where(into, key), "has a tag, which is not read here", "the value itself", shown(tag).strip('"')
        )
        return None

    def _vaulted(self, event: Any, into: Any, key: Any) -> Any:
        """A password's hash that was encrypted with ansible-vault encrypt_string."""
        allowed = "a value made with ansible-vault encrypt_string and a vault password that this run was given"
        if self.decrypt is None:
            self.odd(event, self.where(into, key), "is vaulted, and no vault password was given", allowed)
            return None
        try:
            return self.decrypt(event.value.encode()).decode().strip()
        except Exception:  # Whatever the vault library raises; it may quote the secret.
            self.odd(event, self.where(into, key), "is vaulted, and cannot be decrypted", allowed)
            return None


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Without Python's garbage collector, for work that makes many objects and no cycles of them: the collector would
    walk all of them again and again, which costs a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def parse(path: str, raw: bytes, *, decrypt: Decrypt | None = None, parser: type | None = None) -> Source:
    """The contents of one file as data, or findings that say why not. `parser`: a PyYAML loader class, for tests."""
    source = Source(path, raw, decrypt)
    broken = _unreadable_text(path, raw)
    if broken:
        source.findings.append(broken)
        return source
    with collector_paused():
        try:
            source.data = _Builder(path, decrypt, places=False, parser=parser).build(raw)
        except (_Odd, yaml.YAMLError):
            _explain(source, parser)
    if not source.findings and not isinstance(source.data, dict):
        problem = "is empty" if source.data is None else "is no mapping"
        source.findings.append(
            Finding(path, 1, "", "", problem, "keys and values, such as customer: bakkerij-de-graaf")
        )
        source.data = None
    return source


def _explain(source: Source, parser: type | None) -> None:
    """The second pass over a file with something odd: all that can be said about it. Its data is there when it could be
    read to the end, so that what else is wrong can be said in the same go."""
    builder = _Builder(source.path, source.decrypt, places=True, parser=parser)
    try:
        source.data = builder.build(source.raw)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        problem = f"is not YAML: {error.problem or error.context}"
        builder.findings.append(Finding(source.path, line, "", "", problem, YAML_ALLOWED))
    except yaml.YAMLError:
        builder.findings.append(Finding(source.path, 0, "", "", "is not YAML", YAML_ALLOWED))
    source.findings += builder.findings
    source.root = builder.root


YAML_ALLOWED = "YAML as in docs/data.md; an editor with the schema shows where it goes wrong"


def _unreadable_text(path: str, raw: bytes) -> Finding | None:
    """What is wrong with a file's bytes, before any parser sees them."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return Finding(
            path, line, "", f"byte 0x{raw[error.start]:02x}", "is not UTF-8 text", "a text file saved as UTF-8"
        )
    found = _FORBIDDEN.search(text)
    if not found:
        return None
    line = text.count("\n", 0, found.start()) + 1
    what = "the character NUL" if found[0] == "\0" else "a control character"
    return Finding(path, line, "", f"U+{ord(found[0]):04X}", f"has {what}", "text without control characters")


def read(path: str, root: str, *, largest: int = LARGEST_FILE, decrypt: Decrypt | None = None) -> Source:
    """One file of a customers' folder. The size is checked before anything is read; what a link leads to must lie in
    the folder `root`; anything but a regular file (a pipe would block, a device never end) is refused."""
    source = Source(path)

    def refuse(problem: str, allowed: str, value: str = "") -> Source:
        source.findings.append(Finding(path, 0, "", value, problem, allowed))
        return source

    real = os.path.realpath(path)
    if Path(path).is_symlink() and not Path(real).is_relative_to(os.path.realpath(root)):
        return refuse(
            "is a symbolic link that leads outside the customers' folder", "files, and links to files beside them"
        )
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return refuse(f"cannot be read: {error.strerror}", "a file that the operator may read")
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return refuse("is no file", "files")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > largest:
            return refuse("is too large", f"at most {human_size(largest)}", human_size(status.st_size))
        # A file that grows while it is read is cut here, and then too large.
        raw = file.read(largest + 1)
    if len(raw) > largest:
        return refuse("is too large", f"at most {human_size(largest)}", f"more than {human_size(largest)}")
    return parse(path, raw, decrypt=decrypt)


def listed(folder: str) -> tuple[list[str], list[str]]:
    """The data files of a folder, sorted by name, and what lies there that looks like one but is not read.

    Read is what ends in .yml or .yaml, directly in the folder. Names that start with a dot or end with ~ are editors'.
    """
    files, ignored = [], []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = entry.name.lower()
        if name.startswith(".") or name.endswith("~"):
            continue
        if entry.is_dir(follow_symlinks=True) and not name.endswith((".yml", ".yaml")):
            with contextlib.suppress(OSError):
                if any(inner.name.lower().endswith((".yml", ".yaml")) for inner in os.scandir(entry.path)):
                    ignored.append(entry.path)
        elif name.endswith((".yml", ".yaml")):
            files.append(entry.path)
        elif ".yml" in name or ".yaml" in name:
            ignored.append(entry.path)
    return files, ignored


def read_folder(folder: str, *, decrypt: Decrypt | None = None) -> Iterator[Source]:
    """All data files of a folder, one by one; a folder that is larger than any reseller's needs stops being read."""
    total = 0
    for number, path in enumerate(listed(folder)[0]):
        if number >= MOST_FILES or total > LARGEST_FOLDER:
            finding = Finding(
                folder, 0, "", "", "has too many or too large files",
                f"at most {MOST_FILES} files with {human_size(LARGEST_FOLDER)} together",
            )  # fmt: skip
            source = Source(folder)
            source.findings.append(finding)
            yield source
            return
        source = read(path, folder, decrypt=decrypt)
        total += len(source.raw)
        yield source
