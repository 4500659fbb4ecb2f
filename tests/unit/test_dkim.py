# SPDX-License-Identifier: GPL-3.0-or-later
"""DKIM keys: made once per domain, written where the mail service reads them, gone when the domain is."""

from __future__ import annotations

import base64
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory_module, dkim, reconcile
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_private_key

OWNER = (os.geteuid(), os.getegid())


def estate(*domains: str) -> dict[str, Any]:
    customer = {
        "name": "degraaf", "title": "De Graaf", "state": "active", "limits": {}, "users": [],
        "domains": [{"name": domain, "alias_of": None} for domain in domains],
    }  # fmt: skip
    reseller = {
        "name": "noorderict", "title": "Noorder ICT", "engineer": "beheer@noorderict.example",
        "domain": "noorderict.example", "retention_days": 0,
    }  # fmt: skip
    return {"format": 1, "reseller": reseller, "customers": [customer]}


def row(domain: str, selector: str = "dkim1", state: str = "active", key: str = "PEM") -> dict[str, str]:
    return {"domain": domain, "selector": selector, "algorithm": "rsa", "state": state, "private_key": key}


def test_a_key_and_its_public_half_belong_together() -> None:
    private, public = dkim.make_key()
    loaded = load_pem_private_key(private.encode(), None)
    assert isinstance(loaded, RSAPrivateKey)
    assert loaded.key_size == 2048
    half = load_der_public_key(base64.b64decode(public))
    assert isinstance(half, RSAPublicKey)
    assert half.public_numbers() == loaded.public_key().public_numbers()


def test_every_active_domain_gets_one_key_once(database: Any) -> None:
    connection = database.admin("test_dkim")
    reconcile.reconcile(connection, estate("degraaf.example", "bakkerij.example"), reconcile.Options())
    foretold = dkim.add_missing(connection, ["noorderict", "unknown"], "dkim1", check_mode=True)
    names = ["bakkerij.example", "degraaf.example", "verify.noorderict.example"]
    assert [key["domain"] for key in foretold] == names
    assert all("public_key" not in key for key in foretold)
    assert database.value("SELECT count(*) FROM directory.dkim_keys") == 0
    made = dkim.add_missing(connection, ["noorderict"], "dkim1", check_mode=False)
    assert [key["domain"] for key in made] == names
    assert {key["public_key"] for key in made} == {
        key for (key,) in database.rows("SELECT public_key FROM mail.dkim_public")
    }
    assert dkim.add_missing(connection, ["noorderict"], "dkim1", check_mode=False) == []
    assert "PRIVATE KEY" not in database.value("SELECT string_agg(a::text, '') FROM directory.audit a")


def test_another_resellers_domains_are_left_alone(database: Any) -> None:
    connection = database.admin("test_dkim")
    reconcile.reconcile(connection, estate("degraaf.example"), reconcile.Options())
    assert dkim.add_missing(connection, ["zuidwest"], "dkim1", check_mode=False) == []


def test_two_runs_at_once_make_one_key_each(database: Any) -> None:
    reconcile.reconcile(database.admin("test_dkim"), estate("degraaf.example"), reconcile.Options())
    made: list[Any] = []
    connections = [database.admin(f"run {number}") for number in (1, 2)]

    def run(connection: Any) -> None:
        made.extend(dkim.add_missing(connection, ["noorderict"], "dkim1", check_mode=False))

    threads = [threading.Thread(target=run, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == database.value("SELECT count(*) FROM directory.dkim_keys") == 2


def test_the_mail_service_reads_its_keys_from_the_view(database: Any) -> None:
    connection = database.admin("test_dkim")
    reconcile.reconcile(connection, estate("degraaf.example"), reconcile.Options())
    dkim.add_missing(connection, ["noorderict"], "dkim1", check_mode=False)
    query = "SELECT domain, selector, algorithm, state, private_key FROM mail.dkim_keys"
    files = dkim.wanted_files(directory_module.rows(database.connect("_rspamd"), query))
    assert sorted(files.keys) == ["degraaf.example.dkim1.key", "verify.noorderict.example.dkim1.key"]
    assert files.map == "degraaf.example dkim1\nverify.noorderict.example dkim1\n"


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    message = "^the package openssl is not installed on the directory machine$"
    with pytest.raises(dkim.KeyMakingError, match=message):
        dkim.make_key()


def test_the_next_key_has_a_file_but_does_not_sign() -> None:
    files = dkim.wanted_files([row("degraaf.example", "dkim2", "next"), row("degraaf.example")])
    assert sorted(files.keys) == ["degraaf.example.dkim1.key", "degraaf.example.dkim2.key"]
    assert files.map == "degraaf.example dkim1\n"


def test_files_are_created_changed_and_removed(tmp_path: Path) -> None:
    two = dkim.wanted_files([row("a.example"), row("b.example")])
    foretold = dkim.sync(tmp_path, two, OWNER, check_mode=True)
    assert list(tmp_path.iterdir()) == []
    done = dkim.sync(tmp_path, two, OWNER, check_mode=False)
    assert foretold.text == done.text
    assert done.text == "a.example.dkim1.key: created\nb.example.dkim1.key: created\nselectors.map: created\n"
    key = tmp_path / "a.example.dkim1.key"
    assert key.read_text() == "PEM\n"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "selectors.map").stat().st_mode) == 0o644
    assert dkim.sync(tmp_path, two, OWNER, check_mode=False).text == ""
    # Somebody opened the mode, another key came for one domain, the other domain went.
    key.chmod(0o644)
    (tmp_path / "note.txt").write_text("not ours")
    one = dkim.wanted_files([row("a.example", key="OTHER")])
    assert dkim.sync(tmp_path, one, OWNER, check_mode=False).text == (
        "a.example.dkim1.key: changed\nselectors.map: changed\nb.example.dkim1.key: removed\n"
    )
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.example.dkim1.key", "note.txt", "selectors.map"]
