"""``import budgetware`` is light: it starts nothing and brings nothing along."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import budgetware

HEAVY = {
    "anyio",
    "asyncio",
    "click",
    "fastapi",
    "flask",
    "logging",
    "opentelemetry",
    "prometheus_client",
    "pydantic",
    "starlette",
    "structlog",
    "yaml",
}

ASK = """
import json, sys, threading
before = set(sys.modules)
{statement}
print(json.dumps([sorted(set(sys.modules) - before), threading.active_count()]))
"""


def _imported(statement: str) -> tuple[set[str], int]:
    """Return the packages *statement* imports in a new process, and how many threads run then."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ASK.format(statement=statement)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    modules, threads = json.loads(done.stdout)
    return {module.partition(".")[0] for module in modules} | set(modules), threads


@pytest.mark.parametrize(
    "statement",
    [
        "import budgetware",
        "from budgetware import budget, PolicyError",
        "import budgetware\nwith budgetware.budget.stage('db'): budgetware.budget.remaining()",
        "import budgetware\nbudgetware.Policy",
        "import budgetware.units, budgetware.names, budgetware._core.engine",
    ],
)
def test_the_front_door_is_light(statement: str) -> None:
    """No framework, no telemetry, no parser, no event loop, and no thread."""
    modules, threads = _imported(statement)

    assert modules & HEAVY == set()
    assert "budgetware.runtime" not in modules
    assert threads == 1


@pytest.mark.parametrize("door", ["budgetware.asgi", "budgetware.wsgi"])
def test_a_door_brings_telemetry_and_no_framework(door: str) -> None:
    """The API of OpenTelemetry and structlog, but neither an SDK nor a parser nor a thread."""
    modules, threads = _imported(f"import {door}")

    assert {"opentelemetry", "structlog"} <= modules
    assert "opentelemetry.sdk" not in modules
    assert modules & {"pydantic", "yaml", "click", "starlette", "flask", "anyio"} == set()
    assert threads == 1


def test_the_pytest_plugin_is_light() -> None:
    """Every pytest session of the environment loads it, most of them for nothing."""
    modules, _ = _imported(
        "import pytest\nbefore = set(sys.modules)\nimport budgetware.pytest_plugin"
    )

    assert modules & (HEAVY - {"logging", "asyncio"}) == set()
    assert {"budgetware.testing", "budgetware.runtime"} & modules == set()


def test_everything_that_is_public_is_there() -> None:
    """``from budgetware import *`` gives what ``__all__`` lists."""
    scope: dict[str, object] = {}
    exec("from budgetware import *", scope)

    assert set(budgetware.__all__) <= set(scope)
    assert scope["budget"] is budgetware.budget


def test_the_middleware_is_imported_when_it_is_asked_for() -> None:
    """Of the parts that weigh something, the front door knows only the names."""
    from budgetware._core.policy import Policy  # noqa: PLC0415 - what is compared
    from budgetware.asgi import BudgetMiddleware  # noqa: PLC0415 - likewise

    assert budgetware.BudgetMiddleware is BudgetMiddleware
    assert budgetware.Policy is Policy
    modules, _ = _imported("import budgetware\nbudgetware.BudgetMiddleware")
    assert "budgetware.asgi" in modules


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """Lazy names do not swallow typing errors."""
    with pytest.raises(AttributeError, match="module 'budgetware' has no attribute 'Budgets'"):
        budgetware.Budgets  # noqa: B018 - the access is the test
