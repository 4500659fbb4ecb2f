# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501 -- one message is one line, as the operator reads it

"""What bad input gets: every mistake that people make in contracts and customers' files, and the exact words they read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import check, estate
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import shown
from hypothesis import given
from hypothesis import strategies as st

type Load = Callable[..., estate.Site]

CUSTOMER = """\
customer: bakkerij
title: Bakkerij De Graaf
domains: [degraaf.example]
users:
  - login: jan@degraaf.example
    name: Jan de Graaf
    product: mailbox_1g
    mail: {aliases: [info@degraaf.example]}
  - login: eva@degraaf.example
    name: Eva de Graaf
    product: mailbox_1g
    mail: {}
"""
OTHER = CUSTOMER.replace("bakkerij", "slagerij").replace("degraaf.example", "devries.example")
CONTRACT: Mapping[str, Any] = {
    "reseller_title": "Noorder ICT",
    "reseller_engineer": "beheer@noorderict.example",
    "reseller_domain": "noorderict.example",
    "reseller_products": {
        "mailbox_1g": {"meter": "user", "included": {"mail_storage": "1 GiB"}},
        "mailbox_flex": {"meter": "user", "included": {"mail_storage": 0}, "beyond": "metered"},
    },
}
SECOND = {"reseller_domain": "zuidwest.example"}
NAME_ALLOWED = (
    "1 to 120 characters of any script, without double quotes, backslashes, line breaks, control characters, "
    "characters that turn the direction of writing, {{, }} or {%"
)
ADDRESS_ALLOWED = "an address, such as jan@degraaf.example"
EXTENSION_ALLOWED = 'two to six digits between quotes, not starting with 0, such as "101"'
SIZE_ALLOWED = '0, or a number with kB, MB, GB, TB (thousands) or KiB, MiB, GiB, TiB (1024s), such as "10 GiB"'
CUSTOMER_KEYS = "customer, domains, groups, language, limits, resources, state, telephony, title, users"
USER_KEYS = "files, invite, language, limits, login, mail, name, password_hash, phone, product, state"


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a site whose resellers' files are given as {reseller: {file: text or bytes}}."""
    monkeypatch.chdir(tmp_path)

    def run(
        files: Mapping[str, Mapping[str, str | bytes]] | str,
        contracts: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> estate.Site:
        if isinstance(files, str):
            files = {"noorderict": {"a.yml": files}}
        variables = {}
        for reseller, texts in files.items():
            folder = tmp_path / reseller
            folder.mkdir(exist_ok=True)
            for name, text in texts.items():
                data = text if isinstance(text, bytes) else text.encode()
                (folder / name).write_bytes(data)
            changes = (contracts or {}).get(reseller, {})
            contract = {**CONTRACT, "reseller_customers": str(folder), **changes}
            variables[reseller] = {key: value for key, value in contract.items() if value is not ...}
        return estate.load_site(variables, **options)

    return run


def lines(site: estate.Site) -> list[str]:
    return [str(finding) for finding in site.errors]


def changed(old: str, new: str, text: str = CUSTOMER) -> str:
    assert old in text
    return text.replace(old, new, 1)


def test_sound_input_has_no_findings(load: Load) -> None:
    site = load({"noorderict": {"a.yml": CUSTOMER, "b.yml": OTHER}})
    assert lines(site) == []
    assert site.counts == {"resellers": 1, "customers": 2, "users": 4, "domains": 2, "findings": 0, "warnings": 0}


# --- shape -----------------------------------------------------------------------------------------------------------

SHAPE = {
    "unknown key": (
        changed("title:", "titel:"),
        [
            "noorderict/a.yml:1: lacks the key title; allowed: title with " + NAME_ALLOWED,
            'noorderict/a.yml:2: titel: unknown key; did you mean "title"? (found "Bakkerij De Graaf"); allowed: ' + CUSTOMER_KEYS,
        ],
    ),
    "unknown key of a user": (
        changed("    mail: {}", "    mial: {}"),
        ['noorderict/a.yml:12: users[1].mial: unknown key; did you mean "mail"? (found an empty mapping); allowed: ' + USER_KEYS],
    ),
    "password in a file": (
        changed("    mail: {}", "    password: Welkom01"),
        [
            "noorderict/a.yml:12: users[1].password: unknown key: a password never stands in a file; password_hash may "
            "(found a hidden value); allowed: " + USER_KEYS
        ],
    ),
    "wrong type": (
        changed("domains: [degraaf.example]", "domains: degraaf.example"),
        ['noorderict/a.yml:3: domains: is no list (found "degraaf.example"); allowed: a list such as [a, b]'],
    ),
    "number for text": (
        changed("    mail: {}", "    phone: {extension: 101}"),
        ["noorderict/a.yml:12: users[1].phone.extension: is a number: put quotes around it (found 101); allowed: " + EXTENSION_ALLOWED],
    ),
    "octal for text": (
        changed("    mail: {}", "    phone: {extension: 0101}"),
        [
            ("noorderict/a.yml:12: users[1].phone.extension: is read by YAML as the number 65 (found 0101); "
            "allowed: quotes around it, or a plain decimal number")
        ],
    ),
    "base 60 for a hardware address": (
        changed("    mail: {}", '    phone: {extension: "101", devices: [{mac: 10:15:25:11:22:33, model: t54w}]}'),
        [
            ("noorderict/a.yml:12: users[1].phone.devices[0].mac: is read by YAML as the number 7975840953 "
            "(found 10:15:25:11:22:33); allowed: quotes around it, or a plain decimal number")
        ],
    ),
    "number with a plus": (
        CUSTOMER + "telephony: {numbers: [+31318000101]}\n",
        [
            ("noorderict/a.yml:13: telephony.numbers[0]: is a number: put quotes around it (found +31318000101); "
            'allowed: a telephone number between quotes, such as "+31318000101" or "0318-000101"')
        ],
    ),
    "no for text": (
        changed("name: Eva de Graaf", "name: No"),
        ["noorderict/a.yml:10: users[1].name: is read by YAML as no text: put quotes around it (found No); allowed: " + NAME_ALLOWED],
    ),
    "nothing": (
        changed("    mail: {}", "    mail:"),
        ["noorderict/a.yml:12: users[1].mail: is empty (found nothing); allowed: a mapping with aliases, forward, keep_copy, quota"],
    ),
    "text for a number": (
        CUSTOMER + 'limits: {users: {max: "12"}}\n',
        ['noorderict/a.yml:13: limits.users.max: is text: leave the quotes out (found "12"); allowed: a whole number from 0 to 1000000000'],
    ),
    "fraction for a number": (
        CUSTOMER + "limits: {users: {max: 1.5}}\n",
        ["noorderict/a.yml:13: limits.users.max: is no whole number (found 1.5); allowed: a whole number from 0 to 1000000000"],
    ),
    "negative": (
        CUSTOMER + "limits: {users: {max: -1}}\n",
        ["noorderict/a.yml:13: limits.users.max: is too small (found -1); allowed: a whole number from 0 to 1000000000"],
    ),
    "misspelt limit": (
        CUSTOMER + "limits: {usrs: {max: 12}}\n",
        [
            ('noorderict/a.yml:13: limits.usrs: unknown limit; did you mean "users"? (found a mapping); allowed: aliases, '
            "call_spend_per_day, concurrent_calls, domains, extensions, file_storage, groups, mail_sent_per_hour, "
            "mail_storage, numbers, users")
        ],
    ),
    "limit of another level": (
        CUSTOMER + "limits: {customers: {max: 12}}\n",
        [
            ("noorderict/a.yml:13: limits.customers: unknown limit: it is a limit of a reseller (found a mapping); allowed: "
            "aliases, call_spend_per_day, concurrent_calls, domains, extensions, file_storage, groups, mail_sent_per_hour, "
            "mail_storage, numbers, users")
        ],
    ),
    "limit without its mapping": (
        CUSTOMER + "limits: {users: 12}\n",
        ["noorderict/a.yml:13: limits.users: is no mapping (found 12); allowed: a mapping such as {max: 10}"],
    ),
    "soft where always hard": (
        CUSTOMER + "limits: {concurrent_calls: {max: 1, enforce: soft}}\n",
        ['noorderict/a.yml:13: limits.concurrent_calls.enforce: is always hard (found "soft"); allowed: hard'],
    ),
    "basis where there is none": (
        CUSTOMER + "limits: {users: {max: 9, basis: used}}\n",
        ['noorderict/a.yml:13: limits.users.basis: unknown key (found "used"); allowed: enforce, max, warn_at'],
    ),
    "size without unit": (
        CUSTOMER + "limits: {mail_storage: {max: 500}}\n",
        ["noorderict/a.yml:13: limits.mail_storage.max: has no unit (found 500); allowed: " + SIZE_ALLOWED],
    ),
    "size with an odd unit": (
        CUSTOMER + "limits: {mail_storage: {max: 5G}}\n",
        ['noorderict/a.yml:13: limits.mail_storage.max: is no size (found "5G"); allowed: ' + SIZE_ALLOWED],
    ),
    "money in floating point": (
        CUSTOMER + "limits: {call_spend_per_day: {max: 2.50}}\n",
        [
            ("noorderict/a.yml:13: limits.call_spend_per_day.max: is a number that loses cents: put quotes around it "
            '(found 2.50); allowed: an amount between quotes, such as "250.00", or 0')
        ],
    ),
    "unknown state": (
        changed("name: Eva de Graaf", "name: Eva de Graaf\n    state: suspnded"),
        ['noorderict/a.yml:11: users[1].state: unknown value; did you mean "suspended"? (found "suspnded"); allowed: absent, active, suspended'],
    ),
    "the same twice": (
        CUSTOMER + "groups: [{name: a, members: [jan@degraaf.example, jan@degraaf.example]}]\n",
        ['noorderict/a.yml:13: groups[0].members: has "jan@degraaf.example" twice (found a list); allowed: each value once'],
    ),
    "too many": (
        changed("mail: {}", f"mail: {{forward: [{', '.join(f'a{n}@elsewhere.example' for n in range(51))}]}}"),
        ["noorderict/a.yml:12: users[1].mail.forward: has too many entries (found a list); allowed: at most 50"],
    ),
    "missing keys": (
        "customer: bakkerij\ntitle: B\nusers:\n  - name: Jan\n",
        ["noorderict/a.yml:4: users[0]: lacks the key login; allowed: login with " + ADDRESS_ALLOWED],
    ),
    "a name for the site itself": (
        changed("customer: bakkerij", "customer: probe"),
        ['noorderict/a.yml:1: customer: is a name that the site uses itself (found "probe"); allowed: any name but probe, verify'],
    ),
    "a customer's name with capitals": (
        changed("customer: bakkerij", "customer: De Bakkerij"),
        ['noorderict/a.yml:1: customer: is no name (found "De Bakkerij"); allowed: 1 to 63 lower-case letters, digits and hyphens, such as bakkerij-de-graaf'],
    ),
    "a password in clear as hash": (
        changed("    mail: {}", "    password_hash: Welkom01"),
        [
            ("noorderict/a.yml:12: users[1].password_hash: is not the hash of a password in a known strong scheme (found a hidden "
            "value); "
            'allowed: "{ARGON2ID}$argon2id$..." or "{BLF-CRYPT}$2y$..." between quotes, or that value from ansible-vault encrypt_string')
        ],
    ),
    "an invitation that nobody could read": (
        changed("    mail: {}", "    mail: {}\n    invite: iemand@degraaf.example"),
        [
            ('noorderict/a.yml:13: users[1].invite: is in degraaf.example, whose mailboxes nobody can open before there is a '
            'password (found "iemand@degraaf.example"); allowed: an address that the person reads already')
        ],
    ),
    "an invitation to no address": (
        changed("    mail: {}", "    mail: {}\n    invite: jan"),
        ['noorderict/a.yml:13: users[1].invite: is no address (found "jan"); allowed: ' + ADDRESS_ALLOWED],
    ),
    "everything at once": (
        changed("mail: {}", "mial: {}", changed("login: jan@degraaf.example", "login: jan", changed("title:", "titel:"))),
        [
            "noorderict/a.yml:1: lacks the key title; allowed: title with " + NAME_ALLOWED,
            'noorderict/a.yml:2: titel: unknown key; did you mean "title"? (found "Bakkerij De Graaf"); allowed: ' + CUSTOMER_KEYS,
            'noorderict/a.yml:5: users[0].login: is no address (found "jan"); allowed: ' + ADDRESS_ALLOWED,
            'noorderict/a.yml:12: users[1].mial: unknown key; did you mean "mail"? (found an empty mapping); allowed: ' + USER_KEYS,
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SHAPE.values(), ids=SHAPE)
def test_shape(load: Load, text: str, expected: list[str]) -> None:
    assert lines(load(text)) == expected


# --- names -----------------------------------------------------------------------------------------------------------

NAMES = {
    "double quote": ('Jan "de" Graaf', "has a double quote", r'"Jan \"de\" Graaf"'),
    "line break": ("Jan\nde Graaf", "has a line break", r'"Jan\nde Graaf"'),
    "NUL": ("Jan\0", "has a control character (U+0000)", r'"Jan\u0000"'),
    "escape": ("Jan\x1b[2J", "has a control character (U+001B)", r'"Jan\u001b[2J"'),
    "C1 control": ("Jan\x9b2J", "has a control character (U+009B)", r'"Jan\x9b2J"'),
    "right to left": (
        "Jan\u202efaarG",
        "has a character that turns the direction of writing (U+202E)",
        r'"Jan\u202efaarG"',
    ),
    "line separator": ("Jan\u2028", "has a line break", r'"Jan\u2028"'),
    "template": ("{{ lookup('pipe', 'id') }}", "looks like a template", "\"{{ lookup('pipe', 'id') }}\""),
    "statement": ("{% set a = 1 %}", "looks like a template", '"{% set a = 1 %}"'),
    "end of a template": ("Jan }}", "looks like a template", '"Jan }}"'),
    "backslash": ("Jan\\", "has a backslash", r'"Jan\\"'),
    "invisible": ("Jan\u200b", "has a control character (U+200B)", r'"Jan\u200b"'),
    "only spaces": ("   ", "is empty", '"   "'),
    "space in front": (" Jan", "starts or ends with a space", '" Jan"'),
    "too long": ("J" * 121, "is too long", '"' + "J" * 96 + "..."),
}


@pytest.mark.parametrize(("name", "problem", "found"), NAMES.values(), ids=NAMES)
def test_name_that_is_refused(load: Load, name: str, problem: str, found: str) -> None:
    escaped = "".join(f"\\U{ord(char):08x}" for char in name)
    allowed = "at most 120 characters" if problem == "is too long" else NAME_ALLOWED
    assert lines(load(changed("Jan de Graaf", f'"{escaped}"'))) == [
        f"noorderict/a.yml:6: users[0].name: {problem} (found {found}); allowed: {allowed}"
    ]


@pytest.mark.parametrize(
    "name",
    ["Margot 't Hooft", "Kevin O'Neill", "Renée Ångström-Müller", "Dĳkstra", "Øvind", "Şahin", "Юлия", "山田 太郎", "مريم", "Jan (stage)", "A & B"],
)  # fmt: skip
def test_name_as_people_have_it(load: Load, name: str) -> None:
    site = load(changed("Jan de Graaf", f'"{name}"'))
    assert lines(site) == []
    assert site.estates["noorderict"]["customers"][0]["users"][0]["name"] == name


def test_names_are_stored_in_one_spelling(load: Load) -> None:
    site = load(changed("Jan de Graaf", "Rene\u0301e"))
    assert site.estates["noorderict"]["customers"][0]["users"][0]["name"] == "Ren\u00e9e"


def test_template_is_a_strange_name_and_nothing_runs(load: Load, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    site = load(changed("Jan de Graaf", f"\"{{{{ lookup('pipe', 'touch {proof}') }}}}\""))
    assert "looks like a template" in lines(site)[0]
    assert not proof.exists()


# --- references, duplicates ---------------------------------------------------------------------------------------------

RELATIONS = {
    "member that does not exist": (
        CUSTOMER + "groups: [{name: a, members: [jann@degraaf.example]}]\n",
        [
            ('noorderict/a.yml:13: groups[0].members[0]: is no user of this customer; did you mean "jan@degraaf.example"? '
            '(found "jann@degraaf.example"); allowed: eva@degraaf.example, jan@degraaf.example')
        ],
    ),
    "member that is an alias": (
        CUSTOMER + "groups: [{name: a, members: [info@degraaf.example]}]\n",
        [
            ("noorderict/a.yml:13: groups[0].members[0]: is an alias, no user's login (found \"info@degraaf.example\"); "
            "allowed: logins of this customer's users")
        ],
    ),
    "member that goes": (
        changed("name: Eva de Graaf", "state: absent") + "groups: [{name: a, members: [eva@degraaf.example]}]\n",
        ['noorderict/a.yml:13: groups[0].members[0]: is to be removed (found "eva@degraaf.example"); allowed: logins of users that stay'],
    ),
    "unknown product": (
        changed("mailbox_1g", "mailbox_2g"),
        [
            ('noorderict/a.yml:7: users[0].product: is no product of the contract; did you mean "mailbox_1g"? '
            '(found "mailbox_2g"); allowed: mailbox_1g, mailbox_flex')
        ],
    ),
    "no product": (
        changed("    product: mailbox_1g\n", ""),
        ["noorderict/a.yml:5: users[0]: lacks the key product; allowed: product with mailbox_1g, mailbox_flex"],
    ),
    "quota above the product": (
        changed("mail: {}", "mail: {quota: 2 GiB}"),
        ['noorderict/a.yml:12: users[1].mail.quota: is more than the product includes (found "2 GiB"); allowed: at most 1 GiB'],
    ),
    "login twice": (
        changed("login: eva", "login: JAN"),
        [
            ('noorderict/a.yml:9: users[1].login: is already the address of a login on line 5 (found "JAN@degraaf.example"); '
            "allowed: an address that nothing else here has")
        ],
    ),
    "alias that is somebody's login": (
        changed("info@", "eva@"),
        [
            ('noorderict/a.yml:9: users[1].login: is already the address of an alias on line 8 (found "eva@degraaf.example"); '
            "allowed: an address that nothing else here has")
        ],
    ),
    "group with a room's address": (
        CUSTOMER + "groups: [{name: a, mail: {address: k@degraaf.example}, members: []}]\nresources: [{name: K, address: k@degraaf.example}]\n",
        [
            ('noorderict/a.yml:14: resources[0].address: is already the address of a group on line 13 (found "k@degraaf.example"); '
            "allowed: an address that nothing else here has")
        ],
    ),
    "address in a domain that is not there": (
        changed("info@degraaf.example", "info@degraf.example"),
        [
            ("noorderict/a.yml:8: users[0].mail.aliases[0]: is in degraf.example, which is no domain of this customer; did you "
            'mean "degraaf.example"? (found "info@degraf.example"); allowed: degraaf.example')
        ],
    ),
    "address in an alias domain": (
        changed("domains: [degraaf.example]", "domains: [degraaf.example, {name: dg.example, alias_of: degraaf.example}]",
                changed("info@degraaf.example", "info@dg.example")),
        [
            ("noorderict/a.yml:8: users[0].mail.aliases[0]: is in dg.example, an alias of degraaf.example: its addresses are "
            'there already (found "info@dg.example"); allowed: degraaf.example')
        ],
    ),
    "alias domain of nothing": (
        changed("domains: [degraaf.example]", "domains: [degraaf.example, {name: dg.example, alias_of: degraf.example}]"),
        [
            ('noorderict/a.yml:3: domains[1].alias_of: is no domain of this customer; did you mean "degraaf.example"? '
            '(found "degraf.example"); allowed: degraaf.example')
        ],
    ),
    "alias domain of an alias domain": (
        changed("domains: [degraaf.example]",
                "domains: [degraaf.example, {name: a.example, alias_of: b.example}, {name: b.example, alias_of: a.example}]"),
        [
            'noorderict/a.yml:3: domains[1].alias_of: is an alias itself (found "b.example"); allowed: degraaf.example',
            'noorderict/a.yml:3: domains[2].alias_of: is an alias itself (found "a.example"); allowed: degraaf.example',
        ],
    ),
    "domain twice": (
        changed("[degraaf.example]", "[degraaf.example, DeGraaf.example]"),
        ['noorderict/a.yml:3: domains[1]: is written twice, first on line 3 (found "DeGraaf.example"); allowed: each domain once'],
    ),
    "domain that the site serves": (
        changed("[degraaf.example]", "[degraaf.example, mail.noorderict.example]"),
        [
            ('noorderict/a.yml:3: domains[1]: is a name that the site serves itself (found "mail.noorderict.example"); allowed: '
            "a domain that is none of these below noorderict.example: account, autoconfig, autodiscover, caldav, carddav, dav, files, "
            "imap, mail, mta-sts, mx, pbx, pop, provision, sieve, sip, sips, smtp, stun, submission, turn, verify, webmail")
        ],
    ),
    "extension twice": (
        changed("    mail: {}", '    phone: {extension: "101"}\n') + 'groups: [{name: a, members: [], phone: {extension: "101"}}]\n',
        ['noorderict/a.yml:14: groups[0].phone.extension: is already the extension on line 12 (found "101"); allowed: each extension once'],
    ),
    "extension 112": (
        changed("    mail: {}", '    phone: {extension: "112"}\n'),
        ['noorderict/a.yml:12: users[1].phone.extension: is the emergency number (found "112"); allowed: ' + EXTENSION_ALLOWED],
    ),
    "extension 144": (
        changed("    mail: {}", '    phone: {extension: "144"}\n'),
        ['noorderict/a.yml:12: users[1].phone.extension: is a public short number (found "144"); allowed: ' + EXTENSION_ALLOWED],
    ),
    "number twice, in two notations": (
        CUSTOMER + 'telephony: {numbers: ["0318-000101", "+31 318 000 101"]}\n',
        ['noorderict/a.yml:13: telephony.numbers[1]: is written twice, first on line 13 (found "+31 318 000 101"); allowed: each number once'],
    ),
    "number with a digit too few": (
        CUSTOMER + 'telephony: {numbers: ["+3131800010"]}\n',
        [
            ('noorderict/a.yml:13: telephony.numbers[0]: does not have the nine digits of a Dutch number (found "+3131800010"); '
            'allowed: a telephone number between quotes, such as "+31318000101" or "0318-000101"')
        ],
    ),
    "route of a number that is not there": (
        CUSTOMER + 'telephony: {numbers: ["+31318000101"], incoming: [{number: "+31318000102", open: "group:a"}]}\n',
        [
            'noorderict/a.yml:13: telephony.incoming[0].number: is no number of this customer (found "+31318000102"); allowed: +31318000101',
            'noorderict/a.yml:13: telephony.incoming[0].open: is no group of this customer (found "group:a"); allowed: none',
        ],
    ),
    "folder twice": (
        CUSTOMER
        + "groups:\n  - {name: a, members: [], files: {folder: Stukken}}\n  - {name: b, members: [], files: {folder: STUKKEN}}\n",
        ['noorderict/a.yml:15: groups[1].files.folder: is already a folder on line 14 (found "STUKKEN"); allowed: each folder once'],
    ),
    "route twice, to people without a phone": (
        CUSTOMER + 'telephony:\n  numbers: ["+31318000101"]\n  incoming:\n'
        '    - {number: "0318000101", open: user:jan@degraaf.example}\n    - {number: "+31318000101", open: "extension:99"}\n',
        [
            'noorderict/a.yml:16: telephony.incoming[0].open: has no phone (found "user:jan@degraaf.example"); allowed: a user with phone',
            'noorderict/a.yml:17: telephony.incoming[1].number: has a route already (found "+31318000101"); allowed: each number once',
            'noorderict/a.yml:17: telephony.incoming[1].open: is no extension of this customer (found "extension:99"); allowed: none',
        ],
    ),
    "hours": (
        CUSTOMER + 'telephony: {opening_hours: {mon-fri: "17:00-08:00", mo: "08:00-09:00", fri: "09:00-10:00", closed: [2026-02-30]}}\n',
        [
            ('noorderict/a.yml:13: telephony.opening_hours.closed[0]: is not in the calendar (found "2026-02-30"); allowed: a day as '
            "year-month-day, such as 2026-12-25"),
            "noorderict/a.yml:13: telephony.opening_hours.fri: has fri, which has hours already (found \"09:00-10:00\"); allowed: each day once",
            'noorderict/a.yml:13: telephony.opening_hours.mo: unknown key (found "08:00-09:00"); allowed: closed, days such as sat or mon-fri',
            ('noorderict/a.yml:13: telephony.opening_hours.mon-fri: ends before it starts (found "17:00-08:00"); allowed: a time from and '
            'to between quotes, such as "08:00-17:30"'),
        ],
    ),
    "device twice": (
        changed("    mail: {}", '    phone: {extension: "101", devices: [{mac: "00:15:65:aa:bb:cc", model: a}, {mac: "00-15-65-AA-BB-CC", model: a}]}'),
        [
            ('noorderict/a.yml:12: users[1].phone.devices[1].mac: is already a device on line 12 (found "00-15-65-AA-BB-CC"); '
            "allowed: each device once")
        ],
    ),
    "group twice": (
        CUSTOMER + "groups:\n  - {name: a, members: []}\n  - {name: a, members: []}\n",
        ['noorderict/a.yml:15: groups[1].name: is already a group on line 14 (found "a"); allowed: each group once'],
    ),
    "quota of a list": (
        CUSTOMER + "groups: [{name: a, members: [], mail: {address: a@degraaf.example, quota: 1 GiB}}]\n",
        [
            ('noorderict/a.yml:13: groups[0].mail.quota: is for a shared mailbox; a list keeps no mail (found "1 GiB"); '
            "allowed: kind: shared_mailbox, or no quota")
        ],
    ),
    "other than plain letters in an address": (
        changed("login: jan@", "login: renée@"),
        [
            ('noorderict/a.yml:5: users[0].login: has other than plain letters before the @ (found "renée@degraaf.example"); '
            "allowed: a to z, 0 to 9 and . _ - ' before the @")
        ],
    ),
    "a detail in an address": (
        changed("info@", "info+krant@"),
        [
            "noorderict/a.yml:8: users[0].mail.aliases[0]: has a + before the @, which separates the detail of an address "
            '(found "info+krant@degraaf.example"); allowed: ' + ADDRESS_ALLOWED
        ],
    ),
    "forward to an address that is not there": (
        changed("mail: {}", "mail: {forward: [jaan@degraaf.example]}"),
        [
            ('noorderict/a.yml:12: users[1].mail.forward[0]: is no address of customer bakkerij; did you mean "jan@degraaf.example"? '
            '(found "jaan@degraaf.example"); allowed: an address that exists, or one elsewhere')
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), RELATIONS.values(), ids=RELATIONS)
def test_relations(load: Load, text: str, expected: list[str]) -> None:
    assert lines(load(text)) == expected


def test_what_follows_from_an_error_is_not_reported(load: Load) -> None:
    broken = changed("login: jan@degraaf.example", "login: jan")
    text = broken + "groups: [{name: a, members: [jan@degraaf.example]}]\n"
    assert lines(load(text)) == [
        f'noorderict/a.yml:5: users[0].login: is no address (found "jan"); allowed: {ADDRESS_ALLOWED}'
    ]


# --- circles ------------------------------------------------------------------------------------------------------------


def test_alias_that_loops(load: Load) -> None:
    text = changed(
        "{aliases: [info@degraaf.example]}", "{aliases: [info@degraaf.example], forward: [info@degraaf.example]}"
    )
    assert lines(load(text)) == [
        (
            "noorderict/a.yml:8: users[0].mail.forward[0]: sends mail in a circle: jan@degraaf.example -> info@degraaf.example -> "
            'jan@degraaf.example (found "info@degraaf.example"); allowed: an address that does not lead back here'
        )
    ]


def test_circle_through_a_list_an_alias_domain_and_a_detail(load: Load) -> None:
    text = changed("[degraaf.example]", "[degraaf.example, {name: dg.example, alias_of: degraaf.example}]")
    text = changed("mail: {}", "mail: {forward: [team+eva@dg.example]}", text)
    text += "groups: [{name: team, members: [jan@degraaf.example, eva@degraaf.example], mail: {address: team@degraaf.example}}]\n"
    assert lines(load(text)) == [
        (
            "noorderict/a.yml:12: users[1].mail.forward[0]: sends mail in a circle: eva@degraaf.example -> team@degraaf.example -> "
            'eva@degraaf.example (found "team+eva@dg.example"); allowed: an address that does not lead back here'
        )
    ]


def test_circle_between_customers_of_one_reseller(load: Load) -> None:
    ours = changed("mail: {}", "mail: {forward: [eva@devries.example]}")
    theirs = changed("mail: {}", "mail: {forward: [eva@degraaf.example]}", OTHER)
    assert lines(load({"noorderict": {"a.yml": ours, "b.yml": theirs}})) == [
        (
            "noorderict/a.yml:12: users[1].mail.forward[0]: sends mail in a circle: eva@degraaf.example -> eva@devries.example -> "
            'eva@degraaf.example (found "eva@devries.example"); allowed: an address that does not lead back here'
        )
    ]


def test_circle_between_resellers_names_nobody_else(load: Load) -> None:
    ours = changed("mail: {}", "mail: {forward: [eva@devries.example]}")
    theirs = changed("mail: {}", "mail: {forward: [eva@degraaf.example]}", OTHER)
    site = load({"noorderict": {"a.yml": ours}, "zuidwest": {"b.yml": theirs}}, {"zuidwest": SECOND})
    assert lines(site) == [
        (
            "noorderict/a.yml:12: users[1].mail.forward[0]: sends mail in a circle: eva@degraaf.example -> an address elsewhere -> "
            'eva@degraaf.example (found "eva@devries.example"); allowed: an address that does not lead back here'
        ),
        (
            "zuidwest/b.yml:12: users[1].mail.forward[0]: sends mail in a circle: eva@devries.example -> an address elsewhere -> "
            'eva@devries.example (found "eva@degraaf.example"); allowed: an address that does not lead back here'
        ),
    ]


def test_forwards_that_meet_are_no_circle(load: Load) -> None:
    text = changed("mail: {}", "mail: {forward: [jan@degraaf.example, someone@elsewhere.example]}")
    text += "groups: [{name: team, members: [jan@degraaf.example, eva@degraaf.example], mail: {address: team@degraaf.example}}]\n"
    assert lines(load(text)) == []


def test_long_circle_is_cut(load: Load) -> None:
    text = "customer: a\ntitle: A\ndomains: [a.example]\nusers:\n"
    for number in range(20):
        forward = f"mail: {{forward: [u{(number + 1) % 20}@a.example]}}"
        text += f"  - {{login: u{number}@a.example, name: U, product: mailbox_1g, {forward}}}\n"
    (finding,) = load(text).errors
    assert finding.problem == (
        "sends mail in a circle: u0@a.example -> u1@a.example -> u2@a.example -> u3@a.example -> u4@a.example -> "
        "u5@a.example -> u6@a.example -> u7@a.example -> 12 more -> u0@a.example"
    )


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.lists(st.sampled_from("abcdefgh"), max_size=3)))
def test_circles_are_found_exactly_where_there_are_some(graph: dict[str, list[str]]) -> None:
    def reaches(start: str, end: str) -> bool:
        seen, todo = set(), [start]
        while todo:
            for there in graph.get(todo.pop(), ()):
                if there == end:
                    return True
                if there not in seen:
                    seen.add(there)
                    todo.append(there)
        return False

    found = check.found_circles(graph, list(graph))
    for circle in found:
        assert all(end in graph[start] for start, end in zip(circle, [*circle[1:], circle[0]], strict=True))
    in_some = {node for node in graph if reaches(node, node)}
    # One circle for each set of nodes that reach each other.
    components = {
        frozenset(other for other in in_some if reaches(node, other) and reaches(other, node)) for node in in_some
    }
    assert len(found) == len(components)
    assert {
        frozenset(circle) <= component for circle in found for component in components if circle[0] in component
    } <= {True}


def test_circle_at_the_end_of_a_very_long_chain() -> None:
    graph = {str(number): [str(number + 1)] for number in range(50_000)} | {"50000": ["49999"]}
    assert check.found_circles(graph, ["0"]) == [["49999", "50000"]]


# --- between customers and resellers ------------------------------------------------------------------------------------


def test_two_customers_with_one_domain(load: Load) -> None:
    other = changed("[devries.example]", "[devries.example, degraaf.example]", OTHER)
    assert lines(load({"noorderict": {"a.yml": CUSTOMER, "b.yml": other}})) == [
        (
            'noorderict/b.yml:3: domains[1]: is already a domain of customer bakkerij (noorderict/a.yml) (found "degraaf.example"); '
            "allowed: a domain that no other customer has"
        )
    ]


def test_two_customers_with_one_name(load: Load) -> None:
    other = changed("customer: slagerij", "customer: bakkerij", OTHER)
    assert lines(load({"noorderict": {"a.yml": CUSTOMER, "b.yml": other}})) == [
        (
            'noorderict/b.yml:1: customer: is already the customer of noorderict/a.yml (found "bakkerij"); '
            "allowed: a name that no other file has"
        )
    ]


def test_two_resellers_with_one_domain_get_a_neutral_answer(load: Load) -> None:
    other = changed("[devries.example]", "[devries.example, degraaf.example]", OTHER)
    site = load({"noorderict": {"a.yml": CUSTOMER}, "zuidwest": {"b.yml": other}}, {"zuidwest": SECOND})
    neutral = (
        "domain degraaf.example is not available; prove control with a DNS TXT record "
        '(found "degraaf.example"); allowed: a domain that nobody else on this site has'
    )
    assert lines(site) == [
        f"noorderict/a.yml:3: domains[0]: {neutral}",
        f"zuidwest/b.yml:3: domains[1]: {neutral}",
    ]


def test_numbers_and_devices_of_two_resellers(load: Load) -> None:
    phone = 'phone: {extension: "11", devices: [{mac: "00:15:65:aa:bb:cc", model: a}]}'
    numbers = 'telephony: {numbers: ["+31318000101"]}\n'
    ours = changed("mail: {}", phone) + numbers
    theirs = changed("mail: {}", phone, OTHER) + numbers
    site = load({"noorderict": {"a.yml": ours}, "zuidwest": {"b.yml": theirs}}, {"zuidwest": SECOND})
    device = (
        'device 00:15:65:aa:bb:cc is not available (found "00:15:65:aa:bb:cc"); allowed: a device that nobody else on this '
        "site has"
    )
    number = 'number +31318000101 is not available (found "+31318000101"); allowed: a number that nobody else on this site has'
    assert lines(site) == [
        f"noorderict/a.yml:12: users[1].phone.devices[0].mac: {device}",
        f"noorderict/a.yml:13: telephony.numbers[0]: {number}",
        f"zuidwest/b.yml:12: users[1].phone.devices[0].mac: {device}",
        f"zuidwest/b.yml:13: telephony.numbers[0]: {number}",
    ]


@pytest.mark.parametrize("domain", ["zuidwest.example", "mail.zuidwest.example"])
def test_domain_of_another_reseller(load: Load, domain: str) -> None:
    text = changed("[degraaf.example]", f"[degraaf.example, {domain}]")
    assert lines(load({"noorderict": {"a.yml": text}, "zuidwest": {}}, {"zuidwest": SECOND})) == [
        (
            f"noorderict/a.yml:3: domains[1]: domain {domain} is not available; prove control with a DNS TXT record "
            f'(found "{domain}"); allowed: a domain that nobody else on this site has'
        )
    ]


def test_domain_of_the_site(load: Load) -> None:
    text = changed("[degraaf.example]", "[degraaf.example, m1.bouwsteen.example]")
    assert lines(load(text, {"noorderict": {"site_domain": "bouwsteen.example"}})) == [
        (
            "noorderict/a.yml:3: domains[1]: domain m1.bouwsteen.example is not available; prove control with a DNS TXT record "
            '(found "m1.bouwsteen.example"); allowed: a domain that nobody else on this site has'
        )
    ]


def test_reseller_may_be_his_own_customer(load: Load) -> None:
    text = changed("[degraaf.example]", "[degraaf.example, noorderict.example, kantoor.noorderict.example]")
    assert lines(load(text, {"noorderict": {"site_domain": "noorderict.example"}})) == []


# --- limits over three levels -------------------------------------------------------------------------------------------


def limited(**limits: Any) -> Mapping[str, Mapping[str, Any]]:
    return {"noorderict": {"reseller_limits": limits}}


def test_users_over_the_customers_limit(load: Load) -> None:
    site = load(CUSTOMER + "limits: {users: {max: 1}}\n")
    assert lines(site) == [
        (
            'noorderict/a.yml:9: users[1].login: is over the limit: customer bakkerij has 2 users (found "eva@degraaf.example"); '
            "allowed: at most 1 (limits.users of customer bakkerij)"
        )
    ]


def test_users_over_the_resellers_limit(load: Load) -> None:
    site = load({"noorderict": {"a.yml": CUSTOMER, "b.yml": OTHER}}, limited(users={"max": 3}))
    assert lines(site) == [
        (
            'noorderict/b.yml:9: users[1].login: is over the limit: reseller noorderict has 4 users (found "eva@devries.example"); '
            "allowed: at most 3 (reseller_limits.users of reseller noorderict)"
        )
    ]


@pytest.mark.parametrize(
    ("limit", "line", "key", "found"),
    [
        ("customers", 1, "customer", "bakkerij"),
        ("domains", 3, "domains[0]", "degraaf.example"),
        ("aliases", 8, "users[0].mail.aliases[0]", "info@degraaf.example"),
        ("groups", 14, "groups[0].name", "team"),
        ("extensions", 14, "groups[0].phone.extension", "20"),
        ("numbers", 15, "telephony.numbers[0]", "0318000101"),
    ],
)
def test_every_count_is_compared(load: Load, limit: str, line: int, key: str, found: str) -> None:
    text = (
        CUSTOMER
        + 'groups:\n  - {name: team, members: [], phone: {extension: "20"}}\ntelephony: {numbers: ["0318000101"]}\n'
    )
    assert lines(load(text, limited(**{limit: {"max": 0}}))) == [
        (
            f"noorderict/a.yml:{line}: {key}: is over the limit: reseller noorderict has 1 {limit} "
            f'(found "{found}"); allowed: at most 0 (reseller_limits.{limit} of reseller noorderict)'
        )
    ]


def test_soft_limit_warns(load: Load) -> None:
    site = load(CUSTOMER, limited(users={"max": 1, "enforce": "soft"}))
    assert lines(site) == []
    assert [str(warning) for warning in site.warnings] == [
        (
            "host_vars of noorderict: reseller_limits.users.max: is exceeded: reseller noorderict has 2 users (found 1); allowed: "
            "at most 1 (reseller_limits.users of reseller noorderict); soft: nothing is refused"
        )
    ]


def test_warn_at(load: Load) -> None:
    site = load(CUSTOMER + "limits: {users: {max: 2, warn_at: [50, 90]}}\n")
    assert lines(site) == []
    assert [str(warning) for warning in site.warnings] == [
        (
            "noorderict/a.yml:13: limits.users.warn_at: 90 % is reached: customer bakkerij has 2 users; allowed: at most 2 "
            "(limits.users of customer bakkerij)"
        )
    ]


def test_limit_lowered_below_present_use_blocks_growth_only(load: Load, tmp_path: Path) -> None:
    load(CUSTOMER)
    variables = {
        **CONTRACT,
        "reseller_customers": str(tmp_path / "noorderict"),
        "reseller_limits": {"users": {"max": 1}},
    }
    now = estate.load_reseller("noorderict", variables, in_use={("reseller", "", "users"): 2})
    assert now.errors == []
    assert [str(warning) for warning in now.warnings] == [
        (
            "host_vars of noorderict: reseller_limits.users.max: is exceeded: reseller noorderict has 2 users (found 1); allowed: "
            "at most 1 (reseller_limits.users of reseller noorderict); nothing can be added"
        )
    ]
    grown = estate.load_reseller("noorderict", variables, in_use={("reseller", "", "users"): 1})
    assert [error.problem for error in grown.errors] == ["is over the limit: reseller noorderict has 2 users"]
    assert grown.estate == {}


ABOVE = {
    "customer above reseller": (
        CUSTOMER + "limits: {users: {max: 20}, call_spend_per_day: {max: \"10.01\"}, mail_storage: {max: 1 TiB}}\n",
        {"users": {"max": 10}, "call_spend_per_day": {"max": "10.00"}, "mail_storage": {"max": "500 GiB"}},
        [
            'noorderict/a.yml:13: limits.call_spend_per_day.max: is more than the reseller\'s own call_spend_per_day (found "10.01"); allowed: at most 10.00',
            'noorderict/a.yml:13: limits.mail_storage.max: is more than the reseller\'s own mail_storage (found "1 TiB"); allowed: at most 500 GiB',
            "noorderict/a.yml:13: limits.users.max: is more than the reseller's own users (found 20); allowed: at most 10",
        ],
    ),
    "user above customer": (
        changed("    mail: {}", "    limits: {mail_sent_per_hour: {max: 200}}") + "limits: {mail_sent_per_hour: {max: 100}}\n",
        {"mail_sent_per_hour": {"max": 1000}},
        ["noorderict/a.yml:12: users[1].limits.mail_sent_per_hour.max: is more than the customer's own mail_sent_per_hour (found 200); allowed: at most 100"],
    ),
    "user above reseller": (
        changed("    mail: {}", "    limits: {concurrent_calls: {max: 5}}"),
        {"concurrent_calls": {"max": 2}},
        ["noorderict/a.yml:12: users[1].limits.concurrent_calls.max: is more than the reseller's own concurrent_calls (found 5); allowed: at most 2"],
    ),
    "quota above customer": (
        changed("    mail: {}", "    files: {quota: 10 GiB}") + "limits: {file_storage: {max: 5 GiB}}\n",
        {},
        ['noorderict/a.yml:12: users[1].files.quota: is more than the customer\'s own file_storage (found "10 GiB"); allowed: at most 5 GiB'],
    ),
    "aliases of one user": (
        changed("mail: {aliases: [info@degraaf.example]}", "mail: {aliases: [info@degraaf.example, a@degraaf.example]}\n    limits: {aliases: {max: 1}}"),
        {},
        [
            ('noorderict/a.yml:8: users[0].mail.aliases[1]: is over the limit: user jan@degraaf.example has 2 aliases (found "a@degraaf.example"); '
            "allowed: at most 1 (users[0].limits.aliases of user jan@degraaf.example)")
        ],
    ),
    "allocated": (
        changed("    mail: {}", "    files: {quota: 4 GiB}") + "groups: [{name: a, members: [], files: {folder: A, quota: 2 GiB}}]\n"
        "limits: {file_storage: {max: 5 GiB, basis: allocated}}\n",
        {},
        [
            ('noorderict/a.yml:13: groups[0].files.quota: is over the limit: customer bakkerij hands out 6 GiB of file_storage (found "2 GiB"); '
            "allowed: at most 5 GiB (limits.file_storage of customer bakkerij)")
        ],
    ),
    "allocated without quota": (
        changed("    mail: {}", "    files: {}"),
        {"file_storage": {"max": "5 GiB", "basis": "allocated"}},
        [
            ("noorderict/a.yml:12: users[1].files: has no quota, and file_storage of reseller noorderict counts what is handed out; "
            "allowed: a quota, or a product that includes one with beyond: blocked")
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "limits", "expected"), ABOVE.values(), ids=ABOVE)
def test_limits(load: Load, text: str, limits: Mapping[str, Any], expected: list[str]) -> None:
    assert lines(load(text, limited(**limits))) == expected


def test_allocated_soft_and_warned(load: Load) -> None:
    text = changed("    mail: {}", "    files: {quota: 2 GiB}")
    text += "groups: [{name: a, members: [], files: {folder: A, quota: 2 GiB}}]\n"
    soft = load(text, limited(file_storage={"max": "3 GiB", "basis": "allocated", "enforce": "soft"}))
    assert [str(warning) for warning in soft.warnings] == [
        (
            "host_vars of noorderict: reseller_limits.file_storage.max: is exceeded: reseller noorderict hands out 4 GiB of "
            'file_storage (found "3 GiB"); allowed: at most 3 GiB (reseller_limits.file_storage of reseller noorderict); soft: '
            "nothing is refused"
        )
    ]
    near = load(text, limited(file_storage={"max": "5 GiB", "basis": "allocated", "warn_at": [80]}))
    assert [str(warning) for warning in near.warnings] == [
        (
            "host_vars of noorderict: reseller_limits.file_storage.warn_at: 80 % is reached: reseller noorderict hands out 4 GiB of "
            "file_storage; allowed: at most 5 GiB (reseller_limits.file_storage of reseller noorderict)"
        )
    ]
    assert soft.errors == near.errors == []


def test_absent_counts_for_nothing(load: Load) -> None:
    text = changed("name: Eva de Graaf", "state: absent")
    site = load(
        {"noorderict": {"a.yml": text, "b.yml": "customer: oud\nstate: absent\n"}},
        limited(users={"max": 1}, customers={"max": 1}),
    )
    assert lines(site) == []
    assert site.estates["noorderict"]["remove"] == {
        "customers": ["oud"],
        "users": [{"customer": "bakkerij", "login": "eva@degraaf.example"}],
        "groups": [],
        "resources": [],
    }


# --- files that are no data ---------------------------------------------------------------------------------------------

FILES: dict[str, tuple[str | bytes, list[str]]] = {
    "not YAML": (
        "customer: [bakkerij\ntitle: B\n",
        [
            ("noorderict/a.yml:2: is not YAML: did not find expected ',' or ']'; allowed: YAML as in docs/data.md; an editor with the schema "
            "shows where it goes wrong")
        ],
    ),
    "anchor bomb": (
        "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n",
        [
            "noorderict/a.yml:1: lacks the key customer; allowed: customer with 1 to 63 lower-case letters, digits and hyphens, such as bakkerij-de-graaf",
            "noorderict/a.yml:1: lacks the key title; allowed: title with " + NAME_ALLOWED,
            "noorderict/a.yml:1: a: has an anchor, which is not read here (found &a); allowed: the value itself",
            "noorderict/a.yml:2: b: has an anchor, which is not read here (found &b); allowed: the value itself",
            "noorderict/a.yml:2: b[0]: is an alias, which is not read here (found *a); allowed: the value itself",
            "noorderict/a.yml:2: b[1]: is an alias, which is not read here (found *a); allowed: the value itself",
            "noorderict/a.yml:3: c: has an anchor, which is not read here (found &c); allowed: the value itself",
            "noorderict/a.yml:3: c[0]: is an alias, which is not read here (found *b); allowed: the value itself",
            "noorderict/a.yml:3: c[1]: is an alias, which is not read here (found *b); allowed: the value itself",
        ],
    ),
    "merge key": (
        CUSTOMER + "<<: {a: b}\n",
        ["noorderict/a.yml:13: is YAML's sign for merging mappings, which is not read here (found <<); allowed: the mapping's own keys",
         'noorderict/a.yml:13: <<: unknown key (found a mapping); allowed: ' + CUSTOMER_KEYS],
    ),
    "tag": (
        changed("title: Bakkerij De Graaf", "title: !!python/object/apply:os.system [id]"),
        ["noorderict/a.yml:2: title: has a tag, which is not read here (found !!python/object/apply:os.system); allowed: the value itself"],
    ),
    "key twice": (
        CUSTOMER + "users: []\n",
        ["noorderict/a.yml:13: users: is written twice; allowed: one of them: the first is on line 4"],
    ),
    "key that is no text": (
        changed("title:", "yes:"),
        [
            "noorderict/a.yml:1: lacks the key title; allowed: title with " + NAME_ALLOWED,
            "noorderict/a.yml:2: has a key that YAML does not read as text (found yes); allowed: quotes around the key",
            'noorderict/a.yml:2: yes: unknown key (found "Bakkerij De Graaf"); allowed: ' + CUSTOMER_KEYS,
        ],
    ),
    "two documents": (
        CUSTOMER + "---\n" + OTHER,
        ["noorderict/a.yml:13: has a second document; allowed: one document: no second line of ---"],
    ),
    "nested": (
        "customer: " + "[" * 40 + "]" * 40,
        ["noorderict/a.yml:1: is nested more than 16 levels deep; allowed: at most 16 levels"],
    ),
    "empty": ("# nothing yet\n", ["noorderict/a.yml:1: is empty; allowed: keys and values, such as customer: bakkerij-de-graaf"]),
    "a list": ("- customer: a\n", ["noorderict/a.yml:1: is no mapping; allowed: keys and values, such as customer: bakkerij-de-graaf"]),
    "NUL": (CUSTOMER.encode() + b"# \0\n", ["noorderict/a.yml:13: has the character NUL (found U+0000); allowed: text without control characters"]),
    "control character": (
        CUSTOMER.encode() + b"# \x1b[2J\n",
        ["noorderict/a.yml:13: has a control character (found U+001B); allowed: text without control characters"],
    ),
    "Latin 1": (
        changed("Jan de Graaf", "René").encode("latin-1"),
        ["noorderict/a.yml:6: is not UTF-8 text (found byte 0xe9); allowed: a text file saved as UTF-8"],
    ),
    "UTF-16": (CUSTOMER.encode("utf-16"), ["noorderict/a.yml:1: is not UTF-8 text (found byte 0xff); allowed: a text file saved as UTF-8"]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), FILES.values(), ids=FILES)
def test_file_that_is_refused(load: Load, text: str | bytes, expected: list[str]) -> None:
    assert lines(load({"noorderict": {"a.yml": text}})) == expected


def test_file_of_100_mb_is_not_read(load: Load, tmp_path: Path) -> None:
    load({"noorderict": {}})
    with (tmp_path / "noorderict/a.yml").open("wb") as file:
        file.truncate(100 * 2**20)
    assert lines(load({"noorderict": {}})) == [
        "noorderict/a.yml: is too large (found 100 MiB); allowed: at most 10 MiB"
    ]


def test_links_and_pipes(load: Load, tmp_path: Path) -> None:
    load({"noorderict": {"a.yml": CUSTOMER}})
    folder = tmp_path / "noorderict"
    (tmp_path / "outside.yml").write_text(OTHER)
    (folder / "b.yml").symlink_to(tmp_path / "outside.yml")
    (folder / "c.yml").symlink_to("nowhere")
    (folder / "d.yml").mkdir()
    os.mkfifo(folder / "e.yml")
    assert lines(load({"noorderict": {}})) == [
        (
            "noorderict/b.yml: is a symbolic link that leads outside the customers' folder; allowed: files, and links to files "
            "beside them"
        ),
        "noorderict/c.yml: cannot be read: No such file or directory; allowed: a file that the operator may read",
        "noorderict/d.yml: is no file; allowed: files",
        "noorderict/e.yml: is no file; allowed: files",
    ]


def test_link_within_the_folder_is_read(load: Load, tmp_path: Path) -> None:
    load({"noorderict": {"real.txt": CUSTOMER}})
    (tmp_path / "noorderict/a.yml").symlink_to("real.txt")
    assert load({"noorderict": {}}).counts["customers"] == 1


def test_what_looks_like_a_file_but_is_not_read(load: Load, tmp_path: Path) -> None:
    load(
        {
            "noorderict": {
                "a.yml": CUSTOMER,
                "b.yml.bak": OTHER,
                ".c.yml": OTHER,
                "d.yml~": OTHER,
                "README.md": "",
                "E.YAML": OTHER,
            }
        }
    )
    (tmp_path / "noorderict/north").mkdir()
    (tmp_path / "noorderict/north/x.yml").write_text(OTHER)
    site = load({"noorderict": {}})
    assert site.counts["customers"] == 2
    allowed = "files that end in .yml, directly in the folder"
    assert [str(warning) for warning in site.warnings] == [
        f"host_vars of noorderict: reseller_customers: has noorderict/b.yml.bak, which is not read; allowed: {allowed}",
        f"host_vars of noorderict: reseller_customers: has noorderict/north, which is not read; allowed: {allowed}",
    ]


# --- contracts ----------------------------------------------------------------------------------------------------------

CONTRACT_KEYS = (
    "reseller_brand, reseller_customers, reseller_domain, reseller_engineer, reseller_expunged_days, reseller_language, reseller_limits, "
    "reseller_limits_override, "
    "reseller_machines, reseller_prices, reseller_products, reseller_retention_days, reseller_telephony_image, reseller_title"
)
CONTRACTS = {
    "without a folder": (
        {"reseller_customers": ...},
        ['reseller_customers: is missing; allowed: a folder, such as "{{ inventory_dir }}/../../customers/noorderict"'],
    ),
    "with a folder that depends on where one stands": (
        {"reseller_customers": "customers"},
        ['reseller_customers: is no absolute path (found "customers"); allowed: a folder, such as "{{ inventory_dir }}/../../customers/noorderict"'],
    ),
    "with a folder that does not exist": (
        {"reseller_customers": "/nonexistent"},
        ['reseller_customers: cannot be read: No such file or directory (found "/nonexistent"); allowed: a folder that exists; it may be empty'],
    ),
    "misspelt variable": (
        {"reseller_limts": {"users": {"max": 1}}},
        [f'reseller_limts: unknown variable; did you mean "reseller_limits"? (found a mapping); allowed: {CONTRACT_KEYS}'],
    ),
    "misspelt limit": (
        {"reseller_limits": {"mail_storrage": {"max": "1 GiB"}}},
        [
            ('reseller_limits.mail_storrage: unknown limit; did you mean "mail_storage"? (found a mapping); allowed: aliases, '
            "call_spend_per_day, concurrent_calls, customers, domains, extensions, file_storage, groups, mail_sent_per_hour, "
            "mail_storage, numbers, users")
        ],
    ),
    "override without a limit": (
        {"reseller_limits_override": {"users": {"enforce": "soft"}}},
        ["reseller_limits_override.users: lacks the key max; allowed: max, as reseller_limits has none"],
    ),
    "size that is too large": (
        {"reseller_limits": {"mail_storage": {"max": "99999 PiB"}}},
        ['reseller_limits.mail_storage.max: is too large (found "99999 PiB"); allowed: at most 8191 PiB'],
    ),
    "product of an unknown meter": (
        {"reseller_products": {"mailbox_1g": {"meter": "usr"}, "mailbox_flex": {"meter": "user"}}},
        [
            ('reseller_products.mailbox_1g.meter: unknown value; did you mean "user"? (found "usr"); allowed: customer, domain, extension, '
            "file_storage_gib, mail_storage_gib, number, user")
        ],
    ),
    "product with a strange name": (
        {"reseller_products": {"Mailbox 1": {"meter": "user"}, "mailbox_1g": {"meter": "user"}}},
        [
            ("reseller_products.Mailbox 1: has a name that is not allowed (found a mapping); allowed: 1 to 63 lower-case letters, digits, "
            "hyphens and underscores, such as mailbox_1g")
        ],
    ),
    "product without a price": (
        {"reseller_prices": {"extension": {"tiers": [{"from": 1, "price": "1"}]}}},
        [
            'reseller_products.mailbox_1g.meter: is billed by user, which has no price (found "user"); allowed: a price in reseller_prices.user',
            ("reseller_products.mailbox_flex.included.mail_storage: is billed by mail_storage_gib, which has no price (found 0); allowed: a "
            "price in reseller_prices.mail_storage_gib"),
            'reseller_products.mailbox_flex.meter: is billed by user, which has no price (found "user"); allowed: a price in reseller_prices.user',
        ],
    ),
    "price in floating point": (
        {"reseller_prices": {"user": {"tiers": [{"from": 1, "price": 1.5}]}, "mail_storage_gib": {"tiers": [{"from": 0, "price": 3}]}}},
        [
            ('reseller_prices.mail_storage_gib.tiers[0].price: is a number: put quotes around it (found 3); allowed: an amount between quotes, '
            'such as "250.00", or 0'),
            ("reseller_prices.user.tiers[0].price: is a number that loses cents: put quotes around it (found 1.5); allowed: an amount between "
            'quotes, such as "250.00", or 0'),
        ],
    ),
    "steps out of order": (
        {
            "reseller_prices": {
                "user": {"tiers": [{"from": 5, "price": "2"}, {"from": 5, "price": "1"}]},
                "mail_storage_gib": {"tiers": [{"from": 0, "price": "1"}]},
            }
        },
        [
            "reseller_prices.user.tiers[0].from: leaves what comes before it without a price (found 5); allowed: 0 or 1",
            "reseller_prices.user.tiers[1].from: does not come after the step before it (found 5); allowed: more than 5",
        ],
    ),
    "no steps": (
        {"reseller_prices": {"user": {"tiers": []}, "mail_storage_gib": {"tiers": [{"from": 0, "price": "1"}]}}},
        ["reseller_prices.user.tiers: is empty (found an empty list); allowed: at least 1"],
    ),
    "wrong everything": (
        {"reseller_domain": "noorderict", "reseller_engineer": "beheer", "reseller_retention_days": -1, "reseller_language": "vls",
         "reseller_expunged_days": 400},
        [
            'reseller_domain: has no dot (found "noorderict"); allowed: a domain, such as degraaf.example',
            'reseller_engineer: is no address (found "beheer"); allowed: an address, such as jan@degraaf.example',
            "reseller_expunged_days: is too large (found 400); allowed: a whole number from 0 to 365",
            'reseller_language: unknown value (found "vls"); allowed: de, en, fr, nl',
            "reseller_retention_days: is too small (found -1); allowed: a whole number from 0 to 3650",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "expected"), CONTRACTS.values(), ids=CONTRACTS)
def test_contract(load: Load, changes: Mapping[str, Any], expected: list[str]) -> None:
    found = lines(load({"noorderict": {}}, {"noorderict": changes}))
    assert found == [f"host_vars of noorderict: {line}" for line in expected]


def test_reseller_without_a_contract() -> None:
    site = estate.load_site({"noorderict": {"ansible_host": "x", "site_domain": "bouwsteen.example"}})
    assert lines(site) == [
        (
            "host_vars of noorderict: has no contract: no variable reseller_* is set for it; allowed: reseller_customers, "
            "reseller_domain, reseller_engineer, reseller_title"
        )
    ]


def test_reseller_with_a_name_that_is_no_name(load: Load) -> None:
    assert lines(load({"Noorder_ICT": {}})) == [
        (
            'host_vars of Noorder_ICT: is no name (found "Noorder_ICT"); allowed: 1 to 63 lower-case letters, digits and '
            "hyphens, such as bakkerij-de-graaf"
        )
    ]


def test_customers_folder_in_an_inventory(load: Load, tmp_path: Path) -> None:
    inventory = tmp_path / "inventories/demo"
    (inventory / "customers").mkdir(parents=True)
    contract = {"reseller_customers": str(inventory / "customers")}
    assert lines(load({"noorderict": {}}, {"noorderict": contract}, inventories=[str(inventory)])) == [
        (
            "host_vars of noorderict: reseller_customers: lies in an inventory, which would read it as inventory "
            f"(found {shown(contract['reseller_customers'])}); allowed: a folder outside inventories/demo"
        )
    ]


def test_two_resellers_with_one_folder_or_domain(load: Load, tmp_path: Path) -> None:
    shared = {"reseller_customers": str(tmp_path / "noorderict")}
    site = load(
        {"noorderict": {}, "zuidwest": {}, "oost": {}},
        {"zuidwest": shared, "oost": {"reseller_domain": "a.noorderict.example"}},
    )
    assert [(finding.file, finding.key, finding.problem) for finding in site.errors] == [
        ("host_vars of noorderict", "reseller_domain", "is the domain of reseller zuidwest"),
        ("host_vars of zuidwest", "reseller_customers", "is the folder of reseller noorderict"),
        ("host_vars of zuidwest", "reseller_domain", "is the domain of reseller noorderict"),
        ("host_vars of oost", "reseller_domain", "is below the domain of reseller noorderict"),
        ("host_vars of oost", "reseller_domain", "is below the domain of reseller zuidwest"),
    ]


MACHINES = {
    "one machine is filled in": ({}, {"mail": ["m1.example"]}, [], {"mail": "m1.example"}),
    "no machine with a function": ({}, {}, [], {}),
    "two machines": (
        {}, {"mail": ["m1.example", "m2.example"]},
        ["host_vars of noorderict: reseller_machines.mail: is missing: 2 machines have this function; allowed: m1.example, m2.example"], None,
    ),
    "unknown machine": (
        {"reseller_machines": {"mail": "m3.example"}}, {"mail": ["m1.example", "m2.example"]},
        ['host_vars of noorderict: reseller_machines.mail: is no machine of group mail (found "m3.example"); allowed: m1.example, m2.example'], None,
    ),
    "function that no machine has": (
        {"reseller_machines": {"exchange": "pbx1.example"}}, {},
        [('host_vars of noorderict: reseller_machines.exchange: is no machine of group exchange (found "pbx1.example"); allowed: no machine '
         "has function exchange in this inventory")], None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "groups", "expected", "placement"), MACHINES.values(), ids=MACHINES)
def test_placement(load: Load, changes: Any, groups: Any, expected: list[str], placement: Any) -> None:
    site = load({"noorderict": {}}, {"noorderict": changes}, groups=groups)
    assert lines(site) == expected
    assert placement is None or site.estates["noorderict"]["reseller"]["placement"] == placement


def test_hostile_mistakes_are_not_costly(load: Load) -> None:
    """Five thousand wrong references among five thousand people: suggestions stop, lists are not sorted each time."""
    people = "".join(f"  - {{login: u{number}@a.example, name: U, product: mailbox_1g}}\n" for number in range(5000))
    members = ", ".join(f"x{number}@a.example" for number in range(5000))
    text = f"customer: a\ntitle: A\ndomains: [a.example]\nusers:\n{people}groups: [{{name: g, members: [{members}]}}]\n"
    start = time.monotonic()
    site = load(text)
    assert time.monotonic() - start < 40
    assert len(site.errors) == 5000
    assert site.errors[0].allowed == "one of 5000"
    many = load(
        CUSTOMER + f"groups: [{{name: g, members: [{', '.join(f'jan{n}@degraaf.example' for n in range(100))}]}}]\n"
    )
    assert ["did you mean" in error.problem for error in many.errors].count(True) == 50


def test_names_of_files_and_keys_do_not_reach_the_terminal_as_they_are(load: Load) -> None:
    other = changed("customer: slagerij", "customer: bakkerij", OTHER)
    name = "a\x1b[2J\u202e.yml"
    site = load({"noorderict": {name: CUSTOMER, "b.yml": other + f'"{"k" * 200}": 1\n'}})
    assert all(line.isprintable() for line in lines(site))
    assert "noorderict/a\\x1b[2J\\u202e.yml" in lines(site)[0]
    assert f"noorderict/b.yml:13: {'k' * 100}...: unknown key" in lines(site)[1]


# --- brands and machines ---------------------------------------------------------------------------------------------


def test_two_resellers_who_look_alike_are_refused(load: Load) -> None:
    files: dict[str, dict[str, str | bytes]] = {"noorderict": {}, "zuidwest": {}}
    brand = {"reseller_brand": {"colour": "#0b5394"}}
    near = SECOND | {"reseller_title": "noorder  ICT", "reseller_brand": {"colour": "#0b5396"}}
    assert lines(load(files, {"noorderict": brand, "zuidwest": near})) == [
        (
            "host_vars of zuidwest: reseller_brand: looks like reseller noorderict: title and logo are the same, and colours "
            "#0b5396 and #0b5394 are hard to tell apart; allowed: another title, logo or colour"
        )
    ]
    far = near | {"reseller_brand": {"colour": "#9a3b00"}}
    assert lines(load(files, {"noorderict": brand, "zuidwest": far})) == []
    other = near | {"reseller_title": "Zuidwest"}
    assert lines(load(files, {"noorderict": brand, "zuidwest": other})) == []


def test_a_brand_that_cannot_be_shown(load: Load, tmp_path: Path) -> None:
    (tmp_path / "logo.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>")
    brand = {"logo": str(tmp_path / "logo.svg"), "colour": "blauw", "support": "hulp", "color": "#0b5394"}
    found = lines(load({"noorderict": {}}, {"noorderict": {"reseller_brand": brand}}))
    assert found == [
        (
            'host_vars of noorderict: reseller_brand.color: unknown key; did you mean "colour"? (found "#0b5394"); '
            "allowed: colour, logo, support"
        ),
        (
            'host_vars of noorderict: reseller_brand.colour: is no colour (found "blauw"); '
            'allowed: six hexadecimal digits after a # and between quotes, such as "#0b5394"'
        ),
        (
            f'host_vars of noorderict: reseller_brand.logo: is an SVG with an element script (found "{tmp_path}/logo.svg"); '
            "allowed: an SVG drawing without scripts, foreign objects, animations, document types and anything from elsewhere"
        ),
        (
            'host_vars of noorderict: reseller_brand.support: is neither an address nor a URL (found "hulp"); '
            "allowed: an address such as help@noorderict.example, or a URL that starts with https://"
        ),
    ]


def test_groupware_without_what_it_works_through(load: Load) -> None:
    groups = {"groupware": ["m1.example"], "web_gateway": ["m1.example"]}
    assert lines(load({"noorderict": {}}, groups=groups)) == [
        (
            "group groupware: m1.example: is not in group portal, which groupware works through; "
            "allowed: machines that are in web_gateway and portal as well"
        )
    ]
