"""What is known of a request before anything has run."""

from __future__ import annotations

import pytest
from tests.answers.requests_made_up import get

from budgetware.answers.facts import size_of


@pytest.mark.parametrize(
    ("stated", "size"),
    [(b"0", 0.0), (b"1024", 1024.0), (b"-1", None), (b"1e9", None), (b"9" * 40, None), (b"", None)],
)
def test_the_size_of_a_request_is_what_it_states(stated: bytes, size: float | None) -> None:
    """What is no number of bytes is no size."""
    assert size_of(get(b"/", (b"Content-Length", stated))) == size


def test_a_request_that_states_no_size_has_none() -> None:
    """It may be sent in chunks."""
    assert size_of(get(b"/")) is None
