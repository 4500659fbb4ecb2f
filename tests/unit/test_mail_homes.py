# SPDX-License-Identifier: GPL-3.0-or-later
"""Mail of who is gone goes; nothing else ever does."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import mail_homes

CUSTOMER = "6f1c2f0a-3b1e-4a55-9d2e-0c7d5f0b1a11"
PERSON = "0d8a4c7e-5b9f-4c1d-8e2a-7f6b5a4c3d22"


def test_a_customer_goes_with_everybody_in_it() -> None:
    person = f"/var/vmail/noord/{CUSTOMER}/{PERSON}"
    customer = f"/var/vmail/noord/{CUSTOMER}"
    assert mail_homes.checked([person, customer, person], "/var/vmail") == [customer]
    assert mail_homes.checked([person], "/var/vmail/") == [person]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/var/vmail",
        "/var/vmail/noord",
        f"/var/vmail/noord/../{CUSTOMER}",
        f"/var/vmail/../vmail/noord/{CUSTOMER}",
        f"/var/vmail//{CUSTOMER}",
        f"/var/vmail/noord/{CUSTOMER}/{PERSON}/Maildir",
        f"/etc/noord/{CUSTOMER}",
        f"/var/vmail/noord/{CUSTOMER}\n",
    ],
)
def test_anything_else_is_refused_as_a_whole(path: str) -> None:
    good = f"/var/vmail/noord/{CUSTOMER}"
    with pytest.raises(ValueError, match="no home of mail below /var/vmail: ") as error:
        mail_homes.checked([good, path], "/var/vmail")
    assert good not in str(error.value).split(", ")


def test_what_is_there_is_removed_and_nothing_beside_it(tmp_path: Path) -> None:
    gone, stays = tmp_path / "gone", tmp_path / "stays"
    for folder in (gone, stays):
        (folder / "Maildir/cur").mkdir(parents=True)
        (folder / "Maildir/cur/mail").write_text("Dag", encoding="utf-8")
    paths = [str(gone), str(tmp_path / "never")]
    assert mail_homes.remove(paths, check_mode=True) == [str(gone)]
    assert gone.is_dir()
    assert mail_homes.remove(paths, check_mode=False) == [str(gone)]
    assert not gone.exists()
    assert (stays / "Maildir/cur/mail").exists()
    assert mail_homes.remove(paths, check_mode=False) == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="leads through a symbolic link"):
        mail_homes.remove([str(link)], check_mode=False)
    assert (tmp_path / "elsewhere").is_dir()
