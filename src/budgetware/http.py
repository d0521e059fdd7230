"""HTTP methods and statuses that more than one room goes by (RFC 9110)."""

from __future__ import annotations

from typing import Final

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing, section 9.2.1."""

WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose body the doors time the client's sending of."""

ACCEPTED: Final = 202
"""What is true of a request that is still being carried out, section 15.3.3."""

CLIENT_ERROR: Final = 400
"""The least status of a request that the application refuses to carry out."""

SERVER_ERROR: Final = 500
"""The least status that counts as a failed request."""
