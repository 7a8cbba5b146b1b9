"""The server in a process of its own, driven through a pipe: the engine as signalling drives it, without signalling.

Requests are tuples (verb, arguments); every one is answered.
"""

import asyncio
import os
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from bench.load import MID_ID, PAYLOAD_TYPE, TRANSPORT_CC_ID
from bench.servers.jit_symbols import write_perf_map
from sfu.engine import Engine, EngineOptions
from sfu.events import TransportConnected
from sfu.parameters import (
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
    ReceiverId,
    RemoteTransport,
    SubscribeParameters,
    TransportId,
)

RTX_PAYLOAD_TYPE = 97
MEDIA = MediaParameters(
    payload_types={
        PAYLOAD_TYPE: PayloadType(Codec.VP8, 90_000, nack=True),
        RTX_PAYLOAD_TYPE: PayloadType(Codec.RTX, 90_000, associated=PAYLOAD_TYPE),
    },
    extensions={MID_ID: Extension.MID, TRANSPORT_CC_ID: Extension.TRANSPORT_CC},
    mixed_extensions=True,
)


class Subject:
    """Answers the requests of the orchestrator."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connected: set[TransportId] = set()

    async def watch(self) -> None:
        while True:
            event = await self._engine.next_event()
            if isinstance(event, TransportConnected):
                self._connected.add(event.transport)

    async def transport(self) -> LocalTransport:
        return self._engine.open_transport()

    async def connect(self, transport: TransportId, ufrag: str, password: str, fingerprint: tuple[str, str]) -> None:
        self._engine.set_media(transport, MEDIA)
        remote = RemoteTransport(IceCredentials(ufrag, password), (fingerprint,), DtlsRole.SERVER)
        self._engine.connect(transport, remote)

    async def publish(self, transport: TransportId, ssrc: int) -> ReceiverId:
        return self._engine.publish(transport, PublishParameters(Kind.VIDEO, "0", (Encoding(ssrc=ssrc),)))

    async def subscribe(self, receiver: ReceiverId, transport: TransportId) -> LocalSubscription:
        parameters = SubscribeParameters("0", PAYLOAD_TYPE, RTX_PAYLOAD_TYPE, cname="bench")
        return self._engine.subscribe(receiver, transport, parameters)

    async def close(self, transport: TransportId) -> None:
        self._engine.close_transport(transport)

    async def connected(self) -> int:
        return len(self._connected)

    async def write_perf_map(self) -> str:
        return str(write_perf_map())

    async def drops(self) -> dict[str, int]:
        return {reason: count for reason, count in self._engine.drops().items() if count}


async def _serve(pipe: Connection, threads: int) -> None:
    engine = Engine(EngineOptions(udp_ports=(0,) * threads, bind=("127.0.0.1",), node_ips=("127.0.0.1",)))
    await engine.start()
    subject = Subject(engine)
    watcher = asyncio.create_task(subject.watch())
    loop = asyncio.get_running_loop()
    pipe.send((os.getpid(), engine.udp_port))
    while True:
        verb, arguments = await loop.run_in_executor(None, pipe.recv)
        if verb == "stop":
            break
        result: Any = await getattr(subject, verb)(*arguments)
        pipe.send(result)
    watcher.cancel()
    await engine.stop()
    pipe.send(None)


def main(pipe: Connection, core: int, threads: int = 1) -> None:
    """Entry of the child process, on this core and with so many media threads."""
    os.sched_setaffinity(0, {core})
    uvloop.run(_serve(pipe, threads))
