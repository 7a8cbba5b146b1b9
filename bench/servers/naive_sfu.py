"""A naive forwarding unit, built from existing Python libraries. Compared with it, one sees what compiled kernels gain.

asyncio makes a call for each datagram, aiortc an object for each packet, and pylibsrtp a copy for each packet and
subscriber. It answers connectivity checks (aioice's STUN), DTLS (pyOpenSSL), NACK with RTX, and key frame requests. It
sends no reports, estimates no bandwidth and selects no layers, but forwards each track's best one; that makes it
cheaper.

It runs as `python -m bench.servers.naive_sfu PROFILE LOOP`. Each line on stdin is a request in JSON, which is answered
by a line on stdout.
"""

import asyncio
import json
import secrets
import socket
import sys
from collections import OrderedDict
from typing import Any, cast

from aioice import stun
from aiortc.rtp import (
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RtcpPacket,
    RtcpPsfbPacket,
    RtcpRtpfbPacket,
    RtpPacket,
    is_rtcp,
    wrap_rtx,
)
from OpenSSL import SSL
from pylibsrtp import Error, Session

from bench.clients.dtls_server import DtlsServer, server_context

ADDRESS = "127.0.0.1"
HISTORY_PACKETS = 128
"""Packets that each subscription keeps to answer NACK, as many as aiortc's sender keeps."""
RTX_PAYLOAD_TYPE = 97


class Subscription:
    """A track as it is sent to one subscriber, with its own sequence numbers."""

    def __init__(self, track: "Track", subscriber: "Participant") -> None:
        self.track, self.subscriber = track, subscriber
        self.ssrc, self.rtx_ssrc = secrets.randbits(32), secrets.randbits(32)
        self._sequence_offset, self._timestamp_offset = secrets.randbits(15), secrets.randbits(32)
        self._rtx_sequence = secrets.randbits(15)
        self._history: OrderedDict[int, RtpPacket] = OrderedDict()

    def forward(self, packet: RtpPacket) -> None:
        """Forward a packet of the track."""
        copy = RtpPacket(
            payload_type=packet.payload_type,
            marker=packet.marker,
            sequence_number=(packet.sequence_number + self._sequence_offset) & 0xFFFF,
            timestamp=(packet.timestamp + self._timestamp_offset) & 0xFFFFFFFF,
            ssrc=self.ssrc,
            payload=packet.payload,
        )
        self._history[copy.sequence_number] = copy
        if len(self._history) > HISTORY_PACKETS:
            self._history.popitem(last=False)
        self.subscriber.send(copy)

    def resend(self, sequence_number: int) -> None:
        """Answer a NACK, if the packet is still kept."""
        packet = self._history.get(sequence_number)
        if packet is not None:
            self._rtx_sequence = (self._rtx_sequence + 1) & 0xFFFF
            self.subscriber.send(wrap_rtx(packet, RTX_PAYLOAD_TYPE, self._rtx_sequence, self.rtx_ssrc))


class Track:
    """What a publisher sends under one SSRC."""

    def __init__(self, publisher: "Participant", ssrc: int) -> None:
        self.publisher, self.ssrc = publisher, ssrc
        self.subscriptions: list[Subscription] = []

    def request_key_frame(self) -> None:
        """Send the publisher a picture loss indication."""
        pli = RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=0, media_ssrc=self.ssrc)
        self.publisher.send_rtcp(bytes(pli))


class Participant(asyncio.DatagramProtocol):
    """One transport: a socket, ICE-lite, DTLS in the server role, SRTP."""

    def __init__(self, sfu: "NaiveSfu", request: dict[str, Any]) -> None:
        self._sfu = sfu
        self.room, self.subscribe = str(request["room"]), bool(request["subscribe"])
        self.ufrag, self.password = secrets.token_hex(4), secrets.token_hex(12)
        self.dtls = DtlsServer(sfu.context, request["fingerprint"])
        self.tracks = {ssrc: Track(self, ssrc) for ssrc in request["ssrcs"]}
        self.subscriptions: dict[int, Subscription] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._address: tuple[str, int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own class does not derive from what it is
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        first = data[0] if data else 255
        if first < 4:
            self._receive_stun(data, address)
        elif address != self._address:
            return
        elif 20 <= first < 64:
            self._receive_dtls(data)
        elif 128 <= first < 192 and self.dtls.incoming is not None:
            try:
                if is_rtcp(data):
                    self._receive_rtcp(self.dtls.incoming.unprotect_rtcp(data))
                else:
                    self._receive_rtp(self.dtls.incoming.unprotect(data))
            except (Error, ValueError):
                self._sfu.rejected += 1

    def _receive_stun(self, data: bytes, address: tuple[str, int]) -> None:
        try:
            request = stun.parse_message(data)
        except ValueError:
            self._sfu.rejected += 1
            return
        if request.message_class != stun.Class.REQUEST or not request.check_message_integrity(self.password.encode()):
            return
        response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, transaction_id=request.transaction_id)
        response.attributes["XOR-MAPPED-ADDRESS"] = address
        response.add_message_integrity(self.password.encode())
        self._address = address
        self._send_datagram(bytes(response))

    def _receive_dtls(self, data: bytes) -> None:
        was_connected = self.dtls.connected
        try:
            for datagram in self.dtls.receive(data):
                self._send_datagram(datagram)
        except SSL.Error as error:
            print(f"DTLS: {error}", file=sys.stderr)
            return
        if self.dtls.connected and not was_connected:
            self._sfu.connect(self)

    def _receive_rtp(self, data: bytes) -> None:
        packet = RtpPacket.parse(data)
        track = self.tracks.get(packet.ssrc)
        if track is not None:
            for subscription in track.subscriptions:
                subscription.forward(packet)

    def _receive_rtcp(self, data: bytes) -> None:
        for packet in RtcpPacket.parse(data):
            subscription = self.subscriptions.get(getattr(packet, "media_ssrc", 0))
            if subscription is None:
                continue
            if isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
                for sequence_number in packet.lost:
                    subscription.resend(sequence_number)
            elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_PLI:
                subscription.track.request_key_frame()

    def send(self, packet: RtpPacket) -> None:
        """Protect and send a packet."""
        self._protect_and_send(packet.serialize(), rtcp=False)

    def send_rtcp(self, packet: bytes) -> None:
        """Protect and send an RTCP packet."""
        self._protect_and_send(packet, rtcp=True)

    def _protect_and_send(self, packet: bytes, *, rtcp: bool) -> None:
        session: Session | None = self.dtls.outgoing
        if session is not None:
            self._send_datagram(session.protect_rtcp(packet) if rtcp else session.protect(packet))

    def _send_datagram(self, datagram: bytes) -> None:
        if self._transport is not None and self._address is not None:
            self._transport.sendto(datagram, self._address)

    def close(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.close()


class NaiveSfu:
    """Rooms, and the requests that change them."""

    def __init__(self, profile: str) -> None:
        self.context, self.fingerprint = server_context(profile)
        self.rejected = 0
        """Datagrams that did not authenticate or parse."""
        self._participants: dict[tuple[str, str], Participant] = {}

    async def join(self, request: dict[str, Any]) -> dict[str, Any]:
        """Open a transport for a participant; return its address, credentials and fingerprint."""
        participant = Participant(self, request)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: participant, local_addr=(ADDRESS, 0))
        udp: socket.socket = transport.get_extra_info("socket")
        self._participants[request["room"], request["identity"]] = participant
        return {
            "port": udp.getsockname()[1],
            "ufrag": participant.ufrag,
            "password": participant.password,
            "fingerprint": self.fingerprint,
        }

    def connect(self, participant: Participant) -> None:
        """Subscribe a participant whose transport is connected to the others of its room, and them to it."""
        for other in self._participants.values():
            if other.room == participant.room and other is not participant and other.dtls.connected:
                _subscribe(participant, other)
                _subscribe(other, participant)

    async def leave(self, request: dict[str, Any]) -> dict[str, Any]:
        """Remove a participant."""
        participant = self._participants.pop((request["room"], request["identity"]))
        participant.close()
        for other in self._participants.values():
            for track in other.tracks.values():
                track.subscriptions = [each for each in track.subscriptions if each.subscriber is not participant]
            for ssrc in [s for s, each in other.subscriptions.items() if each.track.publisher is participant]:
                del other.subscriptions[ssrc]
        return {}

    async def state(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Return how many participants are connected, and the errors so far."""
        connected = sum(each.dtls.connected for each in self._participants.values())
        return {"connected": connected, "rejected": self.rejected}


def _subscribe(subscriber: Participant, publisher: Participant) -> None:
    if subscriber.subscribe:
        for track in publisher.tracks.values():
            subscription = Subscription(track, subscriber)
            track.subscriptions.append(subscription)
            subscriber.subscriptions[subscription.ssrc] = subscription
            track.request_key_frame()


async def serve(profile: str) -> None:
    """Answer requests until stdin ends."""
    sfu = NaiveSfu(profile)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        request = json.loads(line)
        answer = await getattr(sfu, request.pop("do"))(request)
        print(json.dumps(answer), flush=True)


def main() -> None:
    """Run the process. Its arguments are the SRTP profile and the event loop, `asyncio` or `uvloop`."""
    profile, loop = sys.argv[1:]
    if loop == "uvloop":
        import uvloop

        uvloop.run(serve(profile))
    else:
        asyncio.run(serve(profile))


if __name__ == "__main__":
    main()
