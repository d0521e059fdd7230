"""Who asks for what, and how does he behave? Callers with names and without, in no hurry or gone.

A request knows everything that will happen to it from its client's side before it begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from simulation.policies import grid

CALLERS: Final = ("ann", "bob", "eve", None, None)

_FIELDS: Final = (
    ("accept-language", ("de", "en")),
    ("x-plan", ("a", "b")),
    ("user-agent", ("browser",)),
    ("traceparent", ("00-0-0-01",)),
)
_CREDENTIALS: Final = (("authorization", "Bearer eve"), ("cookie", "session=eve"))


class GoneError(OSError):
    """What a server raises when its client is gone."""


@dataclass(slots=True)
class Request:
    """One request, and what its client does.

    Attributes:
        number: Which of the world's it is.
        at_s: When it is sent, in seconds of the world.
        method: Its method.
        path: Its path.
        query: Its query.
        who: Whose the server finds it to be, ``None`` for nobody's.
        tier: What the server says of its caller, if anything.
        headers: Its fields.
        upload: The parts of its body: after how many seconds each comes, and its bytes.
        leaves_after_s: After how many seconds its client is gone, ``None`` for never.
        reads_s: How long its client takes for each part of the response.
        seed: Of what the application makes of it.
        who_is_known: Whether the doors have found out whose it is.

    """

    number: int
    at_s: float
    method: str
    path: str
    query: str
    who: str | None
    tier: str | None
    headers: list[tuple[str, str]]
    upload: list[tuple[float, bytes]]
    leaves_after_s: float | None
    reads_s: float
    seed: int
    who_is_known: bool = True

    @property
    def url(self) -> str:
        """Its path and query."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def has_credentials(self) -> bool:
        """Whether something in it says that it is somebody's."""
        return any(name in {"authorization", "cookie"} for name, _ in self.headers)

    @property
    def mark(self) -> str:
        """What is on everything that was made for it: its number, its caller and its address."""
        return f"{self.number}|{self.who or ''}|{self.url}"


def draw_requests(rng: Random, theme: str, tiers: tuple[str, ...]) -> list[Request]:
    """Return some requests, in the order in which they are sent."""
    is_calm = theme == "kept"
    count = rng.choice((8, 12, 16) if is_calm else (3, 5, 8, 8, 12))
    spread = rng.choice((2, 10, 60))
    leaving = 0.0 if is_calm else rng.choice((0.0, 0.1, 0.4))
    slow = rng.choice((0.0, 0.2))
    methods = ("GET",) * 12 + ("HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS")
    callers = CALLERS[: rng.randint(1, 4)] if is_calm else CALLERS
    requests = []
    for number in range(count):
        request = _draw_request(rng, number, tiers, methods, leaving=leaving, slow=slow)
        request.at_s, request.who = grid(rng, 0, spread), rng.choice(callers)
        if is_calm and rng.random() < 0.8:
            request.path, request.query = rng.choice(("/mine/1", "/ours/1")), ""
            request.headers, request.tier = request.headers[:1], tiers[0] if tiers else None
            if request.who is None and rng.random() < 0.3:
                request.headers.append(rng.choice(_CREDENTIALS))
        requests.append(request)
    return sorted(requests, key=lambda one: one.at_s)


def _draw_request(  # noqa: PLR0913 - what a world is like
    rng: Random,
    number: int,
    tiers: tuple[str, ...],
    methods: tuple[str, ...],
    *,
    leaving: float,
    slow: float,
) -> Request:
    method = rng.choice(methods)
    path = rng.choice(("/mine/1", "/mine/1", "/mine/2", "/ours/1", "/ours/1", "/write/1"))
    if rng.random() < 0.05:
        path = rng.choice(("/healthz", "/elsewhere", "/mine/%C3%A9"))
    headers = [("host", "service")]
    headers += [(name, rng.choice(values)) for name, values in _FIELDS if rng.random() < 0.2]
    if rng.random() < 0.1:
        headers.append(rng.choice(_CREDENTIALS))
    upload = []
    if method in {"POST", "PUT"} or rng.random() < 0.03:
        late = rng.random() < 0.5
        upload = [
            (grid(rng, 0, 20) if late else 0.0, b"upload" * rng.randint(1, 3))
            for _ in range(rng.randint(1, 3))
        ]
        if rng.random() < 0.5:
            headers.append(("content-length", str(sum(len(part) for _, part in upload))))
    return Request(
        number=number,
        at_s=0.0,
        method=method,
        path=path,
        query=rng.choice(("", "", "", "a=1", "a=2")),
        who=None,
        tier=rng.choice((*tiers, *tiers, None, "nobody")),
        headers=headers,
        upload=upload,
        leaves_after_s=grid(rng, 0, 40) if rng.random() < leaving else None,
        reads_s=grid(rng, 1, 20) if rng.random() < slow else 0.0,
        seed=rng.getrandbits(48),
    )
