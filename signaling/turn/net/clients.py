"""A client of TURN, over a stream or by datagrams: what it says goes to the allocations or to the media, and back.

Who calls it: `thread.py` makes clients; the poller tells them when they can be read and written.
"""

import secrets
from abc import ABC, abstractmethod

from signaling.allowance import Allowance
from signaling.turn.allocation.allocations import Allocations
from signaling.turn.allocation.records import Flow, Sent
from signaling.turn.net.paths import BINDING_REQUEST, Common, Path
from signaling.turn.wire.framing import MAX_PAYLOAD_BYTES, SIZE_BYTES
from signaling.turn.wire.stun_messages import Address, Attribute, Kind, Method, build, xor_address

MAX_PATHS = 16
"""Addresses of our media to which one allocation has paths; clients are told at most so many."""
PATHS_PER_S, PATHS_AT_ONCE = 4.0, 32.0
"""Paths that a client may open. One whose checks are wrong is closed by the engine, and costs the control thread."""


class Client(Flow, ABC):
    """A flow with its paths to the media."""

    def __init__(self, common: Common, allocations: Allocations, client: Address, now: float) -> None:
        """Begin without an allocation. `now` is the monotonic time, in seconds."""
        super().__init__(client)
        self.common = common
        self.paths: dict[Address, Path] = {}
        self._paused = False
        """Nothing of the media is read."""
        self._allocations = allocations
        self._openings = Allowance(PATHS_PER_S, PATHS_AT_ONCE, now)

    @property
    @abstractmethod
    def way(self) -> str:
        """How it reaches the server, as statistics call it."""

    @abstractmethod
    def say(self, data: bytes) -> None:
        """Send a STUN message to the client."""

    @abstractmethod
    def deliver_channel(self, channel: int, frames: list[memoryview]) -> None:
        """Send frames of the media in a channel."""

    @abstractmethod
    def set_reading(self, reads: bool) -> None:
        """Read no more of the client until the media takes it, where that can be."""

    def hear(self, message: bytes, now: float) -> None:
        """Take a STUN message of the client."""
        outcome = self._allocations.receive(self, message, now)
        if isinstance(outcome, Sent):
            if len(outcome.data) > MAX_PAYLOAD_BYTES:
                self.common.dropped["turn_malformed"] += 1
            elif outcome.data:
                frame = len(outcome.data).to_bytes(SIZE_BYTES) + outcome.data
                self._relay(outcome.peer, [memoryview(frame)], now)
        elif outcome is not None:
            self.say(outcome)

    def relay_channel(self, channel: int, frames: list[memoryview], now: float) -> None:
        """Send frames of a channel to the media."""
        peer = self.allocation.channels.get(channel) if self.allocation is not None else None
        if peer is None:
            self.common.dropped["turn_forbidden"] += len(frames)
            return
        path = self.paths.get(peer)
        if path is not None:
            path.send(frames)
        else:
            self._relay(peer, frames, now)

    def deliver(self, path: Path, frames: list[memoryview]) -> None:
        """Send frames of the media to the client: in a channel, or one by one as long as it has bound none."""
        allocation = self.allocation
        channel = allocation.numbers.get(path.peer) if allocation is not None else None
        if channel is not None:
            self.deliver_channel(channel, frames)
            return
        for frame in frames:
            number = secrets.token_bytes(12)
            peer = (Attribute.XOR_PEER_ADDRESS, xor_address(path.peer, number))
            data = (Attribute.DATA, bytes(frame[SIZE_BYTES:]))
            self.say(build(Method.DATA, Kind.INDICATION, number, (peer, data)))

    def path_ended(self, path: Path) -> None:
        """Forget a path."""
        self.paths.pop(path.peer, None)

    def allocation_ended(self) -> None:
        """Close the paths, which nobody may use any more."""
        for path in list(self.paths.values()):
            path.close()

    def close_forbidden(self) -> None:
        """Close the paths to peers whose permission has expired."""
        allocation = self.allocation
        for path in list(self.paths.values()):
            if allocation is None or not self._allocations.may_reach(allocation, path.peer):
                path.close()

    def pause_paths(self, paused: bool) -> None:
        """Read nothing of the media while the client takes nothing."""
        self._paused = paused
        for path in self.paths.values():
            path.pause(paused)

    def _relay(self, peer: Address, frames: list[memoryview], now: float) -> None:
        path = self.paths.get(peer) or self._open(peer, frames[0], now)
        if path is not None:
            path.send(frames)

    def _open(self, peer: Address, first: memoryview, now: float) -> Path | None:
        """Open a path, if what the client sends first is a connectivity check; None: what it sends is dropped."""
        allocation, dropped = self.allocation, self.common.dropped
        if allocation is None or not self._allocations.may_reach(allocation, peer):
            dropped["turn_forbidden"] += 1
            return None
        if first[SIZE_BYTES : SIZE_BYTES + 2] != BINDING_REQUEST:
            dropped["turn_early"] += 1
            return None
        if len(self.paths) >= MAX_PATHS or not self._openings.take(now):
            dropped["turn_paths"] += 1
            return None
        try:
            path = self.paths[peer] = Path(self.common, self, allocation.relayed, peer)
            path.pause(self._paused)
        except OSError:
            dropped["turn_full"] += 1
            return None
        return path
