"""What went over a bottleneck, counted per tenth of a second, direction and stream; and how late its clock was."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from bench.network.link import Fate, Outcome

BUCKET_S = 0.1
DOWN, UP = "down", "up"
"""The directions: towards the clients, and from them."""
NOT_MEDIA = ("tcp", "stun", "dtls", "rtcp", "other")
"""The names of streams that are not RTP."""
_TCP, _UDP = 6, 17
_LATENESS_STEP_MS = 0.1
_LATENESS_STEPS = 10_000


@dataclass(slots=True)
class Count:
    """What is counted of one stream in one direction in a tenth of a second."""

    packets: int = 0
    """Packets that came to the bottleneck."""
    size: int = 0
    """Bytes of their IP packets."""
    dropped: int = 0
    """Packets for which the queue had no room."""
    lost: int = 0
    """Packets that were lost at random."""
    waited_ms: float = 0.0
    """The longest time that a packet waited in the queue."""
    gap_ms: float = 0.0
    """The longest time between the arrival of two packets of the stream."""
    carried: int = 0
    """Bytes of the packets for which the queue had room."""


@dataclass(slots=True)
class Lateness:
    """A histogram of how late the bottleneck was, in steps of _LATENESS_STEP_MS."""

    counts: list[int] = field(default_factory=lambda: [0] * _LATENESS_STEPS)

    def add(self, seconds: float) -> None:
        """Count one packet or tick that was so late."""
        self.counts[min(int(1000 * seconds / _LATENESS_STEP_MS), _LATENESS_STEPS - 1)] += 1

    def at(self, share: float) -> float:
        """Return the milliseconds that a share of all counted, 0 to 1, did not exceed."""
        wanted = share * sum(self.counts)
        for step, count in enumerate(self.counts):
            wanted -= count
            if wanted <= 0:
                return (step + 1) * _LATENESS_STEP_MS
        return _LATENESS_STEPS * _LATENESS_STEP_MS


@dataclass(slots=True)
class Record:
    """Everything that a bottleneck counted. Times are those of time.monotonic()."""

    began: float = 0.0
    realtime: bool = False
    """Whether the bottleneck ran with real-time priority."""
    late_ms: float = 0.0
    """The 99th percentile of how late the bottleneck was."""
    latest_ms: float = 0.0
    counts: dict[tuple[int, str, str], Count] = field(default_factory=dict)
    """Counts by bucket, direction and stream. Bucket 0 begins at `began`; each lasts BUCKET_S."""

    def count(self, at: float, direction: str, stream: str) -> Count:
        """Return the counts of a stream for a time."""
        key = int((at - self.began) / BUCKET_S), direction, stream
        found = self.counts.get(key)
        if found is None:
            found = self.counts[key] = Count()
        return found

    def add(self, at: float, direction: str, stream: str, size: int, fate: Fate) -> None:
        """Count a packet that came to the bottleneck."""
        count = self.count(at, direction, stream)
        count.packets += 1
        count.size += size
        count.dropped += fate.outcome is Outcome.DROPPED
        count.lost += fate.outcome is Outcome.LOST
        if fate.outcome is not Outcome.DROPPED:
            count.waited_ms = max(count.waited_ms, 1000 * fate.waited)
            count.carried += size

    def select(self, direction: str, since: float, until: float) -> Iterator[tuple[int, str, Count]]:
        """Yield bucket, stream and counts of all buckets between two times, in seconds after `began`."""
        buckets = range(round(since / BUCKET_S), round(until / BUCKET_S))
        for (bucket, way, stream), count in self.counts.items():
            if way == direction and bucket in buckets:
                yield bucket, stream, count

    def media(self, direction: str, since: float, until: float) -> list[Count]:
        """Return the counts of RTP streams between two times."""
        return [count for _, stream, count in self.select(direction, since, until) if stream not in NOT_MEDIA]

    def to_json(self) -> dict[str, Any]:
        """Return data from which `from_json` makes an equal record."""
        rows = [[*key, *asdict(count).values()] for key, count in self.counts.items()]
        facts = {name: getattr(self, name) for name in ("began", "realtime", "late_ms", "latest_ms")}
        return {**facts, "counts": rows}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Make a record from what `to_json` returned."""
        counts = {(row[0], row[1], row[2]): Count(*row[3:]) for row in data["counts"]}
        return cls(**{**data, "counts": counts})


def stream_of(packet: bytes) -> str:
    """Return the stream of an IPv4 packet: "tcp", "stun", "dtls", "rtcp", "other", or the SSRC of RTP (RFC 7983)."""
    if len(packet) < 20:
        return "other"
    if packet[9] == _TCP:
        return "tcp"
    start = 4 * (packet[0] & 15) + 8
    if packet[9] != _UDP or len(packet) < start + 2:
        return "other"
    first, second = packet[start], packet[start + 1]
    if not 128 <= first < 192:
        return "stun" if first < 4 else "dtls" if 20 <= first < 64 else "other"
    if 192 <= second <= 223:
        return "rtcp"
    return str(int.from_bytes(packet[start + 8 : start + 12], "big"))
