"""Credentials for TURN servers: for our own, and for one that shares a secret with this one, in the form of coturn's
`use-auth-secret`.

Who calls it: `ice_servers.py` makes them, `authentication.py` reads them. The form is that of
draft-uberti-behave-turn-rest-00 section 2.2. The server needs no list of users: the user name says until when it is
good, and the password proves that somebody with the secret made it.
"""

import base64
import hmac
from typing import NamedTuple

MAX_EXPIRY_DIGITS = 12
"""Digits of the time in a user name."""


class Credentials(NamedTuple):
    """A user name and its password."""

    username: str
    password: str


def make_credentials(secret: str, holder: str, ttl_s: int, now: float) -> Credentials:
    """Make the credentials of one client.

    Args:
        secret: what the TURN server knows too.
        holder: whose they are; the server only logs it, and counts by it.
        ttl_s: how long a new allocation may be made with them, in seconds.
        now: the time of day in seconds since 1970.
    """
    username = f"{int(now) + ttl_s}:{holder}"
    return Credentials(username, password_of(secret, username))


def password_of(secret: str, username: str) -> str:
    """Return the password of a user name: base64 of its HMAC-SHA1 under the secret."""
    return base64.b64encode(hmac.digest(secret.encode(), username.encode(), "sha1")).decode()


def read_username(username: str) -> tuple[int, str] | None:
    """Return what a user name of `make_credentials` says: until when it is good, in seconds since 1970, and its holder.

    None: it has another form.
    """
    expiry, colon, holder = username.partition(":")
    if not colon or not holder or len(expiry) > MAX_EXPIRY_DIGITS or not (expiry.isascii() and expiry.isdigit()):
        return None
    return int(expiry), holder
