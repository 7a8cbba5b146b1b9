"""The api fixture: rooms with played media behind a real HTTP server, and the client that LiveKit's users have."""

from collections.abc import AsyncIterator

import pytest
from livekit.api import LiveKitAPI

from signaling.http.listener import running
from signaling.http.sockets import bind_sockets
from tests.signaling.support.api import KEY, SECRET, Api
from tests.signaling.support.call import Call


@pytest.fixture
async def api(call: Call) -> AsyncIterator[Api]:
    sockets = bind_sockets(call.config)
    async with running(call.config, call.engine, call.rooms, sockets) as addresses:
        url = f"http://127.0.0.1:{addresses[0][1]}"
        async with LiveKitAPI(url, KEY, SECRET) as client:
            yield Api(call, url, client)
