"""The JSON Schema and the reference page are what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from pydantic.json_schema import GenerateJsonSchema

from budgetware.policyfile import check, json_schema
from budgetware.policyfile.reference import reference_page
from budgetware.policyfile.rules import RULES

ROOT = Path(__file__).parent.parent.parent
POLICIES = ROOT / "tests" / "fixtures" / "policies"


@pytest.mark.skipif(
    not hasattr(GenerateJsonSchema, "sort"),
    reason="this pydantic sorts the schema's keys, and there is no way to keep their order",
)
def test_the_shipped_schema_is_the_generated_one() -> None:
    """Writing ``json_schema_text()`` to ``budgetware.schema.json`` would change nothing."""
    assert json_schema.shipped_schema_text() == json_schema.json_schema_text()


def test_the_reference_page_is_the_generated_one() -> None:
    """`budgetware schema --format markdown > docs/policy-reference.md` would change nothing."""
    page = (ROOT / "docs" / "policy-reference.md").read_text(encoding="utf-8")
    assert page == reference_page()


def test_the_schema_is_a_schema() -> None:
    """It keeps to JSON Schema 2020-12, and allows no null but that of a dropped stage."""
    schema = json_schema.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert '"null"' not in json_schema.json_schema_text()


@pytest.mark.parametrize("path", sorted(POLICIES.glob("*.yaml")), ids=lambda path: path.name)
def test_editors_accept_what_the_loader_reads(path: Path) -> None:
    """Every fixture has the shape the schema asks for."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(json_schema.json_schema()).validate(content)


@pytest.mark.parametrize(
    "text",
    [
        "version: 2",
        "{}",
        "{version: 1, tier: {}}",
        "{version: 1, tiers: {a: {budget: 30}}}",
        "{version: 1, tiers: {a: {budget: 30%}}}",
        "{version: 1, stages: {a b: 5ms}}",
        "{version: 1, mode: observing}",
        "{version: 1, routes: {a: {match: /x}}}",
        "{version: 1, routes: {a: {match: []}}}",
        "{version: 1, routes: {a: {answers: [cache]}}}",
        "{version: 1, routes: {a: {objectives: {p950: 5ms}}}}",
        "{version: 1, stages: {db: null}}",
        "{version: 1, environments: {dev: {version: 1}}}",
    ],
)
def test_editors_refuse_what_the_loader_refuses(text: str) -> None:
    """The schema and the loader agree about what has the wrong shape."""
    assert check(text).policy is None
    validator = jsonschema.Draft202012Validator(json_schema.json_schema())
    assert not validator.is_valid(yaml.safe_load(text))


def test_every_key_has_a_description_and_an_example() -> None:
    """Nothing is left to guess."""
    schema = json_schema.json_schema()
    parts = {"PolicyFile": schema, **schema["$defs"]}
    for name, part in parts.items():
        assert part["description"], name
        for key, field in part["properties"].items():
            assert field["description"].endswith("."), (name, key)
            assert field["examples"], (name, key)


def test_the_examples_of_the_page_are_valid() -> None:
    """What the schema shows as an example keeps to the schema."""
    schema = json_schema.json_schema()
    for part in (schema, *schema["$defs"].values()):
        for field in part["properties"].values():
            validator = jsonschema.Draft202012Validator(field | {"$defs": schema["$defs"]})
            for example in field["examples"]:
                validator.validate(example)


def test_every_rule_the_code_can_report_is_on_the_page() -> None:
    """The rules are those that reports carry, all of them and no others."""
    source = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "src" / "budgetware").glob("**/*.py")
        if path.name != "rules.py" and ("policyfile" in path.parts or path.name == "units.py")
    )
    quoted = set(re.findall(r'"([a-z0-9]+(?:-[a-z0-9]+)*)"', source))
    assert set(RULES) <= quoted
    reported = re.findall(r'(?:report|_stop)\(\s*"([a-z0-9-]+)"', source)
    reported += re.findall(r'code="([a-z0-9-]+)"', source)
    assert set(reported) <= set(RULES)
