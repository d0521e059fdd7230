"""What is sent for the response that stands in the policy file? Exactly that."""

from __future__ import annotations

from typing import Final

from budgetware._core.policy import StaticAnswer
from budgetware.answers.answer import Answer, marked

_DEFAULT_TYPE: Final = b"text/plain; charset=utf-8"
_JSON_TYPE: Final = b"application/json"


def static_answer(static: StaticAnswer) -> Answer:
    """Return the answer written in the policy file; make it once, at load, and send it often.

    The body is sent as UTF-8. Without a ``Content-Type`` a body that begins like a JSON object or
    array is called JSON, any other plain text.

    Raises:
        ValueError: The status is no final one, or a header cannot be sent.

    """
    try:
        headers = [
            (name.encode("ascii"), value.encode("latin-1"))
            for name, value in static.headers.items()
        ]
    except UnicodeEncodeError as error:
        raise ValueError(f"a header of the static answer cannot be sent: {error}") from None
    body = static.body.encode("utf-8")
    if body and not any(name.lower() == b"content-type" for name, _ in headers):
        begins_as_json = body.lstrip()[:1] in {b"{", b"["}
        headers.append((b"content-type", _JSON_TYPE if begins_as_json else _DEFAULT_TYPE))
    return marked("static", static.status, headers, body)
