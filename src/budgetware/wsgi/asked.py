"""What is a request about, for those who answer it with something kept? Read from its environ."""

from __future__ import annotations

import os
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from budgetware.answers.facts import MOST_FIELDS, RequestFacts, encoded_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from budgetware._core.policy import Plan
    from budgetware.answers.facts import Header
    from budgetware.runtime import Caller

_WITHOUT_PREFIX: Final = ("CONTENT_LENGTH", "CONTENT_TYPE")
"""PEP 3333 leaves ``HTTP_`` out for these two headers, as CGI does."""

_HOST: Final = "HTTP_HOST"


# PEP 3333, RFC 3875, and what servers add about the connection.
_ORDINARY_KEYS: Final = """
    ACTUAL_SERVER_PROTOCOL CONTENT_LENGTH CONTENT_TYPE CONTEXT_DOCUMENT_ROOT CONTEXT_PREFIX
    DOCUMENT_ROOT DOCUMENT_URI GATEWAY_INTERFACE HTTPS PATH_INFO PATH_TRANSLATED PROXY_ADDR
    PROXY_PORT PROXY_PROTOCOL QUERY_STRING RAW_URI REMOTE_ADDR REMOTE_HOST REMOTE_PORT
    REQUEST_METHOD REQUEST_SCHEME REQUEST_TIME REQUEST_URI SCRIPT_FILENAME SCRIPT_NAME SCRIPT_URI
    SCRIPT_URL SERVER_ADDR SERVER_ADMIN SERVER_NAME SERVER_PORT SERVER_PROTOCOL SERVER_SIGNATURE
    SERVER_SOFTWARE SSL_PROTOCOL SSL_TLS_SNI UNIQUE_ID
"""
_LISTED: Final = frozenset(_ORDINARY_KEYS.split())
"""Keys of an environ that do not say who the caller is."""

_SERVERS: Final = (
    "HTTP_",
    "SSL_CIPHER",
    "SSL_SERVER_",
    "SSL_VERSION_",
    "wsgi.",
    "wsgiorg.",
    "werkzeug.",
    "gunicorn.",
    "waitress.",
    "uwsgi.",
    "mod_wsgi.",
    "eventlet.",
    "gevent.",
    "budgetware.",
)
_KNOWN: Final = ("REMOTE_USER", "AUTH_TYPE")
_NO_CERTIFICATE: Final = ("SSL_CLIENT_VERIFY", "NONE")


def facts_of(environ: dict[str, Any], plan: Plan, caller: Caller) -> RequestFacts:
    """Return what *environ* says of a request under *plan*, which *caller* has sent.

    The application is given a decoded path, in which a ``?`` is not the query's; it is encoded
    again here. Another middleware may have put it in place of what was sent, which gunicorn and
    werkzeug tell as ``RAW_URI``, waitress, uWSGI and mod_wsgi as ``REQUEST_URI``: either alone may
    be the same for requests that an application can tell apart. What was sent may be a whole URL.
    """
    root = _bytes(environ.get("SCRIPT_NAME", ""))
    target = encoded_path(root + _bytes(environ.get("PATH_INFO", "")))
    query = environ.get("QUERY_STRING", "")
    if query:
        target += b"?" + _bytes(query)
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    sent = _bytes(raw) if isinstance(raw, str) else b""
    # The host and the length come first, so that they are among those that are looked at.
    headers = tuple(islice(_headers(environ), MOST_FIELDS + 1))
    asks_who = plan.cache is not None and len(headers) <= MOST_FIELDS
    return RequestFacts(
        route=plan.route,
        method=environ["REQUEST_METHOD"],
        target=target,
        sent=b"" if sent == target else sent,
        root=root,
        headers=headers,
        scheme=environ.get("wsgi.url_scheme", "http"),
        namespace=plan.namespace,
        tier=plan.tier,
        identity=caller.name,
        # Nobody asks where nothing is kept.
        known_by=_asked_who(environ, caller) if asks_who else None,
    )


def known_by(environ: dict[str, Any]) -> str | None:
    """Return what in *environ* says who the caller is besides headers; ``None`` for nothing."""
    return next((key for key in _KNOWN if environ.get(key)), None)


def _asked_who(environ: dict[str, Any], caller: Caller) -> str | None:
    if caller.is_doubtful:
        return "identity"
    return known_by(environ) or _unlisted(environ)


def _unlisted(environ: dict[str, Any]) -> str | None:
    """Return a key of *environ* that nobody knows; ``None`` if there is none.

    Servers and outer middlewares put users, claims and certificates there under names of their
    own. What every request of the process has is its environment's, as wsgiref hands it on.
    """
    for key, value in environ.items():
        if value is None or _is_listed(key):
            continue
        if not isinstance(value, str):
            return key
        if value and value != os.environ.get(key) and (key, value) != _NO_CERTIFICATE:
            return key
    return None


@lru_cache(maxsize=1024)
def _is_listed(key: str) -> bool:
    return key in _LISTED or key.startswith(_SERVERS)


def _headers(environ: dict[str, Any]) -> Iterator[Header]:
    for key in _WITHOUT_PREFIX:
        value = environ.get(key)
        if isinstance(value, str) and value:  # a server may give an absent one as empty
            yield key.replace("_", "-").lower().encode("ascii"), _bytes(value)
    if isinstance(host := environ.get(_HOST), str):
        yield b"host", _bytes(host)
    for key, value in environ.items():
        if key.startswith("HTTP_") and key != _HOST and isinstance(value, str):
            yield _field_name(key), _bytes(value)


@lru_cache(maxsize=1024)
def _field_name(key: str) -> bytes:
    return _bytes(key[5:].replace("_", "-").lower())


def _bytes(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:  # not from a server, but a middleware may have set it
        return text.encode("utf-8", "surrogatepass")
