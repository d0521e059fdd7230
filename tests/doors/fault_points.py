"""Makes any one function or method of budgetware raise, found by looking at what there is."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import FunctionType, ModuleType
from typing import Any, Final

import pytest

import budgetware
from budgetware import _core, telemetry
from budgetware._core import alternative
from budgetware.errors import MissingExtra

CALLED_BY_THE_APPLICATION: Final = frozenset(
    {
        "budgetware._core.current",  # the handle itself
        "budgetware._core.stage",
        "budgetware._core.decorate",
        "budgetware._core.interrupt",  # what the application is left with, and nothing else
        "budgetware._core.policy",  # made and compiled at start-up
    },
)
"""Modules whose functions are the application's own calls, with no door in between."""

ALTERNATIVES: Final = frozenset(
    {"OrElse", "append", "degrade", "fits", "gate", "turning", "_noted"},
)
"""What the handle calls for the application of ``budgetware._core.alternative``, likewise."""

ITS_OWN_CALLS: Final = frozenset(
    {"remaining", "elapsed", "pool", "deadline", "settle", "replan", "shield", "unshield"},
)
"""Methods of a budget that the handle calls for the application, which are their own guard."""


class Broken(Exception):  # noqa: N818 - it stands for any
    """A fault in budgetware."""


class Faults:
    """Every step of budgetware, each of which can be made to raise.

    Attributes:
        armed: The step that raises, ``None`` for none.
        once: Whether it raises only the first time.
        reached: The steps that were taken since this was last emptied.
        raised: How often the armed step has raised.

    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, rooms: Sequence[ModuleType] = (_core, telemetry)
    ) -> None:
        self.armed: str | None = None
        self.once = False
        self.raised = 0
        self.reached: set[str] = set()
        self.all: set[str] = set()
        modules = [module for module in _modules(rooms) if module.__name__.startswith("budgetware")]
        aliases = _aliases()
        for module in modules:
            for value in list(vars(module).values()):
                if getattr(value, "__module__", None) != module.__name__:
                    continue
                if module.__name__ == alternative.__name__ and value.__name__ in ALTERNATIVES:
                    continue
                if isinstance(value, FunctionType):
                    broken = self._breakable(value)
                    for other, alias in aliases[value]:
                        monkeypatch.setattr(other, alias, broken)
                elif inspect.isclass(value):
                    self._break_class(monkeypatch, value)

    def arm(self, step: str | None, *, once: bool = False) -> None:
        """Have *step* raise from now on, or the next time only."""
        self.armed = step
        self.once = once
        self.raised = 0

    def _break_class(self, monkeypatch: pytest.MonkeyPatch, owner: type) -> None:
        for name, value in list(vars(owner).items()):
            if name in ITS_OWN_CALLS | ALTERNATIVES or name in {
                "__new__",
                "__del__",
                "__init_subclass__",
                "__class_getitem__",
            }:
                continue
            if isinstance(value, FunctionType):
                monkeypatch.setattr(owner, name, self._breakable(value))
            elif isinstance(value, staticmethod | classmethod):
                inner = self._breakable(value.__func__)
                monkeypatch.setattr(owner, name, type(value)(inner))
            elif isinstance(value, property) and value.fget is not None:
                monkeypatch.setattr(owner, name, property(self._breakable(value.fget), value.fset))

    def _breakable(self, function: Callable[..., Any]) -> Callable[..., Any]:
        step = f"{function.__module__.removeprefix('budgetware.')}.{function.__qualname__}"
        self.all.add(step)

        @functools.wraps(function)
        def taken(*args: Any, **kwargs: Any) -> Any:
            self.reached.add(step)
            if step == self.armed and not (self.once and self.raised):
                self.raised += 1
                raise Broken(step)
            return function(*args, **kwargs)

        return taken


def _modules(rooms: Sequence[ModuleType]) -> Iterator[ModuleType]:
    for package in rooms:
        yield package
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if found.name not in CALLED_BY_THE_APPLICATION:
                with suppress(MissingExtra):
                    yield importlib.import_module(found.name)


def _aliases() -> dict[FunctionType, list[tuple[ModuleType, str]]]:
    """Return where each function is found, and under which name, in all that is loaded of ours."""
    prefix = budgetware.__name__
    found: dict[FunctionType, list[tuple[ModuleType, str]]] = {}
    for name, module in list(sys.modules.items()):
        if name == prefix or name.startswith(prefix + "."):
            for alias, value in vars(module).items():
                if isinstance(value, FunctionType):
                    found.setdefault(value, []).append((module, alias))
    return found
