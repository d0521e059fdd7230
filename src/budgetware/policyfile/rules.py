"""Every rule a policy file can break, by the name that reports carry."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

RULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        # The text.
        "no-file": "The named policy file can be read.",
        "pyproject": "`tool.budgetware` in `pyproject.toml` names a file with `policy`.",
        "too-large": "The file has at most a megabyte and 50000 values.",
        "encoding": "The file is UTF-8.",
        "control-character": "Every character of the file can be seen.",
        "tab": "Lines are indented with spaces.",
        "syntax": "The file is YAML.",
        "empty": "The file says something.",
        "not-a-mapping": "The file is a mapping of keys to values.",
        "several-documents": "The file is one YAML document.",
        "directive": "There are no YAML directives.",
        "too-deep": "Nothing is nested more than 20 deep.",
        "alias": "There are no YAML anchors and aliases.",
        "merge-key": "There are no YAML merge keys.",
        "tag": "There are no YAML tags.",
        "bad-key": "Every key is one word.",
        "duplicate-key": "Every key is there once.",
        "yaml-trap": "Text that YAML reads as something else is quoted.",
        # One value.
        "missing-key": "Required keys are there.",
        "unknown-key": "Every key is one this format has.",
        "no-value": "Every key has a value.",
        "wrong-type": "A mapping, a list or one value, as the key asks for.",
        "bad-value": "The value is one the key can have.",
        "bad-choice": "The value is one of the choices.",
        "bad-name": "Names are a letter, then letters, digits, dots, dashes or underscores.",
        "bad-match": "A match is a method and a path template.",
        "bad-version": "`version` is 1.",
        "bad-quantity": "Durations, percentages, rates and sizes are written as the page says.",
        "missing-unit": "Every quantity has its unit.",
        "out-of-range": "Quantities are neither zero nor absurd.",
        "invalid": "The value is one the key can have.",
        "too-many-problems": "The file has at most 200 errors, 200 warnings and 200 notes.",
        # The file as a whole.
        "unknown-environment": "The environment asked for is in `environments`.",
        "unknown-tier": "A route's budgets are for tiers of the file.",
        "unknown-stage": "A stage that is dropped is one the route inherits.",
        "unreachable": "No two matches are for the same requests.",
        "cancel-unsafe": "Only requests that change nothing may be cancelled.",
        "overcommitted": "Stages and reserve fit into the budget of every tier.",
        "share-of-nothing": "A percentage is of a budget that is promised.",
        "operation-over-stage": "No operation may take longer than its stage.",
        "impossible-objective": "A higher percentile is never shorter than a lower one.",
        "shares-over-100": "The tiers' guaranteed shares add up to 100% at most.",
        "ladder-order": "The ladder rises.",
        "asset-over-total": "No asset may be larger than all of them together.",
        "never-in-force": "A route's budget is shorter than that of at least one tier.",
        "objective-over-budget": "Objectives are not looser than the budget.",
        "percentiles-added": "A route's percentile is not the sum of its stages' own.",
        "percentiles-compound": "Stages without a margin miss no more often than their route may.",
        "degraded-without-answers": "A limit on smaller answers is for routes that have some.",
        "cached-without-cache": "A route that answers from its cache has one that keeps answers.",
        "duplicate-answer": "Every answer is listed once.",
        "answer-after-reject": "The rejection is the last answer.",
        "job-with-response": "Only routes with `match` have responses.",
        "queue-over-budget": "A wait is shorter than the budget.",
        "share-without-concurrency": "Shares are shares of `concurrency`.",
        "new-in-environment": "A name only an environment has is not a typing error.",
        "operations-over-stage": "Operations that add up to more than their stage do not all run.",
        "unallocated": "What no stage plans with is meant as a margin.",
        "enforce-without-answers": "A route that is enforced has `answers`.",
        "not-in-this-release": "Every key has an effect.",
        "not-applied": "The service takes the new policy.",
    }
)
