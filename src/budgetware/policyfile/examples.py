"""What would it look like? The schema's examples, as people write them."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from budgetware.policyfile.json_schema import shipped_schema

if TYPE_CHECKING:
    from budgetware.policyfile.findings import Path


def flow(example: object) -> str:
    """Return *example* as YAML on one line, in the way people write it."""
    if isinstance(example, dict):
        return "{" + ", ".join(f"{flow(k)}: {flow(v)}" for k, v in example.items()) + "}"
    if isinstance(example, list):
        return "[" + ", ".join(flow(item) for item in example) + "]"
    if isinstance(example, str):
        return json.dumps(example) if set(example) & set('*{}[],"#') else example
    return json.dumps(example)


def written(path: Path, kind: type) -> str:
    """Return ``key: value`` as the entry at *path* can be, its value a *kind*; empty if unknown."""
    example = next((one for one in _examples(path) if isinstance(one, kind)), None)
    return "" if example is None else f"{flow(path[-1])}: {flow(example)}"


def _examples(path: Path) -> list[object]:
    """Follow *path* down the schema, and the examples down to the same depth."""
    schema, examples = _schema(), list[object]()
    for key in path:
        part = _with_keys(schema)
        if key in part.get("properties", {}):
            schema = part["properties"][key]
            examples = schema.get("examples", [])
        else:  # somebody's own name
            schema = _entries(part)
            examples = [
                value for one in examples if isinstance(one, dict) for value in one.values()
            ]
    return examples


def _with_keys(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the form of *schema* that is a mapping."""
    if "$ref" in schema:
        resolved: dict[str, Any] = _schema()["$defs"][schema["$ref"].rpartition("/")[2]]
        return resolved
    forms = [_with_keys(form) for form in schema.get("anyOf", schema.get("oneOf", []))]
    return next((form for form in forms if form.get("type") == "object"), schema)


def _entries(part: dict[str, Any]) -> dict[str, Any]:
    named = [*part.get("patternProperties", {}).values(), part.get("additionalProperties")]
    return next((entry for entry in named if isinstance(entry, dict)), {})


@cache
def _schema() -> dict[str, Any]:
    return shipped_schema()
