"""Who may call, and what each caller was promised: the one table both example services ask.

The tier is written down *here*, on the server's side. A caller sends a key, and only a key whose
digest stands in the table has a tier; no header can say "I am enterprise".

The keys of the example are public, so they protect nothing. A real service keeps long random keys
in its secret store, and the table in a database.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

KEY_HEADER: Final = "X-API-Key"


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may call.

    Attributes:
        name: Who it is.
        tier: What they were promised, as ``budgetware.yaml`` calls it.
        operator: Whether they may use the admin routes.

    """

    name: str
    tier: str
    operator: bool = False


ANONYMOUS: Final = Caller("anonymous", "free")

# SHA-256 of demo-free, demo-pro, demo-enterprise and demo-operator.
_CALLERS: Final = {
    "e1f4fdb94683a17c8a5d9e6dc6cca27c4a2f827dbe26ede139c17a61127b1f4f": Caller("ada", "free"),
    "de4562274bd40421c1e8c1a589f4ec9f96c4c6e529fa843be4ef0d99d9256b7e": Caller("brook", "pro"),
    "ae3f7e73ea6034735cf24ff7eccb3e66ea95c2684c859962499f1278f06c3670": Caller("cho", "enterprise"),
    "9437e87fae95c03d3778f2575bb18ce30e647e51d86a8c37963364e1fc4f374e": Caller(
        "operator", "free", operator=True
    ),
}


def caller_of(key: str | None) -> Caller | None:
    """Return the holder of *key*: nobody in particular without one, ``None`` for a wrong one."""
    if not key:
        return ANONYMOUS
    return _CALLERS.get(hashlib.sha256(key.encode()).hexdigest())


def tier_of(key: str | None) -> str | None:
    """Return the tier of *key*'s holder; ``None`` leaves the choice to the policy's default."""
    caller = caller_of(key)
    return None if caller is None else caller.tier
