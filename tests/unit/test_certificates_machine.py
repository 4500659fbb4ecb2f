# SPDX-License-Identifier: GPL-3.0-or-later
"""The store on disk, the handling of the ACME client and the services: in a folder, with a stand-in for commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import certificates as decide
from ansible_collections.bouwsteen.hosting.plugins.module_utils import certificates_authority as authority
from ansible_collections.bouwsteen.hosting.plugins.module_utils import certificates_machine as machine
from ansible_collections.bouwsteen.hosting.plugins.module_utils import certificates_x509 as x509
from ansible_collections.bouwsteen.hosting.plugins.module_utils.certificates import Broken, CertificatesError, Present
from cryptography.hazmat.primitives.asymmetric import ec

NOW = datetime.now(UTC).replace(microsecond=0)
DIRECTORY = "https://acme.example/dir"
MAIL = {"name": "mail", "names": ["mail.noorderict.example"], "services": ["postfix", "dovecot"]}
YEAR = timedelta(days=365)
Answer = tuple[int, str, str]


class Commands:
    """Stands in for the machine's commands; `answers` by the start of the command line, the longest match counts."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.inputs: list[str] = []
        # What systemd shows of units that exist, by the name that is asked for.
        self.units: dict[str, dict[str, str]] = {}
        self.answers: dict[str, Answer | Callable[[Sequence[str]], Answer]] = {"systemctl show": self.show}

    def __call__(
        self, command: Sequence[str], timeout: float = 60, env: Any = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        line = " ".join(command)
        self.seen.append(line)
        if stdin:
            self.inputs.append(stdin)
        found = max((start for start in self.answers if line.startswith(start)), key=len, default=None)
        answer: Any = self.answers[found] if found else (0, "", "")
        code, out, err = answer(command) if callable(answer) else answer
        return subprocess.CompletedProcess(list(command), code, out, err)

    def show(self, command: Sequence[str]) -> Answer:
        """`systemctl show` for one or several units: a block each, in the order of the question."""
        blocks = []
        for name in command[command.index("--") + 1 :]:
            values = {"Id": name, "LoadState": "not-found", "ActiveState": "inactive"}
            if name in self.units:
                values |= {"LoadState": "loaded", "ActiveState": "active", "CanReload": "yes", "InvocationID": "i1"}
                values |= {"ActiveEnterTimestamp": "@1", **self.units[name]}
            blocks.append("".join(f"{key}={value}\n" for key, value in values.items()))
        return 0, "\n".join(blocks), ""

    def named(self, start: str) -> list[str]:
        return [line for line in self.seen if line.startswith(start)]


@pytest.fixture
def paths(tmp_path: Path) -> machine.Paths:
    root = tmp_path / "machine"
    for folder in (
        "etc/bouwsteen/certificates.d",
        "run/bouwsteen/certificates",
        "var/lib/bouwsteen/dehydrated/accounts",
    ):
        (root / folder).mkdir(parents=True)
    return machine.Paths(root)


@pytest.fixture
def run() -> Commands:
    return Commands()


@pytest.fixture
def ca(tmp_path: Path) -> authority.AuthoritySettings:
    settings = authority.AuthoritySettings(tmp_path / "ca", "unit test")
    authority.ensure(settings, NOW - timedelta(days=800))
    return settings


def settings(*wanted: dict[str, Any], **changes: Any) -> machine.Settings:
    acme = {"directory": DIRECTORY, "terms_agreed": True, "dns": {"server": "ns.example"}}
    values: dict[str, Any] = {"machine": "m1", "wanted": list(wanted) or [MAIL], "acme": acme, "unknown": 1}
    return machine.Settings.of({**values, **changes})


def keeper(
    paths: machine.Paths, run: Commands, *wanted: dict[str, Any], now: datetime = NOW, **changes: Any
) -> machine.Keeper:
    return machine.Keeper(paths, settings(*wanted, **changes), now=now, run=run, gid=os.getgid())


def identity(ca: authority.AuthoritySettings) -> str:
    roots = authority.read(ca)
    assert roots is not None
    return roots.identifier


def bring(
    paths: machine.Paths,
    run: Commands,
    ca: authority.AuthoritySettings,
    *wanted: dict[str, Any],
    now: datetime = NOW,
    **more: Any,
) -> machine.Result:
    """A whole run with the site CA, as the action plugin does it."""
    asked = {key: more.pop(key) for key in ("renew", "new_key") if key in more}
    one = keeper(paths, run, *wanted, now=now, **more)
    result = one.apply({"site_ca": identity(ca), "acme": DIRECTORY}, **asked)
    signed = authority.sign(ca, "m1", result.requests, timedelta(days=one.settings.lifetime_days), now)
    reasons = {name: request["reasons"] for name, request in result.requests.items()}
    result.changes += one.accept(signed, identity(ca), reasons)
    one.finish(result)
    return result


def present(paths: machine.Paths, name: str = "mail") -> Present:
    found = machine.Store(paths, os.getgid()).present(name)
    assert isinstance(found, Present), found
    return found


def text(result: machine.Result) -> str:
    return "".join(change.as_diff()["after"] for change in result.changes)


class TestSiteCa:
    def test_first_run_and_second(self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings) -> None:
        first = bring(paths, run, ca)
        assert "because: there is no certificate yet\n" in text(first)
        own = present(paths)
        assert (own.names, own.issuer, own.issuer_id) == (("mail.noorderict.example",), "site_ca", identity(ca))
        second = bring(paths, run, ca)
        assert not second.changed
        assert second.certificates[0]["tlsa"] == [f"3 1 1 {own.spki}"]
        assert second.problems == []
        assert json.loads((paths.state / "status.json").read_text()) == {
            "certificates": second.certificates,
            "problems": [],
        }

    def test_modes(self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings) -> None:
        os.umask(0)
        try:
            bring(paths, run, ca)
        finally:
            os.umask(0o022)
        assert paths.store.stat().st_mode & 0o7777 == 0o755
        for path in (paths.store / ".store").rglob("*"):
            assert path.stat().st_mode & 0o007 == 0, path
        assert (paths.store / "mail/privkey.pem").stat().st_mode & 0o777 == 0o640
        (paths.store / ".store").chmod(0o755)
        bring(paths, run, ca, renew=["mail"])
        assert (paths.store / ".store").stat().st_mode & 0o7777 == 0o750

    def test_dry_run_makes_nothing(self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings) -> None:
        one = keeper(paths, run)
        result = one.apply({"site_ca": "to be made"}, dry=True)
        one.finish(result, dry=True)
        assert result.requests == {}
        assert text(result) == (
            "names: mail.noorderict.example\nissuer: site_ca to be made\nusage: server\n"
            f"ends: {NOW + YEAR:%Y-%m-%d}\nkey: ec-p256 generation 1 (new)\nbecause: there is no certificate yet\n"
        )
        assert not paths.store.exists()
        assert not paths.state.exists()

    def test_names_added_keep_the_key(
        self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings
    ) -> None:
        bring(paths, run, ca)
        before = present(paths)
        more = {**MAIL, "names": ["mail.noorderict.example", "imap.noorderict.example"]}
        bring(paths, run, ca, more)
        after = present(paths)
        assert after.fingerprint != before.fingerprint
        assert after.spki == before.spki
        assert not bring(paths, run, ca, more).changed

    def test_renewal(self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings) -> None:
        bring(paths, run, ca, now=NOW - timedelta(days=300))
        before = present(paths)
        assert "because: 65 of 365 days left, renewed below 33 %\n" in text(bring(paths, run, ca))
        assert present(paths).spki == before.spki

    def test_only_the_last_versions_are_kept(
        self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings
    ) -> None:
        for day in range(5):
            bring(paths, run, ca, renew=["mail"] if day else [], now=NOW + timedelta(seconds=day))
        kept = [path.name for path in (paths.store / ".store/mail").iterdir()]
        assert len(kept) == 2
        assert (paths.store / "mail").readlink().name == max(kept)

    def test_another_key(self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings) -> None:
        bring(paths, run, ca)
        old = present(paths).spki
        want = {**MAIL, "key_generation": 2}
        first = bring(paths, run, ca, want)
        assert [change.name for change in first.changes] == ["next key of certificate mail"]
        following = first.certificates[0]["next_spki_sha256"]
        assert first.certificates[0]["tlsa"] == [f"3 1 1 {old}", f"3 1 1 {following}"]
        assert not bring(paths, run, ca, want).changed
        # A renewal that falls between does not change the key.
        bring(paths, run, ca, want, renew=["mail"])
        assert present(paths).spki == old
        later = NOW + timedelta(days=2, minutes=1)
        bring(paths, run, ca, want, now=later)
        assert (present(paths).spki, present(paths).key_generation) == (following, 2)
        assert not bring(paths, run, ca, want, now=later).changed
        assert machine.Store(paths).next_key("mail") is None

    def test_another_key_and_back(self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings) -> None:
        bring(paths, run, ca)
        bring(paths, run, ca, {**MAIL, "key_generation": 2})
        assert keeper(paths, run).apply({"site_ca": identity(ca)}, dry=True).changed
        back = bring(paths, run, ca)
        assert [(change.name, change.after) for change in back.changes] == [("next key of certificate mail", [])]
        assert len(back.certificates[0]["tlsa"]) == 1
        assert not bring(paths, run, ca).changed

    def test_one_run_does_all_that_it_can(
        self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings
    ) -> None:
        bring(paths, run, ca)
        want = {**MAIL, "names": ["other.noorderict.example"], "key_type": "rsa-2048"}
        both = bring(paths, run, ca, want)
        assert [change.name for change in both.changes] == ["next key of certificate mail", "certificate mail"]
        assert present(paths).key_type == "ec-p256"
        assert not bring(paths, run, ca, want).changed

    def test_a_key_that_became_known(
        self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings
    ) -> None:
        bring(paths, run, ca)
        bring(paths, run, ca, {**MAIL, "key_generation": 2})
        known = {
            present(paths).spki,
            bring(paths, run, ca, {**MAIL, "key_generation": 2}).certificates[0]["next_spki_sha256"],
        }
        bring(paths, run, ca, {**MAIL, "key_generation": 2}, new_key=["mail"])
        assert present(paths).spki not in known

    def test_check_of_the_root(self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings) -> None:
        bring(paths, run, ca)
        paths.site_ca.write_text((ca.directory / "ca.pem").read_text())
        late = NOW + timedelta(days=3650 - 800 - 100)
        found = keeper(paths, run, now=late).report()[1]
        assert any(one["subject"] == "site CA unit test" for one in found)


class Killed(BaseException):
    """Ends a run as a kill does: nothing that it would have changed afterwards is changed."""


def killed_at(step: int, patch: pytest.MonkeyPatch, action: Callable[[], Any]) -> bool:
    """Runs an action and kills it at its `step`th change of the file system; tells whether it got that far."""
    count = 0

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count >= step:
                raise Killed
            return function(*arguments, **named)

        return call

    with patch.context() as patched:
        for name in ("replace", "rename", "symlink_to", "unlink", "mkdir", "chmod"):
            patched.setattr(Path, name, deadly(getattr(Path, name)))
        patched.setattr(os, "fsync", deadly(os.fsync))
        patched.setattr(shutil, "rmtree", deadly(shutil.rmtree))
        try:
            action()
        except Killed:
            return True
    return False


class TestHealing:
    """A run may be killed after any step; the next one makes it good and no service ever lacks its certificate."""

    def test_killed_between_key_and_signature(
        self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings
    ) -> None:
        keeper(paths, run).apply({"site_ca": identity(ca)})
        waiting = machine.Store(paths).next_key("mail")
        assert waiting is not None
        bring(paths, run, ca)
        assert present(paths).spki == waiting.spki
        assert machine.Store(paths).next_key("mail") is None

    def test_killed_at_any_change(
        self, tmp_path: Path, run: Commands, ca: authority.AuthoritySettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        want = {**MAIL, "names": ["more.noorderict.example"]}
        step, killed = 0, True
        while killed:
            step += 1
            paths = machine.Paths(tmp_path / str(step))
            paths.run.mkdir(parents=True)
            bring(paths, run, ca)
            before = present(paths)
            killed = killed_at(step, monkeypatch, lambda here=paths: bring(here, run, ca, want, new_key=["mail"]))  # type: ignore[misc]
            # What is in service is whole: the old one with its key, or the new one with its own.
            now = present(paths)
            assert now.fingerprint == before.fingerprint or now.names == ("more.noorderict.example",), step
            bring(paths, run, ca, want)
            assert present(paths).names == ("more.noorderict.example",), step
            assert not bring(paths, run, ca, want).changed, step
            rubbish = [path for path in paths.store.rglob(".*") if path.name != ".store"]
            assert rubbish == [], step
        assert step > 20

    @pytest.mark.parametrize(
        ("damage", "reason", "same_key"),
        [
            (
                lambda there: (there / "fullchain.pem").write_text(""),
                "the certificate is unusable (the certificate cannot be read)",
                True,
            ),
            (
                lambda there: (there / "fullchain.pem").unlink(),
                "the certificate is unusable (No such file or directory)",
                True,
            ),
            (lambda there: (there / "privkey.pem").unlink(), "its key is unusable (No such file or directory)", False),
            (lambda there: (there / "privkey.pem").write_text("x"), "its key is unusable (the key is damaged)", False),
            (lambda there: (there / "about.json").write_text("[]"), "about.json is damaged", True),
            (
                lambda there: (there / "about.json").unlink(),
                "the certificate is unusable (No such file or directory)",
                True,
            ),
            (
                lambda there: (there / "privkey.pem").write_text(x509.make_key("ec-p256")),
                "the key does not belong to the certificate",
                False,
            ),
            (lambda there: shutil.rmtree(there.resolve()), "its key is unusable (No such file or directory)", False),
        ],
    )
    def test_damage(
        self,
        paths: machine.Paths,
        run: Commands,
        ca: authority.AuthoritySettings,
        *,
        damage: Callable[[Path], Any],
        reason: str,
        same_key: bool,
    ) -> None:
        bring(paths, run, ca)
        before = present(paths)
        damage(paths.store / "mail")
        found = machine.Store(paths).present("mail")
        assert isinstance(found, Broken)
        assert found.reason == reason
        assert f"because: {reason}\n" in text(bring(paths, run, ca))
        assert (present(paths).spki == before.spki) == same_key
        assert not bring(paths, run, ca).changed

    def test_a_folder_of_somebody_else(
        self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings
    ) -> None:
        (paths.store / "mail").mkdir(parents=True)
        with pytest.raises(CertificatesError, match=r"mail is a folder that this role did not make; move it away$"):
            bring(paths, run, ca)

    def test_an_answer_that_does_not_fit(
        self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings
    ) -> None:
        bring(paths, run, ca)
        before = present(paths)
        one = keeper(paths, run)
        (want,) = one.wanted
        own = one.store.key("mail", "current")[0]
        for pem, message in (
            ("rubbish", "mail: the issuer's answer holds no certificate"),
            (x509.self_signed(own, ["a.example"], YEAR, NOW),
             "mail: the issuer's certificate is for other names: names differ: +mail.noorderict.example, -a.example"),
            (x509.self_signed(own, want.names, timedelta(days=1), NOW - YEAR),
             f"mail: the issuer's certificate expired on {NOW - YEAR + timedelta(days=1):%Y-%m-%d}"),
            (x509.self_signed(x509.make_key("ec-p256"), want.names, YEAR, NOW),
             "mail: the issuer's certificate is for a key that this machine does not have"),
        ):  # fmt: skip
            with pytest.raises(CertificatesError) as caught:
                one.store.install(want, pem, "acme", DIRECTORY, NOW)
            assert str(caught.value) == message
        assert present(paths) == before


OTHER = {"name": "other", "names": ["other.example"]}


class TestRetirement:
    def test_marked_then_removed(self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings) -> None:
        bring(paths, run, ca, MAIL, OTHER)
        first = bring(paths, run, ca)
        assert text(first) == "not wanted, removed after 1 days\n"
        assert (paths.store / "other/privkey.pem").exists()
        assert not bring(paths, run, ca).changed
        later = bring(paths, run, ca, now=NOW + timedelta(days=2))
        assert [change.name for change in later.changes] == ["certificate other"]
        assert not (paths.store / "other").is_symlink()
        assert machine.Store(paths).names() == ["mail"]

    def test_wanted_again_in_time(self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings) -> None:
        bring(paths, run, ca, MAIL, OTHER)
        before = present(paths, "other")
        bring(paths, run, ca)
        back = bring(paths, run, ca, MAIL, OTHER)
        assert [change.after for change in back.changes] == [["wanted"]]
        assert present(paths, "other") == before
        assert not bring(paths, run, ca, MAIL, OTHER).changed

    def test_dry(self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings) -> None:
        bring(paths, run, ca, MAIL, OTHER)
        for now in (NOW, NOW + timedelta(days=2)):
            assert keeper(paths, run, now=now).apply({"site_ca": identity(ca)}, dry=True).changed
            assert (paths.store / "other/privkey.pem").exists()


class TestTrust:
    def trust(self, paths: machine.Paths, run: Commands, *roots: str, dry: bool = False) -> list[decide.Change]:
        return machine.trust(paths, "unit test", roots, run, dry)

    def updates(self, paths: machine.Paths) -> Callable[[Sequence[str]], Answer]:
        def update(_: Sequence[str]) -> Answer:
            paths.trust_bundle.parent.mkdir(parents=True, exist_ok=True)
            paths.trust_bundle.write_text("".join(path.read_text() for path in sorted(paths.trusted.glob("*.crt"))))
            return 0, "", ""

        return update

    def test_one_then_two_then_the_other(self, paths: machine.Paths, run: Commands, tmp_path: Path) -> None:
        run.answers["update-ca-certificates"] = self.updates(paths)
        made = [authority.ensure(authority.AuthoritySettings(tmp_path / name, name), NOW)[0] for name in ("one", "two")]
        one, two = (roots.certificate for roots in made)
        assert len(self.trust(paths, run, one)) == 1
        assert self.trust(paths, run, one) == []
        assert paths.site_ca.read_text() == one
        (change,) = self.trust(paths, run, one, two)
        assert len(change.after) == 2
        assert paths.site_ca.read_text() == one + two
        self.trust(paths, run, two)
        assert [path.read_text() for path in paths.trusted.iterdir()] == [two]
        assert one not in paths.trust_bundle.read_text()
        assert self.trust(paths, run, two) == []
        assert len(run.named("update-ca-certificates")) == 3

    def test_a_run_killed_before_the_bundle_was_made(
        self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings
    ) -> None:
        root = (ca.directory / "ca.pem").read_text()
        self.trust(paths, run, root)
        (change,) = self.trust(paths, run, root)
        assert change.after == ["in the system's bundle"]
        assert len(run.named("update-ca-certificates")) == 2

    def test_failure(self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings) -> None:
        run.answers["update-ca-certificates"] = (1, "", "no room\n")
        with pytest.raises(CertificatesError, match=r"^update-ca-certificates failed: no room$"):
            self.trust(paths, run, (ca.directory / "ca.pem").read_text())

    def test_dry(self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings) -> None:
        assert len(self.trust(paths, run, (ca.directory / "ca.pem").read_text(), dry=True)) == 1
        assert not paths.site_ca.exists()
        assert run.seen == []
        assert self.trust(paths, run) == []


class TestServices:
    def test_reload_once(self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings) -> None:
        run.units["dovecot.service"] = {}
        first = bring(paths, run, ca)
        assert first.actions == [
            {"service": "dovecot", "action": "reload", "because": "it started before its certificate was put in place"}
        ]
        assert run.named("systemctl reload") == ["systemctl reload dovecot.service"]
        assert not bring(paths, run, ca).changed
        third = bring(paths, run, ca, renew=["mail"], now=NOW + timedelta(seconds=1))
        assert third.actions[0]["because"] == "it runs with an older certificate: mail"

    def test_what_is_made_out_of_a_certificate_comes_first(
        self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings
    ) -> None:
        run.units["postfix.service"] = {"CanReload": "no"}
        hook = paths.hooks / "postfix"
        hook.write_text("")
        run.answers[str(hook)] = (1, "", "postmap: fatal\n")
        failed = bring(paths, run, ca)
        assert (
            failed.problems[0]["found"] == f"postfix.service keeps its old certificate: {hook} failed: postmap: fatal"
        )
        assert run.named("systemctl restart") == []
        run.answers[str(hook)] = (0, "", "")
        assert bring(paths, run, ca).actions[0]["action"] == "restart"

    def test_a_service_that_fails(self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings) -> None:
        run.units["postfix.service"] = {}
        run.answers["systemctl reload"] = (1, "", "Job failed\n")
        one = keeper(paths, run)
        result = one.apply({"site_ca": identity(ca)})
        one.accept(authority.sign(ca, "m1", result.requests, YEAR, NOW), identity(ca), {})
        assert one.finish(result) == [
            "postfix.service does not reload: Job failed; look: journalctl -u postfix.service"
        ]
        assert result.actions == []

    def test_another_name_of_a_unit(self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings) -> None:
        run.units["dovecot.service"] = {"Id": "dovecot2.service"}
        hook = paths.hooks / "dovecot"
        hook.write_text("")
        assert bring(paths, run, ca).actions[0]["service"] == "dovecot2"
        assert run.named("systemctl reload") == ["systemctl reload dovecot2.service"]
        assert run.named(str(hook)) == [str(hook)]
        assert not bring(paths, run, ca).changed

    def test_systemd_that_does_not_answer(self, run: Commands) -> None:
        run.answers["systemctl show"] = (1, "", "no bus\n")
        with pytest.raises(CertificatesError, match=r"^systemctl show a.service failed: no bus$"):
            machine.show_units(["a.service"], run)
        assert machine.show_units([], run) == {}

    def test_dry_run_says_it(self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings) -> None:
        bring(paths, run, ca)
        run.units["postfix.service"] = {}
        one = keeper(paths, run)
        result = machine.Result()
        one.finish(result, dry=True)
        assert [action["service"] for action in result.actions] == ["postfix"]
        assert run.named("systemctl reload") == []

    def test_absolution(self, paths: machine.Paths, run: Commands) -> None:
        one = keeper(paths, run)
        one.absolve([{"subject": "x"}])
        assert run.seen == []
        run.answers["systemctl is-failed"] = (1, "", "")
        one.absolve([])
        assert run.named("systemctl reset-failed") == []
        run.answers["systemctl is-failed"] = (0, "", "")
        one.absolve([])
        assert run.named("systemctl reset-failed") == ["systemctl reset-failed bouwsteen-certificates.service"]


class Acme:
    """An ACME server behind a stand-in for dehydrated: signs requests with a key of its own."""

    def __init__(self, names: list[str], lifetime: int = 90, now: datetime = NOW) -> None:
        self.names, self.lifetime, self.now = names, lifetime, now
        self.key, self.pem = x509.make_authority(
            "acme", "ec-p256", YEAR * 9, permitted=[], passphrase=None, now=NOW - YEAR
        )

    def __call__(self, command: Sequence[str]) -> Answer:
        request = Path(command[-1]).read_text()
        signed = x509.sign_request(
            request,
            self.names,
            "server",
            ca_pem=self.pem,
            ca_key=x509.load_key(self.key),
            lifetime=timedelta(days=self.lifetime),
            now=self.now,
        )
        return 0, f"# CERT #\n{signed}{self.pem}\n", " + Done!\n"


WANT_ACME = {**MAIL, "issuer": "acme", "services": []}


class TestAcme:
    CLIENT = "/usr/bin/dehydrated"

    def bring(self, paths: machine.Paths, run: Commands, now: datetime = NOW, **more: Any) -> machine.Result:
        asked = {key: more.pop(key) for key in ("renew",) if key in more}
        more.setdefault("acme", {"directory": DIRECTORY, "terms_agreed": True, "challenge": "dns-01", "hook": "/x"})
        one = keeper(paths, run, WANT_ACME, now=now, **more)
        result = one.apply({"acme": one.settings.directory}, **asked)
        one.finish(result)
        return result

    def test_issue_renew_rest(self, paths: machine.Paths, run: Commands) -> None:
        run.answers[self.CLIENT] = Acme(MAIL["names"])  # type: ignore[arg-type]
        assert self.bring(paths, run).changed
        first = present(paths)
        assert (first.issuer, first.issuer_id) == ("acme", DIRECTORY)
        assert (paths.store / "mail/fullchain.pem").read_text().count("BEGIN") == 2
        assert not self.bring(paths, run).changed
        assert not self.bring(paths, run, now=NOW + timedelta(days=59)).changed
        later = NOW + timedelta(days=61)
        run.answers[self.CLIENT] = Acme(MAIL["names"], now=later)  # type: ignore[arg-type]
        assert self.bring(paths, run, now=later).changed
        assert present(paths).spki == first.spki
        assert "--no-lock --accept-terms --signcsr" in run.named(self.CLIENT)[0]
        assert list(paths.run.glob("request-*")) == []

    def test_refused_at_first_gives_a_placeholder_until_it_is_not(self, paths: machine.Paths, run: Commands) -> None:
        run.answers[self.CLIENT] = (1, "", 'ERROR: ... ["error","detail"]\t"no such name"\n')
        first = self.bring(paths, run)
        own = present(paths)
        assert own.issuer == "placeholder"
        assert first.certificates[0]["tlsa"] == []
        assert first.problems[0]["found"] == (
            f"a self-signed placeholder until {NOW + timedelta(days=7):%Y-%m-%d};"
            " the ACME server refused: no such name;"
            f" the whole story: {paths.state}/mail.log"
        )
        again = self.bring(paths, run)
        assert not again.changed
        assert present(paths) == own
        # It does not run out while the server refuses.
        assert self.bring(paths, run, now=NOW + timedelta(days=6)).changed
        assert present(paths).spki == own.spki
        run.answers[self.CLIENT] = Acme(MAIL["names"])  # type: ignore[arg-type]
        last = self.bring(paths, run)
        assert (last.problems, present(paths).issuer, present(paths).spki) == ([], "acme", own.spki)
        assert not (paths.state / "mail.failure").exists()

    def test_refused_later_leaves_the_old_one(self, paths: machine.Paths, run: Commands) -> None:
        run.answers[self.CLIENT] = Acme(MAIL["names"])  # type: ignore[arg-type]
        self.bring(paths, run)
        own = present(paths)
        run.answers[self.CLIENT] = (1, "", "ERROR: Problem connecting (curl returned with 28)\n")
        late = self.bring(paths, run, now=NOW + timedelta(days=65))
        assert not late.changed
        assert present(paths) == own
        assert late.problems[0]["found"].startswith("not renewed: the ACME server did not answer in time")

    def test_an_answer_for_other_names(self, paths: machine.Paths, run: Commands) -> None:
        run.answers[self.CLIENT] = Acme(["other.example"])
        found = self.bring(paths, run).problems[0]["found"]
        assert "the issuer's certificate is for other names" in found
        assert present(paths).issuer == "placeholder"

    def test_terms(self, paths: machine.Paths, run: Commands) -> None:
        acme = {"directory": DIRECTORY, "challenge": "dns-01", "hook": "/x"}
        found = self.bring(paths, run, acme=acme).problems[0]["found"]
        assert "set certificates_acme_terms_agreed: true" in found
        assert run.named(self.CLIENT) == []

    def test_an_account_that_the_server_forgot(self, paths: machine.Paths, run: Commands) -> None:
        account = paths.acme_state / "accounts/abc"
        account.mkdir()
        for name in ("account_key.pem", "account_id.json", "registration_info.json"):
            (account / name).write_text("{}")
        server = Acme(MAIL["names"])  # type: ignore[arg-type]

        def once(command: Sequence[str]) -> Answer:
            if (account / "account_key.pem").exists():
                return 1, "", '{"type": "urn:ietf:params:acme:error:accountDoesNotExist", "detail": "unknown"}'
            return server(command)

        run.answers[self.CLIENT] = once
        assert self.bring(paths, run).problems == []
        assert len(run.named(self.CLIENT)) == 2

    def test_an_account_that_a_killed_run_left_half_made(self, paths: machine.Paths, run: Commands) -> None:
        account = paths.acme_state / "accounts/abc"
        account.mkdir()
        (account / "account_key.pem").write_text("key")
        (account / "registration_info.json").write_text("")
        run.answers[self.CLIENT] = Acme(MAIL["names"])  # type: ignore[arg-type]
        self.bring(paths, run)
        assert list(account.iterdir()) == []

    @pytest.mark.parametrize("free", [True, False])
    def test_the_responder_comes_and_goes(self, run: Commands, free: bool) -> None:
        with machine.responder(settings(), run, lambda: free):
            assert run.seen == (["systemctl start bouwsteen-acme-responder.service"] if free else [])
        assert len(run.seen) == (2 if free else 0)

    def test_a_responder_that_does_not_start(
        self, paths: machine.Paths, run: Commands, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine.responder.__wrapped__, "__defaults__", (lambda: True,))  # type: ignore[attr-defined]
        run.answers["systemctl start"] = (1, "", "no such unit")
        acme = {"directory": DIRECTORY, "terms_agreed": True}
        found = self.bring(paths, run, acme=acme).problems[0]["found"]
        assert "bouwsteen-acme-responder.service does not start: no such unit" in found
        assert present(paths).issuer == "placeholder"

    def test_ports(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            assert not machine.port_is_free(listener.getsockname()[1])
            port = listener.getsockname()[1]
        assert machine.port_is_free(port)

    def test_settings_that_cannot_work(self) -> None:
        with pytest.raises(CertificatesError, match=r"^certificates_acme_directory: 'http://x' is not an https URL$"):
            settings(WANT_ACME, acme={"directory": "http://x"}).parsed()
        for changes, message in (
            ({"renew_percent": 0}, "certificates_renew_percent: 0 is not between 5 and 90"),
            ({"lifetime_days": 1}, "certificates_lifetime_days: 1 is not between 2 and 3650"),
            ({"warn_days": -1}, "certificates_warn_days: -1 is not between 1 and 365"),
        ):
            with pytest.raises(CertificatesError, match=rf"^{message}$"):
                settings(**changes).parsed()
        with pytest.raises(CertificatesError) as caught:
            settings(WANT_ACME, acme={"directory": DIRECTORY, "challenge": "dns-01"}).parsed()
        assert str(caught.value) == (
            "certificates_acme_challenge: dns-01 needs certificates_acme_dns_server or certificates_acme_hook"
        )


class TestDnsChallenge:
    VALUE = "abc_DEF-123"

    def hook(self, paths: machine.Paths, run: Commands, *arguments: str, **dns: Any) -> None:
        acme = {"directory": DIRECTORY, "dns": {"server": "ns.example", **dns}}
        machine.acme_hook(paths, settings(acme=acme), arguments, run)

    def test_written_waited_for_removed(self, paths: machine.Paths, run: Commands) -> None:
        run.answers["dig +short +time=3 +tries=1 @ns.example -p 53 noorderict.example NS"] = (0, "ns2.example.\n", "")
        run.answers["dig +short +time=3 +tries=1 @ns.example -p 53 _acme-challenge.mail.noorderict.example TXT"] = (
            0,
            f'"{self.VALUE}"\n',
            "",
        )
        run.answers["dig +short +time=3 +tries=1 @ns2.example"] = (0, f'"{self.VALUE}"\n', "")
        self.hook(
            paths, run, "deploy_challenge", "mail.noorderict.example", "token", self.VALUE, zone="noorderict.example"
        )
        record = "_acme-challenge.mail.noorderict.example."
        added = f'update add {record} 60 TXT "{self.VALUE}"'
        assert run.inputs == [f"server ns.example 53\nzone noorderict.example\n{added}\nsend\n"]
        assert run.named("nsupdate") == [f"nsupdate -k {paths.acme_key} -t 30"]
        assert len(run.named("dig +short +time=3 +tries=1 @ns2.example")) == 1
        self.hook(paths, run, "clean_challenge", "mail.noorderict.example", "token", self.VALUE)
        assert run.inputs[1] == (
            f'server ns.example 53\nupdate delete _acme-challenge.mail.noorderict.example. TXT "{self.VALUE}"\nsend\n'
        )

    def test_a_challenge_that_its_owner_delegated(self, run: Commands) -> None:
        run.answers["dig +short +time=3 +tries=2 _acme-challenge.a.example CNAME"] = (0, "a.acme.example.\n", "")
        assert machine.challenge_owner("a.example", run) == "a.acme.example"
        run.answers["dig +short"] = (0, "x.example.\n", "")
        assert machine.challenge_owner("loop.example", run) == "x.example"
        run.answers["dig +short"] = (9, ";; no servers could be reached\n", "")
        assert machine.challenge_owner("b.example", run) == "_acme-challenge.b.example"

    def test_a_record_that_does_not_come(self, run: Commands) -> None:
        with pytest.raises(CertificatesError) as caught:
            machine.wait_for_record("x.example", "v", [("a", 53), ("b", 53)], run, seconds=-1)
        assert str(caught.value) == "ERROR: x.example TXT did not appear on a, b within -1 s"

    def test_refused(self, paths: machine.Paths, run: Commands) -> None:
        run.answers["nsupdate"] = (
            2,
            "",
            "; TSIG error with server: tsig indicates error\nupdate failed: NOTAUTH(BADSIG)\n",
        )
        with pytest.raises(CertificatesError) as caught:
            self.hook(paths, run, "deploy_challenge", "a.example", "token", self.VALUE)
        assert str(caught.value) == (
            "ERROR: the DNS server ns.example refused the update of _acme-challenge.a.example:"
            " TSIG error with server: tsig indicates error; update failed: NOTAUTH(BADSIG)"
        )

    @pytest.mark.parametrize("arguments", [[], ["exit_hook"], ["deploy_cert", "a", "b", "c", "d"]])
    def test_other_operations(self, paths: machine.Paths, run: Commands, arguments: list[str]) -> None:
        self.hook(paths, run, *arguments)
        assert run.seen == []


class TestCommand:
    def write(self, paths: machine.Paths, *wanted: dict[str, Any]) -> None:
        values = {"machine": "m1", "wanted": list(wanted), "acme": {"directory": DIRECTORY, "terms_agreed": True}}
        paths.settings.write_text(json.dumps(values))

    @pytest.mark.parametrize("arguments", [[], ["help"], ["renew"], ["status", "x"]])
    def test_usage(
        self, paths: machine.Paths, run: Commands, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert machine.main(arguments, paths, run) == 2
        assert capsys.readouterr().err.startswith("usage: bouwsteen-certificates COMMAND")

    def test_without_settings(self, paths: machine.Paths, run: Commands, capsys: pytest.CaptureFixture[str]) -> None:
        assert machine.main(["status"], paths, run) == 1
        assert re.search(
            r"certificates.json cannot be read \(.*\); apply the role certificates\n$", capsys.readouterr().err
        )

    def test_nothing_wanted(self, paths: machine.Paths, run: Commands, capsys: pytest.CaptureFixture[str]) -> None:
        self.write(paths)
        assert machine.main(["status"], paths, run) == 0
        assert capsys.readouterr().out == "no certificates are wanted on this machine\n"

    def test_status(
        self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bring(paths, run, ca, MAIL)
        self.write(paths, MAIL, {"name": "other", "names": ["other.example"]})
        assert machine.main(["status"], paths, run) == 1
        first, hashed, second, problem = capsys.readouterr().out.splitlines()
        end = f"{NOW + YEAR:%Y-%m-%d}"
        assert first == f"mail: site_ca, until {end} (364 days); mail.noorderict.example; services: postfix dovecot"
        assert hashed == f"    TLSA 3 1 1 {present(paths).spki}"
        assert second == "other: MISSING; ; services: none"
        assert problem == (
            "PROBLEM certificate other: missing; wanted: a certificate of site_ca (run playbooks/certificates.yml);"
            " look: bouwsteen-certificates status; journalctl -u bouwsteen-certificates; docs/certificates.md"
        )

    def test_the_timers_run_leaves_the_site_cas_to_the_control_node(
        self, paths: machine.Paths, run: Commands, ca: authority.AuthoritySettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bring(paths, run, ca, MAIL, now=NOW - timedelta(days=350))
        before = present(paths)
        self.write(paths, MAIL)
        assert machine.main(["run"], paths, run) == 1
        assert present(paths) == before
        assert "PROBLEM certificate mail: 14 days left" in capsys.readouterr().out
        assert machine.main(["renew", "mail"], paths, run) == 1
        assert capsys.readouterr().err.startswith(
            "mail: the site CA signs from the control node; there: ansible-playbook"
        )

    def test_the_timers_run_renews_and_reloads(
        self, paths: machine.Paths, run: Commands, capsys: pytest.CaptureFixture[str]
    ) -> None:
        names = ["mail.noorderict.example"]
        self.write(paths, {**MAIL, "issuer": "acme"})
        run.answers["/usr/bin/dehydrated"] = Acme(names)
        run.units["postfix.service"] = {}
        assert machine.main(["run"], paths, run) == 0
        printed = capsys.readouterr().out
        assert "certificate mail: names: mail.noorderict.example; issuer: acme https://acme.example/dir" in printed
        assert "postfix: reload, because it started before its certificate was put in place" in printed
        assert machine.main(["renew", "mail"], paths, run) == 0
        assert "because: asked for in certificates_renew" in capsys.readouterr().out

    def test_the_hook(self, paths: machine.Paths, run: Commands, capsys: pytest.CaptureFixture[str]) -> None:
        self.write(paths, MAIL)
        assert machine.main(["acme-hook", "exit_hook"], paths, run) == 0

    def test_one_at_a_time(self, paths: machine.Paths) -> None:
        with (
            machine.locked(paths),
            pytest.raises(CertificatesError, match=r"^another run has held .*/lock for 0 s$"),
            machine.locked(paths, seconds=0.1),
        ):
            pytest.fail("two at once")


class TestCommandsForReal:
    def test_missing_late_and_fine(self) -> None:
        assert machine.run_command(["/nonexistent/x"]).returncode == 127
        late = machine.run_command(["sh", "-c", "echo so far >&2; sleep 5"], timeout=0.3)
        assert (late.returncode, "no end after 0 s" in late.stderr) == (124, True)
        assert machine.run_command(["cat"], stdin="x").stdout == "x"


def test_keys_of_strangers_are_weak() -> None:
    """Other tools may have made a key that we would not: it is replaced, not refused."""
    key = ec.generate_private_key(ec.SECP521R1())
    assert x509._kind(key.public_key()) == "ec-p521"
    assert not decide.weak_key("ec-p521")
