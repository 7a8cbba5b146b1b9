"""One face for every kind of client: a page with livekit-client, or the native SDK from PyPI.

`await peer.join(server, room)`, publish, say, and look at what arrives. All wait for facts, never for a time.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from livekit import rtc

from tests.clients.sfu_server import ServerUnderTest

WAIT_S = 30
POLL_S = 0.25


class Page(Protocol):
    """What a browser tab must be able to do."""

    async def evaluate(self, expression: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class Media:
    """What a client says about one received track."""

    subscribed: bool
    codec: str
    packets: int
    frames: int
    width: int
    height: int
    energy: float
    details: dict[str, Any] = field(default_factory=dict)


class Peer(Protocol):
    """A client in a room."""

    identity: str

    async def join(self, server: ServerUnderTest, room: str, **grants: Any) -> None: ...
    async def publish_audio(self) -> str: ...
    async def publish_video(self, codec: str = "vp8") -> str: ...
    async def say(self, text: str) -> None: ...
    async def messages(self) -> list[tuple[str, str]]: ...
    async def received(self) -> dict[str, dict[str, Media]]: ...
    async def leave(self) -> None: ...


async def eventually(
    fact: Callable[[], Awaitable[Any]],
    what: str,
    within_s: float = WAIT_S,
    detail: Callable[[], Awaitable[Any]] | None = None,
    poll_s: float = POLL_S,
) -> Any:
    """Wait until `fact` gives something true and return it; else fail, saying what was awaited and what was seen."""
    deadline = time.monotonic() + within_s
    seen = None
    while time.monotonic() < deadline:
        seen = await fact()
        if seen:
            return seen
        await asyncio.sleep(poll_s)
    extra = f"; {await detail()}" if detail else ""
    raise AssertionError(f"{what} did not happen within {within_s} s (last seen: {seen!r}{extra})")


class BrowserPeer:
    """livekit-client in a tab that shows client.html."""

    def __init__(self, page: Page, identity: str, options: dict[str, Any] | None = None) -> None:
        self.page = page
        self.identity = identity
        self._options = options or {}
        self._name = f"peers[{json.dumps(identity)}]"

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the page's Peer with JSON arguments."""
        return await self.page.evaluate(f"{self._name}.{method}({', '.join(map(json.dumps, arguments))})")

    async def run(self, expression: str) -> Any:
        """Evaluate an expression in which `peer` is the page's Peer and `room` its Room."""
        return await self.page.evaluate(f"(async (peer, room) => ({expression}))({self._name}, {self._name}.room)")

    async def join(
        self, server: ServerUnderTest, room: str, connect: dict[str, Any] | None = None, **grants: Any
    ) -> None:
        await self.page.evaluate(f"void ({self._name} = new Peer({json.dumps(self._options)}))")
        await self.call("join", server.url, server.token(room, self.identity, **grants), connect or {})

    async def publish_audio(self, **options: Any) -> str:
        return str(await self.call("publishAudio", options))

    async def publish_video(self, codec: str = "vp8", **options: Any) -> str:
        return str(await self.call("publishVideo", {"videoCodec": codec, **options}))

    async def say(self, text: str, **options: Any) -> None:
        await self.call("say", text, options)

    async def messages(self) -> list[tuple[str, str]]:
        state = await self.call("state")
        return [(message["from"], message["text"]) for message in state["messages"]]

    async def state(self) -> dict[str, Any]:
        return dict(await self.call("state"))

    async def sent(self) -> list[dict[str, Any]]:
        return list(await self.call("sent"))

    async def received(self) -> dict[str, dict[str, Media]]:
        names = ("subscribed", "codec", "packets", "frames", "width", "height", "energy")
        seen = await self.call("received")
        return {
            identity: {
                source: Media(**{name: row[name] for name in names}, details=row) for source, row in tracks.items()
            }
            for identity, tracks in seen.items()
        }

    async def leave(self) -> None:
        await self.call("leave")


class SdkPeer:
    """The native SDK (libwebrtc in a Rust core) of the PyPI package `livekit`."""

    def __init__(
        self,
        identity: str,
        *,
        single_pc: bool = True,
        auto_subscribe: bool = True,
        decode: bool = True,
        relay_only: bool = False,
    ) -> None:
        """`decode`: look at what arrives. Of sixty tracks Python cannot; their packets are counted anyway."""
        self.identity = identity
        self.room = rtc.Room()
        self._single_pc = single_pc
        self._auto_subscribe = auto_subscribe
        self._relay_only = relay_only
        self._messages: list[tuple[str, str]] = []
        self._frames: dict[str, list[tuple[int, int]]] = {}
        self._energy: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._players: dict[str, asyncio.Task[None]] = {}
        self._running = True
        self.room.on("data_received", self._on_data)
        if decode:
            self.room.on("track_subscribed", self._on_track)
        self.room.on("track_unsubscribed", self._on_track_end)

    def _on_data(self, packet: rtc.DataPacket) -> None:
        sender = packet.participant.identity if packet.participant else ""
        self._messages.append((sender, packet.data.decode(errors="replace")))

    def _on_track(self, track: rtc.Track, _publication: Any, _participant: Any) -> None:
        watch = self._watch_video(track) if track.kind == rtc.TrackKind.KIND_VIDEO else self._watch_audio(track)
        self._watches[track.sid] = self._spawn(watch)

    def _on_track_end(self, track: rtc.Track | None, _publication: Any, _participant: Any) -> None:
        # A stream of the SDK goes on for ever, with silence, unless somebody ends it. In a storm of changes the SDK may
        # say so again, and then without a track.
        watch = self._watches.pop(track.sid, None) if track is not None else None
        if watch is not None:
            watch.cancel()

    def _spawn(self, work: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _watch_video(self, track: rtc.Track) -> None:
        sizes = self._frames.setdefault(track.sid, [])
        stream = rtc.VideoStream(track, capacity=1)
        try:
            async for event in stream:
                sizes.append((event.frame.width, event.frame.height))
        finally:
            await stream.aclose()

    async def _watch_audio(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, capacity=10)
        try:
            async for event in stream:
                samples = np.frombuffer(event.frame.data, np.int16).astype(np.float64) / 32768
                self._energy[track.sid] = self._energy.get(track.sid, 0.0) + float(np.square(samples).mean())
        finally:
            await stream.aclose()

    async def join(self, server: ServerUnderTest, room: str, **grants: Any) -> None:
        await self.connect(server.url, server.token(room, self.identity, **grants))

    async def connect(self, url: str, token: str) -> None:
        """Join with a token that somebody made."""
        options = rtc.RoomOptions(auto_subscribe=self._auto_subscribe, single_peer_connection=self._single_pc)
        if self._relay_only:
            options.rtc_config = rtc.RtcConfiguration(ice_transport_type=rtc.IceTransportType.TRANSPORT_RELAY)
        await self.room.connect(url, token, options)

    async def publish_audio(self) -> str:
        source = rtc.AudioSource(48000, 1)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        publication = await self.room.local_participant.publish_track(track, options)
        self._players[publication.sid] = self._spawn(self._play_tone(source))
        return str(publication.sid)

    async def _play_tone(self, source: rtc.AudioSource) -> None:
        # 44 whole periods in a tenth of a second; long frames, because each costs a call into the SDK
        samples = (np.sin(2 * np.pi * 440 * np.arange(4800) / 48000) * 12000).astype(np.int16)
        while self._running:
            await source.capture_frame(rtc.AudioFrame(samples.tobytes(), 48000, 1, len(samples)))

    async def publish_video(
        self, codec: str = "vp8", width: int = 640, height: int = 360, simulcast: bool = True
    ) -> str:
        source = rtc.VideoSource(width, height)
        track = rtc.LocalVideoTrack.create_video_track("camera", source)
        options = rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_CAMERA,
            simulcast=simulcast,
            video_codec=rtc.VideoCodec.Value(codec.upper()),
        )
        publication = await self.room.local_participant.publish_track(track, options)
        self._players[publication.sid] = self._spawn(self._play_picture(source, width, height))
        return str(publication.sid)

    async def _play_picture(self, source: rtc.VideoSource, width: int, height: int) -> None:
        picture = np.zeros((height, width, 4), np.uint8)
        frame = 0
        while self._running:
            frame += 1
            picture[:, :, :3] = (frame * 3 % 255, 90, 160)
            picture[:, frame * 7 % (width - 40) : frame * 7 % (width - 40) + 40, :3] = 255
            source.capture_frame(rtc.VideoFrame(width, height, rtc.VideoBufferType.RGBA, picture.tobytes()))
            await asyncio.sleep(1 / 15)

    async def unpublish(self) -> None:
        """Stop everything that is published."""
        for sid in list(self.room.local_participant.track_publications):
            await self.room.local_participant.unpublish_track(sid)
            self._players.pop(sid).cancel()

    async def say(self, text: str, *, reliable: bool = True, topic: str = "") -> None:
        await self.room.local_participant.publish_data(text, reliable=reliable, topic=topic)

    async def messages(self) -> list[tuple[str, str]]:
        return list(self._messages)

    async def received(self) -> dict[str, dict[str, Media]]:
        seen: dict[str, dict[str, Media]] = {}
        for participant in list(self.room.remote_participants.values()):
            rows = seen[participant.identity] = {}
            for publication in list(participant.track_publications.values()):
                rows[_SOURCES.get(publication.source, "unknown")] = await self._media(publication)
        return seen

    async def _media(self, publication: rtc.RemoteTrackPublication) -> Media:
        track = publication.track
        sizes = self._frames.get(publication.sid, [])
        width, height = sizes[-1] if sizes else (0, 0)
        packets, codec = 0, publication.mime_type.split("/")[-1].upper()
        details: dict[str, Any] = {}
        if track is not None:
            for stat in await track.get_stats():
                if stat.WhichOneof("stats") == "inbound_rtp":
                    packets = stat.inbound_rtp.received.packets_received
                    details = _inbound_details(stat.inbound_rtp)
        energy = self._energy.get(publication.sid, 0.0)
        return Media(publication.subscribed, codec, packets, len(sizes), width, height, energy, details)

    async def leave(self) -> None:
        self._running = False
        await self.room.disconnect()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _inbound_details(stat: Any) -> dict[str, Any]:
    """Whether a picture that does not come was not received, not decoded, or not handed to Python."""
    inbound = stat.inbound
    return {
        "decoded": inbound.frames_decoded,
        "keyFrames": inbound.key_frames_decoded,
        "assembled": inbound.frames_received,
        "dropped": inbound.frames_dropped,
        "lost": stat.received.packets_lost,
        "nacks": inbound.nack_count,
        "plis": inbound.pli_count,
        "bytes": inbound.bytes_received,
        "retransmitted": inbound.retransmitted_packets_received,
    }


_SOURCES = {rtc.TrackSource.SOURCE_CAMERA: "camera", rtc.TrackSource.SOURCE_MICROPHONE: "microphone"}
