# SPDX-License-Identifier: GPL-3.0-or-later
"""The reconcile against a real PostgreSQL: what a reseller's files say is what the directory holds."""

from __future__ import annotations

import copy
import datetime
import json
import random
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import directory, reconcile
from ansible_collections.bouwsteen.hosting.plugins.module_utils.reconcile import Options, Outcome, RefusedError

START = "2026-11-01T12:00:00+00:00"
WITHIN = "2026-11-30T12:00:00+00:00"
AFTER = "2026-12-01T12:00:01+00:00"
GIB = 2**30
FIRST = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$Zmlyc3Q$Zmlyc3Q"
SECOND = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c2Vjb25k$c2Vjb25k"
OWN = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$b3du$b3du"


def limit(maximum: int | str, **more: Any) -> dict[str, Any]:
    return {"max": maximum, "basis": None, "enforce": "hard", "warn_at": [], **more}


def user(login: str, name: str = "Jan de Graaf", **more: Any) -> dict[str, Any]:
    return {
        "login": login, "name": name, "state": "active", "product": "mailbox_1g", "language": "nl",
        "password_hash": None, "limits": {}, "phone": None, "files": None,
        "mail": {"aliases": [], "forward": [], "keep_copy": True, "quota": GIB}, **more,
    }  # fmt: skip


def customer(name: str, domain: str, *users: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name, "title": name.title(), "state": "active", "limits": {},
        "domains": [{"name": domain, "alias_of": None}], "users": list(users), "groups": [], "resources": [],
        "telephony": {}, **more,
    }  # fmt: skip


def wanted(*customers: dict[str, Any], name: str = "noorderict", **more: Any) -> dict[str, Any]:
    reseller = {
        "name": name, "title": "Noorder ICT", "engineer": f"beheer@{name}.example", "domain": f"{name}.example",
        "retention_days": 30, "language": "nl", "limits": {}, "products": {"mailbox_1g": {"meter": "user"}},
        "prices": {}, "placement": {"mail": "m1"},
    }  # fmt: skip
    remove = more.pop("remove", {})
    return {"format": 1, "reseller": {**reseller, **more}, "customers": list(customers), "remove": remove}


def bakery() -> dict[str, Any]:
    """A customer with something of everything."""
    jan = user(
        "jan@degraaf.example",
        password_hash=FIRST,
        mail={"aliases": ["info@degraaf.example"], "forward": ["jan@elders.example"], "keep_copy": True, "quota": GIB},
        phone={"extension": "101", "voicemail": {"enabled": True, "pin": "4711"}},
        files={"quota": 10 * GIB},
        limits={"mail_sent_per_hour": limit(100)},
    )
    return customer(
        "bakkerij-de-graaf",
        "degraaf.example",
        jan,
        user("eva@degraaf.example", "Eva van der Berg"),
        title="Bakkerij De Graaf",
        limits={"users": limit(12)},
        domains=[
            {"name": "degraaf.example", "alias_of": None},
            {"name": "bakkerij.example", "alias_of": "degraaf.example"},
        ],
        groups=[
            {
                "name": "bakkers",
                "title": "De bakkers",
                "members": ["jan@degraaf.example", "eva@degraaf.example"],
                "mail": {"address": "bakkers@degraaf.example", "kind": "shared_mailbox", "quota": None},
                "phone": {"extension": "200", "strategy": "ring_all"},
                "files": {"folder": "Bakkers", "quota": 50 * GIB},
            }
        ],
        resources=[{"name": "Vergaderkamer", "address": "kamer@degraaf.example"}],
        telephony={"numbers": ["+31318000101"]},
    )


@pytest.fixture
def apply(database: Any) -> Callable[..., Outcome]:
    connection = database.admin("test_reconcile")

    def run(state: dict[str, Any], **options: Any) -> Outcome:
        return reconcile.reconcile(connection, state, Options(**{"now": START, **options}))

    return run


TABLES = (
    "resellers", "products", "customers", "claims", "domains", "users", "groups", "group_members", "resources",
    "addresses", "forwards", "extensions", "numbers", "limits", "removals", "claim_requests",
)  # fmt: skip


def everything(database: Any) -> dict[str, list[str]]:
    """All rows of all tables as text, to compare before with after."""
    return {
        table: [row[0] for row in database.rows(f"SELECT t::text FROM directory.{table} t ORDER BY 1")]
        for table in TABLES
    }


def done(outcome: Outcome) -> dict[str, dict[str, int]]:
    """What was done, without the zeros and what stayed as it was."""
    return {
        kind: {operation: number for operation, number in numbers.items() if number and operation != "unchanged"}
        for kind, numbers in outcome.counts.items()
        if any(number for operation, number in numbers.items() if operation != "unchanged")
    }


def refused(run: Callable[..., Outcome], state: dict[str, Any], **options: Any) -> list[str]:
    with pytest.raises(RefusedError) as error:
        run(state, **options)
    return error.value.problems


# ------------------------------------------------------------------------------------------ create, again, change


def test_creates_everything_and_then_finds_nothing_to_do(apply: Any, database: Any) -> None:
    outcome = apply(wanted(bakery()))
    assert outcome.changed
    assert done(outcome) == {
        "reseller": {"created": 1},
        "products": {"created": 1},
        "limits": {"created": 2},
        "customers": {"created": 1},
        "domains": {"created": 2},
        "users": {"created": 2},
        "groups": {"created": 1},
        "resources": {"created": 1},
        "addresses": {"created": 3},
        "forwards": {"created": 1},
        "members": {"created": 2},
        "extensions": {"created": 2},
        "numbers": {"created": 1},
        "probe": {"created": 3},
    }
    before = everything(database)
    again = apply(wanted(bakery()))
    assert not again.changed
    assert again.changes == []
    assert again.diff == ""
    assert again.counts["users"]["unchanged"] == 2
    assert everything(database) == before
    row = database.rows("SELECT mail_quota, files, file_quota, phone FROM directory.users WHERE login LIKE 'jan@%'")
    assert row == [(GIB, True, 10 * GIB, {"extension": "101", "voicemail": {"enabled": True, "pin": "4711"}})]
    assert database.rows(
        "SELECT address, kind FROM directory.addresses WHERE domain = 'degraaf.example' ORDER BY 1"
    ) == [
        ("bakkers@degraaf.example", "group"),
        ("eva@degraaf.example", "user"),
        ("info@degraaf.example", "alias"),
        ("jan@degraaf.example", "user"),
        ("kamer@degraaf.example", "resource"),
    ]


def test_check_mode_tells_the_same_and_changes_nothing(apply: Any, database: Any) -> None:
    before = everything(database)
    foretold = apply(wanted(bakery()), check_mode=True)
    assert everything(database) == before
    told = apply(wanted(bakery()))
    assert foretold.changed
    assert foretold.counts == told.counts
    assert foretold.diff == told.diff


def test_the_diff_names_each_person_and_field_and_no_secret(apply: Any) -> None:
    apply(wanted(bakery()))
    state = bakery()
    jan, eva = state["users"]
    jan["name"] = "Jan van de Graaf"
    jan["password_hash"] = SECOND
    jan["phone"]["voicemail"]["pin"] = "0815"
    jan["mail"]["aliases"] = ["verkoop@degraaf.example"]
    eva["mail"]["quota"] = 2 * GIB
    state["limits"]["users"]["max"] = 13
    outcome = apply(wanted(state))
    assert outcome.diff == (
        "limits users of customer bakkerij-de-graaf (customer bakkerij-de-graaf): changed\n"
        "-  max: 12\n"
        "+  max: 13\n"
        "users eva@degraaf.example (customer bakkerij-de-graaf): changed\n"
        "-  mail_quota: 1 GiB\n"
        "+  mail_quota: 2 GiB\n"
        "users jan@degraaf.example (customer bakkerij-de-graaf): changed\n"
        "-  name: Jan de Graaf\n"
        "+  name: Jan van de Graaf\n"
        "-  password: set\n"
        "+  password: changed\n"
        "-  first password: set\n"
        "+  first password: changed\n"
        '-  phone: {"extension": "101", "voicemail": {"enabled": true, "pin": "***"}}\n'
        '+  phone: {"extension": "101", "voicemail": {"enabled": true, "pin": "***"}}\n'
        "addresses info@degraaf.example (customer bakkerij-de-graaf): removed\n"
        "addresses verkoop@degraaf.example (customer bakkerij-de-graaf): created\n"
        "+  of: user jan@degraaf.example\n"
    )
    assert done(outcome) == {
        "limits": {"changed": 1},
        "users": {"changed": 2},
        "addresses": {"created": 1, "removed": 1},
    }
    assert "argon2id" not in json.dumps([change.as_dict() for change in outcome.changes])


def test_the_diff_is_bounded_and_the_counts_are_not(apply: Any) -> None:
    people = [user(f"p{number}@degraaf.example") for number in range(30)]
    outcome = apply(wanted(customer("degraaf", "degraaf.example", *people)), diff_limit=5)
    assert outcome.counts["users"]["created"] == 30
    assert outcome.diff.count("users p") == 5
    assert "users: ... and 25 more\n" in outcome.diff


def test_ids_never_change(apply: Any, database: Any) -> None:
    query = """SELECT 'u', login, user_id FROM directory.users
               UNION SELECT 'c', name, customer_id FROM directory.customers
               UNION SELECT 'd', name, domain_id FROM directory.domains ORDER BY 1, 2"""
    apply(wanted(bakery()))
    before = database.rows(query)
    state = bakery()
    state["title"] = "Bakkerij De Graaf en Zonen"
    state["users"][0].update(name="J. de Graaf", state="suspended", files=None)
    apply(wanted(state))
    apply(wanted(bakery()))
    assert database.rows(query) == before


def test_a_renamed_group_or_resource_is_the_same_one(apply: Any, database: Any) -> None:
    query = "SELECT group_id FROM directory.groups UNION ALL SELECT resource_id FROM directory.resources"
    apply(wanted(bakery()))
    before = database.rows(query)
    renamed = bakery()
    renamed["groups"][0]["name"] = "de-bakkers"
    renamed["resources"][0]["name"] = "Grote zaal"
    outcome = apply(wanted(renamed))
    assert done(outcome) == {"groups": {"changed": 1}, "resources": {"changed": 1}}
    readdressed = copy.deepcopy(renamed)
    readdressed["groups"][0]["mail"]["address"] = "team@degraaf.example"
    readdressed["resources"][0]["address"] = "zaal@degraaf.example"
    apply(wanted(readdressed))
    assert database.rows(query) == before
    assert not apply(wanted(readdressed)).changed


def test_names_can_move_between_groups(apply: Any, database: Any) -> None:
    def group(name: str, address: str) -> dict[str, Any]:
        mail = {"address": address, "kind": "list", "quota": None}
        return {
            "name": name,
            "title": None,
            "members": ["jan@degraaf.example"],
            "mail": mail,
            "phone": None,
            "files": None,
        }

    def state(*groups: dict[str, Any]) -> dict[str, Any]:
        return wanted(customer("degraaf", "degraaf.example", user("jan@degraaf.example"), groups=list(groups)))

    apply(state(group("een", "een@degraaf.example"), group("twee", "twee@degraaf.example")))
    apply(state(group("een", "twee@degraaf.example"), group("twee", "een@degraaf.example")))
    query = (
        """SELECT g.name, a.address FROM directory.groups g JOIN directory.addresses a USING (group_id) ORDER BY 1"""
    )
    assert database.rows(query) == [("een", "twee@degraaf.example"), ("twee", "een@degraaf.example")]
    # The middle one takes a name that another one gives up in the same run.
    apply(state(group("twee", "twee@degraaf.example"), group("drie", "een@degraaf.example")))
    assert not apply(state(group("twee", "twee@degraaf.example"), group("drie", "een@degraaf.example"))).changed


# ------------------------------------------------------------------------------- suspend, resume, retention, removal


def states(database: Any) -> dict[str, tuple[str, str | None]]:
    return {
        login: (state, because)
        for login, state, because in database.rows(
            "SELECT login, state, suspended_because FROM directory.users WHERE kind = 'person'"
        )
    }


def test_suspended_in_the_files_and_back(apply: Any, database: Any) -> None:
    apply(wanted(bakery()))
    state = bakery()
    state["users"][0]["state"] = "suspended"
    outcome = apply(wanted(state))
    assert done(outcome) == {"users": {"suspended": 1}}
    assert outcome.diff == (
        "users jan@degraaf.example (customer bakkerij-de-graaf): suspended\n"
        "-  state: active\n"
        "+  state: suspended\n"
        "+  suspended_because: file\n"
    )
    assert not apply(wanted(state), now=AFTER).changed
    assert states(database)["jan@degraaf.example"] == ("suspended", "file")
    outcome = apply(wanted(bakery()))
    assert done(outcome) == {"users": {"resumed": 1}}
    assert not apply(wanted(bakery())).changed


def test_who_vanishes_is_suspended_kept_and_then_removed(apply: Any, database: Any) -> None:
    apply(wanted(bakery()))
    ids = dict(database.rows("SELECT login, user_id FROM directory.users"))
    state = bakery()
    del state["users"][0]
    state["groups"][0]["members"].remove("jan@degraaf.example")
    outcome = apply(wanted(state))
    assert done(outcome) == {"users": {"suspended": 1}, "members": {"removed": 1}}
    assert database.rows(
        "SELECT state, suspended_because, remove_after FROM directory.users WHERE login = 'jan@degraaf.example'"
    )[0][:2] == ("suspended", "absent")
    until = database.value(
        "SELECT remove_after = %s::timestamptz + interval '30 days' FROM directory.users WHERE login LIKE 'jan@%%'",
        [START],
    )
    assert until
    # Kept means kept: the alias and the forward wait with the person, and time alone changes nothing within the term.
    assert not apply(wanted(state), now=WITHIN).changed
    assert database.value("SELECT count(*) FROM directory.addresses WHERE address = 'info@degraaf.example'") == 1
    # Back within the term: the same person, with everything.
    outcome = apply(wanted(bakery()), now=WITHIN)
    assert done(outcome) == {"users": {"resumed": 1}, "members": {"created": 1}}
    assert dict(database.rows("SELECT login, user_id FROM directory.users")) == ids
    # Gone for good after the term, counted anew.
    apply(wanted(state))
    outcome = apply(wanted(state), now=AFTER)
    assert done(outcome) == {
        "users": {"removed": 1},
        "addresses": {"removed": 1},
        "forwards": {"removed": 1},
        "extensions": {"removed": 1},
        "limits": {"removed": 1},
    }
    assert database.rows("SELECT kind, label FROM directory.removals") == [("user", "jan@degraaf.example")]
    assert not apply(wanted(state), now=AFTER).changed
    # A person who comes back later is a new one: the old mail is not theirs.
    apply(wanted(bakery()), now=AFTER)
    new = dict(database.rows("SELECT login, user_id FROM directory.users"))
    assert new["jan@degraaf.example"] != ids["jan@degraaf.example"]
    assert new["eva@degraaf.example"] == ids["eva@degraaf.example"]


def test_absent_from_the_files_but_suspended_there_on_return(apply: Any, database: Any) -> None:
    apply(wanted(bakery()))
    gone = bakery()
    del gone["users"][1]
    gone["groups"][0]["members"].remove("eva@degraaf.example")
    apply(wanted(gone))
    back = bakery()
    back["users"][1]["state"] = "suspended"
    outcome = apply(wanted(back))
    assert outcome.counts["users"]["changed"] == 1
    assert states(database)["eva@degraaf.example"] == ("suspended", "file")


def test_state_absent_asks_for_a_confirmation(apply: Any, database: Any) -> None:
    apply(wanted(bakery()))
    state = bakery()
    del state["users"][0]
    state["groups"][0]["members"].remove("jan@degraaf.example")
    remove = {"users": [{"customer": "bakkerij-de-graaf", "login": "jan@degraaf.example"}]}
    before = everything(database)
    assert refused(apply, wanted(state, remove=remove)) == [
        (
            "user jan@degraaf.example (customer bakkerij-de-graaf) is to be removed with mailbox and files;"
            " to confirm: --extra-vars confirm_removal=jan@degraaf.example"
        )
    ]
    assert refused(apply, wanted(state, remove=remove), confirm_removal=["eva@degraaf.example"], check_mode=True)
    assert everything(database) == before
    outcome = apply(wanted(state, remove=remove), confirm_removal=["jan@degraaf.example"])
    assert done(outcome)["users"] == {"removed": 1}
    # The files may go on saying absent: there is nothing left to confirm.
    assert not apply(wanted(state, remove=remove)).changed


def test_without_data_absent_removes_at_once(apply: Any, database: Any) -> None:
    phone = user("deur@degraaf.example", "Deurtelefoon", mail=None, phone={"extension": "150"})
    apply(wanted(customer("degraaf", "degraaf.example", user("jan@degraaf.example"), phone)))
    remove = {"users": [{"customer": "degraaf", "login": "deur@degraaf.example"}]}
    outcome = apply(wanted(customer("degraaf", "degraaf.example", user("jan@degraaf.example")), remove=remove))
    assert done(outcome) == {"users": {"removed": 1}, "extensions": {"removed": 1}}


def test_all_removals_are_asked_for_at_once(apply: Any, database: Any) -> None:
    apply(wanted(bakery(), customer("fietsen", "fietsen.example", user("piet@fietsen.example"))))
    state = bakery()
    state.update(groups=[], resources=[])
    remove = {
        "customers": ["fietsen"],
        "groups": [{"customer": "bakkerij-de-graaf", "name": "bakkers"}],
        "resources": [{"customer": "bakkerij-de-graaf", "address": "kamer@degraaf.example"}],
    }
    assert refused(apply, wanted(state, remove=remove)) == [
        "customer fietsen is to be removed with 1 user; to confirm: --extra-vars confirm_removal=fietsen",
        (
            "group bakkerij-de-graaf/bakkers (customer bakkerij-de-graaf) is to be removed with mailbox and files;"
            " to confirm: --extra-vars confirm_removal=bakkerij-de-graaf/bakkers"
        ),
        (
            "resource kamer@degraaf.example (customer bakkerij-de-graaf) is to be removed with calendar;"
            " to confirm: --extra-vars confirm_removal=kamer@degraaf.example"
        ),
        "to confirm all removals: --extra-vars confirm_removal=bakkerij-de-graaf/bakkers,fietsen,kamer@degraaf.example",
    ]
    names = ["bakkerij-de-graaf/bakkers", "fietsen", "kamer@degraaf.example"]
    outcome = apply(wanted(state, remove=remove), confirm_removal=names)
    assert {kind: done(outcome)[kind] for kind in ("customers", "domains", "users", "groups", "resources")} == {
        "customers": {"removed": 1},
        "domains": {"removed": 1},
        "users": {"removed": 1},
        "groups": {"removed": 1},
        "resources": {"removed": 1},
    }
    assert not apply(wanted(state, remove=remove)).changed
    assert database.value("SELECT count(*) FROM directory.claims WHERE domain = 'fietsen.example'") == 0


def test_what_to_type_is_never_a_template(apply: Any) -> None:
    """The operator pastes the proposed option: a group's name from a reseller's file must not become code there."""
    evil = "{{ lookup('pipe', 'id') }}"
    group = {
        "name": evil,
        "title": None,
        "members": [],
        "mail": None,
        "phone": None,
        "files": {"folder": "x", "quota": 1},
    }
    apply(wanted(customer("degraaf", "degraaf.example", groups=[group])))
    remove = {"groups": [{"customer": "degraaf", "name": evil}]}
    (problem,) = refused(apply, wanted(customer("degraaf", "degraaf.example"), remove=remove))
    typed = problem.split("confirm_removal=")[1]
    assert "{" not in typed
    outcome = apply(wanted(customer("degraaf", "degraaf.example"), remove=remove), confirm_removal=[typed])
    assert done(outcome) == {"groups": {"removed": 1}}


def test_a_customer_that_vanishes_is_asked_about_and_then_suspended_with_all_it_has(apply: Any, database: Any) -> None:
    fietsen = customer("fietsen", "fietsen.example", user("piet@fietsen.example"))
    apply(wanted(bakery(), fietsen))
    assert refused(apply, wanted(fietsen)) == [
        (
            "customer bakkerij-de-graaf is no longer in the files: 2 users would be suspended;"
            " to confirm: --extra-vars confirm_suspension=bakkerij-de-graaf"
        )
    ]
    outcome = apply(wanted(fietsen), confirm_suspension=["bakkerij-de-graaf"])
    assert done(outcome) == {
        "customers": {"suspended": 1},
        "domains": {"suspended": 2},
        "users": {"suspended": 2},
        "groups": {"suspended": 1},
        "resources": {"suspended": 1},
    }
    # Confirmed once: it stays suspended without asking again, with numbers, addresses and limits.
    assert not apply(wanted(fietsen), now=WITHIN).changed
    outcome = apply(wanted(bakery(), fietsen), now=WITHIN)
    assert done(outcome) == {
        "customers": {"resumed": 1},
        "domains": {"resumed": 2},
        "users": {"resumed": 2},
        "groups": {"resumed": 1},
        "resources": {"resumed": 1},
    }
    apply(wanted(fietsen), confirm_suspension=["noorderict"])
    outcome = apply(wanted(fietsen), now=AFTER)
    assert done(outcome)["customers"] == {"removed": 1}
    assert not apply(wanted(fietsen), now=AFTER).changed
    assert database.value("SELECT count(*) FROM directory.users WHERE kind = 'person'") == 1
    assert {kind for (kind,) in database.rows("SELECT kind FROM directory.removals")} == {
        "customer", "user", "group", "resource",
    }  # fmt: skip


def test_many_people_that_vanish_are_a_typing_error(apply: Any) -> None:
    people = [user(f"p{number:02}@degraaf.example") for number in range(20)]
    apply(wanted(customer("degraaf", "degraaf.example", *people)))
    assert refused(apply, wanted(customer("degraaf", "degraaf.example", *people[:9]))) == [
        (
            "11 of 20 users of customer degraaf are no longer in the files;"
            " to confirm: --extra-vars confirm_suspension=degraaf"
        )
    ]
    outcome = apply(wanted(customer("degraaf", "degraaf.example", *people[:10])))
    assert done(outcome) == {"users": {"suspended": 10}}


def test_many_people_spread_over_customers_are_one_too(apply: Any) -> None:
    def state(people: int) -> dict[str, Any]:
        return wanted(
            *(
                customer(name, f"{name}.example", *(user(f"p{number}@{name}.example") for number in range(people)))
                for name in ("een", "twee", "drie")
            )
        )

    apply(state(6))
    assert refused(apply, state(1)) == [
        (
            "15 of 18 users of reseller noorderict are no longer in the files;"
            " to confirm: --extra-vars confirm_suspension=noorderict"
        )
    ]
    assert done(apply(state(1), confirm_suspension=["noorderict"])) == {"users": {"suspended": 15}}


def test_a_domain_that_vanishes_goes_after_its_people(apply: Any, database: Any) -> None:
    two = [{"name": "degraaf.example", "alias_of": None}, {"name": "oud.example", "alias_of": None}]
    apply(
        wanted(
            customer("degraaf", "degraaf.example", user("jan@degraaf.example"), user("jan@oud.example"), domains=two)
        )
    )
    state = wanted(customer("degraaf", "degraaf.example", user("jan@degraaf.example")))
    outcome = apply(state)
    assert done(outcome) == {"domains": {"suspended": 1}, "users": {"suspended": 1}}
    assert refused(apply, state, confirm_removal=["oud.example"]) == [
        "domain oud.example cannot be removed yet: people or addresses in it are kept"
    ]
    outcome = apply(state, confirm_removal=["oud.example", "jan@oud.example"])
    assert done(outcome) == {"domains": {"removed": 1}, "users": {"removed": 1}}
    assert database.value("SELECT count(*) FROM directory.claims WHERE domain = 'oud.example'") == 0


def test_a_leavers_alias_can_be_given_to_a_successor_but_not_the_login(apply: Any, database: Any) -> None:
    apply(wanted(bakery()))
    state = bakery()
    del state["users"][0]
    state["groups"][0]["members"].remove("jan@degraaf.example")
    state["users"][0]["mail"]["aliases"] = ["info@degraaf.example"]
    outcome = apply(wanted(state))
    assert outcome.counts["addresses"]["changed"] == 1
    assert "-  of: user jan@degraaf.example\n+  of: user eva@degraaf.example\n" in outcome.diff
    state["users"][0]["mail"]["aliases"].append("jan@degraaf.example")
    assert refused(apply, wanted(state)) == [
        (
            "address jan@degraaf.example is still the login of a user who is kept until 2026-12-01;"
            " to remove that user now: --extra-vars confirm_removal=jan@degraaf.example"
        )
    ]
    outcome = apply(wanted(state), confirm_removal=["jan@degraaf.example"])
    assert outcome.counts["users"]["removed"] == 1
    assert database.rows("SELECT kind FROM directory.addresses WHERE address = 'jan@degraaf.example'") == [("alias",)]


def test_a_leavers_alias_can_become_a_login(apply: Any, database: Any) -> None:
    apply(wanted(bakery()))
    state = bakery()
    del state["users"][0]
    state["groups"][0]["members"].remove("jan@degraaf.example")
    state["users"].append(user("info@degraaf.example", "Balie"))
    outcome = apply(wanted(state))
    assert outcome.counts["addresses"]["removed"] == 1
    assert database.rows("SELECT kind FROM directory.addresses WHERE address = 'info@degraaf.example'") == [("user",)]
    assert not apply(wanted(state)).changed


# ------------------------------------------------------------------------------------------------------- passwords


def password(database: Any, login: str = "jan@degraaf.example") -> Any:
    return database.value("SELECT password_hash FROM directory.users WHERE login = %s", [login])


def test_the_files_password_is_the_first_one_only(apply: Any, database: Any) -> None:
    def state(hash_: str | None) -> dict[str, Any]:
        return wanted(customer("degraaf", "degraaf.example", user("jan@degraaf.example", password_hash=hash_)))

    apply(state(None))
    assert password(database) is None
    outcome = apply(state(FIRST))
    assert password(database) == FIRST
    assert "+  password: set\n" in outcome.diff
    # Still the first one: a new first one replaces it.
    apply(state(SECOND))
    assert password(database) == SECOND
    assert not apply(state(SECOND)).changed
    # Changed by the person: the files no longer count, whatever they say.
    database.rows("UPDATE directory.users SET password_hash = %s WHERE login = 'jan@degraaf.example'", [OWN])
    assert not apply(state(SECOND)).changed
    outcome = apply(state(FIRST))
    assert password(database) == OWN
    assert outcome.diff == (
        "users jan@degraaf.example (customer degraaf): changed\n-  first password: set\n+  first password: changed\n"
    )
    apply(state(None))
    assert password(database) == OWN
    # Without a password again (an operator took it away), the files' one is used.
    database.rows("UPDATE directory.users SET password_hash = NULL WHERE login = 'jan@degraaf.example'")
    apply(state(FIRST))
    assert password(database) == FIRST


def test_a_password_changed_during_the_run_is_kept(apply: Any, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    state = wanted(customer("degraaf", "degraaf.example", user("jan@degraaf.example", password_hash=FIRST)))
    apply(state)
    compare = reconcile._Run._count

    def interrupted(run: Any) -> Any:
        database.rows("UPDATE directory.users SET password_hash = %s WHERE login = 'jan@degraaf.example'", [OWN])
        return compare(run)

    monkeypatch.setattr(reconcile._Run, "_count", interrupted)
    state["customers"][0]["users"][0].update(password_hash=SECOND, name="J. de Graaf")
    apply(state)
    assert password(database) == OWN
    assert database.value("SELECT name FROM directory.users WHERE login LIKE 'jan@%'") == "J. de Graaf"


# ---------------------------------------------------------------------------------------------------------- limits


def many(number: int, **more: Any) -> dict[str, Any]:
    return customer("degraaf", "degraaf.example", *(user(f"p{one}@degraaf.example") for one in range(number)), **more)


def test_a_limit_holds_at_its_boundary(apply: Any, database: Any) -> None:
    apply(wanted(many(3, limits={"users": limit(3)})))
    before = everything(database)
    assert refused(apply, wanted(many(4, limits={"users": limit(3)}))) == [
        "limit users of customer degraaf: max 3, in use 3, wanted 1 more"
    ]
    assert everything(database) == before
    # One goes and one comes: still three.
    swapped = many(4, limits={"users": limit(3)})
    del swapped["users"][0]
    outcome = apply(wanted(swapped))
    assert done(outcome) == {"users": {"created": 1, "suspended": 1}}
    # Raised and used in one run.
    apply(wanted(many(4, limits={"users": limit(4)})))


def test_a_new_customer_can_take_the_place_of_one_that_goes(apply: Any) -> None:
    limits = {"customers": limit(1), "domains": limit(1), "users": limit(1)}
    apply(wanted(customer("een", "een.example", user("a@een.example")), limits=limits))
    outcome = apply(
        wanted(customer("twee", "twee.example", user("a@twee.example")), limits=limits), confirm_suspension=["een"]
    )
    assert done(outcome)["customers"] == {"created": 1, "suspended": 1}


def test_all_limits_are_told_at_once(apply: Any) -> None:
    apply(wanted(many(1)))
    state = many(4, limits={"users": limit(2), "domains": limit(0)})
    state["users"][0]["mail"]["aliases"] = ["a@degraaf.example", "b@degraaf.example"]
    state["users"][0]["limits"] = {"aliases": limit(1)}
    limits = {"users": limit(3), "mail_storage": limit(3 * GIB, basis="allocated"), "customers": limit(5)}
    assert refused(apply, wanted(state, limits=limits)) == [
        "limit aliases of user p0@degraaf.example: max 1, in use 0, wanted 2 more",
        "limit mail_storage of reseller noorderict: max 3 GiB, in use 1 GiB, wanted 3 GiB more",
        "limit users of customer degraaf: max 2, in use 1, wanted 3 more",
        "limit users of reseller noorderict: max 3, in use 1, wanted 3 more",
    ]


def test_lowering_below_present_use_is_told_and_blocks_growth_only(apply: Any) -> None:
    apply(wanted(many(4)))
    outcome = apply(wanted(many(4, limits={"users": limit(2)})))
    assert outcome.notices == ["limit users of customer degraaf: max 2, in use 4: nothing more can be added"]
    assert refused(apply, wanted(many(5, limits={"users": limit(2)}))) == [
        "limit users of customer degraaf: max 2, in use 4, wanted 1 more"
    ]
    apply(wanted(many(3, limits={"users": limit(2)})))


def test_a_soft_limit_lets_through_and_tells(apply: Any) -> None:
    outcome = apply(wanted(many(4), limits={"users": limit(3, enforce="soft", warn_at=[80])}))
    assert outcome.notices == ["limit users of reseller noorderict: max 3, in use 4: let through, as the limit is soft"]
    outcome = apply(wanted(many(4), limits={"users": limit(5, enforce="soft", warn_at=[80, 95])}))
    assert outcome.notices == ["limit users of reseller noorderict: max 5, in use 4 (80 %)"]


def test_the_database_refuses_what_slips_past(apply: Any, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall behind the manners: the same limit, with the look beforehand switched off."""
    apply(wanted(many(3, limits={"users": limit(3)})))
    before = everything(database)
    monkeypatch.setattr(reconcile._Run, "_limits", lambda run: None)
    with pytest.raises(psycopg2.Error) as error:
        apply(wanted(many(5, limits={"users": limit(3)})))
    assert directory.explain(error.value).message == "limit users of customer degraaf: max 3, in use 3, wanted 2 more"
    assert everything(database) == before


def test_quota_can_move_between_people_and_groups_at_the_maximum(apply: Any) -> None:
    def state(mine: int, group: int) -> dict[str, Any]:
        one = customer(
            "degraaf", "degraaf.example", user("jan@degraaf.example"),
            groups=[{"name": "g", "title": None, "members": ["jan@degraaf.example"], "phone": None, "files": None,
                     "mail": {"address": "g@degraaf.example", "kind": "shared_mailbox", "quota": group * GIB}}],
        )  # fmt: skip
        one["users"][0]["mail"]["quota"] = mine * GIB
        return wanted(one, limits={"mail_storage": limit(10 * GIB, basis="allocated")})

    apply(state(4, 6))
    apply(state(6, 4))
    apply(state(1, 9))


def test_in_use_is_what_the_check_asks_for(apply: Any, database: Any) -> None:
    apply(wanted(bakery()))
    found = {row[:3]: row[3] for row in reconcile.in_use(database.admin("test"), "noorderict")}
    assert found["reseller", "", "customers"] == 1
    assert found["customer", "bakkerij-de-graaf", "users"] == 2
    assert found["customer", "bakkerij-de-graaf", "mail_storage"] == 2 * GIB
    assert found["user", "jan@degraaf.example", "aliases"] == 1
    assert reconcile.in_use(database.admin("test"), "nobody") == []


# --------------------------------------------------------------------------------------------------- other tenants


def test_another_resellers_names_get_a_neutral_answer_all_at_once(apply: Any, database: Any) -> None:
    apply(wanted(bakery()))
    theirs = wanted(
        customer(
            "dief", "degraaf.example", user("jan@degraaf.example"),
            domains=[{"name": name, "alias_of": None}
                     for name in ("degraaf.example", "mail.noorderict.example", "ok.example")],
            telephony={"numbers": ["+31318000101"]},
        ),
        name="zuidwest",
    )  # fmt: skip
    before = everything(database)
    with pytest.raises(RefusedError) as error:
        apply(theirs)
    assert error.value.problems == [
        "domain degraaf.example is not available; prove control with a DNS TXT record",
        "domain mail.noorderict.example is not available; prove control with a DNS TXT record",
        "number +31318000101 is not available",
    ]
    assert error.value.unavailable == ["degraaf.example", "mail.noorderict.example"]
    assert "noorderict" not in str(error.value).replace("mail.noorderict.example", "")
    assert everything(database) == before
    # The claim is remembered by name, as the reseller himself has no row yet, and its token stays the same.
    connection = database.admin("test")
    unknown = reconcile.request_claims(connection, "zuidwest", ["degraaf.example"], record=False)
    assert reconcile.claim_instructions(unknown, ["degraaf.example"]) == [
        "to prove control of degraaf.example: a run without --check says which TXT record"
    ]
    tokens = reconcile.request_claims(connection, "zuidwest", ["degraaf.example"], record=True)
    assert reconcile.request_claims(connection, "zuidwest", ["degraaf.example"], record=True) == tokens
    assert reconcile.claim_instructions(tokens, ["degraaf.example"]) == [
        (
            "to prove control of degraaf.example: _bouwsteen-claim.degraaf.example. TXT"
            f' "bouwsteen-claim={tokens["degraaf.example"]}"'
        )
    ]


def test_a_resellers_own_domain_cannot_be_taken(apply: Any) -> None:
    apply(wanted(bakery()))
    assert refused(apply, wanted(name="zuidwest", domain="degraaf.example")) == [
        "domain degraaf.example is not available; prove control with a DNS TXT record"
    ]


def test_one_resellers_run_leaves_the_others_alone(apply: Any, database: Any) -> None:
    apply(wanted(customer("fietsen", "fietsen.example", user("piet@fietsen.example")), name="zuidwest"))
    before = database.rows("SELECT u::text FROM directory.users u WHERE login LIKE '%fietsen%'")
    apply(wanted(bakery()))
    apply(wanted(), confirm_suspension=["noorderict"])
    apply(wanted(), now=AFTER)
    assert database.rows("SELECT u::text FROM directory.users u WHERE login LIKE '%fietsen%'") == before


def test_a_domain_at_another_customer_of_the_same_reseller(apply: Any, database: Any) -> None:
    one = customer("een", "een.example", user("a@een.example"))
    apply(wanted(one, customer("twee", "twee.example")))
    both = [{"name": "twee.example", "alias_of": None}, {"name": "een.example", "alias_of": None}]
    assert refused(apply, wanted(one, customer("twee", "twee.example", domains=both))) == [
        "domain een.example is already at customer een"
    ]
    without = customer("een", "een.example", domains=[])
    assert refused(apply, wanted(without, customer("twee", "twee.example", domains=both))) == [
        (
            "domain een.example is already at customer een, whose files no longer have it; it is kept until 2026-12-01,"
            " to release it now: --extra-vars confirm_removal=een.example"
        )
    ]
    moved = wanted(without, customer("twee", "twee.example", user("a@een.example"), domains=both))
    old = database.value("SELECT user_id FROM directory.users WHERE login = 'a@een.example'")
    outcome = apply(moved, confirm_removal=["een.example", "a@een.example"])
    assert done(outcome)["users"] == {"created": 1, "removed": 1}
    assert database.value("SELECT user_id FROM directory.users WHERE login = 'a@een.example'") != old
    assert not apply(moved).changed


# ---------------------------------------------------------------------------------------------- hostile and strange

HOSTILE = [
    "'; DROP TABLE directory.users; --",
    'Jan "de Bakker" O\'Neill',
    "back\\slash \\N \\. \\t",
    "\\N",
    "{{ lookup('pipe', 'id') }}",
    "{% raw %} $(id) `id` %s %(name)s",
    "Zoë Ǝrðñ 李 🥖 'van der' IJ",
    "NULL",
    "{1,2}",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_strange_names_come_through_unchanged(name: str, apply: Any, database: Any) -> None:
    group = {"name": name, "title": name, "members": ["jan@degraaf.example"], "mail": None, "phone": None,
             "files": {"folder": name, "quota": 1}}  # fmt: skip
    state = wanted(
        customer(
            "degraaf", "degraaf.example", user("jan@degraaf.example", name, phone={"extension": "101", name: name}),
            title=name, groups=[group], resources=[{"name": name, "address": "kamer@degraaf.example"}],
            telephony={"opening_hours": {name: name + "\n\t\r"}},
        ),
        title=name,
    )  # fmt: skip
    apply(state)
    assert database.value("SELECT name FROM directory.users WHERE kind = 'person'") == name
    assert database.value("SELECT phone FROM directory.users WHERE kind = 'person'")[name] == name
    assert database.rows("SELECT name, title, files ->> 'folder' FROM directory.groups") == [(name, name, name)]
    assert database.value("SELECT name FROM directory.resources") == name
    telephony = database.value("SELECT telephony FROM directory.customers WHERE kind = 'customer'")
    assert telephony == {"opening_hours": {name: name + "\n\t\r"}}
    assert not apply(state).changed


@pytest.mark.parametrize("name", ["tab\there", "new\nline", "\x1b[31mred", "", " space"])
def test_what_the_schema_forbids_is_refused_whole(name: str, apply: Any, database: Any) -> None:
    before = everything(database)
    with pytest.raises(psycopg2.Error) as error:
        apply(wanted(customer("degraaf", "degraaf.example", user("jan@degraaf.example", name))))
    assert "a name is 1 to 200 characters without control characters or spaces around it" in str(
        directory.explain(error.value)
    )
    assert everything(database) == before


def test_another_format_is_refused(apply: Any) -> None:
    assert refused(apply, {**wanted(), "format": 2}) == ["wanted state has format 2, this module knows 1"]


# ----------------------------------------------------------------------------------------- concurrency and killing


def test_two_runs_at_once(database: Any) -> None:
    """The second waits for the first, then finds that there is nothing left to do."""
    outcomes: list[Outcome] = []
    connections = [database.admin(f"run {number}") for number in (1, 2)]
    state = wanted(many(200))

    def run(connection: Any) -> None:
        outcomes.append(reconcile.reconcile(connection, state, Options(now=START)))

    threads = [threading.Thread(target=run, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome.changed for outcome in outcomes) == [False, True]
    assert database.value("SELECT count(*) FROM directory.users WHERE kind = 'person'") == 200


def test_two_resellers_want_one_domain_at_once(database: Any) -> None:
    results: list[str] = []
    barrier = threading.Barrier(2)

    def run(name: str) -> None:
        connection = database.admin(name)
        barrier.wait()
        try:
            reconcile.reconcile(
                connection, wanted(customer("klant", "gewild.example", user("a@gewild.example")), name=name), Options()
            )
            results.append("ok")
        except RefusedError as error:
            results.append(error.problems[0])
        except psycopg2.Error as error:
            results.append(directory.explain(error).message)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("een", "twee")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["domain gewild.example is not available; prove control with a DNS TXT record", "ok"]
    assert database.value("SELECT count(*) FROM directory.users WHERE kind = 'person'") == 1


def test_killed_half_way_leaves_nothing_and_the_next_run_heals(
    apply: Any, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(wanted(bakery()))
    before = everything(database)
    state = bakery()
    state["users"].append(user("nieuw@degraaf.example", "Nieuw"))
    victim = database.admin("victim")
    create = reconcile._Run._create

    def die(run: Any, table: Any, *args: Any) -> None:
        create(run, table, *args)
        if table.name == "addresses":
            database.rows("SELECT pg_terminate_backend(%s)", [victim.get_backend_pid()])

    with monkeypatch.context() as patch:
        patch.setattr(reconcile._Run, "_create", die)
        with pytest.raises(psycopg2.Error):
            reconcile.reconcile(victim, wanted(state), Options(now=START))
    assert everything(database) == before
    assert done(apply(wanted(state))) == {"users": {"created": 1}}


def test_a_row_that_somebody_else_removes_during_the_run_undoes_it(
    apply: Any, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(wanted(bakery()))
    compare = reconcile._Run._count

    def interrupted(run: Any) -> Any:
        database.rows("DELETE FROM directory.users WHERE login = 'eva@degraaf.example'")
        return compare(run)

    monkeypatch.setattr(reconcile._Run, "_count", interrupted)
    state = bakery()
    state["users"][1]["name"] = "Eva Berg"
    assert refused(apply, wanted(state)) == [
        "the directory changed during the run: of 1 rows of users that differ 0 were written; run again"
    ]


def test_a_deadlock_is_tried_again(apply: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deadlock(psycopg2.Error):
        pgcode = reconcile.DEADLOCK

    attempts = []
    real = reconcile._Run.run

    def unlucky(run: Any) -> Any:
        attempts.append(run)
        if len(attempts) < reconcile.ATTEMPTS:
            raise Deadlock
        return real(run)

    monkeypatch.setattr(reconcile._Run, "run", unlucky)
    assert apply(wanted(bakery())).changed
    assert len(attempts) == reconcile.ATTEMPTS


def test_every_change_has_an_actor_in_the_audit(apply: Any, database: Any) -> None:
    apply(wanted(bakery()))
    assert database.rows("SELECT DISTINCT actor FROM directory.audit") == [("test_reconcile",)]
    audit = database.value("SELECT string_agg(a::text, '') FROM directory.audit a")
    assert FIRST not in audit
    assert "argon2id" not in audit


def test_drift_is_found_and_repaired(apply: Any, database: Any) -> None:
    apply(wanted(bakery()))
    before = everything(database)
    database.rows("UPDATE directory.users SET name = 'Iemand anders' WHERE login = 'jan@degraaf.example'")
    database.rows("DELETE FROM directory.forwards")
    database.rows("INSERT INTO directory.addresses (reseller_id, address, customer_id, kind, user_id)"
                  " SELECT reseller_id, 'stiekem@degraaf.example', customer_id, 'alias', user_id FROM directory.users"
                  " WHERE login = 'eva@degraaf.example'")  # fmt: skip
    outcome = apply(wanted(bakery()))
    assert done(outcome) == {"users": {"changed": 1}, "addresses": {"removed": 1}, "forwards": {"created": 1}}
    assert everything(database) == before


def test_a_product_that_left_the_contract_stays_while_somebody_has_it(apply: Any) -> None:
    apply(wanted(bakery()))
    state = bakery()
    gone = state["users"].pop(0)
    state["groups"][0]["members"].remove(gone["login"])
    for one in state["users"]:
        one["product"] = None
    assert done(apply(wanted(state, products={}))) == {
        "users": {"changed": 1, "suspended": 1},
        "members": {"removed": 1},
    }
    outcome = apply(wanted(state, products={}), now=AFTER)
    assert outcome.counts["products"]["removed"] == 1


# ------------------------------------------------------------------------------------------------------- at random


def random_estate(chance: random.Random) -> dict[str, Any]:
    """Any state that the check would let through: names in it are unique, domains belong to one customer."""
    domains = [f"d{number}.example" for number in range(5)]
    chance.shuffle(domains)
    customers, remove = [], {"customers": [], "users": [], "groups": [], "resources": []}
    for name in chance.sample(["een", "twee", "drie"], chance.randint(0, 3)):
        mine = [domains.pop() for _ in range(chance.randint(1, 2)) if domains]
        places = [f"{part}@{domain}" for domain in mine for part in ("a", "b", "c", "info")]
        chance.shuffle(places)
        take = [places.pop() for _ in range(min(len(places), chance.randint(0, 7)))]
        logins, rest = take[: len(take) // 2], take[len(take) // 2 :]
        users = [
            user(
                login,
                chance.choice(["Jan", "Eva", "Piet"]),
                state=chance.choice(["active", "active", "suspended"]),
                password_hash=chance.choice([None, FIRST, SECOND]),
                mail={"aliases": [], "forward": chance.sample(["x@x.example", "y@y.example"], chance.randint(0, 2)),
                      "keep_copy": chance.random() < 0.5, "quota": chance.choice([GIB, 2 * GIB, 0])},
                phone=chance.choice([None, {"extension": str(100 + number)}]),
                limits=chance.choice([{}, {"aliases": limit(chance.randint(3, 9))}]),
            )
            for number, login in enumerate(logins)
        ]  # fmt: skip
        groups, resources = [], []
        for number, address in enumerate(rest):
            kind = chance.choice(["alias", "group", "resource"])
            if kind == "alias" and users:
                chance.choice(users)["mail"]["aliases"].append(address)
            elif kind == "group":
                mail = chance.choice([None, {"address": address, "kind": "list", "quota": chance.choice([None, GIB])}])
                members = chance.sample(logins, chance.randint(0, len(logins)))
                groups.append(
                    {
                        "name": f"g{number}",
                        "title": None,
                        "members": members,
                        "mail": mail,
                        "phone": None,
                        "files": chance.choice([None, {"folder": "x", "quota": 1}]),
                    }
                )
            elif kind == "resource":
                resources.append({"name": f"r{number}", "address": address})
        listed = [{"name": domain, "alias_of": None} for domain in mine]
        if len(mine) == 2 and not any(mine[1] in place for place in take):
            listed[1]["alias_of"] = chance.choice([None, mine[0]])
        remove["users"] += [{"customer": name, "login": login} for login in places if chance.random() < 0.1]
        remove["groups"] += [
            {"customer": name, "name": f"g{number}"} for number in range(len(rest), 4) if chance.random() < 0.2
        ]
        customers.append(
            customer(name, "", *users, domains=listed, groups=groups, resources=resources,
                     limits=chance.choice([{}, {"users": limit(50)}]),
                     telephony={"numbers": [f"+3131800010{number}" for number in range(len(customers), 2)][:1]})
        )  # fmt: skip
    return wanted(*customers, remove=remove)


EXPECTED = "is already at customer|is still the login|is to be removed with|to confirm all"


@pytest.mark.parametrize("seed", range(3))
def test_any_way_from_state_to_state_converges(seed: int, apply: Any, database: Any) -> None:
    """Whatever people write next: it is applied and then stays, or is refused in words and nothing changed."""
    chance = random.Random(seed)
    now = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
    applied = 0
    for _step in range(15):
        state = random_estate(chance)
        now += datetime.timedelta(days=chance.choice([0, 1, 20, 40]))
        people = [login for (login,) in database.rows("SELECT login FROM directory.users")]
        names = [
            "een",
            "twee",
            "drie",
            *people,
            *(f"{one}/g{number}" for one in ("een", "twee") for number in range(4)),
        ]
        options = {
            "now": now.isoformat(),
            "confirm_suspension": ["noorderict"],
            "confirm_removal": names if chance.random() < 0.5 else [],
        }
        before = everything(database)
        problems: list[str] = []
        try:
            foretold = apply(state, check_mode=True, **options)
        except RefusedError as error:
            problems = error.problems
        if problems:
            assert everything(database) == before
            assert [one for one in problems if not re.search(EXPECTED, one)] == []
            continue
        outcome = apply(state, **options)
        assert foretold.counts == outcome.counts
        applied += 1
        again = apply(state, **options)
        assert not again.changed, again.diff
    assert applied > 3


def test_a_thousand_users(apply: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Not asserted: what it costs is printed for whoever reads the log."""
    people = [
        user(
            f"p{number}@degraaf.example",
            mail={"aliases": [f"a{number}@degraaf.example"], "forward": [], "keep_copy": True, "quota": GIB},
        )
        for number in range(1000)
    ]
    state = wanted(customer("degraaf", "degraaf.example", *people))
    figures = {}
    for name in ("first", "no change"):
        start = time.perf_counter()
        outcome = apply(state)
        figures[name] = time.perf_counter() - start
    assert not outcome.changed
    assert outcome.counts["users"]["unchanged"] == 1000
    people[500]["name"] = "Iemand anders"
    start = time.perf_counter()
    outcome = apply(state)
    figures["one changed"] = time.perf_counter() - start
    assert done(outcome) == {"users": {"changed": 1}}
    with capsys.disabled():
        print("\n1,000 users: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in figures.items()))
