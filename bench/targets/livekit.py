"""Any server that speaks LiveKit's protocol: one that runs (`url`, `pid`), or `livekit-server` from the PATH.

Options: `url` (ws://...), `pid` of its process, `key` and `secret` of its API; `binary` instead of livekit-server,
`address` on which to start it instead of loopback's, `send_side=1` to let it estimate bandwidth from transport-cc.
"""

import asyncio
import json
import shutil
import socket
import subprocess
from collections import Counter

from OpenSSL import SSL
from websockets.exceptions import WebSocketException

from bench.clients.endpoint import Endpoint, make_context
from bench.clients.livekit import Participant, Reach, SignallingFailed, make_api_token, make_token
from bench.plans import Connected, Plan
from bench.targets.base import ServerProcess, TargetFailed, free_port

SETTLE_TIMEOUT_S = 120.0
JOIN_ERRORS = SignallingFailed, WebSocketException, OSError, SSL.Error, ValueError
"""The errors that end a join: no answer, a socket that is refused or closed, a handshake that fails, and an
answer that cannot be read."""
LOOPBACK = "127.0.0.1"


class LiveKit:
    """A server behind LiveKit's signalling."""

    name = "livekit"
    profile = "SRTP_AEAD_AES_128_GCM"
    foreign = True

    def __init__(self, options: dict[str, str]) -> None:
        """Read the options, which the module lists."""
        self.options = options
        self.url = options.get("url", "")
        self.address = options.get("address", LOOPBACK)
        self.send_side = options.get("send_side") == "1"
        if self.send_side:
            self.name += "-send-side"
        self.process: ServerProcess | None = None
        self._dtls = make_context()
        self._participants: list[Participant] = []

    def _binary(self) -> str | None:
        return shutil.which(self.options.get("binary", "livekit-server"))

    def missing(self) -> str:
        """Return why it cannot be started here; empty: it can, or a url was given."""
        if self.url or self._binary() is not None:
            return ""
        return "there is no livekit-server on the PATH; give url=ws://... and pid=... of one that runs"

    async def start(self, cores: tuple[int, ...]) -> None:
        """Start `livekit-server`, unless a url was given."""
        if self.url:
            return
        binary = self._binary()
        if binary is None:
            raise TargetFailed(self.missing())
        port, udp = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
        self.process = ServerProcess([binary, "--config-body", self._configuration(port, udp)], cores)
        self.url = f"ws://{self.address}:{port}"
        await self.process.wait_ready(f"http://{self.address}:{port}/")

    def _configuration(self, port: int, udp: int) -> str:
        """The YAML (here JSON) of a livekit-server on `address`.

        ICE-lite, because the generator's endpoints check and do not answer checks. A single UDP port, as aiosfu has,
        and on that address alone: with `node_ip` every IPv4 interface's candidate is called by it, and of those that
        look alike the server keeps one, of an interface that it chooses at random when it starts. If that is another
        interface, nobody's checks are ever answered.
        """
        rtc = {
            "udp_port": udp,
            "tcp_port": 0,
            "node_ip": self.address,
            "ips": {"includes": [f"{self.address}/32"]},
            "use_external_ip": False,
            "use_ice_lite": True,
            "enable_loopback_candidate": self.address == LOOPBACK,
            "congestion_control": {"use_send_side_bwe": self.send_side},
        }
        key, secret = self._key()
        keys = {key: secret}
        logging = {"level": "warn", "pion_level": "error"}
        addresses = [self.address]
        return json.dumps({"port": port, "bind_addresses": addresses, "rtc": rtc, "keys": keys, "logging": logging})

    def _key(self) -> tuple[str, str]:
        """The API key and secret with which participants join."""
        return self.options.get("key", "devkey"), self.options.get("secret", "secret")

    def token(self, room: str, identity: str) -> str:
        """Return a token with which `identity` may join `room`."""
        return make_token(*self._key(), room, identity)

    def api(self, room: str) -> tuple[str, str]:
        """Return the URL before the names of its services, and a token that may manage `room` and list all rooms."""
        return f"http{self.url.removeprefix('ws')}/twirp/livekit.", make_api_token(*self._key(), room)

    def pid(self) -> int:
        """Return the id of the server's process: of the one started here, or else the option `pid`."""
        if self.process is not None:
            return self.process.pid
        if not self.options.get("pid", "").isdecimal():
            raise TargetFailed("to account for a server that runs already, its pid is needed: --option pid=...")
        return int(self.options["pid"])

    def reach(self, plan: Plan) -> Reach | None:
        """Return how a participant gets to the server; None: as the server says."""
        return None

    async def join(self, plan: Plan) -> Connected:
        """Let a participant join; return when its transport is connected."""
        participant = Participant(plan, self._dtls, self.reach(plan))
        self._participants.append(participant)
        try:
            return await participant.join(self.url, self.token(plan.room, plan.identity))
        except BaseException as error:
            self._participants.remove(participant)
            participant.abandon()
            if not isinstance(error, JOIN_ERRORS):
                raise
            if self.process is not None:
                self.process.check()
            raise TargetFailed(f"{self.name}: {plan.identity} could not join: {error}") from error

    async def settle(self) -> None:
        """Wait until everybody has an m-section for every track of the others in the room."""
        published: Counter[str] = Counter()
        for each in self._participants:
            published[each.plan.room] += len(each.plan.publish)
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                for each in self._participants:
                    if each.plan.subscribe:
                        await each.wait_subscribed(published[each.plan.room] - len(each.plan.publish))
        except (TimeoutError, SignallingFailed) as error:
            lacking = sum(
                len(each.subscribed) < published[each.plan.room] - len(each.plan.publish)
                for each in self._participants
                if each.plan.subscribe
            )
            raise TargetFailed(f"{self.name}: {lacking} participants lack subscriptions: {error}") from error

    async def choose_layer(self, participant: Connected, publisher: str, quality: str) -> None:
        """Let `participant` ask for LOW, MEDIUM or HIGH of another's video."""
        assert isinstance(participant.owner, Participant)
        await participant.owner.choose(publisher, quality)

    async def mute(self, participant: Connected, muted: bool) -> None:
        """Let `participant` say that its tracks are muted or not."""
        assert isinstance(participant.owner, Participant)
        await participant.owner.mute(muted)

    def data_path(self, participant: Connected) -> tuple[Endpoint, int]:
        """Return the endpoint of a participant planned with data channels, and the server's SCTP port."""
        assert isinstance(participant.owner, Participant)
        if participant.owner.endpoint is None or not participant.owner.sctp_port:
            raise TargetFailed(f"{self.name}: the answer to {participant.plan.identity} has no data channels")
        return participant.owner.endpoint, participant.owner.sctp_port

    async def leave(self, participant: Connected) -> None:
        """Leave the room and close the socket."""
        assert isinstance(participant.owner, Participant)
        self._participants.remove(participant.owner)
        await participant.owner.leave()

    def drops(self) -> dict[str, int]:
        """Return nothing: the server does not tell its drops."""
        return {}

    def versions(self) -> dict[str, str]:
        """Return what `livekit-server --version` prints."""
        binary = self._binary()
        if binary is None or self.process is None:
            return {self.name: self.url}
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
        return {self.name: answer.stdout.strip() or "unknown"}

    async def stop(self) -> None:
        """Stop the server if it was started here."""
        await asyncio.gather(*(each.leave() for each in self._participants), return_exceptions=True)
        self._participants.clear()
        if self.process is not None:
            await asyncio.to_thread(self.process.stop)


TARGET = LiveKit
