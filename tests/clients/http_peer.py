"""Clients without a WebSocket: aiortc that publishes by WHIP or plays by WHEP."""

import asyncio
import contextlib
from typing import Any

import av
import httpx
import numpy as np
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, VideoStreamTrack

from tests.clients.json_peer import Tone
from tests.clients.sfu_server import ServerUnderTest

SDP = "application/sdp"


class HttpPeer:
    """One session of WHIP or WHEP."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.connection = RTCPeerConnection()
        self.connection.on("track", self._on_track)
        self.pictures = 0
        self.energy = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._headers: dict[str, str] = {}
        self.place = ""

    async def publish(self, server: ServerUnderTest, room: str, **grants: Any) -> None:
        """Publish a tone and a green picture."""
        self.connection.addTransceiver(Tone(), "sendonly")
        self.connection.addTransceiver(VideoStreamTrack(), "sendonly")
        await self._post(server, "/whip/v1", room, grants)

    async def play(self, server: ServerUnderTest, room: str, query: str = "", **grants: Any) -> None:
        """Receive a sound and a picture."""
        for kind in ("audio", "video"):
            self.connection.addTransceiver(kind, "recvonly")
        await self._post(server, f"/whep/v1{query}", room, grants)

    async def delete(self) -> int:
        """End the session as the protocol says; returns the status."""
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.delete(self.place, headers=self._headers)).status_code

    async def close(self) -> None:
        """Stop at once."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.connection.close()

    async def _post(self, server: ServerUnderTest, path: str, room: str, grants: dict[str, Any]) -> None:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        self._headers = {"Authorization": f"Bearer {server.token(room, self.identity, **grants)}"}
        async with httpx.AsyncClient(base_url=server.http_url, trust_env=False) as client:
            offer = self.connection.localDescription.sdp
            answer = await client.post(path, content=offer, headers=self._headers | {"Content-Type": SDP})
        assert answer.status_code == 201, answer.text
        self.place = f"{server.http_url}{answer.headers['location']}"
        await self.connection.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))

    def _on_track(self, track: MediaStreamTrack) -> None:
        task = asyncio.get_running_loop().create_task(self._take(track))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if isinstance(frame, av.VideoFrame):
                    self.pictures += 1
                elif isinstance(frame, av.AudioFrame):
                    self.energy += float(np.square(frame.to_ndarray().astype(np.float64) / 32768).mean())
