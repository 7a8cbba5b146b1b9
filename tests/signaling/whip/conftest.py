"""The http fixture: rooms over real SDP and played media, behind a real HTTP server."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from signaling import registry
from signaling.http.listener import running
from signaling.http.sockets import bind_sockets
from signaling.participants import renegotiation
from signaling.participants.participant import Participant
from tests.signaling.support.api import token
from tests.signaling.support.call import Call

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
NEVER_S = 86_400.0
"""Between ticks of the rooms: time passes by `Call.pass_time` alone."""


@dataclass
class Http:
    """A running server, its rooms, and a client without a WebSocket."""

    call: Call
    client: httpx.AsyncClient

    def bearer(self, identity: str = "film", room: str = "hall", **grants: Any) -> dict[str, str]:
        """The header with a token that joins a room."""
        video = {"roomJoin": True, "room": room} | grants
        return {"Authorization": f"Bearer {token(video, sub=identity)}"}

    async def post(
        self, path: str, offer: str | bytes, identity: str = "film", room: str = "hall", **headers: str
    ) -> httpx.Response:
        """Post an offer."""
        sent = self.bearer(identity, room) | {"Content-Type": SDP} | headers
        return await self.client.post(path, content=offer, headers=sent)

    async def patch(self, place: str, fragment: str, identity: str = "film", **headers: str) -> httpx.Response:
        """Patch a session; `If_Match` stands for the header of that name."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = self.bearer(identity) | {"Content-Type": FRAGMENT} | given
        return await self.client.patch(place, content=fragment, headers=sent)

    async def delete(self, place: str, identity: str = "film", room: str = "hall") -> httpx.Response:
        """End a session."""
        return await self.client.delete(place, headers=self.bearer(identity, room))

    def participant(self, identity: str = "film") -> Participant:
        """The participant of the room with this identity."""
        found: Participant = self.call.room.participants[identity]
        return found


@pytest.fixture
async def http(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Http]:
    # Only `Call.collect` negotiates what was collected.
    monkeypatch.setattr(renegotiation, "COLLECT_S", 3600)
    monkeypatch.setattr(registry, "TICK_S", NEVER_S)
    call = Call()
    async with running(call.config, call.engine, call.rooms, bind_sockets(call.config)) as addresses:
        url = f"http://127.0.0.1:{addresses[0][1]}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
            yield Http(call, client)
    await call.end()
