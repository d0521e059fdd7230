"""The policy file's JSON Schema, for editors; made from the models."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from budgetware.policyfile.pending import remark
from budgetware.policyfile.schema import PolicyFile

SCHEMA_FILE: Final = "budgetware.schema.json"

_NULL: Final = {"type": "null"}


def json_schema() -> dict[str, Any]:
    """Return the schema: JSON Schema 2020-12, with descriptions and examples."""
    schema = PolicyFile.model_json_schema(schema_generator=_InOrder)
    cleaned: dict[str, Any] = _cleaned(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "budgetware.yaml",
        **cleaned,
    }


def json_schema_text() -> str:
    """Return the schema as it is written to ``budgetware.schema.json``."""
    return json.dumps(json_schema(), indent=2) + "\n"


def shipped_schema_text() -> str:
    """Return the schema file that is part of the installed package."""
    return resources.files("budgetware").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")


def shipped_schema() -> dict[str, Any]:
    """Return what that file says; unlike ``json_schema`` it is the same whatever the pydantic."""
    schema: dict[str, Any] = json.loads(shipped_schema_text())
    return schema


class _InOrder(GenerateJsonSchema):
    """Keeps keys and examples in the order they were written in."""

    def sort(
        self,
        value: JsonSchemaValue,
        parent_key: str | None = None,  # noqa: ARG002 - given by pydantic
    ) -> JsonSchemaValue:
        return value


def _cleaned(schema: Any) -> Any:
    """Leave out what only describes the models: titles, defaults, and nulls no file may have."""
    if isinstance(schema, list):
        return [_cleaned(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {name: _remarked(name, _cleaned(part)) for name, part in value.items()}
        elif key in {"patternProperties", "$defs"}:
            result[key] = {name: _cleaned(part) for name, part in value.items()}
        elif key in {"examples", "enum", "const", "required"}:
            result[key] = value
        elif key not in {"title", "default", "propertyNames"}:
            result[key] = _cleaned(value)
    if _NULL in result.get("anyOf", []):
        result = _without_null(result)
    if "patternProperties" in result:
        result["additionalProperties"] = False
    return result


def _remarked(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Say in a key's description when nothing acts on it yet."""
    said = remark(name)
    return schema | {"description": f"{schema['description']} {said}"} if said else schema


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    forms: list[dict[str, Any]] = [form for form in schema.pop("anyOf") if form != _NULL]
    if len(forms) > 1:
        return schema | {"anyOf": forms}
    if "$ref" in forms[0]:
        return forms[0] | schema
    return {**forms[0], **schema}
