"""What was left out of a request, said in a header of its answer: `x-openchat-warnings`."""

from __future__ import annotations

import logging
from collections.abc import Sequence

log = logging.getLogger(__name__)

HEADER = "x-openchat-warnings"
_MAX_NAMES = 20
_MAX_CHARACTERS = 60
"""Of one name: all of them stay below what clients take as a header line."""


def warning_headers(ignored: Sequence[str], route: str) -> dict[str, str]:
    """Empty where nothing was left out; else the names, and how many more there were, which is logged as well.

    Names are what clients sent: what is not printable ASCII becomes a question mark.
    """
    if not ignored:
        return {}
    names = list(dict.fromkeys(_plain(name) for name in ignored))
    more = [f"+{len(names) - _MAX_NAMES}"] if len(names) > _MAX_NAMES else []
    shown = ", ".join([*names[:_MAX_NAMES], *more])
    log.warning("parameters_left_out route=%s names=%r", route, shown)
    return {HEADER: shown}


def _plain(name: str) -> str:
    return "".join(char if "!" <= char <= "~" and char != "," else "?" for char in name[:_MAX_CHARACTERS])
