# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that reads attachments for the search index: its questions and its limits."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "roles/mail/files/attachment-text"
HANDSHAKE = b"VERSION\tscript\t4\t0\nalarm=10\nnoreply\n"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@pytest.fixture(scope="module")
def program() -> Any:
    loader = importlib.machinery.SourceFileLoader("attachment_text", str(PROGRAM))
    spec = importlib.util.spec_from_loader("attachment_text", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    without, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = without
    return module


def archive(*parts: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in parts:
            made.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("asked", "media_type"),
    [
        (b"\n", ""),
        (b"application/pdf\n\n", "application/pdf"),
        (b"Application/PDF\npdf\n\n", "application/pdf"),
        (b"\xff\n\n", "\ufffd"),
    ],
)
def test_what_is_asked(program: Any, asked: bytes, media_type: str) -> None:
    stream = io.BytesIO(HANDSHAKE + asked + b"rest")
    assert program.question(stream) == media_type
    assert stream.read() == b"rest"


def test_too_large_is_read_to_its_end_and_has_no_words(program: Any) -> None:
    stream = io.BytesIO(b"x" * 200_000)
    assert program.taken(stream, limit=100_000) == b""
    assert stream.read() == b""
    assert program.taken(io.BytesIO(b"x" * 100_000), limit=100_000) == b"x" * 100_000


def test_words_of_an_office_document(program: Any) -> None:
    word = '<w:p><w:r><w:t xml:space="preserve">Rogge</w:t></w:r><w:r><w:t>brood</w:t></w:r></w:p>'
    xml = word + "<w:p><w:t>é &amp; ĳ</w:t></w:p>"
    data = archive(
        ("word/document.xml", xml.encode()),
        ("word/styles.xml", b"<x>stijl</x>"),
        ("word/footer1.xml", b"<w:t>voet</w:t>"),
    )
    assert program.words_of(data, DOCX).decode().split() == ["Roggebrood", "é", "&", "ĳ", "voet"]


def test_an_archive_that_unpacks_without_end_is_cut(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "MEMBER", 1 << 16)
    monkeypatch.setattr(program, "WORDS", 100_000)
    data = archive(*((f"ppt/slides/slide{n}.xml", b"a" * (1 << 20)) for n in range(5)))
    words = program.words_of(data, "application/vnd.openxmlformats-officedocument.presentationml.presentation")
    assert len(words.replace(b"\n", b"")) == 100_000


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04 broken", archive(("word/document.xml", b"x" * 999))[:-40], archive(("../../etc/passwd", b"x"))],
    ids=["empty", "not an archive", "cut off", "other names"],
)
def test_what_cannot_be_read_has_no_words(program: Any, data: bytes) -> None:
    assert program.words_of(data, DOCX) == b""
    assert program.words_of(data, "application/x-unknown") == b""


def test_a_program_that_never_ends_is_ended(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "SECONDS", 1)
    assert program.by_program(b"x", ["/bin/sh", "-c", "echo begin; while :; do :; done"]) == b"begin\n"


def test_a_program_that_wants_all_memory_gets_none(program: Any) -> None:
    code = "print('begin', flush=True); x = b'x' * (3 << 30); print('end')"
    assert program.by_program(b"x", [sys.executable, "-I", "-c", code]) == b"begin\n"


def test_a_program_gets_the_attachment_and_nothing_of_its_name(program: Any) -> None:
    assert program.by_program(b"inhoud", ["/bin/cat"]) == b"inhoud"


def test_entities_are_not_looked_up(program: Any) -> None:
    xml = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><w:t>&a; woord</w:t>'
    assert program.without_tags(xml).decode().split()[-1:] == ["woord"]
    assert b"root:" not in program.without_tags(xml)
