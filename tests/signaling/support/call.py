"""Clients without sockets in rooms without media: what signalling tests are written with."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from livekit.protocol import models, rtc

from sfu.events import DataReceived, StreamStarted, TransportConnected, TransportFailed
from sfu.parameters import Channel, Codec, TrackId, TransportId
from signaling.config.api_keys import hide
from signaling.config.configuration import Config, RoomOptions
from signaling.http.connection import BadMessage, Broadcast
from signaling.http.join import JoinParameters
from signaling.http.shares import Share
from signaling.http.tokens import Claims, VideoGrant
from signaling.participants.participant import Participant
from signaling.registry import Rooms
from tests.signaling.support.fake_engine import FakeEngine

CAMERA_LAYERS = (
    models.VideoLayer(quality=models.HIGH, width=1280, height=720),
    models.VideoLayer(quality=models.MEDIUM, width=640, height=360),
    models.VideoLayer(quality=models.LOW, width=320, height=180),
)
ALL_VIDEO = ("vp8", "vp9", "h264", "av1")
RECEIVING = tuple(
    [{"mid": f"a{n}", "kind": "audio", "codecs": ["opus"]} for n in range(3)]
    + [{"mid": f"v{n}", "kind": "video", "codecs": list(ALL_VIDEO)} for n in range(3)]
)


def sdp(*sections: dict[str, Any]) -> str:
    return json.dumps({"sections": sections})


async def settle(turns: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(turns):
        await asyncio.sleep(0)


class FakeConnection:
    """A `SignalConnection` whose other end is the test."""

    def __init__(self) -> None:
        self.sent: list[rtc.SignalResponse] = []
        self.code: int | None = None
        self._requests: asyncio.Queue[rtc.SignalRequest | Exception | None] = asyncio.Queue()

    @property
    def ended(self) -> bool:
        return self.code is not None

    def send(self, response: rtc.SignalResponse | Broadcast) -> None:
        if self.code is None:
            copy = rtc.SignalResponse()
            copy.CopyFrom(response.response if isinstance(response, Broadcast) else response)
            self.sent.append(copy)

    async def serve(
        self, handle: Callable[[rtc.SignalRequest], None], reject: Callable[[BadMessage], None], share: Share
    ) -> None:
        while self.code is None and (request := await self._requests.get()) is not None:
            if isinstance(request, BadMessage):
                reject(request)
            elif isinstance(request, Exception):
                raise request
            else:
                handle(request)

    async def close(self, code: int = 1000) -> None:
        if self.code is None:
            self.code = code
            self._requests.put_nowait(None)

    def put(self, request: rtc.SignalRequest | Exception | None) -> None:
        self._requests.put_nowait(request)


@dataclass
class Client:
    """One client: its socket, and what it has received on it."""

    call: "Call"
    identity: str
    connection: FakeConnection
    task: asyncio.Task[None]
    read: int = 0
    sections: list[dict[str, Any]] = field(default_factory=list)

    @property
    def participant(self) -> Participant:
        participant: Participant = self.call.room.participants[self.identity]
        return participant

    @property
    def sid(self) -> str:
        return self.joined.participant.sid

    @property
    def joined(self) -> rtc.JoinResponse:
        return self.connection.sent[0].join

    @property
    def transport(self) -> TransportId:
        return self.participant.renegotiation.transports[0]

    def of(self, kind: str) -> list[Any]:
        """Everything of one kind that came since the last `forget`."""
        return [getattr(m, kind) for m in self.connection.sent[self.read :] if m.WhichOneof("message") == kind]

    def kinds(self) -> list[str | None]:
        return [message.WhichOneof("message") for message in self.connection.sent[self.read :]]

    def forget(self) -> None:
        self.read = len(self.connection.sent)

    async def send(self, **request: Any) -> None:
        self.connection.put(rtc.SignalRequest(**request))
        await settle()

    async def offer(self, id: int = 1) -> None:
        await self.send(offer=rtc.SessionDescription(type="offer", sdp=sdp(*self.sections), id=id))

    async def renegotiate(self) -> None:
        """Do what a client does when sections are missing."""
        await self.call.collect()
        for requirement in self.of("media_sections_requirement"):
            for kind, number in (("audio", requirement.num_audios), ("video", requirement.num_videos)):
                for _ in range(number):
                    codecs = ["opus"] if kind == "audio" else list(ALL_VIDEO)
                    self.sections.append({"mid": f"n{len(self.sections)}", "kind": kind, "codecs": codecs})
        await self.offer(id=9)

    async def publish(self, cid: str, kind: str, start: bool = True, **request: Any) -> str:
        """Publish and let media flow; returns the track's sid."""
        type_ = models.AUDIO if kind == "audio" else models.VIDEO
        source = models.MICROPHONE if kind == "audio" else models.CAMERA
        layers = 1
        if kind == "video":
            request.setdefault("layers", CAMERA_LAYERS)
            request.setdefault("width", 1280)
            request.setdefault("height", 720)
            layers = 3
        fields: dict[str, Any] = {"cid": cid, "type": type_, "source": source} | request
        await self.send(add_track=rtc.AddTrackRequest(**fields))
        codecs = ["opus"] if kind == "audio" else list(ALL_VIDEO)
        self.sections.append({"mid": cid, "kind": kind, "cid": cid, "codecs": codecs, "layers": layers})
        await self.offer()
        sid: str = self.of("track_published")[-1].track.sid
        if start:
            await self.start(sid)
        return sid

    async def start(self, sid: str, codec: Codec | None = None) -> None:
        """Let the first packet of a track arrive."""
        engine_track = list(self.participant.publishing.tracks[sid].engine_tracks.values())[-1]
        event = StreamStarted(engine_track.id, 0, 4711, codec or engine_track.codec)
        await self.call.emit(event)

    def engine_track(self, sid: str) -> TrackId:
        return next(iter(self.participant.publishing.tracks[sid].engine_tracks))

    async def connect(self) -> None:
        for transport in self.participant.renegotiation.transports:
            await self.call.emit(TransportConnected(transport))

    async def fail(self, reason: str = "consent expired") -> None:
        await self.call.emit(TransportFailed(self.transport, reason))

    async def send_data(self, packet: Message | bytes, channel: Channel = Channel.RELIABLE) -> None:
        payload = packet if isinstance(packet, bytes) else packet.SerializeToString()
        await self.call.emit(DataReceived(self.transport, channel, payload))

    async def lose_socket(self) -> None:
        self.connection.code = 1006
        self.connection.put(None)
        await settle()


class Call:
    """Rooms with a hand-driven clock."""

    def __init__(self, options: RoomOptions | None = None) -> None:
        self.now = 1000.0
        self.engine = FakeEngine()
        self.config = Config(
            keys=hide({"devkey": "secret"}), port=0, bind_addresses=("127.0.0.1",), bind_addresses_given=True
        )
        self.rooms = Rooms(self.config, self.engine, options)  # type: ignore[arg-type]
        self.rooms.node.clock = lambda: self.now
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def room(self) -> Any:
        return self.rooms.rooms["hall"]

    def parameters(self, identity: str, grant: dict[str, Any] | None = None, **join: Any) -> JoinParameters:
        video = VideoGrant(room="hall", room_join=True, **(grant or {}))
        kind = join.pop("kind", models.ParticipantInfo.STANDARD)
        raw = {"sub": identity, "video": {"room": "hall", "roomJoin": True}}
        claims = Claims(identity, f"name of {identity}", "", {}, kind, video, "devkey", 2**31, raw)
        facts: dict[str, Any] = {
            "claims": claims,
            "room": "hall",
            "single_pc": True,
            "auto_subscribe": True,
            "adaptive_stream": False,
            "reconnect": False,
            "reconnect_reason": 0,
            "participant_sid": "",
            "client_info": models.ClientInfo(protocol=17),
            "publisher_offer": rtc.SessionDescription(type="offer", sdp=sdp(*RECEIVING), id=1),
            "add_track_requests": (),
            "sync_state": None,
            "metadata": "",
            "attributes": {},
        }
        if not join.get("single_pc", True):
            facts["publisher_offer"] = None
        return JoinParameters(**(facts | join))

    async def join(self, identity: str, grant: dict[str, Any] | None = None, **join: Any) -> Client:
        connection = FakeConnection()
        session = self.rooms.admit(self.parameters(identity, grant, **join))
        task = asyncio.create_task(session.run(connection))  # type: ignore[arg-type]
        self._tasks.append(task)
        client = Client(self, identity, connection, task, sections=[dict(section) for section in RECEIVING])
        await settle()
        return client

    async def resume(self, client: Client, **join: Any) -> Client:
        facts: dict[str, Any] = {"reconnect": True, "participant_sid": client.sid, "publisher_offer": None}
        again = await self.join(client.identity, **(facts | join))
        again.sections = client.sections
        return again

    async def emit(self, event: Any) -> None:
        self.rooms.handle(event)
        await settle()

    async def collect(self) -> None:
        """Let collected changes be negotiated now."""
        for participant in list(self.room.participants.values()):
            timer = participant.renegotiation._timer
            if timer is not None:
                timer.cancel()
                participant.renegotiation._run()
        await settle()

    async def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.rooms.tick(self.now)
        await settle()

    async def end(self) -> None:
        await self.rooms.stop()
        await settle()
        for task in self._tasks:
            assert task.done(), "a session outlived its socket"
            task.result()
