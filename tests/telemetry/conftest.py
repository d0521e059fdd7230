"""Each test begins without the readers of the ones before it."""

from __future__ import annotations

import pytest

from budgetware.telemetry import outlet


@pytest.fixture(autouse=True)
def _forget_readers() -> None:
    outlet._taps.clear()
