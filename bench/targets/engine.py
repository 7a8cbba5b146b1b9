"""The media engine alone, in its own process: this server without its signalling.

Options: `threads`, media threads (all on the server's cores); `perf_map=1` writes the names of its kernels for perf.
"""

import asyncio
import secrets
from collections import defaultdict
from dataclasses import dataclass, field

from bench.clients.endpoint import Endpoint, make_context
from bench.plans import AUDIO_PAYLOAD_TYPE, VIDEO_PAYLOAD_TYPE, Connected, Plan, SendStream
from bench.servers import engine
from bench.targets.base import LAYER_OF, Child, TargetFailed
from sfu.parameters import LocalTransport, SubscriptionId, TrackId, TransportId

OPTIONS = {"threads", "perf_map"}
SETTLE_TIMEOUT_S, POLL_S = 30.0, 0.02


@dataclass(slots=True, eq=False)
class Member:
    """A participant: its transport, its receivers and its subscriptions."""

    plan: Plan
    transport: TransportId
    endpoint: Endpoint
    mids: int = 0
    """The number of its mids."""
    tracks: list[TrackId] = field(default_factory=list)
    """The engine's tracks, by number of the track in the plan."""
    gets: dict[tuple[str, int], SubscriptionId] = field(default_factory=dict)
    """(publisher, number of the track) -> subscription."""

    def next_mid(self) -> str:
        """Return a new mid."""
        self.mids += 1
        return str(self.mids - 1)


class EngineTarget:
    """Starts the process and makes the calls of signalling."""

    profile = "SRTP_AEAD_AES_128_GCM"

    def __init__(self, options: dict[str, str]) -> None:
        """Read the options, which the module lists.

        Raises:
            ValueError: one is unknown.
        """
        if unknown := options.keys() - OPTIONS:
            raise ValueError(f"engine: unknown options {', '.join(sorted(unknown))}; there are threads, perf_map")
        self._threads = int(options.get("threads", "1"))
        self._perf_map = options.get("perf_map", "0") == "1"
        self.name = "engine" if self._threads == 1 else f"engine-{self._threads}-threads"
        self._child = Child(self.name, engine.main, (self._threads,))
        self._context, self._fingerprint = make_context()
        self._rooms: dict[str, dict[str, Member]] = defaultdict(dict)

    async def start(self, cores: tuple[int, ...]) -> None:
        """Start the process on these cores."""
        await self._child.start(cores)

    def pid(self) -> int:
        """Return the id of the process."""
        return self._child.pid

    async def join(self, plan: Plan) -> Connected:
        """Let a participant join. Simulcast layers are told apart by their SSRCs."""
        local: LocalTransport = self._child.ask("open")
        address = local.candidates[0].address, local.candidates[0].port
        endpoint = Endpoint(self._context, address)
        member = Member(plan, local.id, endpoint)
        self._child.ask("connect", local.id, endpoint.ufrag, endpoint.password, self._fingerprint)
        try:
            await endpoint.connect(local.ice)
        except (TimeoutError, OSError) as error:
            raise TargetFailed(f"{self.name}: {plan.identity} could not join: {error}") from error
        sends = self._publish(member)
        room = self._rooms[plan.room]
        for other in room.values():
            self._subscribe(member, other)
            self._subscribe(other, member)
        room[plan.identity] = member
        check = endpoint.check_datagram
        return Connected(plan, endpoint.socket, endpoint.incoming, endpoint.outgoing, sends, member, check)

    def _publish(self, member: Member) -> list[SendStream]:
        sends = []
        for track in member.plan.publish:
            mid, ssrcs = member.next_mid(), [secrets.randbits(32) | 1 for _ in track.layers]
            member.tracks.append(self._child.ask("publish", member.transport, track.kind, mid, ssrcs))
            video = track.kind == "video"
            payload_type = VIDEO_PAYLOAD_TYPE if video else AUDIO_PAYLOAD_TYPE
            extension = bytes((engine.MID_ID << 4 | len(mid) - 1,)) + mid.encode()
            for layer, ssrc in zip(track.layers, ssrcs, strict=True):
                stream = SendStream(ssrc, payload_type, track.kind, layer, track.frames_per_second, extension)
                stream.transport_cc_id = engine.TRANSPORT_CC_ID
                sends.append(stream)
        return sends

    def _subscribe(self, viewer: Member, publisher: Member) -> None:
        if not viewer.plan.subscribe:
            return
        for number, (track, published) in enumerate(zip(publisher.plan.publish, publisher.tracks, strict=True)):
            told = self._child.ask("subscribe", published, viewer.transport, track.kind, viewer.next_mid())
            viewer.gets[publisher.plan.identity, number] = told.id

    async def settle(self) -> None:
        """Wait until the engine has completed every handshake."""
        members = sum(map(len, self._rooms.values()))
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                while self._child.ask("connected") < members:  # noqa: ASYNC110 - it happens elsewhere
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise TargetFailed(f"{self.name}: it did not see every participant connect") from error
        if self._perf_map:
            self._child.ask("write_perf_map")

    async def choose_layer(self, participant: Connected, publisher: str, quality: str) -> None:
        """Send `participant` the LOW, MEDIUM or HIGH layer of another's video."""
        other = self._rooms[participant.plan.room].get(publisher)
        for number, track in enumerate(other.plan.publish if other is not None else ()):
            if track.kind == "video":
                layer = min(LAYER_OF[quality], len(track.layers) - 1)
                self._child.ask("choose_layer", _member(participant).gets[publisher, number], layer)

    async def mute(self, participant: Connected, muted: bool) -> None:
        """Do nothing: there is no signalling."""

    async def leave(self, participant: Connected) -> None:
        """Close its transport and its socket."""
        member = _member(participant)
        room = self._rooms[participant.plan.room]
        room.pop(participant.plan.identity, None)
        for other in room.values():
            for track in [each for each in other.gets if each[0] == participant.plan.identity]:
                del other.gets[track]
        self._child.ask("close", member.transport)
        member.endpoint.close()

    def drops(self) -> dict[str, int]:
        """Return how many packets the engine dropped, by reason."""
        return dict(self._child.ask("drops"))

    def versions(self) -> dict[str, str]:
        """Return a note that there is no signalling."""
        return {self.name: "sfu.engine without signalling"}

    async def stop(self) -> None:
        """Stop the process and close the sockets of all participants."""
        self._child.stop()
        for room in self._rooms.values():
            for member in room.values():
                member.endpoint.close()


def _member(participant: Connected) -> Member:
    assert isinstance(participant.owner, Member)
    return participant.owner


TARGET = EngineTarget
