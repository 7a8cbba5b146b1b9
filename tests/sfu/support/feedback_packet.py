"""Transport-cc feedback as a receiver writes it (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1)."""

import struct

MS = 1_000_000
RTPFB, TRANSPORT_FEEDBACK = 205, 15


def transport_feedback(arrived: dict[int, int], first: int, last: int, count: int) -> bytes:
    """One transport-cc packet about the numbers from `first` to `last`; arrived: number -> ns."""
    reference = min(arrived.values()) // (64 * MS)
    symbols, deltas, before = [], b"", reference * 64 * MS // 250_000
    for number in range(first, last + 1):
        at = arrived.get(number)
        if at is None:
            symbols.append(0)
            continue
        ticks = at // 250_000
        delta, before = ticks - before, ticks
        symbols.append(1 if 0 <= delta <= 255 else 2)
        deltas += struct.pack("!B" if 0 <= delta <= 255 else "!h", delta)
    chunks = b""
    for at in range(0, len(symbols), 7):
        word = 0xC000
        for n, symbol in enumerate(symbols[at : at + 7]):
            word |= symbol << (12 - 2 * n)
        chunks += struct.pack("!H", word)
    body = struct.pack("!HHI", first & 0xFFFF, len(symbols), (reference & 0xFFFFFF) << 8 | count & 255)
    body += chunks + deltas
    body += bytes(-len(body) % 4)
    return struct.pack("!BBHII", 0x80 | TRANSPORT_FEEDBACK, RTPFB, 2 + len(body) // 4, 9, 9) + body
