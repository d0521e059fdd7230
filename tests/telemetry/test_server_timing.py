"""The ``Server-Timing`` header."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from tests.telemetry.driving import Service, Step, provider_with

from budgetware._core.budget import MOST_STAGES, Budget
from budgetware._core.current import current_budget, handle
from budgetware.telemetry import Telemetry, server_timing
from budgetware.telemetry.server_timing import LONGEST_VALUE, MOST_TEMPLATES, render

ENTRY = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+;dur=[0-9]+\.[0-9]")


def _open(steps: list[Step], *, still_open: str | None = None) -> Budget:
    service = Service(Telemetry(provider_with()))
    budget = service.engine.begin("GET", "/signals/x", "pro")
    token = current_budget.set(budget)
    for step in steps:
        with handle.stage(step.name):
            service.clock.now += step.seconds
    if still_open is not None:
        handle.stage(still_open).__enter__()
        service.clock.now += 0.001
    current_budget.reset(token)
    return budget


def test_total_first_then_the_stages_that_were_left() -> None:
    """Milliseconds to one decimal; a stage still open is absent."""
    budget = _open([Step("auth", 0.0008), Step("db", 0.00973)], still_open="response")

    first, second = render(budget), render(budget)

    assert first == b"total;dur=11.5, auth;dur=0.8, db;dur=9.7"
    assert second == first


def test_openings_of_a_stage_are_added_up() -> None:
    """A stage that was opened again and again is one entry."""
    budget = _open([Step("db", 0.002), Step("auth", 0.001), Step("db", 0.003)])

    assert render(budget) == b"total;dur=6.0, db;dur=5.0, auth;dur=1.0"
    assert render(budget) == render(budget)


def test_without_stages_there_is_the_total() -> None:
    """A request that opened nothing still has a time."""
    assert render(_open([])) == b"total;dur=0.0"


def test_settled_stages_are_still_counted() -> None:
    """When there were too many openings to keep them all, their time is not lost."""
    budget = _open([Step("db", 0.001)] * (3 * MOST_STAGES) + [Step("auth", 0.002)])

    assert budget.settled is not None
    assert render(budget) == b"total;dur=770.0, db;dur=768.0, auth;dur=2.0"


def test_a_stage_across_a_settling_counts_once() -> None:
    """A stage that was open when older ones were settled is not billed twice."""
    service = Service(Telemetry(provider_with()))
    budget = service.engine.begin("GET", "/signals/x", "pro")
    token = current_budget.set(budget)
    with handle.stage("outer"):
        for _ in range(2 * MOST_STAGES):
            with handle.stage("db"):
                service.clock.now += 0.001
    current_budget.reset(token)

    assert budget.settled is not None
    entries = dict(entry.split(b";dur=") for entry in render(budget).split(b", "))
    assert entries == {b"total": b"512.0", b"outer": b"512.0", b"db": b"512.0"}


def test_many_long_names_do_not_make_a_long_header() -> None:
    """What there is no room for is left out; what is there is whole."""
    budget = _open([Step(f"{number:02}{'é' * 80}", 0.001) for number in range(99)])

    for _ in range(2):
        value = render(budget)
        assert LONGEST_VALUE / 2 < len(value) <= LONGEST_VALUE
        assert all(ENTRY.fullmatch(entry) for entry in value.decode("ascii").split(", "))


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=()), max_size=90), max_size=99))
def test_no_name_can_break_the_header(stages: list[str]) -> None:
    """Whatever stages are called, the value is a list of tokens, bounded, without line breaks."""
    budget = _open([Step(name, 0.001) for name in stages])

    for _ in range(2):
        value = render(budget)
        assert len(value) <= LONGEST_VALUE
        for entry in value.decode("ascii").split(", "):
            assert ENTRY.fullmatch(entry)
        assert len(value.split(b", ")) <= 1 + len(set(stages))


def test_a_name_that_is_no_name_is_left_out() -> None:
    """An object that cannot even be hashed does not break the header."""
    budget = _open([Step("db", 0.001)])
    odd = budget.opens()
    odd.name, odd.operation, odd.start, odd.end = [], None, 0.0, 1.0  # type: ignore[assignment]
    budget.append(odd)

    assert render(budget) == b"total;dur=1.0, db;dur=1.0"


def test_remembered_templates_are_bounded() -> None:
    """Names made up at run time do not grow the cache."""
    for number in range(3 * MOST_TEMPLATES):
        render(_open([Step(f"s{number}", 0.001)]))

    assert 0 < len(server_timing._templates) <= MOST_TEMPLATES
