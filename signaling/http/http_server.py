"""The HTTP server: uvicorn with our protocols and limits, behind an acceptor that decides where connections go.

Who calls it: `listener.py`, for the main port and for that of metrics.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import cast

import uvicorn
from starlette.applications import Starlette

from signaling.config.values import IpNetwork
from signaling.http.acceptor import Acceptor
from signaling.http.arrivals import Services, TakeFramed, take_nothing
from signaling.http.certificates import Certificates
from signaling.http.first_bytes import Address
from signaling.http.http_protocol import (
    MAX_CONNECTIONS,
    MAX_REQUEST_HEAD_BYTES,
    Intake,
    ShortLivedHttp,
    SignalProtocol,
    limit_websockets,
)

MAX_MESSAGE_BYTES = 2 * 1024 * 1024
"""The largest WebSocket message, which is livekit-server's limit. A larger one closes the socket with 1009."""
PING_INTERVAL_S = 30.0
PING_TIMEOUT_S = 10.0
"""How long the answer to a WebSocket ping may take. The pings are for proxies, which close silent sockets after a
minute, and for clients that do not send pings as messages. Of those that do, as LiveKit's SDKs, silence is noticed
sooner."""
SHUTDOWN_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class Doors:
    """What a server takes beside plain HTTP from clients themselves."""

    certificates: Certificates
    """For TLS."""
    proxy_networks: tuple[IpNetwork, ...] = ()
    """Where proxies are whose connections begin with a PROXY header."""
    take_framed: TakeFramed = take_nothing
    """Takes over connections of ICE-TCP and TURN."""


class HttpServer(uvicorn.Server):
    """Uvicorn behind an acceptor of ours, with an event that is set when it listens, and without its signal handlers.

    Those would raise the signal again at the end, which would change the exit status.
    """

    def __init__(self, config: uvicorn.Config, intake: Intake, doors: Doors) -> None:
        """Take uvicorn's own configuration. The server belongs to the running event loop."""
        super().__init__(config)
        self.intake = intake
        self.listening = asyncio.Event()
        services = Services(self._open, doors.certificates, intake.dropped, doors.take_framed)
        self._acceptor = Acceptor(
            services,
            lambda: len(self.server_state.connections),
            MAX_CONNECTIONS,
            intake.make_room,
            doors.proxy_networks,
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on `sockets`, then set `listening`.

        Raises:
            OSError: another process listens there.
        """
        await self.lifespan.startup()
        self._acceptor.listen(sockets or ())
        # What uvicorn closes when it ends.
        self.servers = [cast("asyncio.Server", self._acceptor)]
        self.started = True
        self.listening.set()

    def _open(self, client: Address | None) -> asyncio.Protocol:
        """Make the protocol of a connection; `client` is where it comes from, if a proxy told it."""
        make = cast("Callable[..., ShortLivedHttp]", self.config.http_protocol_class)
        return make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state, told_client=client
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Do nothing: `serve` handles signals."""
        yield


def http_server(app: Starlette, doors: Doors | None = None) -> HttpServer:
    """Configure uvicorn for `app`: LiveKit's limits, no compression, and no log of request lines, which hold tokens."""
    limit_websockets()
    intake = Intake()
    return HttpServer(
        uvicorn.Config(
            app,
            # h11 bounds the head of a request (httptools does not); after the upgrade it is out of the way.
            http=cast("type[asyncio.Protocol]", partial(ShortLivedHttp, intake=intake)),
            h11_max_incomplete_event_size=MAX_REQUEST_HEAD_BYTES,
            ws=cast("type[asyncio.Protocol]", partial(SignalProtocol, intake=intake)),
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_ping_interval=PING_INTERVAL_S,
            ws_ping_timeout=PING_TIMEOUT_S,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            log_level="error",  # its warnings are of each request that it cannot read or has no room for
            access_log=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        ),
        intake,
        doors or Doors(Certificates(None)),
    )
