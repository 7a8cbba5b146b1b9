"""Whose request it is: long-term credentials of STUN with names that expire (RFC 8489 section 9.2).

Who calls it: `allocations.py`, for each request about an allocation.
"""

from collections.abc import Callable, Container
from dataclasses import dataclass

from signaling.turn.allocation.credentials import password_of, read_username
from signaling.turn.allocation.nonces import Nonces
from signaling.turn.allocation.records import Flow
from signaling.turn.wire.stun_messages import Attribute, Message, error_code, has_integrity, long_term_key

REALM = "livekit"
MAX_USERNAME_BYTES = 128


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose credentials a request was signed with."""

    holder: str
    """The sid of the participant."""
    username: str
    key: bytes


class Refused(Exception):
    """A request is answered with an error."""

    def __init__(self, code: int, *attributes: tuple[int, bytes]) -> None:
        """Take the code of the error, and what is told beside it."""
        super().__init__(code)
        self.attributes = (error_code(code), *attributes)


class Gate:
    """Checks credentials."""

    def __init__(self, secret: str, present: Container[str], time_of_day: Callable[[], float]) -> None:
        """Know what passwords are made with.

        Args:
            secret: the key under which passwords are made of user names.
            present: the sids of the participants that are here.
            time_of_day: returns the seconds since 1970, with which the expiry of credentials is compared.
        """
        self._secret = secret
        self._present = present
        self._time_of_day = time_of_day
        self._nonces = Nonces()

    def is_proven(self, flow: Flow, message: Message, now: float) -> bool:
        """Tell whether a message comes from where it seems to: a nonce that was sent there is in it."""
        nonce = message.first(Attribute.NONCE)
        return flow.is_proven or (nonce is not None and self._nonces.is_good(nonce, flow.client.ip, now))

    def check(self, flow: Flow, data: bytes, message: Message, now: float) -> Caller:
        """Return whose request it is. What costs least is looked at first (RFC 8489 section 9.2.4).

        Raises:
            Refused: 400, 401 or 438: nobody's, or it needs a new nonce.
        """
        username, nonce = message.first(Attribute.USERNAME), message.first(Attribute.NONCE)
        if not message.integrity_at:
            raise self._challenge(401, flow, now)
        if username is None or nonce is None or message.first(Attribute.REALM) is None:
            raise Refused(400)
        if not self._nonces.is_good(nonce, flow.client.ip, now):
            raise self._challenge(438, flow, now)
        caller = self._caller(flow, username)
        if caller is None or not has_integrity(data, message, caller.key):
            raise self._challenge(401, flow, now)
        return caller

    def _caller(self, flow: Flow, name: bytes) -> Caller | None:
        """Return whose user name it is; None: nobody's who is here, or it has expired and there is no allocation."""
        try:
            username = name[: MAX_USERNAME_BYTES + 1].decode()
        except UnicodeDecodeError:
            return None
        allocation = flow.allocation
        if allocation is not None and allocation.username == username:
            return Caller(allocation.holder, username, allocation.key)
        read = read_username(username) if len(name) <= MAX_USERNAME_BYTES else None
        if read is None or read[1] not in self._present or read[0] < self._time_of_day():
            return None
        return Caller(read[1], username, long_term_key(username, REALM, password_of(self._secret, username)))

    def _challenge(self, code: int, flow: Flow, now: float) -> Refused:
        nonce = self._nonces.make(flow.client.ip, now)
        return Refused(code, (Attribute.REALM, REALM.encode()), (Attribute.NONCE, nonce))
