"""Nonces of TURN that need no memory: each says when it was made, and proves that this process made it for its client.

Who calls it: `authentication.py`. A nonce is good for one IP address. Whoever sends it has received it there, so nobody
can have the server send to an address that is another's.
"""

import base64
import binascii
import hmac
import os

LIFETIME_S = 3600.0
"""A client whose nonce is older gets a new one (438)."""
_MADE_BYTES, _PROOF_BYTES = 4, 8


class Nonces:
    """Makes and checks nonces."""

    def __init__(self) -> None:
        """Begin with a key that no other process has."""
        self._key = os.urandom(32)

    def make(self, ip: bytes, now: float) -> bytes:
        """Make the nonce of a client with this IP address. `now` is in seconds of a clock that only goes forward."""
        made = int(now).to_bytes(_MADE_BYTES)
        return base64.urlsafe_b64encode(made + self._proof(made, ip))

    def is_good(self, nonce: bytes, ip: bytes, now: float) -> bool:
        """Tell whether a nonce was made for this address and is not too old."""
        try:
            text = base64.b64decode(nonce, altchars=b"-_", validate=True)
        except binascii.Error:
            return False
        made, proof = text[:_MADE_BYTES], text[_MADE_BYTES:]
        return hmac.compare_digest(proof, self._proof(made, ip)) and now - int.from_bytes(made) < LIFETIME_S

    def _proof(self, made: bytes, ip: bytes) -> bytes:
        return hmac.digest(self._key, made + ip, "sha1")[:_PROOF_BYTES]
