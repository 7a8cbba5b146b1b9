"""The media engine in its own process, without signalling. A pipe brings the calls that signalling would make.

A request is a tuple (verb, arguments) whose verb is the name of a method of `EngineServer`. Each is answered.
"""

import asyncio
import os
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from bench.plans import AUDIO_PAYLOAD_TYPE, RTX_PAYLOAD_TYPE, VIDEO_PAYLOAD_TYPE
from bench.servers.jit_symbols import write_perf_map
from sfu.engine import Engine, EngineOptions
from sfu.events import TransportConnected
from sfu.parameters import (
    MAX_TEMPORAL,
    Codec,
    DtlsRole,
    Encoding,
    Extension,
    IceCredentials,
    Kind,
    LocalSubscription,
    LocalTransport,
    MediaParameters,
    PayloadType,
    PublishParameters,
    RemoteTransport,
    SubscribeParameters,
    SubscriptionId,
    TrackId,
    TransportId,
)

MID_ID, TRANSPORT_CC_ID = 4, 3
MEDIA = MediaParameters(
    payload_types={
        AUDIO_PAYLOAD_TYPE: PayloadType(Codec.OPUS, 48_000),
        VIDEO_PAYLOAD_TYPE: PayloadType(Codec.VP8, 90_000, nack=True),
        RTX_PAYLOAD_TYPE: PayloadType(Codec.RTX, 90_000, associated=VIDEO_PAYLOAD_TYPE),
    },
    extensions={MID_ID: Extension.MID, TRANSPORT_CC_ID: Extension.TRANSPORT_CC},
    mixed_extensions=True,
    unnumbered=frozenset(Kind),  # viewers send no feedback, and nothing is to be limited for lack of it
)


class EngineServer:
    """The methods that requests call."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connected: set[TransportId] = set()

    async def watch(self) -> None:
        """Note which transports have connected."""
        while True:
            event = await self._engine.next_event()
            if isinstance(event, TransportConnected):
                self._connected.add(event.transport)

    def open(self) -> LocalTransport:
        """Open a transport."""
        return self._engine.open_transport()

    def connect(self, transport: TransportId, ufrag: str, password: str, fingerprint: tuple[str, str]) -> None:
        """Connect a transport to a peer with these ICE credentials and this (hash name, fingerprint)."""
        self._engine.set_media(transport, MEDIA)
        remote = RemoteTransport(IceCredentials(ufrag, password), (fingerprint,), DtlsRole.SERVER)
        self._engine.connect(transport, remote)

    def publish(self, transport: TransportId, kind: str, mid: str, ssrcs: list[int]) -> TrackId:
        """Publish `audio` or `video` with one SSRC for each layer, lowest first."""
        encodings = tuple(Encoding(ssrc=ssrc) for ssrc in ssrcs)
        return self._engine.publish(transport, PublishParameters(Kind[kind.upper()], mid, encodings))

    def subscribe(self, track: TrackId, transport: TransportId, kind: str, mid: str) -> LocalSubscription:
        """Forward a track to a transport."""
        numbers = (VIDEO_PAYLOAD_TYPE, RTX_PAYLOAD_TYPE) if kind == "video" else (AUDIO_PAYLOAD_TYPE, -1)
        return self._engine.subscribe(track, transport, SubscribeParameters(mid, *numbers, cname="bench"))

    def choose_layer(self, subscription: SubscriptionId, layer: int) -> None:
        """Forward layers up to this one; 0 is the lowest."""
        self._engine.set_layers(subscription, layer, MAX_TEMPORAL)

    def close(self, transport: TransportId) -> None:
        """Close a transport with everything that is received or sent on it."""
        self._engine.close_transport(transport)
        self._connected.discard(transport)

    def connected(self) -> int:
        """Return how many transports are connected."""
        return len(self._connected)

    def write_perf_map(self) -> str:
        """Write the names of the loaded kernels for perf; return the file's path."""
        return str(write_perf_map())

    def drops(self) -> dict[str, int]:
        """Return how many packets were dropped, by reason."""
        return {reason: count for reason, count in self._engine.drops().items() if count}


async def _serve(pipe: Connection, threads: int) -> None:
    engine = Engine(EngineOptions(udp_ports=(0,) * threads, bind=("127.0.0.1",), node_ips=("127.0.0.1",)))
    await engine.start()
    server = EngineServer(engine)
    watcher = asyncio.create_task(server.watch())
    loop = asyncio.get_running_loop()
    pipe.send((os.getpid(), engine.udp_port))
    while True:
        verb, arguments = await loop.run_in_executor(None, pipe.recv)
        if verb == "stop":
            break
        result: Any = getattr(server, verb)(*arguments)
        pipe.send(result)
    watcher.cancel()
    await engine.stop()
    pipe.send(None)


def main(pipe: Connection, threads: int) -> None:
    """Run the child process: send (pid, port), then answer until "stop". `threads` are media threads."""
    uvloop.run(_serve(pipe, threads))
