"""The page that says what a policy file can say; made from the schema and the rules."""

from __future__ import annotations

from typing import Any, Final

from budgetware import units
from budgetware.policyfile.examples import flow
from budgetware.policyfile.fields import PERCENTILE_PATTERN
from budgetware.policyfile.json_schema import shipped_schema
from budgetware.policyfile.pending import remark
from budgetware.policyfile.rules import RULES

_INTRODUCTION: Final = """\
# The policy file

<!-- Made by `budgetware schema --format markdown`; a test keeps it in step with the code. -->

`budgetware.yaml` states what a service promises. The smallest one that promises something:

```yaml
# yaml-language-server: $schema=./budgetware.schema.json
version: 1
tiers:
  everyone: {budget: 200ms}
```

`budgetware validate` names everything that is wrong with a file, `budgetware explain GET /path`
says what one request is promised and which line says so. The first line above gives editors
completion, once `budgetware schema > budgetware.schema.json` has written the JSON Schema there.

The file is looked for in this order: the argument, `BUDGETWARE_POLICY`, `./budgetware.yaml`,
`policy` of `[tool.budgetware]` in `./pyproject.toml`. Without any, everything is measured and
nothing is promised.

## Quantities

Every quantity has a unit, and a number without one is an error.

| Quantity | Written as | Units |
|---|---|---|
| duration | `250us`, `5ms`, `1.5s`, `2m`, `1h` | requests up to `24h`, jobs up to `720h` |
| percentage | `80%`, `99.9%` | where a duration can be: of the budget |
| rate | `10/s`, `600/m`, `1000/h` | per second, minute, hour |
| size | `200KB`, `10MiB` | `KB`, `MB`, `GB` are thousands, `KiB`, `MiB`, `GiB` are 1024s |
| percentile | `p50`, `p95`, `p99.9` | as a key, with a duration |

An *allocation* such as `db: 5ms` is a limit for each request, so allocations add up: with the
reserve they may not come to more than the budget. An *objective* such as `p95: 25ms` is about many
requests and does not add up.
"""

_SECTIONS: Final = (
    ("The file", "", None),
    ("A tier", "tiers.<name>", "TierPart"),
    ("A stage", "stages.<name>, routes.<name>.stages.<name>", "StagePart"),
    ("A route", "routes.<name>", "RoutePart"),
    ("Objectives", "routes.<name>.objectives", "ObjectivesPart"),
    ("The cache", "routes.<name>.cache", "CachePart"),
    ("A static answer", "routes.<name>.answers", "StaticPart"),
    ("The ladder", "ladder", "LadderPart"),
    ("Build-time budgets", "checks", "ChecksPart"),
    ("A benchmark", "checks.benchmarks.<name>", "BenchmarkPart"),
    ("The load test", "checks.load", "LoadPart"),
)

_BY_PATTERN: Final = {
    units.DURATION_PATTERN: "duration",
    units.PERCENT_PATTERN: "percentage",
    units.RATE_PATTERN: "rate",
    units.SIZE_PATTERN: "size",
}


def reference_page() -> str:
    """Return the page as Markdown."""
    schema = shipped_schema()
    blocks = [_INTRODUCTION]
    blocks += [_section(schema, *section) for section in _SECTIONS]
    blocks.append(_rules())
    return "\n".join(blocks)


def _section(schema: dict[str, Any], title: str, place: str, name: str | None) -> str:
    part = schema if name is None else schema["$defs"][name]
    where = f" — `{place}`" if place else ""
    rows = [
        f"## {title}{where}",
        "",
        *_sentence(part, place),
        "| Key | Takes | Meaning |",
        "|---|---|---|",
    ]
    required = part.get("required", [])
    keys = dict(part.get("properties", {}))
    keys |= {
        "p50` ... `p99.9" if pattern == PERCENTILE_PATTERN else pattern: value
        for pattern, value in part.get("patternProperties", {}).items()
    }
    ordered = sorted(keys, key=lambda key: key not in required)
    for key in ordered:
        value = keys[key]
        must = " Required." if key in required else ""
        meaning = f"{value.get('description', '')}{must}"
        rows.append(f"| `{key}` | {_cell(_takes(value))} | {_cell(meaning)}{_examples(value)} |")
    return "\n".join([*rows, ""])


def _sentence(part: dict[str, Any], place: str) -> list[str]:
    """Return what the part is, and what it waits for when a key on the way to it does."""
    remarks = [said for key in place.split(".") if (said := remark(key))]
    text = " ".join([*str(part.get("description", "")).split(), *remarks])
    return [text, ""] if text else []


def _examples(value: dict[str, Any]) -> str:
    written = [f"`{flow(example)}`" for example in value.get("examples", [])]
    return _cell(f" Such as {', '.join(written)}.") if written else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _takes(value: dict[str, Any]) -> str:
    """Return the kind of value in words."""
    forms = value.get("anyOf") or value.get("oneOf")
    if forms:
        return " or ".join(dict.fromkeys(_takes(form) for form in forms))
    if "enum" in value:
        choices = [choice for choice in value["enum"] if isinstance(choice, str)]
        return ", ".join(f"`{choice}`" for choice in choices)
    if "const" in value:
        return f"`{value['const']}`"
    return _takes_kind(value, str(value.get("type", "object")))


def _takes_kind(value: dict[str, Any], kind: str) -> str:
    if kind == "array":
        return f"list of {_takes(value['items'])}"
    if kind == "object":
        entries = [*value.get("patternProperties", {}).values(), value.get("additionalProperties")]
        return f"mapping of names to {_takes(entries[0])}" if entries[0] else "mapping"
    words = {"boolean": "`true`, `false`", "integer": "whole number", "string": "text"}
    return _BY_PATTERN.get(str(value.get("pattern", "")), words.get(kind, kind))


def _rules() -> str:
    rows = [f"| `{code}` | {rule} |" for code, rule in RULES.items()]
    return "\n".join(
        [
            "## Rules",
            "",
            "What a report is about, by the name it carries.",
            "",
            "| Name | What holds |",
            "|---|---|",
            *rows,
            "",
        ]
    )
