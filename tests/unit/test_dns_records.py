# SPDX-License-Identifier: GPL-3.0-or-later
"""What records a site needs, how they are written, and how they are compared with what DNS answers."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import dns_records as dns

MACHINE = {"name": "m1.bouwsteen.example", "addresses": ["192.0.2.10", "2001:DB8::10"], "tlsa": ["3 1 1 " + "AB" * 32]}
RESELLER = {
    "name": "noorderict",
    "domain": "noorderict.example",
    "engineer": "beheer@noorderict.example",
    "machine": None,
}
KEY = base64.b64encode(bytes(range(256)) + bytes(38)).decode()


def domain(**changes: Any) -> dict[str, Any]:
    return {
        "name": "degraaf.example",
        "kind": "customer",
        "alias_of": None,
        "customer": "bakkerij-de-graaf",
        "reseller": "noorderict",
        "reseller_domain": "noorderict.example",
        "engineer": "beheer@noorderict.example",
        "machine": None,
        "keys": [{"selector": "s1", "algorithm": "rsa", "public_key": KEY, "state": "active"}],
    } | changes


def lines(records: list[dns.Record]) -> list[str]:
    return [str(record) for record in records]


def test_a_customers_domain_has_all_that_it_needs() -> None:
    found = lines(dns.domain_records(domain(), MACHINE, dns.Settings()))
    assert "degraaf.example. 3600 IN MX 10 m1.bouwsteen.example." in found
    assert 'degraaf.example. 3600 IN TXT "v=spf1 include:_spf.noorderict.example -all"' in found
    report = "rua=mailto:beheer@noorderict.example"
    assert f'_dmarc.degraaf.example. 3600 IN TXT "v=DMARC1; p=quarantine; {report}"' in found
    assert f'_smtp._tls.degraaf.example. 3600 IN TXT "v=TLSRPTv1; {report}"' in found
    assert "_imaps._tcp.degraaf.example. 3600 IN SRV 0 1 993 mail.noorderict.example." in found
    assert "_submissions._tcp.degraaf.example. 3600 IN SRV 0 1 465 mail.noorderict.example." in found
    assert "_sieve._tcp.degraaf.example. 3600 IN SRV 0 1 4190 mail.noorderict.example." in found
    assert not [line for line in found if "_mta-sts" in line], "no policy is served, so none is promised"
    assert len(found) == 10


def test_a_signing_key_is_cut_in_parts_that_give_it_back_whole() -> None:
    record = next(
        record for record in dns.domain_records(domain(), MACHINE, dns.Settings()) if "_domainkey" in record.name
    )
    assert record.name == "s1._domainkey.degraaf.example."
    parts = re.findall(r'"([^"]*)"', record.value)
    assert [len(part) for part in parts][:-1] == [255] * (len(parts) - 1)
    assert len(parts) > 1
    assert "".join(parts) == f"v=DKIM1; k=rsa; p={KEY}"


def test_keys_of_mail_under_way_stay_published_and_unknown_states_do_not() -> None:
    keys = [
        {"selector": state, "algorithm": "rsa", "public_key": KEY, "state": state}
        for state in ("active", "next", "retired", "forgotten")
    ]
    found = lines(dns.domain_records(domain(keys=keys), MACHINE, dns.Settings()))
    assert [line.split(".")[0] for line in found if "_domainkey" in line] == ["active", "next", "retired"]


def test_a_reseller_has_the_name_of_his_peoples_programs_and_may_be_reported_to() -> None:
    found = lines(
        dns.reseller_records(RESELLER, MACHINE, ["degraaf.example", "verify.noorderict.example"], dns.Settings())
    )
    assert found == [
        "mail.noorderict.example. 3600 IN A 192.0.2.10",
        "mail.noorderict.example. 3600 IN AAAA 2001:db8::10",
        '_spf.noorderict.example. 3600 IN TXT "v=spf1 ip4:192.0.2.10 ip6:2001:DB8::10 -all"',
        'degraaf.example._report._dmarc.noorderict.example. 3600 IN TXT "v=DMARC1"',
    ]


def test_a_machine_has_its_own_neutral_name_with_tlsa_and_caa() -> None:
    found = lines(dns.machine_records(MACHINE, dns.Settings(caa=("ca.example",), ttl=60)))
    assert f"_25._tcp.m1.bouwsteen.example. 60 IN TLSA 3 1 1 {'ab' * 32}" in found
    assert 'm1.bouwsteen.example. 60 IN CAA 0 issue "ca.example"' in found
    assert 'm1.bouwsteen.example. 60 IN TXT "v=spf1 a -all"' in found
    assert "srs.m1.bouwsteen.example. 60 IN MX 10 m1.bouwsteen.example." in found
    assert 'srs.m1.bouwsteen.example. 60 IN TXT "v=spf1 a:m1.bouwsteen.example -all"' in found
    assert "m1.bouwsteen.example. 60 IN AAAA 2001:db8::10" in found


def test_fragments_are_by_domain_and_hold_each_record_once() -> None:
    found = dns.fragments(
        [MACHINE], [RESELLER], [domain(), domain(name="verify.noorderict.example", kind="probe")], dns.Settings()
    )
    assert list(found) == ["degraaf.example", "m1.bouwsteen.example", "noorderict.example", "verify.noorderict.example"]
    every = [line for records in found.values() for line in lines(records)]
    assert len(every) == len(set(every))
    text = dns.zone_text(found["degraaf.example"])
    assert text.startswith("_dmarc.degraaf.example. 3600 IN TXT ")
    assert text.endswith("\n")


def test_a_reseller_whose_own_domain_is_a_customers_too_gets_one_fragment() -> None:
    found = dns.fragments([MACHINE], [RESELLER], [domain(name="noorderict.example")], dns.Settings())
    names = {record.name for record in found["noorderict.example"]}
    assert {"mail.noorderict.example.", "noorderict.example.", "_dmarc.noorderict.example."} <= names


WEB = {"name": "web1.bouwsteen.example", "addresses": ["192.0.2.20"], "tlsa": []}


def test_without_groupware_nobody_is_sent_to_it() -> None:
    found = dns.fragments([MACHINE], [RESELLER], [domain()], dns.Settings())
    every = " ".join(line for records in found.values() for line in lines(records))
    assert not [word for word in ("webmail", "autodiscover", "autoconfig", "_caldavs", "CNAME") if word in every]


def test_programs_find_groupware_from_a_mail_address() -> None:
    found = dns.fragments([MACHINE], [RESELLER], [domain()], dns.Settings(ttl=60, caa=("ca.example",)), [WEB])
    assert lines(found["web1.bouwsteen.example"]) == [
        "web1.bouwsteen.example. 60 IN A 192.0.2.20",
        'web1.bouwsteen.example. 60 IN CAA 0 issue "ca.example"',
    ]
    for site in ("webmail", "account", "autodiscover", "autoconfig"):
        assert f"{site}.noorderict.example. 60 IN A 192.0.2.20" in lines(found["noorderict.example"])
        assert f'{site}.noorderict.example. 60 IN CAA 0 issue "ca.example"' in lines(found["noorderict.example"])
    plain = dns.domain_records(domain(), MACHINE, dns.Settings(ttl=60))
    assert sorted(set(lines(found["degraaf.example"])) - set(lines(plain))) == [
        "_autodiscover._tcp.degraaf.example. 60 IN SRV 0 1 443 autodiscover.noorderict.example.",
        "_caldavs._tcp.degraaf.example. 60 IN SRV 0 1 443 webmail.noorderict.example.",
        '_caldavs._tcp.degraaf.example. 60 IN TXT "path=/SOGo/dav/"',
        "_carddavs._tcp.degraaf.example. 60 IN SRV 0 1 443 webmail.noorderict.example.",
        '_carddavs._tcp.degraaf.example. 60 IN TXT "path=/SOGo/dav/"',
        "autoconfig.degraaf.example. 60 IN CNAME autoconfig.noorderict.example.",
        "autodiscover.degraaf.example. 60 IN CNAME autodiscover.noorderict.example.",
    ]


def test_one_machine_for_mail_and_groupware_has_its_records_once() -> None:
    found = dns.fragments([MACHINE], [RESELLER], [], dns.Settings(), [MACHINE])
    assert found[MACHINE["name"]] == dns.fragments([MACHINE], [], [], dns.Settings())[MACHINE["name"]]
    assert "webmail.noorderict.example. 3600 IN AAAA 2001:db8::10" in lines(found["noorderict.example"])


def test_beside_an_alias_there_is_nothing_else() -> None:
    """A reseller who is his own customer, and a customer with a domain that another guesses at."""
    domains = [domain(name=name) for name in ("noorderict.example", "degraaf.example", "autoconfig.degraaf.example")]
    found = dns.fragments([MACHINE], [RESELLER], domains, dns.Settings(), [WEB])
    every = [record for records in found.values() for record in records]
    aliases = {record.name for record in every if record.type == "CNAME"}
    assert not aliases & {record.name for record in every if record.type != "CNAME"}
    assert aliases == {
        "autoconfig.autoconfig.degraaf.example.",
        "autodiscover.autoconfig.degraaf.example.",
        "autodiscover.degraaf.example.",
    }
    assert "autodiscover.noorderict.example. 3600 IN A 192.0.2.20" in lines(found["noorderict.example"])


def test_placement_decides_between_groupware_machines() -> None:
    second = WEB | {"name": "web2.bouwsteen.example", "addresses": ["192.0.2.21"]}
    found = dns.fragments([MACHINE], [RESELLER | {"groupware": second["name"]}], [], dns.Settings(), [WEB, second])
    assert "webmail.noorderict.example. 3600 IN A 192.0.2.21" in lines(found["noorderict.example"])
    message = "noorderict: no groupware machine is named, and there are 2; set reseller_machines.groupware"
    with pytest.raises(dns.RecordError, match=re.escape(message)):
        dns.fragments([MACHINE], [RESELLER], [], dns.Settings(), [WEB, second])


def test_placement_decides_between_machines() -> None:
    second = MACHINE | {"name": "m2.bouwsteen.example"}
    found = dns.fragments(
        [MACHINE, second],
        [RESELLER | {"machine": "m2.bouwsteen.example"}],
        [domain(machine="m2.bouwsteen.example")],
        dns.Settings(),
    )
    assert "degraaf.example. 3600 IN MX 10 m2.bouwsteen.example." in lines(found["degraaf.example"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"machine": "gone.example"},
            "degraaf.example: mail machine gone.example is not among m1.bouwsteen.example, m2.example",
        ),
        ({}, "degraaf.example: no mail machine is named, and there are 2; set reseller_machines.mail"),
    ],
)
def test_a_placement_that_leads_nowhere_is_an_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(dns.RecordError, match=re.escape(message)):
        dns.fragments([MACHINE, MACHINE | {"name": "m2.example"}], [], [domain(**change)], dns.Settings())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dns.tlsa("4 1 1 00"), "4 1 1 00 is no TLSA value; allowed: 3 1 1 HEX"),
        (lambda: dns.address("x.example", "1.2.3", 60), "x.example: 1.2.3 is no IP address"),
        (lambda: dns.dkim({"selector": "s1", "public_key": "é"}), "public key of selector s1 is no base64"),
        (
            lambda: dns.fragments([], [], [], dns.Settings(dmarc="maybe")),
            "DMARC policy maybe; allowed: none, quarantine, reject",
        ),
        (
            lambda: dns.machine_facts({"inventory_hostname": "m1.example"}),
            "m1.example: no address is known; set dns_addresses",
        ),
    ],
)
def test_facts_that_make_no_record(call: Any, message: str) -> None:
    with pytest.raises((dns.RecordError, ValueError), match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("value", "written"),
    [("", '""'), ('a"b\\c', '"a\\"b\\\\c"'), ("é", '"\\195\\169"'), ("x" * 256, '"' + "x" * 255 + '" "x"')],
)
def test_text_is_quoted_and_cut(value: str, written: str) -> None:
    assert dns.text(value) == written


def test_addresses_come_from_facts_unless_the_outside_uses_others() -> None:
    facts = {
        "default_ipv4": {"address": "192.0.2.7"},
        "default_ipv6": {},
        "all_ipv6_addresses": ["fe80::1", "2001:db8::7"],
    }
    read = {
        "certificates": [{"name": "m1.example", "tlsa": ["3 1 1 00"]}, {"name": "mail.x.example", "tlsa": ["3 1 1 11"]}]
    }
    host = {"inventory_hostname": "m1.example", "ansible_facts": facts, "__dns_certificates": read}
    assert dns.machine_facts(host) == {
        "name": "m1.example",
        "addresses": ["192.0.2.7", "2001:db8::7"],
        "tlsa": ["3 1 1 00"],
    }
    assert dns.machine_facts(host | {"dns_addresses": ["198.51.100.1"]})["addresses"] == ["198.51.100.1"]


# ------------------------------------------------------------------------------------------------ compare


def answers_of(records: list[dns.Record]) -> dict[tuple[str, str], list[str]]:
    result: dict[tuple[str, str], list[str]] = {}
    for record in records:
        result.setdefault((record.name, record.type), []).append(record.value)
    return result


def test_all_is_well() -> None:
    records = dns.domain_records(domain(), MACHINE, dns.Settings())
    assert {difference.state for difference in dns.compare(records, answers_of(records))} == {"ok"}


def test_what_is_missing_or_wrong_is_said_with_what_was_found() -> None:
    records = dns.domain_records(domain(), MACHINE, dns.Settings())
    answers = answers_of(records)
    answers["degraaf.example.", "MX"] = ["10 mx.elders.example."]
    del answers["_imaps._tcp.degraaf.example.", "SRV"]
    bad = [str(difference) for difference in dns.compare(records, answers) if difference.state != "ok"]
    assert bad == [
        "missing _imaps._tcp.degraaf.example. SRV: wanted 0 1 993 mail.noorderict.example.",
        "wrong   degraaf.example. MX: found 10 mx.elders.example.; wanted 10 m1.bouwsteen.example.",
    ]


def test_another_path_to_the_calendars_is_wrong() -> None:
    records = dns.groupware_domain_records(domain(), dns.Settings())
    answers = answers_of(records)
    answers["_caldavs._tcp.degraaf.example.", "TXT"] = ['"path=/dav/"']
    answers["autodiscover.degraaf.example.", "CNAME"] = ["autodiscover.elders.example."]
    bad = [str(difference) for difference in dns.compare(records, answers) if difference.state != "ok"]
    assert bad == [
        'wrong   _caldavs._tcp.degraaf.example. TXT: found "path=/dav/"; wanted "path=/SOGo/dav/"',
        (
            "wrong   autodiscover.degraaf.example. CNAME: found autodiscover.elders.example.; "
            "wanted autodiscover.noorderict.example."
        ),
    ]


def test_other_peoples_text_is_none_of_our_business_but_a_second_spf_record_is() -> None:
    records = [
        record for record in dns.domain_records(domain(), MACHINE, dns.Settings()) if record.name == "degraaf.example."
    ]
    answers = answers_of(records)
    answers["degraaf.example.", "TXT"].append('"some-verification=1"')
    assert {difference.state for difference in dns.compare(records, answers)} == {"ok"}
    answers["degraaf.example.", "TXT"].append('"v=spf1 mx -all"')
    assert [difference.state for difference in dns.compare(records, answers)] == ["ok", "wrong"]
