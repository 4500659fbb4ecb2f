# SPDX-License-Identifier: GPL-3.0-or-later
"""What module ``configuration`` decides: requests, differences, services, derived files, secrets, what people read."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import configuration as pure
from ansible_collections.bouwsteen.hosting.plugins.module_utils.configuration import (
    Command,
    File,
    Loaded,
    Seen,
    Service,
    Stamp,
    Step,
    Tree,
    Unit,
)

NUMBERS = {"root": 0, "vmail": 5000}
DIRECTORY = Seen("directory", "", 0o755)


def number(name: str) -> int | None:
    return NUMBERS.get(name)


def request(**params: Any) -> pure.Request:
    return pure.parse(params, {item["path"]: f"digest of {item['path']}" for item in params.get("files", [])})


def problems(**params: Any) -> list[str]:
    with pytest.raises(pure.RequestError) as caught:
        request(**params)
    return caught.value.problems


def compare(seen: dict[str, Seen], *, check_mode: bool = False, **params: Any) -> pure.Comparison:
    return pure.compare(request(**params), {"/etc": DIRECTORY} | seen, number, number, check_mode=check_mode)


# --------------------------------------------------------------------------------------------------------- request


def test_a_request_has_the_documented_defaults() -> None:
    wanted = request(
        files=[{"path": "/etc/a"}],
        directories=[{"path": "/etc/d"}],
        links=[{"path": "/etc/l", "target": "a"}],
        services=[{"name": "postfix"}, {"name": "x.timer", "enabled": False, "state": "unmanaged"}],
        commands=[{"command": ["newaliases"], "source": ["/etc/aliases/"]}],
        checks=[["true", 1]],
    )
    assert wanted.files == (File("/etc/a", "digest of /etc/a", 0o644, "root", "root"),)
    assert wanted.directories == (pure.Directory("/etc/d", 0o755),)
    assert wanted.services == (Service("postfix.service"), Service("x.timer", "unmanaged", enabled=False))
    assert wanted.commands[0].source == ("/etc/aliases",)
    assert wanted.checks == (("true", "1"),)
    assert wanted.paths == ("/etc/d", "/etc/a", "/etc/l")


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"files": [{"path": "etc/a"}]}, "files[0]: a path must be absolute (found 'etc/a')"),
        ({"files": [{"path": None}]}, "files[0]: a path must be absolute (found None)"),
        (
            {"files": [{"path": "/etc/../a"}]},
            "files[0]: a path must be plain, without '..', '//', a '/' at its end or line breaks (found '/etc/../a')",
        ),
        (
            {"files": [{"path": "/a", "mode": 420}]},
            "/a: mode must be octal digits in quotes with a leading 0, such as \"0644\" (found '420')",
        ),
        (
            {"files": [{"path": "/a", "mode": "u+x"}]},
            "/a: mode must be octal digits in quotes with a leading 0, such as \"0644\" (found 'u+x')",
        ),
        ({"files": [{"path": "/a"}], "absent": ["/a"]}, "/a is asked for twice"),
        ({"files": [{"path": "/a/b/c"}], "absent": ["/a/b"]}, "/a/b is to be absent, but /a/b/c below it is asked for"),
        ({"absent": ["/etc"]}, "/etc: a directory at the top of the file system is never removed"),
        ({"links": [{"path": "/a/l", "target": ""}]}, "/a/l: a link needs a target"),
        ({"checks": ["sshd -t"]}, "checks[0]: a command is a list of words (found 'sshd -t')"),
        ({"checks": [[]]}, "checks[0]: a command is a list of words (found [])"),
        (
            {"commands": [{"command": ["newaliases"], "source": []}]},
            "command newaliases: name the files that it is made from (source)",
        ),
        ({"services": [{"name": "a"}, {"name": "a.service"}]}, "service a.service is named twice"),
        (
            {"services": [{"name": "a", "state": "restarted"}]},
            "service a.service: state is started, stopped or unmanaged (found 'restarted')",
        ),
        (
            {"services": [{"name": "a", "masked": True}]},
            "service a.service: a masked service is stopped and not enabled",
        ),
        (
            {"services": [{"name": "a", "reload_on": ["etc/"]}]},
            "service a.service: reload_on and restart_on hold absolute paths (found 'etc/')",
        ),
        ({"kernel": {"net/../x": 1}}, "kernel: 'net/../x' is not the name of a setting"),
    ],
)
def test_a_bad_request_is_refused_with_the_exact_reason(params: dict[str, Any], problem: str) -> None:
    assert problem in problems(**params)


def test_all_problems_are_named_at_once() -> None:
    assert len(problems(files=[{"path": "a"}, {"path": "b"}], services=[{"name": "x"}, {"name": "x"}])) >= 3


def test_arguments_are_those_that_are_documented() -> None:
    import yaml
    from ansible_collections.bouwsteen.hosting.plugins.modules import configuration as module

    options = yaml.safe_load(module.DOCUMENTATION)["options"]

    def same(documented: dict[str, Any], specified: dict[str, Any]) -> None:
        assert set(documented) == set(specified)
        for name, item in documented.items():
            for key in ("type", "elements", "default", "required", "choices"):
                assert item.get(key) == specified[name].get(key), (name, key)
            same(item.get("suboptions", {}), specified[name].get("options", {}))

    # Those with an underscore are between the action plugin and the module; tasks cannot give them.
    same({name: item for name, item in options.items() if not name.startswith("_")}, pure.ARGUMENTS)


# --------------------------------------------------------------------------------------------------------- compare


def test_nothing_differs() -> None:
    seen = {
        "/etc/a": Seen("file", "digest of /etc/a", 0o644),
        "/etc/d": Seen("directory", "", 0o700, 5000, 0),
        "/etc/l": Seen("link", target="a"),
    }
    found = compare(
        seen,
        files=[{"path": "/etc/a"}],
        directories=[{"path": "/etc/d", "mode": "0700", "owner": "vmail"}],
        links=[{"path": "/etc/l", "target": "a"}],
        absent=["/etc/old"],
    )
    assert found == pure.Comparison()


def test_missing_parents_are_made_once_and_before() -> None:
    found = compare({}, files=[{"path": "/etc/x/y/a"}, {"path": "/etc/x/y/b"}])
    assert [(step.kind, step.path, step.change) for step in found.steps] == [
        ("directory", "/etc/x", "created"),
        ("directory", "/etc/x/y", "created"),
        ("file", "/etc/x/y/a", "created"),
        ("file", "/etc/x/y/b", "created"),
    ]
    assert found.needed == ("/etc/x/y/a", "/etc/x/y/b")


def test_directories_come_before_what_is_in_them_whatever_the_order() -> None:
    found = compare({}, directories=[{"path": "/etc/x/y", "mode": "0700"}, {"path": "/etc/x", "mode": "0711"}])
    assert [(step.path, step.mode) for step in found.steps] == [("/etc/x", 0o711), ("/etc/x/y", 0o700)]


@pytest.mark.parametrize(
    ("seen", "change", "needed"),
    [
        (Seen("file", "other", 0o644), "updated", True),
        (Seen("file", "digest of /etc/a", 0o600), "attributes", False),
        (Seen("file", "digest of /etc/a", 0o644, 1), "attributes", False),
        (Seen("file", "digest of /etc/a", 0o644, 0, 1), "attributes", False),
    ],
)
def test_a_file_that_differs(seen: Seen, change: str, needed: bool) -> None:
    found = compare({"/etc/a": seen}, files=[{"path": "/etc/a"}])
    assert [(step.change, step.content) for step in found.steps] == [(change, needed)]


@pytest.mark.parametrize(
    ("seen", "params", "problem"),
    [
        (
            {"/etc/a": Seen("link", target="/tmp/x")},
            {"files": [{"path": "/etc/a"}]},
            "/etc/a is a symbolic link to /tmp/x: say 'replace: true' to put a file in its place",
        ),
        ({"/etc/a": DIRECTORY}, {"files": [{"path": "/etc/a"}]}, "/etc/a is not a regular file"),
        ({"/etc/a": Seen("other")}, {"files": [{"path": "/etc/a"}]}, "/etc/a is not a regular file"),
        (
            {"/etc/d": Seen("link", target="/tmp")},
            {"files": [{"path": "/etc/d/a"}]},
            "/etc/d/a: /etc/d is a symbolic link that not only root can change, or that leads to no directory",
        ),
        ({"/etc/d": Seen("file")}, {"files": [{"path": "/etc/d/a"}]}, "/etc/d/a: /etc/d is not a directory"),
        ({"/etc/d": Seen("file")}, {"directories": [{"path": "/etc/d"}]}, "/etc/d is not a directory"),
        (
            {"/etc/d": Seen("link", target="e", leads_to_directory=True)},
            {"directories": [{"path": "/etc/d"}]},
            "/etc/d is a symbolic link to e, not a directory",
        ),
        (
            {"/etc/l": Seen("file")},
            {"links": [{"path": "/etc/l", "target": "x"}]},
            "/etc/l is a file: say 'replace: true' to put a symbolic link in its place",
        ),
        ({"/etc/l": DIRECTORY}, {"links": [{"path": "/etc/l", "target": "x"}]}, "/etc/l is not a symbolic link"),
        (
            {},
            {"files": [{"path": "/etc/a", "owner": "nobody2"}]},
            "/etc/a: owner nobody2 does not exist on this machine",
        ),
        ({}, {"directories": [{"path": "/etc/d", "group": "g"}]}, "/etc/d: group g does not exist on this machine"),
    ],
)
def test_what_stands_in_the_way_is_an_error(seen: dict[str, Seen], params: dict[str, Any], problem: str) -> None:
    assert compare(seen, **params).problems == (problem,)


def test_a_link_of_roots_to_a_directory_is_no_obstacle() -> None:
    found = compare({"/etc/d": Seen("link", target="e", leads_to_directory=True)}, files=[{"path": "/etc/d/a"}])
    assert [step.path for step in found.steps] == ["/etc/d/a"]
    assert not found.problems


def test_declared_replacements_take_place() -> None:
    seen = {"/etc/a": Seen("link", target="x"), "/etc/l": Seen("file")}
    found = compare(
        seen, files=[{"path": "/etc/a", "replace": True}], links=[{"path": "/etc/l", "target": "x", "replace": True}]
    )
    assert [(step.kind, step.change) for step in found.steps] == [("file", "updated"), ("link", "updated")]


def test_a_user_that_an_earlier_task_would_make_is_a_warning_in_check_mode() -> None:
    found = compare(
        {}, check_mode=True, files=[{"path": "/etc/a", "owner": "later"}, {"path": "/etc/b", "group": "later"}]
    )
    assert found.problems == ()
    assert found.warnings == ("/etc/a: owner later does not exist yet", "/etc/b: group later does not exist yet")
    assert len(found.steps) == 2


def test_links_that_differ() -> None:
    found = compare(
        {"/etc/l": Seen("link", target="old")},
        links=[{"path": "/etc/l", "target": "new"}, {"path": "/etc/m", "target": "n"}],
    )
    assert [(step.path, step.change, step.target) for step in found.steps] == [
        ("/etc/l", "updated", "new"),
        ("/etc/m", "created", "n"),
    ]


def test_purge_spares_what_is_wanted_and_what_is_kept() -> None:
    seen = {
        "/etc/d": dataclasses.replace(DIRECTORY, entries=("a", "b", "c.local", "gone")),
        "/etc/d/a": Seen("file", "digest of /etc/d/a", 0o644),
        "/etc/d/gone": Seen("file"),
    }
    found = compare(
        seen,
        directories=[{"path": "/etc/d", "purge": True, "keep": ["*.local"]}],
        files=[{"path": "/etc/d/a"}],
        absent=["/etc/d/gone"],
    )
    assert [(step.kind, step.path) for step in found.steps] == [("remove", "/etc/d/gone"), ("remove", "/etc/d/b")]


def test_to_look_at_names_parents_first_and_each_once() -> None:
    wanted = request(files=[{"path": "/etc/x/a"}, {"path": "/etc/x/b"}], absent=["/srv/old"])
    assert pure.to_look_at(wanted) == ["/etc", "/etc/x", "/etc/x/a", "/etc/x/b", "/srv", "/srv/old"]


# ----------------------------------------------------------------------------------------------------------- stage


def test_layers_go_over_the_nearest_directories_and_none_below_another() -> None:
    there = {"/etc", "/etc/postfix", "/var", "/var/lib", "/usr", "/usr/local"}
    assert pure.overlays(["/etc/postfix/x", "/var/lib/new/deep/a", "/usr/local/b"], there.__contains__) == [
        "/etc",
        "/usr/local",
        "/var/lib",
    ]


def test_a_file_right_below_the_root_cannot_be_staged() -> None:
    with pytest.raises(
        pure.RequestError, match="/a: a checker cannot be shown a file right below '/'; declare no checks for it"
    ):
        pure.overlays(["/a"], {"/etc"}.__contains__)


def test_mount_points_below_a_directory() -> None:
    text = (
        "36 35 98:0 / / rw - ext4 /dev/x rw\n"
        "37 36 0:1 / /etc/resolv.conf rw - tmpfs t rw\n"
        "38 36 0:2 / /etc/with\\040blank rw - tmpfs t rw\n"
        "39 36 0:3 / /etcetera rw - tmpfs t rw\n"
        "bad line\n"
    )
    assert pure.mounts_below(text, "/etc") == ["/etc/resolv.conf", "/etc/with blank"]


# -------------------------------------------------------------------------------------------------------- services

RUNNING = Unit(
    "a.service", "loaded", "active", "running", "enabled", "one", began=1000.0, can_reload=True, type="notify"
)
SERVICE = Service("a.service", reload_on=("/etc/a/",), restart_on=("/etc/a.unit",))
TREE = Tree({"/etc/a/x": "1", "/etc/a.unit": "u"}, {"/etc/a/": 900.0, "/etc/a/x": 900.0, "/etc/a.unit": 900.0})
STAMP = Stamp("one", 0.0, Loaded(("/etc/a/",), {"/etc/a/x": "1"}), Loaded(("/etc/a.unit",), {"/etc/a.unit": "u"}))


def decided(
    service: Service = SERVICE, unit: Unit = RUNNING, stamp: Stamp | None = STAMP, tree: Tree = TREE, **more: Any
) -> list[tuple[str, str]]:
    decision = pure.decide(service, unit, stamp, tree, **more)
    assert not decision.problem
    return [(action.action, action.because) for action in decision.actions]


def unit(**changes: Any) -> Unit:
    return dataclasses.replace(RUNNING, **changes)


def tree(digests: dict[str, str], **changed: float) -> Tree:
    return Tree(dict(TREE.digests) | digests, dict(TREE.changed) | changed)


def test_what_runs_as_it_should_is_left_alone() -> None:
    assert decided() == []


def test_a_changed_file_means_a_reload() -> None:
    assert decided(tree=tree({"/etc/a/x": "2"})) == [("reload", "/etc/a/x changed")]


def test_a_removed_file_means_a_reload() -> None:
    assert decided(tree=Tree({"/etc/a.unit": "u"}, {})) == [("reload", "/etc/a/x changed")]


def test_a_restart_beats_a_reload() -> None:
    assert decided(tree=tree({"/etc/a/x": "2", "/etc/a.unit": "v"})) == [("restart", "/etc/a.unit changed")]


def test_what_cannot_reload_restarts() -> None:
    assert decided(unit=unit(can_reload=False), tree=tree({"/etc/a/x": "2"})) == [
        ("restart", "/etc/a/x changed, and it cannot reload")
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"active": "inactive", "sub": "dead"}, [("start", "not running")]),
        ({"active": "failed", "sub": "failed", "result": "exit-code"}, [("start", "it is failed (exit-code)")]),
        (
            {"active": "activating", "sub": "auto-restart", "result": "signal"},
            [("restart", "it keeps failing (signal)")],
        ),
        ({"active": "reloading"}, []),
        ({"file_state": "disabled"}, [("enable", "it is disabled")]),
        ({"file_state": "enabled-runtime"}, [("enable", "it is enabled-runtime")]),
        ({"file_state": "static"}, []),
        (
            {"load": "masked", "active": "inactive", "file_state": "masked"},
            [("unmask", "it is masked"), ("enable", "it is masked"), ("start", "not running")],
        ),
    ],
)
def test_states_of_a_unit_that_should_run(changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert decided(unit=unit(**changes)) == expected


@pytest.mark.parametrize(
    ("service", "changes", "expected"),
    [
        (Service("a.service", "stopped", enabled=False), {}, [("disable", "it is enabled"), ("stop", "it is active")]),
        (Service("a.service", "stopped", enabled=False), {"active": "inactive", "file_state": "disabled"}, []),
        (Service("a.service", "stopped", enabled=False), {"load": "not-found"}, []),
        (
            Service("a.service", "stopped", enabled=False),
            {"load": "masked", "active": "inactive", "file_state": "masked"},
            [],
        ),
        (
            Service("a.service", "unmanaged"),
            {"active": "inactive", "file_state": "disabled"},
            [("enable", "it is disabled")],
        ),
        (
            Service("a.service", "stopped", enabled=False, masked=True),
            {},
            [("stop", "it is to be masked"), ("mask", "it is not masked")],
        ),
        (Service("a.service", "stopped", enabled=False, masked=True), {"load": "masked", "active": "inactive"}, []),
    ],
)
def test_states_of_a_unit_that_should_not_run(
    service: Service, changes: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert decided(service, unit(**changes), None) == expected


def test_a_unit_that_is_not_there() -> None:
    gone = unit(load="not-found", active="inactive", file_state="")
    assert pure.decide(SERVICE, gone, None, TREE).problem == "service a.service: this machine has no such unit"
    assert decided(unit=gone, stamp=None, check_mode=True) == [
        ("enable", "it is not installed yet"),
        ("start", "it is not installed yet"),
    ]


def test_a_unit_that_systemd_cannot_read() -> None:
    broken = unit(load="bad-setting")
    assert (
        pure.decide(SERVICE, broken, None, TREE).problem
        == "service a.service: systemd cannot read its unit (bad-setting)"
    )


def test_without_a_stamp_the_start_counts_if_it_came_after_the_newest_change() -> None:
    assert decided(stamp=None) == []
    late = Tree(TREE.digests, dict(TREE.changed) | {"/etc/a/x": 1001.0, "/etc/a/": 1001.0})
    assert decided(stamp=None, tree=late) == [("reload", "/etc/a/x changed after it was started")]


def test_a_change_in_the_same_tick_as_the_start_counts_as_later() -> None:
    close = Tree(TREE.digests, dict(TREE.changed) | {"/etc/a/x": 999.99})
    assert decided(stamp=None, tree=close) == [("reload", "/etc/a/x changed after it was started")]


def test_a_file_that_went_after_the_start_shows_in_its_directory() -> None:
    gone = Tree({"/etc/a.unit": "u"}, {"/etc/a/": 1500.0, "/etc/a.unit": 900.0})
    assert decided(stamp=None, tree=gone) == [("reload", "/etc/a/ changed after it was started")]


def test_a_stamp_of_an_earlier_start_does_not_count() -> None:
    stale = dataclasses.replace(STAMP, identity="zero", reload=Loaded(("/etc/a/",), {"/etc/a/x": "0"}))
    assert decided(stamp=stale) == []


def test_a_place_that_the_stamp_does_not_know_is_judged_by_time() -> None:
    wider = dataclasses.replace(SERVICE, reload_on=("/etc/a/", "/etc/b"))
    late = Tree(dict(TREE.digests) | {"/etc/b": "1"}, dict(TREE.changed) | {"/etc/b": 1200.0})
    assert decided(wider, tree=late) == [("reload", "/etc/b changed")]
    # A reload since then has loaded it too.
    assert decided(wider, stamp=dataclasses.replace(STAMP, reloaded_at=1300.0), tree=late) == []


def test_a_reload_by_somebody_else_counts_for_what_had_changed_well_before() -> None:
    later = tree({"/etc/a/x": "2"}, **{"/etc/a/x": 1100.0})
    by_hand = unit(entered=1001.0, changed=1200.0)
    assert decided(unit=by_hand, tree=later) == []
    assert pure.merged(by_hand, STAMP, SERVICE, later).reload.files == {"/etc/a/x": "2"}
    # It says nothing about files that only a restart loads, nor about those to come.
    both = tree({"/etc/a/x": "2", "/etc/a.unit": "v"}, **{"/etc/a/x": 1100.0, "/etc/a.unit": 1100.0})
    assert decided(unit=by_hand, tree=both) == [("restart", "/etc/a.unit changed")]
    assert decided(unit=by_hand, tree=later, planned={"/etc/a/x": "3"}, check_mode=True) == [
        ("reload", "/etc/a/x would change")
    ]
    # Too close to its end, failed, or no reload at all but the start itself.
    assert decided(unit=unit(entered=1001.0, changed=1103.0), tree=later) == [("reload", "/etc/a/x changed")]
    failed = unit(entered=1001.0, changed=1200.0, reload_result="exit-code")
    assert decided(unit=failed, tree=later) == [("reload", "/etc/a/x changed")]
    assert decided(unit=unit(entered=1200.0, changed=1200.0), tree=later) == [("reload", "/etc/a/x changed")]
    # A file that went is judged by its directory.
    gone = Tree({"/etc/a.unit": "u"}, {"/etc/a/": 1100.0})
    assert decided(unit=by_hand, tree=gone) == []
    assert decided(unit=by_hand, tree=Tree({"/etc/a.unit": "u"}, {})) == [("reload", "/etc/a/x changed")]
    # Without a stamp too.
    assert decided(unit=by_hand, stamp=None, tree=later) == []


def test_check_mode_reckons_with_what_would_change() -> None:
    assert decided(planned={"/etc/a/x": "2"}, check_mode=True) == [("reload", "/etc/a/x would change")]
    assert decided(planned={"/etc/a/x": None}, check_mode=True) == [("reload", "/etc/a/x would change")]
    assert decided(planned={"/etc/a/x": "1"}, check_mode=True) == []
    assert decided(stamp=None, planned={"/etc/a.unit": "v"}, check_mode=True) == [
        ("restart", "/etc/a.unit would change")
    ]
    assert decided(planned={"/etc/elsewhere": "v"}, check_mode=True) == []


def test_a_condition_that_is_not_met_is_no_fault() -> None:
    off = unit(active="inactive", sub="dead", invocation="", began=0.0, condition_met=False, condition_at=1000.0)
    decision = pure.decide(SERVICE, off, None, TREE)
    assert decision == pure.Decision((), skipped="a condition in its unit says that this machine does not need it")
    # A change since then may have changed the answer.
    late = Tree(TREE.digests, dict(TREE.changed) | {"/etc/a/x": 1001.0})
    assert decided(unit=off, stamp=None, tree=late) == [("start", "not running")]


def test_daemon_reload() -> None:
    drop_in = Step("file", "/etc/systemd/system/a.service.d/b.conf", "created")
    assert pure.daemon_reload([RUNNING], []) is None
    touched = pure.daemon_reload([RUNNING], [drop_in])
    assert touched is not None
    assert touched.because == "/etc/systemd/system/a.service.d/b.conf changed"
    stale = pure.daemon_reload([unit(need_daemon_reload=True)], [])
    assert stale is not None
    assert stale.as_dict() == {"service": "systemd", "action": "daemon-reload", "because": "a.service changed on disk"}


@pytest.mark.parametrize(
    ("paths", "text"),
    [
        (["/a"], "/a changed"),
        (["/a", "/b"], "/a and /b changed"),
        (["/a", "/b", "/c", "/d"], "/a, /b and 2 more changed"),
    ],
)
def test_several(paths: list[str], text: str) -> None:
    assert pure.several(paths, "changed") == text


def test_stamps_survive_being_written_and_read() -> None:
    assert pure.load_stamp(STAMP.dump()) == STAMP


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1}', "null"])
def test_a_damaged_stamp_counts_as_none(text: str) -> None:
    assert pure.load_stamp(text) is None


def test_a_stamp_keeps_what_other_tasks_want_to_know() -> None:
    other = Service("a.service", reload_on=("/etc/b",))
    both = Tree(dict(TREE.digests) | {"/etc/b": "7"}, {})
    fresh = pure.merged(RUNNING, STAMP, other, both)
    assert fresh.reload == Loaded(("/etc/a/", "/etc/b"), {"/etc/a/x": "1", "/etc/b": "7"})
    assert fresh.restart == STAMP.restart
    assert pure.merged(RUNNING, fresh, other, both) == fresh
    assert pure.merged(RUNNING, None, SERVICE, TREE) == STAMP


def test_a_reload_does_not_load_what_only_a_restart_loads() -> None:
    now = Tree({"/etc/a/x": "2", "/etc/a.unit": "v"}, {})
    fresh = pure.after_reload(RUNNING, STAMP, SERVICE, now, 1234.0)
    assert fresh.reload.files == {"/etc/a/x": "2"}
    assert fresh.restart.files == {"/etc/a.unit": "u"}
    assert fresh.reloaded_at == 1234.0
    assert decided(stamp=fresh, tree=now) == [("restart", "/etc/a.unit changed")]


def test_prefixes() -> None:
    assert pure.under("/etc/a/", "/etc/a/x")
    assert pure.under("/etc/a", "/etc/a")
    assert pure.under("/etc/a", "/etc/a/")
    assert not pure.under("/etc/a", "/etc/ab")


SHOW = """Type=notify
Id=ssh.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
InvocationID=0a
NeedDaemonReload=no
CanReload=yes
ConditionResult=yes
InactiveExitTimestamp=Mon 2026-11-23 16:42:15.250000 UTC

Id=systemd-timesyncd.service
LoadState=loaded
ActiveState=inactive
ConditionResult=no
NeedDaemonReload=yes
ConditionTimestamp=Mon 2026-11-23 16:42:15 UTC
InactiveExitTimestamp=
"""


def test_what_systemd_says_is_read() -> None:
    units = pure.parse_show(SHOW, ["ssh.service", "time.service"])
    ssh, timesyncd = units["ssh.service"], units["time.service"]
    assert (ssh.running, ssh.can_reload, ssh.invocation, ssh.began) == (True, True, "0a", 1795452135.25)
    assert (timesyncd.unmet, timesyncd.need_daemon_reload, timesyncd.identity) == (
        True,
        True,
        "condition@1795452135.000000",
    )
    assert timesyncd.since == 1795452135.0
    assert pure.timestamp("n/a") == 0.0


def test_an_answer_for_too_few_units_is_not_taken_for_one() -> None:
    with pytest.raises(ValueError, match="zip"):
        pure.parse_show(SHOW, ["ssh.service"])


# -------------------------------------------------------------------------------------------------------- commands

MAKE = Command(("postmap", "/etc/sni"), ("/etc/sni",), "/etc/sni.lmdb")


@pytest.mark.parametrize(
    ("target_time", "record", "planned", "reason"),
    [
        (None, None, [], "/etc/sni.lmdb is missing"),
        (50.0, None, [], "/etc/sni is newer than /etc/sni.lmdb"),
        (150.0, None, [], ""),
        (50.0, {"sources": {"/etc/sni": "1"}}, [], ""),
        (150.0, {"sources": {"/etc/sni": "0"}}, [], "/etc/sni changed"),
        (150.0, {"unfinished": True}, [], "it did not finish the last time"),
        (150.0, {"sources": {"/etc/sni": "1"}}, ["/etc/sni"], "/etc/sni would change"),
        (150.0, {"damaged": True}, [], ""),
    ],
)
def test_when_a_derived_file_is_due(
    target_time: float | None, record: dict[str, Any] | None, planned: list[str], reason: str
) -> None:
    found = pure.command_due(MAKE, {"/etc/sni": "1"}, {"/etc/sni": 100.0}, target_time, record=record, planned=planned)
    assert found == reason


def test_a_command_without_a_target_runs_until_it_has_succeeded_once() -> None:
    bare = dataclasses.replace(MAKE, target=None)
    assert pure.command_due(bare, {"/etc/sni": "1"}, {"/etc/sni": 100.0}, None, record=None) == "it has not run yet"
    assert (
        pure.command_due(bare, {"/etc/sni": "1"}, {"/etc/sni": 100.0}, None, record={"sources": {"/etc/sni": "1"}})
        == ""
    )
    assert bare.key != MAKE.key


# ---------------------------------------------------------------------------------------------------------- kernel


def test_kernel_settings() -> None:
    now = {
        "a.b": pure.Setting("0"),
        "c": pure.Setting("1 2"),
        "d": pure.Setting(None),
        "e": pure.Setting("0", writable=False),
    }
    wanted = request(kernel={"a.b": 1, "c": "1  2", "d": 1, "e": 1}).kernel
    due, skipped = pure.settings(wanted, now)
    assert due == [("a.b", "0", "1")]
    assert skipped == [
        ("d", "this kernel does not have it"),
        ("e", "it is 0 and belongs to the host of this container"),
    ]


def test_paths_of_kernel_settings() -> None:
    assert pure.setting_path("net.ipv4.ip_forward") == "/proc/sys/net/ipv4/ip_forward"
    assert pure.setting_path("net/ipv4/conf/eth0.1/forwarding") == "/proc/sys/net/ipv4/conf/eth0.1/forwarding"


# --------------------------------------------------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("password = hunter22\n", "hunter22"),
        ("connect = host=/run/pg dbname=directory password=hunter22\n", "hunter22"),
        ('secret: "hunter22";\n', "hunter22"),
        ("requirepass hunter22\n", "hunter22"),
        ("correct-horse-battery!staple\n", "correct-horse-battery!staple"),
        (
            "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw\n-----END PRIVATE KEY-----\n",
            "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw",
        ),
    ],
)
def test_secrets_are_found_in_what_a_checker_says(text: str, secret: str) -> None:
    assert secret not in pure.mask(f"error near '{secret}' in line 1", pure.secrets_of(text))


def test_words_that_are_no_secret_stay_readable() -> None:
    text = "# password of the directory\n[client]\nserver {\npassword = hunter22\n}\n"
    said = "line 4: unknown setting: password; section client, server"
    assert pure.mask(said, pure.secrets_of(text)) == said


def test_the_longest_secret_goes_first() -> None:
    assert pure.mask("abcdefgh-tail", {"abcdefgh", "abcdefgh-tail"}) == "********"


# ------------------------------------------------------------------------------------------------------------ diff


def shown(
    step: dict[str, Any], before: dict[str, str | None] | None = None, after: dict[str, bytes] | None = None
) -> dict[str, str]:
    return pure.diffs([step], before or {}, after or {})[0]


WAS = {"kind": "file", "mode": "0644", "owner": "root", "group": "root", "target": ""}
STEP = {
    "kind": "file",
    "path": "/a",
    "change": "updated",
    "mode": "0644",
    "owner": "root",
    "group": "root",
    "content": True,
    "secret": False,
    "was": WAS,
}


def test_a_difference_shows_text_before_and_after() -> None:
    entry = shown(STEP, {"/a": "old\n"}, {"/a": b"new\n"})
    assert (entry["before"], entry["after"], entry["after_header"]) == ("old\n", "new\n", "/a")


def test_a_difference_of_a_file_whose_mode_changes_too_says_so() -> None:
    assert (
        shown(STEP | {"mode": "0600"}, {"/a": "old\n"}, {"/a": b"new\n"})["after_header"]
        == "/a (file mode=0600 owner=root group=root)"
    )


def test_secrets_are_masked_in_a_difference() -> None:
    entry = shown(STEP | {"secret": True}, {}, {"/a": b"hunter22\n"})
    assert (entry["before"], entry["after"]) == ("******** (secret)\n", "******** (secret, updated)\n")


def test_binary_files_are_not_shown() -> None:
    entry = shown(STEP, {"/a": None}, {"/a": b"\xff\x00"})
    assert (entry["before"], entry["after"]) == ("(binary)\n", "(binary, 2 bytes)\n")
    assert shown(STEP, {"/a": "x"}, {"/a": b"x" * 100_001})["after"] == "(too large to show)\n"
    assert pure.readable(b"a\0b") is None
    assert pure.readable(None) == ""


def test_attributes_links_and_removals_in_a_difference() -> None:
    attributes = shown(STEP | {"change": "attributes", "mode": "0600"})
    assert (attributes["before"], attributes["after"]) == (
        "file mode=0644 owner=root group=root\n",
        "file mode=0600 owner=root group=root\n",
    )
    created = shown(
        {"kind": "directory", "path": "/d", "change": "created", "mode": "0755", "owner": "root", "group": "root"}
    )
    assert (created["before"], created["after"]) == ("", "directory mode=0755 owner=root group=root\n")
    link = shown(
        {"kind": "link", "path": "/l", "change": "updated", "target": "b", "was": WAS | {"kind": "link", "target": "a"}}
    )
    assert (link["before"], link["after"]) == ("symbolic link to a\n", "symbolic link to b\n")
    removed = shown({"kind": "remove", "path": "/a", "change": "removed", "was": WAS}, {"/a": "old\n"})
    assert (removed["before"], removed["after"], removed["after_header"]) == ("old\n", "", "/a (removed)")
    directory = shown({"kind": "remove", "path": "/d", "change": "removed", "was": WAS | {"kind": "directory"}})
    assert directory["before"] == "(directory)\n"


def test_steps_tell_no_digests() -> None:
    step = Step("file", "/a", "updated", 0o600, secret=True, digest="feed", before=Seen("file", "beef", 0o644))
    assert "feed" not in str(step.as_dict())
    assert "beef" not in str(step.as_dict())
    assert Step("link", "/l", "created", target="t").as_dict()["target"] == "t"


def test_what_was_done_besides_files() -> None:
    text = pure.prepared(
        [{"command": ["locale-gen"], "because": "x"}],
        [{"name": "a.b", "before": "0", "after": "1"}],
        [{"service": "s.service", "action": "reload", "because": "y"}],
        check_mode=True,
    )
    assert text == "would run locale-gen: x\nwould set a.b from 0 to 1\nwould reload s.service: y\n"
