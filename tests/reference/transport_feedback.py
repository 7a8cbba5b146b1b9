"""Reads transport-cc feedback packets as draft-holmer-rmcat-transport-wide-cc-extensions-01 describes them."""

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class TransportFeedback:
    """One packet: who, and for each reported number its arrival in ticks of 250 us, or None."""

    sender_ssrc: int
    media_ssrc: int
    count: int
    arrivals: dict[int, int | None]
    """16-bit transport-wide sequence number -> ticks since the sender's epoch (modulo 2^24 * 256)."""


def _statuses(chunk: int) -> list[int]:
    if chunk >> 15 == 0:
        return [chunk >> 13 & 3] * (chunk & 0x1FFF)
    if chunk >> 14 & 1 == 0:
        return [chunk >> bit & 1 for bit in range(13, -1, -1)]
    return [chunk >> bit & 3 for bit in range(12, -2, -2)]


def parse(data: bytes) -> TransportFeedback:
    """`data`: exactly one RTCP packet.

    Raises:
        AssertionError: it breaks the format.
    """
    first, packet_type, words = struct.unpack_from("!BBH", data)
    assert first >> 6 == 2
    assert first & 31 == 15
    assert packet_type == 205
    assert len(data) == 4 * (words + 1)
    sender, media, base, total, reference_and_count = struct.unpack_from("!LLHHL", data, 4)
    reference, count = reference_and_count >> 8, reference_and_count & 255
    body = data[20 : len(data) - data[-1]] if first & 0x20 else data[20:]
    if first & 0x20:
        assert 1 <= data[-1] <= 3
    statuses: list[int] = []
    at = 0
    while len(statuses) < total:
        statuses += _statuses(struct.unpack_from("!H", body, at)[0])
        at += 2
    assert not any(statuses[total:]), "statuses behind the count"
    assert statuses[total - 1] != 0, "the last one reported was not received"
    arrivals: dict[int, int | None] = {}
    ticks = reference * 256
    for k, status in enumerate(statuses[:total]):
        assert status != 3
        if status == 0:
            arrivals[(base + k) & 0xFFFF] = None
            continue
        size = status
        delta = int.from_bytes(body[at : at + size], "big", signed=size == 2)
        at += size
        ticks += delta
        arrivals[(base + k) & 0xFFFF] = ticks
    assert at == len(body), "bytes behind the last delta"
    return TransportFeedback(sender, media, count, arrivals)


def split(compound: bytes) -> list[bytes]:
    """The packets of a compound."""
    packets = []
    while compound:
        size = 4 * (struct.unpack_from("!H", compound, 2)[0] + 1)
        packets.append(compound[:size])
        compound = compound[size:]
    return packets
