# SPDX-License-Identifier: GPL-3.0-or-later
"""What is decided about certificates, without a machine and without cryptography."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.bouwsteen.hosting.plugins.module_utils import certificates as cert

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
POLICY = cert.Policy()
IDS = {"site_ca": "aa", "acme": "https://acme.example/dir"}


def wanted(**changes: Any) -> cert.Wanted:
    values: dict[str, Any] = {"name": "mail", "names": ("mail.noorderict.example",), "issuer": "site_ca"}
    return cert.Wanted(**{**values, **changes})


def present(left: float = 300, lifetime: float = 365, **changes: Any) -> cert.Present:
    """A certificate with `left` of `lifetime` days to go."""
    end = NOW + timedelta(days=left)
    values: dict[str, Any] = {
        "names": ("mail.noorderict.example",),
        "not_before": end - timedelta(days=lifetime),
        "not_after": end,
        "usage": "server",
        "key_type": "ec-p256",
        "key_generation": 1,
        "spki": "5f1c",
        "fingerprint": "f00d",
        "issuer": "site_ca",
        "issuer_id": "aa",
        "installed": NOW - timedelta(days=1),
    }
    return cert.Present(**{**values, **changes})


def next_key(age: float = 0, **changes: Any) -> cert.NextKey:
    values: dict[str, Any] = {"key_type": "ec-p256", "key_generation": 2, "spki": "beef"}
    return cert.NextKey(**{**values, "made": NOW - timedelta(days=age), **changes})


def step(want: cert.Wanted, have: Any, waiting: cert.NextKey | None = None, **more: Any) -> cert.Step:
    return cert.plan_one(want, have, waiting, IDS, more.pop("policy", POLICY), now=NOW, **more)


class TestWhatTheOperatorWrote:
    def parse(self, *items: dict[str, Any], challenge: str = "http-01") -> list[cert.Wanted]:
        return cert.parse_wanted(items, "site_ca", "ec-p256", challenge)

    def test_defaults_are_the_sites(self) -> None:
        assert self.parse({"name": "mail", "names": ["mail.noorderict.example"]}) == [wanted()]

    def test_doubled_names_and_other_spellings_of_addresses_are_one(self) -> None:
        (one,) = self.parse({"name": "m", "names": ["a.example", "fd00:b5:0::1", "FD00:B5::1", "a.example"]})
        assert one.names == ("a.example", "fd00:b5::1")

    @pytest.mark.parametrize(
        ("item", "message"),
        [
            (
                {"name": "a/b"},
                "a/b: the name is also a folder's name: small letters, digits, '.', '_' and '-' only",
            ),
            ({"name": ".."}, "..: the name is also a folder's name: small letters, digits, '.', '_' and '-' only"),
            ({"names": []}, "a: names: at least one is needed"),
            (
                {"names": ["Mail.example"]},
                "a: names: 'Mail.example' has capitals; host names are written in small letters",
            ),
            (
                {"names": ["bäcker.example"]},
                "a: names: 'bäcker.example' has letters outside ASCII; write its A-label form (xn--...)",
            ),
            ({"names": ["localhost"]}, "a: names: 'localhost' is not a full host name"),
            ({"names": ["a.*.example"]}, "a: names: 'a.*.example' is not a full host name"),
            ({"names": ["{{ x }}.example"]}, "a: names: '{{ x }}.example' is not a full host name"),
            ({"services": ["-x; reboot"]}, "a: services: '-x; reboot' is not a unit's name"),
            ({"issuer": "letsencrypt"}, "a: issuer: 'letsencrypt' is unknown; allowed: site_ca, acme"),
            (
                {"key_type": "rsa-1024"},
                "a: key_type: 'rsa-1024' is unknown; allowed: ec-p256, ec-p384, rsa-2048, rsa-3072, rsa-4096",
            ),
            ({"key_generation": -1}, "a: key_generation: -1 is below 1"),
            (
                {"names": ["10.0.0.1"], "issuer": "acme"},
                "a: names: '10.0.0.1' is an address; ACME is used for names only",
            ),
            (
                {"names": ["*.a.example"], "issuer": "acme"},
                "a: names: '*.a.example' needs the challenge dns-01 (certificates_acme_challenge)",
            ),
            (
                {"issuer": "acme", "usage": "client"},
                "a: usage: 'client' is for issuer site_ca only; public authorities sign servers",
            ),
        ],
    )
    def test_mistakes_are_named(self, item: dict[str, Any], message: str) -> None:
        with pytest.raises(cert.CertificatesError) as caught:
            self.parse({"name": "a", "names": ["a.example"], **item})
        assert str(caught.value) == f"certificates_wanted: {message}"

    def test_all_mistakes_at_once(self) -> None:
        with pytest.raises(cert.CertificatesError) as caught:
            self.parse({"name": "a", "names": ["x"]}, {"name": "a", "names": ["y"]})
        assert str(caught.value).splitlines() == [
            "certificates_wanted: a: names: 'x' is not a full host name",
            "certificates_wanted: a: names: 'y' is not a full host name",
            "certificates_wanted: a: wanted twice",
        ]

    def test_wildcards_by_dns(self) -> None:
        (one,) = self.parse({"name": "a", "names": ["*.a.example"], "issuer": "acme"}, challenge="dns-01")
        assert one.names == ("*.a.example",)


class TestPlan:
    def test_nothing_to_do(self) -> None:
        assert step(wanted(), present()) == cert.Step(wanted(), "keep")

    def test_missing(self) -> None:
        assert step(wanted(), None) == cert.Step(wanted(), "issue", ("there is no certificate yet",), "new")

    def test_missing_after_a_killed_run_uses_the_key_that_is_there(self) -> None:
        assert step(wanted(), None, next_key(key_generation=1)).key == "next"

    @pytest.mark.parametrize(("usable", "key"), [(True, "current"), (False, "new")])
    def test_broken(self, usable: bool, key: str) -> None:
        assert step(wanted(), cert.Broken("it is empty", usable)) == cert.Step(wanted(), "issue", ("it is empty",), key)

    def test_names_that_differ_keep_the_key(self) -> None:
        more = wanted(names=("mail.noorderict.example", "imap.noorderict.example"))
        found = step(more, present(names=("mail.noorderict.example", "old.noorderict.example")))
        assert found.reasons == ("names differ: +imap.noorderict.example, -old.noorderict.example",)
        assert (found.action, found.key) == ("issue", "current")

    def test_order_of_names_does_not_matter(self) -> None:
        assert (
            step(wanted(names=("a.example", "b.example")), present(names=("b.example", "a.example"))).action == "keep"
        )

    @pytest.mark.parametrize(
        ("left", "lifetime", "reason"),
        [
            (121, 365, None),
            (120, 365, "120 of 365 days left, renewed below 33 %"),
            (29, 90, "29 of 90 days left, renewed below 33 %"),
            (30, 90, None),
            (1, 6, "1 of 6 days left, renewed below 33 %"),
            (3, 6, None),
            (0, 90, "expired on 2026-11-23"),
            (-400, 90, "expired on 2025-10-19"),
        ],
    )
    def test_age(self, left: float, lifetime: float, reason: str | None) -> None:
        found = step(wanted(), present(left, lifetime))
        assert found.reasons == ((reason,) if reason else ())
        assert found.action == ("issue" if reason else "keep")
        assert found.key == "current"

    def test_another_issuer(self) -> None:
        found = step(wanted(issuer="acme"), present())
        assert found.reasons == ("issued by site_ca, wanted acme",)

    def test_another_ca_of_the_same_sort(self) -> None:
        found = step(wanted(), present(issuer_id="bb"))
        assert found.reasons == ("the issuer changed from bb to aa",)

    def test_an_issuer_that_is_not_known_here_is_not_judged(self) -> None:
        """The machine's own timer does not know the CA of the control node."""
        assert cert.plan_one(wanted(), present(issuer_id="bb"), None, {}, POLICY, now=NOW).action == "keep"

    def test_a_placeholder_is_replaced_and_its_key_kept(self) -> None:
        found = step(wanted(issuer="acme"), present(5, 7, issuer="placeholder", issuer_id=""))
        assert (found.action, found.key) == ("issue", "current")
        assert found.reasons == ("a placeholder is in its place",)

    def test_usage(self) -> None:
        assert step(wanted(usage="client"), present()).reasons == ("it is for use as server, wanted client",)
        assert step(wanted(issuer="acme"), present(issuer="acme", issuer_id=IDS["acme"], usage="both")).action == "keep"

    @pytest.mark.parametrize("key_type", ["rsa-1024", "rsa-x", "ec-p192", "dsa"])
    def test_a_weak_key_goes_at_once(self, key_type: str) -> None:
        found = step(wanted(), present(key_type=key_type))
        assert (found.action, found.key) == ("issue", "new")
        assert found.reasons == (f"its key is too weak ({key_type})",)

    def test_asked_for(self) -> None:
        assert step(wanted(), present(), renew=True).reasons == ("asked for in certificates_renew",)
        assert step(wanted(), present(), renew=True).key == "current"

    def test_a_stolen_key_is_replaced_at_once_and_never_by_one_that_lay_beside_it(self) -> None:
        found = step(wanted(key_generation=2), present(), next_key(), new_key=True)
        assert (found.action, found.key) == ("issue", "new")
        assert step(wanted(), cert.Broken("x", key_usable=True), new_key=True).key == "new"

    def test_unknown_names_asked_for(self) -> None:
        with pytest.raises(cert.CertificatesError) as caught:
            cert.plan([wanted()], {}, {}, IDS, POLICY, now=NOW, renew=["mial"])
        assert str(caught.value) == (
            "certificates_renew or certificates_new_key names what this machine does not have: mial; it has: mail"
        )

    def test_one_step_for_each_in_order(self) -> None:
        steps = cert.plan([wanted(), wanted(name="b")], {"mail": present()}, {}, IDS, POLICY, now=NOW)
        assert [(one.wanted.name, one.action) for one in steps] == [("mail", "keep"), ("b", "issue")]


class TestKeyRollover:
    WANT = wanted(key_generation=2)

    def test_first_the_hash_is_published(self) -> None:
        because = ("key generation 1, wanted 2",)
        assert step(self.WANT, present()) == cert.Step(self.WANT, "publish_key", publish=because)

    def test_then_it_waits(self) -> None:
        assert step(self.WANT, present(), next_key(1.9)).action == "keep"

    def test_then_it_is_used(self) -> None:
        found = step(self.WANT, present(), next_key(2))
        assert (found.action, found.key, found.reasons) == ("issue", "next", ("key generation 1, wanted 2",))

    def test_then_it_rests(self) -> None:
        assert step(self.WANT, present(key_generation=2)).action == "keep"

    def test_a_renewal_that_falls_between_keeps_the_old_key(self) -> None:
        found = step(self.WANT, present(10), next_key(1))
        assert (found.action, found.key, found.publish) == ("issue", "current", ())

    def test_a_renewal_publishes_the_next_key_besides(self) -> None:
        """Everything that a run can do is done by one run: the second changes nothing."""
        found = step(self.WANT, present(10))
        assert (found.action, found.key, found.publish) == ("issue", "current", ("key generation 1, wanted 2",))

    def test_another_sort_of_key_takes_the_same_way(self) -> None:
        want = wanted(key_type="rsa-3072")
        assert step(want, present()).action == "publish_key"
        assert step(want, present(), next_key(2, key_type="rsa-3072", key_generation=1)).key == "next"

    def test_a_next_key_of_a_sort_not_wanted_any_more_is_made_again(self) -> None:
        assert step(self.WANT, present(), next_key(5, key_type="rsa-2048")).action == "publish_key"

    def test_without_waiting(self) -> None:
        found = step(self.WANT, present(), policy=cert.Policy(rollover_days=0))
        assert (found.action, found.key) == ("issue", "new")

    def test_a_placeholder_has_no_hash_to_wait_for(self) -> None:
        assert step(self.WANT, present(issuer="placeholder")).key == "new"

    @pytest.mark.parametrize(("left", "action"), [(300, "keep"), (10, "issue")])
    def test_thinking_better_of_it(self, left: float, action: str) -> None:
        """A hash that is not going to be used does not stay in the DNS."""
        found = step(wanted(), present(left), next_key(1))
        assert (found.action, found.withdraw) == (action, True)
        # What a killed run left of a key that is in service already is no key that waits.
        assert not step(wanted(), present(left), next_key(1, spki="5f1c")).withdraw
        assert not step(self.WANT, present(left), next_key(1)).withdraw

    def test_going_back_keeps_the_newer_key(self) -> None:
        assert step(wanted(), present(key_generation=3)).action == "keep"


RUNS = {"mail": "f00d"}


class TestServices:
    def unit(self, **changes: Any) -> cert.Unit:
        values: dict[str, Any] = {
            "name": "dovecot.service",
            "exists": True,
            "active": True,
            "can_reload": True,
            "invocation": "i1",
            "started": 1000,
        }
        return cert.Unit(**{**values, **changes})

    def test_started_later_has_read_it(self) -> None:
        assert cert.service_action(self.unit(), RUNS, None, 999.9) is None

    def test_started_earlier(self) -> None:
        assert cert.service_action(self.unit(), RUNS, None, 1000.5) == (
            "reload",
            "it started before its certificate was put in place",
        )

    def test_started_earlier_and_reloaded_since(self) -> None:
        stamp = {"invocation": "i1", "certificates": {"mail": "f00d"}}
        assert cert.service_action(self.unit(), RUNS, stamp, 2000) is None

    def test_runs_with_an_older_one(self) -> None:
        stamp = {"invocation": "i1", "certificates": {"mail": "0ld", "other": "x"}}
        assert cert.service_action(self.unit(), RUNS, stamp, 500) == (
            "reload",
            "it runs with an older certificate: mail",
        )

    def test_restarted_by_somebody_else_since(self) -> None:
        stamp = {"invocation": "i0", "certificates": {"mail": "0ld"}}
        assert cert.service_action(self.unit(), RUNS, stamp, 500) is None
        assert cert.service_action(self.unit(), RUNS, stamp, 1500) is not None

    def test_a_unit_that_cannot_reload_is_restarted(self) -> None:
        found = cert.service_action(self.unit(can_reload=False), RUNS, None, 1000.5)
        assert found is not None
        assert found[0] == "restart"

    @pytest.mark.parametrize("changes", [{"exists": False}, {"active": False}])
    def test_what_does_not_run_is_left_alone(self, changes: dict[str, Any]) -> None:
        assert cert.service_action(self.unit(**changes), RUNS, None, 2000) is None

    def test_nothing_to_run_with(self) -> None:
        assert cert.service_action(self.unit(), {}, None, 2000) is None

    def test_what_systemd_shows(self) -> None:
        text = (
            "CanReload=yes\nId=dovecot.service\nLoadState=loaded\nActiveState=active\nActiveEnterTimestamp=@1000\n"
            "InvocationID=i1\n\n"
            "CanReload=no\nId=x.service\nLoadState=not-found\nActiveState=inactive\nActiveEnterTimestamp=\nInvocationID=\n"
        )
        assert cert.parse_units(text) == [
            self.unit(),
            cert.Unit("x.service", exists=False, active=False, can_reload=False, invocation="", started=0),
        ]
        assert cert.parse_units("") == []

    def test_users_of_certificates(self) -> None:
        both = [wanted(services=("postfix", "dovecot")), wanted(name="b", services=("postfix.service", "x.socket"))]
        assert cert.services_of(both) == {
            "postfix.service": ["mail", "b"],
            "dovecot.service": ["mail"],
            "x.socket": ["b"],
        }


class TestReport:
    def test_a_certificate(self) -> None:
        found = cert.entry(wanted(services=("postfix",)), present(), next_key())
        assert found == {
            "name": "mail",
            "names": ["mail.noorderict.example"],
            "services": ["postfix"],
            "issuer": "site_ca",
            "not_before": "2026-09-19T12:00:00Z",
            "not_after": "2027-09-19T12:00:00Z",
            "placeholder": False,
            "key_type": "ec-p256",
            "key_generation": 1,
            "spki_sha256": "5f1c",
            "next_spki_sha256": "beef",
            "fingerprint": "f00d",
            "tlsa": ["3 1 1 5f1c", "3 1 1 beef"],
        }

    @pytest.mark.parametrize(
        ("want", "have"),
        [
            (wanted(), None),
            (wanted(), cert.Broken("x", key_usable=True)),
            (wanted(), present(issuer="placeholder")),
            (wanted(usage="client"), present(usage="client")),
        ],
    )
    def test_what_must_not_be_published(self, want: cert.Wanted, have: Any) -> None:
        assert cert.entry(want, have, next_key())["tlsa"] == []

    def problem(self, have: Any, failure: str | None = None, **changes: Any) -> list[str]:
        found = cert.problems_of(wanted(**changes), have, failure, POLICY, NOW)
        assert all(one["look"] == cert.LOOK for one in found)
        return [f"{one['subject']}: {one['found']}; wanted: {one['wanted']}" for one in found]

    def test_all_is_well(self) -> None:
        assert self.problem(present()) == []
        # Renewal is due, but it is not late yet.
        assert self.problem(present(100)) == []

    def test_near_its_end(self) -> None:
        (found,) = self.problem(present(29.5))
        assert found == (
            "certificate mail: 29 days left, until 2026-12-23;"
            " wanted: renewed below 33 % (run playbooks/certificates.yml)"
        )

    @pytest.mark.parametrize(("left", "lifetime", "count"), [(17.9, 90, 1), (18.1, 90, 0), (1.1, 6, 1), (1.3, 6, 0)])
    def test_short_lifetimes_are_warned_about_later(self, left: float, lifetime: float, count: int) -> None:
        assert len(self.problem(present(left, lifetime))) == count

    def test_expired(self) -> None:
        assert self.problem(present(-1, issuer="acme"), "no answer", issuer="acme") == [
            "certificate mail: expired on 2026-11-22; no answer; wanted: renewed in time (bouwsteen-certificates run)"
        ]

    def test_missing_broken_placeholder(self) -> None:
        assert self.problem(None, "refused", issuer="acme") == [
            "certificate mail: missing; refused; wanted: a certificate of acme (bouwsteen-certificates run)"
        ]
        assert self.problem(cert.Broken("its key is unusable", key_usable=False)) == [
            "certificate mail: its key is unusable; wanted: a certificate of site_ca (run playbooks/certificates.yml)"
        ]
        (found,) = self.problem(present(5, 7, issuer="placeholder"), "refused", issuer="acme")
        assert found == (
            "certificate mail: a self-signed placeholder until 2026-11-28; refused;"
            " wanted: a certificate of acme (bouwsteen-certificates run)"
        )

    def test_a_renewal_that_failed_in_time(self) -> None:
        (found,) = self.problem(present(25, 90, issuer="acme"), "refused", issuer="acme")
        assert found == (
            "certificate mail: not renewed: refused; the old one is in service until 2026-12-18;"
            " wanted: renewed (bouwsteen-certificates run)"
        )

    def test_the_root(self) -> None:
        assert cert.root_problems("demo", NOW + timedelta(days=181), NOW) == []
        (soon,) = cert.root_problems("demo", NOW + timedelta(days=179), NOW)
        assert soon["found"] == "ends on 2027-05-21"
        (late,) = cert.root_problems("demo", NOW - timedelta(days=1), NOW)
        assert late["found"] == "expired on 2026-11-22"

    def test_differences_have_no_key_material(self) -> None:
        change = cert.Change("certificate mail", cert.describe(present()), [])
        want = wanted(names=("a.example",))
        for key, line in (
            ("current", "key: ec-p256 generation 1 spki 5f1c"),
            ("next", "key: ec-p256 generation 2 spki beef"),
            ("new", "key: ec-p256 generation 1 (new)"),
        ):
            change.after = cert.describe_step(
                cert.Step(want, "issue", ("x",), key), present(), next_key(), IDS, "2027-11-23"
            )
            assert change.as_diff() == {
                "before_header": "certificate mail",
                "after_header": "certificate mail",
                "before": "names: mail.noorderict.example\nissuer: site_ca aa\nusage: server\nends: 2027-09-19\n"
                "key: ec-p256 generation 1 spki 5f1c\n",
                "after": f"names: a.example\nissuer: site_ca aa\nusage: server\nends: 2027-11-23\n{line}\nbecause: x\n",
            }
        assert cert.describe(None) == []
        assert cert.describe(cert.Broken("x", key_usable=True)) == ["broken: x"]
        broken = cert.describe_step(cert.Step(want, "issue"), cert.Broken("x", key_usable=True), None, {}, "soon")
        assert broken == [
            "names: a.example",
            "issuer: site_ca",
            "usage: server",
            "ends: soon",
            "key: the one that is there",
        ]

    def test_times(self) -> None:
        assert cert.parse_stamp(cert.stamp_text(NOW)) == NOW
        assert cert.percent_left(NOW, NOW, NOW) == 0


DEHYDRATED = """# INFO: Using main config file /etc/bouwsteen/acme/dehydrated.conf
 + Requesting new certificate order from CA...
"""


class TestWhatTheAcmeClientSaid:
    """Outputs of dehydrated 0.7.2 as they were seen."""

    @pytest.mark.parametrize(
        ("output", "message"),
        [
            (
                (
                    'ERROR: Challenge is invalid! (returned: invalid) (result: ["type"]\t"http-01"\n'
                    '["error","type"]\t"urn:ietf:params:acme:error:connection"\n'
                    '["error","detail"]\t"Get \\"http://away.example:80/x\\": connect: no route to host"\n'
                    '["error","status"]\t400\n'
                    '["error"]\t{"type":"urn:ietf:params:acme:error:connection","detail":"Get \\"http://away.example:80/x\\":'
                    ' connect: no route to host","status":400})\n'
                ),
                'the ACME server refused: Get "http://away.example:80/x": connect: no route to host (connection)',
            ),
            (
                (
                    "  + ERROR: An error occurred while sending post-request to https://acme.example/o (Status 400)\n\n"
                    'Details:\nHTTP/2 400\n\n{\n "type": "urn:ietf:params:acme:error:rejectedIdentifier",\n'
                    ' "detail": "Order included an identifier that policy forbids",\n "status": 400\n}\n'
                ),
                ("the ACME server refused: Order included an identifier that policy forbids (rejectedIdentifier)"),
            ),
            (
                "ERROR: Problem connecting to server (get for https://acme.example/dir; curl returned with 7)\n",
                "nothing answers at the ACME server's address",
            ),
            (
                "ERROR: Problem connecting to server (get for https://acme.example/dir; curl returned with 60)\n",
                "the ACME server's own certificate is not trusted (certificates_acme_ca)",
            ),
            (
                "ERROR: Problem connecting to server (get for https://acme.example/dir; curl returned with 92)\n",
                "the ACME server cannot be reached (curl: 92)",
            ),
            (
                (
                    "ERROR: the DNS server ns.example refused the update of x: NOTAUTH(BADSIG)\n"
                    "ERROR: deploy_challenge hook returned with non-zero exit code\n"
                ),
                "the DNS server ns.example refused the update of x: NOTAUTH(BADSIG)",
            ),
            (
                "ERROR: deploy_challenge hook returned with non-zero exit code\n",
                "deploy_challenge hook returned with non-zero exit code",
            ),
            ("/usr/bin/dehydrated is not installed", "/usr/bin/dehydrated is not installed"),
            ("", "the ACME client said nothing"),
        ],
    )
    def test_one_line_of_it(self, output: str, message: str) -> None:
        assert cert.acme_failure(DEHYDRATED + output if output else "") == message


def test_all_playbooks_want_the_same() -> None:
    """A playbook that wanted fewer certificates than another would retire the rest."""
    found = []
    for path in sorted((Path(__file__).parents[2] / "playbooks").glob("*.yml")):
        for play in yaml.safe_load(path.read_text()):
            roles = [role["role"] for role in play.get("roles", [])]
            if "bouwsteen.hosting.certificates" in roles:
                values = play["vars"]
                found.append(
                    {name: values[name] for name in values if name.startswith(("certificates_", "__machines"))}
                )
    assert found
    assert all(values == found[0] for values in found)
