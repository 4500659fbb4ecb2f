# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of roles mail and resolver that cannot be meant are refused, with every reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.bouwsteen.hosting.plugins.module_utils import mail_settings

TOP = Path(__file__).resolve().parents[2]


def role(name: str, **changes: Any) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """A role with its defaults: values, names and specification, as its task hands them over."""
    spec = yaml.safe_load((TOP / f"roles/{name}/meta/argument_specs.yml").read_text())["argument_specs"]["main"][
        "options"
    ]
    values = yaml.safe_load((TOP / f"roles/{name}/defaults/main.yml").read_text()) | {"mail_engineer": "a@b.example"}
    return values | changes, [*spec, *changes], spec


@pytest.mark.parametrize("name", ["mail", "resolver"])
def test_defaults_are_right(name: str) -> None:
    assert getattr(mail_settings, name)(*role(name)) == []


@pytest.mark.parametrize("name", ["mail", "resolver"])
def test_a_misspelt_variable_is_named(name: str) -> None:
    assert getattr(mail_settings, name)(*role(name, **{f"{name}_speling": 1})) == [
        f"role {name} does not know {name}_speling; its variables are listed in roles/{name}/README.md"
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"mail_engineer": "jan"}, "mail_engineer: jan is no mail address"),
        ({"mail_message_size_mib": 0}, "mail_message_size_mib: 0 is below 1"),
        ({"mail_auth_workers": "-2"}, "mail_auth_workers: -2 is below 1"),
        ({"mail_sent_per_hour": -1}, "mail_sent_per_hour: -1 is below 0"),
        (
            {"mail_spam_junk_score": 20},
            f"{', '.join(mail_settings.SCORES)} must grow in this order (found 4, 20, 15)",
        ),
        ({"mail_quota_warnings": [80, 100, 0]}, "mail_quota_warnings: 100, 0 is no percentage from 1 to 99"),
        (
            {"mail_resellers": [{"name": "a", "domain": "x.example"}, {"name": "b", "domain": "x.example"}]},
            "mail_resellers: domain x.example is there twice",
        ),
    ],
)
def test_what_mail_cannot_do(changes: dict[str, Any], line: str) -> None:
    assert mail_settings.mail(*role("mail", **changes)) == [line]


def test_no_limit_and_no_delay_are_settings() -> None:
    assert mail_settings.mail(*role("mail", mail_sent_per_hour=0, mail_login_failure_delay=0)) == []


def test_all_reasons_at_once() -> None:
    assert len(mail_settings.mail(*role("mail", mail_engineer="", mail_queue_days=0, mail_x=1))) == 3


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"resolver_forwarders": ["dns.example"]}, "dns.example is no address of a DNS server"),
        ({"resolver_forwarders": ["192.0.2.1@0"]}, "192.0.2.1@0 is no address of a DNS server"),
        ({"resolver_zones": [{"name": "x.example", "addresses": []}]}, "resolver_zones: x.example has no addresses"),
        (
            {"resolver_forwarders": ["192.0.2.1@853"], "resolver_forwarders_tls": True},
            "resolver_forwarders: 192.0.2.1@853 has no #name, which the certificate is checked with",
        ),
        (
            {"resolver_trust_anchors": ["example. A 192.0.2.1"]},
            "resolver_trust_anchors: example. A 192.0.2.1 is no DS or DNSKEY record",
        ),
        ({"resolver_cache_mib": 0}, "resolver_cache_mib: 0 is below 1"),
    ],
)
def test_what_the_resolver_cannot_do(changes: dict[str, Any], line: str) -> None:
    assert mail_settings.resolver(*role("resolver", **changes)) == [line]


def test_what_the_resolver_can_do() -> None:
    anchors = [
        "",
        "; a comment",
        "example. DS 33880 13 2 d361c772e1d6 c5b3 ; key",
        "example. 3600 IN DNSKEY 257 3 13 AAAA BBBB==",
    ]
    servers = ["192.0.2.1", "2001:db8::1@53", "192.0.2.1@853#dns.example"]
    zones = [{"name": "x.example", "addresses": ["192.0.2.1@5353"]}]
    wanted = {"resolver_trust_anchors": anchors, "resolver_forwarders": servers, "resolver_zones": zones}
    assert mail_settings.resolver(*role("resolver", **wanted)) == []
