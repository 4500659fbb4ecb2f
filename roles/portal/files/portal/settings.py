# SPDX-License-Identifier: GPL-3.0-or-later
"""What the machine's administrator decided: /etc/bouwsteen/portal.json, written by role portal."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = "/etc/bouwsteen/portal.json"


@dataclass(frozen=True)
class Settings:
    """`directory`: parameters of libpq. `certificates`: folder with a folder for each reseller's webmail name.
    `breached`: folder or file of SHA-1 hashes of known passwords, or "". `support`: reseller -> address or URL."""

    directory: Mapping[str, Any]
    certificates: str = "/etc/ssl/bouwsteen"
    breached: str = ""
    password_length: int = 12
    password_strength: int = 3
    activesync: bool = True
    support: Mapping[str, str] = field(default_factory=dict)


def read() -> Settings:
    """The settings of this machine."""
    data = json.loads(Path(os.environ.get("PORTAL_SETTINGS", FILE)).read_text(encoding="utf-8"))
    return Settings(**data)
