# SPDX-License-Identifier: GPL-3.0-or-later
"""The wanted state: normal forms, defaults, what products and limits make of a quota, and its size."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.bouwsteen.hosting.plugins.module_utils import contract, estate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
ARGON2 = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c29tZXNhbHRzb21lc2FsdA$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI"

CUSTOMER = f"""\
customer: bakkerij
title: Bakkerij De Graaf
language: fr
domains: [DeGraaf.example, {{name: bäcker.example, alias_of: degraaf.example}}]
limits:
  users: {{max: 12, enforce: soft, warn_at: [95, 80]}}
  mail_storage: {{max: 20 GiB}}
  call_spend_per_day: {{max: "5"}}
users:
  - login: Jan@degraaf.example
    name: Jan de Graaf
    product: office
    password_hash: '{ARGON2}'
    limits: {{mail_sent_per_hour: {{max: 50}}, mail_storage: {{max: 600 MiB}}}}
    mail:
      aliases: [Info@degraaf.example]
      forward: [X@elsewhere.example, x@Elsewhere.example]
      quota: 500 MiB
      keep_copy: false
    phone: {{extension: "101", devices: [{{mac: 00-15-65-AA-BB-CC, model: t54w}}], voicemail: {{to_mail: true}}}}
    files: {{}}
  - login: eva@degraaf.example
    name: Eva
    product: flex
    state: suspended
    language: de
    phone: {{extension: "102"}}
  - {{login: oud@degraaf.example, state: absent}}
groups:
  - name: bakkers
    members: [JAN@degraaf.example, eva@degraaf.example]
    mail: {{address: Bakkers@degraaf.example, kind: shared_mailbox, quota: 1 GiB}}
    phone: {{extension: "200"}}
    files: {{folder: Recepten, quota: 2 GiB}}
  - {{name: lijst, title: De lijst, members: [jan@degraaf.example], mail: {{address: lijst@degraaf.example}}}}
  - {{name: weg, state: absent}}
resources:
  - {{name: Kamer, address: Kamer@degraaf.example}}
  - {{address: weg@degraaf.example, state: absent}}
telephony:
  numbers: ["0318-000101"]
  opening_hours: {{mon-tue: "08:00-17:30", sat: ["09:00-12:00", "13:00-16:00"], closed: [2026-12-25]}}
  incoming:
    - {{number: "+31318000101", open: group:bakkers, closed: voicemail:Jan@degraaf.example}}
"""
CONTRACT: Mapping[str, Any] = {
    "reseller_title": "Noorder ICT",
    "reseller_engineer": "Beheer+Alarm@noorderict.example",
    "reseller_domain": "NoorderICT.example",
    "reseller_limits": {"users": {"max": 50, "warn_at": [80]}, "mail_storage": {"max": "1 TiB"}},
    "reseller_limits_override": {"users": {"max": 60}},
    "reseller_products": {
        "office": {"title": "Office", "meter": "user", "included": {"mail_storage": "1 GiB", "file_storage": "5 GiB"}},
        "flex": {"meter": "user", "included": {"mail_storage": 0}, "beyond": "metered"},
    },
    "reseller_prices": {
        "user": {"tiers": [{"from": 1, "price": "1.5"}]},
        "mail_storage_gib": {"mode": "graduated", "sample": "daily_max_average", "tiers": [{"from": 0, "price": 0}]},
    },
    "reseller_machines": {"mail": "m1.example"},
    "reseller_telephony_image": "22.10.1-20261030",
    "unrelated": "x",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.yml").write_text(CUSTOMER)
    return tmp_path


def loaded(folder: Path, **changes: Any) -> estate.Loaded:
    return estate.load_reseller("noorderict", {**CONTRACT, "reseller_customers": str(folder), **changes})


def ceiling(maximum: int | str, basis: str | None = None, enforce: str = "hard", warn_at: tuple[int, ...] = ()) -> Any:
    return {"max": maximum, "basis": basis, "enforce": enforce, "warn_at": list(warn_at)}


def test_wanted_state(folder: Path) -> None:
    result = loaded(folder)
    assert [str(error) for error in result.errors] == []
    assert result.warnings == []
    assert result.estate == {
        "format": 1,
        "reseller": {
            "name": "noorderict",
            "title": "Noorder ICT",
            "engineer": "beheer+alarm@noorderict.example",
            "domain": "noorderict.example",
            "language": "nl",
            "retention_days": 30,
            "expunged_days": 14,
            "telephony_image": "22.10.1-20261030",
            "limits": {"users": ceiling(60, warn_at=(80,)), "mail_storage": ceiling(2**40, "used")},
            "products": {
                "office": {
                    "title": "Office",
                    "meter": "user",
                    "included": {"mail_storage": 2**30, "file_storage": 5 * 2**30},
                    "beyond": "blocked",
                },
                "flex": {"title": "flex", "meter": "user", "included": {"mail_storage": 0}, "beyond": "metered"},
            },
            "prices": {
                "user": {"mode": "volume", "sample": "monthly_max", "tiers": [{"from": 1, "price": "1.50"}]},
                "mail_storage_gib": {
                    "mode": "graduated",
                    "sample": "daily_max_average",
                    "tiers": [{"from": 0, "price": "0.00"}],
                },
            },
            "placement": {"mail": "m1.example"},
        },
        "customers": [
            {
                "name": "bakkerij",
                "title": "Bakkerij De Graaf",
                "state": "active",
                "limits": {
                    "users": ceiling(12, enforce="soft", warn_at=(80, 95)),
                    "mail_storage": ceiling(20 * 2**30, "used"),
                    "call_spend_per_day": ceiling("5.00"),
                },
                "domains": [
                    {"name": "degraaf.example", "alias_of": None},
                    {"name": "xn--bcker-gra.example", "alias_of": "degraaf.example"},
                ],
                "users": [
                    {
                        "login": "jan@degraaf.example",
                        "name": "Jan de Graaf",
                        "state": "active",
                        "product": "office",
                        "language": "fr",
                        "invite": None,
                        "password_hash": ARGON2,
                        "limits": {"mail_sent_per_hour": ceiling(50)},
                        "mail": {
                            "aliases": ["info@degraaf.example"],
                            "forward": ["x@elsewhere.example"],
                            "keep_copy": False,
                            "quota": 500 * 2**20,
                        },
                        "phone": {
                            "extension": "101",
                            "devices": [{"mac": "00:15:65:aa:bb:cc", "model": "t54w"}],
                            "voicemail": {"enabled": True, "to_mail": True},
                        },
                        "files": {"quota": 5 * 2**30},
                    },
                    {
                        "login": "eva@degraaf.example",
                        "name": "Eva",
                        "state": "suspended",
                        "product": "flex",
                        "language": "de",
                        "invite": None,
                        "password_hash": None,
                        "limits": {},
                        "mail": None,
                        "phone": {
                            "extension": "102",
                            "devices": [],
                            "voicemail": {"enabled": False, "to_mail": False},
                        },
                        "files": None,
                    },
                ],
                "groups": [
                    {
                        "name": "bakkers",
                        "title": "bakkers",
                        "members": ["jan@degraaf.example", "eva@degraaf.example"],
                        "mail": {"address": "bakkers@degraaf.example", "kind": "shared_mailbox", "quota": 2**30},
                        "phone": {"extension": "200", "strategy": "ring_all"},
                        "files": {"folder": "Recepten", "quota": 2 * 2**30},
                    },
                    {
                        "name": "lijst",
                        "title": "De lijst",
                        "members": ["jan@degraaf.example"],
                        "mail": {"address": "lijst@degraaf.example", "kind": "list", "quota": None},
                        "phone": None,
                        "files": None,
                    },
                ],
                "resources": [{"name": "Kamer", "address": "kamer@degraaf.example"}],
                "telephony": {
                    "numbers": ["+31318000101"],
                    "opening_hours": {
                        "mon": [["08:00", "17:30"]],
                        "tue": [["08:00", "17:30"]],
                        "sat": [["09:00", "12:00"], ["13:00", "16:00"]],
                        "closed": ["2026-12-25"],
                    },
                    "incoming": [
                        {"number": "+31318000101", "open": "group:bakkers", "closed": "voicemail:jan@degraaf.example"}
                    ],
                },
            }
        ],
        "remove": {
            "customers": [],
            "users": [{"customer": "bakkerij", "login": "oud@degraaf.example"}],
            "groups": [{"customer": "bakkerij", "name": "weg"}],
            "resources": [{"customer": "bakkerij", "address": "weg@degraaf.example"}],
        },
    }
    assert json.loads(json.dumps(result.estate)) == result.estate


@pytest.mark.parametrize(
    ("mail", "product", "limit", "quota"),
    [
        ("{}", "office", None, 2**30),
        ("{quota: 500 MiB}", "office", None, 500 * 2**20),
        ("{quota: 500 MiB}", "office", "400 MiB", 400 * 2**20),
        ("{}", "office", "2 GiB", 2**30),
        ("{}", "flex", None, None),
        ("{}", "flex", "2 GiB", 2**31),
        ("{quota: 3 GiB}", "flex", None, 3 * 2**30),
        ("{quota: 0}", "office", None, 0),
    ],
)
def test_quota_is_the_lowest_ceiling(
    tmp_path: Path, mail: str, product: str, limit: str | None, quota: int | None
) -> None:
    limits = f", limits: {{mail_storage: {{max: {limit}}}}}" if limit else ""
    user = f"{{login: a@b.example, name: A, product: {product}, mail: {mail}{limits}}}"
    (tmp_path / "a.yml").write_text(f"customer: a\ntitle: A\ndomains: [b.example]\nusers: [{user}]\n")
    result = loaded(tmp_path)
    assert result.errors == []
    assert result.estate["customers"][0]["users"][0]["mail"]["quota"] == quota


def test_list_member_without_mail_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(
        "customer: a\ntitle: A\ndomains: [b.example]\nusers: [{login: a@b.example, name: A, product: office}]\n"
        "groups: [{name: g, members: [a@b.example], mail: {address: g@b.example}}]\n"
    )
    result = loaded(tmp_path)
    assert result.errors == []
    assert [(warning.line, warning.key, warning.problem) for warning in result.warnings] == [
        (5, "groups[0].mail.address", "goes to a@b.example too, who has no mail")
    ]


def test_contract_without_products_asks_for_none(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(
        "customer: a\ntitle: A\ndomains: [b.example]\nusers: [{login: a@b.example, name: A, mail: {}}]\n"
    )
    result = loaded(tmp_path, reseller_products={}, reseller_prices={})
    assert result.errors == []
    assert result.estate["customers"][0]["users"][0]["product"] is None


def test_errors_leave_no_estate_to_build_upon(folder: Path) -> None:
    (folder / "b.yml").write_text("customer: [\n")
    result = loaded(folder)
    assert len(result.errors) == 1
    assert result.estate == {}


def test_several_findings_of_one_contract_and_file_are_one_list(folder: Path) -> None:
    (folder / "b.yml").write_text(CUSTOMER)
    result = loaded(folder, reseller_retention_days="x")
    assert {error.key for error in result.errors} == {
        "customer", "domains[0]", "domains[1].name", "reseller_retention_days", "telephony.numbers[0]",
        "users[0].phone.devices[0].mac",
    }  # fmt: skip


def test_broken_variables_do_not_stop_the_rest(folder: Path) -> None:
    class Broken(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            if key == "reseller_title":
                raise ValueError("'nonsense' is undefined")
            return super().__getitem__(key)

    variables = Broken({**CONTRACT, "reseller_customers": str(folder), "site_domain": "{{ x"})
    result = estate.load_reseller("noorderict", variables)
    assert [str(error) for error in result.errors] == [
        (
            "host_vars of noorderict: reseller_title: cannot be templated: 'nonsense' is undefined; "
            "allowed: a value, or a template that can be resolved"
        )
    ]


def test_values_of_other_kinds_become_plain(folder: Path) -> None:
    class Text(str):
        __slots__ = ()

    assert loaded(folder, reseller_title=Text("Noorder ICT")).estate["reseller"]["title"] == "Noorder ICT"
    odd = loaded(folder, reseller_title=Path("/x"), reseller_limits={"users": {"max": 5, "warn_at": (80,)}})
    assert odd.estate["reseller"]["title"] == "/x"


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        (
            type("Tag", (), {"path": None, "description": "<CLI option '-e'>", "line_num": None}),
            ("<CLI option '-e'>", 0),
        ),
        (type("Tag", (), {"path": None, "description": None, "line_num": None}), None),
        (type("Tag", (), {"path": "/a.yml", "description": None, "line_num": 3}), ("/a.yml", 3)),
        (None, None),
    ],
)
def test_origin(monkeypatch: pytest.MonkeyPatch, tag: Any, expected: Any) -> None:
    monkeypatch.setattr(contract, "Origin", type("Origin", (), {"get_tag": staticmethod(lambda _: tag)}))
    assert contract.origin("x") == expected


def test_other_ansible_core_names_the_host(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(contract, "Origin", None)
    assert contract.origin("x") is None
    assert loaded(folder, reseller_domain="x").errors[0].file == "host_vars of noorderict"


def variables_of(inventory: str, reseller: str) -> dict[str, Any]:
    """What Ansible would make of the example inventories' variables: no template in them but paths."""
    base = ROOT / "inventories" / inventory
    hosts = yaml.safe_load((base / "hosts.yml").read_text())["all"]["children"]
    files = [base / "group_vars/resellers.yml"]
    files += [base / f"group_vars/{group}.yml" for group in hosts if reseller in (hosts[group].get("hosts") or {})]
    result: dict[str, Any] = {}
    for file in [*files, base / f"host_vars/{reseller}.yml"]:
        if file.exists():
            text = file.read_text().replace("{{ inventory_dir }}", str(base))
            result |= yaml.safe_load(text.replace("{{ inventory_hostname }}", reseller))
    return result


def test_the_demo_looks_like_life() -> None:
    site = estate.load_site({name: variables_of("demo", name) for name in ("noorderict", "zuidwest")})
    assert [str(error) for error in site.errors] == []
    assert [str(warning) for warning in site.warnings] == []
    assert (site.counts["resellers"], site.counts["customers"]) == (2, 4)
    assert 28 <= site.counts["users"] <= 35
    customers = [customer for wanted in site.estates.values() for customer in wanted["customers"]]
    users = [user for customer in customers for user in customer["users"]]
    names = " ".join(user["name"] for user in users)
    for part in ("é", "ĳ", "ö", "van der", "'t", "O'Neill", "ş", "Wiśniewski", "Nguyễn"):
        assert part.lower() in names.lower(), part
    assert any(len(customer["users"]) == customer["limits"].get("users", {}).get("max") for customer in customers)
    assert [user["state"] for user in users].count("suspended") == 1
    assert any(user["mail"]["aliases"] for user in users)
    assert any(user["mail"]["forward"] for user in users)
    kinds = {group["mail"]["kind"] for customer in customers for group in customer["groups"] if group["mail"]}
    assert kinds == {"list", "shared_mailbox"}
    assert any(domain["alias_of"] for customer in customers for domain in customer["domains"])
    assert all(customer["resources"] for customer in customers)


def test_fifty_thousand_users(tmp_path: Path) -> None:
    """Reading and checking is linear and a few seconds; the bound leaves room for a busy machine under coverage."""
    user = "  - {{login: u{0}@c{1}.example, name: Jan {0}, product: office, mail: {{aliases: [a{0}@c{1}.example]}}}}\n"
    for customer in range(50):
        text = f"customer: c{customer}\ntitle: C\ndomains: [c{customer}.example]\nusers:\n"
        (tmp_path / f"{customer}.yml").write_text(text + "".join(user.format(n, customer) for n in range(1000)))
    start = time.monotonic()
    result = loaded(tmp_path, reseller_limits={}, reseller_limits_override={})
    assert time.monotonic() - start < 60
    assert result.errors == []
    assert sum(len(customer["users"]) for customer in result.estate["customers"]) == 50_000


def test_many_errors_are_found_in_one_go_and_soon(tmp_path: Path) -> None:
    user = "  - {{login: u{0}@b.example, nmae: Jan, product: office, mail: {{}}}}\n"
    text = "customer: a\ntitle: A\ndomains: [b.example]\nusers:\n" + "".join(user.format(n) for n in range(5000))
    (tmp_path / "a.yml").write_text(text)
    start = time.monotonic()
    result = loaded(tmp_path, reseller_limits={}, reseller_limits_override={})
    assert time.monotonic() - start < 40
    # Each user has an unknown key and lacks the name.
    assert len(result.errors) == 10_000


SCRAPS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["", "x", "a@b.example", "{{ x }}", "absent", "101"])
)
JUNK = st.recursive(
    SCRAPS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(SCRAPS.filter(str).map(str), inner, max_size=2),
    max_leaves=4,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return (
        [at, *(path for key, item in inner for path in paths(item, (*at, key)))]
        if at
        else [path for key, item in inner for path in paths(item, (key,))]
    )


def spoilt(data: Any, draw: Any) -> Any:
    """A copy of sound data with one to three places replaced by something else, or gone."""
    data = json.loads(json.dumps(data, default=str))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths(data)))
        holder = data
        for part in path[:-1]:
            holder = holder[part]
        if draw(st.booleans()):
            holder[path[-1]] = draw(JUNK)
        else:
            del holder[path[-1]]
        if not paths(data):
            break
    return data


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_anything_spoilt_is_found_or_harmless(tmp_path: Path, data: Any) -> None:
    """No mistake, and no mistake together with another, makes the check itself fail."""
    wanted = spoilt(yaml.safe_load(CUSTOMER), data.draw)
    variables = spoilt(CONTRACT, data.draw) if data.draw(st.booleans()) else dict(CONTRACT)
    (tmp_path / "a.yml").write_text(yaml.safe_dump(wanted, allow_unicode=True))
    result = estate.load_reseller(
        "noorderict", {**variables, "reseller_customers": str(tmp_path)}, groups={"mail": ["m1.example"]}
    )
    for finding in (*result.errors, *result.warnings):
        assert str(finding).isprintable()
        assert finding.problem
        assert finding.allowed
        assert finding.line or finding.file.startswith("host_vars")
    if not result.errors:
        assert json.loads(json.dumps(result.estate)) == result.estate
