"""IPv4 packets."""

import socket
import struct


def packet(payload: bytes, protocol: int = 17, options: bytes = b"") -> bytes:
    """One whose payload, if it is UDP, is this."""
    words = 5 + len(options) // 4
    length = 4 * words + 8 + len(payload)
    addresses = socket.inet_aton("10.0.0.1") + socket.inet_aton("10.0.0.2")
    header = struct.pack(">BBHHHBBH", 0x40 | words, 0, length, 0, 0, 64, protocol, 0) + addresses + options
    return header + struct.pack(">HHHH", 1000, 2000, 8 + len(payload), 0) + payload
