"""Anonymity of a request: whether nothing in it can say who sends it, so that all may share.

A list of the names that credentials go by can never be complete. So it is the other way round:
listed is what a request may carry and still be anybody's, and one field more makes it somebody's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from budgetware.answers.facts import MOST_FIELDS
from budgetware.answers.storable import NotKept

if TYPE_CHECKING:
    from budgetware._core.policy import CachePolicy
    from budgetware.answers.facts import RequestFacts

_LONGEST_NAME: Final = 64
"""No listed field has a longer name."""


_CREDENTIALS: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization"})

# A response may say that it varies on a field, and is not to be shared all the same: names such as
# ``X-API-Key`` are nobody's standard, and on many services all there is.
_LIKE_A_CREDENTIAL: Final = re.compile(
    rb"auth|cookie|token|secret|session|credential|passw|signature|principal|assertion|jwt|ticket"
    rb"|(^|[-_])(api|access|app|client|private|subscription|license)[-_]?(key|id)([-_]|$)"
    rb"|(^|[-_])(user|login|account|tenant|customer|identity|email|key)([-_]|$)"
)

_ANYBODYS: Final = frozenset(
    # RFC 9110, RFC 9111 and what browsers send with every request
    b"""
    accept accept-charset accept-datetime accept-encoding accept-language alt-used cache-control
    connection content-length content-type date device-memory dnt downlink dpr early-data ect
    expect idempotency-key if-match if-modified-since if-none-match if-range if-unmodified-since
    keep-alive max-forwards origin pragma priority proxy-connection purpose range referer rtt
    save-data te trailer transfer-encoding upgrade upgrade-insecure-requests user-agent via
    viewport-width warning width
    """
    # where a request has come through
    b"""
    cdn-loop cf-connecting-ip cf-connecting-ipv6 cf-ew-via cf-ray cf-worker fastly-client-ip
    true-client-ip x-azure-clientip x-azure-ref x-azure-socketip x-client-ip x-cluster-client-ip
    x-envoy-attempt-count x-envoy-decorator-operation x-envoy-expected-rq-timeout-ms
    x-envoy-external-address x-forwarded-for x-original-forwarded-for x-queue-start x-real-ip
    x-request-start x-varnish
    """
    # which request it is
    b"""
    b3 elastic-apm-traceparent grpc-trace-bin sentry-trace traceparent tracestate uber-trace-id
    x-amzn-trace-id x-b3-flags x-b3-parentspanid x-b3-sampled x-b3-spanid x-b3-traceid
    x-cloud-trace-context x-correlation-id x-datadog-origin x-datadog-parent-id
    x-datadog-sampling-priority x-datadog-trace-id x-request-id
    """.split()
)
"""Fields that anybody may send and that say nothing of who it is."""

_BROWSERS: Final = re.compile(rb"sec-(ch|fetch)-[a-z0-9-]+|sec-gpc|sec-purpose")
"""Fetch metadata and client hints, which no script can set."""

_IN_THE_KEY: Final = frozenset(
    b"""
    cf-ipcountry cf-visitor cloudfront-forwarded-proto cloudfront-viewer-country forwarded
    front-end-https host x-envoy-internal x-envoy-original-path x-forwarded-host x-forwarded-path
    x-forwarded-port x-forwarded-prefix x-forwarded-proto x-forwarded-protocol x-forwarded-scheme
    x-forwarded-server x-forwarded-ssl x-forwarded-uri x-host x-http-host-override
    x-original-host x-original-proto x-original-scheme x-original-uri x-original-url
    x-requested-with x-rewrite-url x-scheme x-script-name x-url-scheme
    """.split()
)
"""Fields that anybody may send and that responses depend on without saying so."""

_ADDRESS: Final = re.compile(
    rb"x-(forwarded|original|rewrite)-.*|x-.*(host|scheme|prefix|proto).*",
)
"""Other fields that applications may build addresses from."""

_PROOF: Final = re.compile(
    rb"dpop|.*(token|jwt|assertion|signature|nonce|csrf|xsrf|oidc-data|access[-_]?key|secret"
    rb"|forwarded-client-cert).*"
)
"""Fields that prove who it is: another one comes with each request, or each hour."""

_OF_THE_SENDER: Final = re.compile(rb"x-(forwarded|original)-(.*-)?for")


class FieldTraits(NamedTuple):
    """What a request field is to a cache.

    Attributes:
        is_credential: Whether it says who sends the request.
        is_anybodys: Whether anybody may send it, and is still anybody.
        is_keyed: Whether its value is part of every key.
        is_keyed_for_named: Whether it is part of the key of a request whose caller has a name.

    """

    is_credential: bool
    is_anybodys: bool
    is_keyed: bool
    is_keyed_for_named: bool


_UNHEARD_OF: Final = FieldTraits(
    is_credential=False, is_anybodys=False, is_keyed=True, is_keyed_for_named=True
)


def traits_of(name: bytes) -> FieldTraits:
    """Return what the field called *name*, in any case, is to a cache."""
    return _traits_of(name.lower()) if len(name) <= _LONGEST_NAME else _UNHEARD_OF


@lru_cache(maxsize=1024)
def _traits_of(name: bytes) -> FieldTraits:
    listed = name in _IN_THE_KEY
    may_be_address = _ADDRESS.fullmatch(name) and not _OF_THE_SENDER.fullmatch(name)
    is_credential = name in _CREDENTIALS
    is_anybodys = listed or name in _ANYBODYS or _BROWSERS.fullmatch(name) is not None
    is_keyed = listed or bool(may_be_address)
    proves = is_credential or _PROOF.fullmatch(name) is not None
    return FieldTraits(
        is_credential=is_credential,
        is_anybodys=is_anybodys,
        is_keyed=is_keyed,
        is_keyed_for_named=not proves and (is_keyed or not is_anybodys),
    )


def may_be_credential(name: bytes) -> bool:
    """Tell whether a field called *name*, in lower case, sounds as if it said who sends it."""
    return _LIKE_A_CREDENTIAL.search(name) is not None and not traits_of(name).is_anybodys


def names_caller(names: Iterable[bytes]) -> str:
    """Return the first of the fields called *names* that says who the caller is, or nothing."""
    return next((name.decode("latin-1") for name in sorted(names) if may_be_credential(name)), "")


def why_unshared(  # noqa: PLR0911 - one list of reasons, to be read from top to bottom
    request: RequestFacts, policy: CachePolicy, varied: Collection[bytes]
) -> tuple[NotKept, str] | None:
    """Return why the response to *request* is for nobody else, and what says so; else ``None``.

    With an identity it is for all requests of that identity, and unlisted fields are part of the
    key: the caller may act for others. Without, it is shared if every field is anybody's, or is
    part of the key and no credential; a route that is ``public`` only wants to see no credentials.

    Args:
        request: The request.
        policy: Its route's.
        varied: Fields, in lower case, whose values are part of the key.

    """
    if len(request.headers) > MOST_FIELDS:
        return NotKept.TOO_MANY_FIELDS, f"over {MOST_FIELDS}"
    if request.identity is not None:
        return None
    if "identity" in map(str.lower, policy.vary):
        return NotKept.NO_IDENTITY, ""
    if request.known_by is not None:
        return NotKept.CREDENTIALS, request.known_by
    unlisted = None
    for name, _ in request.headers:
        traits = traits_of(name)
        if traits.is_credential:
            return NotKept.CREDENTIALS, name.decode("latin-1")
        if not traits.is_anybodys and (
            name.lower() not in varied or may_be_credential(name.lower())
        ):
            unlisted = name
    if unlisted is None or policy.public:
        return None
    return NotKept.UNLISTED_FIELD, unlisted.decode("latin-1")
