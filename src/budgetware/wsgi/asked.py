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
    wsgi.version wsgi.url_scheme wsgi.input wsgi.errors wsgi.multithread wsgi.multiprocess
    wsgi.run_once wsgi.file_wrapper wsgi.input_terminated wsgi.early_hints wsgiorg.routing_args
"""
# What gunicorn, werkzeug, waitress, eventlet, uWSGI and mod_wsgi set by themselves. Under their
# names applications may put what they like.
_SERVERS_KEYS: Final = """
    gunicorn.socket gunicorn.http2.send_trailers gunicorn.http2.priority_weight
    gunicorn.http2.priority_depends_on
    werkzeug.socket werkzeug.request werkzeug.server.shutdown werkzeug.proxy_fix.orig
    werkzeug.debug.preserve_context
    waitress.client_disconnected eventlet.input eventlet.posthooks eventlet.set_idle
    uwsgi.version uwsgi.core uwsgi.node x-wsgiorg.fdevent.readable x-wsgiorg.fdevent.writable
    x-wsgiorg.fdevent.timeout
    apache.version mod_wsgi.application_group mod_wsgi.application_start mod_wsgi.callable_object
    mod_wsgi.connection_id mod_wsgi.daemon_connects mod_wsgi.daemon_restarts mod_wsgi.daemon_start
    mod_wsgi.enable_sendfile mod_wsgi.handler_script mod_wsgi.ignore_activity
    mod_wsgi.listener_host mod_wsgi.listener_port mod_wsgi.mount_point mod_wsgi.path_info
    mod_wsgi.process_group mod_wsgi.queue_start mod_wsgi.request_handler mod_wsgi.request_id
    mod_wsgi.request_start mod_wsgi.script_name mod_wsgi.script_reloading mod_wsgi.script_start
    mod_wsgi.server_pid mod_wsgi.thread_id mod_wsgi.thread_requests mod_wsgi.total_requests
    mod_wsgi.version
"""
_LISTED: Final = frozenset((_ORDINARY_KEYS + _SERVERS_KEYS).split())
"""Keys of an environ that do not say who the caller is."""

_PREFIXES: Final = ("HTTP_", "SSL_CIPHER", "SSL_SERVER_", "SSL_VERSION_", "budgetware.")
_TEXTS: Final = ("HTTP_", *_WITHOUT_PREFIX)
_KNOWN: Final = ("REMOTE_USER", "AUTH_TYPE")
_SOCKETS: Final = ("gunicorn.socket", "werkzeug.socket")
"""Where servers leave the connection, which an application may ask for the certificate."""
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
        listener=_listener(environ) if plan.cache is not None else "",
        namespace=plan.namespace,
        tier=plan.tier,
        identity=caller.name,
        # Nobody asks where nothing is kept.
        known_by=_asked_who(environ, caller) if asks_who else None,
    )


def _listener(environ: dict[str, Any]) -> str:
    """Return the port *environ* has come in by, and under which name.

    Not the server's address: hosts that share a store have one each.
    """
    name = "" if environ.get(_HOST) else environ.get("SERVER_NAME")
    return f"{environ.get('SERVER_PORT')} {environ.get('SSL_TLS_SNI', '')} {name}"


def known_by(environ: dict[str, Any]) -> str | None:
    """Return what in *environ* says who the caller is besides headers; ``None`` for nothing."""
    return next((key for key in _KNOWN if environ.get(key)), None) or next(
        (key for key in _SOCKETS if key in environ and _has_certificate(environ[key])), None
    )


def _has_certificate(connection: Any) -> bool:
    """Tell whether the client has, or may have, shown one on *connection*."""
    try:
        asked = getattr(connection, "getpeercert", None)
        return asked is not None and bool(asked(binary_form=True))
    except Exception:  # noqa: BLE001 - a connection that cannot be asked may be anybody's
        return True


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
        if value is None:
            continue
        if _is_listed(key):
            if not isinstance(value, str) and key.startswith(_TEXTS):  # no header that we can read
                return key
            continue
        if not isinstance(value, str):
            return key
        if value and value != os.environ.get(key) and (key, value) != _NO_CERTIFICATE:
            return key
    return None


@lru_cache(maxsize=1024)
def _is_listed(key: str) -> bool:
    return key in _LISTED or key.startswith(_PREFIXES)


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
