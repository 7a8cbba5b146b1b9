"""signaling/turn/allocation/credentials.py: what coturn's `use-auth-secret` expects."""

import base64
import hashlib

from signaling.turn.allocation.credentials import make_credentials, password_of


def plain_hmac(secret: bytes, text: bytes) -> bytes:
    """RFC 2104, written out."""
    block = secret.ljust(64, b"\0")
    inner = hashlib.sha1(bytes(byte ^ 0x36 for byte in block) + text).digest()
    return hashlib.sha1(bytes(byte ^ 0x5C for byte in block) + inner).digest()


def test_the_user_name_says_until_when_it_is_good_and_whose_it_is() -> None:
    made = make_credentials("north", "PA_abc", 14_400, 1_700_000_000.9)
    assert made.username == "1700014400:PA_abc"
    assert made.password == base64.b64encode(plain_hmac(b"north", b"1700014400:PA_abc")).decode()
    assert made.password == password_of("north", made.username)


def test_another_secret_or_name_has_another_password() -> None:
    passwords = {password_of(secret, name) for secret in ("north", "south") for name in ("1:a", "2:a", "1:b")}
    assert len(passwords) == 6
