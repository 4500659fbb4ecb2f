# SPDX-License-Identifier: GPL-3.0-or-later
"""What people read, in each language: languages/<language>.json.

Values are put in by name, and escaped where they are shown.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# The first is for those who ask for none of them.
LANGUAGES = ("nl", "en")
TEXTS: dict[str, dict[str, str]] = {
    language: json.loads((Path(__file__).parent / "languages" / f"{language}.json").read_text(encoding="utf-8"))
    for language in LANGUAGES
}


def text(language: str, key: str, **values: Any) -> str:
    """One text with its values put in."""
    return TEXTS[language][key].format(**values)
