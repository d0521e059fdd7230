"""An ASGI application that does with each request what is drawn for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from simulation.applications import ClientLeftError, Run, drawn_moves
from simulation.policies import grid

if TYPE_CHECKING:
    from budgetware.asgi import Message, Receive, Send
    from simulation.clients import Request
    from simulation.world import World

_ENDINGS: Final = ("torn", "silent", "fails", "fails after", "listens")


class AsgiRun(Run):
    """One request at the application.

    Args:
        request: The request.
        world: Where it happens.
        receive: The server's, as the door hands it on.
        send: Likewise.

    """

    def __init__(self, request: Request, world: World, receive: Receive, send: Send) -> None:
        super().__init__(request, world)
        self._server_receive = receive
        self._server_send = send
        rng = self.rng
        self._ending = rng.choice(_ENDINGS) if rng.random() < world.disorder else "whole"
        self._before = drawn_moves(self, threads=False)
        self._after = drawn_moves(self, threads=False) if rng.random() < 0.15 else []
        self._behind_s = grid(rng, 0, 10)
        self._reads = bool(request.upload) or rng.random() < 0.3
        self.gives_up = self._ending in {"silent", "torn"}

    async def _receive(self) -> Message:
        with self.receiving():
            return await self._server_receive()

    async def _send(self, message: Message) -> None:
        with self.working(-1):
            await self._server_send(message)

    async def serve(self) -> object:
        """Be at work."""
        with self.working():
            return await self._serve()

    async def _serve(self) -> object:
        """Do what is drawn.

        Raises:
            ClientLeftError: That is what it ends with.

        """
        if self._reads and not await self._read():
            raise ClientLeftError(self.request.mark)
        for move in self._before:
            await move(self)
        if self._ending == "fails":
            raise ClientLeftError(self.request.mark)
        if self._ending == "silent":
            return self
        if self._ending == "listens":
            await self._respond_unless_gone()
        else:
            await self._respond()
        for move in self._after:
            await move(self)
        if self._ending == "fails after":
            await self.pause(self._behind_s)
            raise ClientLeftError(self.request.mark)
        return self

    async def _read(self) -> bool:
        """Read the request's body; tell whether the client was still there at its end."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return False
            if not message.get("more_body", False):
                return True

    async def _respond(self) -> None:
        """Send the response, or all but its end."""
        response = self.response
        self.begin()
        headers = [(name.encode(), value.encode()) for name, value in response.headers]
        await self._send(
            {"type": "http.response.start", "status": response.status, "headers": headers}
        )
        last = len(response.parts) - 1
        for number, part in enumerate(response.parts):
            if number and response.gap_s:
                await self.pause(response.gap_s)
            if number < last:
                await self._send({"type": "http.response.body", "body": part, "more_body": True})
            elif self._ending != "torn":
                more = {"more_body": False} if response.is_explicit else {}
                await self._send({"type": "http.response.body", "body": part, **more})

    async def _respond_unless_gone(self) -> None:
        """Respond, unless the client leaves first, as a streaming response does."""

        async def listening() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            self.gives_up = True

        async def responding() -> None:
            await self._respond()
            listener.cancel()

        try:
            async with asyncio.TaskGroup() as group:
                listener = group.create_task(listening())
                responder = group.create_task(responding())
                listener.add_done_callback(lambda _: responder.cancel())
        except BaseExceptionGroup as error:
            if len(error.exceptions) == 1:
                raise error.exceptions[0] from None
            raise
