"""One request and its response, as the ASGI door sees them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from math import inf
from typing import Any, Final

from budgetware._core.budget import Budget
from budgetware._core.engine import Engine
from budgetware.http import SERVER_ERROR
from budgetware.names import SERVER_TIMING
from budgetware.runtime import SHORTEST_WAIT_S
from budgetware.telemetry.server_timing import render

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[Any]]

_SERVER_TIMING: Final = SERVER_TIMING.lower().encode("ascii")


class Exchange(Budget):
    """One request and its response: a budget that watches the messages pass."""

    __slots__ = ("engine", "forward")

    engine: Engine
    forward: Send

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message of the application on, noting the response's first and last byte.

        It gives what the server's own ``send`` gives, so that a message costs no coroutine of
        ours unless there is something to do after it has left.
        """
        way = None
        try:
            kind = message["type"]
            if kind == "http.response.body":
                if "more_body" in message or self.odd:
                    way = self._way_of(message)
                elif self.engine.end(self):
                    way = self._send_and_tell
            elif kind == "http.response.start":
                status = message["status"]
                if status >= SERVER_ERROR:
                    self.engine.fail(self)
                self.status = status
                if "trailers" in message:
                    self.odd = self.trailers = message["trailers"]
            elif kind in _OTHER_PARTS:
                way = self._way_of(message)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not lose the message
            self.fault("send", error, message)
        # Out here: what the server raises when it is called is the application's, and not for us.
        if way is not None:
            return way(message)
        forward = self.forward
        return forward(message)

    def timed(self, receive: Receive) -> Receive:
        """Return *receive* with the waits for the request's body left out of the budget."""
        pending = True

        async def timed_receive() -> Message:
            nonlocal pending
            # Who has begun to respond is at work, and only listens for the client's leaving.
            if not pending or hasattr(self, "status"):
                return await receive()
            before = self._receiving()
            try:
                message = await receive()
            finally:
                self._received(before)
            try:
                kind = message["type"]
                if kind == "http.request":
                    pending = message.get("more_body", False)
                elif kind == "http.disconnect":
                    pending = False
                    self.gone()
            except Exception as error:  # noqa: BLE001 - a fault of ours must not lose the message
                self.fault("receive", error, message)
            return message

        return timed_receive

    def gone(self) -> None:
        """Note that the client left while it was still to send."""
        if not hasattr(self, "status"):
            self.engine.lose(self)

    def raised(self, error: BaseException) -> None:
        """Note that *error* left the application."""
        try:
            self.error = type(error)
            if isinstance(error, Exception):
                self.engine.fail(self)
            if self.end is not None:  # the last ``send`` may have been cancelled before it began
                self.engine.finish(self)
        except Exception as fault:  # noqa: BLE001 - a fault of ours must not replace the error
            self.engine.fault("raised", fault)

    def finish(self) -> None:
        """Finish the budget of an application that came to an end without a last message."""
        try:
            error = getattr(self, "error", None)
            if hasattr(self, "status") or (error is not None and issubclass(error, Exception)):
                self.engine.finish(self)
            else:
                # Neither an answer nor an error of the application: nobody was left to answer.
                self.engine.lose(self)
        except Exception as fault:  # noqa: BLE001 - a fault of ours must not replace the outcome
            self.engine.fault("finish", fault)

    def fault(self, step: str, error: Exception, message: Message) -> None:
        """Count a fault at *step*, unless *message* is none that the specification knows."""
        if _is_message(message):
            self.engine.fault(step, error)

    def _way_of(self, message: Message) -> Send | None:
        more = message.get("more_body") or message.get("more_trailers")
        trailers = getattr(self, "trailers", False)
        if more or (trailers and message["type"] != _TRAILERS):
            return self._send_part
        return self._send_and_tell if self.engine.end(self) else None

    def _wait(self, *, byte: bool = False) -> float:
        """Return when a wait for the client begins, having noted the first *byte*."""
        try:
            now = self.clock()
            if byte:
                self.answering(now)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not lose a message
            self.engine.fault("clock", error)
            return inf  # as the beginning of a wait, it makes no wait
        return now

    def _receiving(self) -> float:
        """Return when a wait for the request's body begins."""
        return self._wait()

    def _received(self, before: float) -> None:
        """Leave out a wait for the request's body, unless the response has begun meanwhile."""
        if not hasattr(self, "status"):
            self._resume(before)

    async def _send_part(self, message: Message) -> None:
        # The server holds a send back while the client does not read.
        byte = bool(message.get("body")) or "file" in message or "path" in message
        before = self._wait(byte=byte)
        try:
            await self.forward(message)
        finally:
            self._resume(before)

    def _resume(self, before: float) -> None:
        try:
            waited_s = self.clock() - before
            if waited_s > SHORTEST_WAIT_S:
                self.pause(waited_s)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the response
            self.engine.fault("pause", error)

    async def _send_and_tell(self, message: Message) -> None:
        try:
            await self.forward(message)
        finally:
            try:
                self.engine.finish(self)  # who was cancelled meanwhile has been told of
            except Exception as error:  # noqa: BLE001 - likewise
                self.engine.fault("tell", error)


class TimedExchange(Exchange):
    """An exchange whose response tells where the time went."""

    __slots__ = ()

    def send(self, message: Message) -> Awaitable[None]:
        """Put a ``Server-Timing`` header on the start of the response, and pass it on."""
        try:
            if message["type"] == "http.response.start":
                header = (_SERVER_TIMING, render(self))
                message = {**message, "headers": [*message.get("headers", ()), header]}
        except Exception as error:  # noqa: BLE001 - likewise
            self.fault("server_timing", error, message)
        return Exchange.send(self, message)


def _is_message(message: Message) -> bool:
    """Tell whether *message* is as ASGI wants it; what else passes is between the other two."""
    try:
        begins = message["type"] == "http.response.start"
        return isinstance(message["type"], str) and (
            not begins or isinstance(message["status"], int)
        )
    except Exception:  # noqa: BLE001 - it may be anything
        return False


_TRAILERS: Final = "http.response.trailers"
_OTHER_PARTS: Final = frozenset(
    {"http.response.pathsend", "http.response.zerocopysend", _TRAILERS},
)
