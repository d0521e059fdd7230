"""The house: each room answers one question and imports only from the rows above its own.

Every check is a function of sources, so each is also shown to fail on a small made-up one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "budgetware"

ROWS = (
    "_version",
    "errors",
    "names",
    "http",
    "units",
    "misuse",
    "_core.policy",
    "_core.routes",
    "_core.record",
    "_core.decorate",
    "_core.stage",
    "_core.interrupt",
    "_core.path",
    "_core.cell",
    "_core.outlook",
    "_core.forecast",
    "_core.probe",
    "_core.quota",
    "_core.decide",
    "_core.reasons",
    "_core.steering",
    "_core.course",
    "_core.rate",
    "_core.ticket",
    "_core.admit",
    "_core.entrance",
    "_core.distribution",
    "_core.tally",
    "_core.lane",
    "_core.desk",
    "_core.budget",
    "_core.alternative",
    "_core.current",
    "_core.account",
    "_core.audience",
    "_core.engine",
    "_core",
    "policyfile",
    "telemetry",
    "answers",
    "limits",
    "runtime",
    "jobs",
    "handle",
    "asgi",
    "wsgi",
    "testing",
    "pytest_plugin",
    "cli",
    "",
)
"""From the foundation up; a name stands for the file, or for the folder with all its files."""

GUESTS = {
    "anyio": ("asgi", "answers.preparing"),
    "click": ("cli",),
    "opentelemetry": ("telemetry", "runtime", "testing"),
    "opentelemetry.exporter": ("telemetry.prometheus",),
    "prometheus_client": ("telemetry.prometheus",),
    "pydantic": ("policyfile",),
    "pydantic_core": ("policyfile",),
    "pytest": ("pytest_plugin",),
    "redis": ("answers.redis_store", "answers.redis_terms", "limits"),
    "starlette": (),
    "structlog": ("telemetry", "runtime", "testing"),
    "yaml": ("policyfile",),
}
"""Which rooms may import which distribution; whatever is not listed is nobody's guest."""

WALL_CLOCKS = ("telemetry.__init__", "telemetry.metrics", "telemetry.spans")
"""The only files that may know the time of day: they put it on spans and data points."""

BANNED = {"utils", "util", "common", "helpers", "helper", "manager", "managers", "base", "misc"}

Sources = dict[str, str]
"""Source texts by module below the package: ``_core.policy``, ``telemetry.__init__``."""


@dataclass(frozen=True)
class Import:
    """One import of one module, and where it stands."""

    module: str
    line: int
    for_types: bool


def imports_of(module: str, source: str, known: frozenset[str]) -> Iterator[Import]:
    """Yield what *module* imports; ``from x import y`` is ``x.y`` where that is a module."""
    tree = ast.parse(source)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import in line {node.lineno}"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in known else str(node.module) for name in inner]
        else:
            continue
        for name in found:
            yield Import(name, node.lineno, id(node) in typing_only)


def row_of(module: str) -> int:
    """Return the row of a module below the package."""
    name = module.removesuffix("__init__").rstrip(".")
    while name not in ROWS and "." in name:
        name = name.rpartition(".")[0]
    return ROWS.index(name)


def within(module: str, rooms: tuple[str, ...]) -> bool:
    """Tell whether *module* is one of *rooms* or in one of them."""
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def known_modules(sources: Sources) -> frozenset[str]:
    """Return the full names of all modules."""
    return frozenset(f"budgetware.{name}".removesuffix(".__init__") for name in sources)


def inside(sources: Sources) -> Iterator[tuple[str, Import]]:
    """Yield every import of our own modules: from where, and what, below the package."""
    known = known_modules(sources)
    for module, source in sources.items():
        for one in imports_of(module, source, known):
            if one.module == "budgetware" or one.module.startswith("budgetware."):
                below = one.module.removeprefix("budgetware").removeprefix(".")
                yield module, Import(below, one.line, one.for_types)


def rooms_that_look_up(sources: Sources) -> list[str]:
    """Return imports from the importer's own row's neighbours or from rows further down."""
    found = []
    for module, one in inside(sources):
        mine, theirs = row_of(module), row_of(one.module)
        if theirs > mine or (
            theirs == mine
            and ROWS[mine]
            not in {
                "policyfile",
                "telemetry",
                "answers",
                "limits",
                "asgi",
                "wsgi",
            }
        ):
            found.append(f"{module}:{one.line} imports {one.module or 'budgetware'}")
    return found


def cycles(sources: Sources) -> list[str]:
    """Return a cycle of imports at run time, if there is one."""
    graph: dict[str, set[str]] = {}
    for module, one in inside(sources):
        if not one.for_types:
            graph.setdefault(module.removesuffix(".__init__"), set()).add(one.module)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def strangers(sources: Sources) -> list[str]:
    """Return imports of what is neither ours, nor Python's, nor a guest of that room."""
    found = []
    for module, source in sources.items():
        for one in imports_of(module, source, frozenset()):
            top = one.module.partition(".")[0]
            if top in sys.stdlib_module_names or top == "budgetware":
                continue
            hosts = [
                rooms
                for guest, rooms in GUESTS.items()
                if one.module == guest or one.module.startswith(f"{guest}.")
            ]
            if not hosts or not all(within(module, rooms) for rooms in hosts):
                found.append(f"{module}:{one.line} imports {one.module}")
    return found


def core_that_is_not_pure(sources: Sources) -> list[str]:
    """Return imports of the core that read, write, wait or log."""
    impure = {"asyncio", "logging", "selectors", "socket", "subprocess", "pathlib", "io"}
    return [
        f"{module}:{one.line} imports {one.module}"
        for module, source in sources.items()
        if within(module, ("_core",))
        for one in imports_of(module, source, frozenset())
        if one.module.partition(".")[0] in impure
    ]


def wall_clocks(sources: Sources) -> list[str]:
    """Return uses of the time of day, which can be set back while a request is running."""
    clocks = {"time": {"time", "time_ns", "localtime", "gmtime"}, "datetime": {"now", "utcnow"}}
    clocks["date"] = {"today"}
    found = []
    for module, source in sources.items():
        if module in WALL_CLOCKS:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute):
                owner = ast.unparse(node.value).rpartition(".")[2]
                if node.attr in clocks.get(owner, ()):
                    found.append(f"{module}:{node.lineno} uses {owner}.{node.attr}")
            elif isinstance(node, ast.ImportFrom) and node.module == "time":
                names = {alias.name for alias in node.names} & clocks["time"]
                found.extend(f"{module}:{node.lineno} imports time.{name}" for name in names)
    return found


def names_that_say_nothing(sources: Sources) -> list[str]:
    """Return files and folders whose name could stand on anything."""
    return [module for module in sources if BANNED & set(module.split("."))]


def undocumented(sources: Sources) -> list[str]:
    """Return public modules, classes, functions and methods without a docstring."""
    found = []
    for module, source in sources.items():
        tree = ast.parse(source)
        if ast.get_docstring(tree) is None:
            found.append(f"{module} has no docstring")
        open_nodes: list[ast.Module | ast.ClassDef] = [tree]
        while open_nodes:
            for node in open_nodes.pop().body:
                if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                if any("setter" in ast.dump(one) for one in node.decorator_list):
                    continue  # the property's docstring speaks for both
                if not node.name.startswith("_") and ast.get_docstring(node) is None:
                    found.append(f"{module}:{node.lineno} {node.name} has no docstring")
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    open_nodes.append(node)
    return found


def rooms_without_a_row(sources: Sources) -> list[str]:
    """Return modules that stand in no row: decide first which question they answer."""
    tops = {row.partition(".")[0] for row in ROWS}
    return [
        module
        for module in sources
        if module.removesuffix("__init__").partition(".")[0] not in tops
    ]


def _sources() -> Sources:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path.read_text("utf-8")
        for path in sorted(PACKAGE.rglob("*.py"))
    }


CHECKS: dict[Callable[[Sources], list[str]], Sources] = {
    rooms_without_a_row: {"gizmo": ""},
    rooms_that_look_up: {"_core.policy": "from budgetware._core.engine import Engine"},
    cycles: {
        "telemetry.spans": "from budgetware.telemetry import events",
        "telemetry.events": "def late():\n    import budgetware.telemetry.spans",
    },
    strangers: {"runtime": "import requests"},
    core_that_is_not_pure: {"_core.engine": "import logging"},
    wall_clocks: {"_core.engine": "import time\nstart = time.time()"},
    names_that_say_nothing: {"policyfile.utils": ""},
    undocumented: {"asgi": '"""Door."""\nclass Door:\n    """Opens."""\n    def open(self): ...'},
}
"""Each check, and a source it must find something in."""


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house_is_in_order(check: Callable[[Sources], list[str]]) -> None:
    """The check finds nothing in the library."""
    assert check(_sources()) == []


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_each_check_can_fail(check: Callable[[Sources], list[str]]) -> None:
    """It finds exactly one thing in a made-up source that has one."""
    assert len(check(CHECKS[check])) == 1


@pytest.mark.parametrize(
    ("check", "sources"),
    [
        (
            rooms_that_look_up,
            {"asgi": "if TYPE_CHECKING:\n    from budgetware.wsgi import Environ"},
        ),
        (rooms_that_look_up, {"runtime": "def late():\n    from budgetware import budget"}),
        (rooms_that_look_up, {"_core.lane": "import budgetware._core.lane"}),
        (strangers, {"runtime": "from prometheus_client import start_http_server"}),
        (strangers, {"telemetry.spans": "from opentelemetry.exporter.prometheus import x"}),
        (strangers, {"_core.engine": "import structlog"}),
        (strangers, {"asgi": "from starlette.requests import Request"}),
        (wall_clocks, {"_core.engine": "from time import time_ns"}),
        (wall_clocks, {"jobs": "import datetime\nnow = datetime.datetime.now()"}),
        (wall_clocks, {"jobs": "import time\nclock = time.time"}),
        (undocumented, {"asgi": "x = 1"}),
        (undocumented, {"asgi": '"""Door."""\nasync def serve(): ...'}),
        (names_that_say_nothing, {"base.policy": ""}),
    ],
)
def test_a_check_sees_through_disguises(
    check: Callable[[Sources], list[str]],
    sources: Sources,
) -> None:
    """Imports for types, late ones, aliases and nesting are found as well."""
    assert len(check(sources)) == 1


@pytest.mark.parametrize(
    ("check", "sources"),
    [
        (rooms_that_look_up, {"telemetry.spans": "from budgetware.telemetry import plain"}),
        (rooms_that_look_up, {"__init__": "from budgetware.cli import main"}),
        (strangers, {"telemetry.prometheus": "import prometheus_client"}),
        (wall_clocks, {"telemetry.spans": "import time\nanchor = time.time_ns()"}),
        (wall_clocks, {"_core.engine": "from time import perf_counter"}),
        (undocumented, {"asgi": '"""Door."""\ndef _hidden(): ...\nclass _Hidden: ...'}),
    ],
)
def test_what_is_allowed_is_not_reported(
    check: Callable[[Sources], list[str]],
    sources: Sources,
) -> None:
    """A check that always fails would be no check either."""
    assert check(sources) == []
