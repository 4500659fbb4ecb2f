# SPDX-License-Identifier: GPL-3.0-or-later
"""What Postfix and Dovecot get when they ask: asked as their own roles, of a directory as it is in life."""

from __future__ import annotations

import threading
from typing import Any

import psycopg2
import pytest

HASH = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$Zmlyc3RmaXJzdA"
FULL = 1000


class Mail:
    """The directory as the mail services see it, on one connection for each of them."""

    def __init__(self, database: Any) -> None:
        self.connections = {}
        for role in ("postfix", "dovecot"):
            self.connections[role] = database.connect(role)
            self.connections[role].autocommit = True

    def rows(self, role: str, query: str, *values: Any) -> list[Any]:
        with self.connections[role].cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall() if cursor.description else []

    def domain(self, name: str, machine: str | None = "mail1") -> str | None:
        return self.rows("postfix", "SELECT mail.domain(%s, %s)", name, machine)[0][0]

    def mailbox(self, address: str, machine: str | None = "mail1") -> str | None:
        return self.rows("postfix", "SELECT mail.mailbox(%s, %s)", address, machine)[0][0]

    def targets(self, address: str, machine: str | None = "mail1") -> list[str]:
        return [row[0] for row in self.rows("postfix", "SELECT mail.targets(%s, %s)", address, machine)]

    def senders(self, address: str) -> list[str]:
        return [row[0] for row in self.rows("postfix", "SELECT mail.senders(%s)", address)]

    def status(self, address: str, machine: str | None = "mail1") -> str | None:
        return self.rows("postfix", "SELECT mail.recipient_status(%s, %s)", address, machine)[0][0]

    def may_send(self, login: str, fallback: int = 0) -> str | None:
        return self.rows("postfix", "SELECT mail.may_send(%s, %s)", login, fallback)[0][0]

    def password(self, login: str, machine: str | None = "mail1") -> list[Any]:
        return self.rows("dovecot", "SELECT login, password FROM mail.dovecot_password(%s, %s)", login, machine)

    def user(self, login: str, machine: str | None = "mail1") -> list[Any]:
        return self.rows("dovecot", "SELECT * FROM mail.dovecot_user(%s, %s)", login, machine)


@pytest.fixture
def mail(database: Any) -> Mail:
    return Mail(database)


@pytest.fixture
def bakery(accounts: Any) -> dict[str, str]:
    """A customer with an alias domain, four people, a list, a shared mailbox and a room.

    jan: alias info@. eva: forwards elsewhere, keeps a copy. piet: forwards to jan and elsewhere, keeps none.
    zoe: telephone only.
    """
    reseller = accounts.reseller()
    customer = accounts.customer(reseller)
    accounts.domain(reseller, customer)
    accounts.domain(reseller, customer, "graaf.example", alias_of="degraaf.example")
    people = {
        name: accounts.user(reseller, customer, f"{name}@degraaf.example", password_hash=HASH, mail_quota=FULL)
        for name in ("jan", "eva", "piet")
    }
    people["zoe"] = accounts.user(reseller, customer, "zoe@degraaf.example", mail=False)
    accounts.alias(reseller, customer, people["jan"], "info@degraaf.example")
    accounts.forward(reseller, customer, people["eva"], "eva@elders.example")
    accounts.forward(reseller, customer, people["piet"], "jan@degraaf.example")
    accounts.forward(reseller, customer, people["piet"], "piet@elders.example")
    accounts.execute("UPDATE directory.users SET keep_copy = false WHERE login = 'piet@degraaf.example'")
    members = [people["jan"], people["eva"], people["zoe"]]
    accounts.group(reseller, customer, "bakkers@degraaf.example", members)
    accounts.group(reseller, customer, "winkel@degraaf.example", members, kind="shared_mailbox")
    accounts.resource(reseller, customer, "kamer@degraaf.example")
    return {"reseller": reseller, "customer": customer, **people}


def full(address: str) -> str:
    return f"452 4.2.2 <{address}>: mailbox is full"


# --------------------------------------------------------------------------------------------------------- Postfix


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("degraaf.example", "degraaf.example"),
        ("DeGraaf.Example", "degraaf.example"),
        ("graaf.example", "graaf.example"),
        ("noorderict.example", None),
        ("example", None),
        ("", None),
    ],
)
def test_domains(mail: Mail, bakery: dict[str, str], name: str, found: str | None) -> None:
    assert mail.domain(name) == found


# address: (mailbox, targets, senders)
LOOKUPS = {
    "jan@degraaf.example": ("jan", [], ["jan"]),
    "JAN@DeGraaf.example": ("jan", [], ["jan"]),
    "jan+nieuws@degraaf.example": ("jan", [], ["jan"]),
    "info@degraaf.example": (None, ["jan@degraaf.example"], ["jan"]),
    "info+x@degraaf.example": (None, ["jan+x@degraaf.example"], ["jan"]),
    "eva@degraaf.example": ("eva", ["eva@elders.example", "eva@degraaf.example"], ["eva"]),
    "eva+x@degraaf.example": ("eva", ["eva@elders.example", "eva+x@degraaf.example"], ["eva"]),
    "piet@degraaf.example": ("piet", ["jan@degraaf.example", "piet@elders.example"], ["piet"]),
    "zoe@degraaf.example": (None, [], []),
    "bakkers@degraaf.example": (None, ["eva@degraaf.example", "jan@degraaf.example"], []),
    "bakkers+x@degraaf.example": (None, ["eva@degraaf.example", "jan@degraaf.example"], []),
    "winkel@degraaf.example": (None, ["eva@degraaf.example", "jan@degraaf.example"], ["eva", "jan"]),
    "kamer@degraaf.example": ("kamer", [], []),
    "niemand@degraaf.example": (None, [], []),
    "@degraaf.example": (None, [], []),
    "jan@graaf.example": (None, ["jan@degraaf.example"], ["jan"]),
    "info+x@graaf.example": (None, ["info+x@degraaf.example"], ["jan"]),
    "winkel@graaf.example": (None, ["winkel@degraaf.example"], ["eva", "jan"]),
    "niemand@graaf.example": (None, [], []),
    "postmaster@degraaf.example": (None, ["beheer@noorderict.example"], []),
    "abuse@degraaf.example": (None, ["beheer@noorderict.example"], []),
    "Postmaster@graaf.example": (None, ["postmaster@degraaf.example"], []),
    "jan@elders.example": (None, [], []),
    "jan": (None, [], []),
    "": (None, [], []),
}


@pytest.mark.parametrize("address", LOOKUPS)
def test_addresses(mail: Mail, bakery: dict[str, str], address: str) -> None:
    mailbox, targets, senders = LOOKUPS[address]
    assert mail.mailbox(address) == (mailbox and f"{mailbox}@degraaf.example")
    assert mail.targets(address) == targets
    assert mail.senders(address) == [f"{name}@degraaf.example" for name in senders]


def test_an_address_of_the_alias_domain_itself_wins(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    accounts.alias(bakery["reseller"], bakery["customer"], bakery["eva"], "info@graaf.example")
    assert mail.targets("info@graaf.example") == ["eva@degraaf.example"]
    assert mail.targets("info@degraaf.example") == ["jan@degraaf.example"]


def test_an_address_with_a_plus_of_its_own_wins(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    accounts.alias(bakery["reseller"], bakery["customer"], bakery["eva"], "jan+winkel@degraaf.example")
    assert mail.targets("jan+winkel@degraaf.example") == ["eva@degraaf.example"]
    assert mail.mailbox("jan+winkel@degraaf.example") is None
    assert mail.mailbox("jan+anders@degraaf.example") == "jan@degraaf.example"


def test_postmaster_of_ones_own(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    accounts.alias(bakery["reseller"], bakery["customer"], bakery["eva"], "postmaster@degraaf.example")
    assert mail.targets("postmaster@degraaf.example") == ["eva@degraaf.example"]
    accounts.execute("UPDATE directory.resellers SET engineer = 'abuse@degraaf.example'")
    assert mail.targets("abuse@degraaf.example") == []


def test_a_catch_all_comes_last(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    accounts.alias(bakery["reseller"], bakery["customer"], bakery["jan"], "@degraaf.example", kind="catch_all")
    for address, (mailbox, targets, _senders) in LOOKUPS.items():
        if (mailbox or targets) and address:
            assert mail.targets(address) == targets, address
    for address in (
        "niemand@degraaf.example",
        "niemand+x@degraaf.example",
        '"a b"@degraaf.example',
        "a@b@degraaf.example",
    ):
        assert mail.targets(address) == ["jan@degraaf.example"]
        assert mail.mailbox(address) is None
    assert mail.targets("niemand@graaf.example") == ["niemand@degraaf.example"]
    assert mail.targets("@degraaf.example") == []
    assert mail.senders("niemand@degraaf.example") == []


def test_a_catch_all_of_the_alias_domain(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    accounts.alias(bakery["reseller"], bakery["customer"], bakery["eva"], "@graaf.example", kind="catch_all")
    assert mail.targets("niemand@graaf.example") == ["eva@degraaf.example"]
    assert mail.targets("info@graaf.example") == ["info@degraaf.example"]
    assert mail.targets("abuse@graaf.example") == ["abuse@degraaf.example"]
    assert mail.targets("niemand@degraaf.example") == []


@pytest.mark.parametrize(
    "key",
    [
        "' OR '1'='1", "jan@degraaf.example' --", "\\'; DROP TABLE directory.users; --", "%", "_", "%@degraaf.example",
        "*@degraaf.example", "jan@degraaf.example\n", "jan@degraaf.example\x01", "jan @degraaf.example",
        "j\u00e1n@degraaf.example",
        "{{ 7*7 }}@degraaf.example", "x" * 100_000 + "@degraaf.example", "+@degraaf.example", "+x@degraaf.example",
        "jan@degraaf.example@elders.example", "jan@degraaf.example.", "$1", "jan@[10.0.0.1]", "@", "@@",
        "ｊａｎ@degraaf.example",
    ],
)  # fmt: skip
def test_hostile_keys_find_nothing(mail: Mail, bakery: dict[str, str], key: str) -> None:
    assert (mail.domain(key), mail.mailbox(key), mail.targets(key), mail.senders(key)) == (None, None, [], [])
    assert mail.status(key) is None
    assert mail.user(key) == []
    assert mail.may_send(key, 1) is None
    [(login, password)] = mail.password(key)
    assert login == key
    assert password != HASH
    assert mail.rows("dovecot", "SELECT mail.app_password(%s, %s, 'imap', 'mail1')", key, key) == [(None,)]
    mail.rows("dovecot", "INSERT INTO mail.quota_usage (bytes, username) VALUES (1, %s)", key)
    mail.rows("dovecot", "INSERT INTO mail.last_login (last_access, username, protocol) VALUES (1, %s, 'imap')", key)
    assert len(mail.rows("dovecot", "SELECT mail.dovecot_users(NULL)")) == 4


# ----------------------------------------------------------------------------------------------- suspended and gone


@pytest.mark.parametrize("level", ["users", "customers", "resellers"])
@pytest.mark.parametrize("because", ["file", "absent"])
def test_suspended_keeps_receiving_and_can_do_nothing_else(
    mail: Mail, accounts: Any, bakery: dict[str, str], level: str, because: str
) -> None:
    accounts.execute(f"UPDATE directory.{level} SET state = 'suspended', suspended_because = %s", (because,))
    assert mail.domain("degraaf.example") == "degraaf.example"
    assert mail.mailbox("jan@degraaf.example") == "jan@degraaf.example"
    assert mail.targets("info@degraaf.example") == ["jan@degraaf.example"]
    # Forwards rest: what arrives waits in the mailbox.
    assert mail.targets("eva@degraaf.example") == []
    assert mail.targets("piet@degraaf.example") == []
    assert mail.targets("bakkers@degraaf.example") == ["eva@degraaf.example", "jan@degraaf.example"]
    assert mail.status("jan@degraaf.example") is None
    assert len(mail.user("jan@degraaf.example")) == 1
    assert mail.senders("jan@degraaf.example") == []
    assert mail.senders("info@degraaf.example") == []
    assert mail.senders("winkel@degraaf.example") == []
    assert mail.password("jan@degraaf.example")[0][1] != HASH
    accounts.use("piet@degraaf.example", FULL)
    assert mail.status("piet@degraaf.example") == full("piet@degraaf.example")


@pytest.mark.parametrize("level", ["users", "customers", "resellers"])
def test_about_to_be_removed_is_gone(mail: Mail, accounts: Any, bakery: dict[str, str], level: str) -> None:
    accounts.execute(f"UPDATE directory.{level} SET state = 'removed-pending', suspended_because = 'absent'")
    for address in ("jan@degraaf.example", "info@degraaf.example", "bakkers@degraaf.example", "jan@graaf.example"):
        assert (mail.mailbox(address), mail.targets(address), mail.senders(address)) == (None, [], [])
    assert mail.user("jan@degraaf.example") == []
    assert mail.password("jan@degraaf.example")[0][1] != HASH
    assert (mail.domain("degraaf.example") is None) == (level != "users")


# --------------------------------------------------------------------------------------------------------- placement


def test_a_reseller_is_served_where_it_is_placed(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    accounts.execute('UPDATE directory.resellers SET placement = \'{"mail": "mail2"}\'')
    for machine, here in (("mail1", False), ("mail2", True), (None, True)):
        assert (mail.domain("degraaf.example", machine) is not None) is here
        assert (mail.mailbox("jan@degraaf.example", machine) is not None) is here
        assert (mail.targets("info@degraaf.example", machine) != []) is here
        assert (mail.targets("jan@graaf.example", machine) != []) is here
        assert (mail.user("jan@degraaf.example", machine) != []) is here
        assert (mail.password("jan@degraaf.example", machine)[0][1] == HASH) is here
        assert (mail.rows("dovecot", "SELECT mail.dovecot_users(%s)", machine) != []) is here
    assert mail.senders("jan@degraaf.example") == ["jan@degraaf.example"]


# ------------------------------------------------------------------------------------------------------ full or not


# What is full (users, or a pool) -> addresses that are refused; all others are taken.
FULL_CASES: dict[str, tuple[list[str], set[str]]] = {
    "nobody": ([], set()),
    "jan": (["jan"], {"jan", "JAN", "jan+x", "info", "info+x"}),
    "eva, whose forward takes it": (["eva"], set()),
    "jan and eva, so the whole list but for her forward": (["jan", "eva"], {"jan", "JAN", "jan+x", "info", "info+x"}),
    "piet, who keeps no copy": (["piet"], set()),
}
ASKED = [
    "jan", "JAN", "jan+x", "info", "info+x", "eva", "piet", "bakkers", "bakkers+x", "winkel", "kamer", "zoe", "niemand",
    "postmaster",
]  # fmt: skip


@pytest.mark.parametrize("case", FULL_CASES)
@pytest.mark.parametrize("domain", ["degraaf.example", "graaf.example"])
def test_who_is_full(mail: Mail, accounts: Any, bakery: dict[str, str], case: str, domain: str) -> None:
    users, refused = FULL_CASES[case]
    for name in users:
        accounts.use(f"{name}@degraaf.example", FULL)
    for name in ASKED:
        address = f"{name}@{domain}"
        assert mail.status(address) == (full(address) if name in refused else None), address


def test_the_boundary_of_a_mailbox(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    for used, refused in ((FULL - 1, False), (FULL, True), (FULL + 1, True), (0, False)):
        accounts.use("jan@degraaf.example", used)
        assert (mail.status("jan@degraaf.example") is not None) is refused
    accounts.execute("UPDATE directory.users SET mail_quota = 0")
    assert mail.status("jan@degraaf.example") == full("jan@degraaf.example")
    accounts.execute("UPDATE directory.users SET mail_quota = NULL")
    assert mail.status("jan@degraaf.example") is None
    accounts.limit(bakery["reseller"], "mail_storage", 0, customer=bakery["customer"], user=bakery["jan"])
    assert mail.status("jan@degraaf.example") == full("jan@degraaf.example")


def test_a_list_is_refused_only_when_nobody_has_room(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    accounts.execute("DELETE FROM directory.forwards")
    address = "bakkers@degraaf.example"
    accounts.use("jan@degraaf.example", FULL)
    assert mail.status(address) is None
    accounts.use("eva@degraaf.example", FULL)
    assert mail.status(address) == full(address)
    assert mail.status("bakkers+x@graaf.example") == full("bakkers+x@graaf.example")


def test_a_list_with_one_member_is_refused_with_it(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    accounts.group(bakery["reseller"], bakery["customer"], "een@degraaf.example", [bakery["jan"]])
    accounts.use("jan@degraaf.example", FULL)
    assert mail.status("een@degraaf.example") == full("een@degraaf.example")


@pytest.mark.parametrize("level", ["customer", "reseller"])
@pytest.mark.parametrize("basis", ["used", "allocated"])
def test_a_full_pool_fills_all_mailboxes_under_it(
    mail: Mail, accounts: Any, bakery: dict[str, str], level: str, basis: str
) -> None:
    reseller, customer = bakery["reseller"], bakery["customer"]
    other = accounts.customer(reseller, "ander")
    accounts.domain(reseller, other, "ander.example")
    accounts.user(reseller, other, "ada@ander.example", mail_quota=FULL)
    accounts.limit(reseller, "mail_storage", 500, customer=customer if level == "customer" else None, basis=basis)
    accounts.use("jan@degraaf.example", 200)
    accounts.use("eva@degraaf.example", 299)
    assert mail.status("jan@degraaf.example") is None
    accounts.use("eva@degraaf.example", 300)
    for name, refused in (
        ("jan", True),
        ("info", True),
        ("kamer", True),
        ("bakkers", False),
        ("eva", False),
        ("piet", False),
    ):
        address = f"{name}@degraaf.example"
        assert mail.status(address) == (full(address) if refused else None), address
    assert mail.status("ada@ander.example") == (full("ada@ander.example") if level == "reseller" else None)
    # A soft limit refuses nothing.
    accounts.execute("UPDATE directory.limits SET enforce = 'soft'")
    assert mail.status("jan@degraaf.example") is None


def test_an_alias_of_an_alias_of_an_alias(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    """piet keeps nothing and forwards to info@ of the alias domain, which is jan, who is full."""
    accounts.execute("DELETE FROM directory.forwards")
    accounts.forward(bakery["reseller"], bakery["customer"], bakery["piet"], "info@graaf.example")
    accounts.use("jan@degraaf.example", FULL)
    assert mail.status("piet@degraaf.example") == full("piet@degraaf.example")
    assert mail.status("piet@graaf.example") == full("piet@graaf.example")
    accounts.use("jan@degraaf.example", 0)
    assert mail.status("piet@graaf.example") is None


def test_loops_end(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    reseller, customer = bakery["reseller"], bakery["customer"]
    accounts.execute("DELETE FROM directory.forwards")
    accounts.execute("UPDATE directory.users SET keep_copy = false")
    accounts.forward(reseller, customer, bakery["jan"], "eva@graaf.example")
    accounts.forward(reseller, customer, bakery["eva"], "bakkers@graaf.example")
    accounts.forward(reseller, customer, bakery["piet"], "piet@degraaf.example")
    with mail.connections["postfix"].cursor() as cursor:
        cursor.execute("SET statement_timeout = '5s'")
    for name in ("jan", "eva", "piet", "bakkers", "info"):
        assert mail.status(f"{name}@degraaf.example") is None
        assert mail.senders(f"{name}@degraaf.example") == (
            [] if name == "bakkers" else [f"{name.replace('info', 'jan')}@degraaf.example"]
        )
    accounts.execute("UPDATE directory.users SET keep_copy = true")
    for name in ("jan", "eva"):
        accounts.use(f"{name}@degraaf.example", FULL)
    assert mail.status("bakkers@degraaf.example") == full("bakkers@degraaf.example")


def test_a_long_chain_and_a_large_list_end(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    reseller, customer = bakery["reseller"], bakery["customer"]
    accounts.users(reseller, customer, 1500)
    accounts.execute("UPDATE directory.users SET keep_copy = false, mail_quota = 0 WHERE login LIKE 'u%'")
    accounts.execute(
        "INSERT INTO directory.forwards (reseller_id, customer_id, user_id, target)"
        " SELECT reseller_id, customer_id, user_id,"
        "   'u' || substring(login FROM '[0-9]+')::int + 1 || '@degraaf.example'"
        " FROM directory.users WHERE login LIKE 'u%'"
    )
    group = accounts.group(reseller, customer, "allen@degraaf.example", [])
    accounts.execute(
        "INSERT INTO directory.group_members (reseller_id, customer_id, group_id, user_id)"
        " SELECT reseller_id, customer_id, %s, user_id FROM directory.users WHERE login LIKE 'u%%'",
        (group,),
    )
    with mail.connections["postfix"].cursor() as cursor:
        cursor.execute("SET statement_timeout = '10s'")
    assert mail.status("u1@degraaf.example") is None  # over a thousand steps: Postfix says so itself
    assert mail.status("allen@degraaf.example") is None
    accounts.execute("DELETE FROM directory.forwards")
    assert mail.status("allen@degraaf.example") == full("allen@degraaf.example")
    assert len(mail.targets("allen@degraaf.example")) == 1500


# -------------------------------------------------------------------------------------------------------- Dovecot


def test_logins(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    assert mail.password("jan@degraaf.example") == [("jan@degraaf.example", HASH)]
    assert mail.password("Jan@DeGraaf.example") == [("jan@degraaf.example", HASH)]
    accounts.execute("UPDATE directory.users SET password_hash = NULL WHERE login = 'eva@degraaf.example'")
    dummies = set()
    for login in (
        "info@degraaf.example",
        "zoe@degraaf.example",
        "niemand@degraaf.example",
        "eva@degraaf.example",
        "jan@graaf.example",
        "kamer@degraaf.example",
    ):
        [(asked, dummy)] = mail.password(login)
        assert asked == login
        dummies.add(dummy)
    [dummy] = dummies
    # As dear to check as a real one, and no real one.
    assert dummy.split("$")[:4] == HASH.split("$")[:4]
    assert [len(part) for part in dummy.split("$")[4:]] == [22, 43]


def test_mailboxes(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    home = f"/var/vmail/noorderict/{bakery['customer']}"
    assert mail.user("JAN@degraaf.example") == [
        ("jan@degraaf.example", f"{home}/{bakery['jan']}", 200000, 200000, "1000B")
    ]
    [(login, room, uid, gid, quota)] = mail.user("kamer@degraaf.example")
    assert (login, uid, gid, quota) == ("kamer@degraaf.example", 200000, 200000, "0B")
    assert room.startswith(f"{home}/")
    for login in ("info@degraaf.example", "zoe@degraaf.example", "bakkers@degraaf.example", "jan+x@degraaf.example"):
        assert mail.user(login) == []
    names = [row[0].split("@")[0] for row in mail.rows("dovecot", "SELECT mail.dovecot_users('mail1')")]
    assert names == ["eva", "jan", "kamer", "piet"]


# Own quota, what jan uses (he and eva have 400 together), limit of the customer, of the reseller -> Dovecot's quota.
CEILINGS = [
    ((None, 0, None, None), "0B"),
    ((1000, 0, None, None), "1000B"),
    ((0, 0, None, None), "1B"),
    ((None, 10, 500, None), "110B"),  # 100 are free besides what he has
    ((1000, 10, 500, None), "110B"),
    ((50, 10, 500, None), "50B"),
    ((None, 10, None, 450), "60B"),
    ((None, 10, 500, 450), "60B"),
    ((None, 10, 300, None), "10B"),  # over it: nothing more
    ((None, 0, 0, None), "1B"),
    ((None, 0, None, 0), "1B"),
]


@pytest.mark.parametrize(("case", "size"), CEILINGS)
def test_the_tightest_ceiling_is_dovecots_quota(
    mail: Mail, accounts: Any, bakery: dict[str, str], case: tuple[int | None, ...], size: str
) -> None:
    own, used, customer, reseller = case
    assert used is not None
    accounts.execute("UPDATE directory.users SET mail_quota = %s WHERE login = 'jan@degraaf.example'", (own,))
    accounts.use("jan@degraaf.example", used)
    accounts.use("eva@degraaf.example", 400 - used)
    if customer is not None:
        accounts.limit(bakery["reseller"], "mail_storage", customer, customer=bakery["customer"])
    if reseller is not None:
        accounts.limit(bakery["reseller"], "mail_storage", reseller)
    assert mail.user("jan@degraaf.example")[0][4] == size


def usage(mail: Mail, columns: str, values: str, update: str) -> None:
    """As Dovecot's sql dict writes it."""
    mail.rows(
        "dovecot",
        f"INSERT INTO mail.quota_usage ({columns}) VALUES ({values}) ON CONFLICT (username) DO UPDATE SET {update}",
    )


def test_usage_arrives_under_the_owner(mail: Mail, accounts: Any, database: Any, bakery: dict[str, str]) -> None:
    found = "SELECT bytes, messages FROM directory.mail_usage WHERE owner_id = %s"
    usage(mail, "bytes,messages,username", "'100','3','jan@degraaf.example'", "bytes='100',messages='3'")
    assert database.rows(found, (bakery["jan"],)) == [(100, 3)]
    usage(mail, "bytes,username", "'50','JAN@degraaf.example'", "bytes='50'")
    assert database.rows(found, (bakery["jan"],)) == [(50, 3)]
    usage(mail, "messages,username", "'1','jan@degraaf.example'", "messages='1'")
    assert database.rows(found, (bakery["jan"],)) == [(50, 1)]
    usage(mail, "bytes,username", "'7','kamer@degraaf.example'", "bytes='7'")
    usage(mail, "bytes,username", "'-5','eva@degraaf.example'", "bytes='-5'")
    assert database.rows(found, (bakery["eva"],)) == [(0, 0)]
    for nobody in ("weg@degraaf.example", "info@degraaf.example"):
        usage(mail, "bytes,username", f"'9','{nobody}'", "bytes='9'")
    assert database.value("SELECT count(*) FROM directory.mail_usage") == 3
    assert database.value("SELECT count(*) FROM mail.quota_usage") == 0
    # The figures stay with the person, not with the name.
    accounts.execute("UPDATE directory.users SET login = 'johan@degraaf.example' WHERE user_id = %s", (bakery["jan"],))
    usage(mail, "bytes,username", "'60','johan@degraaf.example'", "bytes='60'")
    accounts.user(bakery["reseller"], bakery["customer"], "jan@degraaf.example")
    usage(mail, "bytes,username", "'1','jan@degraaf.example'", "bytes='1'")
    assert database.rows(found, (bakery["jan"],)) == [(60, 1)]
    assert accounts.execute("SELECT count(*) FROM directory.audit WHERE table_name LIKE '%usage'") == [(0,)]


def drift(database: Any) -> int:
    """How many customers' totals differ from the sum of their mailboxes: must be none."""
    return database.value(
        "SELECT count(*)"
        " FROM (SELECT reseller_id, customer_id, sum(bytes) AS bytes, sum(messages) AS messages"
        "       FROM directory.mail_usage GROUP BY 1, 2) s"
        " FULL JOIN directory.mail_totals t USING (reseller_id, customer_id)"
        " WHERE coalesce(s.bytes, 0) <> coalesce(t.bytes, 0) OR coalesce(s.messages, 0) <> coalesce(t.messages, 0)"
    )


def test_usage_of_many_at_once(mail: Mail, database: Any, accounts: Any, bakery: dict[str, str]) -> None:
    """Writers of the same mailboxes of two customers, one or all at once: no error, no total that drifts."""
    other = accounts.customer(bakery["reseller"], "ander")
    accounts.domain(bakery["reseller"], other, "ander.example")
    accounts.users(bakery["reseller"], other, 20, domain="ander.example")
    names = ["jan@degraaf.example", "eva@degraaf.example", *(f"u{number}@ander.example" for number in range(1, 21))]
    errors = []

    def write(number: int) -> None:
        connection = database.connect("dovecot" if number else "postgres")
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                for step in range(30):
                    if number:
                        cursor.execute(
                            "INSERT INTO mail.quota_usage (bytes,messages,username) VALUES (%s, %s, %s)"
                            " ON CONFLICT (username) DO UPDATE SET bytes=1,messages=1",
                            (step * number, step, names[(number + step) % len(names)]),
                        )
                    else:
                        cursor.execute("UPDATE directory.mail_usage SET bytes = bytes + 1000, messages = messages + 1")
        except psycopg2.Error as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"totals that drifted after 600 writes by 20 writers: {drift(database)}")
    assert errors == []
    assert drift(database) == 0
    accounts.execute("DELETE FROM directory.users WHERE login IN ('jan@degraaf.example', 'u1@ander.example')")
    assert drift(database) == 0
    accounts.execute("DELETE FROM directory.customers WHERE name = 'ander'")
    assert drift(database) == 0
    assert database.value("SELECT count(*) FROM directory.mail_totals") == 1


def test_the_probe_leaves_no_usage(mail: Mail, accounts: Any, database: Any, bakery: dict[str, str]) -> None:
    hidden = accounts.customer(bakery["reseller"], "verify", kind="probe")
    accounts.domain(bakery["reseller"], hidden, "verify.noorderict.example", kind="probe")
    accounts.user(bakery["reseller"], hidden, "probe@verify.noorderict.example", kind="probe", password_hash=HASH)
    usage(mail, "bytes,username", "'9','probe@verify.noorderict.example'", "bytes='9'")
    assert database.value("SELECT count(*) FROM directory.mail_usage") == 0
    assert mail.mailbox("probe@verify.noorderict.example") == "probe@verify.noorderict.example"
    assert mail.password("probe@verify.noorderict.example")[0][1] == HASH


def test_last_logins(mail: Mail, database: Any, bakery: dict[str, str]) -> None:
    for at, login, protocol in (
        (10, "jan@degraaf.example", "imap"),
        (20, "Jan@degraaf.example", "imap"),
        (30, "weg@x.example", "imap"),
    ):
        mail.rows("dovecot", "INSERT INTO mail.last_login (last_access,username,protocol) VALUES (%s,%s,%s)"
                  " ON CONFLICT (username,protocol) DO UPDATE SET last_access=%s", at, login, protocol, at)  # fmt: skip
    assert database.rows("SELECT user_id::text, protocol, last_access FROM directory.last_logins") == [
        (bakery["jan"], "imap", 20)
    ]


def test_app_passwords(mail: Mail, accounts: Any, database: Any, bakery: dict[str, str]) -> None:
    def add(label: str, password: str, protocols: list[str], expires: str | None = None, user: str = "jan") -> None:
        hashed = database.value("SELECT directory.crypt(%s, directory.gen_salt('bf', 4))", (password,))
        ids = {"reseller_id": bakery["reseller"], "customer_id": bakery["customer"], "user_id": bakery[user]}
        accounts.insert("app_passwords", **ids, label=label, hash=hashed, protocols=protocols, expires_at=expires)

    def login(login: str, password: str, protocol: str, machine: str = "mail1") -> str | None:
        query = "SELECT mail.app_password(%s, %s, %s, %s)"
        return mail.rows("dovecot", query, login, password, protocol, machine)[0][0]

    add("phone", "geheim1", ["imap", "smtp"])
    add("laptop", "geheim2", ["imap"])
    add("old", "geheim3", ["imap"], expires="2020-01-01")
    add("new", "geheim4", ["imap"], expires="2100-01-01")
    add("hers", "geheim5", ["imap"], user="eva")
    jan = "jan@degraaf.example"
    assert login("JAN@degraaf.example", "geheim1", "imap") == jan
    assert login(jan, "geheim1", "SMTP") == jan
    assert login(jan, "geheim2", "imap") == jan
    assert login(jan, "geheim4", "imap") == jan
    for name, password, protocol in (
        (jan, "geheim2", "smtp"), (jan, "geheim3", "imap"), (jan, "geheim5", "imap"), (jan, "", "imap"),
        (jan, "x", "imap"),
        ("eva@degraaf.example", "geheim1", "imap"), ("info@degraaf.example", "geheim1", "imap"),
        (jan, "' OR true --", "imap"), (jan, "geheim1", "' OR true --"),
    ):  # fmt: skip
        assert login(name, password, protocol) is None
    accounts.execute('UPDATE directory.resellers SET placement = \'{"mail": "mail2"}\'')
    assert login(jan, "geheim1", "imap") is None
    assert login(jan, "geheim1", "imap", "mail2") == jan
    accounts.execute("UPDATE directory.users SET state = 'suspended', suspended_because = 'file'")
    assert login(jan, "geheim1", "imap", "mail2") is None


def test_a_person_for_the_warning_mail(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    accounts.use("jan@degraaf.example", 950)
    accounts.execute(
        "UPDATE directory.users SET language = 'nl', name = 'Jan de Graaf' WHERE login = 'jan@degraaf.example'"
    )
    assert mail.rows("dovecot", "SELECT * FROM mail.person('Jan@degraaf.example')") == [
        (
            "jan@degraaf.example",
            "Jan de Graaf",
            "nl",
            "Noorderict",
            "beheer@noorderict.example",
            "noorderict.example",
            950,
            FULL,
        )
    ]


# -------------------------------------------------------------------------------------------------- sending limits


def test_sending_limits_at_three_levels(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    reseller, customer = bakery["reseller"], bakery["customer"]
    accounts.limit(reseller, "mail_sent_per_hour", 6)
    accounts.limit(reseller, "mail_sent_per_hour", 4, customer=customer)
    accounts.limit(reseller, "mail_sent_per_hour", 2, customer=customer, user=bakery["jan"])
    other = accounts.customer(reseller, "ander")
    accounts.domain(reseller, other, "ander.example")
    accounts.user(reseller, other, "ada@ander.example")
    account = "450 4.7.1 Sending limit of this account reached: 2 per hour"
    assert [mail.may_send("JAN@degraaf.example") for _ in range(3)] == [None, None, account]
    organisation = "450 4.7.1 Sending limit of this organisation reached: {} per hour"
    assert [mail.may_send("eva@degraaf.example") for _ in range(3)] == [None, None, organisation.format(4)]
    assert [mail.may_send("ada@ander.example") for _ in range(3)] == [None, None, organisation.format(6)]
    sent = dict(accounts.execute("SELECT owner_id::text, sent FROM directory.mail_sent"))
    # What was refused is not counted anywhere.
    assert (sent[reseller], sent[customer], sent[bakery["jan"]]) == (6, 4, 2)


def test_the_fallback_is_for_people_without_a_limit(mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    answer = "450 4.7.1 Sending limit of this account reached: 1 per hour"
    assert [mail.may_send("eva@degraaf.example", 1) for _ in range(2)] == [None, answer]
    assert [mail.may_send("piet@degraaf.example", 0) for _ in range(50)] == [None] * 50
    accounts.limit(bakery["reseller"], "mail_sent_per_hour", 3, customer=bakery["customer"], user=bakery["jan"])
    assert [mail.may_send("jan@degraaf.example", 1) for _ in range(3)] == [None] * 3
    accounts.limit(bakery["reseller"], "mail_sent_per_hour", 0)
    assert mail.may_send("jan@degraaf.example") == "450 4.7.1 Sending limit of this organisation reached: 0 per hour"


def test_the_hour_before_counts_in_part(mail: Mail, accounts: Any, database: Any, bakery: dict[str, str]) -> None:
    accounts.limit(bakery["reseller"], "mail_sent_per_hour", 100)
    mail.may_send("jan@degraaf.example")
    # An hour ago 100 were sent: what is left of that hour counts, so after x minutes about x * 100 / 60 may go.
    database.rows("UPDATE directory.mail_sent SET hour = hour - 1, sent = 100, before = 70")
    elapsed = database.value("SELECT extract(epoch FROM clock_timestamp())::bigint % 3600 / 3600.0")
    passed = 0
    while mail.may_send("jan@degraaf.example") is None:
        passed += 1
    assert abs(passed - int(float(elapsed) * 100)) <= 1
    # Two hours ago: forgotten.
    database.rows("UPDATE directory.mail_sent SET hour = hour - 2")
    assert mail.may_send("jan@degraaf.example") is None
    assert database.rows("SELECT sent, before FROM directory.mail_sent") == [(1, 0)]


def test_fifty_senders_at_once(database: Any, mail: Mail, accounts: Any, bakery: dict[str, str]) -> None:
    accounts.limit(bakery["reseller"], "mail_sent_per_hour", 30)
    accounts.users(bakery["reseller"], bakery["customer"], 50)
    answers = []

    def send(number: int) -> None:
        connection = database.connect("postfix")
        connection.autocommit = True
        with connection.cursor() as cursor:
            for _ in range(4):
                cursor.execute("SELECT mail.may_send(%s, 100)", (f"u{number}@degraaf.example",))
                answers.append(cursor.fetchone()[0])

    threads = [threading.Thread(target=send, args=(number,)) for number in range(1, 51)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"allowed 30, passed {answers.count(None)} of {len(answers)}")
    assert (answers.count(None), len(answers)) == (30, 200)


# ------------------------------------------------------------------------------------------------ rspamd and DNS


def test_dkim_keys(accounts: Any, database: Any, bakery: dict[str, str]) -> None:
    for selector, state in (("s1", "retired"), ("s2", "active"), ("s3", "next")):
        accounts.insert(
            "dkim_keys", reseller_id=bakery["reseller"], customer_id=bakery["customer"], domain="degraaf.example",
            selector=selector, private_key="-----BEGIN PRIVATE KEY-----", public_key="AAAA", state=state,
        )  # fmt: skip
    with pytest.raises(psycopg2.errors.UniqueViolation):
        accounts.execute("UPDATE directory.dkim_keys SET state = 'active'")
    keys = "SELECT selector, state FROM mail.dkim_{} WHERE domain = 'degraaf.example' ORDER BY 1"
    assert database.rows(keys.format("keys"), user="_rspamd") == [("s2", "active"), ("s3", "next")]
    assert database.rows(keys.format("public"), user="verify") == [("s1", "retired"), ("s2", "active"), ("s3", "next")]
    assert database.rows("SELECT domain, customer_id::text FROM mail.domain_owners ORDER BY 1", user="_rspamd") == [
        ("degraaf.example", bakery["customer"]), ("graaf.example", bakery["customer"]),
    ]  # fmt: skip
