"""Forwards data packets between the participants of a room: sets the sender, chooses the receivers, reads no more.

Unknown kinds of packets and unknown fields pass unchanged: the packet is edited in its parsed form, and protobuf keeps
what it does not know.
"""

from google.protobuf.message import DecodeError
from livekit.protocol.models import DataPacket, ParticipantInfo
from livekit.protocol.rtc import RequestResponse

from sfu.events import DataReceived
from sfu.parameters import Channel
from signaling.errors import RequestRefused
from signaling.limits import MAX_MESSAGE_BYTES
from signaling.participants.owner import Owner
from signaling.rooms.member import Member
from signaling.rooms.room import Room

KINDS: dict[Channel, DataPacket.Kind] = {Channel.RELIABLE: DataPacket.RELIABLE, Channel.LOSSY: DataPacket.LOSSY}
"""A packet's kind follows from its channel and not from what it says: the Python SDK says LOSSY on both."""
SERVER_ONLY = frozenset(("speaker", "metrics"))
"""Kinds of packets that clients may not send to each other: only the server says who speaks, and metrics go to it."""
ANSWERS = frozenset(("rpc_ack", "rpc_response"))
"""Kinds of packets that may be for the server, which calls participants too."""
FOR_OTHERS = frozenset(("transcription", "chat_message", "stream_header", "stream_chunk", "stream_trailer"))
"""Kinds of packets that an agent may send under another participant's identity."""


def forward(sender: Owner, received: DataReceived) -> None:
    """Send a packet of `sender` to its receivers. A packet that may not pass is dropped and counted by reason."""
    reason = _forward(sender, received)
    if reason:
        sender.node.dropped[reason] += 1


def _forward(sender: Owner, received: DataReceived) -> str:
    """Return why the packet was dropped; empty when it was not."""
    channel = received.channel
    if not sender.permission.can_publish_data:
        return "data not allowed"
    if channel not in KINDS:
        return sender.data_tracks.forward(received)
    packet = DataPacket()
    try:
        packet.ParseFromString(received.payload)
    except DecodeError:
        return "data malformed"
    is_agent = sender.kind == ParticipantInfo.AGENT
    variant = packet.WhichOneof("value")
    if variant in ANSWERS and sender.node.calls.take(sender.sid, packet):
        return ""
    if variant in SERVER_ONLY or (variant == "transcription" and not is_agent):
        return "data kind not allowed"
    if channel is Channel.RELIABLE and packet.sequence > 0:
        # A client that resumes sends again what it does not know to have arrived.
        if packet.sequence <= sender.last_sequence:
            return "data repeated"
        sender.last_sequence = packet.sequence

    if sender.room.nonces.is_repeated(packet.user.nonce):
        return "data repeated"
    receivers = _receivers(sender.room, packet, sender)
    if not receivers:
        return ""
    _stamp(packet, sender, KINDS[channel], keep_identity=is_agent and variant in FOR_OTHERS)
    transports = [receiver.data_transport for receiver in receivers]
    sender.node.engine.send_data(transports, channel, packet.SerializeToString(), received.transport)
    return ""


def send_from_server(room: Room, packet: DataPacket) -> None:
    """Send a packet of the server to its receivers, on the channel of its kind; once only if it has a nonce.

    Raises:
        RequestRefused: LIMIT_EXCEEDED: it is longer than clients take.
    """
    payload = packet.SerializeToString()
    if len(payload) > MAX_MESSAGE_BYTES:
        raise RequestRefused(RequestResponse.LIMIT_EXCEEDED, f"a data packet has more than {MAX_MESSAGE_BYTES} bytes")
    if room.nonces.is_repeated(packet.user.nonce):
        room.node.dropped["data repeated"] += 1
        return
    channel = Channel.LOSSY if packet.kind == DataPacket.LOSSY else Channel.RELIABLE
    room.node.engine.send_data([member.data_transport for member in _receivers(room, packet)], channel, payload)


def _receivers(room: Room, packet: DataPacket, sender: Member | None = None) -> list[Member]:
    identities = set(packet.destination_identities)
    sids: set[str] = set()
    if packet.HasField("user"):
        identities.update(packet.user.destination_identities)
        sids.update(packet.user.destination_sids)
    everyone = not identities and not sids
    return [
        participant
        for participant in room.participants.values()
        if participant is not sender
        and participant.expires_at is None
        and (everyone or participant.identity in identities or participant.sid in sids)
    ]


def _stamp(packet: DataPacket, sender: Owner, kind: DataPacket.Kind, keep_identity: bool) -> None:
    sid, identity = ("", "") if sender.hidden else (sender.sid, sender.identity)
    packet.kind = kind
    packet.participant_sid = sid
    if not (keep_identity and packet.participant_identity):
        packet.participant_identity = identity
    if packet.HasField("user"):
        packet.user.participant_sid = sid
        packet.user.participant_identity = identity
