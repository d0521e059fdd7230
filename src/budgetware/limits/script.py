"""What is Redis asked? One script that admits a request or says how long to wait, and its keys.

The method is that of ``_core.rate``, on the server's own clock, so that hosts need not agree on
the time. What is stored is one number per caller, which goes away once nothing is owed. Whatever
else stands under the key, of whatever type, counts as nothing and is replaced.
"""

from __future__ import annotations

from collections.abc import Hashable
from hashlib import blake2b, sha1
from typing import Final

from budgetware._core.rate import LONGEST_WAIT_S

SCRIPT: Final = """\
local stored = redis.pcall('GET', KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local arrival = type(stored) == 'string' and tonumber(stored) or now
if not (arrival > now) then arrival = now end
local forgiven = arrival > now + tolerance
if forgiven then arrival = now + tolerance end
local wait = math.ceil(arrival + interval - tolerance - now - interval * 0.000001)
if wait <= 0 then
  arrival = arrival + interval
elseif not forgiven then
  return wait
end
local life = math.ceil((arrival - now) / 1000) + 1
redis.call('SET', KEYS[1], string.format('%.17g', arrival), 'PX', string.format('%.0f', life))
return math.max(wait, 0)
"""
"""Takes a key, the interval and the tolerance; returns the wait. All are microseconds."""

DIGEST: Final = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""The name under which a server knows the script once it has run there."""

_LONGEST_US = LONGEST_WAIT_S * 1e6
_FASTEST_PER_S = 1e6  # the server's clock counts microseconds


def key_of(prefix: str, tier: str | None, identity: Hashable, namespace: str = "") -> str:
    """Return the caller's key: of bounded length, and nobody can read the identity from it.

    Args:
        prefix: What all keys of one service begin with.
        tier: The caller's tier.
        identity: A ``str``, or something whose ``repr`` is the same in every process; ``None``
            for all of the tier whom nobody knows.
        namespace: The service and its environment.

    """
    text = f"s{identity}" if isinstance(identity, str) else f"r{identity!r}"
    parts = (namespace, str(tier is None), tier or "", text)
    told = [part.encode("utf-8", "surrogatepass") for part in parts]
    digest = blake2b(b"".join(b"%d:%b" % (len(part), part) for part in told), digest_size=16)
    return f"{prefix}{digest.hexdigest()}"


def numbers_of(rate_per_s: float, burst: float) -> tuple[str, str] | None:
    """Return the script's two numbers; ``None`` for a rate the server need not be asked about."""
    if not 0 < rate_per_s <= _FASTEST_PER_S:
        return None
    interval_us = min(1e6 / rate_per_s, _LONGEST_US)
    tolerance_us = interval_us * min(burst, 1e6) if burst > 1.0 else interval_us
    return repr(interval_us), repr(tolerance_us)


def wait_s_of(reply: object) -> float | None:
    """Return the seconds the script's *reply* means, ``None`` if it is not one of the script's."""
    if not isinstance(reply, int) or reply < 0:
        return None
    return min(reply / 1e6, LONGEST_WAIT_S)
