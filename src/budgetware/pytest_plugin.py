"""Fixtures for pytest: the records of an application under test, and a budget around a test.

Pytest loads this file in every session of an environment that has budgetware, so it imports
nothing but pytest until a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from budgetware._core.record import RequestRecord
    from budgetware.handle import BudgetHandle


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line(
        "markers",
        "budget(route, tier=None): the promise the `budget` fixture holds the test to",
    )


@pytest.fixture
def budget_records() -> Iterator[list[RequestRecord]]:
    """Collect the records of whatever was served during the test, whatever door it came by."""
    from budgetware.testing import recorded  # noqa: PLC0415 - see above

    with recorded() as records:
        yield records


@pytest.fixture
def budget(request: pytest.FixtureRequest) -> Iterator[BudgetHandle]:
    """Give ``budgetware.budget`` with a budget open around the test, and check it afterwards.

    ``@pytest.mark.budget("signals", tier="pro")`` says whose promise it is in the policy file; the
    test then fails if it, or a stage it opened, took longer. Without the mark it only measures. A
    route or tier that the policy does not have is a failure, too.
    """
    from budgetware.handle import budget as handle  # noqa: PLC0415 - see above
    from budgetware.testing import (  # noqa: PLC0415 - likewise
        assert_within_budget,
        captured,
        check_promise,
    )

    mark = request.node.get_closest_marker("budget")
    route, tier = (request.node.name, None) if mark is None else _promise(*mark.args, **mark.kwargs)
    with captured() as capture:
        if mark is not None:
            try:
                check_promise(capture.policy, tier, route)
            except ValueError as error:
                pytest.fail(f"@pytest.mark.budget: {error}", pytrace=False)
        with handle.open(route, tier=tier):
            yield handle
        if mark is not None:
            assert_within_budget(capture.record)


def _promise(route: str, tier: str | None = None) -> tuple[str, str | None]:
    return route, tier
