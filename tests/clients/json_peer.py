"""A client written by hand, as an integrator without an SDK would: JSON over a WebSocket, and aiortc for media."""

import asyncio
import contextlib
import fractions
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any
from urllib.parse import urlencode

import av
import numpy as np
import websockets
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from livekit.protocol.models import DataPacket, UserPacket

from tests.clients.peers import Media
from tests.clients.sfu_server import ServerUnderTest

ANSWER_TIMEOUT_S = 20
MAX_FRAME_BYTES = 16 * 1024 * 1024
RATE, SAMPLES = 48_000, 960

Message = dict[str, Any]


class Tone(MediaStreamTrack):
    """440 Hz, in frames of 20 ms, in real time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._position = 0
        self._started = time.monotonic()

    async def recv(self) -> av.AudioFrame:
        due = self._started + self._position / RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        angles = 2 * np.pi * 440 * (self._position + np.arange(SAMPLES)) / RATE
        frame = av.AudioFrame.from_ndarray((np.sin(angles) * 12000).astype(np.int16)[None, :], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._position, fractions.Fraction(1, RATE)
        self._position += SAMPLES
        return frame


class JsonSocket:
    """The signalling alone: every message that came, by name, and a way to wait for the next of a kind."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket
        self.seen: list[tuple[str, Any]] = []
        self.close_code: int | None = None
        self._news = asyncio.Condition()
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for frame in self._socket:
                assert isinstance(frame, str), f"a JSON client got a binary frame: {frame[:40]!r}"
                for name, content in json.loads(frame).items():
                    self.seen.append((name, content))
                async with self._news:
                    self._news.notify_all()
        self.close_code = self._socket.close_code
        async with self._news:
            self._news.notify_all()

    async def send(self, **message: Any) -> None:
        """Send one SignalRequest by its JSON name."""
        await self._socket.send(json.dumps(message))

    async def send_frame(self, frame: str | bytes) -> None:
        """Send whatever."""
        await self._socket.send(frame)

    async def message(self, place: int) -> tuple[str, Any]:
        """Message number `place`, once it has come."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.seen) > place)
        return self.seen[place]

    async def expect(self, name: str, after: int = 0) -> Any:
        """The first message of a kind from position `after` of `seen` on.

        Raises:
            AssertionError: none comes.
        """

        def found() -> bool:
            return self.close_code is not None or any(kind == name for kind, _ in self.seen[after:])

        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S), self._news:
                await self._news.wait_for(found)
        except TimeoutError:
            pass
        content = next((content for kind, content in self.seen[after:] if kind == name), None)
        kinds = [kind for kind, _ in self.seen[after:]]
        assert content is not None, f"no {name}, but {kinds}, closed: {self.close_code}"
        return content

    async def expect_close(self) -> int:
        """Wait until the server has closed the socket; returns the code."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S), self._news:
            await self._news.wait_for(lambda: self.close_code is not None)
        assert self.close_code is not None
        return self.close_code

    def cut(self) -> None:
        """Lose the connection without a word."""
        self._socket.transport.abort()

    async def close(self) -> None:
        await self._socket.close()
        await self._reader


@contextlib.asynccontextmanager
async def json_socket(url: str, token: str, path: str = "/rtc/v1", **query: str) -> AsyncIterator[JsonSocket]:
    """Join without media, with more parameters of the query."""
    async with websockets.connect(
        f"{url}{path}?{urlencode({'access_token': token, 'protocol': 16} | query)}",
        subprotocols=[websockets.Subprotocol("json")],
        max_size=MAX_FRAME_BYTES,
        proxy=None,
    ) as connected:
        socket = JsonSocket(connected)
        yield socket
        await socket.close()


class JsonPeer:
    """A `Peer` over `JsonSocket` that publishes a tone, hears what others publish, and exchanges data.

    path "/rtc/v1": one connection on which we offer. "/rtc": a second one on which the server offers. query: further
    parameters of the request, such as `sdk`.
    """

    def __init__(self, identity: str, path: str = "/rtc/v1", **query: str) -> None:
        self.identity = identity
        self._path = path
        self._query = query
        self.subscriber: RTCPeerConnection | None = None
        self._exits = contextlib.AsyncExitStack()
        self._offers = itertools.count(1)
        self._negotiating = asyncio.Lock()
        self.may_answer = asyncio.Event()
        """Cleared: offers of the server wait."""
        self.may_answer.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._messages: list[tuple[str, str]] = []
        self._open = asyncio.Event()
        self._failure: BaseException | None = None
        self._heard: dict[MediaStreamTrack, tuple[int, float]] = {}
        self._sid_of_mid: dict[str, str] = {}
        self._participants: dict[str, Message] = {}

    async def join(self, server: ServerUnderTest, room: str, **grants: Any) -> None:
        token = server.token(room, self.identity, **grants)
        self.socket = await self._exits.enter_async_context(json_socket(server.url, token, self._path, **self._query))
        joined = await self.socket.expect("join")
        self._meet(joined.get("otherParticipants", []))
        self.connection = self._new_connection()
        self._channel = self.connection.createDataChannel("_reliable")
        self._channel.on("message", self._on_message)
        self._channel.on("open", self._open.set)
        self._spawn(self._follow())
        await self._offer()

    async def publish_audio(self) -> str:
        tone = Tone()
        start = len(self.socket.seen)
        await self.socket.send(addTrack={"cid": tone.id, "type": "AUDIO", "source": "MICROPHONE", "name": "tone"})
        published = await self.socket.expect("trackPublished", start)
        assert published["cid"] == tone.id
        # addTrack would take over a section on which we receive
        await self._offer(lambda: self.connection.addTransceiver(tone, "sendonly"))
        return str(published["track"]["sid"])

    async def publish_video(self, codec: str = "vp8") -> str:
        raise NotImplementedError

    async def say(self, text: str) -> None:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await self._open.wait()
        self._channel.send(DataPacket(user=UserPacket(payload=text.encode())).SerializeToString())

    async def messages(self) -> list[tuple[str, str]]:
        return list(self._messages)

    async def received(self) -> dict[str, dict[str, Media]]:
        if self._failure is not None:
            raise self._failure
        seen: dict[str, dict[str, Media]] = {}
        by_sid = self._heard_by_sid()
        for identity, info in self._participants.items():
            rows = seen[identity] = {}
            for track in info.get("tracks", []):
                packets, energy = by_sid.get(track["sid"], (0, 0.0))
                source = track.get("source", "unknown").lower()
                codec = track.get("mimeType", "").rpartition("/")[2].upper()
                rows[source] = Media(packets > 0, codec, packets, 0, 0, 0, energy)
        return seen

    async def leave(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(AttributeError, websockets.ConnectionClosed):
            await self.socket.send(leave={"reason": "CLIENT_INITIATED", "action": "DISCONNECT"})
        await self._exits.aclose()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()

    def _new_connection(self) -> RTCPeerConnection:
        connection = RTCPeerConnection()
        self._exits.push_async_callback(connection.close)
        connection.on("track", self._on_track)
        connection.on("datachannel", lambda channel: channel.on("message", self._on_message))
        return connection

    def _on_message(self, payload: bytes) -> None:
        packet = DataPacket.FromString(payload)
        if packet.HasField("user"):
            self._messages.append((packet.participant_identity, packet.user.payload.decode()))

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._spawn(self._listen(track))

    async def _listen(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.AudioFrame)
                packets, energy = self._heard.get(track, (0, 0.0))
                samples = frame.to_ndarray().astype(np.float64) / 32768
                self._heard[track] = (packets + 1, energy + float(np.square(samples).mean()))

    def _heard_by_sid(self) -> dict[str, tuple[int, float]]:
        """Frames and energy by track: the server says which track is on which m-section."""
        connection = self.connection if self._path == "/rtc/v1" else self.subscriber
        return {
            self._sid_of_mid[transceiver.mid]: self._heard[transceiver.receiver.track]
            for transceiver in (connection.getTransceivers() if connection is not None else [])
            if transceiver.mid in self._sid_of_mid and transceiver.receiver.track in self._heard
        }

    def _meet(self, infos: list[Message]) -> None:
        for info in infos:
            if info["identity"] == self.identity:
                continue
            if info.get("state") == "DISCONNECTED":
                self._participants.pop(info["identity"], None)
            else:
                self._participants[info["identity"]] = info

    def _add_sections(self, wanted: Message) -> None:
        for kind, count in (("audio", wanted.get("numAudios", 0)), ("video", wanted.get("numVideos", 0))):
            for _ in range(count):
                self.connection.addTransceiver(kind, "recvonly")

    async def _offer(self, change: Callable[[], object] = lambda: None) -> None:
        """Negotiate after a change; aiortc cannot have both at the same time."""
        async with self._negotiating:
            change()
            number = next(self._offers)
            await self.connection.setLocalDescription(await self.connection.createOffer())
            local = self.connection.localDescription
            start = len(self.socket.seen)
            await self.socket.send(offer={"type": local.type, "sdp": local.sdp, "id": number})
            answer = await self.socket.expect("answer", start)
            assert answer["id"] == number
            if self._path == "/rtc/v1":
                self._sid_of_mid = answer.get("midToTrackId", {})
            await self.connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))

    async def _follow(self) -> None:
        """React to what the server says, from the join on."""
        place = 0
        while True:
            name, content = await self.socket.message(place)
            place += 1
            if name == "update":
                self._meet(content["participants"])
            elif name == "mediaSectionsRequirement":
                await self._offer(partial(self._add_sections, content))
            elif name == "offer":
                await self._answer(content)

    async def _answer(self, offer: Message) -> None:
        if self.subscriber is None:
            self.subscriber = self._new_connection()
        await self.may_answer.wait()
        self._sid_of_mid = offer.get("midToTrackId", {})
        await self.subscriber.setRemoteDescription(RTCSessionDescription(offer["sdp"], "offer"))
        await self.subscriber.setLocalDescription(await self.subscriber.createAnswer())
        sdp = self.subscriber.localDescription.sdp
        await self.socket.send(answer={"type": "answer", "sdp": sdp, "id": offer.get("id", 0)})
