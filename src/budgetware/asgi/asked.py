"""What is a request about, for those who answer it with something kept? Read from its scope."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from budgetware.answers.facts import RequestFacts, encoded_path, some_of, values_of
from budgetware.names import TIER_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from budgetware._core.policy import Plan
    from budgetware.answers.facts import Header
    from budgetware.asgi.exchange import Scope
    from budgetware.runtime import Caller

# Those of the specification, and what frameworks add around or behind the application. Users,
# sessions, states, cookies and what users may do are looked at.
_ORDINARY_KEYS: Final = """
    type asgi http_version method scheme path raw_path query_string root_path headers client server
    extensions state subprotocols
    app app_root_path auth cookies endpoint path_params path_remaining route route_handler router
    session url_route user
"""
_LISTED: Final = frozenset(_ORDINARY_KEYS.split())
"""Keys of a scope that do not say who the caller is."""

_NAME_AND_PORT: Final = 2
_FRAMEWORKS: Final = ("starlette.", "fastapi", "litestar", "_litestar", "quart.", "budgetware.")


def facts_of(
    scope: Scope, plan: Plan, caller: Caller, lifespan_state: object = None
) -> RequestFacts:
    """Return what *scope* says of a request under *plan*, which *caller* has sent.

    Headers that can be gone through only once are a list in *scope* afterwards. *lifespan_state*
    is what the server gives a copy of to every request.
    """
    headers = scope.get("headers", ())
    if not isinstance(headers, list | tuple):
        headers = scope["headers"] = list(headers)
    headers = some_of(headers)
    target = encoded_path(_bytes(scope["path"]))
    sent = _bytes(scope.get("raw_path") or b"")  # a server need not keep it
    query = _bytes(scope.get("query_string") or b"")
    return RequestFacts(
        route=plan.route,
        method=scope["method"],
        target=target + b"?" + query if query else target,
        sent=b"" if sent == target else sent,
        root=_bytes(scope.get("root_path") or ""),
        headers=headers,
        scheme=scope.get("scheme", "http"),
        listener="" if plan.cache is None else _listener(scope, headers),
        namespace=plan.namespace,
        tier=plan.tier,
        identity=caller.name,
        # Nobody asks where nothing is kept.
        known_by=None if plan.cache is None else _asked_who(scope, caller, lifespan_state),
    )


def _listener(scope: Scope, headers: Iterable[Header]) -> str:
    """Return the port *scope* has come in by, and without a ``Host`` the server's name.

    Not its address: hosts that share a store have one each.
    """
    server = scope.get("server")
    if not isinstance(server, list | tuple) or len(server) < _NAME_AND_PORT:
        return ""
    port = str(server[1])
    return port if values_of(headers, b"host") else f"{port} {server[0]}"


def known_by(scope: Scope) -> str | None:
    """Return what in *scope* says who the caller is besides the headers; ``None`` for nothing.

    A user who is not anonymous, what a user may do, a session or parsed cookies with something in
    them, a client's certificate.
    """
    if "user" in scope and _is_somebody(scope["user"]):
        return "user"
    if "auth" in scope and not _is_nobodys(scope["auth"]):
        return "auth"
    if scope.get("cookies"):
        return "cookies"
    if scope.get("session"):
        return "session"
    tls = (scope.get("extensions") or {}).get("tls") or {}
    if tls.get("client_cert_chain") or tls.get("client_cert_name"):
        return "tls"
    return None


def _asked_who(scope: Scope, caller: Caller, lifespan_state: object) -> str | None:
    if caller.is_doubtful:
        return "identity"
    return known_by(scope) or _unlisted(scope) or _in_state(scope.get("state"), lifespan_state)


def _in_state(state: object, lifespan_state: object) -> str | None:
    """Return an entry of *state* that is this request's; ``None`` if all are everybody's.

    Every request has a shallow copy of *lifespan_state*. A server that hands out that very dict
    leaves it open who has put something there.
    """
    if state is None:
        return None
    if not isinstance(state, dict):
        return "state"
    shared = lifespan_state if isinstance(lifespan_state, dict) else {}
    if shared is state:
        shared = {}
    for key, value in state.items():
        if value is not None and key != TIER_KEY and shared.get(key) is not value:
            return f"state.{key}"
    return None


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


def _is_nobodys(auth: Any) -> bool:
    """Tell whether *auth* grants nothing to anybody, as Starlette's of an anonymous user."""
    try:
        return not auth or vars(auth) == {"scopes": []}
    except Exception:  # noqa: BLE001 - it may be anything
        return False


def _bytes(text: str | bytes) -> bytes:
    """Return *text* as bytes: some test clients give text where the specification has bytes."""
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
