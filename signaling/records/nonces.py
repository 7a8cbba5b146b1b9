"""The nonces of a room's data packets, by which a repeated packet is known and not sent again."""

from signaling.limits import MAX_NONCES

NONCE_BYTES = 16
"""Bytes of a nonce, as LiveKit's SDKs write it. Participants may send packets with anything in its place."""


class Nonces:
    """The last nonces that were seen."""

    def __init__(self) -> None:
        """Start with none."""
        self._seen: dict[bytes, None] = {}

    def is_repeated(self, nonce: bytes) -> bool:
        """Tell whether a nonce was seen before, and remember it. What has another length is no nonce."""
        if len(nonce) != NONCE_BYTES:
            return False
        if nonce in self._seen:
            return True
        if len(self._seen) >= MAX_NONCES:
            del self._seen[next(iter(self._seen))]
        self._seen[nonce] = None
        return False
