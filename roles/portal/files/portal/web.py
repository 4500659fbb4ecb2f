# SPDX-License-Identifier: GPL-3.0-or-later
"""What all parts of the portal share: whose site it is, in which language, and the headers of its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import Response, current_app, request

from portal.directory import Directory, Reseller
from portal.settings import Settings
from portal.texts import LANGUAGES

if TYPE_CHECKING:
    from portal.guard import Memory

# Everything comes from the own origin, and nothing runs.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Portal:
    """What a request needs to know of the outside."""

    settings: Settings
    directory: Directory
    memory: Memory

    def reseller(self, name: str) -> Reseller | None:
        return self.directory.reseller(name) if name else None


def portal() -> Portal:
    """The portal that this request came to."""
    found: Portal = current_app.extensions["portal"]
    return found


def reseller_name() -> str:
    """The reseller whose site asks, as the gateway says; "" on a site that is nobody's."""
    return request.headers.get("X-Bouwsteen-Reseller", "")


def language(preferred: str | None = None) -> str:
    """The person's language, else what the browser asks for, else the first that there is."""
    if preferred and preferred.split("-")[0] in LANGUAGES:
        return preferred.split("-")[0]
    return request.accept_languages.best_match(LANGUAGES) or LANGUAGES[0]


def secured(response: Response) -> Response:
    """Headers that every answer carries. The gateway adds those that are the same for all its sites."""
    response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-store")
    return response
