"""What is likely on one route? The probability that the rest of a request fits, by point.

A point is a place where something can still be decided: the beginning of a request, or the
opening of a stage that has an alternative. For each, three durations are learned: the *rest* of
the request from there, the *leg* to the next point, and the *sequel*, which is the rest once the
stage about to open has closed. Remaining times are learned as they are and not as sums of stages,
so branches not taken, parallel stages and slow days are part of them (``docs/ESTIMATOR.md``).

All tiers share what is learned, since the work is the same for all. Only requests that went all
the way teach the rest. Of others it is only known that it was at least so long.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from math import inf, log
from typing import Final

from budgetware._core.cell import SHORTEST_S, Cell
from budgetware._core.path import UNKNOWN, Key, Outlook, Path
from budgetware._core.policy import StagePlan

MOST_POINTS: Final = 64
"""Points of one route; at others the forecast knows nothing."""

LEAST_SEEN: Final = 3
"""Full requests a point must have seen before anything is concluded from it."""

PRIOR_SHARE: Final = 0.6
"""How much of its allocations a request is thought to take before one was seen."""

MOST_WAITING: Final = 1024
"""Paths that wait to be learned while another thread is learning; older ones are dropped."""

MOST_AT_ONCE: Final = 64
"""Paths one thread learns from in one go: it has a request of its own to be done with."""

_LONGEST_S: Final = 1e6


class _Point:
    """The three durations from one point; those that never occur have no cell."""

    __slots__ = ("full_s", "leg", "rest", "sequel")

    def __init__(self, rest_s: float | None) -> None:
        self.full_s = -inf
        self.rest = Cell(rest_s)
        self.leg: Cell | None = None
        self.sequel: Cell | None = None


class RouteForecast:
    """The forecast of one route; safe under threads, and no call ever waits for another.

    Args:
        stages: The allocations, in the order stages are expected; where they are known, the first
            requests are judged by them in part.
        now_s: The clock.

    Attributes:
        last_s: When it has last learned from a full request, or was made.
        dropped: Paths that could not be learned from.

    """

    __slots__ = ("__weakref__", "_guesses", "_lock", "_points", "_waiting", "dropped", "last_s")

    def __init__(self, stages: Mapping[str, StagePlan] | None = None, now_s: float = 0.0) -> None:
        self._guesses = _guesses(stages or {})
        self._points: dict[Key, _Point] = {}
        self._waiting: deque[tuple[Path, bool, bool]] = deque(maxlen=MOST_WAITING)
        self._lock = threading.Lock()
        self.last_s = now_s
        self.dropped = 0
        _after_fork.add(self)

    def fits(
        self,
        point: str | None,
        time_s: float,
        load: int,
        size: float | None = None,
        nth: int = 1,
    ) -> float:
        """Return the probability that the rest takes at most *time_s*; 1 while too little is known.

        Args:
            point: The stage about to open, ``None`` at the beginning.
            time_s: Seconds.
            load: Requests in flight.
            size: The payload's size, ``None`` if it is unknown.
            nth: The how-manieth opening of the stage in this request this would be.

        """
        found = self._points.get(point if nth == 1 else _key(point, nth))
        if found is None or found.rest.seen < LEAST_SEEN:
            return 1.0
        if time_s <= SHORTEST_S:
            return 0.0
        return found.rest.fits(
            log(time_s),
            log(1.0 + load) if load > 0 else 0.0,
            None if size is None else _log(size),
        )

    def sequel_fits(
        self,
        point: str | None,
        time_s: float,
        load: int,
        size: float | None = None,
        nth: int = 1,
    ) -> float:
        """Return the probability that what follows the stage takes at most *time_s*; 1 if unknown.

        The arguments are those of ``fits``.
        """
        found = self._points.get(point if nth == 1 else _key(point, nth))
        if time_s <= SHORTEST_S:
            return 0.0
        if found is None or found.sequel is None:
            return 1.0
        return found.sequel.fits(
            log(time_s),
            log(1.0 + load) if load > 0 else 0.0,
            None if size is None else _log(size),
        )

    def outlook(  # noqa: PLR0913, PLR0917 - the facts of one moment
        self,
        point: str | None,
        remaining_s: float,
        answer_cost_s: float,
        load: int,
        now_s: float,
        size: float | None = None,
        nth: int = 1,
    ) -> Outlook:
        """Return everything a decision at *point* wants to know.

        Args:
            point: The stage about to open, ``None`` at the beginning.
            remaining_s: Seconds left of the budget.
            answer_cost_s: Seconds it takes to send the smaller answer.
            load: Requests in flight.
            now_s: The clock, the same that paths are learned by.
            size: The payload's size, ``None`` if it is unknown.
            nth: The how-manieth opening of the stage in this request this would be.

        """
        found = self._points.get(point if nth == 1 else _key(point, nth))
        if found is None:
            return UNKNOWN
        rest, leg = found.rest, found.leg
        load_log = log(1.0 + load) if load > 0 else 0.0
        size_log = None if size is None else _log(size)
        spare_s = remaining_s - answer_cost_s
        leg_fits = None
        if leg is not None:
            fits = spare_s > SHORTEST_S
            leg_fits = leg.fits(log(spare_s), load_log, size_log) if fits else 0.0
        return Outlook(
            rest.fits(log(max(remaining_s, SHORTEST_S)), load_log, size_log),
            leg_fits,
            0.0 if leg is None else leg.typical_s,
            rest.typical_s,
            rest.load_effect(load_log),
            rest.seen,
            now_s - found.full_s,
        )

    def learn(self, path: Path, *, legs: bool = True) -> None:
        """Learn from a request that went all the way, in time or late, answered or behind a probe.

        Never for one that was cut short: degraded, rejected, cancelled, or with a stage skipped.

        Args:
            path: Its way.
            legs: Whether somebody asks how long it is from one point to the next. Where the clock
                may answer at any moment nobody does, and that is half of the work.

        """
        self._take(path, full=True, legs=legs)

    def learn_cut(self, path: Path, *, legs: bool = True) -> None:
        """Learn from a request that was cut short at the end of *path*: at least so long it took.

        Not for one with a stage skipped, whose times are those of other work. The arguments are
        those of ``learn``.
        """
        self._take(path, full=False, legs=legs)

    def learn_refusal(self, path: Path) -> None:
        """Learn from a request that the application has refused: its work is at least so long.

        Only if that is longer than full work is known to be. A caller that is not let in, or asks
        for what is not there, is mostly told so at once, and that says nothing of the others.
        """
        point = self._points.get(None)
        if point is not None and 0.0 < point.rest.typical_s < path.duration_s:
            self._take(path, full=False, legs=False)

    def _take(self, path: Path, *, full: bool, legs: bool) -> None:
        waiting = self._waiting
        if len(waiting) == MOST_WAITING:
            self.dropped += 1
        waiting.append((path, full, legs))
        # Whoever comes first learns for all. The garbage collector may finish an abandoned request
        # of the very thread that is learning, so nobody ever waits here.
        if self._lock.acquire(blocking=False):
            try:
                for _ in range(MOST_AT_ONCE):
                    if not waiting:
                        break
                    self._learn(*waiting.popleft())
            finally:
                self._lock.release()

    def _learn(self, path: Path, full: bool, legs: bool) -> None:  # noqa: C901, FBT001, PLR0912 - a fact; hot
        passings, duration_s, now_s, size = path
        if not 0.0 <= duration_s < _LONGEST_S:
            self.dropped += 1
            return
        size_log = None if size is None else _log(size)
        points = self._points
        counts: dict[str | None, int] = {}
        last = len(passings) - 1
        for index, (name, at_s, load, stage_s) in enumerate(passings):
            key: Key = name
            nth = counts[name] = counts.get(name, 0) + 1
            if nth > 1:
                # Of openings that share a cell only the first: one request is one witness.
                if (nth - 1) & (nth - 2):
                    continue
                key = _key(name, nth)
            point = points.get(key) or self._add(key)
            if point is None:
                continue
            load_log = log(1.0 + load) if load > 0 else 0.0
            rest_s = duration_s - at_s
            rest_log = log(rest_s) if rest_s > SHORTEST_S else _SHORTEST_LOG
            if full:
                point.full_s = now_s - rest_s
                point.rest.learn(rest_log, load_log, size_log, now_s)
                if stage_s is not None:
                    sequel = point.sequel
                    if sequel is None:
                        sequel = point.sequel = Cell(self._guesses.get(name, _NO_GUESS)[1])
                    sequel.learn(_safe_log(rest_s - stage_s), load_log, size_log, now_s)
            elif rest_s > SHORTEST_S:
                point.rest.learn_at_least(rest_log, load_log, size_log, now_s)
            if not legs:
                continue
            leg = point.leg
            if index < last:
                leg_s = passings[index + 1][1] - at_s
                if leg is None:
                    leg = point.leg = Cell()
                leg.learn(
                    log(leg_s) if leg_s > SHORTEST_S else _SHORTEST_LOG, load_log, size_log, now_s
                )
            elif leg is not None:
                if full:
                    # Nothing more could be decided this time.
                    leg.learn(rest_log, load_log, size_log, now_s)
                elif rest_s > SHORTEST_S:
                    leg.learn_at_least(rest_log, load_log, size_log, now_s)
        if full:
            self.last_s = now_s

    def _add(self, key: Key) -> _Point | None:
        if len(self._points) >= MOST_POINTS:
            return None
        name = key[0] if isinstance(key, tuple) else key
        point = self._points[key] = _Point(self._guesses.get(name, _NO_GUESS)[0])
        return point

    def export(self) -> dict[str, object]:
        """Return what was learned as plain data, good for JSON and for ``merge``."""
        with self._lock:
            points = [
                {
                    "point": list(key) if isinstance(key, tuple) else key,
                    **{
                        name: cell.export()
                        for name in _CELLS
                        if (cell := getattr(point, name)) is not None
                    },
                }
                for key, point in self._points.items()
            ]
        return {"version": _VERSION, "points": points}

    def merge(self, data: Mapping[str, object], now_s: float) -> None:
        """Add what another process has learned about the same route, as it exported it.

        Raises:
            ValueError: *data* is not such an export; what was learned here is then unchanged.

        """
        theirs = _points_of(data)
        with self._lock:
            for key, cells in theirs.items():
                point = self._points.get(key) or self._add(key)
                if point is None:
                    continue
                for name, cell in cells.items():
                    if getattr(point, name) is None:
                        setattr(point, name, Cell())
                    mine: Cell = getattr(point, name)
                    mine.merge(cell)
                    mine.last_s = max(mine.last_s, now_s)


_VERSION: Final = 1
_CELLS: Final = ("rest", "leg", "sequel")
_NO_GUESS: Final = (None, None)


def _points_of(data: Mapping[str, object]) -> dict[Key, dict[str, Mapping[str, object]]]:
    """Return the cells in *data* by point and name, each checked."""
    points = data.get("points")
    if data.get("version") != _VERSION or not isinstance(points, list):
        raise ValueError(f"not the export of a route's forecast of version {_VERSION}")
    found: dict[Key, dict[str, Mapping[str, object]]] = {}
    for one in points[:MOST_POINTS]:
        if not isinstance(one, Mapping):
            raise ValueError(  # noqa: TRY004 - one error for all that may be wrong
                f"a point is a mapping, not {one!r:.60}"
            )
        cells = {name: one[name] for name in _CELLS if name in one}
        for cell in cells.values():
            if not isinstance(cell, Mapping):
                raise ValueError(  # noqa: TRY004 - likewise
                    f"a cell is a mapping, not {cell!r:.60}"
                )
            Cell().merge(cell)
        found[_restored(one.get("point"))] = cells
    return found


def _restored(key: object) -> Key:
    if key is None or isinstance(key, str):
        return key
    if isinstance(key, list) and [type(part) for part in key] == [str, int]:
        return key[0], key[1]
    raise ValueError(f"a point is a name, not {key!r:.60}")


def _key(point: str | None, nth: int) -> Key:
    """Return where the *nth* opening is kept; those of about equal place in a loop share a cell."""
    return point if point is None or nth <= 1 else (point, (nth - 1).bit_length())


def _log(size: float) -> float:
    # The client may have stated it.
    if _SMALLEST < size < _LARGEST:
        return log(size)
    return log(_LARGEST if size >= _LARGEST else _SMALLEST)


def _safe_log(seconds: float) -> float:
    return log(seconds) if seconds > SHORTEST_S else _SHORTEST_LOG


_SMALLEST: Final = 1e-3
_LARGEST: Final = 1e15
_SHORTEST_LOG: Final = log(SHORTEST_S)


def _guesses(stages: Mapping[str, StagePlan]) -> dict[str | None, tuple[float, float | None]]:
    """Return the guessed rest and sequel of each point, by the allocations still ahead of it."""
    guesses: dict[str | None, tuple[float, float | None]] = {}
    ahead_s = 0.0
    for name, stage in reversed(list(stages.items())):
        sequel_s = ahead_s or None
        if 0.0 < stage.limit_s < _LONGEST_S:
            ahead_s += PRIOR_SHARE * stage.limit_s
        if ahead_s:
            guesses[name] = (ahead_s, sequel_s)
    if ahead_s:
        guesses[None] = (ahead_s, None)
    return guesses


_after_fork: weakref.WeakSet[RouteForecast] = weakref.WeakSet()


def _renew_locks() -> None:
    # A thread of the parent may have been learning at the moment of the fork.
    for forecast in _after_fork:
        forecast._lock = threading.Lock()  # noqa: SLF001 - the same file


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
