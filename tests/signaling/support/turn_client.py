"""A client of TURN that says what a test wants, right or wrong; it has no socket."""

import itertools
from dataclasses import dataclass, field

from signaling.turn.allocation.authentication import REALM
from signaling.turn.allocation.credentials import Credentials, make_credentials
from signaling.turn.wire.stun_messages import (
    Address,
    Attribute,
    Kind,
    Message,
    Method,
    build,
    long_term_key,
    parse,
    read_xor_address,
    xor_address,
)

UDP = bytes((17, 0, 0, 0))
SECRET = "a secret of the server"
_transactions = itertools.count(1)


def transaction() -> bytes:
    return next(_transactions).to_bytes(12)


def code(answer: Message) -> int:
    """The code of an error; 0: it is a success."""
    value = answer.first(Attribute.ERROR_CODE)
    return 0 if value is None else value[2] * 100 + value[3]


@dataclass
class TurnClient:
    """Credentials and the newest nonce of a client."""

    credentials: Credentials = field(default_factory=lambda: make_credentials(SECRET, "PA_ann", 300, 1000.0))
    nonce: bytes = b""
    realm: str = REALM

    def key(self) -> bytes:
        return long_term_key(self.credentials.username, self.realm, self.credentials.password)

    def unsigned(self, method: Method, *attributes: tuple[int, bytes], fingerprint: bool = False) -> bytes:
        return build(method, Kind.REQUEST, transaction(), attributes, fingerprint=fingerprint)

    def request(self, method: Method, *attributes: tuple[int, bytes], number: bytes = b"") -> bytes:
        """A signed request. number: its transaction, if it repeats another one."""
        signed = (
            *attributes,
            (Attribute.USERNAME, self.credentials.username.encode()),
            (Attribute.REALM, self.realm.encode()),
            (Attribute.NONCE, self.nonce),
        )
        return build(method, Kind.REQUEST, number or transaction(), signed, key=self.key())

    def heard(self, answer: bytes) -> Message:
        """Read an answer, and keep its nonce."""
        message = parse(answer)
        self.nonce = message.first(Attribute.NONCE) or self.nonce
        return message


def allocate(*extra: tuple[int, bytes]) -> tuple[tuple[int, bytes], ...]:
    return ((Attribute.REQUESTED_TRANSPORT, UDP), *extra)


def address_of(message: Message, kind: Attribute) -> Address | None:
    value = message.first(kind)
    return None if value is None else read_xor_address(value, message.transaction)


def peer_request(client: TurnClient, method: Method, *peers: Address, channel: int | None = None) -> bytes:
    """A CreatePermission or ChannelBind for these peers."""
    number = transaction()
    named = [(int(Attribute.XOR_PEER_ADDRESS), xor_address(peer, number)) for peer in peers]
    if channel is not None:
        named.append((Attribute.CHANNEL_NUMBER, channel.to_bytes(2) + b"\0\0"))
    return client.request(method, *named, number=number)


def send_indication(peer: Address, data: bytes) -> bytes:
    number = transaction()
    attributes = ((Attribute.XOR_PEER_ADDRESS, xor_address(peer, number)), (Attribute.DATA, data))
    return build(Method.SEND, Kind.INDICATION, number, attributes)
