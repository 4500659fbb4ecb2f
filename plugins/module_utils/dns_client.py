# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a resolver for records, over TCP, with the standard library alone (RFC 1035, 7766).

Only what comparing records needs: one question a message, the answer section, eight types, values in zone file form
as `dns_records` writes them.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import cast

from ansible_collections.bouwsteen.hosting.plugins.module_utils.dns_records import text

TYPES = {"A": 1, "CNAME": 5, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "TLSA": 52, "CAA": 257}
HEADER = struct.Struct("!HHHHHH")
NO_ERROR, NO_SUCH_NAME = 0, 3
RCODES = {1: "format error", 2: "server failure", 4: "not implemented", 5: "refused"}


class DnsError(Exception):
    """No usable answer; the text says from whom, to what, and why."""


class EndedError(DnsError):
    """The server ended the connection."""


def question(identity: int, name: str, record_type: str) -> bytes:
    """A message with one question and recursion desired, without the length that TCP puts before it."""
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".") if label]
    if any(not 0 < len(label) < 64 for label in labels):
        raise DnsError(f"{name} is no domain name")
    encoded = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return HEADER.pack(identity, 0x0100, 1, 0, 0, 0) + encoded + struct.pack("!HH", TYPES[record_type], 1)


def read_name(message: bytes, offset: int) -> tuple[str, int]:
    """The name at `offset`, complete with its dot, and the offset behind it. Follows compression (RFC 1035 4.1.4)."""
    labels: list[str] = []
    behind = -1
    for _ in range(128):
        length = message[offset]
        if length & 0xC0 == 0xC0:
            if behind < 0:
                behind = offset + 2
            offset = struct.unpack_from("!H", message, offset)[0] & 0x3FFF
        elif length == 0:
            return ".".join(labels).lower() + ".", behind if behind >= 0 else offset + 1
        else:
            labels.append(message[offset + 1 : offset + 1 + length].decode("ascii", "replace"))
            offset += 1 + length
    raise DnsError("a name in the answer points at itself")


def value(record_type: str, message: bytes, offset: int, length: int) -> str:
    """The data of one record in zone file form."""
    data = message[offset : offset + length]
    if record_type in {"A", "AAAA"}:
        return str(ipaddress.ip_address(data))
    if record_type == "CNAME":
        return read_name(message, offset)[0]
    if record_type == "MX":
        return f"{struct.unpack_from('!H', data)[0]} {read_name(message, offset + 2)[0]}"
    if record_type == "SRV":
        priority, weight, port = struct.unpack_from("!HHH", data)
        return f"{priority} {weight} {port} {read_name(message, offset + 6)[0]}"
    if record_type == "TLSA":
        return f"{data[0]} {data[1]} {data[2]} {data[3:].hex()}"
    if record_type == "CAA":
        tag = data[2 : 2 + data[1]].decode("ascii", "replace")
        return f'{data[0]} {tag} "{data[2 + data[1] :].decode("utf-8", "replace")}"'
    joined, position = b"", 0
    while position < length:
        joined += data[position + 1 : position + 1 + data[position]]
        position += 1 + data[position]
    return text(joined.decode("utf-8", "replace"))


def answer(message: bytes, identity: int, record_type: str) -> list[str]:
    """The values in an answer, sorted; none for a name that is not there. The resolver has followed aliases."""
    try:
        found, flags, questions, answers, _, _ = HEADER.unpack_from(message)
        if found != identity or not flags & 0x8000:
            raise DnsError("the answer is to another question")
        code = flags & 0x000F
        if code not in {NO_ERROR, NO_SUCH_NAME}:
            raise DnsError(RCODES.get(code, f"error {code}"))
        offset = HEADER.size
        for _ in range(questions):
            offset = read_name(message, offset)[1] + 4
        values = []
        for _ in range(answers):
            offset = read_name(message, offset)[1]
            number, _, _, length = struct.unpack_from("!HHIH", message, offset)
            offset += 10
            if number == TYPES[record_type]:
                values.append(value(record_type, message, offset, length))
            offset += length
    except (IndexError, struct.error, ValueError) as error:
        raise DnsError("the answer cannot be read") from error
    return sorted(values)


def _receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise EndedError("the connection ended early")
        data += more
    return data


def _ask(connection: socket.socket, name: str, record_type: str) -> list[str]:
    """One question and its answer over an open connection."""
    identity = secrets.randbits(16)
    message = question(identity, name, record_type)
    connection.sendall(struct.pack("!H", len(message)) + message)
    length = struct.unpack("!H", _receive(connection, 2))[0]
    return answer(_receive(connection, length), identity, record_type)


def look_up(
    server: str, wanted: Iterable[tuple[str, str]], *, port: int = 53, timeout: float = 10.0
) -> dict[tuple[str, str], Sequence[str]]:
    """Values of each (name, type). Raises DnsError when one cannot be asked or answered.

    One connection serves many questions; servers end it after a number of their own, and then there is another.
    """
    result: dict[tuple[str, str], Sequence[str]] = {}
    connection: socket.socket | None = None
    asked = ""
    try:
        for name, record_type in wanted:
            asked = f" on {name} {record_type}"
            for fresh in (connection is None, True):
                if fresh:
                    connection = socket.create_connection((server, port), timeout)
                try:
                    result[name, record_type] = _ask(cast("socket.socket", connection), name, record_type)
                    break
                except (EndedError, ConnectionError):
                    cast("socket.socket", connection).close()
                    if fresh:
                        raise
    except (DnsError, OSError) as error:
        raise DnsError(f"{server}{asked}: {error}") from error
    finally:
        if connection:
            connection.close()
    return result
