# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's modules: what they take, refuse and return."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.bouwsteen.hosting.plugins.filter import lab_machines as lab_machines_filter
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab import LabError, Settings
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab_host import Lab
from ansible_collections.bouwsteen.hosting.plugins.modules import lab_host, lab_machine, lab_zone


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run a module's main with arguments; returns what it says to Ansible."""

    def run(module: Any, **arguments: Any) -> dict[str, Any]:
        arguments.setdefault("settings", {"state_directory": str(tmp_path / "lab")})
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return run


def recorded(monkeypatch: pytest.MonkeyPatch, **results: Any) -> list[tuple[str, Any]]:
    """Replace methods of Lab by ones that note their call; returns the notes."""
    notes: list[tuple[str, Any]] = []

    def method(name: str, result: Any) -> Callable[..., Any]:
        def replacement(self: Lab, *arguments: Any, **keys: Any) -> Any:
            notes.append((name, [*arguments, keys] if keys else list(arguments)))
            self.change.add(f"{name} done")
            return result

        return replacement

    for name, result in results.items():
        monkeypatch.setattr(Lab, name, method(name, result))
    return notes


def test_a_host_with_obstacles_is_refused_before_anything_is_made(call, monkeypatch, tmp_path):
    monkeypatch.setattr(Lab, "obstacles", lambda _self: ["no bridge", "no firewall"])
    for state in ("possible", "present"):
        said = call(lab_host, state=state)
        assert said["failed"]
        assert said["msg"] == "this host cannot carry the lab: no bridge; no firewall"
    assert not (tmp_path / "lab").exists()


def test_what_a_host_lacks_is_returned(call, monkeypatch):
    monkeypatch.setattr(Lab, "obstacles", lambda _self: [])
    monkeypatch.setattr(Lab, "missing_packages", lambda _self: ["mmdebstrap"])
    said = call(lab_host, state="possible")
    assert said["missing_packages"] == ["mmdebstrap"]
    assert not said["changed"]


def test_a_host_is_prepared_with_its_images(call, monkeypatch, tmp_path):
    monkeypatch.setattr(Lab, "obstacles", lambda _self: [])
    notes = recorded(
        monkeypatch, network_up=None, mirror="m", build_image=None, services_up=None, image_tree=Path("/tree")
    )
    said = call(
        lab_host,
        images=[{"name": "machine"}, {"name": "postgresql", "packages": ["postgresql"], "bootable": False}],
        mirror="http://mirror.example/debian",
    )
    assert said["changed"]
    assert said["changes"][0] == "network_up done"
    assert said["diff"]["after"].startswith("network_up done\n")
    assert said["images"] == {"machine": "/tree", "postgresql": "/tree"}
    built = [arguments[0] for name, arguments in notes if name == "build_image"]
    assert [image.name for image in built] == ["services", "machine", "postgresql"]
    assert "openssh-server" in built[1].packages
    assert built[2].packages == ("postgresql",)
    assert ("mirror", ["http://mirror.example/debian", None]) in notes
    assert (tmp_path / "lab/dns/zone.d").is_dir()


def test_the_daemons_image_is_not_for_others(call):
    said = call(lab_host, images=[{"name": "services"}])
    assert said["msg"] == "images: services is the lab's own image; choose another name"


def test_check_mode_prepares_nothing(call, monkeypatch, tmp_path):
    monkeypatch.setattr(Lab, "obstacles", lambda _self: [])
    recorded(monkeypatch, network_up=None, mirror="m", build_image=None, services_up=None)
    said = call(lab_host, _ansible_check_mode=True)
    assert said["changed"]
    assert "images" not in said
    assert not (tmp_path / "lab").exists()


def test_all_of_the_lab_is_removed(call, monkeypatch):
    notes = recorded(monkeypatch, remove_everything=None)
    assert call(lab_host, state="absent")["changes"] == ["remove_everything done"]
    assert notes == [("remove_everything", [])]


def test_settings_that_are_no_network_are_refused(call, tmp_path):
    settings = {"state_directory": str(tmp_path), "address": "10.213.0.300/24"}
    machine = {"name": "m1.example", "address": "10.213.0.2"}
    said = call(lab_machine, settings=settings, machines=[machine])
    assert said["failed"]
    assert said["msg"].startswith("settings: ")
    assert "10.213.0.300" in said["msg"]


@pytest.mark.parametrize(
    ("state", "method", "arguments"),
    [
        ("absent", "machines_down", [["m1.example"]]),
        ("stopped", "machines_stop", [["m1.example"], {"hard": False}]),
        ("killed", "machines_stop", [["m1.example"], {"hard": True}]),
        ("frozen", "machines_freeze", [["m1.example"], {"frozen": True}]),
        ("thawed", "machines_freeze", [["m1.example"], {"frozen": False}]),
        ("unplugged", "machines_link", [["m1.example"], {"up": False}]),
        ("plugged", "machines_link", [["m1.example"], {"up": True}]),
    ],
)
def test_each_state_of_machines(call, monkeypatch, state, method, arguments):
    notes = recorded(monkeypatch, **{method: None})
    said = call(lab_machine, machines=[{"name": "m1.example"}], state=state)
    assert notes == [(method, arguments)]
    assert said["changes"] == [f"{method} done"]
    assert said["machines"] == []


def test_machines_are_made_from_the_list(call, monkeypatch):
    notes = recorded(monkeypatch, machines_up=None)
    call(lab_machine, machines=[{"name": "m1.example", "address": "10.213.0.9", "memory": "1G"}])
    ((_name, ((machine,),)),) = notes
    assert (machine.name, machine.address6, machine.memory) == ("m1.example", "fd00:b5::9", 1024**3)


def test_a_machine_to_be_made_needs_an_address(call):
    said = call(lab_machine, machines=[{"name": "m1.example"}])
    assert said["msg"] == "machines: address is needed to make m1.example"


def test_no_machine_is_broken_without_being_named(call):
    for state in ("present", "killed"):
        assert call(lab_machine, state=state)["msg"] == f"machines: needed with state {state}"


def test_all_machines_are_removed_when_none_is_named(call, monkeypatch, tmp_path):
    (tmp_path / "lab/machines/m1.example").mkdir(parents=True)
    notes = recorded(monkeypatch, machines_down=None)
    call(lab_machine, state="absent")
    assert notes == [("machines_down", [["m1.example"]])]


def test_warnings_reach_the_operator(call, monkeypatch):
    # Other tests load the control node's side of Ansible, after which warnings would go to its screen.
    monkeypatch.setattr("ansible.module_utils._internal.is_controller", False)
    monkeypatch.setattr(Lab, "machines_up", lambda self, _wanted: self.warnings.append("m1.example: degraded"))
    said = call(lab_machine, machines=[{"name": "m1.example", "address": "10.213.0.9"}])
    assert "m1.example: degraded" in json.dumps(said["warnings"])


def test_fragments_are_written_after_the_whole_zone_was_checked(call, monkeypatch, tmp_path):
    zone = tmp_path / "lab/dns/zone.d"
    zone.mkdir(parents=True)
    (zone / "old.zone").write_text("old A 10.213.0.4\n")
    (zone / "gone.zone").write_text("gone A 10.213.0.4\n")
    (tmp_path / "lab/dns/trust-anchor").write_text("example. DS 1 13 2 ab\n")
    notes = recorded(monkeypatch, zone_check=None, zone_up=None, running=True)
    said = call(
        lab_zone,
        fragments=[{"name": "new", "content": "new A 10.213.0.5\n"}, {"name": "gone", "state": "absent"}],
    )
    wanted = {"old.zone": "old A 10.213.0.4\n", "new.zone": "new A 10.213.0.5\n"}
    assert [note for note in notes if note[0] != "running"] == [("zone_check", [wanted]), ("zone_up", [wanted])]
    assert {path.name: path.read_text() for path in zone.iterdir()} == wanted
    assert said["trust_anchor"] == "example. DS 1 13 2 ab"


def test_a_refused_zone_writes_nothing(call, monkeypatch, tmp_path):
    zone = tmp_path / "lab/dns/zone.d"
    zone.mkdir(parents=True)
    monkeypatch.setattr(Lab, "running", lambda _self, _name: True)

    def refuse(_self: Lab, _fragments: object) -> None:
        raise LabError("bad.zone line 1: no")

    monkeypatch.setattr(Lab, "zone_check", refuse)
    assert call(lab_zone, fragments=[{"name": "bad", "content": "x"}])["msg"] == "bad.zone line 1: no"
    assert list(zone.iterdir()) == []


def test_check_mode_writes_no_fragment(call, monkeypatch, tmp_path):
    zone = tmp_path / "lab/dns/zone.d"
    zone.mkdir(parents=True)
    (zone / "gone.zone").write_text("gone A 10.213.0.4\n")
    recorded(monkeypatch, zone_check=None, zone_up=None)
    said = call(
        lab_zone,
        fragments=[{"name": "new", "content": "x"}, {"name": "gone", "state": "absent"}],
        _ansible_check_mode=True,
    )
    assert said["changed"]
    assert [path.name for path in zone.iterdir()] == ["gone.zone"]


def test_a_fragment_needs_a_file_name_that_leads_nowhere_else(call, monkeypatch):
    monkeypatch.setattr(Lab, "running", lambda _self, _name: True)
    said = call(lab_zone, fragments=[{"name": "../evil", "content": ""}])
    assert said["msg"] == "fragments: not a name (found '../evil'); allowed: a-z, 0-9, dot, dash, underscore"


def test_the_zone_needs_the_name_service(call):
    assert call(lab_zone)["msg"] == "the lab's name service does not run; run the lab's playbook first"


def test_the_filter_picks_machines_of_the_lab():
    pick = lab_machines_filter.FilterModule().filters()["lab_machines"]
    assert pick(["m1.example"], {"m1.example": {"lab_address": "10.213.0.2"}}) == [
        {"name": "m1.example", "address": "10.213.0.2"}
    ]


def test_a_lab_stays_what_it_was_made_as(call, monkeypatch, tmp_path):
    state = tmp_path / "lab"
    made = Settings(state=str(state), address="10.99.0.1/24", address6="fd00:99::1/64")
    one = Lab(made)
    one.prepare()
    (state / "lab.json").write_text(json.dumps({"format": 1, "settings": dataclasses.asdict(made)}))
    # The state directory alone is enough ...
    seen = []
    monkeypatch.setattr(Lab, "listing", lambda self: seen.append(self.settings) or [])
    call(lab_machine, state="listed")
    assert seen == [made]
    # ... and other settings are refused where the lab would be made with them.
    said = call(lab_host, state="present")
    assert said["msg"] == (
        f"the lab in {state} was made with address 10.99.0.1/24 (asked for: 10.213.0.1/24), address6 fd00:99::1/64"
        " (asked for: fd00:b5::1/64); remove all of it first"
    )
