"""What does a caller get whose request is not carried out? A problem document.

Statuses follow RFC 9110 sections 15.6.4 and 15.6.5 and RFC 6585 section 4, the body RFC 9457.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from budgetware.answers.answer import Answer, marked

LONGEST_RETRY_S: Final = 86_400
"""No caller is sent away for longer than a day."""


class Rejection(StrEnum):
    """Why a request is not carried out."""

    OVERLOADED = "overloaded"
    DEADLINE_SPENT = "deadline_spent"
    RATE_EXCEEDED = "rate_exceeded"


_STATUSES: Final = {
    Rejection.OVERLOADED: 503,
    Rejection.DEADLINE_SPENT: 504,
    Rejection.RATE_EXCEEDED: 429,
}
# RFC 9457 section 4.2.1: with "about:blank" the title is the status's own phrase.
_TITLES: Final = {
    Rejection.OVERLOADED: "Service Unavailable",
    Rejection.DEADLINE_SPENT: "Gateway Timeout",
    Rejection.RATE_EXCEEDED: "Too Many Requests",
}
_DETAILS: Final = {
    Rejection.OVERLOADED: "The service cannot answer this request in time now.",
    Rejection.DEADLINE_SPENT: "The time for this request was over before it was answered.",
    Rejection.RATE_EXCEEDED: "More requests were sent than the caller's tier allows.",
}


def rejection(
    reason: Rejection,
    retry_after_s: float | None,
    random: Callable[[], float],
) -> Answer:
    """Return the refusal for *reason*: a problem document and when to try again.

    ``Retry-After`` is a whole number of seconds, never less than *retry_after_s* and never less
    than one, spread over half as much again so that callers do not come back at the same moment.

    Args:
        reason: Gives 503, 504 or 429.
        retry_after_s: The least wait in seconds; ``None`` for no ``Retry-After``.
        random: Returns a float in [0, 1).

    """
    problem: dict[str, object] = {
        "type": "about:blank",
        "title": _TITLES[reason],
        "status": _STATUSES[reason],
        "detail": _DETAILS[reason],
        "reason": reason.value,
    }
    headers = [(b"content-type", b"application/problem+json")]
    if retry_after_s is not None:
        wait_s = jittered_s(retry_after_s, random)
        headers.append((b"retry-after", b"%d" % wait_s))
        problem["retry_after"] = wait_s
    body = json.dumps(problem).encode("ascii")
    return marked("reject", _STATUSES[reason], headers, body)


def jittered_s(least_s: float, random: Callable[[], float]) -> int:
    """Return whole seconds from *least_s* rounded up to half as much again, two more at least."""
    if math.isnan(least_s):
        least_s = 1.0
    least = math.ceil(max(1.0, min(least_s, LONGEST_RETRY_S)))
    spread = max(2, least // 2)
    share = min(max(random(), 0.0), 1.0)
    return least + min(spread, int(share * (spread + 1)))


LAST_RESORT: Final = rejection(Rejection.OVERLOADED, 1.0, lambda: 0.5)
"""For who cannot make a refusal of his own."""
