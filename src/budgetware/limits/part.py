"""What does this process allow while it cannot ask? Its part of the rate, one of so many workers.

It takes note of what the shared limit admitted too, so that losing the server gives nobody a new
burst in a process they were busy with.
"""

from __future__ import annotations

from collections.abc import Hashable

from budgetware._core.rate import MOST_IDENTITIES, Rates
from budgetware.misuse import check_whole


class LocalPart:
    """One worker's part of every caller's rate.

    A part is ``rate / workers`` with ``burst / workers``, but at least one request at once: below
    that nobody could ever be admitted.

    Args:
        workers: How many processes share the rate, on all hosts together; at least 1.
        most_identities: As for ``Rates``.

    Raises:
        TypeError: One of them is no whole number.
        ValueError: One of them is below 1.

    """

    def __init__(self, workers: int, most_identities: int = MOST_IDENTITIES) -> None:
        check_whole("workers", workers, 1)
        check_whole("most_identities", most_identities, 1)
        self._workers = workers
        self._rates = Rates(most_identities)

    def take(
        self,
        tier: str | None,
        identity: Hashable,
        rate_per_s: float,
        burst: float,
        now_s: float,
    ) -> float:
        """Admit one request of this process's part; arguments and result are those of ``Rates``."""
        workers = self._workers
        return self._rates.take(tier, identity, rate_per_s / workers, burst / workers, now_s)
