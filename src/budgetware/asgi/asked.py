"""What is a request about, for those who answer it with something kept? Read from its scope."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from budgetware.answers.facts import RequestFacts, encoded_path, some_of

if TYPE_CHECKING:
    from budgetware._core.policy import Plan
    from budgetware.asgi.exchange import Scope
    from budgetware.runtime import Caller

# Those of the specification, and what frameworks add around or behind the application. Users and
# sessions are looked at.
_ORDINARY_KEYS: Final = """
    type asgi http_version method scheme path raw_path query_string root_path headers client server
    extensions state subprotocols
    app app_root_path auth cookies endpoint path_params path_remaining route route_handler router
    session url_route user
"""
_LISTED: Final = frozenset(_ORDINARY_KEYS.split())
"""Keys of a scope that do not say who the caller is."""

_FRAMEWORKS: Final = ("starlette.", "fastapi", "litestar", "_litestar", "quart.", "budgetware.")


def facts_of(scope: Scope, plan: Plan, caller: Caller) -> RequestFacts:
    """Return what *scope* says of a request under *plan*, which *caller* has sent.

    Headers that can be gone through only once are a list in *scope* afterwards.
    """
    headers = scope.get("headers", ())
    if not isinstance(headers, list | tuple):
        headers = scope["headers"] = list(headers)
    target = encoded_path(_bytes(scope["path"]))
    sent = _bytes(scope.get("raw_path") or b"")  # a server need not keep it
    query = _bytes(scope.get("query_string") or b"")
    return RequestFacts(
        route=plan.route,
        method=scope["method"],
        target=target + b"?" + query if query else target,
        sent=b"" if sent == target else sent,
        root=_bytes(scope.get("root_path") or ""),
        headers=some_of(headers),
        scheme=scope.get("scheme", "http"),
        namespace=plan.namespace,
        tier=plan.tier,
        identity=caller.name,
        # Nobody asks where nothing is kept.
        known_by=None if plan.cache is None else _asked_who(scope, caller),
    )


def known_by(scope: Scope) -> str | None:
    """Return what in *scope* says who the caller is besides the headers; ``None`` for nothing.

    A user who is not anonymous, a session with something in it, a client's certificate.
    """
    if "user" in scope and _is_somebody(scope["user"]):
        return "user"
    if scope.get("session"):
        return "session"
    tls = (scope.get("extensions") or {}).get("tls") or {}
    if tls.get("client_cert_chain") or tls.get("client_cert_name"):
        return "tls"
    return None


def _asked_who(scope: Scope, caller: Caller) -> str | None:
    if caller.is_doubtful:
        return "identity"
    return known_by(scope) or _unlisted(scope)


def _unlisted(scope: Scope) -> str | None:
    """Return a key of *scope* that nobody knows: a gateway's event may hold its caller's claims."""
    return next((key for key in scope if not _is_listed(key)), None)


@lru_cache(maxsize=1024)
def _is_listed(key: str) -> bool:
    return key in _LISTED or key.startswith(_FRAMEWORKS)


def _is_somebody(user: Any) -> bool:
    if user is None:
        return False
    try:
        return bool(getattr(user, "is_authenticated", True))
    except Exception:  # noqa: BLE001 - a lazy user that cannot be asked yet may be anybody
        return True


def _bytes(text: str | bytes) -> bytes:
    """Return *text* as bytes: some test clients give text where the specification has bytes."""
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
