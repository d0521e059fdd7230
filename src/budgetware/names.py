"""Every metric, attribute, event and header name, once; emitters and generators read it here.

Dotted names follow the OpenTelemetry naming rules; in Prometheus the dots become underscores,
``s`` becomes ``_seconds`` and counters end in ``_total``.
"""

from __future__ import annotations

from typing import Final

SCOPE: Final = "budgetware"
"""The instrumentation scope, and the name of the logger."""

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
"""The version of OpenTelemetry's conventions these names were chosen under."""

OTHER: Final = "_OTHER"
"""The name under which whatever exceeds a cap is counted."""

# Metrics.
REQUEST_DURATION: Final = "budgetware.request.duration"
REQUESTS: Final = "budgetware.requests"
REQUEST_ERRORS: Final = "budgetware.request.errors"
REQUEST_BUDGET_LIMIT: Final = "budgetware.request.budget.limit"
STAGE_DURATION: Final = "budgetware.stage.duration"
STAGE_BUDGET_LIMIT: Final = "budgetware.stage.budget.limit"
VIOLATIONS: Final = "budgetware.violations"
INTERNAL_ERRORS: Final = "budgetware.internal.errors"
DECISIONS: Final = "budgetware.decisions"
DEGRADED: Final = "budgetware.degraded"
DEGRADED_SHARE: Final = "budgetware.degraded.share"
DEGRADED_LIMIT: Final = "budgetware.degraded.limit"
ADMISSION: Final = "budgetware.admission"
CACHE: Final = "budgetware.cache"
FORECAST_CHECKED: Final = "budgetware.forecast.checked"
FORECAST_EXPECTED_LATE: Final = "budgetware.forecast.expected_late"
FORECAST_LATE: Final = "budgetware.forecast.late"

# Attributes.
ROUTE: Final = "budgetware.route"
TIER: Final = "budgetware.tier"
STAGE: Final = "budgetware.stage"
OPERATION: Final = "budgetware.operation"
OUTCOME: Final = "budgetware.outcome"
LEVEL: Final = "budgetware.level"
VIOLATION_SCOPE: Final = "budgetware.violation.scope"
INTERNAL_STEP: Final = "budgetware.internal.step"
MODE: Final = "budgetware.mode"
ACTION: Final = "budgetware.action"
REASON: Final = "budgetware.reason"
ANSWER: Final = "budgetware.answer"
RESULT: Final = "budgetware.result"
FORECAST_SAID: Final = "budgetware.forecast.said"
ERROR_TYPE: Final = "error.type"
SPAN_LIMIT: Final = "budgetware.budget.limit"
SPAN_ELAPSED: Final = "budgetware.budget.elapsed"
SPAN_OVERAGE: Final = "budgetware.budget.overage"
SPAN_POLICY: Final = "budgetware.policy"

# What a violation is a violation of, in metrics and in log events.
SCOPE_REQUEST: Final = "request"
SCOPE_STAGE: Final = "stage"

# What a forecast said of a request before it was carried out.
SAID_IN_TIME: Final = "in_time"
SAID_LATE: Final = "late"

# Log events.
EVENT_EXCEEDED: Final = "budget_exceeded"
EVENT_WARNING: Final = "budget_warning"
EVENT_DEGRADED: Final = "budget_degraded"
EVENT_INTERNAL_ERROR: Final = "budgetware_internal_error"
EVENT_NESTED: Final = "budgetware_nested"
EVENT_NO_CLOCK: Final = "budgetware_no_clock"
EVENT_NO_FALLBACK: Final = "budgetware_no_fallback"
EVENT_NO_POLICY: Final = "budgetware_no_policy"
EVENT_NO_SERVICE: Final = "budgetware_no_service"
EVENT_NOT_KEPT: Final = "budgetware_not_kept"
EVENT_POLICY_RELOADED: Final = "budgetware_policy_reloaded"
EVENT_POLICY_REJECTED: Final = "budgetware_policy_rejected"

# Where a service says what it knows about the caller.
TIER_KEY: Final = "budgetware.tier"
"""Key in the ASGI ``scope["state"]`` and in the WSGI environ that names the caller's tier."""

# Settings.
MODE_VARIABLE: Final = "BUDGETWARE_MODE"
"""The environment variable that holds every mode back: ``observe`` switches all decisions off."""

# Headers.
SERVER_TIMING: Final = "Server-Timing"
ANSWER_HEADER: Final = "Budgetware-Answer"
