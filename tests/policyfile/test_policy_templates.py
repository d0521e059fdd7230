"""Which requests a match means, as the policy file writes it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetware._core.policy import Match
from budgetware._core.routes import RouteTable
from budgetware.policyfile.findings import FieldError
from budgetware.policyfile.templates import parse_match


@pytest.mark.parametrize(
    ("text", "method", "template"),
    [
        ("GET /", "GET", "/"),
        ("GET /signals/{symbol}", "GET", "/signals/{symbol}"),
        ("* /reports/**", "*", "/reports/**"),
        ("POST /files/{rest:path}", "POST", "/files/{rest:path}"),
        ("DELETE /a/{b}/c/", "DELETE", "/a/{b}/c/"),
        ("GET /caf\u00e9/a.b-c_d~e", "GET", "/caf\u00e9/a.b-c_d~e"),
        ("GET /a:b", "GET", "/a:b"),
    ],
)
def test_matches_are_a_method_and_a_template(text: str, method: str, template: str) -> None:
    """What routers write is taken as it is."""
    assert parse_match(text) == Match(method, template)


def test_the_most_specific_template_wins_whatever_the_order() -> None:
    """A literal goes before a parameter before the rest, segment by segment."""
    texts = ["* /reports/**", "GET /reports/{id}", "GET /reports/latest", "GET /{any}/latest"]
    for ordered in (texts, texts[::-1]):
        table = RouteTable((parse_match(text), text) for text in ordered)
        assert table.find("GET", "/reports/latest") == "GET /reports/latest"
        assert table.find("GET", "/reports/7") == "GET /reports/{id}"
        assert table.find("GET", "/reports/7/pages") == "* /reports/**"
        assert table.find("GET", "/reports") == "* /reports/**"
        assert table.find("GET", "/other/latest") == "GET /{any}/latest"
        assert table.find("GET", "/other") is None


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=40) | st.from_regex(r"(GET|POST|\*) /[a-z{}*:/<>?#%]{0,20}", fullmatch=True)
)
def test_any_text_is_a_match_or_refused(text: str) -> None:
    """Whatever is accepted can be put into a route table; the rest is refused with a message."""
    try:
        match = parse_match(text)
    except FieldError as error:
        assert error.message  # noqa: PT017 - either way is fine, silence is not
    else:
        assert RouteTable([(match, "found")]).find("GET", match.template) in {"found", None}
