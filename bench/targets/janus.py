"""Janus with its VideoRoom, started here: one PeerConnection per publisher and one per viewer.

Options: `root`, a folder of unpacked packages; `srtp`, a folder with another libsrtp2.so.1; `loops`, event loops (1; 0:
a thread for each PeerConnection); `profile` of SRTP; `address` for media; `label`, the name in reports, to tell two of
these apart. Who sends and receives needs two transports with Janus, which participants of the benchmark do not have. So
only scenarios of publishers and viewers can be run.
"""

import asyncio
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import ifaddr

from bench.clients import sdp
from bench.clients.dtls_server import PROFILES, server_context
from bench.clients.janus import Installation, JanusFailed, JanusSession, write_configuration
from bench.clients.janus_sdp import fingerprint_of, publisher_offer, viewer_answer
from bench.clients.passive_endpoint import PassiveEndpoint
from bench.plans import Connected, Plan, SendStream
from bench.targets.base import ServerProcess, TargetFailed, free_port

OPTIONS = {"root", "srtp", "loops", "profile", "address", "label"}
ROOM = {"publishers": 100, "bitrate": 0, "fir_freq": 0, "audiocodec": "opus", "videocodec": "vp8"}
START_TIMEOUT_S, SETTLE_TIMEOUT_S, POLL_S = 20.0, 60.0, 0.05


@dataclass(slots=True, eq=False)
class Leg:
    """One PeerConnection with Janus."""

    plan: Plan
    handle: int
    endpoint: PassiveEndpoint
    feed: str | int = ""
    """The number by which viewers subscribe to this publisher."""
    feeds: set[str | int] = field(default_factory=set)
    """The publishers to which a viewer is subscribed."""


class JanusTarget:
    """Starts Janus and speaks its API."""

    foreign = True

    def __init__(self, options: dict[str, str]) -> None:
        """Read the options, which the module lists.

        Raises:
            ValueError: one is unknown.
        """
        if unknown := options.keys() - OPTIONS:
            raise ValueError(
                f"janus: unknown options {', '.join(sorted(unknown))}; there are {', '.join(sorted(OPTIONS))}"
            )
        self.profile = options.get("profile", "SRTP_AEAD_AES_128_GCM")
        if self.profile not in PROFILES:
            raise ValueError(f"janus: profile must be one of {', '.join(PROFILES)}")
        self.name = options.get("label", "janus")
        self._options = options
        self._context, self._fingerprint = server_context(self.profile)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._installation: Installation | None = None
        self._process: ServerProcess | None = None
        self._session: JanusSession | None = None
        self._legs: list[Leg] = []
        self._rooms: set[str] = set()
        self._making = asyncio.Lock()
        self._address = options.get("address", "")

    def missing(self) -> str:
        """Return why it cannot be started here; empty: it can."""
        try:
            self._find()
        except JanusFailed as error:
            return str(error)
        return ""

    def _find(self) -> Installation:
        return Installation.find(self._options.get("root", ""), self._options.get("srtp", ""))

    async def start(self, cores: tuple[int, ...]) -> None:
        """Start Janus on these cores and open a session.

        Raises:
            TargetFailed: it does not start.
        """
        try:
            installation = self._find()
        except JanusFailed as error:
            raise TargetFailed(str(error)) from error
        self._installation = installation
        self._address = self._address or own_address()
        port = free_port(socket.SOCK_STREAM)
        self._folder = tempfile.TemporaryDirectory(prefix="bench-janus-")
        loops = int(self._options.get("loops", "1"))
        write_configuration(Path(self._folder.name), installation.modules, self._address, port, loops)
        command = installation.command(["-F", self._folder.name, "-o"])
        self._process = ServerProcess(command, cores)
        self._session = await self._open(f"ws://127.0.0.1:{port}")

    async def _open(self, url: str) -> JanusSession:
        assert self._process is not None
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
        while True:
            self._process.check()
            try:
                return await JanusSession.open(url)
            except OSError as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise TargetFailed(f"janus does not answer at {url}") from error
            await asyncio.sleep(POLL_S)

    def pid(self) -> int:
        """Return the id of Janus's process."""
        assert self._process is not None
        return self._process.pid

    async def join(self, plan: Plan) -> Connected:
        """Let a publisher or a viewer join. A viewer's PeerConnection opens once there is a publisher in the room."""
        if bool(plan.publish) == plan.subscribe:
            raise TargetFailed(
                "janus: a participant that publishes and subscribes has two transports, which is not measured"
            )
        try:
            await self._make_room(plan.room)
            return await (self._publish(plan) if plan.publish else self._view(plan))
        except (JanusFailed, OSError, TimeoutError, ValueError) as error:
            if self._process is not None:
                self._process.check()
            raise TargetFailed(f"janus: {plan.identity} could not join: {error}") from error

    @property
    def _api(self) -> JanusSession:
        assert self._session is not None
        return self._session

    async def _make_room(self, room: str) -> None:
        async with self._making:
            if room in self._rooms:
                return
            self._rooms.add(room)
            await self._api.message(await self._api.attach(), {"request": "create", "room": room, **ROOM})

    async def _leg(self, plan: Plan) -> Leg:
        leg = Leg(plan, await self._api.attach(), PassiveEndpoint(self._address))
        self._legs.append(leg)
        return leg

    async def _publish(self, plan: Plan) -> Connected:
        leg = await self._leg(plan)
        endpoint = leg.endpoint
        ice, ssrcs = (endpoint.ufrag, endpoint.password), sdp.choose_ssrcs(plan)
        offer = publisher_offer(plan, ice, self._fingerprint, endpoint.candidate, ssrcs)
        body = {"request": "joinandconfigure", "ptype": "publisher", "room": plan.room, "display": plan.identity}
        data, answer = await self._api.message(leg.handle, body, "offer", offer)
        await self._connect(endpoint, answer)
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            await self._api.up[leg.handle].wait()  # until then, viewers hear that there is no such feed
        leg.feed = data["id"]
        for viewer in self._legs:
            if viewer.plan.room == plan.room and viewer.feeds:
                await self._subscribe(viewer, {leg.feed})
        sends = sdp.send_streams(plan, sdp.Remote.parse(answer), ssrcs)
        return self._connected(leg, sends)

    async def _view(self, plan: Plan) -> Connected:
        publishers = {leg.feed for leg in self._legs if leg.plan.room == plan.room and leg.feed}
        if not publishers:
            raise JanusFailed(f"nobody publishes in {plan.room}, and Janus cannot connect a viewer to nothing")
        leg = await self._leg(plan)
        await self._subscribe(leg, publishers)
        return self._connected(leg, [])

    async def _subscribe(self, leg: Leg, feeds: set[str | int]) -> None:
        """Subscribe a viewer to more publishers. The first ones connect its transport."""
        endpoint, first = leg.endpoint, not leg.feeds
        leg.feeds |= feeds
        body = (
            {"request": "subscribe"} if not first else {"request": "join", "ptype": "subscriber", "room": leg.plan.room}
        )
        _, offer = await self._api.message(leg.handle, {**body, "streams": [{"feed": feed} for feed in feeds]})
        answer = viewer_answer(offer, (endpoint.ufrag, endpoint.password), self._fingerprint, endpoint.candidate)
        await self._api.message(leg.handle, {"request": "start"}, "answer", answer)
        if first:
            await self._connect(endpoint, offer)

    async def _connect(self, endpoint: PassiveEndpoint, description: str) -> None:
        remote = sdp.Remote.parse(description)
        credentials = remote.ufrag, remote.password
        await endpoint.connect(remote.address, credentials, self._context, fingerprint_of(description))

    def _connected(self, leg: Leg, sends: list[SendStream]) -> Connected:
        endpoint = leg.endpoint
        return Connected(leg.plan, endpoint.socket, endpoint.incoming, endpoint.outgoing, sends, leg, endpoint.check)

    async def settle(self) -> None:
        """Wait until Janus has reported each PeerConnection as up."""
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                for leg in self._legs:
                    await self._api.up[leg.handle].wait()
        except TimeoutError as error:
            lacking = sum(not self._api.up[leg.handle].is_set() for leg in self._legs)
            raise TargetFailed(f"janus: {lacking} PeerConnections did not come up") from error

    async def leave(self, participant: Connected) -> None:
        """Remove a participant and close its socket."""
        leg = participant.owner
        assert isinstance(leg, Leg)
        self._legs.remove(leg)
        await self._api.detach(leg.handle)
        leg.endpoint.close()

    def drops(self) -> dict[str, int]:
        """Return nothing: Janus counts no drops. The kernel counts those of its sockets."""
        return {}

    def versions(self) -> dict[str, str]:
        """Return the versions of Janus and of its libsrtp."""
        assert self._installation is not None
        loops = self._options.get("loops", "1")
        return {
            **self._installation.versions(self.name),
            f"event loops of {self.name}": "a thread each" if loops == "0" else loops,
        }

    async def stop(self) -> None:
        """Stop Janus and delete its files."""
        try:
            if self._session is not None:
                await self._session.close()
        finally:
            if self._process is not None:
                await asyncio.to_thread(self._process.stop)
            for leg in self._legs:
                leg.endpoint.close()
            self._legs.clear()
            if self._folder is not None:
                self._folder.cleanup()


def own_address() -> str:
    """Return an IPv4 address of this machine that is not loopback, because Janus skips loopback addresses.

    Raises:
        TargetFailed: there is none.
    """
    for adapter in ifaddr.get_adapters():
        for each in adapter.ips:
            if isinstance(each.ip, str) and not each.ip.startswith("127."):
                return each.ip
    raise TargetFailed("janus: this machine has only loopback, which Janus skips; give it an address")


TARGET = JanusTarget
