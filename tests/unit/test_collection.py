# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of the house that a machine can check: specs equal defaults, pins agree, nothing stands without a test."""

from __future__ import annotations

import importlib.metadata
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import ansible_collections
import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.parent for path in TOP.glob("roles/*/tasks/main.yml"))
MODULES = sorted(path.stem for path in TOP.glob("plugins/modules/*.py"))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_there_is_something_to_check() -> None:
    assert ROLES
    assert MODULES


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_spec_and_defaults_agree(role: Path) -> None:
    """Ansible does not apply a spec's defaults; a difference would make the documentation a lie."""
    options = load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"].get("options", {})
    defaults = load(role / "defaults" / "main.yml") or {} if (role / "defaults" / "main.yml").exists() else {}
    for name, option in options.items():
        assert name.startswith(f"{role.name}_"), f"{name} does not carry the role's name"
        if option.get("required"):
            assert name not in defaults, f"{name} is required and has a default"
        elif "default" in option:
            assert defaults.get(name, "absent") == option["default"], name
    unspecified = {name for name in defaults if not name.startswith("__")} - set(options)
    assert not unspecified, "defaults without a spec"


def nested(options: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, option in options.items():
        found += [(name, option), *nested(option.get("options", {}))]
    return found


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_specs_are_deep(role: Path) -> None:
    specs = load(role / "meta" / "argument_specs.yml")["argument_specs"]
    for entry in specs.values():
        for name, option in nested(entry.get("options", {})):
            assert option.get("description"), f"{name} has no description"
            if option.get("type") == "list":
                assert "elements" in option, f"{name} does not say what is in the list"
            if "dict" in (option.get("type"), option.get("elements")) and "options" not in option:
                assert "free form" in str(option["description"]), f"{name} does not say what is in the dict"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_is_named_by_a_test(module: str) -> None:
    """Modules have their decisions in module_utils; what is left is run by a scenario, an acceptance test or both."""
    where = [*TOP.glob("tests/**/*.py"), *TOP.glob("molecule/**/*.yml"), *TOP.glob("playbooks/*.yml")]
    where += TOP.glob("roles/*/tasks/*.yml")
    pattern = re.compile(rf"\b{module}\b")
    assert any(pattern.search(path.read_text(encoding="utf-8")) for path in where if path != Path(__file__))


def with_imports(path: Path) -> str:
    """The text of a playbook and of all that it imports."""
    text = path.read_text(encoding="utf-8")
    imported = re.findall(r"import_playbook: (\S+\.yml)", text)
    return text + "".join(with_imports((path.parent / name).resolve()) for name in imported)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_role_has_a_scenario(role: Path) -> None:
    scenarios = TOP.glob("molecule/*/*.yml")
    assert any(re.search(rf"hosting\.{role.name}\b", with_imports(path)) for path in scenarios)


def test_collections_come_at_the_pinned_versions() -> None:
    """requirements.yml, galaxy.yml and what the control node has installed are the same."""
    wanted = {item["name"]: item["version"] for item in load(TOP / "requirements.yml")["collections"]}
    assert load(TOP / "galaxy.yml")["dependencies"] == wanted
    for name, version in wanted.items():
        found = [Path(root, *name.split("."), "MANIFEST.json") for root in ansible_collections.__path__]
        manifest = next(path for path in found if path.exists())
        assert json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"] == version


def test_the_collection_has_one_version() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert load(TOP / "galaxy.yml")["version"] == project["version"]
    for pin in project["dependencies"]:
        name, version = pin.split("==")
        assert importlib.metadata.version(name) == version


def test_the_archive_asks_for_the_same_python_packages() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (TOP / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [pin for pin in project["dependencies"] if not pin.startswith("ansible==")]
    assert [line for line in lines if not line.startswith("#")] == wanted


def test_resellers_data_lies_outside_every_inventory() -> None:
    """A data file inside a directory inventory would be parsed as inventory."""
    assert not list(TOP.glob("inventories/*/customers"))
    assert not list(TOP.glob("inventories/*/*/customers"))


def test_no_role_names_an_inventory_group() -> None:
    """Playbooks wire roles to groups; a role that knows a group cannot be used alone."""
    for path in TOP.glob("roles/*/**/*"):
        if path.is_file() and path.suffix in (".yml", ".j2"):
            assert not re.search(r"\bgroups(\.|\[)", path.read_text(encoding="utf-8")), path
