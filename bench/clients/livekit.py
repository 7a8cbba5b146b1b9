"""A participant that speaks LiveKit's protocol: one peer connection, and SDP from templates.

It follows section 9 of docs/protocol.md: announce tracks, offer, add the m-sections that the server asks for, offer
again. Its messages are protobuf, as those of the SDKs are: JSON would be most of the server's work for a large room.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any
from urllib.parse import urlencode

import jwt
import websockets
from google.protobuf.json_format import ParseDict
from livekit.protocol.models import AUDIO, ClientInfo, DisconnectReason, ParticipantInfo
from livekit.protocol.rtc import (
    ConnectionSettings,
    ICEServer,
    JoinRequest,
    SignalRequest,
    SignalResponse,
    TrickleRequest,
    WrappedJoinRequest,
)
from OpenSSL import SSL

from bench.clients.endpoint import Endpoint
from bench.clients.sdp import TRANSPORT_CC_ID, USABLE_CANDIDATE, Remote, choose_ssrcs, offer, send_streams
from bench.plans import Connected, Plan
from sfu.parameters import IceCredentials

ANSWER_TIMEOUT_S = 60.0
"""Generous, because a server may need this long for hundreds of joins at once."""
TOKEN_VALIDITY_S = 3600
CLOCK_SKEW_S = 10
PING_INTERVAL_S = 5
MAX_FRAME_BYTES = 16 * 1024 * 1024
PROTOCOL_VERSION = 16
SUBSCRIBED_POLL_S = 0.02
QUALITIES = {"q": "LOW", "h": "MEDIUM", "f": "HIGH"}
"""LiveKit's rids, and the quality that a viewer asks for to get each."""

Message = dict[str, Any]
Dtls = tuple[SSL.Context, tuple[str, str]]
Address = tuple[str, int]
Reach = Callable[[Address, list[ICEServer]], Awaitable[Address]]


class SignallingFailed(Exception):
    """The server refused, closed or did not answer; the text says what was expected."""


def make_token(key: str, secret: str, room: str, identity: str) -> str:
    """Return a token with which `identity` may join `room`, publish and subscribe."""
    return _sign(key, secret, identity, {"room": room, "roomJoin": True, "canPublish": True, "canSubscribe": True})


def make_api_token(key: str, secret: str, room: str) -> str:
    """Return a token with which an application may manage `room` and list all rooms."""
    return _sign(key, secret, "", {"room": room, "roomAdmin": True, "roomList": True})


def _sign(key: str, secret: str, identity: str, video: Message) -> str:
    now = int(time.time())
    times = {"nbf": now - CLOCK_SKEW_S, "exp": now + TOKEN_VALIDITY_S}
    claims = {"iss": key, "sub": identity, "name": identity, "video": video, **times}
    return jwt.encode(claims, secret, algorithm="HS256")


class Participant:
    """One participant: `join` brings it in, `leave` takes it out."""

    def __init__(self, plan: Plan, dtls: Dtls, reach: Reach | None = None) -> None:
        """Make a participant that has not joined.

        Args:
            plan: what it does.
            dtls: from `bench.clients.endpoint.make_context`.
            reach: returns where to send what is for the server's address; None: there itself.
        """
        self.plan = plan
        self._reach = reach
        self.endpoint: Endpoint | None = None
        self.subscribed: set[str] = set()
        """Sids of others' tracks that have an m-section."""
        self.tracks_of: dict[str, dict[str, str]] = {}
        """identity -> sid -> `audio` or `video`."""
        self.ice_servers: list[ICEServer] = []
        """What the server told of STUN and TURN."""
        self.own: list[str] = []
        """Sids of its own tracks, in the order of the plan."""
        self.sctp_port = 0
        """The SCTP port of the server's data channels; 0: it has none."""
        self.subscribed_to = asyncio.Event()
        """Set once somebody has received a packet of one of its tracks."""
        self.failure: str = ""
        """What ended it, if anything did."""
        self._dtls = dtls
        self._receiving: list[str] = []
        self._cids = [secrets.token_hex(8) for _ in plan.publish]
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ssrcs = choose_ssrcs(plan)
        self._required = asyncio.Event()
        self._candidates: list[str] = []
        self._trickled = asyncio.Event()
        self._socket: websockets.ClientConnection | None = None
        self._ufrag, self._password = secrets.token_hex(4), secrets.token_hex(12)

    async def join(self, url: str, token: str) -> Connected:
        """Join, publish what the plan says and connect the transport.

        Raises:
            SignallingFailed: the server refused or closed.
            TimeoutError: the server did not answer.
        """
        await self._open(url, token)
        for number, track in enumerate(self.plan.publish):
            self.own.append(await self._announce(number, track.kind))
        if not self.plan.publish and not self.plan.data:
            self._receiving.append("audio")  # a description without m-sections has no transport
        remote = await self._negotiate()
        self.sctp_port = remote.sctp_port
        address = remote.address if self._reach is None else await self._reach(remote.address, self.ice_servers)
        self.endpoint = Endpoint(self._dtls[0], address, self.plan.data, remote.our_role)
        self.endpoint.ufrag, self.endpoint.password = self._ufrag, self._password
        await self.endpoint.connect(IceCredentials(remote.ufrag, remote.password))
        self._spawn(self._add_sections())
        self._spawn(self._ping())
        return Connected(
            self.plan,
            self.endpoint.socket,
            self.endpoint.incoming,
            self.endpoint.outgoing,
            sends=send_streams(self.plan, remote, self._ssrcs),
            owner=self,
            check=self.endpoint.check_datagram,
            receive_transport_cc_id=TRANSPORT_CC_ID if self.plan.reports else 0,
        )

    async def _open(self, url: str, token: str) -> None:
        # adaptive: the lowest layer until a choice is made, as browsers in a large grid begin
        settings = ConnectionSettings(auto_subscribe=self.plan.subscribe, adaptive_stream=True)
        client = ClientInfo(sdk=ClientInfo.JS, protocol=PROTOCOL_VERSION, version="2.0.0")
        request = JoinRequest(client_info=client, connection_settings=settings).SerializeToString()
        wrapped = WrappedJoinRequest(join_request=request).SerializeToString()
        query = urlencode({"access_token": token, "join_request": base64.urlsafe_b64encode(wrapped).decode()})
        joined = self._expect("join")
        self._socket = await websockets.connect(
            f"{url}/rtc/v1?{query}",
            max_size=MAX_FRAME_BYTES,
            compression=None,
            ping_interval=None,
            open_timeout=ANSWER_TIMEOUT_S,
            proxy=None,
        )
        self._spawn(self._read(self._socket))
        response = await self._answer(joined, "join")
        self.ice_servers = list(response.ice_servers)
        self._interval_s = response.ping_interval or PING_INTERVAL_S
        self._meet(response.other_participants)

    async def _announce(self, number: int, kind: str) -> str:
        cid = self._cids[number]
        request: Message = {"cid": cid, "type": kind.upper(), "source": "MICROPHONE"}
        if kind == "video":
            layers = [layer.rid for layer in self.plan.publish[number].layers]
            request |= {"source": "CAMERA", "width": 1280, "height": 720}
            request["layers"] = [
                {"quality": QUALITIES.get(rid, "HIGH"), "width": 1280 >> shift, "height": 720 >> shift}
                for shift, rid in enumerate(reversed(layers))
            ]
            request["simulcastCodecs"] = [{"codec": "vp8", "cid": cid}]
        published = self._expect("track_published")
        await self._send(addTrack=request)
        return str((await self._answer(published, "track_published")).track.sid)

    async def _negotiate(self) -> Remote:
        """Send an offer and return what its answer says of the server's end."""
        number = next(self._numbers)
        ice = self._ufrag, self._password
        text = offer(self.plan, self._cids, self._receiving, ice, self._dtls[1], number, self._ssrcs)
        answered = self._expect("answer")
        await self._send(offer={"type": "offer", "sdp": text, "id": number})
        answer = await self._answer(answered, "answer")
        self.subscribed = set(answer.mid_to_track_id.values()) - set(self.own)
        if "a=candidate:" not in answer.sdp:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._trickled.wait()
        return Remote.parse(answer.sdp, self._candidates)

    async def _add_sections(self) -> None:
        while True:
            await self._required.wait()
            self._required.clear()
            await self._negotiate()

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self._send(pingReq={"timestamp": str(time.time_ns() // 1_000_000)})

    # What the viewer prefers.

    async def choose(self, publisher: str, quality: str) -> None:
        """Ask for a layer of another participant's video: LOW, MEDIUM or HIGH."""
        sids = [sid for sid, kind in self.tracks_of.get(publisher, {}).items() if kind == "video"]
        if sids:
            await self._send(trackSetting={"trackSids": sids, "quality": quality})

    async def mute(self, muted: bool) -> None:
        """Say that all its tracks are muted or not. The generator decides what is sent."""
        for sid in self.own:
            await self._send(mute={"sid": sid, "muted": muted})

    async def wait_subscribed(self, count: int) -> None:
        """Wait until `count` tracks of others have an m-section.

        Raises:
            SignallingFailed: the connection ended before.
        """
        while len(self.subscribed) < count:
            if self.failure:
                raise SignallingFailed(f"{self.plan.identity}: {self.failure}")
            await asyncio.sleep(SUBSCRIBED_POLL_S)

    async def leave(self) -> None:
        """Leave the room and close everything."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            with contextlib.suppress(websockets.ConnectionClosed):
                await self._send(leave={"reason": "CLIENT_INITIATED"})
            await self._socket.close()
        if self.endpoint is not None:
            self.endpoint.close()

    def abandon(self) -> None:
        """Close everything without `leave`, after a join that failed."""
        for task in list(self._tasks):
            task.cancel()
        if self._socket is not None:
            self._socket.transport.abort()
        if self.endpoint is not None:
            self.endpoint.close()

    # The socket.

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = self.failure or f"{type(error).__name__}: {error}"

    def _expect(self, name: str) -> asyncio.Future[Any]:
        """Return a future of the next message of a kind. Call this before sending what it answers."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[name] = future
        return future

    async def _answer(self, future: asyncio.Future[Any], name: str) -> Any:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                content = await future
        except TimeoutError:
            raise SignallingFailed(f"{self.plan.identity}: no {name} in {ANSWER_TIMEOUT_S:.0f} s") from None
        if content is None:
            raise SignallingFailed(f"{self.plan.identity}: {self.failure} while waiting for {name}")
        return content

    async def _send(self, **message: Any) -> None:
        """Send one SignalRequest, which is given in the form of its JSON."""
        assert self._socket is not None
        await self._socket.send(ParseDict(message, SignalRequest()).SerializeToString())

    async def _read(self, connection: websockets.ClientConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for frame in connection:
                response = SignalResponse.FromString(bytes(frame, "utf-8") if isinstance(frame, str) else frame)
                name = response.WhichOneof("message")
                if name is not None:
                    self._handle(name, getattr(response, name))
        self.failure = self.failure or f"the server closed the socket ({connection.close_code})"
        for future in self._waiting.values():
            if not future.done():
                future.set_result(None)

    def _handle(self, name: str, content: Any) -> None:
        if (waiting := self._waiting.pop(name, None)) is not None and not waiting.done():
            waiting.set_result(content)
        elif name == "update":
            self._meet(content.participants)
        elif name == "track_subscribed":
            self.subscribed_to.set()
        elif name == "trickle":
            self._take_candidate(content)
        elif name == "media_sections_requirement":
            self._receiving += ["audio"] * content.num_audios + ["video"] * content.num_videos
            self._required.set()
        elif name == "leave":
            self.failure = f"the server said leave: {DisconnectReason.Name(content.reason)}"

    def _take_candidate(self, trickle: TrickleRequest) -> None:
        """Keep a candidate of the server. The first one for UDP over IPv4 is used."""
        candidate = str(json.loads(trickle.candidateInit).get("candidate", ""))
        self._candidates.append(candidate)
        if USABLE_CANDIDATE.search(candidate):
            self._trickled.set()

    def _meet(self, participants: Iterable[ParticipantInfo]) -> None:
        for info in participants:
            if info.state == ParticipantInfo.State.DISCONNECTED:
                self.tracks_of.pop(info.identity, None)
            elif info.tracks and info.identity != self.plan.identity:
                kinds = {track.sid: "audio" if track.type == AUDIO else "video" for track in info.tracks}
                self.tracks_of[info.identity] = kinds
