"""A client for tests that turn the media loop by hand: a socket of loopback, libsrtp, and a transport row.

It is reached over UDP, or in frames as over TCP.
"""

import contextlib
import socket
from typing import Protocol

from pylibsrtp._binding import ffi

from sfu.control.net.sockets import Sockets
from sfu.control.rows import Tables
from sfu.parameters import IceCredentials, MediaParameters
from sfu.schema.capacities import MEDIA_PER_TRANSPORT
from sfu.schema.codes import Command
from tests.sfu.support.ice import PASSWORD, binding_request
from tests.sfu.support.publisher import srtp_pair
from tests.sfu.support.tcp_end import TcpEnd, steady_pair


class Call(Protocol):
    """What a peer needs of the server's side."""

    tables: Tables
    sockets: Sockets

    def command(self, kind: Command, row: int, generation: int, **fields: int) -> None:
        """Put a command into the queue of the media thread."""

    def turn(self) -> None:
        """One turn of the media loop."""


def _bound() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    made.bind(("127.0.0.1", 0))
    made.setblocking(False)
    return made


class SocketPeer:
    """One client, connected."""

    def __init__(
        self,
        call: Call,
        ufrag: str,
        our_ssrc: int,
        media: MediaParameters,
        path_memory: int = 0,
        tcp_buffer_bytes: int | None = None,
    ) -> None:
        """tcp_buffer_bytes: what the operating system keeps of a connection in frames, 0: as much as it likes; None: it
        is reached over UDP."""
        self._port, self._ufrag = call.sockets.port, ufrag
        self.tcp: TcpEnd | None = None
        self.socket = _bound()
        self.outgoing, self._server_in = srtp_pair()
        self._server_out, self.incoming = srtp_pair()
        self.our_ssrc = our_ssrc
        self.row, self.generation = call.tables.take_transport(
            IceCredentials(ufrag, PASSWORD), our_ssrc, resumed_bps=path_memory
        )
        media_row = self.row * MEDIA_PER_TRANSPORT + 1
        call.tables.write_media(media_row, media)
        call.command(Command.OPEN_TRANSPORT, self.row, self.generation)
        call.command(Command.SET_MEDIA, self.row, self.generation, other_row=media_row)
        sessions = [int(ffi.cast("uintptr_t", each._srtp[0])) for each in (self._server_in, self._server_out)]
        call.command(Command.START_SRTP, self.row, self.generation, srtp_in=sessions[0], srtp_out=sessions[1])
        if tcp_buffer_bytes is not None:
            self.connect_tcp(call, tcp_buffer_bytes)
            return
        self.send_datagram(binding_request(ufrag=ufrag, nominate=True))
        call.turn()
        assert len(self.datagrams()) == 1

    def connect_tcp(self, call: Call, buffer_bytes: int) -> None:
        """Go on over a new connection, after the former one has ended."""
        if self.tcp is not None:
            self.tcp.close()
        self.tcp = TcpEnd(call.tables, call.command, buffer_bytes, steady_pair)
        self.send_datagram(binding_request(ufrag=self._ufrag, nominate=True))
        call.turn()
        assert self.datagrams()

    def close(self) -> None:
        """Close what the operating system holds."""
        self.socket.close()
        if self.tcp is not None:
            self.tcp.close()

    def move(self) -> None:
        """Go on from another port, which the server has to check first."""
        self.socket.close()
        self.socket = _bound()
        self.send_datagram(binding_request(ufrag=self._ufrag, nominate=True))

    def send_datagram(self, data: bytes) -> None:
        """A datagram that arrives at the server at once."""
        if self.tcp is not None:
            self.tcp.send(data)
            return
        self.socket.sendto(data, ("127.0.0.1", self._port))

    def send_rtp(self, data: bytes) -> None:
        """A plaintext RTP packet, protected."""
        self.send_datagram(self.outgoing.protect(data))

    def send_rtcp(self, data: bytes) -> None:
        """A plaintext RTCP compound, protected."""
        self.send_datagram(self.outgoing.protect_rtcp(data))

    def datagrams(self) -> list[bytes]:
        """Everything that the server sent since the last call; loopback delivers before sendmmsg returns."""
        if self.tcp is not None:
            return self.tcp.packets()
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(2048))
        return found
