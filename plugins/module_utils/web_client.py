# SPDX-License-Identifier: GPL-3.0-or-later
"""A site of the web as a careful program sees it: HTTPS with a checked certificate, one connection, no surprises.

Standard library only. Redirects are answers like others: whoever asks decides where to go next.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.cookies import CookieError, SimpleCookie
from typing import Any

from ansible_collections.bouwsteen.hosting.plugins.module_utils import probe

HTTPS = 443
TRANSPORT = (OSError, http.client.HTTPException)


@dataclass(frozen=True)
class Answer:
    """What came back. `seconds` is the time from the first byte of the question to the last of the answer."""

    status: int
    headers: Message
    body: bytes
    seconds: float

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def header(self, name: str) -> str:
        """A header's value, empty without one; case does not matter."""
        return str(self.headers.get(name, ""))

    def __str__(self) -> str:
        return f"{self.status} {self.text[:200]!r}"


class Connection(http.client.HTTPSConnection):
    """Goes to the target's address, whatever the name resolves to, and checks the certificate by the name."""

    def __init__(self, name: str, target: probe.Target, port: int) -> None:
        super().__init__(name, port, timeout=target.timeout)
        self.checks, self.goes_to = probe.context_for(name, target), target.address or name

    def connect(self) -> None:
        plain = socket.create_connection((self.goes_to, self.port), self.timeout)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock = self.checks.wrap_socket(plain)
        except BaseException:
            plain.close()
            raise


@dataclass
class Web:
    """A program at one site: keeps its connection, and its cookies if it has any. Close it, or use it with `with`.

    `login` and `password` go along as Basic authentication where they are set.
    """

    name: str
    target: probe.Target
    login: str = ""
    password: str = field(default="", repr=False)
    port: int = HTTPS
    agent: str = "bouwsteen-verify"
    cookies: dict[str, str] = field(default_factory=dict, repr=False)
    _connection: Connection | None = field(default=None, repr=False)

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str = b"",
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer:
        """One question and its answer. Raises OSError and http.client.HTTPException (see TRANSPORT).

        A kept connection that the server has ended in the meantime is made anew, once.
        """
        data = body.encode() if isinstance(body, str) else body
        sent = {"User-Agent": self.agent, "Accept": "*/*"}
        if self.login:
            sent["Authorization"] = basic(self.login, self.password)
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent |= dict(headers or {})
        kept = self._connection is not None
        try:
            return self._ask(method, path, data, sent, timeout)
        except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            self.close()
            if not kept:
                raise
            return self._ask(method, path, data, sent, timeout)
        except BaseException:
            # What would come next on this connection is the answer to this question.
            self.close()
            raise

    def _ask(self, method: str, path: str, data: bytes, headers: dict[str, str], timeout: float | None) -> Answer:
        if self._connection is None:
            self._connection = Connection(self.name, self.target, self.port)
            self._connection.connect()
        self._connection.sock.settimeout(timeout or self.target.timeout)
        began = time.monotonic()
        self._connection.request(method, path, data or None, headers)
        response = self._connection.getresponse()
        content = response.read()
        answer = Answer(response.status, response.headers, content, time.monotonic() - began)
        if response.will_close:
            self.close()
        self._remember(answer)
        return answer

    def _remember(self, answer: Answer) -> None:
        for line in answer.headers.get_all("Set-Cookie", []):
            try:
                found = SimpleCookie(str(line))
            except CookieError:
                continue
            for name, morsel in found.items():
                if morsel.value in {"", "discard"}:
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value


def basic(login: str, password: str) -> str:
    """The value of an Authorization header (RFC 7617).

    >>> basic("eva@degraaf.example", "é")
    'Basic ZXZhQGRlZ3JhYWYuZXhhbXBsZTrDqQ=='
    """
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()
