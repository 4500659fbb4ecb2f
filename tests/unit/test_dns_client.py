# SPDX-License-Identifier: GPL-3.0-or-later
"""What DNS answers, read by our own client and checked against dnspython's idea of the same messages."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import dns_client
from hypothesis import given
from hypothesis import strategies as st

VALUES = [
    ("A", "192.0.2.1", "192.0.2.1"),
    ("AAAA", "2001:DB8:0::1", "2001:db8::1"),
    ("CNAME", "autodiscover.Noorderict.example.", "autodiscover.noorderict.example."),
    ("MX", "10 M1.bouwsteen.example.", "10 m1.bouwsteen.example."),
    ("SRV", "0 1 993 mail.noorderict.example.", "0 1 993 mail.noorderict.example."),
    ("TLSA", "3 1 1 " + "ab" * 32, "3 1 1 " + "ab" * 32),
    ("CAA", '0 issue "ca.example"', '0 issue "ca.example"'),
    ("TXT", '"v=DKIM1; p=" "AAAA"', '"v=DKIM1; p=AAAA"'),
]


def reply(query: bytes, *answers: tuple[str, str], rcode: int = 0) -> bytes:
    """dnspython's answer to our question."""
    message = dns.message.make_response(dns.message.from_wire(query))
    message.set_rcode(dns.rcode.Rcode(rcode))
    name = message.question[0].name
    for record_type, value in answers:
        message.answer.append(dns.rrset.from_text(name, 60, "IN", record_type, value))
    return message.to_wire()


@contextmanager
def server(*answers: tuple[str, str], rcode: int = 0, cut: bool = False, patience: int = 100) -> Iterator[int]:
    """A resolver on a port of its own that ends a connection after `patience` questions."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    for _ in range(patience):
                        if not (head := connection.recv(2)):
                            break
                        query = connection.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL)
                        wire = reply(query, *answers, rcode=rcode)
                        connection.sendall(struct.pack("!H", len(wire)) + (wire[:5] if cut else wire))
                        if cut:
                            break

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_a_server_that_ends_connections_is_asked_over_another() -> None:
    names = [(f"{number}.example.", "A") for number in range(7)]
    with server(("A", "192.0.2.1"), patience=2) as port:
        found = dns_client.look_up("127.0.0.1", names, port=port)
    assert list(found) == names
    assert set(map(tuple, found.values())) == {("192.0.2.1",)}


@pytest.mark.parametrize(("record_type", "value", "wanted"), VALUES)
def test_values_are_read_in_zone_file_form(record_type: str, value: str, wanted: str) -> None:
    with server((record_type, value)) as port:
        found = dns_client.look_up("127.0.0.1", [("degraaf.example.", record_type)], port=port)
    assert found == {("degraaf.example.", record_type): [wanted]}


def test_an_alias_before_the_answer_is_passed_over() -> None:
    query = dns_client.question(7, "mail.degraaf.example", "A")
    wire = reply(query, ("CNAME", "m1.bouwsteen.example."), ("A", "192.0.2.1"))
    assert dns_client.answer(wire, 7, "A") == ["192.0.2.1"]


def test_a_name_that_is_not_there_has_no_values() -> None:
    with server(rcode=3) as port:
        assert dns_client.look_up("127.0.0.1", [("x.example.", "A")], port=port) == {("x.example.", "A"): []}


@pytest.mark.parametrize(
    ("rcode", "cut", "message"),
    [
        (2, False, "127.0.0.1 on x.example. A: server failure"),
        (5, False, "127.0.0.1 on x.example. A: refused"),
        (0, True, "127.0.0.1 on x.example. A: the connection ended early"),
    ],
)
def test_no_usable_answer_says_who_what_and_why(rcode: int, cut: bool, message: str) -> None:
    with server(rcode=rcode, cut=cut) as port, pytest.raises(dns_client.DnsError, match=message):
        dns_client.look_up("127.0.0.1", [("x.example.", "A")], port=port)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(dns_client.DnsError, match=r"127\.0\.0\.1 on x\.example\. A: .*refused"):
        dns_client.look_up("127.0.0.1", [("x.example.", "A")], port=port)


def test_the_answer_to_another_question_is_refused() -> None:
    wire = reply(dns_client.question(7, "x.example", "A"), ("A", "192.0.2.1"))
    with pytest.raises(dns_client.DnsError, match="the answer is to another question"):
        dns_client.answer(wire, 8, "A")


def test_a_question_is_one_that_others_understand() -> None:
    message = dns.message.from_wire(dns_client.question(7, "_25._tcp.m1.bouwsteen.example.", "TLSA"))
    assert message.question[0].to_text() == "_25._tcp.m1.bouwsteen.example. IN TLSA"
    assert message.flags & dns.flags.RD
    with pytest.raises(dns_client.DnsError, match=r"is no domain name"):
        dns_client.question(7, "x" * 64 + ".example", "A")


@given(st.binary(max_size=300))
def test_garbage_is_an_error_and_nothing_else(garbage: bytes) -> None:
    with suppress(dns_client.DnsError):
        dns_client.answer(struct.pack("!H", 7) + garbage, 7, "MX")
