"""Is this a text at all? Bytes are decoded and everything that is no policy file is refused.

What passes is UTF-8 of at most 256 KiB, without control characters and without tabs where
YAML forbids them, so the parser only ever sees text that an editor shows as it is.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_right
from itertools import islice
from typing import TYPE_CHECKING, Final

from budgetware.policyfile.findings import MOST_PROBLEMS, Span
from budgetware.units import format_size

if TYPE_CHECKING:
    from budgetware.policyfile.findings import Findings

MOST_BYTES: Final = 256 * 1024

_LINE_BREAK: Final = re.compile(r"\r\n|\r|\n")

# Not printable, or printed as something else than it is: control characters, line breaks only
# YAML knows, byte order marks, surrogates, and marks that reorder the text around them.
_INVISIBLE: Final = re.compile(
    "[^\t\n\r -~\xa0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufefe"
    "\uff00-\ufffd\U00010000-\U0010ffff]",
)
_TAB_INDENT: Final = re.compile(r"^ *+\t[ \t]*+(?=[^\r\n#])", re.MULTILINE)

_OTHER_ENCODINGS: Final = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def lines_of(text: str) -> list[str]:
    """Return the lines of *text* without their ends, as editors count them."""
    # Thrice as fast as a pattern, and no other thread runs meanwhile.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_text(source: str | bytes, found: Findings) -> str | None:
    """Return the text of *source*, or ``None`` when why there is none was reported to *found*."""
    if _is_too_large(source):
        found.report(
            "too-large",
            f"the file has more than {MOST_BYTES} bytes",
            f"at most {format_size(MOST_BYTES)}, so that reading it holds up no request",
            at=Span(1, 1),
        )
        return None
    text = _decode(source, found) if isinstance(source, bytes) else source
    return None if text is None else text.removeprefix("\ufeff")


def is_plain(text: str, found: Findings) -> bool:
    """Tell whether a parser may see *text*; characters that keep it from that are reported."""
    invisible = list(islice(_INVISIBLE.finditer(text), MOST_PROBLEMS + 1))
    tabs = list(islice(_TAB_INDENT.finditer(text), MOST_PROBLEMS + 1))
    place = _Places(text if invisible or tabs else "")
    for bad in invisible:
        found.report(
            "control-character",
            f"the character U+{ord(bad[0]):04X} is invisible",
            "remove it",
            at=place.of(bad.start()),
        )
    for bad in tabs:
        found.report(
            "tab",
            "a tab indents this line",
            "indent with spaces; YAML does not allow tabs here",
            at=place.of(bad.start() + bad[0].index("\t")),
        )
    return not invisible and not tabs


def visible(line: str) -> str:
    """Return *line* with a mark for each character that cannot be seen; columns stay."""
    return _INVISIBLE.sub("\ufffd", line.replace("\t", " "))


def _is_too_large(source: str | bytes) -> bool:
    if isinstance(source, bytes) or len(source) > MOST_BYTES:
        return len(source) > MOST_BYTES
    return len(source.encode(errors="surrogatepass")) > MOST_BYTES


def _decode(source: bytes, found: Findings) -> str | None:
    for mark, encoding in _OTHER_ENCODINGS.items():
        if source.startswith(mark):
            found.report("encoding", f"the file is {encoding}", "save it as UTF-8", at=Span(1, 1))
            return None
    try:
        return source.decode()
    except UnicodeDecodeError as error:
        before = source[: error.start].decode().removeprefix("\ufeff")
        found.report(
            "encoding",
            f"the byte 0x{source[error.start]:02x} at offset {error.start} is not UTF-8",
            "save the file as UTF-8",
            at=_Places(before).of(len(before)),
        )
        return None


class _Places:
    """Lines and columns of offsets in one text."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(found.end() for found in _LINE_BREAK.finditer(text))]

    def of(self, offset: int) -> Span:
        line = bisect_right(self._starts, offset)
        return Span(line, offset - self._starts[line - 1] + 1)
