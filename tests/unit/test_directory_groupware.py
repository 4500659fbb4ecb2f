# SPDX-License-Identifier: GPL-3.0-or-later
"""What SOGo gets when it asks, and what it may write: asked as its own role, in its own words."""

from __future__ import annotations

from typing import Any

import psycopg2
import pytest

HASH = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$Zmlyc3RmaXJzdA"
CHOSEN = "$argon2id$v=19$m=65536,t=2,p=1$c2FsdHNhbHQ$Z2Vrb3plbg"
ALIASES = "directie@degraaf.example info@degraaf.example"


class SOGo:
    """The directory as SOGo sees it, on one connection. `machine`: the inventory name it says it is."""

    def __init__(self, database: Any, machine: str = "") -> None:
        self.connection = database.connect("sogo")
        self.connection.autocommit = True
        if machine:
            self.rows("SELECT set_config('bouwsteen.machine', %s, false)", machine)

    def rows(self, query: str, *values: Any) -> list[Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    def find(self, who: str, columns: str = "c_uid") -> list[Any]:
        """As SOGo looks for one by uid, login or address."""
        rows = self.rows(
            f"SELECT {columns} FROM people WHERE (c_uid = %s OR login = %s OR mail = %s OR aliases = %s)",
            who, who, who.lower(), who.lower(),
        )  # fmt: skip
        return [row[0] if len(row) == 1 else row for row in rows]

    def password(self, login: str) -> str | None:
        rows = self.rows("SELECT c_password FROM people WHERE (c_uid = %s OR login = %s)", login, login)
        return rows[0][0] if rows else None

    def book(self, customer: str, text: str = "") -> list[str]:
        """Names that a search in the customer's address book finds."""
        rows = self.rows(
            "SELECT c_cn FROM people WHERE customer = %s AND (LOWER(c_cn) LIKE %s OR LOWER(mail) LIKE %s) ORDER BY 1",
            customer, f"%{text}%", f"%{text}%",
        )  # fmt: skip
        return [row[0] for row in rows]

    def folder(self, owner: str, name: str = "personal", kind: str = "Calendar") -> int:
        self.rows(
            "INSERT INTO sogo_folder_info (c_path, c_path1, c_path2, c_path3, c_path4, c_foldername, c_folder_type)"
            " VALUES (%s, 'Users', %s, %s, %s, 'Agenda', 'Appointment')",
            f"/Users/{owner}/{kind}/{name}", owner, kind, name,
        )  # fmt: skip
        path = f"/Users/{owner}/{kind}/{name}"
        return self.rows("SELECT c_folder_id FROM sogo_folder_info WHERE c_path = %s", path)[0][0]

    def grant(self, folder: int, uid: str) -> None:
        self.rows(
            "INSERT INTO sogo_acl (c_object, c_uid, c_role, c_folder_id) VALUES ('/x', %s, 'PublicViewer', %s)",
            uid, folder,
        )  # fmt: skip

    def event(self, folder: int, organizer: str, attendees: dict[str, int], name: str = "e.ics") -> None:
        """One event as SOGo writes it: its text and its row for searches, in one transaction."""
        with self.connection.cursor() as cursor:
            cursor.execute("BEGIN")
            try:
                cursor.execute("INSERT INTO sogo_store VALUES (%s, %s, 'BEGIN:VCALENDAR', 1, 1, 0)", (folder, name))
                cursor.execute(
                    "INSERT INTO sogo_quick_appointment (c_folder_id, c_name, c_uid, c_title, c_classification,"
                    " c_isopaque, c_status, c_component, c_orgmail, c_partmails, c_partstates)"
                    " VALUES (%s, %s, 'u', 'Overleg', 0, 1, 1, 'vevent', %s, %s, %s)",
                    (folder, name, organizer, "\n".join(attendees), "\n".join(map(str, attendees.values()))),
                )
            except psycopg2.Error:
                cursor.execute("ROLLBACK")
                raise
            cursor.execute("COMMIT")


@pytest.fixture
def sogo(database: Any) -> SOGo:
    return SOGo(database)


@pytest.fixture
def estate(accounts: Any) -> dict[str, str]:
    """Three customers: bakery and doctors of one reseller, builders of another. Jan has two aliases, zoe no mail."""
    one = accounts.reseller()
    two = accounts.reseller("zuidwest")
    found = {"one": one, "two": two}
    for reseller, name, domain in (
        (one, "bakkerij", "degraaf.example"), (one, "artsen", "delinde.example"), (two, "bouw", "vandermeer.example"),
    ):  # fmt: skip
        found[name] = accounts.customer(reseller, name)
        accounts.domain(reseller, found[name], domain)
    for reseller, customer, person, domain in (
        (one, "bakkerij", "jan", "degraaf.example"), (one, "bakkerij", "eva", "degraaf.example"),
        (one, "artsen", "renee", "delinde.example"), (two, "bouw", "kees", "vandermeer.example"),
    ):  # fmt: skip
        found[person] = accounts.user(reseller, found[customer], f"{person}@{domain}", password_hash=HASH)
    accounts.user(one, found["bakkerij"], "zoe@degraaf.example", mail=False)
    for alias in ALIASES.split():
        accounts.alias(one, found["bakkerij"], found["jan"], alias)
    found["bakkers"] = accounts.group(one, found["bakkerij"], "bakkers@degraaf.example", [found["jan"]])
    found["kamer"] = accounts.resource(one, found["bakkerij"], "kamer@degraaf.example")
    return found


# ------------------------------------------------------------------------------------------------------------ people


@pytest.mark.parametrize("who", ["jan@degraaf.example", "Jan@DeGraaf.example", "uid"])
def test_a_person_is_found_by_login_and_uid(sogo: SOGo, estate: dict[str, str], who: str) -> None:
    assert sogo.find(estate["jan"] if who == "uid" else who, "c_uid, mail, aliases, imap_login, c_cn") == [
        (estate["jan"], "jan@degraaf.example", ALIASES, "jan@degraaf.example", "Jan")
    ]


@pytest.mark.parametrize("who", ["zoe@degraaf.example", "niemand@degraaf.example", "", "' OR '1'='1", "@x.example"])
def test_nobody(sogo: SOGo, estate: dict[str, str], who: str) -> None:
    assert sogo.find(who) == []
    assert sogo.password(who) is None


def test_an_address_book_ends_at_its_customer(sogo: SOGo, estate: dict[str, str]) -> None:
    assert sogo.book(estate["bakkerij"]) == ["Eva", "Jan", "bakkers", "kamer"]
    assert sogo.book(estate["artsen"]) == ["Renee"]
    assert sogo.book(estate["bouw"]) == ["Kees"]
    assert sogo.book(estate["artsen"], "jan") == []


def test_lists_and_rooms_cannot_log_in(sogo: SOGo, estate: dict[str, str]) -> None:
    for address, uid, kind, bookings in (
        ("bakkers@degraaf.example", "bakkers", None, 0), ("kamer@degraaf.example", "kamer", "location", 1),
    ):  # fmt: skip
        columns = "c_uid, c_password, kind, multiple_bookings, login"
        assert sogo.find(address, columns) == [(estate[uid], "!", kind, bookings, None)]
        assert sogo.password(address) is None


def test_a_room_may_take_more_bookings(sogo: SOGo, accounts: Any, estate: dict[str, str]) -> None:
    accounts.execute("""UPDATE directory.resources SET settings = '{"bookings": 3}'""")
    assert sogo.find("kamer@degraaf.example", "multiple_bookings") == [3]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE directory.users SET state = 'suspended', suspended_because = 'file' WHERE login LIKE 'jan@%'",
        "UPDATE directory.customers SET state = 'suspended', suspended_because = 'file' WHERE name = 'bakkerij'",
        "UPDATE directory.resellers SET state = 'suspended', suspended_because = 'absent' WHERE name = 'noorderict'",
    ],
)
def test_who_is_suspended_stays_in_the_book_and_cannot_log_in(
    sogo: SOGo, accounts: Any, estate: dict[str, str], statement: str
) -> None:
    assert sogo.password("jan@degraaf.example") == HASH
    accounts.execute(statement)
    assert sogo.password("jan@degraaf.example") == "!"
    assert "Jan" in sogo.book(estate["bakkerij"])
    assert sogo.password("kees@vandermeer.example") == HASH


def test_who_waits_for_removal_is_gone(sogo: SOGo, accounts: Any, estate: dict[str, str]) -> None:
    accounts.execute(
        "UPDATE directory.users SET state = 'removed-pending', suspended_because = 'absent' WHERE login LIKE 'jan@%'"
    )
    assert sogo.find("jan@degraaf.example") == []


def test_a_renamed_person_is_the_same_one(sogo: SOGo, accounts: Any, estate: dict[str, str]) -> None:
    accounts.execute("UPDATE directory.users SET login = 'johan@degraaf.example' WHERE login = 'jan@degraaf.example'")
    assert sogo.find("jan@degraaf.example") == []
    assert sogo.find("johan@degraaf.example", "c_uid, aliases") == [(estate["jan"], ALIASES)]


def test_people_who_swap_their_logins(sogo: SOGo, accounts: Any, estate: dict[str, str]) -> None:
    accounts.execute(
        "BEGIN; SET CONSTRAINTS ALL DEFERRED;"
        "UPDATE directory.users SET login = 'x@degraaf.example' WHERE login = 'jan@degraaf.example';"
        "UPDATE directory.users SET login = 'jan@degraaf.example' WHERE login = 'eva@degraaf.example';"
        "UPDATE directory.users SET login = 'eva@degraaf.example' WHERE login = 'x@degraaf.example'; COMMIT"
    )
    assert sogo.find("jan@degraaf.example") == [estate["eva"]]
    assert sogo.find("eva@degraaf.example") == [estate["jan"]]


def test_an_address_that_comes_back_is_somebody_else(sogo: SOGo, accounts: Any, estate: dict[str, str]) -> None:
    sogo.folder(estate["jan"])
    accounts.execute("DELETE FROM directory.users WHERE login = 'jan@degraaf.example'")
    accounts.user(estate["one"], estate["bakkerij"], "jan@degraaf.example", password_hash=HASH)
    assert sogo.find("jan@degraaf.example") not in ([], [estate["jan"]])
    assert sogo.rows("SELECT * FROM sogo_folder_info") == []


def test_aliases_come_and_go(sogo: SOGo, accounts: Any, estate: dict[str, str]) -> None:
    accounts.execute("DELETE FROM directory.addresses WHERE address = 'info@degraaf.example'")
    assert sogo.find("jan@degraaf.example", "aliases") == ["directie@degraaf.example"]
    accounts.execute("UPDATE directory.addresses SET user_id = %s WHERE kind = 'alias'", (estate["eva"],))
    assert sogo.find("jan@degraaf.example", "aliases") == [None]
    assert sogo.find("eva@degraaf.example", "aliases") == ["directie@degraaf.example"]


def test_probes_are_found_and_in_nobodys_book(sogo: SOGo, accounts: Any, estate: dict[str, str]) -> None:
    customer = accounts.customer(estate["one"], "verify", kind="probe")
    accounts.domain(estate["one"], customer, "verify.noorderict.example", kind="probe")
    accounts.user(estate["one"], customer, "probe@verify.noorderict.example", kind="probe", password_hash=HASH)
    assert sogo.password("probe@verify.noorderict.example") == HASH
    assert not any("Probe" in sogo.book(estate[name]) for name in ("bakkerij", "artsen", "bouw"))


def test_a_machine_sees_the_resellers_placed_on_it(database: Any, accounts: Any, estate: dict[str, str]) -> None:
    accounts.execute(
        """UPDATE directory.resellers SET placement = '{"groupware": "gw1", "mail": "m1"}' WHERE name = 'noorderict'"""
    )
    here, elsewhere = SOGo(database, "gw1"), SOGo(database, "gw2")
    assert here.find("jan@degraaf.example", "imap_host, sieve_host") == [("imaps://m1:993", "sieve://m1:4190/?tls=YES")]
    assert elsewhere.find("jan@degraaf.example") == []
    for machine in (here, elsewhere):
        assert machine.find("kees@vandermeer.example", "imap_host") == [None]


# --------------------------------------------------------------------------------------------------------- passwords


def test_a_password_chosen_in_webmail(sogo: SOGo, accounts: Any, estate: dict[str, str]) -> None:
    sogo.rows("UPDATE people SET c_password = %s WHERE c_uid = %s", f"{{argon2id}}{CHOSEN}", estate["jan"])
    assert sogo.password("jan@degraaf.example") == f"{{ARGON2ID}}{CHOSEN}"
    assert sogo.password("eva@degraaf.example") == HASH
    rows = accounts.execute(
        "SELECT password_changed_at > now() - interval '1 minute', password_first FROM directory.users"
        " WHERE login = 'jan@degraaf.example'"
    )
    assert rows == [(True, None)]
    audit = accounts.execute("SELECT actor, after FROM directory.audit ORDER BY audit_id DESC LIMIT 1")
    assert audit[0][0] == "jan@degraaf.example"
    assert CHOSEN not in str(audit)


@pytest.mark.parametrize("name", ["jan@degraaf.example", "Jan@DeGraaf.example", "k.o'neill@degraaf.example"])
def test_a_password_is_changed_of_who_logged_in_by_login(
    sogo: SOGo, accounts: Any, estate: dict[str, str], name: str
) -> None:
    """As SOGo writes it, with the name that somebody typed."""
    accounts.user(estate["one"], estate["bakkerij"], "k.o'neill@degraaf.example", password_hash=HASH)
    sogo.rows("UPDATE people SET c_password = %s WHERE c_uid = %s", f"{{argon2id}}{CHOSEN}", name)
    assert sogo.password(name) == f"{{ARGON2ID}}{CHOSEN}"
    assert sogo.password("eva@degraaf.example") == HASH


@pytest.mark.parametrize("name", ["niemand@degraaf.example", "kamer@degraaf.example"])
def test_a_password_of_nobody_is_not_changed(sogo: SOGo, estate: dict[str, str], name: str) -> None:
    with pytest.raises(psycopg2.Error, match="no password to change"):
        sogo.rows("UPDATE people SET c_password = %s WHERE c_uid = %s", f"{{argon2id}}{CHOSEN}", name)


@pytest.mark.parametrize("password", ["geheim", "{plain}geheim", "{md5}5f4dcc3b5aa765d61d8327deb882cf99", "!", ""])
def test_only_a_slow_hash_is_taken(sogo: SOGo, estate: dict[str, str], password: str) -> None:
    with pytest.raises(psycopg2.errors.CheckViolation, match="password_hash"):
        sogo.rows("UPDATE people SET c_password = %s WHERE c_uid = %s", password, estate["jan"])


def test_who_is_suspended_changes_no_password(sogo: SOGo, accounts: Any, estate: dict[str, str]) -> None:
    accounts.execute(
        "UPDATE directory.users SET state = 'suspended', suspended_because = 'file' WHERE login LIKE 'jan@%'"
    )
    with pytest.raises(psycopg2.Error, match="no password to change"):
        sogo.rows("UPDATE people SET c_password = %s WHERE c_uid = %s", f"{{argon2id}}{CHOSEN}", estate["jan"])


@pytest.mark.parametrize("column", ["login", "mail", "customer", "c_uid", "c_cn", "aliases"])
def test_nothing_else_of_a_person_can_be_changed(sogo: SOGo, estate: dict[str, str], column: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        sogo.rows(f"UPDATE people SET {column} = 'x' WHERE c_uid = %s", estate["jan"])


# --------------------------------------------------------------------------------------------------------- isolation


@pytest.mark.parametrize("who", ["eva", "kamer"])
def test_sharing_within_a_customer(sogo: SOGo, estate: dict[str, str], who: str) -> None:
    folder = sogo.folder(estate["jan"])
    sogo.grant(folder, estate[who])
    assert sogo.rows("SELECT c_uid FROM sogo_acl WHERE c_folder_id = %s", folder) == [(estate[who],)]


@pytest.mark.parametrize(
    "who",
    [
        "renee",
        "kees",
        "bakkers",
        "anonymous",
        "<default>",
        "@bakkers",
        "kees@vandermeer.example",
        "eva@degraaf.example",
        "",
    ],
)
def test_sharing_with_anybody_else_is_refused(sogo: SOGo, estate: dict[str, str], who: str) -> None:
    folder = sogo.folder(estate["jan"])
    with pytest.raises(psycopg2.Error, match="within its own organisation only") as refusal:
        sogo.grant(folder, estate.get(who, who))
    assert refusal.value.pgcode == "BW006"
    sogo.grant(folder, estate["eva"])
    with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState):
        sogo.rows("UPDATE sogo_acl SET c_uid = %s", estate.get(who, who))


def test_a_grant_is_taken_back(sogo: SOGo, estate: dict[str, str]) -> None:
    folder = sogo.folder(estate["jan"])
    sogo.grant(folder, estate["eva"])
    sogo.rows("DELETE FROM sogo_acl WHERE c_folder_id = %s AND (c_uid = %s)", folder, estate["eva"])
    assert sogo.rows("SELECT * FROM sogo_acl") == []


def test_colleagues_see_when_a_room_is_taken(sogo: SOGo, estate: dict[str, str]) -> None:
    folder = sogo.folder(estate["kamer"])
    path = f"/{estate['kamer']}/Calendar/personal"
    query = "SELECT c_role FROM sogo_acl WHERE c_folder_id = %s AND c_object = %s AND c_uid = %s ORDER BY 1"
    roles = [("ConfidentialDAndTViewer",), ("PrivateDAndTViewer",), ("PublicDAndTViewer",)]
    assert sogo.rows(query, folder, path, estate["jan"]) == roles
    for stranger in (estate["renee"], estate["kees"], "<default>", "anonymous"):
        assert sogo.rows(query, folder, path, stranger) == []
    assert sogo.rows("SELECT * FROM sogo_acl WHERE c_folder_id = %s", sogo.folder(estate["jan"])) == []


def test_a_folder_that_is_nobodys_is_shared_with_nobody(sogo: SOGo, estate: dict[str, str]) -> None:
    with pytest.raises(psycopg2.Error, match="within its own organisation only"):
        sogo.grant(4711, estate["eva"])


@pytest.mark.parametrize(
    ("names", "same"),
    [
        (["jan@degraaf.example", "eva"], True),
        (["Jan@Degraaf.example", "jan", "eva", "kamer"], True),
        (["jan", "kees"], False),
        (["jan", "renee"], False),
        (["kees", "jan"], False),
        (["jan", "anonymous"], False),
        (["jan", "<default>"], False),
        (["jan", "niemand@degraaf.example"], False),
        (["jan", "kees@vandermeer.example"], False),
        ([], False),
    ],
)
def test_same_customer(sogo: SOGo, estate: dict[str, str], names: list[str], same: bool) -> None:
    asked = [estate.get(name, name) for name in names]
    assert sogo.rows("SELECT groupware.same_customer(%s::text[])", asked) == [(same,)]


def test_an_invitation_stands_in_a_colleagues_calendar(sogo: SOGo, estate: dict[str, str]) -> None:
    sogo.event(sogo.folder(estate["eva"]), "jan@degraaf.example", {"eva@degraaf.example": 0})
    assert sogo.rows("SELECT c_orgmail FROM sogo_quick_appointment") == [("jan@degraaf.example",)]


@pytest.mark.parametrize("organizer", ["kees@vandermeer.example", "Renee@delinde.example"])
def test_an_invitation_of_another_organisation_waits_in_the_mail(
    sogo: SOGo, estate: dict[str, str], organizer: str
) -> None:
    folder = sogo.folder(estate["jan"])
    guests = {"x@elders.example": 1, "Info@degraaf.example": 0}
    with pytest.raises(psycopg2.Error, match="comes by mail"):
        sogo.event(folder, organizer, guests)
    assert sogo.rows("SELECT * FROM sogo_store") == []
    # Taken from the mail by its receiver.
    for state in (1, 2, 3):
        sogo.event(folder, organizer, guests | {"Info@degraaf.example": state}, name=f"{state}.ics")
    assert sogo.rows("SELECT count(*) FROM sogo_quick_appointment") == [(3,)]


def test_an_invitation_from_outside_is_taken(sogo: SOGo, estate: dict[str, str]) -> None:
    sogo.event(sogo.folder(estate["jan"]), "klant@elders.example", {"jan@degraaf.example": 0})
    assert sogo.rows("SELECT count(*) FROM sogo_quick_appointment") == [(1,)]


@pytest.mark.parametrize("organizer", ["kees@vandermeer.example", "renee@delinde.example", "klant@elders.example"])
def test_a_room_is_booked_from_within_only(sogo: SOGo, estate: dict[str, str], organizer: str) -> None:
    folder = sogo.folder(estate["kamer"])
    with pytest.raises(psycopg2.Error, match="comes by mail"):
        sogo.event(folder, organizer, {"kamer@degraaf.example": 1})
    sogo.event(folder, "jan@degraaf.example", {"kamer@degraaf.example": 1})
    assert sogo.rows("SELECT c_orgmail FROM sogo_quick_appointment") == [("jan@degraaf.example",)]


# ----------------------------------------------------------------------------------------------------------- removal


@pytest.mark.parametrize("table", ["users", "customers"])
def test_what_somebody_had_goes_with_him(sogo: SOGo, accounts: Any, estate: dict[str, str], table: str) -> None:
    mine, evas = sogo.folder(estate["jan"]), sogo.folder(estate["renee"])
    for folder, uid in ((mine, estate["jan"]), (evas, estate["renee"])):
        sogo.event(folder, "", {})
        sogo.rows("INSERT INTO sogo_quick_contact (c_folder_id, c_name, c_component) VALUES (%s, 'c', 'vcard')", folder)
        sogo.rows("INSERT INTO sogo_user_profile VALUES (%s, '{}', '{}')", uid)
        sogo.rows("INSERT INTO sogo_cache_folder VALUES (%s, '/d', '', 1, 1, 1, 0, 0, '')", uid)
    sogo.grant(mine, estate["eva"])
    path = f"/Users/{estate['jan']}/Calendar/personal"
    sogo.rows("INSERT INTO sogo_alarms_folder VALUES (%s, 'e.ics', 'u', NULL, 0, 1)", path)
    before = {"users": "login LIKE 'jan@%%'", "customers": "name = 'bakkerij'"}[table]
    accounts.execute(f"DELETE FROM directory.{table} WHERE {before}")
    for name in ("store", "quick_appointment", "quick_contact", "folder_info"):
        assert sogo.rows(f"SELECT DISTINCT c_folder_id FROM sogo_{name}") == [(evas,)]
    for name in ("user_profile", "cache_folder"):
        assert sogo.rows(f"SELECT c_uid FROM sogo_{name}") == [(estate["renee"],)]
    for name in ("acl", "alarms_folder"):
        assert sogo.rows(f"SELECT * FROM sogo_{name}") == []


def test_grants_to_somebody_go_with_him(sogo: SOGo, accounts: Any, estate: dict[str, str]) -> None:
    sogo.grant(sogo.folder(estate["jan"]), estate["eva"])
    accounts.execute("DELETE FROM directory.users WHERE login = 'eva@degraaf.example'")
    assert sogo.rows("SELECT * FROM sogo_acl") == []


# ------------------------------------------------------------------------------------------------------------- speed


def test_one_of_many_is_found_through_indexes(sogo: SOGo, accounts: Any, estate: dict[str, str], database: Any) -> None:
    """With a table scan among them, every login would cost as much as all people together."""
    accounts.domain(estate["one"], estate["artsen"], "veel.example")
    accounts.users(estate["one"], estate["artsen"], 5000, "veel.example")
    database.rows("ANALYZE")
    for query in (
        "SELECT * FROM people WHERE (c_uid = 'x' OR login = 'u7@veel.example' OR mail = 'x' OR aliases = 'x')",
        "SELECT c_password FROM people WHERE (c_uid = 'x' OR login = 'u7@veel.example')",
        f"SELECT * FROM people WHERE customer = '{estate['bakkerij']}' AND (LOWER(c_cn) LIKE '%j%')",
    ):
        plan = "\n".join(row[0] for row in sogo.rows(f"EXPLAIN {query}"))
        assert "Seq Scan on identities" not in plan, plan
        assert "Seq Scan on users" not in plan, plan
