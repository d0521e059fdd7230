"""What may a fallback of the application return? Text, bytes, JSON data, a triple or a response.

"text"                            text/plain
b"bytes"                          application/octet-stream
{"a": 1}, [1, 2]                  application/json
(status, headers, body)           body as above; a Content-Type of its own wins
a Starlette, Flask or Django response that is not a stream
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from budgetware.answers.answer import Answer, marked
from budgetware.answers.facts import Header

_OK: Final = 200
_TRIPLE: Final = 3


def fallback_answer(result: object) -> Answer:
    """Return what the application's fallback returned as an answer.

    Raises:
        TypeError: It is nothing a response can be made of, or a stream.
        ValueError: A status, a header or JSON data cannot be sent.

    """
    if isinstance(result, tuple):
        if len(result) != _TRIPLE:
            raise TypeError(
                "a fallback's tuple is (status, headers, body), such as (200, {}, 'text'), "
                f"not {len(result)} items",
            )
        status, headers, content = result
        return _made(status, headers, content)
    if hasattr(result, "status_code"):
        return _of_response(result)
    return _made(_OK, (), result)


def _made(status: object, headers: object, content: object) -> Answer:
    if not isinstance(status, int):
        raise TypeError(f"a fallback's status is an int, not {type(status).__name__}")
    lines = _lines(headers)
    body, kind = _body(content)
    if body and not any(name.lower() == b"content-type" for name, _ in lines):
        lines.append((b"content-type", kind))
    return marked("fallback", int(status), lines, body)


def _of_response(response: Any) -> Answer:
    if getattr(response, "is_streamed", False) or getattr(response, "streaming", False):
        raise TypeError("a fallback's response is whole, not a stream")
    body = None
    for name in ("body", "get_data", "content"):
        body = getattr(response, name, None)
        if name == "get_data" and callable(body):
            body = body()
        if isinstance(body, bytes | bytearray | memoryview):
            break
    else:
        raise TypeError(
            f"a fallback's response has its body as bytes; {type(response).__name__} does not",
        )
    headers = getattr(response, "raw_headers", None) or getattr(response, "headers", ())
    return _made(response.status_code, headers, bytes(body))


def _body(content: object) -> tuple[bytes, bytes]:
    if isinstance(content, str):
        return content.encode("utf-8"), b"text/plain; charset=utf-8"
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content), b"application/octet-stream"
    if isinstance(content, dict | list):
        # What json would write for NaN is not JSON.
        text = json.dumps(content, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8"), b"application/json"
    raise TypeError(
        "a fallback returns str, bytes, dict, list, (status, headers, body) or a response, "
        f"not {type(content).__name__}",
    )


def _lines(headers: object) -> list[Header]:
    items = getattr(headers, "items", None)
    if callable(items):
        pairs: Iterable[Any] = items()
    elif isinstance(headers, Iterable) and not isinstance(headers, str | bytes):
        pairs = headers
    else:
        raise TypeError(f"a fallback's headers are pairs, not {type(headers).__name__}")
    lines: list[Header] = []
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:  # noqa: PLR2004 - a pair
            raise TypeError(f"a fallback's headers are pairs of name and value, not {pair!r:.80}")
        lines.append((_text(pair[0]), _text(pair[1])))
    return lines


def _text(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str | int):
        try:
            return str(value).encode("latin-1")
        except UnicodeEncodeError:
            raise ValueError(f"the header text {value!r:.80} cannot be sent") from None
    raise TypeError(f"a header's name and value are text, not {type(value).__name__}")
