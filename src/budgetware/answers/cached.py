"""What is sent for a stored response: its age, and that it came out of the cache."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Final

from budgetware.answers.answer import CACHE_NAME, Answer, marked
from budgetware.answers.stored import Found

_TOKEN: Final = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]{0,63}", re.ASCII)
# RFC 9651 section 3.3.1 ends integers here; RFC 9111 section 1.2.2 needs 31 bits.
_MOST_SECONDS: Final = 2**31 - 1


def cached_answer(found: Found, detail: str = "") -> Answer:
    """Return *found* as an answer, with ``Age`` and ``Cache-Status`` (RFC 9111, RFC 9211).

    Args:
        found: What a look-up returned.
        detail: Why it is sent, such as ``over_budget``; left out unless it is a token.

    Raises:
        ValueError: A stored line could not be sent, which only a tampered store brings about.

    """
    ttl_s = max(-_MOST_SECONDS, min(_MOST_SECONDS, math.floor(found.fresh_left_s)))
    age_s = max(0, min(_MOST_SECONDS, math.ceil(found.age_s)))
    status = b"%s; hit; ttl=%d" % (CACHE_NAME, ttl_s)
    if _TOKEN.fullmatch(detail):
        status += b"; detail=" + detail.encode("ascii")
    marks = ((b"age", b"%d" % age_s), (b"cache-status", status))
    stored = found.stored
    answer = marked("cached", stored.status, stored.headers, stored.body, marks)
    return answer if found.is_fresh else replace(answer, stale=True)
