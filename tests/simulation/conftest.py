"""Worlds that are played among tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _frozen() -> Iterator[None]:
    """Have what is here by now not be looked through after every world."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
