"""Errors travel: they are copied, and sent from process to process."""

from __future__ import annotations

import copy
import pickle

import pytest

from budgetware.errors import BudgetwareError, MissingExtra, PolicyError, Problem

PROBLEM = Problem(message="`3` has no unit", hint="3ms", line=2, column=5)


@pytest.mark.parametrize(
    "error", [PolicyError((PROBLEM,), "budgetware.yaml"), MissingExtra("redis", "redis")]
)
def test_an_error_is_the_same_once_it_is_copied(error: BudgetwareError) -> None:
    """Its text and what it knows."""
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)
