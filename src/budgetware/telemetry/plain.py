"""What may leave the process as text: values from outside, made safe to print and to encode."""

from __future__ import annotations

from typing import Final

LONGEST: Final = 256
"""Characters of a value that leave the process; the rest is cut off."""


def plain(value: object, longest: int = LONGEST) -> str:
    r"""Return *value* as at most *longest* printable characters that any encoder accepts.

    Control characters, line breaks, bidirectional overrides and lone surrogates become escapes
    such as ``\n`` and ``\u202e``, so one event stays one line and reads the way it was written.
    """
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - an object that cannot describe itself
        text = f"<{type(value).__name__}>"
    if len(text) <= longest and text.isprintable():
        return text
    escaped = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text[:longest]
    )
    if len(text) <= longest and len(escaped) <= longest:
        return escaped
    return escaped[: longest - 1] + "…"
