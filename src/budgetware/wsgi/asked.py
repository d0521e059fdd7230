"""What is a request about, for those who answer it with something kept? Read from its environ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from budgetware.answers.facts import RequestFacts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from budgetware._core.policy import Plan
    from budgetware.answers.facts import Header

_AS_SENT: Final = "/:@!$&'()*+,;=~"
"""What clients send in a path as it is, RFC 3986 section 3.3."""

_WITHOUT_PREFIX: Final = ("CONTENT_LENGTH", "CONTENT_TYPE")
"""PEP 3333 leaves ``HTTP_`` out for these two headers, as CGI does."""


def facts_of(environ: dict[str, Any], plan: Plan, identity: str | None) -> RequestFacts:
    """Return what *environ* says of a request under *plan*, whose caller is *identity*."""
    return RequestFacts(
        route=plan.route,
        method=environ["REQUEST_METHOD"],
        target=_target(environ),
        headers=tuple(_headers(environ)),
        scheme=environ.get("wsgi.url_scheme", "http"),
        tier=plan.tier,
        identity=identity,
    )


def _target(environ: dict[str, Any]) -> bytes:
    """Return the address: as the application is given it, then as it was sent if that differs.

    The application is given a decoded path, in which a ``?`` is not the query's; it is encoded
    again here. Another middleware may have put it in place of what was sent, which gunicorn and
    werkzeug tell as ``RAW_URI``, waitress, uWSGI and mod_wsgi as ``REQUEST_URI``: either alone may
    be the same for requests that an application can tell apart. What was sent may be a whole URL.
    """
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    target = quote(_bytes(path), safe=_AS_SENT).encode("ascii")
    query = environ.get("QUERY_STRING", "")
    if query:
        target += b"?" + _bytes(query)
    sent = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if isinstance(sent, str):
        raw = _bytes(sent)
        if raw != target:
            target += b" " + raw  # no part of an encoded path, nor of a request's first line
    return target


def _headers(environ: dict[str, Any]) -> Iterator[Header]:
    for key, value in environ.items():
        if key.startswith("HTTP_") and isinstance(value, str):
            yield _bytes(key[5:].replace("_", "-").lower()), _bytes(value)
    for key in _WITHOUT_PREFIX:
        value = environ.get(key)
        if isinstance(value, str) and value:  # a server may give an absent one as empty
            yield key.replace("_", "-").lower().encode("ascii"), _bytes(value)


def _bytes(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:  # not from a server, but a middleware may have set it
        return text.encode("utf-8", "surrogatepass")
