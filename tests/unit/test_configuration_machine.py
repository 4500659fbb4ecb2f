# SPDX-License-Identifier: GPL-3.0-or-later
"""The hands of module ``configuration``, on real files and in real mount namespaces, with a stand-in for systemd.

A run is killed at each of its moments in turn, as a power cut would do it, and the next run has to make all good.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import configuration as pure
from ansible_collections.bouwsteen.hosting.plugins.module_utils import configuration_machine as machine
from ansible_collections.bouwsteen.hosting.plugins.module_utils.configuration_machine import (
    Machine,
    MachineError,
    Outcome,
)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stamps and records of this test alone."""
    monkeypatch.setattr(pure, "STAMPS", str(tmp_path / "run" / "bouwsteen"))
    monkeypatch.setattr(pure, "DERIVED", str(tmp_path / "derived"))


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A directory of configuration files."""
    directory = tmp_path / "etc"
    directory.mkdir(mode=0o755)
    return directory


class Systemd:
    """Stands in for systemd. What it knows is in a file, so that it outlives a killed run.

    A unit loads, when it starts or reloads, the files below `reads` (path -> content is kept), so that a test can say
    what runs. `starts` counts starts.
    """

    def __init__(self, path: Path, **units: dict[str, Any]) -> None:
        self.path = path
        self.calls: list[list[str]] = []
        if units:
            self.save({f"{name}.service": self.unit() | unit for name, unit in units.items()})

    @staticmethod
    def unit() -> dict[str, Any]:
        return {
            "LoadState": "loaded", "ActiveState": "inactive", "SubState": "dead", "UnitFileState": "disabled",
            "InvocationID": "", "NeedDaemonReload": "no", "InactiveExitTimestamp": "", "CanReload": "yes",
            "Type": "notify", "Result": "success", "ConditionResult": "yes", "ConditionTimestamp": "",
            "reads": [], "loaded": {}, "starts": 0, "broken": "",
        }  # fmt: skip

    def save(self, units: Mapping[str, Any]) -> None:
        self.path.write_text(json.dumps(units))

    @property
    def units(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found

    def change(self, name: str, **changes: Any) -> None:
        units = self.units
        units[f"{name}.service"] |= changes
        self.save(units)

    def __getitem__(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.units[f"{name}.service"]
        return found

    def actions(self) -> list[list[str]]:
        """What it was told to do, without questions."""
        return [
            words[1:] for words in self.calls if words[0] == "systemctl" and words[1] not in {"show", "reset-failed"}
        ]

    def __call__(self, words: Sequence[str]) -> Outcome:
        self.calls.append(list(words))
        if words[0] == "journalctl":
            return Outcome(0, "a[1]: cannot start: password is hunter22\n")
        if words[0] != "systemctl":
            return machine.run_command(words)
        verb = words[1]
        if verb == "show":
            return Outcome(0, self.show(words[words.index("--") + 1 :]))
        units = self.units
        if verb == "daemon-reload":
            for unit in units.values():
                unit["NeedDaemonReload"] = "no"
                if unit["LoadState"] == "not-found" and Path(unit.get("file", "/none")).exists():
                    unit["LoadState"] = "loaded"
            self.save(units)
            return Outcome(0, "")
        unit = units[words[-1]]
        outcome = self.act(verb, unit)
        self.save(units)
        return outcome

    def act(self, verb: str, unit: dict[str, Any]) -> Outcome:
        if verb == "enable":
            unit["UnitFileState"] = "enabled"
        elif verb == "disable":
            unit["UnitFileState"] = "disabled"
        elif verb == "mask":
            unit |= {"LoadState": "masked", "UnitFileState": "masked", "ActiveState": "inactive"}
        elif verb == "unmask":
            unit |= {"LoadState": "loaded", "UnitFileState": "disabled"}
        elif verb == "stop":
            unit |= {"ActiveState": "inactive", "SubState": "dead", "InvocationID": ""}
        elif verb in {"start", "restart", "reload"}:
            now = datetime.now(UTC).strftime("%a %Y-%m-%d %H:%M:%S.%f UTC")
            if unit["broken"]:
                unit |= {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code"}
                return Outcome(1, f"Job failed: {unit['broken']}")
            if unit["ConditionResult"] == "no":
                unit["ConditionTimestamp"] = now
                return Outcome(0, "")
            unit["loaded"] = {
                str(path): path.read_text() for place in unit["reads"] for path in files_below(Path(place))
            }
            if verb != "reload":
                unit |= {
                    "ActiveState": "active", "SubState": "running", "Result": "success",
                    "InvocationID": os.urandom(8).hex(), "InactiveExitTimestamp": now, "starts": unit["starts"] + 1,
                }  # fmt: skip
        return Outcome(0, "")

    def show(self, names: Sequence[str]) -> str:
        units = self.units
        blocks = []
        for name in names:
            unit = units.get(name, self.unit() | {"LoadState": "not-found", "UnitFileState": ""})
            blocks.append("".join(f"{key}={unit[key]}\n" for key in pure.PROPERTIES if key in unit))
        return "\n".join(blocks)


def files_below(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    elif place.is_dir():
        yield from sorted(path for path in place.rglob("*") if path.is_file() and not path.name.startswith("."))


def wait_for_the_clock() -> None:
    """Let the coarse clock of the file system pass, so that before and after can be told apart."""
    end = time.time() + 2 * pure.CLOCK_MARGIN
    while time.time() < end:
        time.sleep(0.005)


def apply(
    params: dict[str, Any],
    contents: Mapping[str, str],
    run: Callable[[Sequence[str]], Outcome] = machine.run_command,
    **more: Any,
) -> dict[str, Any]:
    """Both calls of the module, as the action plugin makes them."""
    files = [{"path": path} | item for path, item in params.get("files", {}).items()]
    raw = {path: text.encode() for path, text in contents.items()}
    digests = {path: __import__("hashlib").sha256(content).hexdigest() for path, content in raw.items()}
    request = pure.parse(params | {"files": files}, digests)
    wanted: Mapping[str, bytes] | None = None
    while True:
        answer = Machine(request, run=run, settle=0.0, **more).configure(wanted)
        if "needed" not in answer:
            return answer
        assert wanted is None
        wanted = {path: raw[path] for path in answer["needed"]}


def leftovers(directory: Path) -> list[Path]:
    return list(directory.rglob(pure.TEMPORARY_PATTERN))


# ------------------------------------------------------------------------------------------------------ installing


def test_files_directories_and_links_are_made_and_then_left_alone(etc: Path) -> None:
    path = etc / "deep" / "a.conf"
    params = {
        "files": {str(path): {"mode": "0640", "owner": "daemon", "group": "daemon"}},
        "directories": [{"path": str(etc / "d"), "mode": "01777"}],
        "links": [{"path": str(etc / "l"), "target": "deep"}],
        "absent": [str(etc / "old")],
    }
    (etc / "old" / "inside").mkdir(parents=True)
    answer = apply(params, {str(path): "x\n"})
    assert answer["changed"]
    assert path.read_text() == "x\n"
    status = path.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 1, 1)
    assert (etc / "d").stat().st_mode & 0o7777 == 0o1777
    assert (etc / "l").readlink() == Path("deep")
    assert not (etc / "old").exists()
    assert not leftovers(etc)
    before = path.stat().st_ino
    assert apply(params, {str(path): "x\n"})["changed"] is False
    assert path.stat().st_ino == before


def test_attributes_alone_are_put_right_without_the_content(etc: Path) -> None:
    path = etc / "a"
    path.write_text("x\n")
    path.chmod(0o666)
    inode = path.stat().st_ino
    answer = apply({"files": {str(path): {}}}, {str(path): "x\n"})
    assert [step["change"] for step in answer["steps"]] == ["attributes"]
    assert answer["steps"][0]["was"] == {"kind": "file", "mode": "0666", "target": "", "owner": "root", "group": "root"}
    assert (path.stat().st_mode & 0o7777, path.stat().st_ino) == (0o644, inode)


def test_a_purge_removes_files_and_links_but_no_directories(etc: Path) -> None:
    (etc / "d" / "sub").mkdir(parents=True)
    (etc / "d" / "stray").write_text("x")
    (etc / "d" / "link").symlink_to("stray")
    apply({"directories": [{"path": str(etc / "d"), "purge": True}]}, {})
    assert [path.name for path in (etc / "d").iterdir()] == ["sub"]


def test_a_link_in_the_way_is_not_written_through(etc: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (etc / "a").symlink_to(victim)
    with pytest.raises(MachineError, match=r"is a symbolic link to .*victim: say 'replace: true'"):
        apply({"files": {str(etc / "a"): {}}}, {str(etc / "a"): "x"})
    assert victim.read_text() == "precious"
    apply({"files": {str(etc / "a"): {"replace": True}}}, {str(etc / "a"): "x"})
    assert victim.read_text() == "precious"
    assert (etc / "a").read_text() == "x"


def test_a_link_that_somebody_else_could_have_made_is_not_followed(etc: Path) -> None:
    open_to_all = etc / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (open_to_all / "link").symlink_to(etc)
    with pytest.raises(MachineError, match="that not only root can change"):
        apply({"files": {str(open_to_all / "link" / "a"): {}}}, {str(open_to_all / "link" / "a"): "x"})
    (etc / "roots").symlink_to(open_to_all)
    apply({"files": {str(etc / "roots" / "a"): {}}}, {str(etc / "roots" / "a"): "x"})
    assert (open_to_all / "a").read_text() == "x"


def test_a_file_that_cannot_be_written_leaves_all_as_it_was(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (etc / "a").write_text("old")

    def full(_: Any, text: bytes) -> None:
        raise OSError(28, "No space left on device")

    steps = [pure.Step("file", str(etc / name), "updated", 0o644, content=True) for name in ("a", "b")]
    contents = {str(etc / "a"): b"new", str(etc / "b"): b"new"}
    installer = machine.Installer()
    written = installer._write

    def write(step: pure.Step, content: bytes) -> None:
        written(step, content)
        if step.path.endswith("b"):
            full(None, content)

    monkeypatch.setattr(installer, "_write", write)
    with pytest.raises(OSError, match="No space left"):
        installer.install(steps, contents)
    assert [path.name for path in etc.iterdir()] == ["a"]
    assert (etc / "a").read_text() == "old"


def test_what_a_killed_run_left_beside_a_file_is_taken_over(etc: Path) -> None:
    (etc / ".a.bouwsteen-new").write_text("half")
    apply({"files": {str(etc / "a"): {}}}, {str(etc / "a"): "whole"})
    assert [path.name for path in etc.iterdir()] == ["a"]


def test_an_unknown_owner_is_an_error_before_anything_is_written(etc: Path) -> None:
    with pytest.raises(MachineError, match="owner nobody-of-that-name does not exist on this machine"):
        apply({"files": {str(etc / "a"): {"owner": "nobody-of-that-name"}}}, {str(etc / "a"): "x"})
    assert not (etc / "a").exists()


def test_a_file_that_changed_between_the_two_calls_is_an_error(etc: Path) -> None:
    request = pure.parse(
        {"files": [{"path": str(etc / "a")}, {"path": str(etc / "b")}]}, {str(etc / "a"): "1", str(etc / "b"): "2"}
    )
    with pytest.raises(MachineError, match="b was changed by somebody else in this moment: run it again"):
        Machine(request).configure({str(etc / "a"): b"x"})


def test_two_runs_at_once_wait_for_each_other(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LOCK_SECONDS", 0)
    with (
        machine.locked(),
        pytest.raises(MachineError, match="another run has been configuring this machine for 0 s"),
        machine.locked(),
    ):
        pass
    with machine.locked():
        pass


def test_text_before_is_told_for_the_difference_but_never_a_secret(etc: Path) -> None:
    for name, content in {"a": b"old\n", "s": b"hunter22\n", "b": b"\xff\0", "big": b"x" * 100_001}.items():
        (etc / name).write_bytes(content)
    files = {str(etc / name): {"secret": name == "s"} for name in ("a", "s", "b", "big")}
    answer = apply({"files": files}, dict.fromkeys(files, "new\n"), want_before=True)
    assert answer["before"] == {
        str(etc / "a"): "old\n",
        str(etc / "b"): None,
        str(etc / "big"): "(too large to show)\n",
    }
    assert "hunter22" not in json.dumps(answer)


def test_check_mode_changes_nothing_and_says_all(etc: Path, tmp_path: Path) -> None:
    systemd = Systemd(tmp_path / "systemd", a={"reads": [str(etc)]})
    params = {
        "files": {str(etc / "a"): {}},
        "commands": [
            {"command": ["touch", str(etc / "a.db")], "source": [str(etc / "a")], "target": str(etc / "a.db")}
        ],
        "services": [{"name": "a", "reload_on": [f"{etc}/"]}, {"name": "not-there", "restart_on": [f"{etc}/"]}],
    }
    answer = apply(params, {str(etc / "a"): "x"}, systemd, check_mode=True)
    assert answer["changed"]
    assert [(action["service"], action["action"]) for action in answer["actions"]] == [
        ("a.service", "enable"), ("a.service", "start"),
        ("not-there.service", "enable"), ("not-there.service", "start"),
    ]  # fmt: skip
    assert answer["commands"] == [{"command": ["touch", str(etc / "a.db")], "because": f"{etc}/a.db is missing"}]
    assert answer["notes"] == ["service not-there.service is not installed yet"]
    assert not list(etc.iterdir())
    assert not systemd.actions()
    assert not Path(pure.STAMPS).exists()


# --------------------------------------------------------------------------------------------------------- staging


def test_checks_see_the_new_state_at_the_real_paths_and_nobody_else_does(etc: Path) -> None:
    (etc / "a").write_text("old")
    (etc / "gone").write_text("x")
    sees = f"test $(cat {etc}/a) = new && test $(cat {etc}/sub/b) = deep && ! test -e {etc}/gone"
    script = f"{sees} && echo scribble > {etc}/scribble"
    params = {
        "files": {str(etc / "a"): {}, str(etc / "sub/b"): {}},
        "absent": [str(etc / "gone")],
        "checks": [["sh", "-c", script]],
    }
    contents = {str(etc / "a"): "new", str(etc / "sub/b"): "deep"}
    answer = apply(params, contents, check_mode=True)
    assert answer["changed"]
    assert sorted(path.name for path in etc.iterdir()) == ["a", "gone"]
    assert (etc / "a").read_text() == "old"
    apply(params, contents)
    assert sorted(path.name for path in etc.iterdir()) == ["a", "sub"]
    assert "bouwsteen/stage" not in Path("/proc/self/mountinfo").read_text()


def test_a_check_that_fails_installs_nothing_and_says_why(etc: Path) -> None:
    (etc / "a").write_text("old")
    params = {
        "files": {str(etc / "a"): {}, str(etc / "s"): {"secret": True}},
        "checks": [["true"], ["sh", "-c", f"cat {etc}/s; echo line 3: nonsense; exit 4"], ["no-such-checker"]],
    }
    with pytest.raises(MachineError) as caught:
        apply(params, {str(etc / "a"): "new", str(etc / "s"): "password = hunter22\n"})
    assert str(caught.value) == (
        f"sh -c cat {etc}/s; echo line 3: nonsense; exit 4 refuses the new configuration (exit status 4):\n"
        "password = ********\nline 3: nonsense\n"
        "no-such-checker refuses the new configuration (exit status 127):\nno-such-checker: No such file or directory\n"
        f"nothing was installed; new or changed are: {etc}/a, {etc}/s"
    )
    assert caught.value.details["failed_checks"][0]["status"] == 4
    assert "hunter22" not in json.dumps(caught.value.details)
    assert [path.name for path in etc.iterdir()] == ["a"]
    assert (etc / "a").read_text() == "old"


def test_checks_do_not_run_when_nothing_differs(etc: Path) -> None:
    params = {"files": {str(etc / "a"): {}}, "checks": [["true"]]}
    apply(params, {str(etc / "a"): "x"})
    assert apply(params | {"checks": [["false"]]}, {str(etc / "a"): "x"})["changed"] is False


def test_a_checker_that_is_not_installed_yet_is_a_warning_in_check_mode(etc: Path) -> None:
    params = {"files": {str(etc / "a"): {}}, "checks": [["no-such-checker", "-t"]]}
    answer = apply(params, {str(etc / "a"): "x"}, check_mode=True)
    assert answer["notes"] == ["no-such-checker is not installed yet: the new files were not checked with it"]


def test_what_is_mounted_below_stays_visible_to_checks(etc: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "here").write_text("x")
    (etc / "mounted").mkdir()
    (etc / "single").write_text("below")
    # In a namespace of its own, so that the test leaves no mount behind.
    child = os.fork()
    if child == 0:
        try:
            os.unshare(os.CLONE_NEWNS)
            machine._mount("none", "/", "", machine.MS_REC | machine.MS_PRIVATE)
            machine._mount(str(inner), str(etc / "mounted"), "", machine.MS_BIND)
            machine._mount(str(inner / "here"), str(etc / "single"), "", machine.MS_BIND)
            script = f"test -e {etc}/mounted/here && test $(cat {etc}/single) = x"
            apply({"files": {str(etc / "a"): {}}, "checks": [["sh", "-c", script]]}, {str(etc / "a"): "x"})
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error}\n".encode())
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_directory_that_takes_no_layer_is_copied(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (etc / "old").write_text("x")
    mount = machine._mount

    def no_overlay(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
        if kind == "overlay":
            raise OSError(19, "No such device")
        mount(source, target, kind, flags, data)

    monkeypatch.setattr(machine, "_mount", no_overlay)
    script = f"test -e {etc}/old && test $(cat {etc}/a) = new"
    params = {"files": {str(etc / "a"): {}}, "checks": [["sh", "-c", script]]}
    apply(params, {str(etc / "a"): "new"})
    monkeypatch.setattr(machine, "COPY_BYTES", 0)
    with pytest.raises(MachineError, match="too large to copy; load kernel module overlay"):
        apply(params, {str(etc / "a"): "newer"})
    assert (etc / "a").read_text() == "new"


def test_a_checker_that_hangs_is_stopped() -> None:
    outcome = machine.run_command(["sh", "-c", "echo begun; sleep 60"], seconds=0.3)
    assert (outcome.status, outcome.output) == (124, "begun\n\n(stopped after 0 s)")


# -------------------------------------------------------------------------------------------------------- services


def service_params(etc: Path, **more: Any) -> dict[str, Any]:
    return {
        "files": {str(etc / "a"): {}, str(etc / "unit"): {}},
        "services": [{"name": "a", "reload_on": [f"{etc}/a"], "restart_on": [f"{etc}/unit"]}],
    } | more


def texts(etc: Path, a: str, unit: str = "u") -> dict[str, str]:
    return {str(etc / "a"): a, str(etc / "unit"): unit}


def done(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(action["action"], action["because"]) for action in answer["actions"]]


def test_the_life_of_a_service(etc: Path, tmp_path: Path) -> None:
    systemd = Systemd(tmp_path / "systemd", a={"reads": [str(etc / "a")]})
    params = service_params(etc)
    assert done(apply(params, texts(etc, "1"), systemd)) == [("enable", "it is disabled"), ("start", "not running")]
    assert apply(params, texts(etc, "1"), systemd)["changed"] is False
    predicted = apply(params, texts(etc, "2"), systemd, check_mode=True)
    assert done(predicted) == [("reload", f"{etc}/a would change")]
    assert done(apply(params, texts(etc, "2"), systemd)) == [("reload", f"{etc}/a changed")]
    assert systemd["a"]["loaded"] == {str(etc / "a"): "2"}
    assert done(apply(params, texts(etc, "3", "v"), systemd)) == [("restart", f"{etc}/unit changed")]
    assert systemd["a"]["starts"] == 2
    systemd.change("a", ActiveState="failed", SubState="failed", Result="signal")
    assert done(apply(params, texts(etc, "3", "v"), systemd)) == [("start", "it is failed (signal)")]
    assert ["systemctl", "reset-failed", "a.service"] in systemd.calls
    assert apply(params, texts(etc, "3", "v"), systemd)["changed"] is False


def test_a_run_without_change_asks_systemd_once(etc: Path, tmp_path: Path) -> None:
    systemd = Systemd(tmp_path / "systemd", a={})
    apply(service_params(etc), texts(etc, "1"), systemd)
    systemd.calls.clear()
    apply(service_params(etc), texts(etc, "1"), systemd)
    assert len(systemd.calls) == 1


def test_a_service_that_somebody_restarted_after_the_change_has_it_loaded(etc: Path, tmp_path: Path) -> None:
    systemd = Systemd(tmp_path / "systemd", a={"reads": [str(etc / "a")]})
    apply(service_params(etc), texts(etc, "1"), systemd)
    (etc / "a").write_text("2")
    wait_for_the_clock()
    systemd(["systemctl", "restart", "a.service"])
    systemd.calls.clear()
    assert apply(service_params(etc), texts(etc, "2"), systemd)["changed"] is False
    assert not systemd.actions()


def test_a_file_that_somebody_else_changed_is_loaded(etc: Path, tmp_path: Path) -> None:
    systemd = Systemd(tmp_path / "systemd", a={"reads": [str(etc)]})
    params: dict[str, Any] = {"services": [{"name": "a", "reload_on": [str(etc)]}]}
    (etc / "foreign").write_text("1")
    apply(params, {}, systemd)
    (etc / "foreign").write_text("2")
    assert done(apply(params, {}, systemd)) == [("reload", f"{etc}/foreign changed")]
    (etc / "foreign").unlink()
    assert done(apply(params, {}, systemd)) == [("reload", f"{etc}/foreign changed")]
    (etc / "x.dpkg-old").write_text("no service reads this")
    assert apply(params, {}, systemd)["changed"] is False
    (etc / "foreign").symlink_to(etc / "x.dpkg-old")
    assert done(apply(params, {}, systemd)) == [("reload", f"{etc}/foreign changed")]
    (etc / "x.dpkg-old").write_text("unless through a link")
    assert done(apply(params, {}, systemd)) == [("reload", f"{etc}/foreign changed")]


def test_two_roles_that_share_a_service_do_not_reload_in_turn(etc: Path, tmp_path: Path) -> None:
    systemd = Systemd(tmp_path / "systemd", nftables={"reads": [str(etc)]})

    def role(name: str) -> dict[str, Any]:
        return {"files": {str(etc / name): {}}, "services": [{"name": "nftables", "reload_on": [str(etc / name)]}]}

    for _ in range(2):
        apply(role("one"), {str(etc / "one"): "1"}, systemd)
        apply(role("two"), {str(etc / "two"): "2"}, systemd)
    assert systemd.actions() == [
        ["enable", "nftables.service"],
        ["start", "nftables.service"],
        ["reload", "nftables.service"],
    ]


def test_a_service_that_does_not_start_is_explained_without_secrets(etc: Path, tmp_path: Path) -> None:
    systemd = Systemd(tmp_path / "systemd", a={"broken": "bad password hunter22"}, b={})
    params = {
        "files": {str(etc / "s"): {"secret": True}},
        "services": [{"name": "a", "reload_on": [str(etc)]}, {"name": "b"}, {"name": "c"}],
    }
    with pytest.raises(MachineError) as caught:
        apply(params, {str(etc / "s"): "password = hunter22\n"}, systemd)
    assert str(caught.value) == (
        "service a.service: start failed, it is failed (exit-code)\n"
        "reason for the start: not running\n"
        "Job failed: bad password ********\n"
        "its last journal lines:\n"
        "a[1]: cannot start: password is ********\n"
        "service c.service: this machine has no such unit"
    )
    # The others are not held up by it, and the next run goes on where this one stopped.
    assert systemd["b"]["ActiveState"] == "active"
    systemd.change("a", broken="")
    params["services"] = params["services"][:2]
    assert done(apply(params, {str(etc / "s"): "password = hunter22\n"}, systemd)) == [
        ("start", "it is failed (exit-code)")
    ]


def test_a_unit_that_this_machine_does_not_need_is_said_and_not_tried_again(etc: Path, tmp_path: Path) -> None:
    systemd = Systemd(tmp_path / "systemd", a={"ConditionResult": "no", "UnitFileState": "enabled"})
    params = service_params(etc)
    answer = apply(params, texts(etc, "1"), systemd)
    assert answer["skipped_services"] == [
        {"service": "a.service", "because": "a condition in its unit says that this machine does not need it"}
    ]
    wait_for_the_clock()
    answer = apply(params, texts(etc, "1"), systemd)
    assert answer["changed"] is False
    assert len(answer["skipped_services"]) == 1


def test_stopped_and_masked_services(etc: Path, tmp_path: Path) -> None:
    systemd = Systemd(
        tmp_path / "systemd", a={"ActiveState": "active", "UnitFileState": "enabled"}, b={"ActiveState": "active"}
    )
    params = {
        "services": [
            {"name": "a", "state": "stopped", "enabled": False},
            {"name": "b", "state": "stopped", "enabled": False, "masked": True},
        ]
    }
    apply(params, {}, systemd)
    assert systemd.actions() == [
        ["disable", "a.service"],
        ["stop", "a.service"],
        ["stop", "b.service"],
        ["mask", "--now", "b.service"],
    ]
    assert apply(params, {}, systemd)["changed"] is False


def test_units_that_changed_are_read_anew(etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pure, "UNIT_DIRECTORIES", (f"{etc}/",))
    systemd = Systemd(
        tmp_path / "systemd", a={"LoadState": "not-found", "UnitFileState": "", "file": str(etc / "a.service")}
    )
    params = {"files": {str(etc / "a.service"): {}}, "services": [{"name": "a", "restart_on": [f"{etc}/a.service"]}]}
    contents = {str(etc / "a.service"): "[Service]"}
    predicted = apply(params, contents, systemd, check_mode=True)
    assert [action["action"] for action in predicted["actions"]] == ["daemon-reload", "enable", "start"]
    assert predicted["notes"] == []
    answer = apply(params, contents, systemd)
    assert [action["action"] for action in answer["actions"]] == ["daemon-reload", "start"]
    systemd.change("a", NeedDaemonReload="yes")
    assert [action["because"] for action in apply(params, contents, systemd)["actions"]] == [
        "a.service changed on disk"
    ]


def test_a_starting_service_is_waited_for(etc: Path, tmp_path: Path) -> None:
    systemd = Systemd(
        tmp_path / "systemd", a={"ActiveState": "activating", "SubState": "start", "UnitFileState": "enabled"}
    )
    shown = 0

    def slow(words: Sequence[str]) -> Outcome:
        nonlocal shown
        shown += words[1] == "show"
        if shown == 3:
            systemd.change("a", ActiveState="active", SubState="running", InvocationID="one")
        return systemd(words)

    assert apply({"services": [{"name": "a"}]}, {}, slow)["changed"] is False
    assert shown == 3


def test_systemd_that_does_not_answer_is_an_error() -> None:
    with pytest.raises(MachineError, match="systemd does not answer: no bus"):
        apply({"services": [{"name": "a"}]}, {}, lambda words: Outcome(1, "no bus\n"))


def test_an_action_that_systemd_refuses_is_an_error(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path / "systemd", a={})

    def refusing(words: Sequence[str]) -> Outcome:
        return Outcome(1, "Access denied\n") if words[1] == "enable" else systemd(words)

    with pytest.raises(MachineError, match=r"systemctl enable a.service failed \(exit status 1\): Access denied"):
        apply({"services": [{"name": "a"}]}, {}, refusing)


# -------------------------------------------------------------------------------------------------- derived files


def derived_params(etc: Path, script: str) -> dict[str, Any]:
    command = {"command": ["sh", "-c", script], "source": [str(etc / "a")], "target": str(etc / "a.db")}
    return {"files": {str(etc / "a"): {}}, "commands": [command]}


def test_a_derived_file_is_made_once_for_each_content(etc: Path) -> None:
    params = derived_params(etc, f"cat {etc}/a {etc}/a > {etc}/a.db")
    assert apply(params, {str(etc / "a"): "1"})["commands"][0]["because"] == f"{etc}/a.db is missing"
    assert apply(params, {str(etc / "a"): "1"})["changed"] is False
    assert apply(params, {str(etc / "a"): "2"})["commands"][0]["because"] == f"{etc}/a changed"
    assert (etc / "a.db").read_text() == "22"
    (etc / "a.db").unlink()
    assert apply(params, {str(etc / "a"): "2"})["changed"] is True
    assert (etc / "a.db").exists()


def test_a_derived_file_from_before_our_time_is_judged_by_its_age(etc: Path) -> None:
    params = derived_params(etc, f"cp {etc}/a {etc}/a.db")
    (etc / "a").write_text("1")
    (etc / "a").chmod(0o644)
    wait_for_the_clock()
    (etc / "a.db").write_text("old but newer than its source")
    assert apply(params, {str(etc / "a"): "1"})["changed"] is False


def test_a_command_that_fails_is_an_error_and_due_again(etc: Path) -> None:
    params = derived_params(etc, f"echo half > {etc}/a.db; echo no memory; exit 3")
    with pytest.raises(MachineError, match=r"failed \(exit status 3\):\nno memory"):
        apply(params, {str(etc / "a"): "1"})
    with pytest.raises(MachineError, match="exit status 3"):
        apply(params, {str(etc / "a"): "1"})
    again = apply(
        derived_params(etc, f"echo half > {etc}/a.db; echo no memory; exit 3"), {str(etc / "a"): "1"}, check_mode=True
    )
    assert again["commands"][0]["because"] == "it did not finish the last time"


def test_kernel_settings_are_compared_with_the_running_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = tmp_path / "somaxconn"
    setting.write_text("128\n")
    monkeypatch.setattr(pure, "setting_path", lambda name: str(tmp_path / name))
    params: dict[str, Any] = {"kernel": {"somaxconn": 4096, "not-there": 1}}
    predicted = apply(params, {}, check_mode=True)
    assert (predicted["kernel"], setting.read_text()) == (
        [{"name": "somaxconn", "before": "128", "after": "4096"}],
        "128\n",
    )
    answer = apply(params, {})
    assert (answer["kernel"], setting.read_text()) == (predicted["kernel"], "4096\n")
    assert answer["skipped_kernel"] == [{"name": "not-there", "because": "this kernel does not have it"}]
    assert apply(params, {})["changed"] is False


# ---------------------------------------------------------------------------------------------------------- killed


def killed_at(moment: int, run: Callable[[Callable[[str], None]], Any]) -> bool:
    """Run in a child that dies at this moment, without a chance to clean up. False if it came to its end before."""
    child = os.fork()
    if child == 0:
        count = 0

        def after(_: str) -> None:
            nonlocal count
            if count == moment:
                os._exit(42)
            count += 1

        try:
            run(after)
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in {0, 42}
    return status == 42


def whole(etc: Path) -> dict[str, Any]:
    """A task with everything in it."""
    command = {
        "command": ["sh", "-c", f"cp {etc}/map {etc}/map.db"],
        "source": [str(etc / "map")],
        "target": str(etc / "map.db"),
    }
    return {
        "files": {str(etc / name): {} for name in ("main.conf", "map", "unit")},
        "directories": [{"path": str(etc / "d"), "purge": True}],
        "links": [{"path": str(etc / "link"), "target": "main.conf"}],
        "absent": [str(etc / "old")],
        "checks": [["test", "-s", f"{etc}/main.conf"]],
        "commands": [command],
        "services": [
            {"name": "a", "reload_on": [f"{etc}/main.conf", f"{etc}/map.db"], "restart_on": [f"{etc}/unit"]},
            {"name": "b", "reload_on": [f"{etc}/"]},
        ],
    }


@pytest.mark.parametrize("changed", ["main.conf", "map", "unit", "all"])
@pytest.mark.parametrize("first", [False, True], ids=["change", "first run"])
def test_a_run_that_is_killed_at_any_moment_is_made_good_by_the_next(
    etc: Path, tmp_path: Path, changed: str, first: bool
) -> None:
    params = whole(etc)
    old = {str(etc / name): f"old {name}" for name in ("main.conf", "map", "unit")}
    new = old | {path: f"new {path}" for path in old if changed in ("all", Path(path).name)}
    moment = 0
    while True:
        for path in sorted(tmp_path.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        (etc / "d").mkdir(parents=True)
        (etc / "d" / "stray").write_text("x")
        systemd = Systemd(
            tmp_path / "systemd",
            a={"reads": [f"{etc}/main.conf", f"{etc}/map.db", f"{etc}/unit"]},
            b={"reads": [f"{etc}"]},
        )
        if not first:
            apply(params, old, systemd)
            (etc / "d" / "stray").write_text("x")
        died = killed_at(moment, lambda after, systemd=systemd: apply(params, new, systemd, after=after))
        apply(params, new, systemd)
        on_disk = {str(path): path.read_text() for path in files_below(etc)}
        assert {path: on_disk[path] for path in new} == new
        assert on_disk[str(etc / "map.db")] == new[str(etc / "map")]
        assert not leftovers(etc), moment
        assert not (etc / "d" / "stray").exists()
        for name in ("a", "b"):
            reads = systemd[name]["reads"]
            now = {str(path): path.read_text() for place in reads for path in files_below(Path(place))}
            assert systemd[name]["loaded"] == now, f"service {name} runs with something else, killed at moment {moment}"
            assert systemd[name]["UnitFileState"] == "enabled"
        assert apply(params, new, systemd)["changed"] is False, moment
        if not died:
            break
        moment += 1
    assert moment > 6, "the run has fewer moments than it has steps: the test does not kill it where it should"
