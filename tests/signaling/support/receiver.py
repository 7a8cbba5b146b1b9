"""A receiver of webhooks: livekit-api's, behind a real socket, that answers as a test tells it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web
from livekit.api import TokenVerifier, WebhookReceiver
from livekit.protocol.webhook import WebhookEvent

KEY, SECRET = "devkey", "secret"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """What came, and what the next posts are answered."""

    url: str = ""
    events: list[WebhookEvent] = field(default_factory=list)
    """Those that livekit-api accepted, in their order."""
    requests: list[web.Request] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    answers: list[int | Answer] = field(default_factory=list)
    """What the next posts get: a status, or what is done with the request; 200 when there are none left."""
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def names(self) -> list[str]:
        return [event.event for event in self.events]

    async def wait_for(self, number: int, within_s: float = 20) -> list[WebhookEvent]:
        """Wait until so many events came."""
        async with asyncio.timeout(within_s), self.came:
            await self.came.wait_for(lambda: len(self.events) >= number)
        return self.events

    async def take(self, request: web.Request) -> web.StreamResponse:
        body = (await request.read()).decode()
        token = request.headers["Authorization"]
        event = WebhookReceiver(TokenVerifier(KEY, SECRET)).receive(body, token)
        self.requests.append(request)
        self.tokens.append(token)
        answer = self.answers.pop(0) if self.answers else 200
        if not isinstance(answer, int):
            return await answer(request)
        if answer == 200:
            self.events.append(event)
            async with self.came:
                self.came.notify_all()
        return web.Response(status=answer)


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that listens while the block lasts, at any path."""
    receiver = Receiver()
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app.router.add_post("/{path:.*}", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{port}/hooks"
    try:
        yield receiver
    finally:
        await runner.cleanup()
