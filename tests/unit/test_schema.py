# SPDX-License-Identifier: GPL-3.0-or-later
"""The schemas: sound, complete, the same for editors as for the check, and never milder than the code behind them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ansible_collections.bouwsteen.hosting.plugins.module_utils import limits, schema
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import Invalid
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = {"customer": schema.CUSTOMER, "contract": schema.CONTRACT}


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within a schema, keywords that hold no schemas left out."""
    if not isinstance(node, dict):
        return
    yield path, node
    for key in ("properties", "patternProperties"):
        for name, inner in node.get(key, {}).items():
            yield from nodes(inner, f"{path}/{name}")
    for key in ("items", "additionalProperties"):
        yield from nodes(node.get(key), f"{path}/{key}")


@pytest.mark.parametrize("name", schema.FILES)
def test_committed_schema_is_the_one_in_the_code(name: str) -> None:
    assert (ROOT / "schemas" / name).read_text() == schema.rendered(schema.FILES[name]), "run scripts/schemas"


def test_generated_parts_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/schemas", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("which", SCHEMAS)
def test_schema_is_valid_json_schema(which: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[which])


@pytest.mark.parametrize("which", SCHEMAS)
def test_nothing_unknown_is_let_through(which: str) -> None:
    for path, node in nodes(SCHEMAS[which]):
        kinds = node.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if "object" in kinds:
            assert node.get("additionalProperties") is not None, f"{path}: other keys are let through"
        if "string" in kinds:
            assert "pattern" in node, f"{path}: any text is let through"
            assert "maxLength" in node, f"{path}: text of any length is let through"
        if "array" in kinds:
            assert "items" in node, f"{path}: anything is let through in a list"
            assert "maxItems" in node, f"{path}: a list of any length is let through"
        if "integer" in kinds:
            assert {"minimum", "maximum"} <= node.keys(), f"{path}: any number is let through"


@pytest.mark.parametrize("which", SCHEMAS)
def test_everything_is_described_for_editors(which: str) -> None:
    for path, node in nodes(SCHEMAS[which]):
        assert node.get("description", "").endswith((".", "!", ")")), f"{path}: no description"


@pytest.mark.parametrize("kind", schema.KINDS)
def test_patterns_are_understood_by_editors(kind: str) -> None:
    """JavaScript's regular expressions in Unicode mode refuse needless escapes."""
    pattern = schema.KINDS[kind].pattern
    re.compile(pattern)
    assert not re.search(r"""\\(?!u[0-9a-f]{4})[^\\^$.*+?()\[\]{}|/sdwb]""", pattern)
    assert pattern.startswith("^")
    assert pattern.endswith("$")


@pytest.mark.parametrize("which", SCHEMAS)
def test_every_kind_and_limit_is_used(which: str) -> None:
    text = json.dumps(SCHEMAS[which])
    level = limits.CUSTOMER if which == "customer" else limits.RESELLER
    for limit in limits.at_level(level):
        assert f'"{limit.name}"' in text
    if which == "customer":
        both = text + json.dumps(schema.CONTRACT)
        assert [kind for kind in schema.KINDS if f'"x-kind": "{kind}"' not in both] == []


@given(st.sampled_from(sorted(schema.KINDS)), st.text(max_size=30))
def test_a_refusal_always_has_words(kind: str, text: str) -> None:
    problem, allowed = schema._why(kind, text)
    assert problem
    assert allowed


STRICT = ("size", "money", "hours", "date", "extension", "number", "mac", "slug", "hash", "target")


@given(st.sampled_from(STRICT), st.from_regex(re.compile("[a-zA-Z0-9 .:+/()$-]{0,14}"), fullmatch=True))
def test_schema_is_not_stricter_than_the_code(kind: str, text: str) -> None:
    """A text that the code takes is a text that an editor does not underline."""
    try:
        schema.KINDS[kind].explain(text)
    except Invalid:
        return
    assert re.fullmatch(schema.KINDS[kind].pattern, text)


KEYS = (
    *("customer", "title", "state", "users", "login", "mail", "aliases", "limits", "max", "groups", "members", "name"),
    *("domains", "telephony", "numbers", "reseller_limits", "reseller_products", "reseller_prices", "tiers", "user"),
    *("from", "x"),
)
SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=8)
JSON = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=30,
)
TOP = st.sampled_from([*schema.CUSTOMER["properties"], *schema.CONTRACT["properties"], "x"])


@given(st.sampled_from(sorted(SCHEMAS)), st.dictionaries(TOP, JSON, max_size=6))
def test_any_data_gets_words_and_a_place(which: str, data: dict[str, Any]) -> None:
    found = list(schema.faults(which, data))
    for fault in found:
        assert fault.problem
        assert fault.allowed
    assert bool(found) == (not schema._validator(which).is_valid(data))


def test_names_that_are_digits_keep_their_place() -> None:
    products = {"007": None, "0": {"meter": 1}}
    found = {fault.path for fault in schema.faults("contract", {"reseller_products": products})}
    assert found == {("reseller_products", "007"), ("reseller_products", "0", "meter")}


def test_example_files_name_their_schema() -> None:
    for file in sorted([*ROOT.glob("customers/*/*.yml"), *ROOT.glob("inventories/*/*/*.yml")]):
        data = yaml.safe_load(file.read_text())
        which = "customer" if "customer" in data else "contract"
        if which == "contract" and not all(str(key).startswith("reseller_") for key in data):
            continue
        first = file.read_text().split("\n")[0]
        assert first.startswith("# yaml-language-server: $schema="), file
        path = (file.parent / first.partition("=")[2]).resolve()
        assert path == ROOT / f"schemas/{which}.schema.json", file
        if which == "customer":
            jsonschema.validate(json.loads(json.dumps(data, default=str)), json.loads(path.read_text()))


def test_missing_validator_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "jsonschema_rs", None)
    schema._validator.cache_clear()
    with pytest.raises(RuntimeError, match="jsonschema-rs is missing on the control node: run `make env`"):
        list(schema.faults("customer", {}))
