"""What is known of clients of TURN: their flows and allocations, and the rules that hold for all of them.

Who uses it: `allocations.py` changes it, `clients.py` reads it for each packet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from signaling.allowance import Allowance
from signaling.turn.wire.stun_messages import Address


@dataclass(frozen=True, slots=True)
class Rules:
    """What all allocations have in common."""

    secret: str
    """Under which passwords are made of user names."""
    peers: frozenset[Address]
    """Where our media is: every address and port that clients are told."""
    relayed: Mapping[int, bytes]
    """IP version -> the address of allocations."""
    ports: Sequence[int]
    """Those of relayed addresses."""
    quota: int
    """Allocations of one participant at a time."""


@dataclass(eq=False)
class Flow:
    """A client's way to the server: a TCP connection, or an address from which it sends datagrams."""

    client: Address
    allocation: "Allocation | None" = None
    is_proven: bool = False
    """Nobody else can send in the client's name, as its connection was made from where it seems to be."""

    def allocation_ended(self) -> None:
        """Do what has to be done when the allocation has ended."""


@dataclass(slots=True, eq=False)
class Allocation:
    """A relayed address of a client. Times are in seconds of a clock that only goes forward."""

    flow: Flow
    holder: str
    """The sid of its participant."""
    username: str
    key: bytes
    """With which its client signs."""
    relayed: Address
    transaction: bytes
    """That of the request which made it."""
    expires: float
    requests: Allowance
    permissions: dict[bytes, float] = field(default_factory=dict)
    """Packed IP address of a peer -> until when its packets may come and go."""
    channels: dict[int, Address] = field(default_factory=dict)
    numbers: dict[Address, int] = field(default_factory=dict)
    """The opposite of `channels`."""
    channel_expires: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a client sends to a peer that it may reach."""

    peer: Address
    data: bytes
