"""The ways in which a service may know who calls: fields of gateways, keys of servers, sessions."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Final

from starlette.authentication import AuthCredentials

# What the standards have, and what services invent.
OWN: Final = """
    Authorization Cookie Proxy-Authorization DPoP X-API-Key Api-Key apikey X-Auth-Token X-Token
    X-Access-Token X-Id-Token X-Session-Id X-Session X-CSRF-Token X-Client-Id X-Client-Cert
    X-Account X-Account-Id X-Customer X-Org-Id X-Organization X-Tenant X-Tenant-Id X-Workspace
    X-Project X-Site X-Shop X-Company X-Device-Id X-Installation X-Visitor X-Member X-Person
    X-User X-User-Id X-Username X-Email X-Login X-Remote-User Remote-User From X-Role X-Roles
    X-Groups X-Permissions X-Plan X-Partner X-Subject X-Act-As X-Impersonate X-On-Behalf-Of
    Signature Signature-Input Baggage X-Hub-Signature-256
"""

# What gateways and proxies say of whom they have let in.
GATEWAYS: Final = """
    X-Forwarded-User X-Forwarded-Email X-Forwarded-Groups X-Forwarded-Preferred-Username
    X-Forwarded-Access-Token X-Forwarded-Client-Cert X-Auth-Request-User X-Auth-Request-Email
    X-Amzn-Oidc-Data X-Amzn-Oidc-Identity X-Amzn-Oidc-Accesstoken X-Amzn-Mtls-Clientcert
    X-Consumer-Username X-Consumer-Id X-Consumer-Custom-Id X-Credential-Identifier
    X-Authenticated-Userid X-Authenticated-Scope Cf-Access-Authenticated-User-Email
    Cf-Access-Jwt-Assertion X-Goog-Iap-Jwt-Assertion X-Goog-Authenticated-User-Email
    X-Apigateway-Api-Userinfo X-Endpoint-Api-Userinfo X-Ms-Client-Principal
    X-Ms-Client-Principal-Id X-Ms-Client-Principal-Name X-Arr-Clientcert X-Ssl-Client-Cert
    X-Ssl-Client-S-Dn Ssl-Client-Subject-Dn Ssl-Client-Verify Tailscale-User-Login X-Pomerium-Claim
    X-Vouch-User X-Webauth-User X-Teleport-Jwt X-Gitlab-Token X-Shopify-Access-Token
    X-Slack-Signature Ocp-Apim-Subscription-Key X-Rapidapi-User Kbn-Xsrf-User Oidc-Claim-Sub
    Mellon-Name-Id Eppn X-Shib-Session
"""

HEADERS: Final = tuple((OWN + GATEWAYS).split())
"""Request fields; the value is the caller."""


def _connection(shown: bytes | Exception) -> Any:
    """Return a connection on which a certificate was shown, or which cannot be asked for it."""

    def getpeercert(*, binary_form: bool) -> bytes:
        assert binary_form
        if isinstance(shown, Exception):
            raise shown
        return shown

    return SimpleNamespace(getpeercert=getpeercert)


ENVIRONS: Final[Mapping[str, Callable[[str], Any]]] = {
    name: lambda who: who
    for name in (
        *("REMOTE_USER", "REMOTE_IDENT", "REDIRECT_REMOTE_USER", "X_REMOTE_USER", "LOGON_USER"),
        *("SSL_CLIENT_S_DN", "SSL_CLIENT_S_DN_Email", "SSL_CLIENT_CERT", "SSL_CLIENT_M_SERIAL"),
        *("MELLON_NAME_ID", "MELLON_uid", "OIDC_CLAIM_sub", "OIDC_access_token", "eppn", "uid"),
        *("persistent-id", "Shib-Session-ID", "KRB5CCNAME", "GSS_NAME", "AUTH_TYPE"),
    )
} | {
    "repoze.who.identity": lambda who: {"repoze.who.userid": who},
    "beaker.session": lambda who: {"user": who},
    "serverless.authorizer": lambda who: {"principalId": who},
    "API_GATEWAY_AUTHORIZER": lambda who: {"claims": {"sub": who}},
    "myservice.user": lambda who: SimpleNamespace(name=who),
    "HTTP_X_REQUEST_ID": lambda who: who.encode(),
    "HTTP_ACCEPT": lambda who: [who],
    "CONTENT_TYPE": lambda who: SimpleNamespace(name=who),
    "gunicorn.socket": lambda who: _connection(who.encode()),
    "werkzeug.socket": lambda who: _connection(ValueError(who)),
    **{
        name: lambda who: who
        for name in (
            *("wsgi.user", "wsgiorg.identity", "werkzeug.session", "gunicorn.claims"),
            *("waitress.user", "eventlet.user", "gevent.user", "uwsgi.user", "mod_wsgi.auth_user"),
        )
    },
}
"""Keys of a WSGI environ, and what stands there for a caller."""


class LazyUser:
    """A user nobody may ask yet, as Channels has it in front of its own middleware."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def is_authenticated(self) -> bool:
        """Be not ready."""
        raise ValueError(self.name)


def _certificate(who: str) -> Any:
    return {"tls": {"client_cert_name": None, "client_cert_chain": [who]}}


SCOPES: Final[Mapping[str, Callable[[str], Mapping[str, Any]]]] = {
    "user": lambda who: {"user": SimpleNamespace(is_authenticated=True, name=who)},
    "user of no framework": lambda who: {"user": {"id": who}},
    "lazy user": lambda who: {"user": LazyUser(who)},
    "session": lambda who: {"session": {"user": who}},
    "state": lambda who: {"state": {"user": who}},
    "state of no framework": lambda who: {"state": UserDict(user=who)},
    "credentials": lambda who: {"auth": AuthCredentials([who])},
    "claims": lambda who: {"auth": {"sub": who}},
    "claims without scopes": lambda who: {"auth": SimpleNamespace(scopes=[], sub=who)},
    "parsed cookies": lambda who: {"cookies": {"session": who}},
    "certificate chain": lambda who: {"extensions": _certificate(who)},
    "certificate name": lambda who: {
        "extensions": {"tls": {"client_cert_name": f"CN={who}", "client_cert_chain": []}}
    },
    "gateway event": lambda who: {
        "aws.event": {"requestContext": {"authorizer": {"principalId": who}}}
    },
    "another function's event": lambda who: {"azure_functions.function_context": who},
    "environ of a bridge": lambda who: {"wsgi_environ": {"REMOTE_USER": who}},
    "key of the service": lambda who: {"myservice.user": who},
}
"""Additions to an ASGI scope, for a caller."""
